//! Which tunnels lead into this node: its own, and those of the gateways that its plan has.
//!
//! In: a plan. Out: a rule of the node's `input`. Never: looks at a kernel.
//!
//! A gateway's `vxlan0` lies in its pod's namespace, and its socket in the node's. What it brings in leaves by rules of this node, and of a
//! gateway with its pod's own address by nothing else: without them the primary's masquerade has it. The namespace may be out of reach
//! when the gateway goes (its path is gone and a process keeps it alive), or be wired before the node is, while another node still
//! sends to a gateway that had this address. So the node lets a tunnel in by the same transaction that brings the rules, and no
//! longer than they stand.

use crate::egress::lower_nft::rule;
use crate::egress::plan::NodePlan;
use crate::kernel::nft::table::Rule;

/// The rule, behind those that say who may speak the tunnel. A VNI is the last three bytes but one of a VXLAN header, which begins eight
/// bytes behind UDP's (RFC 7348 section 5).
pub(super) fn known_tunnels(plan: &NodePlan) -> Rule {
    let vnis = std::iter::once(plan.here.vni).chain(plan.locals.values().map(|gateway| gateway.vni));
    let mut vnis: Vec<u32> = vnis.collect();
    vnis.sort_unstable();
    vnis.dedup();
    let vnis: Vec<String> = vnis.iter().map(u32::to_string).collect();
    let text = format!("udp dport {} @th,96,24 != {{ {} }} counter drop", plan.here.port, vnis.join(", "));
    rule("guard: no tunnel to a gateway that is none", text)
}
