//! From any state to any other in one reconcile, on the real kernel.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use egret::addr::{Cidr, Family};
use egret::kernel::state::{Action, Address, Link, LinkKind, Match, Nexthop, Route, Rule, State, Via};
use egret::kernel::{Place, Saved, observe};
use proptest::collection::{btree_map, btree_set};
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{Config, TestRunner};

use crate::world::*;

/// Devices that may exist, by name; what each is varies.
const DEVICES: [&str; 4] = ["t1", "t2", "va", "vb"];
const GATEWAYS: [&str; 6] =
    ["203.0.113.11", "203.0.113.12", "203.0.113.13", "2001:db8:e::11", "2001:db8:e::12", "fe80::11"];
const OWN: [&str; 6] =
    ["169.254.77.1", "169.254.77.253", "203.0.113.1", "fe80::77:1", "2001:db8:f::1", "2001:db8:f::2"];
const TABLES: [u32; 3] = [254, 479_001, 479_127];
const METRICS: [u32; 3] = [0, 5, u32::MAX];

fn a_link(name: &'static str) -> BoxedStrategy<Link> {
    let parts = (1u8..3, select(vec![1280u32, 1450]), any::<bool>());
    if name.starts_with('t') {
        let local = select(vec!["172.30.0.1", "fd00:172:30::1"]);
        (parts, 5001u32..5004, local)
            .prop_map(|((m, mtu, arp), vni, local)| Link { mac: mac(m), mtu, arp, ..vxlan(vni, local) })
            .boxed()
    } else {
        (parts, select(vec!["pa", "pb"]), 3u8..5)
            .prop_map(|((m, mtu, arp), peer, peer_mac)| {
                let kind = LinkKind::Veth { peer: peer.into(), peer_mac: mac(peer_mac) };
                Link { kind, mac: mac(m), mtu, arp }
            })
            .boxed()
    }
}

/// Devices without two of one VNI or two with one peer.
fn links() -> impl Strategy<Value = BTreeMap<String, Link>> {
    let each: Vec<_> = DEVICES.iter().map(|name| proptest::option::weighted(0.8, a_link(name))).collect();
    each.prop_map(|links| {
        let mut taken = BTreeSet::new();
        let named = DEVICES.iter().zip(links).filter_map(|(name, link)| Some(((*name).to_owned(), link?)));
        named
            .filter(|(_, link)| match &link.kind {
                LinkKind::Vxlan { vni, .. } => taken.insert(vni.to_string()),
                LinkKind::Veth { peer, .. } => taken.insert(peer.clone()),
                LinkKind::VethPeer => false,
            })
            .collect()
    })
}

/// What stands on the devices: drawn freely, then cut down to what fits together.
#[derive(Debug, Clone)]
struct Draw {
    addresses: BTreeMap<(usize, usize), bool>,
    neighbours: BTreeMap<(usize, usize), u8>,
    proxies: BTreeSet<(usize, usize)>,
    fdb: BTreeMap<(usize, u8), (u8, u32)>,
    gateway_devices: Vec<usize>,
    nexthops: BTreeMap<u32, Option<usize>>,
    groups: BTreeMap<u32, BTreeSet<u32>>,
    routes: BTreeMap<(usize, usize, usize), (u8, usize)>,
    rules: BTreeSet<(bool, usize, u8, u32, u8)>,
    sysctls: BTreeMap<usize, usize>,
}

fn draw() -> impl Strategy<Value = Draw> {
    let (dev, gw, own) = (0..DEVICES.len(), 0..GATEWAYS.len(), 0..OWN.len());
    let first = (
        btree_map((dev.clone(), own), any::<bool>(), 0..6),
        btree_map((dev.clone(), gw.clone()), 1u8..3, 0..6),
        btree_set((0..=DEVICES.len(), gw.clone()), 0..4),
        btree_map((dev.clone(), 1u8..4), (2u8..4, 5001u32..5004), 0..4),
        proptest::collection::vec(dev, GATEWAYS.len()),
    );
    let second = (
        btree_map(479_000u32..479_006, proptest::option::weighted(0.9, gw), 0..6),
        btree_map(479_004u32..479_008, btree_set(479_000u32..479_006, 1..4), 0..4),
        btree_map((0usize..3, 0usize..8, 0usize..3), (0u8..5, 0usize..12), 0..12),
        btree_set((any::<bool>(), 0usize..6, 0u8..5, 0u32..3, 0u8..6), 0..12),
        btree_map(0usize..6, 0usize..2, 0..4),
    );
    (first, second).prop_map(|(first, second)| {
        let (addresses, neighbours, proxies, fdb, gateway_devices) = first;
        let (nexthops, groups, routes, rules, sysctls) = second;
        Draw {
            addresses,
            neighbours,
            proxies,
            fdb,
            gateway_devices,
            nexthops,
            groups,
            routes,
            rules,
            sysctls,
        }
    })
}

