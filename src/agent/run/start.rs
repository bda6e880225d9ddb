//! Before the loop: signals that wait for a pause between two jobs, and a cluster that was heard of once.
//!
//! In: nothing, or a cluster. Out: where signals are read; whether to begin. Never: does a job.

use std::time::Duration;

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use crate::agent::cluster::Cluster;
use crate::agent::health::Known;

/// Waits until everything was heard of once, however long that takes: with less than all, pods would be let go. Says whether it
/// was, before we were told to end.
pub(super) fn first_heard(cluster: &Cluster, signals: &SignalFd, known: &Known) -> bool {
    while !cluster.is_synced() {
        known.beat();
        if let Ok(Some(_)) = signals.read_signal() {
            return false;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    true
}

/// SIGTERM and SIGINT are read between two jobs, so that none is cut in half. What is wired stays.
pub(super) fn signals() -> Result<SignalFd, String> {
    let mut set = SigSet::empty();
    set.add(Signal::SIGTERM);
    set.add(Signal::SIGINT);
    set.thread_block().map_err(|e| format!("signals cannot be blocked: {e}"))?;
    SignalFd::with_flags(&set, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)
        .map_err(|e| format!("signals cannot be read: {e}"))
}
