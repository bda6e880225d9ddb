//! `egret explain POD [DESTINATION]`.
//!
//! In: a pod's name, perhaps a destination. Out: text or JSON. Never: changes anything.

use std::net::IpAddr;

use clap::Args;

use super::{Common, Output};
use crate::egress::explain::{Explanation, UNKNOWN_NAMESPACE, explain};
use crate::egress::model::PodName;
use crate::node::embedded::Embedded;

/// Its arguments.
#[derive(Debug, Clone, Args)]
pub struct ExplainArgs {
    /// The pod, as NAMESPACE/NAME
    #[arg(value_name = "POD")]
    pod: String,
    /// An address outside; without it, every rule is shown
    #[arg(value_name = "DESTINATION")]
    destination: Option<IpAddr>,
}

/// Explains one pod; `false` if neither it nor its namespace is known.
///
/// # Errors
/// The directory cannot be read.
pub fn run(common: &Common, args: &ExplainArgs) -> Result<(String, bool), String> {
    let (namespace, name) = args.pod.split_once('/').unwrap_or(("default", &args.pod));
    let node = Embedded::look(&common.config()?).map_err(|e| e.to_string())?;
    let (view, objects, problems) = node.whole_view().map_err(|e| e.to_string())?;
    let mut explanation = explain(&view, &PodName::new(namespace, name), args.destination);
    explanation.problems = explanation.problems.into_iter().map(|problem| objects.placed(problem)).collect();
    explanation.problems.extend(problems);
    explanation.problems.dedup();
    // A name that nothing is known of is a slip of the pen: scripts must not take the answer for one about their pod.
    let guessed = explanation.problems.iter().any(|problem| problem.reason == UNKNOWN_NAMESPACE);
    let known = !explanation.items.is_empty() && !guessed;
    Ok((print(&explanation, common.output)?, known))
}

fn print(explanation: &Explanation, output: Output) -> Result<String, String> {
    match output {
        Output::Text => Ok(explanation.to_string()),
        Output::Json => {
            serde_json::to_string_pretty(explanation).map(|text| text + "\n").map_err(|e| e.to_string())
        }
    }
}
