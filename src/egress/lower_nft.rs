//! The plan of a node, said in nftables: where every decision is made, before routing.
//!
//! In: a [`NodePlan`]. Out: the `inet` and the `netdev` table. Never: looks at a kernel.
//!
//! The rules were found by experiment (strict rp_filter, masquerading primaries, dual stack); each belt and each order below
//! closes a hole that was seen. Three habits of nft 1.0.6 shape them: no longest-prefix match in maps (so rules are flattened to
//! ranges), no OR into a mark from a map (so verdict maps lead to one small chain per value), one map per address family.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::addr::{Cidr, Family};
use crate::egress::inside::flatten;
use crate::egress::lower::{Belts, local_chain, mark_value, pin_chain, slots};
use crate::egress::lower_clients::binding_map;
use crate::egress::numbers::{self, LINK_GROUP, PIN_IS_EXIT, PIN_MASK, PIN_SHIFT, mark};
use crate::egress::plan::{Binding, LocalGateway, NodePlan, Place, Verdict};
use crate::egress::{always, entrance, exits, leased, own_address, replies};
use crate::kernel::nft::table::{Atom, Chain, Hook, KeyType, Map, Rule, Table, Value, ValueType};
use crate::kernel::state::NftFamily;

/// Chain that refuses and says so.
pub(crate) const HELD: &str = "held";
/// Chain that sends a pinned packet into the tunnel.
pub(crate) const TO_TUNNEL: &str = "to_tunnel";
/// What no NAT touches: packets that conntrack cannot place, and those that it does not look at, by somebody's `notrack` or of its own
/// accord (ICMPv6 130 to 136 and 143). Every `ct mark`, `status` or `direction` fails on both.
pub(crate) const WITHOUT_ENTRY: &str = "ct state invalid,untracked counter drop";

/// Chain that counts what a firewall's chains let through: see `forwarded`.
pub const FORWARDED: &str = "forwarded";
/// Rule that counts what our devices hand to the node's forwarding.
pub const FORWARDED_FROM_US: &str = "forwarded from us";
/// Rule that counts what the node's forwarding hands to our devices.
pub const FORWARDED_TO_US: &str = "forwarded to us";

/// Priorities of nft's named places, as numbers.
pub mod priority {
    /// `raw`: before connection tracking.
    pub const RAW: i32 = -300;
    /// `mangle`.
    pub const MANGLE: i32 = -150;
    /// `dstnat`.
    pub const DSTNAT: i32 = -100;
    /// `filter`.
    pub const FILTER: i32 = 0;
    /// `srcnat`.
    pub const SRCNAT: i32 = 100;
    /// Behind everybody's filter: `security` is 50, and firewalld's chains stand at `filter` + 10.
    pub const LATE: i32 = 300;
}

/// Both tables of a node.
pub fn node_tables(plan: &NodePlan, belts: Belts) -> BTreeMap<(NftFamily, String), Table> {
    let name = numbers::NFT_TABLE.to_owned();
    BTreeMap::from([
        ((NftFamily::Inet, name.clone()), inet(plan, belts)),
        ((NftFamily::Netdev, name), exits::netdev(plan, netdev(plan))),
    ])
}

/// A base chain with a policy of accept.
pub fn base(kind: &str, hook: &str, priority: i32, rules: Vec<Rule>) -> Chain {
    let hook = Hook { kind: kind.to_owned(), hook: hook.to_owned(), priority, device: None };
    Chain { hook: Some(hook), rules }
}

/// An egress chain of the `netdev` family.
pub fn egress_hook(device: &str, rules: Vec<Rule>) -> Chain {
    let device = Some(device.to_owned());
    Chain { hook: Some(Hook { kind: "filter".into(), hook: "egress".into(), priority: 0, device }), rules }
}

/// A chain reached by jump or goto.
pub fn chain(rules: Vec<Rule>) -> Chain {
    Chain { hook: None, rules }
}

/// A rule; see [`Rule::new`].
pub fn rule(label: &str, text: impl Into<String>) -> Rule {
    Rule::new(label, text)
}

