//! Node gateways in kernel words: what a node holds where it is the gateway itself.
//!
//! In: a [`NodePlan`] whose `exits` are this node's own gateways. Out: additions to the node's [`State`] and tables. Never: looks at a
//! kernel; touches anything on a node without exits.
//!
//! A client's packet arrives by the node's own tunnel under the gateway's MAC, or from a pod of this node. From then on its connection
//! mark says which gateway and whose client, and every step is a look-up by that mark which ends in a drop: the table of the declared
//! interface, SNAT to the declared address, and a last check of both. Values are written by one small chain each, because nft 1.0.6
//! cannot OR a map's result into a mark.

use std::net::IpAddr;

use crate::addr::Family;
use crate::egress::lower::{Belts, families, mark_value, table_of};
use crate::egress::lower_nft::{
    HELD, TO_TUNNEL, WITHOUT_ENTRY, base, chain, map, priority, rule, set_chain, word,
};
use crate::egress::numbers::{
    self, CLIENT_MASK, EXIT_MASK, LINK_GROUP, PIN_IS_EXIT, PIN_MASK, TUNNEL, client_mark, exit_mark,
};
use crate::egress::plan::{Exit, Gateway, NodePlan, Peer, Place};
use crate::kernel::nft::table::{Atom, Chain, Hook, KeyType, Map, Rule, Table, Value, ValueType};
use crate::kernel::state::{Remote, Route, State, Via};

/// The chain of frames for one of this node's gateways; the only place where its index can be read back.
pub fn exit_chain(index: u16) -> String {
    format!("exit_{index:x}")
}

/// The inverse of [`exit_chain`].
pub fn exit_chain_index(chain: &str) -> Option<u16> {
    u16::from_str_radix(chain.strip_prefix("exit_")?, 16).ok()
}

/// The chain that sends a packet on by a gateway that its flow has already.
pub fn go_chain(index: u16) -> String {
    format!("exit_go_{index:x}")
}

fn chain_for(what: &str, index: u16) -> String {
    format!("exit_{what}_{index:x}")
}

/// Adds routes, forwarding entries and settings.
pub fn node_state(plan: &NodePlan, state: &mut State) {
    if plan.exits.is_empty() {
        return;
    }
    to_nodes(plan, TUNNEL, state);
    for (dev, slot) in plan.doors() {
        let Some(door) = plan.here.doors.get(dev) else { continue };
        for (to, next_hop) in door.routes.iter().filter(|(to, _)| families(plan).contains(&to.family())) {
            let dev = dev.to_owned();
            let via = match next_hop {
                Some(gateway) => Via::Gateway { gateway: *gateway, dev },
                None => Via::Device { dev, source: None },
            };
            state.routes.insert(Route { table: table_of(slot), to: *to, metric: 0, via });
        }
        // Replies come by this interface, while `main` knows their way by another: strict filtering would drop them.
        state.sysctls.insert(format!("net/ipv4/conf/{dev}/rp_filter"), "2".to_owned());
        state.sysctls.insert(format!("net/ipv4/conf/{dev}/forwarding"), "1".to_owned());
    }
}

/// Every node but this one: the gateway's own node has its clients elsewhere than in the tunnel.
pub(super) fn others(plan: &NodePlan) -> impl Iterator<Item = &Peer> {
    plan.nodes.iter().filter(|(name, _)| **name != plan.here.node).map(|(_, peer)| peer)
}

/// Forwarding entries of a tunnel back to the clients' nodes.
pub(super) fn to_nodes(plan: &NodePlan, tunnel: &str, state: &mut State) {
    let family = Family::of(plan.here.underlay);
    for peer in others(plan) {
        if let Some(node) = peer.underlay.iter().copied().find(|ip| Family::of(*ip) == family) {
            let key = (tunnel.to_owned(), numbers::node_mac(peer.wire));
            state.fdb.insert(key, Remote { node, vni: plan.here.vni });
        }
    }
}

