//! Before the loop: a cluster that was heard of once.
//!
//! In: a cluster. Out: whether to begin. Never: does a job.

use std::time::Duration;

use nix::sys::signalfd::SignalFd;

use crate::agent::cluster::Cluster;

/// Waits until everything was heard of once, however long that takes: with less than all, pods would be let go. Says whether it
/// was, before we were told to end.
pub(super) fn first_heard(cluster: &Cluster, signals: &SignalFd) -> bool {
    while !cluster.is_synced() {
        if let Ok(Some(_)) = signals.read_signal() {
            return false;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    true
}
