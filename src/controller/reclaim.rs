//! What is left over of nodes and workloads that are gone. Pure; the clock is an argument.
//!
//! In: the world, the time since this process began. Out: what is gone, and what has been gone long enough. Never: counts a node as
//! gone that is only silent: it may still answer for its addresses, and no two nodes ever may.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use super::agents::Agent;
use super::world::World;
use crate::addr::Cidr;
use crate::egress::model::PodName;
use crate::ipam::{Block, Owner};
use crate::kube::Watched;

/// Something that left leases or records behind.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Remnant {
    /// A node without Node object, whose agent is not heard either.
    Node(String),
    /// A node of which somebody said that nothing runs there any more (`node.kubernetes.io/out-of-service`).
    OutOfService(String),
    /// A node that is there, whose agent is silent and meant to be: it has no agent's pod, while others with theirs are heard.
    Agent(String),
    /// An owner for whom an address is reserved, and whose workload is gone or scaled below it; and the pod that had it last.
    Owner(Owner, Option<PodName>),
    /// A block of which nothing has been in use for long: its pool, its range, and its sequence, which every lease raises.
    Block(String, Cidr, u64),
}

/// Seconds for which nothing of a block must have been in use: it would soon be made again for a pool whose gateways are made anew.
pub const EMPTY: u32 = 3600;

/// What absence is read from. While one of these cannot be seen, what is new of it is not known, and everything new seems to be gone.
const READ: [Watched; 5] =
    [Watched::Nodes, Watched::Pods, Watched::StatefulSets, Watched::Blocks, Watched::Beats];

impl fmt::Display for Remnant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Remnant::Node(node) => write!(f, "node {node}"),
            Remnant::OutOfService(node) => write!(f, "node {node}, which is out of service"),
            Remnant::Agent(node) => {
                write!(f, "the agent of node {node}, which is not meant to have one any more")
            }
            Remnant::Owner(owner, _) => write!(f, "{owner}"),
            Remnant::Block(pool, cidr, _) => write!(f, "block {cidr} of pool `{pool}`, which is empty"),
        }
    }
}

impl Remnant {
    /// As it is counted.
    pub fn word(&self) -> &'static str {
        match self {
            Remnant::Node(_) => "node",
            Remnant::OutOfService(_) => "outOfService",
            Remnant::Agent(_) => "agent",
            Remnant::Owner(..) => "owner",
            Remnant::Block(..) => "block",
        }
    }

    /// The node whose agent must be silent for it.
    pub fn node(&self) -> Option<&str> {
        match self {
            Remnant::Node(node) | Remnant::OutOfService(node) | Remnant::Agent(node) => Some(node),
            Remnant::Owner(..) | Remnant::Block(..) => None,
        }
    }
}

/// What is gone now and has something left; nothing, while that cannot be seen. `clock`: the time of day, by which blocks are dated.
pub fn remnants(world: &World, clock: u64) -> BTreeSet<Remnant> {
    let mut all = BTreeSet::new();
    if READ.iter().any(|kind| world.lost.contains(kind)) {
        return all;
    }
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
    let reserved = reserved.filter(|a| a.holder.is_none() && a.freed_at.is_none());
    let reserved = reserved.filter(|a| is_gone(world, &a.owner));
    all.extend(reserved.map(|a| Remnant::Owner(a.owner.clone(), a.pod.clone())));
    all.extend(dismissed(world).cloned().map(Remnant::Agent));
    let empty = world.blocks.iter().filter(|block| is_empty(world, block, clock));
    all.extend(empty.map(|block| Remnant::Block(block.pool.clone(), block.cidr, block.sequence)));
    all
}

/// Whether nobody misses a block: whatever was given of it was freed long ago, for owners who do not come back, and no gateway shows an
/// address of it, as one does whose lease was deleted or released under it.
fn is_empty(world: &World, block: &Block, clock: u64) -> bool {
    let rests = world.view.pools.values().map(|pool| pool.cooldown_seconds).fold(EMPTY, u32::max);
    let returns = |owner: &Owner| match owner {
        Owner::PodUid(_) | Owner::Ordinal { .. } => !is_gone(world, owner),
        Owner::Slot { .. } | Owner::Container { .. } | Owner::Other(_) => false,
    };
    let mut shown = world.view.endpoints.iter().flat_map(|endpoint| &endpoint.addresses);
    block.is_vacant(clock, rests)
        && !block.allocations.values().any(|allocation| returns(&allocation.owner))
        && !world.lost.contains(&Watched::Endpoints)
        && !shown.any(|address| block.cidr.contains(address.ip))
}

/// Nodes that had an agent and are not meant to have one now. Only where another agent's pod is and speaks: if there is none, somebody
/// deleted the DaemonSet, perhaps by mistake, and every node would be opened; or agents here are no pods.
fn dismissed(world: &World) -> impl Iterator<Item = &String> {
    let others = world.meant.iter().any(|node| world.agent(node) == Agent::Here);
    let away = world.agents.iter().filter(|(_, agent)| **agent == Agent::Away);
    away.map(|(node, _)| node).filter(move |node| others && !world.meant.contains(*node))
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

    /// It was not gone: it counts from the beginning.
    pub fn forget(&mut self, remnant: &Remnant) {
        self.0.remove(remnant);
    }

    /// When the next will be ripe.
    pub fn due(&self, now: Duration, wait: Duration) -> Option<Duration> {
        self.0.values().map(|at| *at + wait).filter(|at| *at > now).min()
    }
}
