//! Given a world, its plan.

use std::collections::BTreeSet;

use super::worlds::{World, client, ip};
use crate::egress::lower::{Belts, node_state};
use crate::egress::model::{EndpointState, PodName};
use crate::egress::numbering::Numbering;
use crate::egress::plan::{NodePlan, Place, Verdict};
use crate::egress::planning::{Inputs, plan};

fn verdicts(plan: &NodePlan, n: u8) -> Vec<Verdict> {
    let binding = &plan.clients[&client(n)].binding;
    plan.bindings[binding].rules.values().copied().collect()
}

#[test]
fn a_client_goes_by_tunnel_to_a_gateway_elsewhere_and_by_veth_to_one_here() {
    let plan = World::new().gateway(2, 0).gateway(1, 1).client(10, &[0, 1]).plan();
    let places: Vec<&Place> = plan.gateways.values().map(|g| &g.place).collect();
    assert!(matches!(places[0], Place::Remote { vni: 5000, .. }));
    assert!(matches!(places[1], Place::Local { slot: 0x60, .. }));
    assert_eq!(plan.sets.values().collect::<Vec<_>>(), [&BTreeSet::from([1, 2])]);
    assert_eq!(verdicts(&plan, 10), [Verdict::Set(1), Verdict::Set(1)]);
}

#[test]
fn a_gateway_elsewhere_is_reached_by_the_address_that_its_node_has_now() {
    let mut world = World::new().gateway(2, 0).client(10, &[0]);
    let moved = ip("172.30.0.22");
    world.view.nodes.get_mut("node2").unwrap().internal_ips = vec![moved];
    assert_eq!(world.plan().gateways[&1].place, Place::Remote { underlay: moved, vni: 5000 });
    // A Node object that says none, or is not there: where it was when it started.
    world.view.nodes.remove("node2");
    assert_eq!(world.plan().gateways[&1].place, Place::Remote { underlay: ip("172.30.0.2"), vni: 5000 });
}

#[test]
fn where_a_gateways_node_is_reached_without_a_node_object_is_known_to_every_node_and_to_itself() {
    let unnamed = |without: &str| {
        // The client uses one gateway alone, and its node guards the way to all of them.
        let mut world = World::new().gateway(1, 1).gateway(2, 2).gateway(3, 3).client(10, &[2]);
        world.view.nodes.remove(without);
        world.plan().unnamed
    };
    assert_eq!(unnamed("none"), BTreeSet::new());
    assert_eq!(unnamed("node1"), BTreeSet::from([ip("172.30.0.1")]));
    assert_eq!(unnamed("node3"), BTreeSet::from([ip("172.30.0.3")]));
    let mut world = World::new().gateway(2, 1);
    world.view.nodes.get_mut("node2").unwrap().internal_ips.retain(std::net::IpAddr::is_ipv6);
    assert_eq!(world.plan().unnamed, BTreeSet::from([ip("172.30.0.2")]), "none that the tunnel can go to");
}

/// A record of its number that is lost, or torn: clients send there, so replies are heard and nobody forges what goes there.
#[test]
fn where_a_gateways_node_is_reached_is_known_also_while_it_has_no_number() {
    let mut world = World::new().gateway(2, 0).client(10, &[0]);
    let node = world.view.nodes.get_mut("node2").unwrap();
    (node.number, node.internal_ips) = (None, vec![ip("fd00:172:30::22"), ip("172.30.0.22")]);
    let plan = world.plan();
    assert_eq!(plan.gateways[&1].place, Place::Remote { underlay: ip("172.30.0.22"), vni: 5000 });
    assert_eq!(plan.unnamed, BTreeSet::from([ip("172.30.0.22")]));
    world.view.nodes.get_mut("node3").unwrap().number = None;
    assert_eq!(world.plan().unnamed, plan.unnamed, "no gateway is on that one");
}

#[test]
fn clients_with_equal_rules_share_one_binding_and_equal_sets_share_one_number() {
    let plan = World::new().gateway(2, 0).client(10, &[0]).client(11, &[0]).plan();
    assert_eq!((plan.clients.len(), plan.bindings.len(), plan.sets.len()), (4, 1, 1));
}

#[test]
fn a_client_without_a_gateway_is_held() {
    let plan = World::new().client(10, &[]).plan();
    assert_eq!(verdicts(&plan, 10), [Verdict::Held, Verdict::Held]);
}

