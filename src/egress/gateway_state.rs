//! What a pod gateway's own namespace must hold, in kernel words. Wired once, at its ADD; the container needs no privilege.
//!
//! In: the node's plan and one of its local gateways. Out: a [`State`]. Never: looks at a kernel.
//!
//! Two devices of ours: `vxlan0`, whose socket is the node's, brings clients of other nodes; `egress0`, a veth to the node, holds
//! the lease, leads outside and brings clients of this node. The packet says who sent it (source MAC = client's node) and to
//! whom (destination MAC = this gateway), so there is one map element per node and nothing per client.
//!
//! An address that is the pod's own (`source: PodAddress`) leads outside by the primary's device, and the answers come back by it: for
//! that family `egress0` only joins this node's clients. There the pod's own ports stay open, as they are on any pod.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::addr::Family;
use crate::egress::exits::{others, to_nodes};
use crate::egress::lower::{Belts, belt_routes, default_route, device_settings, families};
use crate::egress::lower_nft::{WITHOUT_ENTRY, base, chain, digit, egress_hook, map, priority, rule, word};
use crate::egress::numbers::{
    self, BY_VETH, GATEWAY_TUNNEL, GATEWAY_VETH, NODE_MASK, TABLE_CLIENTS, TABLE_OUTSIDE, gateway_priority,
};
use crate::egress::plan::{LocalGateway, NodePlan, Peer};
use crate::kernel::nft::table::{Atom, KeyType, Rule as NftRule, Table, Value, ValueType};
use crate::kernel::state::{Action, Address, Link, LinkKind, Match, NftFamily, Rule, State, Via};

/// Everything of ours in the gateway's namespace.
pub fn gateway_state(plan: &NodePlan, gateway: &LocalGateway, belts: Belts) -> State {
    let mut state = State::default();
    devices(plan, gateway, &mut state);
    to_nodes(plan, GATEWAY_TUNNEL, &mut state);
    routes(plan, gateway, belts, &mut state);
    sysctls(plan, gateway, &mut state);
    state.tables = tables(plan, gateway, belts);
    state
}

fn devices(plan: &NodePlan, gateway: &LocalGateway, state: &mut State) {
    let here = &plan.here;
    let kind = LinkKind::Vxlan { vni: gateway.vni, port: here.port, local: here.underlay };
    let tunnel = Link { kind, mac: gateway.mac, mtu: here.tunnel_mtu, arp: false };
    state.links.insert(GATEWAY_TUNNEL.to_owned(), tunnel);
    let ip = numbers::TUNNEL_ADDRESS.into();
    state.addresses.insert(Address { dev: GATEWAY_TUNNEL.to_owned(), ip, link_scope: true });

    let kind = LinkKind::Veth { peer: gateway.veth.clone(), peer_mac: numbers::VETH_MAC };
    let veth = Link { kind, mac: numbers::egress0_mac(gateway.mac), mtu: here.veth_mtu, arp: true };
    state.links.insert(GATEWAY_VETH.to_owned(), veth);
    for ip in gateway.leases() {
        state.addresses.insert(Address { dev: GATEWAY_VETH.to_owned(), ip, link_scope: false });
    }
    if gateway.owns(Family::V4) {
        let ip = numbers::TUNNEL_ADDRESS.into();
        state.addresses.insert(Address { dev: GATEWAY_VETH.to_owned(), ip, link_scope: true });
    }
    for family in families(plan) {
        // Permanent on both ends: no ARP, no neighbour discovery, nothing to be spoofed.
        let key = (GATEWAY_VETH.to_owned(), numbers::veth_next_hop(*family));
        state.neighbours.insert(key, numbers::VETH_MAC);
    }
}

fn routes(plan: &NodePlan, gateway: &LocalGateway, belts: Belts, state: &mut State) {
    for family in families(plan) {
        let outside = Via::Gateway { gateway: numbers::veth_next_hop(*family), dev: GATEWAY_VETH.to_owned() };
        state.routes.insert(default_route(*family, TABLE_OUTSIDE, outside));
        let clients =
            Via::Gateway { gateway: numbers::tunnel_next_hop(*family), dev: GATEWAY_TUNNEL.to_owned() };
        state.routes.insert(default_route(*family, TABLE_CLIENTS, clients));
        let mut rule = |priority, matches, table| {
            state.rules.insert(Rule { family: *family, priority, matches, action: Action::Lookup(table) });
        };
        rule(gateway_priority::BY_VETH, Match::Mark { value: BY_VETH, mask: BY_VETH }, TABLE_OUTSIDE);
        rule(gateway_priority::TO_NODE, Match::NotMark { value: 0, mask: NODE_MASK }, TABLE_CLIENTS);
        if gateway.owns(*family) {
            continue; // clients leave as the pod does: by `main`
        }
        rule(gateway_priority::FROM_TUNNEL, Match::Input(GATEWAY_TUNNEL.to_owned()), TABLE_OUTSIDE);
        rule(gateway_priority::FROM_VETH, Match::Input(GATEWAY_VETH.to_owned()), TABLE_OUTSIDE);
        if let Some(lease) = gateway.addresses.iter().find(|ip| Family::of(**ip) == *family) {
            rule(gateway_priority::FROM_LEASE, Match::From(*lease), TABLE_OUTSIDE);
        }
    }
    if belts.gateway_routes {
        belt_routes(state);
    }
}

