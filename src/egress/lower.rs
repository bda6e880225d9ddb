//! The plan of a node, said in kernel words: links, routes, rules, nexthops; `lower_nft` says the nftables part.
//!
//! In: a [`NodePlan`]. Out: the [`State`] that its namespace must hold. Never: looks at a kernel.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::addr::{Cidr, Family};
pub use crate::egress::belts::Belts;
use crate::egress::numbers::{self, TABLES, mark};
use crate::egress::plan::{Gateway, LocalGateway, NodePlan, Place};
use crate::egress::{exits, lower_nft};
use crate::kernel::state::{
    Action, Address, Link, LinkKind, Match, Nexthop, Remote, Route, Rule, State, Via,
};

/// Everything that a node's namespace must hold for this plan. An idle node still keeps the tunnel and the empty rules that it
/// has once got; uninstall is reconciling to `State::default()`.
pub fn node_state(plan: &NodePlan, belts: Belts) -> State {
    let mut state = State::default();
    tunnel(plan, &mut state);
    for gateway in plan.locals.values() {
        local_veth(plan, gateway, &mut state);
    }
    for (number, gateway) in &plan.gateways {
        reach(*number, gateway, &mut state);
    }
    for (mark, members) in &plan.sets {
        set(plan, *mark, members, &mut state);
    }
    rules(plan, belts, &mut state);
    exits::node_state(plan, &mut state);
    sysctls(plan, &mut state);
    if belts.unreachable_routes {
        belt_routes(&mut state);
    }
    state.tables = lower_nft::node_tables(plan, belts);
    state
}

/// The name of the chain that pins a flow to a gateway.
pub fn pin_chain(number: u32) -> String {
    format!("pin_{number:x}")
}

/// The inverse of [`pin_chain`].
pub fn pin_chain_number(chain: &str) -> Option<u32> {
    u32::from_str_radix(chain.strip_prefix("pin_")?, 16).ok()
}

/// The name of the chain that sends a pinned packet to a local gateway.
pub fn local_chain(slot: u8) -> String {
    format!("to_local_{slot:x}")
}

/// The inverse of [`local_chain`].
pub fn local_chain_slot(chain: &str) -> Option<u8> {
    u8::from_str_radix(chain.strip_prefix("to_local_")?, 16).ok()
}

/// Nexthop id of a gateway in a family.
fn nexthop_id(number: u32, family: Family) -> u32 {
    numbers::NEXTHOPS + 2 * number + u32::from(family == Family::V6)
}

/// Nexthop id of a set's group in a family.
fn group_id(mark: u8, family: Family) -> u32 {
    numbers::NEXTHOP_GROUPS + 2 * u32::from(mark) + u32::from(family == Family::V6)
}

/// The routing table of a mark number.
pub fn table_of(mark: u8) -> u32 {
    TABLES + u32::from(mark)
}

/// The families that this node serves.
pub fn families(plan: &NodePlan) -> &'static [Family] {
    if plan.here.ipv6 { &Family::BOTH } else { &[Family::V4] }
}

/// A mark number in the configured bits.
pub fn mark_value(mask: u32, number: u8) -> u32 {
    (u32::from(number) << mask.trailing_zeros()) & mask
}

fn tunnel(plan: &NodePlan, state: &mut State) {
    let here = &plan.here;
    let wire = plan.nodes.get(&here.node).map(|peer| peer.wire);
    let kind = LinkKind::Vxlan { vni: here.vni, port: here.port, local: here.underlay };
    let mac = numbers::node_mac(wire.unwrap_or(std::net::Ipv4Addr::UNSPECIFIED));
    let link = Link { kind, mac, mtu: here.tunnel_mtu, arp: false };
    state.links.insert(numbers::TUNNEL.to_owned(), link);
    let ip = numbers::TUNNEL_ADDRESS.into();
    state.addresses.insert(Address { dev: numbers::TUNNEL.to_owned(), ip, link_scope: true });
    for family in families(plan) {
        let via =
            Via::Gateway { gateway: numbers::tunnel_next_hop(*family), dev: numbers::TUNNEL.to_owned() };
        state.routes.insert(default_route(*family, table_of(mark::TUNNEL), via));
    }
    device_sysctls(plan, numbers::TUNNEL, false, state);
}

