//! What is left over of nodes and workloads that are gone. Pure; the clock is an argument.
//!
//! In: the world, the time since this process began. Out: what is gone, and what has been gone long enough. Never: counts a node as
//! gone that is only silent: it may still answer for its addresses, and no two nodes ever may.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use super::agents::Agent;
use super::world::World;
use crate::ipam::Owner;

/// Something that left leases or records behind.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Remnant {
    /// A node without Node object, whose agent is not heard either.
    Node(String),
    /// A node of which somebody said that nothing runs there any more (`node.kubernetes.io/out-of-service`).
    OutOfService(String),
    /// An owner for whom an address is reserved, and whose workload is gone or scaled below it.
    Owner(Owner),
}

impl fmt::Display for Remnant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Remnant::Node(node) => write!(f, "node {node}"),
            Remnant::OutOfService(node) => write!(f, "node {node}, which is out of service"),
            Remnant::Owner(owner) => write!(f, "{owner}"),
        }
    }
}

/// What is gone now and has something left.
pub fn remnants(world: &World) -> BTreeSet<Remnant> {
    let mut all = BTreeSet::new();
    let is_silent = |agent: Agent| matches!(agent, Agent::Away | Agent::Never);
    let gone = |node: &&String| world.ghosts.get(*node).is_some_and(|agent| is_silent(*agent));
    let away = |node: &&String| world.out_of_service.contains(*node) && is_silent(world.agent(node));
    let holders = world.blocks.iter().flat_map(|b| b.allocations.values()).filter_map(|a| a.holder.as_ref());
    let named: BTreeSet<&String> =
        holders.map(|h| &h.node).chain(world.view.endpoints.iter().map(|e| &e.node)).collect();
    all.extend(named.iter().copied().filter(away).cloned().map(Remnant::OutOfService));
    let claimed = world.blocks.iter().filter_map(|b| b.affinity.as_ref());
    let recorded = world.nodes.iter().map(|(_, node)| &node.name);
    let named = named.into_iter().chain(claimed).chain(recorded);
    all.extend(named.filter(gone).cloned().map(Remnant::Node));
    let reserved = world.blocks.iter().flat_map(|b| b.allocations.values());
    let reserved = reserved.filter(|a| a.holder.is_none() && a.freed_at.is_none()).map(|a| &a.owner);
    all.extend(reserved.filter(|owner| is_gone(world, owner)).cloned().map(Remnant::Owner));
    all
}

/// Whether an owner's workload is gone. Of what only people or other releases know, nobody can say.
fn is_gone(world: &World, owner: &Owner) -> bool {
    match owner {
        Owner::PodUid(uid) => !world.pod_uids.contains(uid),
        Owner::Ordinal { namespace, stateful_set, ordinal } => {
            let set = world.stateful_sets.get(&format!("{namespace}/{stateful_set}"));
            set.is_none_or(|set| !set.contains(&u64::from(*ordinal)))
        }
        Owner::Slot { .. } | Owner::Container { .. } | Owner::Other(_) => false,
    }
}

/// Since when things are gone, as far as we saw.
#[derive(Debug, Default)]
pub struct Patience(BTreeMap<Remnant, Duration>);

impl Patience {
    /// What has been gone for so long, without being there in between. `hears_since`: since when we hear of changes.
    pub fn ripe(
        &mut self,
        gone: BTreeSet<Remnant>,
        now: Duration,
        hears_since: Duration,
        wait: Duration,
    ) -> Vec<Remnant> {
        let since = |remnant: Remnant| {
            let at = self.0.get(&remnant).copied().unwrap_or(now).max(hears_since);
            (remnant, at)
        };
        self.0 = gone.into_iter().map(since).collect();
        self.0.iter().filter(|(_, at)| now >= **at + wait).map(|(remnant, _)| remnant.clone()).collect()
    }

    /// When the next will be ripe.
    pub fn due(&self, now: Duration, wait: Duration) -> Option<Duration> {
        self.0.values().map(|at| *at + wait).filter(|at| *at > now).min()
    }
}