fn state() -> impl Strategy<Value = State> {
    (links(), draw()).prop_map(|(links, draw)| fit(links, &draw))
}

fn fit(links: BTreeMap<String, Link>, draw: &Draw) -> State {
    let mut state = State { links, ..State::default() };
    let dev = |state: &State, index: usize| {
        let name = *DEVICES.get(index)?;
        state.links.contains_key(name).then(|| name.to_owned())
    };
    for ((device, own), link_scope) in &draw.addresses {
        if let Some(dev) = dev(&state, *device) {
            let ip = addr(OWN[*own]);
            let twin = Address { dev, ip, link_scope: *link_scope };
            state.addresses.insert(twin);
        }
    }
    for ((device, gateway), last) in &draw.neighbours {
        if let Some(dev) = dev(&state, *device) {
            state.neighbours.insert((dev, addr(GATEWAYS[*gateway])), mac(*last));
        }
    }
    for (device, gateway) in &draw.proxies {
        let dev = if *device == DEVICES.len() { Some("up0".to_owned()) } else { dev(&state, *device) };
        if let Some(dev) = dev {
            state.proxies.insert((dev, addr(GATEWAYS[*gateway])));
        }
    }
    for ((device, last), (node, vni)) in &draw.fdb {
        let local = dev(&state, *device).and_then(|name| match state.links[&name].kind {
            LinkKind::Vxlan { local, .. } => Some((name, local)),
            _ => None,
        });
        if let Some((dev, local)) = local {
            let node =
                if local.is_ipv4() { format!("172.30.0.{node}") } else { format!("fd00:172:30::{node}") };
            state.fdb.insert((dev, mac(*last)), remote(&node, *vni));
        }
    }
    fit_nexthops(&mut state, draw);
    fit_routes(&mut state, draw);
    for (six, priority, kind, number, action) in &draw.rules {
        let priority = scope().rule_priorities[*priority];
        let family = if *six { Family::V6 } else { Family::V4 };
        let matches = match kind {
            0 => Match::Mark { value: *number, mask: 0x7f },
            1 => Match::NotMark { value: *number, mask: 0x7f },
            2 => Match::Mark { value: *number, mask: 0x3 },
            3 => Match::Input(["t1", "va", "up0"][*number as usize].into()),
            _ if *six => Match::From(addr(GATEWAYS[3 + *number as usize])),
            _ => Match::From(addr(GATEWAYS[*number as usize])),
        };
        let action = match action {
            0 | 1 => Action::Lookup(479_001),
            2 => Action::Unreachable,
            3 => Action::Nop,
            // To one of ours that stands or does not, or to nobody's.
            4 => Action::Goto(721.max(priority + 1)),
            _ => Action::Goto(800),
        };
        state.rules.insert(Rule { family, priority, matches, action });
    }
    for (which, value) in &draw.sysctls {
        let (path, values): (&str, [&str; 2]) = [
            ("net/ipv4/conf/t1/rp_filter", ["2", "1"]),
            ("net/ipv4/conf/va/send_redirects", ["0", "1"]),
            ("net/ipv6/conf/vb/accept_ra", ["0", "2"]),
            ("net/ipv4/fib_multipath_hash_policy", ["1", "2"]),
            ("net/ipv4/conf/up0/rp_filter", ["2", "1"]),
            ("net/ipv4/ping_group_range", ["0 2147483647", "5 6"]),
        ][*which];
        let device = DEVICES.iter().find(|name| path.contains(&format!("/{name}/")));
        if device.is_none_or(|name| state.links.contains_key(*name)) {
            state.sysctls.insert(path.into(), values[*value].into());
        }
    }
    state
}

/// Nexthops through devices that exist; groups of one family.
fn fit_nexthops(state: &mut State, draw: &Draw) {
    for (id, gateway) in &draw.nexthops {
        let nexthop = match gateway {
            Some(index) => {
                let Some(dev) = gateway_device(state, draw, *index) else { continue };
                Nexthop::Via { gateway: addr(GATEWAYS[*index]), dev }
            }
            None if id % 2 == 0 => Nexthop::Blackhole { family: Family::V4 },
            None => Nexthop::Blackhole { family: Family::V6 },
        };
        state.nexthops.insert(*id, nexthop);
    }
    for (id, members) in &draw.groups {
        if state.nexthops.contains_key(id) {
            continue;
        }
        let family = |id: &u32| match state.nexthops.get(id) {
            Some(Nexthop::Via { gateway, .. }) => Some(Family::of(*gateway)),
            _ => None,
        };
        let Some(first) = members.iter().find_map(family) else { continue };
        let members: BTreeSet<u32> = members.iter().filter(|id| family(id) == Some(first)).copied().collect();
        state.nexthops.insert(*id, Nexthop::Group { family: first, members });
    }
}

