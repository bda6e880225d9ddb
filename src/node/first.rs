//! The first wiring of a node: what is asked and begun only then.
//!
//! In: a change from nothing to something. Out: a sentence where this machine cannot be a node, or somebody has our numbers.
//! Never: decides what a packet does.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::Path;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::addr::Family;
use crate::egress::numbers;
use crate::egress::overture::{overture, stands, unheard};
use crate::egress::plan::NodePlan;
use crate::kernel::nft::ahead::{self, Ahead, Sides};
use crate::kernel::state::State;
use crate::kernel::{self, Netns, Place, conntrack};
use crate::node::change::Change;
use crate::node::connections;
use crate::node::embedded::{Embedded, NodeError};
use crate::problem::Problem;

impl Embedded {
    /// Whether an ADD of a gateway would be the first wiring of this node.
    pub(super) fn is_bare(&self) -> bool {
        !self.memory.is_unfinished() && self.memory.applied().is_none_or(|applied| applied.plan.is_idle())
    }

    /// Whether nobody else uses what is ours. Asked before the first wiring.
    pub(super) fn fit(&self, next: &NodePlan, node_ns: &Netns) -> Result<(), NodeError> {
        let place = Place::node(node_ns);
        let tunnel = (numbers::TUNNEL, next.here.port);
        let unfit = kernel::conflicts(&place, &numbers::node_scope(), next.here.mark_mask, tunnel)
            .map_err(|e| NodeError::Observe(e.to_string()))?;
        if unfit.is_empty() { Ok(()) } else { Err(NodeError::Unfit(unfit)) }
    }
}

/// How long packets of running pods are tracked before a node's first plan, where nobody tracked them so far. An answer that takes
/// longer than this, to a question before it, still opens its flow the wrong way round, if the flow has no connected socket. Once in
/// a node's life, and the pods notice nothing of it.
const OVERTURE: Duration = Duration::from_secs(1);

/// Where no other program tracks packets, the far end's next answer would be the first packet of its flow that anybody remembers:
/// the flow would look like one that the far end opened, the pod's packets would pass as replies, with the pod's address, for as long
/// as it lives (measured). So tracking begins before anything else, and for a while with the pods' own packets only. Then what their
/// sockets are connected to is remembered, too, whoever was silent meanwhile. All that for every pod that runs: who is no client yet
/// may become one while its flows live. What could not be found out comes back as problems.
pub(super) fn track_ahead(change: &Change<'_>, node_ns: &Netns) -> Result<Vec<Problem>, NodeError> {
    let untracked = untracked(change.running, change.seen)?;
    if untracked.is_empty() {
        return Ok(Vec::new());
    }
    let place = Place::node(node_ns);
    for state in [unheard(&untracked), overture(&untracked)] {
        let report = kernel::reconcile(&place, &numbers::node_scope(), &state, &mut BTreeMap::new(), false)?;
        let failed = report
            .failed
            .iter()
            .map(|(step, why)| format!("tracking could not begin: {}: {why}", step.in_short()));
        let failed: Vec<String> = failed.collect();
        if !failed.is_empty() {
            return Err(NodeError::Steps(failed));
        }
    }
    thread::sleep(OVERTURE);
    // Only now: what was opened within that second has an entry that knows half of its handshake, or the outside's is the wrong way round.
    Ok(connections::remember(change, &untracked))
}

/// Pods that run here, of a family whose packets nobody tracks, or was to begin to and was stopped.
pub(super) fn untracked(
    running: &BTreeSet<IpAddr>,
    seen: Option<&State>,
) -> Result<BTreeSet<IpAddr>, NodeError> {
    let mut untracked = BTreeSet::new();
    for family in Family::BOTH {
        let of_family = || running.iter().filter(|ip| Family::of(**ip) == family);
        let on = |family| conntrack::is_on(family).map_err(|e| NodeError::Observe(e.to_string()));
        let cut_short = seen.is_some_and(|seen| stands(seen, family));
        if of_family().next().is_some() && (cut_short || !on(family)?) {
            untracked.extend(of_family().copied());
        }
    }
    Ok(untracked)
}

/// A first wiring that failed on a machine that cannot do it: then that is the sentence, not what the first step said.
pub(super) fn able(node_ns: &Netns) -> Result<(), NodeError> {
    let lacks = kernel::lacks(node_ns);
    if lacks.is_empty() { Ok(()) } else { Err(NodeError::Unfit(lacks)) }
}

/// The programs of a first wiring, started by a thread while leases are taken: to start both takes a millisecond, the leases longer.
pub(super) struct Early {
    starting: Option<JoinHandle<()>>,
    _ahead: Ahead,
}

impl Early {
    /// One here, which has its script first, and one in a gateway's namespace if that is wanted so early.
    pub(super) fn start(gateway: Option<&Path>) -> Early {
        let gateway = gateway.map(Path::to_owned);
        let sides = Sides::seen_here();
        let start = move || {
            ahead::start_ahead(sides.as_ref());
            gateway.iter().for_each(|gateway| start_in(gateway, sides.as_ref()));
        };
        // What was not started here is started when it is needed.
        Early { starting: thread::Builder::new().spawn(start).ok(), _ahead: Ahead }
    }

    /// They wait for their scripts now. Those that get none end with this value.
    #[must_use]
    pub(super) fn finish(mut self) -> Early {
        self.join();
        self
    }

    /// Who waits for the programs in its place.
    pub(super) fn starting(&mut self) -> Option<JoinHandle<()>> {
        self.starting.take()
    }

    fn join(&mut self) {
        if let Some(starting) = self.starting() {
            let _ = starting.join();
        }
    }
}

impl Drop for Early {
    fn drop(&mut self) {
        self.join(); // before what it started is ended
    }
}

/// One more, in a gateway's namespace.
pub(super) fn start_in(gateway: &Path, sides: Option<&Sides>) {
    if let Ok(netns) = Netns::open(gateway) {
        let _ = netns.run(|| ahead::start_ahead(sides));
    }
}

/// A first wiring loads whole tables, here and in each gateway's namespace. Where the ground was begun already, it has its program.
pub(super) fn start_ahead(change: &Change<'_>, node_ns: &Netns) -> Ahead {
    let gateways =
        change.next.locals.keys().filter_map(|name| Netns::open(change.namespaces.get(name)?).ok());
    let sides = Sides::seen_here();
    for netns in gateways {
        let _ = netns.run(|| ahead::start_ahead(sides.as_ref()));
    }
    if change.ground.is_none() {
        let _ = node_ns.run(|| ahead::start_ahead(sides.as_ref()));
    }
    Ahead
}