fn local_veth(plan: &NodePlan, gateway: &LocalGateway, state: &mut State) {
    let dev = gateway.veth.clone();
    let link = Link { kind: LinkKind::VethPeer, mac: numbers::VETH_MAC, mtu: plan.here.veth_mtu, arp: true };
    state.links.insert(dev.clone(), link);
    state.addresses.insert(Address { dev: dev.clone(), ip: numbers::VETH_ADDRESS.into(), link_scope: true });
    for ip in &gateway.addresses {
        // The lease for what comes from outside; the next hop for clients. In IPv4 they are one.
        for ip in [*ip, numbers::gateway_next_hop(gateway.mac, *ip)] {
            state.neighbours.insert((dev.clone(), ip), numbers::egress0_mac(gateway.mac));
        }
        if gateway.is_own(*ip) {
            continue; // the primary has the route to it
        }
        let source = source_for(plan, Family::of(*ip));
        let via = Via::Device { dev: dev.clone(), source };
        state.routes.insert(Route { table: numbers::TABLE_MAIN, to: Cidr::host(*ip), metric: 0, via });
    }
    for (uplink, ip) in &gateway.announced {
        state.proxies.insert((uplink.clone(), *ip));
        // The kernel would delay each answer by up to 0.8 s (measured), in both families.
        let version = if ip.is_ipv4() { "ipv4" } else { "ipv6" };
        state.sysctls.insert(format!("net/{version}/neigh/{uplink}/proxy_delay"), "0".to_owned());
        if ip.is_ipv6() {
            state.sysctls.insert(format!("net/ipv6/conf/{uplink}/proxy_ndp"), "1".to_owned());
        }
    }
    device_sysctls(plan, &dev, true, state);
}

/// The address from which this node's own ICMP errors towards a local gateway come; without it they would carry
/// 169.254.77.253, a martian elsewhere (datapath facts, hole 3). IPv6 picks one by itself.
fn source_for(plan: &NodePlan, family: Family) -> Option<IpAddr> {
    if family == Family::V6 {
        return None;
    }
    let own = plan.nodes.get(&plan.here.node).map(|peer| peer.underlay.as_slice()).unwrap_or_default();
    let uplinks = plan.here.uplinks.iter().flat_map(|uplink| uplink.addresses.iter().map(|(ip, _)| *ip));
    std::iter::once(plan.here.underlay).chain(own.iter().copied()).chain(uplinks).find(IpAddr::is_ipv4)
}

fn reach(number: u32, gateway: &Gateway, state: &mut State) {
    for ip in &gateway.addresses {
        let family = Family::of(*ip);
        let dev = match &gateway.place {
            Place::Local { veth, slot } => {
                let via = Via::Nexthop(nexthop_id(number, family));
                state.routes.insert(default_route(family, table_of(*slot), via));
                veth.clone()
            }
            Place::Remote { underlay, vni } => {
                let key = (numbers::TUNNEL.to_owned(), gateway.mac);
                state.fdb.insert(key, Remote { node: *underlay, vni: *vni });
                numbers::TUNNEL.to_owned()
            }
            // Its packets are marked for its interface's own table; no set leads there.
            Place::Exit { .. } => continue,
        };
        let next_hop = numbers::gateway_next_hop(gateway.mac, *ip);
        state.nexthops.insert(nexthop_id(number, family), Nexthop::Via { gateway: next_hop, dev });
    }
}

fn set(plan: &NodePlan, mark: u8, members: &BTreeSet<u32>, state: &mut State) {
    for family in families(plan) {
        let ids: BTreeSet<u32> = members
            .iter()
            .filter(|n| {
                plan.gateways.get(n).is_some_and(|g| {
                    let routed = !matches!(g.place, Place::Exit { .. });
                    routed && g.address(*family).is_some() && g.takes_new_flows
                })
            })
            .map(|n| nexthop_id(*n, *family))
            .collect();
        if ids.is_empty() {
            continue;
        }
        state.nexthops.insert(group_id(mark, *family), Nexthop::Group { family: *family, members: ids });
        state.routes.insert(default_route(*family, table_of(mark), Via::Nexthop(group_id(mark, *family))));
    }
}

