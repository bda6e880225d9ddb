//! Who may send into this node's tunnels, and which there are: its own, and those of the gateways that its plan has.
//!
//! In: a plan. Out: two sets, the node's `input`, and a rule of its `forward`. Never: looks at a kernel.
//!
//! A gateway's `vxlan0` lies in its pod's namespace, and its socket in the node's. What it brings in leaves by rules of this node, and of a
//! gateway with its pod's own address by nothing else: without them the primary's masquerade has it. The namespace may be out of reach
//! when the gateway goes (its path is gone and a process keeps it alive), or be wired before the node is, while another node still
//! sends to a gateway that had this address. So the node lets a tunnel in by the same transaction that brings the rules, and no
//! longer than they stand.
//!
//! The socket hears every address of the node, by every device. What the nodes' `forward` does not guard must not be heard: an address
//! by which no node knows this one; and another node's address that a pod of this very node writes into its packets.

use crate::egress::lower_nft::{base, both, chain, map, priority, rule};
use crate::egress::plan::NodePlan;
use crate::kernel::nft::table::{Atom, KeyType, Map, Rule, Table};

/// Name of the set.
const TUNNELS: &str = "tunnels";
/// Name of the set of devices by which no pod of this node sends.
const OUTWARD: &str = "outward";
/// Name of the chain that looks at what comes to the tunnels' port.
const ENTRANCE: &str = "entrance";

/// Adds what comes in by the tunnels' port, and from whom. Gives the rule of `forward`, where nothing goes to it.
pub(super) fn guarded(plan: &NodePlan, table: &mut Table) -> Rule {
    let guard = both("guard: no pod forges tunnel traffic", "{ip} daddr @nodes{n} counter drop");
    table.chains.insert("guard".into(), chain(guard.to_vec()));
    let mut rules =
        both("guard: only nodes speak the tunnel", "{ip} saddr != @nodes{n} counter drop").to_vec();
    rules.extend(both("guard: to nodes' own addresses", "{ip} daddr != @nodes{n} counter drop"));
    // Whoever forges another node's address is a pod of this one, and comes by a device that leads to pods. By others the way back may be
    // another uplink, or `main` may not know it: what was decrypted.
    let text = format!("iifname != @{OUTWARD} fib saddr . iif oif missing counter drop");
    rules.push(rule("guard: from where that node is", text.as_str()));
    rules.push(rule(
        "guard: no tunnel to a gateway that is none",
        format!("@th,96,32 != @{TUNNELS} counter drop"),
    ));
    table.maps.insert(TUNNELS.to_owned(), known_tunnels(plan));
    let outward = plan.here.outward.iter().map(|dev| (vec![Atom::Dev(dev.clone())], None));
    table.maps.insert(OUTWARD.to_owned(), map(&[KeyType::Ifname], None, outward));
    table.chains.insert(ENTRANCE.to_owned(), chain(rules));
    let to_port = rule("guard", format!("udp dport {} goto {ENTRANCE}", plan.here.port));
    table.chains.insert("input".into(), base("filter", "input", priority::MANGLE, vec![to_port]));
    rule("guard", format!("udp dport {} goto guard", plan.here.port))
}

/// The tunnels that lead in: an element each, so that a gateway comes and goes without a rule.
fn known_tunnels(plan: &NodePlan) -> Map {
    let vnis = std::iter::once(plan.here.vni).chain(plan.locals.values().map(|gateway| gateway.vni));
    map(&[KeyType::Vni], None, vnis.map(|vni| (vec![Atom::Vni(vni)], None)))
}