/// One device per gateway in one state: IPv6 refuses a nexthop that `main` reaches elsewhere.
fn gateway_device(state: &State, draw: &Draw, gateway: usize) -> Option<String> {
    let name = DEVICES[draw.gateway_devices[gateway]];
    state.links.contains_key(name).then(|| name.to_owned())
}

fn fit_routes(state: &mut State, draw: &Draw) {
    for ((table, to, metric), (kind, choice)) in &draw.routes {
        let to: Cidr = match to {
            0 => Family::V4.everything(),
            1 => Family::V6.everything(),
            index => Cidr::host(addr(GATEWAYS[index - 2])),
        };
        let (table, metric, family) = (TABLES[*table], METRICS[*metric], to.family());
        let gateway = GATEWAYS.iter().position(|gateway| Cidr::host(addr(gateway)) == to);
        let via = match (gateway, kind) {
            (Some(gateway), _) => {
                let Some(dev) = gateway_device(state, draw, gateway) else { continue };
                let sources = sources(state, family);
                Via::Device { dev, source: sources.get(*choice).copied() }
            }
            (None, 0 | 1) => {
                let usable: Vec<u32> = nexthops_of(state, family);
                let Some(id) = usable.get(choice % usable.len().max(1)) else { continue };
                Via::Nexthop(*id)
            }
            (None, 2) => {
                let gateway = if family == Family::V4 { choice % 3 } else { 3 + choice % 3 };
                let Some(dev) = gateway_device(state, draw, gateway) else { continue };
                Via::Gateway { gateway: addr(GATEWAYS[gateway]), dev }
            }
            _ => Via::Unreachable,
        };
        state.routes.insert(Route { table, to, metric, via });
    }
}

fn nexthops_of(state: &State, family: Family) -> Vec<u32> {
    let of = |nexthop: &Nexthop| match nexthop {
        Nexthop::Via { gateway, .. } => Family::of(*gateway),
        Nexthop::Group { family, .. } | Nexthop::Blackhole { family } => *family,
    };
    state.nexthops.iter().filter(|(_, nexthop)| of(nexthop) == family).map(|(id, _)| *id).collect()
}

/// Addresses a route may prefer: the uplink's, and our own.
fn sources(state: &State, family: Family) -> Vec<std::net::IpAddr> {
    let uplink = addr(if family == Family::V4 { "172.30.0.1" } else { "fd00:172:30::1" });
    let usable = |ip: &std::net::IpAddr| {
        Family::of(*ip) == family && !matches!(ip, std::net::IpAddr::V6(ip) if ip.is_unicast_link_local())
    };
    let own = state.addresses.iter().map(|address| address.ip).filter(usable);
    std::iter::once(uplink).chain(own).collect()
}

#[test]
fn from_any_state_to_any_other_in_one_reconcile() {
    let node = node();
    any_to_any(&Place::node(&node), 48);
}

#[test]
fn from_any_state_to_any_other_in_a_gateways_namespace() {
    let (pod, home) = (node(), another());
    any_to_any(&Place { here: &pod, home: &home }, 24);
}

fn any_to_any(place: &Place<'_>, cases: u32) {
    let home = || place.home.run(listing).unwrap();
    let before = (calm(), place.home.run(calm).unwrap());
    let saved = RefCell::new(Saved::new());
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(cases);
    let config = Config { cases, failure_persistence: None, max_shrink_iters: 400, ..Config::default() };
    let result = TestRunner::new(config).run(&(state(), state()), |(first, second)| {
        let saved = &mut *saved.borrow_mut();
        settle(place, &State::default(), saved);
        prop_assert!(saved.is_empty());
        assert_same(listing, &before.0);
        assert_same(home, &before.1);
        settle(place, &first, saved);
        let report = settle(place, &second, saved);
        let keys = second.sysctls.keys().map(String::as_str);
        let observed = observe(place, &scope(), keys).unwrap();
        prop_assert_eq!(observed.links, second.links, "after:\n{}", lines(&report.done));
        Ok(())
    });
    if let Err(error) = result {
        panic!("{error}");
    }
}