fn sysctls(plan: &NodePlan, gateway: &LocalGateway, state: &mut State) {
    if let Some(own) = gateway.own.as_ref().filter(|_| gateway.owns(Family::V4)) {
        // What comes by it is passed on to clients; `passing` lets nothing else through.
        state.sysctls.insert(format!("net/ipv4/conf/{}/forwarding", own.device), "1".to_owned());
    }
    for dev in [GATEWAY_TUNNEL, GATEWAY_VETH] {
        state.sysctls.extend(device_settings(dev, plan.here.ipv6));
    }
    // Answers to a later prober's echo requests take the request's way back.
    state.sysctls.insert("net/ipv4/fwmark_reflect".to_owned(), "1".to_owned());
    // The gateway's own process may ping without privilege.
    state.sysctls.insert("net/ipv4/ping_group_range".to_owned(), "0\t2147483647".to_owned());
    if plan.here.ipv6 {
        state.sysctls.insert("net/ipv6/fwmark_reflect".to_owned(), "1".to_owned());
        // IPv6 forwards only when the whole namespace does (per device since 6.17 only).
        state.sysctls.insert("net/ipv6/conf/all/forwarding".to_owned(), "1".to_owned());
    }
}

fn tables(plan: &NodePlan, gateway: &LocalGateway, belts: Belts) -> BTreeMap<(NftFamily, String), Table> {
    let name = numbers::NFT_TABLE.to_owned();
    let numbered = |peer: &Peer| (Atom::Mark(u32::from(peer.number)), numbers::node_mac(peer.wire));
    let macs = others(plan).map(numbered).map(|(number, mac)| (vec![number], Some(Value::Mac(mac))));
    let rules = vec![
        rule("to the client's node", "ether daddr set meta mark map @mac"),
        rule("the outer packet is routed unmarked", "meta mark set 0x0"),
    ];
    let netdev = Table {
        chains: BTreeMap::from([("out".to_owned(), egress_hook(GATEWAY_TUNNEL, rules))]),
        maps: BTreeMap::from([("mac".to_owned(), map(&[KeyType::Mark], Some(ValueType::Ether), macs))]),
    };
    BTreeMap::from([
        ((NftFamily::Inet, name.clone()), inet(plan, gateway, belts)),
        ((NftFamily::Netdev, name), netdev),
    ])
}

fn inet(plan: &NodePlan, gateway: &LocalGateway, belts: Belts) -> Table {
    let mut table = Table::default();
    let nodes = others(plan).map(|peer| {
        let mac = Atom::Mac(numbers::node_mac(peer.wire));
        (vec![mac], Some(Value::Mark(u32::from(peer.number))))
    });
    table.maps.insert("node".to_owned(), map(&[KeyType::Ether], Some(ValueType::Mark), nodes));
    let mut add = |name: &str, chain| table.chains.insert(name.to_owned(), chain);
    add("raw", base("filter", "prerouting", priority::RAW, probes_in(gateway)));
    add("raw_output", base("filter", "output", priority::RAW, probes_out()));
    add("prerouting", base("filter", "prerouting", priority::MANGLE, arriving(gateway, belts)));
    add("from_tunnel", chain(from_tunnel(belts)));
    add("output", base("route", "output", priority::MANGLE, errors(gateway)));
    add("input", base("filter", "input", priority::FILTER, local(gateway, belts)));
    add("forward", base("filter", "forward", priority::MANGLE, passing(gateway, belts)));
    add("srcnat", base("nat", "postrouting", priority::SRCNAT, snat(gateway)));
    if belts.source {
        add("postrouting", base("filter", "postrouting", priority::SRCNAT + 200, leaving(gateway)));
    }
    table
}

