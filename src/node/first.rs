//! The first wiring of a node: what is asked and begun only then.
//!
//! In: a change from nothing to something. Out: a sentence where this machine cannot be a node, or somebody has our numbers.
//! Never: writes anything.

use crate::egress::numbers;
use crate::egress::plan::NodePlan;
use crate::kernel::nft::load::{self, Ahead};
use crate::kernel::{self, Netns, Place};
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
