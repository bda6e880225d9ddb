//! The first wiring of a node: what is asked and begun only then.
//!
//! In: a change from nothing to something. Out: a sentence where this machine cannot be a node, or somebody has our numbers.
//! Never: decides what a packet does.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use crate::addr::Family;
use crate::egress::numbers;
use crate::egress::overture::overture;
use crate::egress::plan::NodePlan;
use crate::kernel::nft::load::{self, Ahead};
use crate::kernel::{self, Netns, Place, conntrack};
use crate::node::change::Change;
use crate::node::embedded::{Embedded, NodeError};

impl Embedded {
    /// Whether nobody else uses what is ours. Asked before the first wiring.
    pub(super) fn fit(&self, next: &NodePlan, node_ns: &Netns) -> Result<(), NodeError> {
        let place = Place { here: node_ns, home: node_ns };
        let tunnel = (numbers::TUNNEL, next.here.port);
        let unfit = kernel::conflicts(&place, &numbers::node_scope(), next.here.mark_mask, tunnel)
            .map_err(|e| NodeError::Observe(e.to_string()))?;
        if unfit.is_empty() { Ok(()) } else { Err(NodeError::Unfit(unfit)) }
    }
}

/// How long packets of running pods are tracked before any of them becomes a client, where nobody tracked them so far. An answer that
/// takes longer than this, to a question before it, still opens its flow the wrong way round. Once in a node's life, and the pods
/// notice nothing of it.
const OVERTURE: Duration = Duration::from_secs(1);

/// Where no other program tracks packets, the far end's next answer would be the first packet of its flow that anybody remembers:
/// the flow would look like one that the far end opened, the pod's packets would pass as replies, with the pod's address, for as long
/// as it lives (measured). So tracking begins before these pods are held, and for a while with their own packets only.
pub(super) fn track_ahead(pods: &BTreeSet<IpAddr>, node_ns: &Netns) -> Result<(), NodeError> {
    let mut untracked = BTreeSet::new();
    for family in Family::BOTH {
        let of_family = || pods.iter().filter(|ip| Family::of(**ip) == family);
        let on = |family| conntrack::is_on(family).map_err(|e| NodeError::Observe(e.to_string()));
        if of_family().next().is_some() && !on(family)? {
            untracked.extend(of_family().copied());
        }
    }
    if untracked.is_empty() {
        return Ok(());
    }
    let place = Place { here: node_ns, home: node_ns };
    let report = kernel::reconcile(
        &place,
        &numbers::node_scope(),
        &overture(&untracked),
        &mut BTreeMap::new(),
        false,
    )?;
    let failed: Vec<String> =
        report.failed.iter().map(|(step, why)| format!("tracking could not begin: {step}: {why}")).collect();
    if !failed.is_empty() {
        return Err(NodeError::Steps(failed));
    }
    std::thread::sleep(OVERTURE);
    Ok(())
}

/// A first wiring that failed on a machine that cannot do it: then that is the sentence, not what the first step said.
pub(super) fn able(node_ns: &Netns) -> Result<(), NodeError> {
    let lacks = kernel::lacks(node_ns);
    if lacks.is_empty() { Ok(()) } else { Err(NodeError::Unfit(lacks)) }
}

/// A first wiring loads whole tables, here and in each gateway's namespace.
pub(super) fn start_ahead(change: &Change<'_>, node_ns: &Netns) -> Ahead {
    let gateways =
        change.next.locals.keys().filter_map(|name| Netns::open(change.namespaces.get(name)?).ok());
    for netns in gateways {
        let _ = netns.run(load::start_ahead);
    }
    let _ = node_ns.run(load::start_ahead);
    Ahead
}
