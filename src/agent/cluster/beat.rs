//! The agent's sign of life: a Lease per node, written every 10 s, by which the controller knows that somebody is at work here,
//! and which clients' traffic passes the node by.
//!
//! In: a client, the node's name. Out: an object that only the controller follows. Never: stops anything; who cannot be written
//! is written later.

use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, SystemTime};

use crate::agent::passing::Passing;
use crate::kube::lease::{self, LeaseSpec};
use crate::kube::{ApiError, Client};
use crate::node::passage::BYPASSED;

/// How often.
const EVERY: Duration = Duration::from_secs(10);
/// After so long it is no longer true; three are missing then.
const LASTS: u32 = 30;
/// So many bypassed clients are named.
const MOST: usize = 500;
/// Sooner, after one that could not be written.
const RETRY: Duration = Duration::from_secs(2);

/// Gives signs of life as long as the process lives.
///
/// # Errors
/// If no thread can be started.
pub(super) fn start(
    client: Arc<Client>,
    node: String,
    passing: Arc<OnceLock<Passing>>,
) -> std::io::Result<()> {
    let beat = move || {
        let mut trouble = String::new();
        loop {
            let pause = match beat(&client, &node, &bypassed(&passing)) {
                Ok(()) => {
                    trouble.clear();
                    EVERY
                }
                Err(error) if error.is_conflict() => RETRY,
                Err(error) => {
                    let why = error.to_string();
                    if trouble != why {
                        tracing::warn!(
                            why,
                            "the controller does not hear that this agent lives; tried again"
                        );
                        trouble = why;
                    }
                    // Without a controller nobody may have granted it, and nobody misses it.
                    if error.is_forbidden() || error.is_absent() { EVERY } else { RETRY }
                }
            };
            thread::sleep(pause);
        }
    };
    thread::Builder::new().name("beat".to_owned()).stack_size(256 << 10).spawn(beat).map(drop)
}

/// Clients whose traffic passes this node by, as the controller reads them.
fn bypassed(passing: &OnceLock<Passing>) -> String {
    let problems = passing.get().map(Passing::problems).unwrap_or_default();
    let named = problems.iter().filter(|problem| problem.reason == BYPASSED);
    let pods: Vec<&str> =
        named.filter_map(|problem| problem.object.strip_prefix("Pod ")).take(MOST).collect();
    pods.join(",")
}

fn beat(client: &Client, node: &str, bypassed: &str) -> Result<(), ApiError> {
    let name = lease::beat_of(node);
    let found = lease::read(client, &name)?;
    let now = lease::micro_time(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default());
    let spec = LeaseSpec {
        holder_identity: node.to_owned(),
        lease_duration_seconds: LASTS,
        renew_time: Some(now),
        ..LeaseSpec::default()
    };
    lease::noting(client, &name, &spec, bypassed, found.as_ref().map(|found| found.version.as_str()))
        .map(drop)
}
