//! `egret explain POD [DESTINATION]`.
//!
//! In: a pod's name, perhaps a destination. Out: text or JSON. Never: changes anything.

use std::net::IpAddr;

use clap::Args;

use super::known::Known;
use super::{Common, Output, Refused, json};
use crate::addr::Family;
use crate::egress::explain::{Explanation, Item, UNKNOWN_NAMESPACE, explain};
use crate::egress::model::PodName;

/// Its arguments.
#[derive(Debug, Clone, Args)]
pub struct ExplainArgs {
    /// The pod, as NAMESPACE/NAME, or NAME with -n
    #[arg(value_name = "POD")]
    pod: String,
    /// An address outside; without it, every rule is shown
    #[arg(value_name = "DESTINATION")]
    destination: Option<IpAddr>,
}

/// Explains one pod; `false` if neither it nor its namespace is known.
///
/// # Errors
/// Nothing is known.
pub fn run(common: &Common, args: &ExplainArgs) -> Result<(String, bool), Refused> {
    let known = Known::look(common)?;
    let (namespace, name) = args.pod.split_once('/').unwrap_or((&known.namespace, &args.pod));
    let mut explanation = explain(&known.view, &PodName::new(namespace, name), args.destination);
    for item in &mut explanation.items {
        forget_assumed(&known, item);
    }
    let items = &explanation.items;
    let concerned = |pod: &PodName| {
        let mut gateways = items.iter().flat_map(|item| &item.gateways);
        gateways.any(|gateway| gateway.pod.as_ref() == Some(pod))
    };
    let note = known.note(concerned);
    explanation.notes.extend(note);
    let placed = explanation.problems.into_iter().map(|problem| known.objects.placed(problem));
    explanation.problems = placed.collect();
    explanation.problems.extend(known.problems);
    explanation.problems.dedup();
    // A name that nothing is known of is a slip of the pen: scripts must not take the answer for one about their pod.
    let guessed = explanation.problems.iter().any(|problem| problem.reason == UNKNOWN_NAMESPACE);
    let known = !explanation.items.is_empty() && !guessed;
    Ok((print(&explanation, common.output)?, known))
}

/// Takes back the addresses that nobody has leased yet.
fn forget_assumed(known: &Known, item: &mut Item) {
    let address = item.destination.split('/').next().and_then(|text| text.parse().ok());
    let Some(family) = address.map(|ip: IpAddr| Family::of(ip)) else { return };
    for gateway in &mut item.gateways {
        let address = gateway.egress_address;
        known.forget_assumed(gateway, family);
        if gateway.egress_address.is_none() {
            item.sources.retain(|source| Some(*source) != address);
        }
    }
}

fn print(explanation: &Explanation, output: Output) -> Result<String, Refused> {
    match output {
        Output::Json => Ok(json(explanation)?),
        _ => Ok(explanation.to_string()),
    }
}
