//! Node gateways: this node as a gateway, and its pods as clients of this node and of others.

use std::collections::{BTreeMap, BTreeSet};

use super::worlds::{World, client, ip};
use crate::addr::Family;
use crate::egress::exit_planning::exits;
use crate::egress::lower::{Belts, node_state};
use crate::egress::model::{Action, NodeGateway, Outcome, PodName};
use crate::egress::numbering::Numbering;
use crate::egress::numbers::{self, LAST_EXIT, PIN_DEAD, PIN_SHIFT, client_mark, exit_mark, mark};
use crate::egress::plan::{Door, NodePlan, Place, Verdict};
use crate::egress::transition::{Fate, believed, fate, transition};
use crate::kernel::state::State;

const BOTH: [&str; 2] = ["172.31.1.1", "fd00:172:31:1::1"];

fn gateway(node: u8, interface: &str, ips: &[&str]) -> NodeGateway {
    let addresses = ips.iter().map(|text| ip(text)).collect();
    NodeGateway { node: format!("node{node}"), interface: interface.into(), addresses }
}

fn door(ips: &[&str]) -> Door {
    let mut routes = BTreeMap::from([("172.31.1.0/24".parse().unwrap(), None)]);
    routes.insert(Family::V4.everything(), Some(ip("172.31.1.254")));
    routes.insert(Family::V6.everything(), Some(ip("fe80::1")));
    Door { addresses: ips.iter().map(|text| ip(text)).collect(), routes }
}

/// Client 10 of this node goes through these node gateways (any of them).
fn world(through: &[NodeGateway]) -> World {
    let mut world = World::new().client(10, &[]);
    world.here.doors.insert("eth1".into(), door(&BOTH));
    send(&mut world, through);
    world
}

fn send(world: &mut World, through: &[NodeGateway]) {
    let keys: BTreeSet<String> = through.iter().map(NodeGateway::key).collect();
    let action = Action::Through(keys.into());
    let outcome = Outcome { action, candidates: Default::default(), decided_by: None };
    let rules: BTreeMap<_, _> = Family::BOTH.map(|family| (family.everything(), outcome.clone())).into();
    world.resolution.decisions.get_mut(&PodName::new("shop", "c10")).unwrap().rules = rules.into();
    world.resolution.node_gateways = through.iter().map(|g| (g.key(), g.clone())).collect();
}

fn verdicts(plan: &NodePlan) -> Vec<Verdict> {
    plan.bindings[&plan.clients[&client(10)].binding].rules.values().copied().collect()
}

#[test]
fn a_node_gateway_elsewhere_is_reached_by_the_nodes_own_tunnel_and_its_own_mac() {
    let there = gateway(2, "eth1", &["172.31.2.2", "fd00:172:31:2::2"]);
    let plan = world(std::slice::from_ref(&there)).plan();
    let known = &plan.gateways[&1];
    assert_eq!(known.place, Place::Remote { underlay: ip("172.30.0.2"), vni: 4097 });
    assert!(known.mac.to_string().starts_with("02:68:f"), "{}", known.mac);
    assert!(known.next_hops().all(|hop| match hop {
        std::net::IpAddr::V4(hop) => hop.octets()[0] >= 240,
        std::net::IpAddr::V6(hop) => hop.to_string().starts_with("fe80::68:"),
    }));
    let state = node_state(&plan, Belts::ALL);
    assert!(state.fdb.keys().any(|(_, mac)| *mac == known.mac));
    assert!(plan.exits.is_empty() && state.tables.values().all(|t| !t.maps.contains_key("exits")));
}

#[test]
fn where_a_node_gateway_is_reached_is_known_also_while_its_node_has_no_number() {
    let mut world = world(&[gateway(2, "eth1", &["172.31.2.2"])]);
    assert!(world.plan().unnamed.is_empty());
    world.view.nodes.get_mut("node2").unwrap().wire = None;
    let plan = world.plan();
    assert_eq!(plan.gateways[&1].place, Place::Remote { underlay: ip("172.30.0.2"), vni: 4097 });
    assert_eq!(plan.unnamed, [ip("172.30.0.2")].into());
}