/// Adds to the `inet` table. The rules of [`super::lower_nft`] stand already.
pub fn inet(plan: &NodePlan, belts: Belts, table: &mut Table) {
    local_sets(plan, table);
    if plan.exits.is_empty() {
        return;
    }
    maps(plan, table);
    arriving(plan, table);
    going(plan, belts, table);
    leaving(plan, belts, table);
    returning(table);
    if belts.forward {
        forward(plan, table);
    }
}

/// A set whose gateway is this node has no table: its chain says the gateway, before routing. Where a set has others too, the
/// nearest serves.
fn local_sets(plan: &NodePlan, table: &mut Table) {
    for (mark, members) in &plan.sets {
        let exits = members.iter().filter_map(|number| plan.gateways.get(number)).filter_map(exit_of);
        let rules: Vec<Rule> = exits.flat_map(|(index, gateway)| by_family(index, gateway)).collect();
        if let Some(chain) = table.chains.get_mut(&set_chain(*mark)) {
            chain.rules.splice(0..0, rules);
        }
    }
}

fn exit_of(gateway: &Gateway) -> Option<(u16, &Gateway)> {
    match gateway.place {
        Place::Exit { index } => Some((index, gateway)),
        Place::Local { .. } | Place::Remote { .. } => None,
    }
}

fn by_family(index: u16, gateway: &Gateway) -> impl Iterator<Item = Rule> {
    let here = chain_for("here", index);
    let protocol = |family| if family == Family::V4 { "ipv4" } else { "ipv6" };
    let families = gateway.addresses.iter().map(|ip| Family::of(*ip));
    families.map(move |family| {
        rule("this node is the gateway", format!("meta nfproto {} goto {here}", protocol(family)))
    })
}

fn maps(plan: &NodePlan, table: &mut Table) {
    let verdict = Some(ValueType::Verdict);
    let mut add = |name: &str, map: Map| table.maps.insert(name.to_owned(), map);
    let by_mac = |to: fn(u16) -> String| {
        let element =
            move |(index, exit): (&u16, &Exit)| (vec![Atom::Mac(exit.mac)], Some(Value::Goto(to(*index))));
        map(&[KeyType::Ether], verdict, plan.exits.iter().map(element))
    };
    let by_mark = |to: fn(u16) -> String| {
        let element = move |index: &u16| (vec![Atom::Mark(exit_mark(*index))], Some(Value::Goto(to(*index))));
        map(&[KeyType::Mark], verdict, plan.exits.keys().map(element))
    };
    add("exits", by_mac(exit_chain));
    add("exit_zones", by_mac(|index| chain_for("zone", index)));
    add("exit_go", by_mark(go_chain));
    add("exit_snat", by_mark(|index| chain_for("snat", index)));
    add("exit_leave", by_mark(|index| chain_for("leave", index)));
    let nodes = others(plan).map(|peer| {
        (vec![Atom::Mac(numbers::node_mac(peer.wire))], Some(Value::Goto(chain_for("from", peer.number))))
    });
    add("exit_from", map(&[KeyType::Ether], verdict, nodes));
    let back = plan.nodes.iter().map(|(name, peer)| {
        // A client of this node is reached as any pod.
        let here = *name == plan.here.node;
        let way = if here { Value::Accept } else { Value::Goto(TO_TUNNEL.to_owned()) };
        (vec![Atom::Mark(client_mark(peer.number))], Some(way))
    });
    add("exit_back", map(&[KeyType::Mark], verdict, back));
}