/// One rule per leased address of the gateway: `{ip}`, `{n}` and `{lease}` in the text stand for its family and itself.
fn per_lease(gateway: &LocalGateway, label: &str, text: &str) -> Vec<NftRule> {
    gateway.leases().map(|ip| of_address(ip, label, text)).collect()
}

/// One rule per address that is the pod's own; `{dev}` stands for the device that has it.
fn per_own(gateway: &LocalGateway, label: &str, text: &str) -> Vec<NftRule> {
    let Some(own) = &gateway.own else { return Vec::new() };
    let text = text.replace("{dev}", &own.device);
    own.addresses.iter().map(|ip| of_address(*ip, label, &text)).collect()
}

fn of_address(ip: IpAddr, label: &str, text: &str) -> NftRule {
    let family = Family::of(ip);
    let text = text.replace("{ip}", word(family)).replace("{n}", &digit(family).to_string());
    rule(label, text.replace("{lease}", &ip.to_string()))
}

/// nft's name of a family, where no header of it is looked at.
fn protocol(family: Family) -> &'static str {
    match family {
        Family::V4 => "ipv4",
        Family::V6 => "ipv6",
    }
}

fn echo_request(ip: IpAddr) -> &'static str {
    match Family::of(ip) {
        Family::V4 => "icmp type echo-request",
        Family::V6 => "icmpv6 type echo-request",
    }
}

/// Probes of client nodes: marked with the node they came from, and untracked, so that they count as no flow.
fn probes_in(gateway: &LocalGateway) -> Vec<NftRule> {
    let one = |ip: &IpAddr| {
        let word = word(Family::of(*ip));
        let request = echo_request(*ip);
        let matches = format!("iifname \"{GATEWAY_TUNNEL}\" {word} daddr {ip} {request}");
        rule("probe", format!("{matches} meta mark set ether saddr map @node notrack"))
    };
    gateway.addresses.iter().map(one).collect()
}

fn probes_out() -> Vec<NftRule> {
    ["icmp", "icmpv6"]
        .map(|icmp| {
            rule(
                "answer to a probe",
                format!("{icmp} type echo-reply meta mark & {NODE_MASK:#x} != 0 notrack"),
            )
        })
        .to_vec()
}

fn arriving(gateway: &LocalGateway, belts: Belts) -> Vec<NftRule> {
    let mut rules = Vec::new();
    if belts.gateway_invalid {
        let text =
            format!("iifname {{ \"{GATEWAY_TUNNEL}\", \"{GATEWAY_VETH}\" }} ct state invalid counter drop");
        rules.push(rule("belt: without an entry there is no NAT", text));
    }
    rules.extend([
        // An untracked probe has been marked; it is nobody's flow.
        rule("probe", format!("iifname \"{GATEWAY_TUNNEL}\" ct state untracked accept")),
        rule("clients of other nodes", format!("iifname \"{GATEWAY_TUNNEL}\" jump from_tunnel")),
        rule(
            "clients of this node",
            format!("iifname \"{GATEWAY_VETH}\" ct direction original ct mark set {BY_VETH:#x}"),
        ),
        rule(
            "back to the client's node",
            format!("iifname \"{GATEWAY_VETH}\" ct direction reply meta mark set ct mark"),
        ),
    ]);
    if let Some(own) = &gateway.own {
        // The pod's own connections have no mark.
        let text =
            format!("iifname \"{}\" ct direction reply ct mark != 0 meta mark set ct mark", own.device);
        rules.push(rule("back to clients", text));
    }
    rules
}

fn from_tunnel(belts: Belts) -> Vec<NftRule> {
    let mut rules = Vec::new();
    if belts.gateway_replies {
        rules.push(rule("belt: replies do not come this way", "ct direction reply counter drop"));
    }
    rules.push(rule("who sent it", "ct mark set ether saddr map @node"));
    rules.push(rule("unknown node", "ct mark 0 counter drop"));
    rules
}

/// What passes through. Where our routes are gone, the pod's own default route must not carry clients out by `eth0`, where
/// nothing gives them the lease.
fn passing(gateway: &LocalGateway, belts: Belts) -> Vec<NftRule> {
    let mut rules = Vec::new();
    let ours = format!("\"{GATEWAY_TUNNEL}\", \"{GATEWAY_VETH}\"");
    if belts.gateway_forward {
        rules.extend(passed_on(gateway, &ours));
    }
    let clamp = |dev: &str| {
        format!("oifname \"{dev}\" tcp flags & (syn | rst) == syn tcp option maxseg size set rt mtu")
    };
    rules.push(rule("MSS of the tunnel", clamp(GATEWAY_TUNNEL)));
    if let Some(own) = &gateway.own {
        rules.push(rule("MSS of the primary", clamp(&own.device)));
    }
    rules
}