#[test]
fn this_node_as_a_gateway_needs_no_next_hop_and_lets_frames_in_from_every_other_node() {
    let here = gateway(1, "eth1", &BOTH);
    let plan = world(std::slice::from_ref(&here)).plan();
    assert_eq!(plan.gateways[&1].place, Place::Exit { index: 1 });
    assert_eq!(verdicts(&plan), [Verdict::Set(1), Verdict::Set(1)]);
    let state = node_state(&plan, Belts::ALL);
    assert!(state.nexthops.is_empty());
    let from: BTreeSet<_> = state.fdb.keys().map(|(_, mac)| *mac).collect();
    let nodes = [2, 3].map(|n| numbers::node_mac([172, 30, 0, n].into()));
    assert!(from.is_superset(&nodes.into()) && !from.contains(&numbers::node_mac([172, 30, 0, 1].into())));
    assert_eq!(state.sysctls["net/ipv4/conf/eth1/rp_filter"], "2");
}

#[test]
fn a_node_without_pods_is_a_gateway_all_the_same() {
    let mut world = world(&[gateway(1, "eth1", &BOTH)]);
    world.locals.clear();
    let plan = world.plan();
    assert!(plan.clients.is_empty() && plan.exits.len() == 1 && !plan.is_idle());
}

#[test]
fn an_address_that_the_interface_has_not_got_is_said_and_its_family_is_held_alone() {
    let mut world = world(&[gateway(1, "eth1", &BOTH)]);
    world.here.doors.insert("eth1".into(), door(&BOTH[..1]));
    let asked = world.resolution.node_gateways.clone();
    let (planned, problems) = exits(&world.here, &asked, &mut Numbering::default());
    assert_eq!(planned[&1].addresses, [ip(BOTH[0])]);
    let reasons: Vec<_> = problems.iter().map(|p| p.reason.as_str()).collect();
    assert_eq!(reasons, ["EgressAddressMissing"]);
    assert!(problems[0].message.contains("fd00:172:31:1::1") && !problems[0].message.contains("172.31.1.1 "));
    world.here.doors.clear();
    let (planned, problems) = exits(&world.here, &asked, &mut Numbering::default());
    assert!(planned[&1].addresses.is_empty() && problems[0].message.contains("there is no interface eth1"));
}

#[test]
fn an_interface_that_leads_nowhere_is_said() {
    let mut world = world(&[gateway(1, "eth1", &BOTH)]);
    let found = world.here.doors.get_mut("eth1").unwrap();
    found.routes.retain(|to, _| to.prefix() != 0);
    let asked = world.resolution.node_gateways.clone();
    let (_, problems) = exits(&world.here, &asked, &mut Numbering::default());
    assert_eq!(problems[0].reason, "NoWayOut");
    assert!(problems[0].message.contains("IPv4 and IPv6"), "{}", problems[0].message);
    world.here.doors.get_mut("eth1").unwrap().routes.clear();
    let (_, problems) = exits(&world.here, &asked, &mut Numbering::default());
    assert!(problems[0].message.contains("is down"), "{}", problems[0].message);
}

#[test]
fn interfaces_and_gateways_beyond_the_numbers_are_named_limits() {
    let world = world(&[]);
    let many = |interface: &dyn Fn(u32) -> String, count: u32| -> BTreeMap<String, NodeGateway> {
        let one = |n| NodeGateway {
            node: "node1".into(),
            interface: interface(n),
            addresses: vec![std::net::Ipv4Addr::from(0x0a09_0000 + n).into()],
        };
        (0..count).map(one).map(|g| (g.key(), g)).collect()
    };
    let reasons = |asked: &BTreeMap<String, NodeGateway>| -> BTreeMap<String, usize> {
        let (_, problems) = exits(&world.here, asked, &mut Numbering::default());
        let mut counted = BTreeMap::new();
        problems.into_iter().for_each(|p| *counted.entry(p.reason).or_default() += 1);
        counted
    };
    let slots = u32::try_from(mark::LOCALS.count()).unwrap();
    assert_eq!(reasons(&many(&|n| format!("eth{n}"), slots + 2))["TooManyExitInterfaces"], 2);
    assert_eq!(reasons(&many(&|_| "eth1".into(), u32::from(LAST_EXIT) + 3))["TooManyNodeGateways"], 3);
    assert!(!reasons(&many(&|_| "eth1".into(), u32::from(LAST_EXIT))).contains_key("TooManyNodeGateways"));
}