/// Frames for a gateway of this node, from nodes alone.
fn arriving(plan: &NodePlan, table: &mut Table) {
    let to_us = |map: &str| format!("iifname \"{TUNNEL}\" ether daddr vmap @{map}");
    let rules = vec![rule("each gateway's clients apart", to_us("exit_zones"))];
    table.chains.insert("exit_raw".into(), base("filter", "prerouting", priority::RAW, rules));
    front(table, "prerouting", vec![rule("clients of this node's gateways", to_us("exits"))]);
    for index in plan.exits.keys() {
        // A client that moves between two gateways of one node keeps its ports, and with them it would keep the other's entry
        // and address. Of the first direction only: replies know nothing of zones.
        let zone = rule("its own zone", format!("ct original zone set {index}"));
        table.chains.insert(chain_for("zone", *index), chain(vec![zone]));
        let rules = vec![
            rule("replies do not come this way", "ct direction reply counter drop"),
            rule("which gateway", write(EXIT_MASK, exit_mark(*index))),
            rule("whose client", "ether saddr vmap @exit_from"),
            rule("unknown node", "counter drop"),
        ];
        table.chains.insert(exit_chain(*index), chain(rules));
    }
    for peer in others(plan) {
        let rules = vec![
            rule("client's node", write(CLIENT_MASK, client_mark(peer.number))),
            rule("go on", format!("ct mark & {EXIT_MASK:#x} vmap @exit_go")),
            // Without an entry (conntrack calls the packet invalid) there is no mark, and no NAT.
            rule("no entry", "counter drop"),
        ];
        table.chains.insert(chain_for("from", peer.number), chain(rules));
    }
}

/// Into the table of the declared interface.
fn going(plan: &NodePlan, belts: Belts, table: &mut Table) {
    let mask = plan.here.mark_mask;
    let own = plan.nodes.get(&plan.here.node).map_or(0, |peer| peer.number);
    for (index, exit) in &plan.exits {
        let slot = mark_value(mask, exit.slot);
        let text = format!("meta mark set meta mark & {:#010x} | {slot:#x}", !mask);
        let rules = vec![rule("by its interface", text), rule("decided", "accept")];
        table.chains.insert(go_chain(*index), chain(rules));
        let own = exit_mark(*index) | client_mark(own);
        let mut rules = vec![
            // An entry from before carries another NAT binding for good.
            rule("a flow with another address", format!("ct status confirmed goto {HELD}")),
            rule("a client of this node", write(PIN_MASK, own)),
            rule("go on", format!("goto {}", go_chain(*index))),
        ];
        if belts.invalid {
            rules.insert(0, rule("belt: without an entry there is no NAT", WITHOUT_ENTRY));
        }
        table.chains.insert(chain_for("here", *index), chain(rules));
    }
}

/// SNAT before every primary's, and the check behind everybody's.
fn leaving(plan: &NodePlan, belts: Belts, table: &mut Table) {
    let is_exit = format!("ct mark & {PIN_IS_EXIT:#x} != 0");
    front(table, "srcnat", vec![rule("by a node gateway", format!("{is_exit} goto exit_snat"))]);
    let look_up = |map: &str| rule("which gateway", format!("ct mark & {EXIT_MASK:#x} vmap @{map}"));
    let unknown = || rule("no such gateway", "counter drop");
    table.chains.insert("exit_snat".into(), chain(vec![look_up("exit_snat"), unknown()]));
    for (index, exit) in &plan.exits {
        let mut rules = per_address(exit, "its address", "snat {ip} to {address}");
        rules.push(rule("no address of this family", "counter drop"));
        table.chains.insert(chain_for("snat", *index), chain(rules));
        let leave = format!("oifname \"{}\" {{ip}} saddr {{address}} accept", exit.interface);
        let mut rules = per_address(exit, "its interface and address", &leave);
        rules.push(rule("belt: by no other way, under no other address", "counter drop"));
        table.chains.insert(chain_for("leave", *index), chain(rules));
    }
    table.chains.insert("exit_leave".into(), chain(vec![look_up("exit_leave"), unknown()]));
    if belts.exit_source {
        let text = format!("{is_exit} ct direction original goto exit_leave");
        front(table, "postrouting", vec![rule("belt: by a node gateway", text)]);
    }
}

