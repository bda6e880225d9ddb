//! Running clients whose traffic came to pass this node by: looked for on a thread of its own, because a packet that does not arrive is
//! waited for.
//!
//! In: the node's files and kernel. Out: problems, as of the last look. Never: changes anything; keeps the agent waiting.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use crate::agent::in_force::InForce;
use crate::egress::model::PodName;
use crate::node::embedded::Embedded;
use crate::node::passage::BYPASSED;
use crate::problem::Problem;

/// Between two looks.
const REGULARLY: Duration = Duration::from_secs(5);

/// What the last look found.
#[derive(Debug, Default, Clone)]
pub(super) struct Passing(Arc<Mutex<Vec<Problem>>>);

impl Passing {
    /// Begins to look, until the process ends.
    pub(super) fn begin(&self, config: InForce) -> io::Result<()> {
        let found = self.clone();
        let look = move || {
            loop {
                let config = config.now();
                match Embedded::look(&config).map_err(|e| e.to_string()).and_then(|node| bypassed(&node)) {
                    Ok(problems) => found.now(problems),
                    Err(error) => tracing::debug!(error, "whether clients' traffic passes here is not known"),
                }
                thread::sleep(REGULARLY);
            }
        };
        thread::Builder::new().name("passing".to_owned()).spawn(look).map(drop)
    }

    fn now(&self, problems: Vec<Problem>) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for problem in problems.iter().filter(|problem| !known.contains(problem)) {
            tracing::warn!(
                object = problem.object,
                why = problem.message,
                "a client's traffic passes this node by"
            );
        }
        *known = problems;
    }

    /// The last look's problems.
    pub(super) fn problems(&self) -> Vec<Problem> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Pods that the last look found so, and why.
    pub(super) fn bypassed(&self) -> BTreeMap<PodName, String> {
        let named = self.problems().into_iter().filter(|problem| problem.reason == BYPASSED);
        let pod =
            |object: &str| object.strip_prefix("Pod ")?.split_once('/').map(|(n, p)| PodName::new(n, p));
        named.filter_map(|problem| Some((pod(&problem.object)?, problem.message))).collect()
    }
}

fn bypassed(node: &Embedded) -> Result<Vec<Problem>, String> {
    node.bypassed().map_err(|e| e.to_string())
}