#[test]
fn indexes_and_interfaces_are_read_back_from_the_kernel_and_rest_before_they_are_used_again() {
    let (first, second) = (gateway(1, "eth1", &BOTH), gateway(1, "eth1", &BOTH[..1]));
    let mut world = world(&[first.clone(), second.clone()]);
    let plan = world.plan();
    let read = Numbering::read(&node_state(&plan, Belts::ALL));
    assert_eq!((&read.exits, &read.doors), (&Numbering::of(&plan).exits, &Numbering::of(&plan).doors));
    assert_eq!((read.exits.len(), read.doors["eth1"]), (2, *mark::LOCALS.start()));
    let gone = read.exits[&numbers::exit_mac(&first.key())];
    let third = gateway(1, "eth1", &BOTH[1..]);
    send(&mut world, &[second, third]);
    world.numbering = Numbering::of(&plan);
    let next = world.plan();
    assert!(!next.exits.contains_key(&gone), "flows may still carry it");
    let change = transition(&plan, &next);
    assert_eq!((change.exits_ended, change.exits_begun), ([gone].into(), [3].into()));
    let remembered = believed(&node_state(&plan, Belts::ALL), &read, &next, &[]);
    assert_eq!(transition(&remembered, &next).exits_ended, [gone].into());
    assert!(transition(&remembered, &remembered).exits_begun.is_empty());
}

#[test]
fn a_client_that_comes_to_its_own_node_or_leaves_it_has_each_flow_judged() {
    let mut world = world(&[gateway(2, "eth1", &BOTH)]);
    let (before, here) = (world.plan(), gateway(1, "eth1", &BOTH));
    send(&mut world, &[here]);
    let after = world.plan();
    let change = transition(&before, &after);
    assert_eq!(change.rebuilt, [client(10), ip("fd00:10:60:1::a")].into());
    assert_eq!(transition(&after, &before).rebuilt, change.rebuilt);
    assert!(transition(&after, &after).rebuilt.is_empty() && change.rebound.is_empty());
    let outside = Some(ip("198.51.100.100"));
    let own = exit_mark(1) | client_mark(1) | 0x5a;
    let of = |to, mark, told| fate(&after, client(10), to, mark, false, told);
    assert_eq!(of(outside, own, true), Fate::Lives);
    assert_eq!(of(outside, 1 << PIN_SHIFT, true), Fate::Told);
    assert_eq!(of(outside, 1 << PIN_SHIFT, false), Fate::Forgotten);
    assert_eq!(of(outside, 0, false), Fate::Forgotten, "the primary's NAT binding");
    assert_eq!(fate(&after, client(10), outside, 0, true, false), Fate::Told, "nobody's NAT binding");
    assert_eq!(of(outside, PIN_DEAD, false), Fate::Forgotten);
    assert_eq!(of(Some(ip("10.60.2.7")), 0, true), Fate::Lives, "inside");
}

#[test]
fn a_node_that_is_no_gateway_holds_what_it_held() {
    let plan = World::new().gateway(2, 0).client(10, &[0]).plan();
    let text = format!("{:?}", node_state(&plan, Belts::ALL));
    assert!(!text.contains("exit_") && plan.exits.is_empty());
    assert_ne!(node_state(&plan, Belts::ALL), State::default());
}