fn per_address(exit: &Exit, label: &str, text: &str) -> Vec<Rule> {
    let one = |ip: &IpAddr| {
        let text = text.replace("{ip}", word(Family::of(*ip)));
        rule(label, text.replace("{address}", &ip.to_string()))
    };
    exit.addresses.iter().map(one).collect()
}

/// Replies, and this node's own errors about either direction, go the flow's way.
fn returning(table: &mut Table) {
    let back = format!("ct mark & {CLIENT_MASK:#x} vmap @exit_back");
    let text = format!("ct direction reply ct mark & {PIN_IS_EXIT:#x} != 0 goto exit_reply");
    if let Some(prerouting) = table.chains.get_mut("prerouting") {
        prerouting.rules.insert(1, rule("replies to this node's gateways", text));
    }
    let rules = vec![rule("to the client's node", &back), rule("unknown node", "counter drop")];
    table.chains.insert("exit_reply".into(), chain(rules));
    let go = format!("ct mark & {EXIT_MASK:#x} vmap @exit_go");
    let errors = vec![
        rule("errors about replies", format!("ct state related ct direction original {go}")),
        rule("errors to clients", format!("ct state related ct direction reply {back}")),
    ];
    front(table, "output", errors);
}

/// The forward belt knows which mark may leave by which interface, and that the flow's own mark says so, too: what has no entry has none,
/// and nothing would give it the address.
fn forward(plan: &NodePlan, table: &mut Table) {
    let mask = plan.here.mark_mask;
    let may = |(dev, slot): (&str, u8)| {
        let slot = mark_value(mask, slot);
        let text = format!(
            "meta mark & {mask:#x} == {slot:#x} oifname \"{dev}\" ct mark & {PIN_IS_EXIT:#x} != 0 return"
        );
        rule("its own interface", text)
    };
    let mut rules: Vec<Rule> = plan.doors().into_iter().map(may).collect();
    rules.push(rule("belt: marked, but not leaving by us", "counter drop"));
    table.chains.insert("exit_forward".into(), chain(rules));
    if let Some(first) = table.chains.get_mut("forward").and_then(|chain| chain.rules.first_mut()) {
        let text = format!("meta mark & {mask:#x} != 0 oifgroup != {LINK_GROUP} jump exit_forward");
        *first = rule("belt: marked, and not leaving by our devices", text);
    }
}

fn front(table: &mut Table, chain: &str, rules: Vec<Rule>) {
    if let Some(chain) = table.chains.get_mut(chain) {
        chain.rules.splice(0..0, rules);
    }
}

/// A masked write into the connection mark.
fn write(mask: u32, value: u32) -> String {
    format!("ct mark set ct mark & {:#010x} | {value:#x}", !mask)
}

/// Adds to the `netdev` table: frames for this node's gateways are let in, though their MAC is not the device's, and what
/// answers them finds the client's node.
pub fn netdev(plan: &NodePlan, mut table: Table) -> Table {
    if plan.exits.is_empty() {
        return table;
    }
    let macs = plan.exits.values().map(|exit| (vec![Atom::Mac(exit.mac)], None));
    table.maps.insert("exits".into(), map(&[KeyType::Ether], None, macs));
    let nodes = others(plan).map(|peer| {
        let mac = Value::Mac(numbers::node_mac(peer.wire));
        (vec![Atom::Mark(client_mark(peer.number))], Some(mac))
    });
    table.maps.insert("back".into(), map(&[KeyType::Mark], Some(ValueType::Ether), nodes));
    if let Some(out) = table.chains.get_mut("out") {
        let text = format!("ether daddr set meta mark & {CLIENT_MASK:#x} map @back");
        out.rules.insert(1, rule("to the client's node", text));
    }
    let hook =
        Hook { kind: "filter".into(), hook: "ingress".into(), priority: 0, device: Some(TUNNEL.to_owned()) };
    let rules = vec![rule("for a gateway of this node", "ether daddr @exits meta pkttype set host")];
    table.chains.insert("in".into(), Chain { hook: Some(hook), rules });
    table
}