/// A set or map with these elements.
pub fn map(
    key: &[KeyType],
    value: Option<ValueType>,
    elements: impl IntoIterator<Item = (Vec<Atom>, Option<Value>)>,
) -> Map {
    Map { key: key.to_vec(), value, interval: false, elements: elements.into_iter().collect() }
}

/// nft's name of a family's addresses.
pub fn key_type(family: Family) -> KeyType {
    match family {
        Family::V4 => KeyType::Ipv4,
        Family::V6 => KeyType::Ipv6,
    }
}

/// `4` or `6`, the last letter of our per-family maps.
pub fn digit(family: Family) -> char {
    match family {
        Family::V4 => '4',
        Family::V6 => '6',
    }
}

/// `ip` or `ip6`, the word that starts a family's expressions.
pub fn word(family: Family) -> &'static str {
    match family {
        Family::V4 => "ip",
        Family::V6 => "ip6",
    }
}

/// Two rules, one per family: `{ip}` and `{n}` in the text stand for the family's word and digit.
pub fn both(label: &str, text: &str) -> [Rule; 2] {
    Family::BOTH.map(|family| {
        let text = text.replace("{ip}", word(family)).replace("{n}", &digit(family).to_string());
        rule(label, text)
    })
}

fn inet(plan: &NodePlan, belts: Belts) -> Table {
    let mut table = Table::default();
    maps(plan, belts, &mut table);
    decide(plan, belts, &mut table);
    pins(plan, belts, &mut table);
    guards(plan, belts, &mut table);
    nat(plan, &mut table);
    for (name, binding) in plan.bindings.iter().chain(&always::besides(&plan.bindings)) {
        add_binding(name, binding, belts, &mut table);
    }
    exits::inet(plan, belts, &mut table);
    table
}

/// The maps and sets whose elements are the plan.
fn maps(plan: &NodePlan, belts: Belts, table: &mut Table) {
    for family in Family::BOTH {
        let (kind, n) = (key_type(family), digit(family));
        let of_family = |ip: &IpAddr| Family::of(*ip) == family;
        table.maps.insert(binding_map(family), leased::senders(plan, belts, family));

        let inside = plan.inside.iter().filter(|net| net.family() == family).map(|net| (*net, ()));
        let mut direct = map(&[kind], None, ranges(&inside.collect()).map(|(key, ())| (key, None)));
        direct.interval = true;
        table.maps.insert(format!("direct{n}"), direct);

        let hops = plan.gateways.iter().flat_map(|(number, g)| g.next_hops().map(|ip| (ip, *number)));
        let pins = hops.filter(|(ip, _)| of_family(ip));
        let pins = pins.map(|(ip, number)| (vec![Atom::Ip(ip)], Some(Value::Goto(pin_chain(number)))));
        table.maps.insert(format!("pin{n}"), map(&[kind], Some(ValueType::Verdict), pins));

        // A lease that is hidden behind no address may not leave at all.
        let may = |g: &LocalGateway, ip: &IpAddr| g.hidden.get(ip) != Some(&None);
        let held = |g: &LocalGateway| g.leases().filter(|ip| may(g, ip)).collect::<Vec<_>>();
        let leases = plan.locals.values().flat_map(|g| held(g).into_iter().map(|ip| (g.veth.clone(), ip)));
        let leases = leases.filter(|(_, ip)| of_family(ip));
        let leases = leases.map(|(veth, ip)| (vec![Atom::Dev(veth), Atom::Ip(ip)], None));
        table.maps.insert(format!("lease{n}"), map(&[KeyType::Ifname, kind], None, leases));

        let nodes = plan.nodes.values().flat_map(|peer| &peer.underlay).chain(&plan.unnamed);
        let nodes = nodes.filter(|ip| of_family(ip));
        let nodes = nodes.map(|ip| (vec![Atom::Ip(*ip)], None));
        table.maps.insert(format!("nodes{n}"), map(&[kind], None, nodes));
    }
    let pinned = plan.gateways.iter().map(|(number, gateway)| {
        let chain = match gateway.place {
            Place::Local { slot, .. } => local_chain(slot),
            Place::Remote { .. } => TO_TUNNEL.to_owned(),
            Place::Exit { index } => exits::go_chain(index),
        };
        (vec![Atom::Mark(plan.pin(*number, gateway) << PIN_SHIFT)], Some(Value::Goto(chain)))
    });
    table.maps.insert("pinned".to_owned(), map(&[KeyType::Mark], Some(ValueType::Verdict), pinned));
}

