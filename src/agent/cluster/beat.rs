//! The agent's sign of life: a Lease per node, written every 10 s, by which the controller knows that somebody is at work here (and not only that a process lives),
//! and which clients it does not serve.
//!
//! In: a client, the node's name. Out: an object that only the controller follows. Never: stops anything; who cannot be written
//! is written later.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, SystemTime};

use crate::agent::passing::Passing;
use crate::egress::model::PodName;
use crate::kube::lease::{self, LeaseSpec, Noted};
use crate::kube::{ApiError, Client};
use crate::probes::turns::Turns;

/// How often.
const EVERY: Duration = Duration::from_secs(10);
/// After so long it is no longer true; three are missing then.
const LASTS: u32 = 30;
/// So many clients are named, of each sort.
const MOST: usize = 500;
/// Sooner, after one that could not be written.
const RETRY: Duration = Duration::from_secs(2);

/// Who gives signs of life.
pub(super) struct Beat {
    client: Arc<Client>,
    node: String,
    passing: Arc<OnceLock<Passing>>,
    unwired: Arc<Mutex<BTreeSet<PodName>>>,
    turns: Arc<Turns>,
}

impl Beat {
    /// Of a node's agent, as long as its loops turn. It tells of clients whose traffic passes by, and of those that were started without us.
    pub(super) fn new(
        client: Arc<Client>,
        node: &str,
        (passing, unwired): (Arc<OnceLock<Passing>>, Arc<Mutex<BTreeSet<PodName>>>),
        turns: Arc<Turns>,
    ) -> Beat {
        Beat { client, node: node.to_owned(), passing, unwired, turns }
    }

    /// Gives them once everything was heard of, as `synced` says.
    ///
    /// # Errors
    /// If no thread can be started.
    pub(super) fn start(self, synced: impl Fn() -> bool + Send + 'static) -> std::io::Result<()> {
        let named = thread::Builder::new().name("beat".to_owned()).stack_size(256 << 10);
        named.spawn(move || self.run(&synced)).map(drop)
    }

    fn run(&self, synced: &dyn Fn() -> bool) -> ! {
        // Until then pods cannot be served, and the network list may have no entry: such a node is one without an agent, also where an
        // earlier one served them.
        while !synced() {
            thread::sleep(RETRY);
        }
        let mut trouble = String::new();
        loop {
            if let Err(why) = self.turns.alive() {
                // A process that does nothing is no agent: the controller shall say so.
                if trouble != "still" {
                    tracing::error!(why, "no sign of life is given until it goes on");
                    "still".clone_into(&mut trouble);
                }
                thread::sleep(RETRY);
                continue;
            }
            let pause = match beat(&self.client, &self.node, &self.noted()) {
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
    }

    /// Clients that this agent does not serve, as the controller reads them.
    fn noted(&self) -> Noted {
        let bypassed = self.passing.get().map(Passing::bypassed).unwrap_or_default();
        let unwired = self.unwired.lock().unwrap_or_else(PoisonError::into_inner);
        Noted { bypassed: names(bypassed.keys()), unwired: names(unwired.iter()) }
    }
}

fn names<'a>(pods: impl Iterator<Item = &'a PodName>) -> String {
    pods.take(MOST).map(ToString::to_string).collect::<Vec<_>>().join(",")
}

fn beat(client: &Client, node: &str, noted: &Noted) -> Result<(), ApiError> {
    let name = lease::beat_of(node);
    let found = lease::read(client, &name)?;
    let now = lease::micro_time(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default());
    let spec = LeaseSpec {
        holder_identity: node.to_owned(),
        lease_duration_seconds: LASTS,
        renew_time: Some(now),
        ..LeaseSpec::default()
    };
    lease::noting(client, &name, &spec, noted, found.as_ref().map(|found| found.version.as_str())).map(drop)
}