fn rules(plan: &NodePlan, belts: Belts, state: &mut State) {
    let mask = plan.here.mark_mask;
    for family in families(plan) {
        let mut rule = |priority, matches, action| {
            state.rules.insert(Rule { family: *family, priority, matches, action });
        };
        let marked = |number| Match::Mark { value: mark_value(mask, number), mask };
        let table = |number| Action::Lookup(table_of(number));
        rule(numbers::PRIORITY_TUNNEL, marked(mark::TUNNEL), table(mark::TUNNEL));
        for slot in slots(plan).into_iter().chain(plan.doors().into_values()) {
            rule(numbers::PRIORITY_LOCAL, marked(slot), table(slot));
        }
        for set in plan.sets.keys() {
            rule(numbers::PRIORITY_SETS, marked(*set), table(*set));
        }
        if !plan.sets.is_empty() {
            let unmarked = || Match::Mark { value: 0, mask };
            rule(numbers::PRIORITY_PAST, unmarked(), Action::Goto(numbers::PRIORITY_BEHIND));
            rule(numbers::PRIORITY_BEHIND, unmarked(), Action::Nop);
        }
        if belts.last_rule {
            rule(numbers::PRIORITY_BELT, Match::NotMark { value: 0, mask }, Action::Unreachable);
        }
    }
}

/// Mark numbers of the local gateways that clients use.
pub fn slots(plan: &NodePlan) -> BTreeSet<u8> {
    let slot = |gateway: &Gateway| match gateway.place {
        Place::Local { slot, .. } => Some(slot),
        Place::Remote { .. } | Place::Exit { .. } => None,
    };
    plan.gateways.values().filter_map(slot).collect()
}

/// Every table that a rule of ours names ends in `unreachable`, so that a lost route never falls through to `main`.
pub fn belt_routes(state: &mut State) {
    let tables: BTreeSet<(Family, u32)> =
        state.rules.iter().filter_map(|rule| rule.table().map(|table| (rule.family, table))).collect();
    for (family, table) in tables {
        let to = family.everything();
        state.routes.insert(Route { table, to, metric: numbers::LAST_METRIC, via: Via::Unreachable });
    }
}

/// A default route of a family in a table.
pub fn default_route(family: Family, table: u32, via: Via) -> Route {
    Route { table, to: family.everything(), metric: 0, via }
}

fn sysctls(plan: &NodePlan, state: &mut State) {
    if plan.here.hash_ports && plan.sets.values().any(|members| members.len() > 1) {
        state.sysctls.insert("net/ipv4/fib_multipath_hash_policy".to_owned(), "1".to_owned());
        if plan.here.ipv6 {
            state.sysctls.insert("net/ipv6/fib_multipath_hash_policy".to_owned(), "1".to_owned());
        }
    }
}

fn device_sysctls(plan: &NodePlan, dev: &str, veth: bool, state: &mut State) {
    state.sysctls.extend(device_settings(dev, plan.here.ipv6));
    if veth {
        // This node's own ICMP errors return through a local gateway with this node's source (datapath facts, hole 4).
        state.sysctls.insert(format!("net/ipv4/conf/{dev}/accept_local"), "1".to_owned());
    }
}

/// What every device of ours needs. `rp_filter=2` is both needed and, with an address, sufficient under strict filtering:
/// the kernel takes the larger of `all` and the device's.
pub fn device_settings(dev: &str, ipv6: bool) -> BTreeMap<String, String> {
    let v4 = [("rp_filter", "2"), ("send_redirects", "0"), ("forwarding", "1")];
    let mut settings: BTreeMap<String, String> =
        v4.iter().map(|(key, value)| (format!("net/ipv4/conf/{dev}/{key}"), (*value).to_owned())).collect();
    if ipv6 {
        for (key, value) in [("disable_ipv6", "0"), ("accept_ra", "0")] {
            settings.insert(format!("net/ipv6/conf/{dev}/{key}"), value.to_owned());
        }
    }
    settings
}