/// Disjoint ranges of longest-prefix rules, as keys of an interval map.
fn ranges<T: Clone + PartialEq>(rules: &BTreeMap<Cidr, T>) -> impl Iterator<Item = (Vec<Atom>, T)> {
    flatten(rules).into_iter().map(|(first, last, value)| (vec![Atom::Range(first, last)], value))
}

/// Who is asked: our own devices first, then clients, by address. By address and not by `ct direction` first, because packets
/// that conntrack calls invalid have no direction and would pass by.
fn decide(plan: &NodePlan, belts: Belts, table: &mut Table) {
    let mut rules = Vec::new();
    if belts.from_us {
        rules.push(rule("our devices", format!("iifgroup {LINK_GROUP} goto from_us")));
    }
    rules.extend(both("clients", "{ip} saddr vmap @binding{n}"));
    table.chains.insert("prerouting".into(), base("filter", "prerouting", priority::DSTNAT + 10, rules));
    if belts.from_us {
        // The tunnel brings replies only; a gateway's veth brings replies and what carries its own lease. Anything else would
        // open a flow the wrong way round after a conntrack flush, and its answers would leave with the pod's address.
        let mut rules = vec![rule("replies", "ct direction reply accept")];
        rules.extend(both("own lease", "iifname . {ip} saddr @lease{n} accept"));
        rules.push(rule("neighbour discovery", "ip6 daddr ff02::/16 drop"));
        rules.push(rule("belt: our devices open no flows", "counter drop"));
        table.chains.insert("from_us".into(), chain(rules));
    }
    if belts.spoof {
        table.chains.insert(leased::LEASED.into(), leased::chain_of_leases());
    }
    table.chains.insert(replies::REPLIES.into(), replies::chain_of_replies(belts));
    let held = vec![
        rule("held: TCP is told", "meta l4proto tcp counter reject with tcp reset"),
        rule("held", "counter reject with icmpx type admin-prohibited"),
    ];
    table.chains.insert(HELD.into(), chain(held));
    let mask = plan.here.mark_mask;
    let mut send = |name: String, label: &str, number: u8| {
        let text = format!("meta mark set meta mark & {:#010x} | {:#x}", !mask, mark_value(mask, number));
        table.chains.insert(name, chain(vec![rule(label, text), rule("decided", "accept")]));
    };
    send(TO_TUNNEL.to_owned(), "into the tunnel", mark::TUNNEL);
    for slot in slots(plan) {
        send(local_chain(slot), "to the local gateway", slot);
    }
    for set in plan.sets.keys() {
        send(set_chain(*set), "to the gateway set", *set);
    }
}

pub(crate) fn set_chain(mark: u8) -> String {
    format!("to_set_{mark:x}")
}

/// A client's chain: replies pass, a pinned flow follows its pin, inside destinations pass, then the binding's map decides.
fn add_binding(name: &str, binding: &Binding, belts: Belts, table: &mut Table) {
    let mut rules =
        vec![replies::replies(), rule("pinned", format!("ct mark & {PIN_MASK:#x} != 0 jump pinned_flow"))];
    rules.extend(both("inside", "{ip} daddr @direct{n} accept"));
    if belts.invalid {
        rules.push(rule("belt: without an entry there is no NAT", "ct state invalid counter drop"));
    }
    if belts.spoof {
        rules.push(spoof());
    }
    for family in Family::BOTH {
        let mut own: BTreeMap<Cidr, Verdict> = binding
            .rules
            .iter()
            .filter(|(net, _)| net.family() == family)
            .map(|(net, v)| (*net, *v))
            .collect();
        own.entry(family.everything()).or_insert(Verdict::Direct);
        let verdicts = ranges(&own).map(|(key, verdict)| (key, Some(nft_verdict(verdict))));
        let mut destinations = map(&[key_type(family)], Some(ValueType::Verdict), verdicts);
        destinations.interval = true;
        let map_name = format!("{name}_{}", digit(family));
        rules.push(rule("rules", format!("{} daddr vmap @{map_name}", word(family))));
        table.maps.insert(map_name, destinations);
    }
    // Every destination has its element, and yet a look-up can find none: a new generation of rules is in force some 100 µs before the
    // elements that came with it are in the search tree of an interval map (kernel 6.18: sets commit last). Without this, one packet in
    // some thousand left with the pod's or its node's address at every change of a binding.
    rules.push(rule("belt: a map between two generations", "counter drop"));
    table.chains.insert(name.to_owned(), chain(rules));
}

