//! Given two plans, what happens to running flows.

use std::collections::{BTreeMap, BTreeSet};

use super::worlds::{World, client, ip};
use crate::addr::Family;
use crate::egress::belts::Belts;
use crate::egress::lower::node_state;
use crate::egress::lower_clients::client_states;
use crate::egress::model::{EndpointState, PodName};
use crate::egress::numbering::Numbering;
use crate::egress::numbers::PIN_SHIFT;
use crate::egress::plan::{NodePlan, Place, Verdict};
use crate::egress::prefixes::{self, Change};
use crate::egress::transition::{
    Fate, UNKNOWN, believed, binds, bound, fate, going_on, holding, keep_unread, let_go, transition,
};

#[test]
fn a_pod_that_becomes_a_client_is_held_while_its_entries_go() {
    let mut world = World::new().gateway(2, 0);
    let before = world.plan();
    let mut world = world.client(10, &[0]);
    let after = world.plan();
    let change = transition(&before, &after);
    assert_eq!(change.rebound, BTreeSet::from([client(10), ip("fd00:10:60:1::a")]));
    let held = holding(&before, &after, &change.rebound, &change.released);
    let binding = &held.bindings[&held.clients[&client(10)].binding];
    assert!(binding.rules.values().all(|verdict| *verdict == Verdict::Held));
    assert_eq!(held.gateways, before.gateways, "what may not be wired yet is not waited for");
    assert!(held.inside.is_superset(&after.inside), "pods, services and nodes stay reachable");
}

#[test]
fn a_node_that_lost_its_plan_holds_a_new_client_and_leaves_the_others_as_the_kernel_has_them() {
    // Gateways here and on another node, both in use.
    let mut world = World::new().gateway(1, 1).gateway(2, 2).client(10, &[1, 2]);
    let before = world.plan();
    let kernel = node_state(&before, Belts::ALL);
    let mut world = world.client(11, &[2]);
    let after = world.plan();
    let remembered = believed(&kernel, &Numbering::read(&kernel), &after, &world.locals);
    assert!(remembered.clients.keys().eq(before.clients.keys()), "a lease in the clients' map is no client");
    let change = transition(&remembered, &after);
    assert_eq!(change.rebound, BTreeSet::from([client(11), ip("fd00:10:60:1::b")]));
    let held = holding(&remembered, &after, &change.rebound, &change.released);
    assert!(
        held.clients.values().all(|client| held.bindings.contains_key(&client.binding)),
        "no goto into nowhere"
    );
    let client = &held.clients[&client(10)];
    assert_eq!(held.bindings[&client.binding], before.bindings[&client.binding]);
    assert_eq!(held.sets[&1], before.sets[&1]);
    assert_eq!((&held.gateways, &held.locals), (&before.gateways, &before.locals));
    // A gateway whose devices are gone is not waited for.
    let mut kernel = kernel;
    kernel.links.retain(|name, _| !before.locals.values().any(|gateway| gateway.veth == *name));
    let remembered = believed(&kernel, &Numbering::read(&kernel), &after, &world.locals);
    assert!(remembered.locals.is_empty());
    let mut others = remembered.gateways.values();
    assert!(others.all(|gateway| matches!(gateway.place, Place::Remote { .. })));
}

#[test]
fn a_node_that_lost_its_plan_lets_a_pod_go_that_is_no_client_any_more() {
    let mut world = World::new().gateway(2, 1).client(10, &[1]);
    let kernel = node_state(&world.plan(), Belts::ALL);
    world.resolution.decisions.clear();
    let mut after = world.plan();
    let remembered = believed(&kernel, &Numbering::read(&kernel), &after, &world.locals);
    keep_unread(&remembered, &mut after, &world.locals, |attachment| attachment == UNKNOWN);
    let_go(&remembered, &mut after, |_| true);
    assert!(after.clients.contains_key(&client(10)) && bound(&after, client(10)).is_none());
    assert!(binds(&remembered, "net/c10/eth0") && !binds(&after, "net/c10/eth0"));
    let change = transition(&remembered, &after);
    assert!(change.rebound.contains(&client(10)));
    let held = holding(&remembered, &after, &BTreeSet::new(), &change.released);
    assert!(
        held.clients.values().all(|client| held.bindings.contains_key(&client.binding)),
        "no goto into nowhere"
    );
    // One that nobody has a record of stays held.
    let mut after = world.plan();
    let remembered = believed(&kernel, &Numbering::read(&kernel), &after, &[]);
    keep_unread(&remembered, &mut after, &[], |attachment| attachment == UNKNOWN);
    assert!(bound(&after, client(10)).is_some());
    // Until another pod was wired with its address: that is what it is.
    let mut after = world.plan();
    keep_unread(&remembered, &mut after, &world.locals, |attachment| attachment == UNKNOWN);
    assert!(!after.clients.contains_key(&client(10)));
    assert!(transition(&remembered, &after).rebound.contains(&client(10)));
}