#[test]
fn a_gateway_that_goes_leaves_the_set_in_place_and_the_last_one_holds_the_clients() {
    let mut world = World::new().gateway(2, 0).gateway(3, 1).client(10, &[0, 1]);
    let before = world.plan();
    world.lose(0);
    world.decide(&PodName::new("shop", "c10"), &[1]);
    let after = world.plan();
    assert_eq!(before.sets.keys().collect::<Vec<_>>(), after.sets.keys().collect::<Vec<_>>());
    assert_eq!(after.sets[&1], BTreeSet::from([2]), "gateway 2 keeps its number");
    world.lose(1);
    world.decide(&PodName::new("shop", "c10"), &[]);
    let last = world.plan();
    assert!(last.sets.is_empty() && last.gateways.is_empty());
    assert_eq!(verdicts(&last, 10), [Verdict::Held, Verdict::Held]);
}

#[test]
fn a_new_gateway_makes_a_new_set_beside_the_old_one() {
    let mut world = World::new().gateway(2, 0).client(10, &[0]);
    let before = world.plan();
    let mut world = world.gateway(3, 1);
    world.decide(&PodName::new("shop", "c10"), &[0, 1]);
    let after = world.plan();
    assert_eq!(before.sets.keys().collect::<Vec<_>>(), [&1]);
    assert_eq!(after.sets.keys().collect::<Vec<_>>(), [&2]);
}

#[test]
fn a_draining_gateway_leaves_the_set_and_keeps_its_maps() {
    let mut world = World::new().gateway(2, 0).gateway(3, 1).client(10, &[0, 1]);
    world.plan();
    world.endpoint(0).state = EndpointState::Draining;
    world.decide(&PodName::new("shop", "c10"), &[1]);
    let after = world.plan();
    assert_eq!(after.gateways.keys().collect::<Vec<_>>(), [&1, &2]);
    let state = node_state(&after, Belts::ALL);
    assert_eq!(state.fdb.len(), 2, "its tunnel entry stays");
}

#[test]
fn an_address_that_an_unselected_pod_took_over_is_no_client_any_more() {
    let mut world = World::new().gateway(2, 0).client(10, &[0]);
    let mut heir = world.locals.last().unwrap().clone();
    heir.attachment = "net/other/eth0".into();
    heir.pod = Some(PodName::new("shop", "nobody"));
    world.locals.push(heir);
    assert!(world.plan().clients.is_empty());
}

#[test]
fn the_kernel_says_the_numbers_again() {
    let mut world =
        World::new().gateway(2, 0).gateway(1, 1).gateway(3, 7).client(10, &[0, 1]).client(11, &[7]);
    let plan = world.plan();
    assert_eq!(Numbering::read(&node_state(&plan, Belts::ALL)), Numbering::of(&plan));
}

#[test]
fn with_and_without_a_client_are_the_plan_of_that_world() {
    let mut world = World::new().gateway(2, 0).client(10, &[0]);
    let one = world.plan();
    let mut world = world.client(11, &[0]);
    let two = world.plan();
    let binding = &one.clients[&client(10)].binding;
    assert_eq!(one.with_client(world.locals.last().unwrap(), binding).as_ref(), Some(&two));
    assert_eq!(two.without("net/c11/eth0"), one);
    assert!(two.without("net/c11/eth0").without("net/c10/eth0").is_idle());
}

#[test]
fn a_lease_that_no_host_may_answer_for_is_named() {
    let reasons = |n: u8, change: fn(&mut World)| {
        let mut world = World::new().gateway(1, 7);
        let addresses = &mut world.endpoint(7).addresses;
        addresses[0].ip = [10, 10, 10, n].into();
        addresses[1].ip = [0xfd00, 0x10, 0x10, 0, 0, 0, 0, u16::from(n)].into();
        change(&mut world);
        let locals = std::mem::take(&mut world.locals);
        let inputs = Inputs {
            here: &world.here,
            view: &world.view,
            locals: &locals,
            resolution: &world.resolution,
            inside: &[],
        };
        let (_, problems) = plan(&inputs, &mut world.numbering);
        let named = problems.into_iter().filter(|p| p.reason == "UnservableAddress");
        named.count()
    };
    assert_eq!(reasons(7, |_| ()), 0);
    assert_eq!(reasons(255, |_| ()), 1, "10.10.10.255 is the subnet's broadcast");
    assert_eq!(reasons(0, |_| ()), 1, "10.10.10.0 may be used, fd00:10:10:: is the routers' own");
    assert_eq!(reasons(101, |_| ()), 1, "this node has 10.10.10.101");
    let node = |world: &mut World| {
        world.view.nodes.get_mut("node2").unwrap().internal_ips.push("10.10.10.9".parse().unwrap());
    };
    assert_eq!(reasons(9, node), 1, "another node has it");
}