fn nft_verdict(verdict: Verdict) -> Value {
    match verdict {
        Verdict::Direct => Value::Accept,
        Verdict::Held => Value::Goto(HELD.to_owned()),
        Verdict::Set(mark) => Value::Goto(set_chain(mark)),
    }
}

/// Another pod of this node that uses a client's address is found by the interface it comes from.
fn spoof() -> Rule {
    rule("belt: somebody else's address", "fib saddr . iif oif missing counter drop")
}

/// Pins: written once, at a flow's first packet, followed by all later ones.
fn pins(plan: &NodePlan, belts: Belts, table: &mut Table) {
    let mask = plan.here.mark_mask;
    let mut rules = Vec::new();
    if belts.spoof {
        rules.push(spoof());
    }
    rules.extend([
        rule("pin", format!("ct mark & {PIN_MASK:#x} vmap @pinned")),
        // Below here the gateway is gone. Re-routing TCP mid-stream hangs wherever the far end drops unknown packets, so it is
        // told at once; a client's RST needs no answer; everything else is pinned anew by the binding's chain.
        rule("dead pin: TCP is told", "tcp flags & (syn | ack | rst) == ack counter reject with tcp reset"),
        rule(
            "dead pin: TCP without ACK",
            "tcp flags & (syn | ack | rst) == 0x0 counter reject with tcp reset",
        ),
        rule("dead pin: RST", "tcp flags & rst != 0x0 counter drop"),
        // Its NAT binding was made on this node and is frozen: whatever way it took, it would show an address that it may not use.
        // `transition` deletes the entry.
        rule("dead pin: of a node gateway", format!("ct mark & {PIN_IS_EXIT:#x} != 0 counter drop")),
        rule("dead pin: pin anew", format!("ct mark set ct mark & {:#x}", !PIN_MASK)),
    ]);
    table.chains.insert("pinned_flow".into(), chain(rules));

    let first = mark_value(mask, *mark::LOCALS.start());
    let rules = vec![
        rule("not ours", format!("meta mark & {mask:#x} == 0 accept")),
        // MLD and IGMP reports of the node carry garbage where other packets have their mark.
        rule("not by us", format!("oifgroup != {LINK_GROUP} accept")),
        rule("routed by a set", format!("meta mark & {mask:#x} < {first:#x} jump pin")),
        rule(
            "the egress hook finds the gateway by the pin",
            format!("oifname \"{}\" meta mark set ct mark", numbers::TUNNEL),
        ),
    ];
    table.chains.insert("postrouting".into(), base("filter", "postrouting", priority::SRCNAT + 250, rules));
    table.chains.insert("pin".into(), chain(both("chosen", "rt {ip} nexthop vmap @pin{n}").to_vec()));
    for number in plan.gateways.keys() {
        let text = format!("ct mark set ct mark & {:#x} | {:#x}", !PIN_MASK, number << PIN_SHIFT);
        table.chains.insert(pin_chain(*number), chain(vec![rule("pinned to it", text)]));
    }
    // ICMP errors that this node makes about a pinned flow's replies (the client's MTU is below the tunnel's) travel the
    // flow's own way; else they leave by the uplink about an address that nobody knows (datapath facts, hole 2).
    let text = format!("ct state related ct direction original ct mark & {PIN_MASK:#x} vmap @pinned");
    let mut rules = vec![rule("errors go the flow's way", text)];
    if belts.guard {
        rules.extend(both(
            "guard: only root speaks the tunnel",
            &format!("udp dport {} meta skuid != 0 {{ip}} daddr @nodes{{n}} counter drop", plan.here.port),
        ));
    }
    table.chains.insert("output".into(), base("route", "output", priority::MANGLE, rules));
}

