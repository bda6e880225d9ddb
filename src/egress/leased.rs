//! Leases of this node's gateways, which nobody else may send with: neither the primary's masquerade nor its source check knows them.
//!
//! In: a plan. Out: elements of the clients' maps, and the chain that they lead to. Never: looks at a kernel.
//!
//! Every packet's source is looked up in those maps already, so another's packet pays for nothing, and what is no flow's first packet, has
//! no entry or is not tracked is found like any other. A gateway's own device is asked before (`from_us`).

use crate::addr::Family;
use crate::egress::belts::Belts;
use crate::egress::lower_clients::clients_of;
use crate::egress::lower_nft::{both, chain, rule};
use crate::egress::plan::{LocalGateway, NodePlan};
use crate::kernel::nft::table::{Atom, Chain, Map, Value};

/// Name of the chain.
pub(super) const LEASED: &str = "leased";

/// A family's map from senders' addresses to chains: clients, and leases.
pub(super) fn senders(plan: &NodePlan, belts: Belts, family: Family) -> Map {
    let mut senders = clients_of(&plan.clients, family);
    let leases = plan.locals.values().filter(|_| belts.spoof).flat_map(LocalGateway::leases);
    let leases = leases.filter(|ip| Family::of(*ip) == family);
    senders.elements.extend(leases.map(|ip| (vec![Atom::Ip(ip)], Some(Value::Goto(LEASED.to_owned())))));
    senders
}

/// Where they lead: on, if the gateway itself sends.
pub(super) fn chain_of_leases() -> Chain {
    let mut rules = both("own lease", "iifname . {ip} saddr @lease{n} accept").to_vec();
    rules.push(rule("belt: somebody else's lease", "counter drop"));
    chain(rules)
}
