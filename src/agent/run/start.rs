//! Before the loop: the node, the right to be its agent, a cluster that was heard of once.
//!
//! In: a configuration, a cluster. Out: what the loop begins with, or why it does not. Never: does a job.

use std::sync::Arc;
use std::time::Duration;

use nix::sys::signalfd::SignalFd;

use super::{AgentError, PATIENCE};
use crate::agent::calls::Calls;
use crate::agent::cluster::Cluster;
use crate::agent::door::Gate;
use crate::agent::state::LOCK;
use crate::config::{Config, Mode};
use crate::node::embedded::Embedded;
use crate::node::kept::Kept;
use crate::node::memory::Memory;
use crate::node::records::node_name;
use crate::store::{Guard, LockError, lock};

/// How long an agent that ends, or was killed, may hold its place: a program that it was just starting has its files open until it runs.
const PREDECESSOR: Duration = Duration::from_secs(3);

/// Waits until everything was heard of once, by this agent or an earlier one, however long that takes: a node of which nothing is known has
/// nothing to be kept. Where something of it was lost since there is a plan to be kept, and none is made before all is there. Says whether
/// it was, before we were told to end.
pub(super) fn first_heard(cluster: &Cluster, signals: &SignalFd, calls: &Calls) -> bool {
    while !cluster.is_synced() && cluster.lacks().is_none() {
        calls.finish();
        if let Ok(Some(_)) = signals.read_signal() {
            return false;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    true
}

/// The node. Its directory is made only where nothing is wired: a directory that is missing under running pods is not mounted.
pub(super) fn open(config: &Config) -> Result<Embedded, String> {
    let name = node_name(config).map_err(|e| e.to_string())?;
    let memory = Memory::new(&config.run_dir, &name);
    let wired = memory.serves_pods();
    let mut node =
        if wired { Embedded::at(config) } else { Embedded::open(config) }.map_err(|e| e.to_string())?;
    // A cluster's agent has heard of everything before it does anything, wherever it keeps that.
    if config.mode == Mode::Embedded {
        node.must_be_its_directory().map_err(|e| e.to_string())?;
    }
    node.patience = PATIENCE;
    Ok(node.keeping(&Arc::new(Kept::default())))
}

/// The right to be this node's agent, for as long as it is kept.
pub(super) fn take_turn(memory: &Memory) -> Result<Guard, AgentError> {
    std::fs::create_dir_all(memory.dir())
        .map_err(|e| AgentError::Unable(format!("cannot make {}: {e}", memory.dir().display())))?;
    match lock(&memory.dir().join(LOCK), "egret agent", PREDECESSOR) {
        Ok(guard) => Ok(guard),
        Err(busy @ LockError::Busy { .. }) => Err(AgentError::Another(busy)),
        Err(error) => Err(AgentError::Unable(error.to_string())),
    }
}