/// What no packet may do, whatever was decided.
fn guards(plan: &NodePlan, belts: Belts, table: &mut Table) {
    let mask = plan.here.mark_mask;
    let mut rules = Vec::new();
    if belts.forward {
        // In `forward`, not `postrouting`: there the node's own MLD and IGMP reports carry garbage marks.
        let text = format!("meta mark & {mask:#x} != 0 oifgroup != {LINK_GROUP} counter drop");
        rules.push(rule("belt: marked, but not leaving by us", text));
    }
    rules.extend(plan.locals.values().flat_map(|gateway| own_address::guarded(gateway, belts)));
    rules.extend(forwarded());
    let clamp = format!(
        "tcp flags & (syn | rst) == syn oifname \"{}\" tcp option maxseg size set rt mtu",
        numbers::TUNNEL
    );
    rules.push(rule("MSS of the tunnel", clamp));
    if belts.guard {
        rules.push(entrance::guarded(plan, table));
    }
    table.chains.insert("forward".into(), base("filter", "forward", priority::MANGLE, rules));
    let late = base("filter", "forward", priority::LATE, forwarded().to_vec());
    table.chains.insert(FORWARDED.into(), late);
}

/// Counters that stand once before and once behind every firewall's chain in the same hook. What the second has not seen, somebody's
/// policy took: `egret status` says so. Texts that never change, so no plan's change sets one of them back without the other.
fn forwarded() -> [Rule; 2] {
    [
        rule(FORWARDED_FROM_US, format!("iifgroup {LINK_GROUP} counter")),
        rule(FORWARDED_TO_US, format!("oifgroup {LINK_GROUP} counter")),
    ]
}

/// Identity NAT in a chain before every primary's: the flow's source is settled here, so a masquerade behind is skipped,
/// whoever made it (iptables-nft, iptables-legacy, nft) and whenever.
fn nat(plan: &NodePlan, table: &mut Table) {
    let mask = plan.here.mark_mask;
    let text = format!("oifgroup {LINK_GROUP} meta mark & {mask:#x} != 0 snat {{ip}} to {{ip}} saddr");
    let mut rules = both("clients keep their address", &text).to_vec();
    for gateway in plan.locals.values() {
        rules.extend(own_address::kept(gateway));
        let seen = gateway.hidden.iter().filter_map(|(lease, seen)| Some((lease, seen.as_ref()?)));
        let seen = seen.filter(|(lease, _)| !gateway.is_own(**lease));
        rules.extend(seen.map(|(lease, seen)| {
            let (ip, veth) = (word(Family::of(*lease)), &gateway.veth);
            let text = format!("iifname \"{veth}\" {ip} saddr {lease} snat {ip} to {seen}");
            rule("natOutgoing: with the node's address", text)
        }));
    }
    rules.extend(both("leases keep their address", "iifname . {ip} saddr @lease{n} snat {ip} to {ip} saddr"));
    table.chains.insert("srcnat".into(), base("nat", "postrouting", priority::SRCNAT - 10, rules));
}

/// The one place that writes a gateway's MAC; kernels without the egress hook would need a small tc program here instead.
fn netdev(plan: &NodePlan) -> Table {
    let remote = plan.gateways.iter().filter(|(_, gateway)| matches!(gateway.place, Place::Remote { .. }));
    let macs = remote
        .map(|(number, gateway)| (vec![Atom::Mark(number << PIN_SHIFT)], Some(Value::Mac(gateway.mac))));
    let rules = vec![
        // A pin that is in no map keeps the device's own MAC, has no forwarding entry, and is dropped.
        rule("to the gateway", format!("ether daddr set meta mark & {PIN_MASK:#x} map @mac")),
        // VXLAN routes the outer packet by the inner one's mark: left in place it loops (-ELOOP).
        rule("the outer packet is routed unmarked", "meta mark set 0x0"),
    ];
    Table {
        chains: BTreeMap::from([("out".to_owned(), egress_hook(numbers::TUNNEL, rules))]),
        maps: BTreeMap::from([("mac".to_owned(), map(&[KeyType::Mark], Some(ValueType::Ether), macs))]),
    }
}