fn passed_on(gateway: &LocalGateway, ours: &str) -> Vec<NftRule> {
    let Some(own) = &gateway.own else {
        let text = format!("iifname {{ {ours} }} oifname != {{ {ours} }} counter drop");
        return vec![rule("belt: what came by our devices leaves by them", text)];
    };
    let dev = &own.device;
    let mut rules: Vec<NftRule> = Family::BOTH
        .into_iter()
        .map(|family| {
            let ways = if gateway.owns(family) { format!("{ours}, \"{dev}\"") } else { ours.to_owned() };
            let text = format!(
                "meta nfproto {} iifname {{ {ours} }} oifname != {{ {ways} }} counter drop",
                protocol(family)
            );
            rule("belt: what came by our devices leaves by the gateway's", text)
        })
        .collect();
    // That device forwards now, and only for our clients.
    let text = format!("iifname \"{dev}\" {WITHOUT_ENTRY}");
    rules.push(rule("belt: the primary's device passes nothing on", text));
    let text = format!("iifname \"{dev}\" ct mark 0 counter drop");
    rules.push(rule("belt: the primary's device passes answers on", text));
    rules
}

/// ICMP errors made here (packet too big, TTL exceeded) travel the flow's own path, not the pod's default route.
fn errors(gateway: &LocalGateway) -> Vec<NftRule> {
    let outside = format!("ct state related ct mark != 0 ct direction original meta mark set {BY_VETH:#x}");
    let leased = || Family::BOTH.into_iter().filter(|family| !gateway.owns(*family));
    let mut rules: Vec<NftRule> = match gateway.own {
        None => vec![rule("errors to the outside", outside)],
        // With an address of the pod's own they go as whatever the pod sends.
        Some(_) => leased()
            .map(|f| rule("errors to the outside", format!("meta nfproto {} {outside}", protocol(f))))
            .collect(),
    };
    let client = "ct state related ct mark != 0 ct direction reply meta mark set ct mark";
    rules.push(rule("errors to the client", client));
    rules
}

/// No port of the container is open to the outside or to clients: probes, echo and ICMP errors only. The drop of new flows also
/// keeps this kernel from answering RST for a flow whose NAT state was lost.
fn local(gateway: &LocalGateway, belts: Belts) -> Vec<NftRule> {
    let accept = |ip: &IpAddr| {
        let request = echo_request(*ip);
        let word = word(Family::of(*ip));
        rule(
            "probe",
            format!("iifname \"{GATEWAY_TUNNEL}\" {word} daddr {ip} {request} ct state untracked accept"),
        )
    };
    let mut rules: Vec<NftRule> = gateway.addresses.iter().map(accept).collect();
    rules.push(rule("nothing else from clients", format!("iifname \"{GATEWAY_TUNNEL}\" counter drop")));
    if belts.gateway_input {
        let text = format!(
            "iifname \"{GATEWAY_VETH}\" ct state new meta l4proto != {{ icmp, icmpv6 }} counter drop"
        );
        rules.push(rule("belt: no port is open", text));
    }
    rules
}

fn snat(gateway: &LocalGateway) -> Vec<NftRule> {
    let text = format!(
        "oifname \"{GATEWAY_VETH}\" iifname {{ \"{GATEWAY_TUNNEL}\", \"{GATEWAY_VETH}\" }} snat {{ip}} to {{lease}}"
    );
    let own = text.replace(&format!("oifname \"{GATEWAY_VETH}\""), "oifname \"{dev}\"");
    let mut rules = per_lease(gateway, "the lease", &text);
    rules.extend(per_own(gateway, "the pod's own address", &own));
    rules
}

fn leaving(gateway: &LocalGateway) -> Vec<NftRule> {
    let ours = format!("\"{GATEWAY_TUNNEL}\", \"{GATEWAY_VETH}\"");
    let own = format!("oifname \"{{dev}}\" iifname {{ {ours} }} {{ip}} saddr != {{lease}} counter drop");
    let mut rules = per_own(gateway, "belt: nothing leaves under another address", &own);
    rules.extend([
        rule("by another device", format!("oifname != \"{GATEWAY_VETH}\" accept")),
        rule("replies", "ct direction reply accept"),
    ]);
    rules.extend(per_lease(gateway, "the lease", "{ip} saddr {lease} accept"));
    rules.push(rule("neighbour discovery", "ip6 daddr ff00::/8 drop"));
    rules.push(rule("belt: nothing leaves under another address", "counter drop"));
    rules
}
