//! Which tunnels lead into this node: its own, and those of the gateways that its plan has.
//!
//! In: a plan. Out: a set, and a rule of the node's `input`. Never: looks at a kernel.
//!
//! A gateway's `vxlan0` lies in its pod's namespace, and its socket in the node's. What it brings in leaves by rules of this node, and of a
//! gateway with its pod's own address by nothing else: without them the primary's masquerade has it. The namespace may be out of reach
//! when the gateway goes (its path is gone and a process keeps it alive), or be wired before the node is, while another node still
//! sends to a gateway that had this address. So the node lets a tunnel in by the same transaction that brings the rules, and no
//! longer than they stand.

use crate::egress::lower_nft::{map, rule};
use crate::egress::plan::NodePlan;
use crate::kernel::nft::table::{Atom, KeyType, Map, Rule};

/// Name of the set.
pub(super) const TUNNELS: &str = "tunnels";

/// The tunnels that lead in: an element each, so that a gateway comes and goes without a rule.
pub(super) fn known_tunnels(plan: &NodePlan) -> Map {
    let vnis = std::iter::once(plan.here.vni).chain(plan.locals.values().map(|gateway| gateway.vni));
    map(&[KeyType::Vni], None, vnis.map(|vni| (vec![Atom::Vni(vni)], None)))
}

/// The rule, behind those that say who may speak the tunnel.
pub(super) fn no_other_tunnel(plan: &NodePlan) -> Rule {
    let text = format!("udp dport {} @th,96,32 != @{TUNNELS} counter drop", plan.here.port);
    rule("guard: no tunnel to a gateway that is none", text)
}