#[test]
fn a_client_whose_record_is_torn_stays_bound_or_is_held_but_never_let_go() {
    let mut world = World::new().gateway(2, 0).client(10, &[0]).client(11, &[0]);
    let before = world.plan();
    world.locals.retain(|pod| !pod.attachment.contains("c10"));
    let mut after = world.plan();
    keep_unread(&before, &mut after, &world.locals, |attachment| attachment.contains("c10"));
    assert_eq!(after.clients, before.clients);
    assert_eq!(transition(&before, &after).rebound, BTreeSet::new());
    // The last one of its binding.
    world.locals.clear();
    let mut after = world.plan();
    keep_unread(&before, &mut after, &world.locals, |attachment| attachment.contains("c10"));
    let binding = &after.bindings[&after.clients[&client(10)].binding];
    assert!(binding.rules.values().all(|verdict| *verdict == Verdict::Held));
    assert!(!after.clients.contains_key(&client(11)));
}

#[test]
fn a_client_that_was_let_go_is_not_held_when_its_record_is_torn() {
    let mut world = World::new().gateway(2, 0).client(10, &[0]);
    let before = world.plan();
    world.resolution.decisions.clear();
    let mut free = world.plan();
    let_go(&before, &mut free, |_| true);
    world.locals.retain(|pod| !pod.attachment.contains("c10"));
    let mut after = world.plan();
    keep_unread(&free, &mut after, &world.locals, |_| true);
    let_go(&free, &mut after, |_| true);
    assert_eq!(after.clients, free.clients);
}

#[test]
fn the_number_of_a_gateway_that_went_is_not_given_to_one_that_came_in_the_same_step() {
    let mut world = World::new().gateway(2, 0).client(10, &[0]);
    let before = world.plan();
    world.view.endpoints.clear();
    let mut world = world.gateway(3, 1);
    world.decide(&PodName::new("shop", "c10"), &[1]);
    let after = world.plan();
    assert!(before.gateways.keys().all(|number| !after.gateways.contains_key(number)));
    assert!(before.sets.keys().all(|mark| !after.sets.contains_key(mark)));
    assert_eq!(transition(&before, &after).begun, after.gateways.keys().copied().collect());
}

#[test]
fn a_pod_that_is_let_go_is_held_first() {
    let mut world = World::new().gateway(2, 0).client(10, &[0]);
    let before = world.plan();
    world.locals.retain(|pod| !pod.attachment.contains("c10"));
    let after = world.plan();
    let change = transition(&before, &after);
    assert!(holding(&before, &after, &change.rebound, &change.released).clients.contains_key(&client(10)));
}

#[test]
fn a_pod_that_moves_loses_only_its_flows_on_gateways_it_may_not_use_any_more() {
    let mut world = World::new().gateway(2, 0).gateway(3, 1).client(10, &[0, 1]).client(11, &[0, 1]);
    let before = world.plan();
    world.decide(&PodName::new("shop", "c10"), &[1]);
    let change = transition(&before, &world.plan());
    assert!(change.rebound.is_empty() && change.begun.is_empty());
    assert_eq!(change.moved, BTreeSet::from([(client(10), 1), (ip("fd00:10:60:1::a"), 1)]));
}

#[test]
fn flows_on_a_draining_gateway_are_left_alone() {
    let mut world = World::new().gateway(2, 0).gateway(3, 1).client(10, &[0, 1]);
    let before = world.plan();
    world.endpoint(0).state = EndpointState::Draining;
    world.decide(&PodName::new("shop", "c10"), &[1]);
    assert_eq!(transition(&before, &world.plan()).moved, BTreeSet::new());
}

#[test]
fn a_new_gateway_begins_with_a_clean_number() {
    let mut world = World::new().gateway(2, 0).client(10, &[0]);
    let before = world.plan();
    let mut world = world.gateway(3, 1);
    world.decide(&PodName::new("shop", "c10"), &[0, 1]);
    assert_eq!(transition(&before, &world.plan()).begun, BTreeSet::from([2]));
}

#[test]
fn a_pod_that_is_let_go_keeps_an_element_that_sends_it_direct_while_it_lives() {
    let mut world = World::new().gateway(2, 0).client(10, &[0]).client(11, &[0]);
    let before = world.plan();
    world.resolution.decisions.clear();
    let mut after = world.plan();
    let_go(&before, &mut after, |attachment| attachment.contains("c10"));
    assert!(bound(&after, client(10)).is_none() && !after.clients.contains_key(&client(11)));
    let binding = &after.bindings[&after.clients[&client(10)].binding];
    assert!(binding.rules.values().all(|verdict| *verdict == Verdict::Direct));
    let all = BTreeSet::from([10, 11].map(client))
        .into_iter()
        .chain(["fd00:10:60:1::a", "fd00:10:60:1::b"].map(ip));
    assert_eq!(transition(&before, &after).rebound, all.collect(), "their entries go");
    // It stays so, is no client to hold when it ends, and is one again when it is selected.
    let mut again = world.plan();
    let_go(&after, &mut again, |attachment| attachment.contains("c10"));
    assert_eq!(again, after);
    let mut ended = world.plan();
    let_go(&after, &mut ended, |_| false);
    assert_eq!(transition(&after, &ended).rebound, BTreeSet::new());
    assert!(transition(&after, &before).rebound.contains(&client(10)));
}

