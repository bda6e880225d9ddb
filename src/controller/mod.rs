//! `egret controller`: one process of a cluster that says how things are and clears away what is left over.
//!
//! What many agents know in part is put together here: conditions and counts on our objects, pods that no agent serves, leases of
//! nodes and workloads that are gone, nodes without an agent. The middle is pure: objects in, writes out; [`lead`] decides which of
//! several processes works, [`run`] waits, asks and writes.
//!
//! In: a cluster. Out: status, a taint, freed leases. Never: does anything that traffic needs; while it is away, nothing that
//! runs notices. How it is itself it says by [pages](crate::probes).

use std::time::{Duration, SystemTime};

pub mod act;
pub mod agents;
pub mod conditions;
pub mod election;
pub mod families;
mod health;
pub mod lead;
pub mod pace;
pub mod ranges;
pub mod reclaim;
pub mod run;
pub mod status;
pub mod taints;
pub mod tally;
#[cfg(test)]
mod tests;
pub mod world;

/// What a person may choose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Whether nodes whose agent is away are tainted.
    pub taint: bool,
    /// After how long without a sign of life an agent is away. It gives one every 10 s.
    pub silence: Duration,
    /// How long a node or a workload must be gone before its leases are freed.
    pub reclaim_after: Duration,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings { taint: true, silence: Duration::from_secs(30), reclaim_after: Duration::from_secs(60) }
    }
}

/// The time of day since 1970: the one place where the controller asks for it. What lasts is measured by [`lead::Leading::now`], which nobody
/// sets.
fn time_of_day() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}