/// Rules of one binding of a plan, as a story writes them.
fn rule(plan: &mut NodePlan, of: u8, prefix: &str, verdict: Verdict) {
    let chain = plan.clients[&client(of)].binding.clone();
    let binding = plan.bindings.get_mut(&chain).unwrap();
    binding.rules.insert(prefix.parse().unwrap(), verdict);
}

#[test]
fn what_changes_for_one_prefix_is_judged_there_although_the_gateway_serves_another() {
    let mut world = World::new().gateway(2, 0).gateway(3, 1).client(10, &[0, 1]);
    let before = world.plan();
    for (verdict, judged, released) in [
        (Verdict::Held, true, false),
        (Verdict::Direct, false, true),
        (before.bindings[&before.clients[&client(10)].binding].rules[&Family::V4.everything()], false, false),
    ] {
        let mut after = before.clone();
        rule(&mut after, 10, "203.0.113.0/24", verdict);
        let change = transition(&before, &after);
        assert!(change.moved.is_empty() && change.rebound.is_empty(), "its gateways are the same");
        assert_eq!(change.rebuilt.contains(&client(10)), judged, "{verdict:?}");
        assert_eq!(change.released.contains_key(&client(10)), released, "{verdict:?}");
        assert!(!change.released.contains_key(&ip("fd00:10:60:1::a")), "the other family is as it was");
    }
}

#[test]
fn only_what_goes_direct_anew_is_held_meanwhile() {
    let mut world = World::new().gateway(2, 0).client(10, &[0]);
    let mut before = world.plan();
    let whole = before.bindings[&before.clients[&client(10)].binding].rules[&Family::V4.everything()];
    rule(&mut before, 10, "203.0.113.128/25", whole);
    let mut after = before.clone();
    rule(&mut after, 10, "203.0.113.0/24", Verdict::Direct);
    let change = transition(&before, &after);
    let held = holding(&before, &after, &change.rebound, &change.released);
    let rules = &held.bindings[&held.clients[&client(10)].binding].rules;
    assert_eq!(rules[&"203.0.113.0/24".parse().unwrap()], Verdict::Held);
    assert_eq!(rules[&"203.0.113.128/25".parse().unwrap()], whole, "the longer prefix goes on");
    assert_eq!(rules[&Family::V4.everything()], whole);
    let at = |to: &str| prefixes::at(&change.released[&client(10)], ip(to));
    assert_eq!(
        [at("203.0.113.1"), at("203.0.113.200"), at("192.0.2.1")],
        [Change::Released, Change::None, Change::None]
    );
}

#[test]
fn a_flow_that_may_not_go_on_is_pinned_anew_unless_it_needs_another_entry() {
    let mut world = World::new().gateway(2, 0).gateway(3, 1).client(10, &[0, 1]);
    let mut plan = world.plan();
    rule(&mut plan, 10, "203.0.113.0/24", Verdict::Held);
    rule(&mut plan, 10, "198.51.100.0/24", Verdict::Direct);
    let (number, _) = plan.gateways.iter().next().unwrap();
    let fate = |to: &str, told: bool| fate(&plan, client(10), Some(ip(to)), number << PIN_SHIFT, true, told);
    assert_eq!(fate("192.0.2.1", false), Fate::Lives);
    assert_eq!([fate("203.0.113.9", false), fate("203.0.113.9", true)], [Fate::Told; 2]);
    assert_eq!(fate("198.51.100.9", false), Fate::Forgotten, "its entry would show the pod's own address");
}

#[test]
fn who_was_held_goes_on_before_the_rest_where_all_that_it_needs_stands() {
    let mut world = World::new().gateway(2, 0).gateway(2, 1).client(11, &[0]);
    let before = world.plan();
    let mut world = world.client(10, &[0]);
    let after = world.plan();
    let rebound = transition(&before, &after).rebound;
    // It joins others, whose rules, sets and gateways stand: elements of maps, all of it.
    let held = holding(&before, &after, &rebound, &BTreeMap::new());
    let on = going_on(&held, &after).unwrap();
    assert_eq!(on.clients, after.clients);
    assert!(client_states(&before, &held).is_some() && client_states(&held, &on).is_some());
    // It leaves them.
    let mut free = before.clone();
    let_go(&after, &mut free, |_| true);
    let held = holding(&after, &free, &rebound, &BTreeMap::new());
    let on = going_on(&held, &free).unwrap();
    assert_eq!(on.clients, free.clients);
    assert!(client_states(&after, &held).is_some() && client_states(&held, &on).is_some());
    // What it needs is yet to be made.
    let mut world = World::new().gateway(2, 0).gateway(2, 1).client(11, &[0]);
    assert_eq!(world.plan(), before);
    let first = world.client(10, &[1]).plan();
    assert_eq!(going_on(&holding(&before, &first, &rebound, &BTreeMap::new()), &first), None);
}
