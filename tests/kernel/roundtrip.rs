//! What is applied is what is observed, for every kind of object in both families.

use std::collections::BTreeSet;

use egret::addr::Family;
use egret::kernel::state::{Action, Match, Nexthop, Route, Rule, State, Via};
use egret::kernel::{Place, Saved, observe};

use crate::world::*;

/// A node with one remote gateway (1), one local (2) and a group of both.
pub fn full_node() -> State {
    let mut state = State::default();
    state.links.insert("egress.vxlan".into(), vxlan(4097, "172.30.0.1"));
    state.links.insert("egg2".into(), veth("peer2"));
    state.addresses.insert(address("egress.vxlan", "169.254.77.1", true));
    state.addresses.insert(address("egg2", "169.254.77.253", true));
    state.addresses.insert(address("egg2", "fe80::77:253", true));
    state.addresses.insert(address("egg2", "2001:db8:e::9", false));
    let device = |dev: &str, source| Via::Device { dev: dev.into(), source };
    let route = |table, to: &str, metric, via| Route { table, to: to.parse().unwrap(), metric, via };
    let tunnel = |gateway: &str| Via::Gateway { gateway: addr(gateway), dev: "egress.vxlan".into() };
    for (lease1, lease2) in [("203.0.113.1", "203.0.113.2"), ("2001:db8:e::1", "2001:db8:e::2")] {
        let family = Family::of(addr(lease1));
        let base = if family == Family::V4 { 479_000 } else { 479_500 };
        let everything = family.everything().to_string();
        let source = if family == Family::V4 { "172.30.0.1" } else { "fd00:172:30::1" };
        let via = |gateway: &str, dev: &str| Nexthop::Via { gateway: addr(gateway), dev: dev.into() };
        state.neighbours.insert(("egress.vxlan".into(), addr(lease1)), mac(1));
        state.neighbours.insert(("egg2".into(), addr(lease2)), mac(2));
        state.proxies.insert(("up0".into(), addr(lease2)));
        state.nexthops.insert(base + 1, via(lease1, "egress.vxlan"));
        state.nexthops.insert(base + 2, via(lease2, "egg2"));
        state.nexthops.insert(base + 3, Nexthop::Blackhole { family });
        let members = BTreeSet::from([base + 1, base + 2]);
        state.nexthops.insert(base + 100, Nexthop::Group { family, members });
        state.routes.insert(route(254, lease2, 0, device("egg2", Some(addr(source)))));
        state.routes.insert(route(479_001, &everything, 0, Via::Nexthop(base + 100)));
        state.routes.insert(route(479_001, &everything, u32::MAX, Via::Unreachable));
        let stand_in = if family == Family::V4 { "169.254.77.254" } else { "fe80::77:254" };
        state.routes.insert(route(479_127, &everything, 7, tunnel(stand_in)));
        state.routes.insert(route(479_127, &everything, u32::MAX, Via::Unreachable));
        let rule = |priority, matches, action| Rule { family, priority, matches, action };
        let unmarked = || Match::Mark { value: 0, mask: 0x7f };
        state.rules.insert(rule(700, Match::Mark { value: 0x7f, mask: 0x7f }, Action::Lookup(479_127)));
        state.rules.insert(rule(710, Match::Input("egg2".into()), Action::Lookup(479_127)));
        state.rules.insert(rule(719, unmarked(), Action::Goto(721)));
        state.rules.insert(rule(720, Match::Mark { value: 1, mask: 0x7f }, Action::Lookup(479_001)));
        state.rules.insert(rule(720, Match::From(addr(lease2)), Action::Lookup(479_001)));
        state.rules.insert(rule(721, unmarked(), Action::Nop));
        state.rules.insert(rule(799, Match::NotMark { value: 0, mask: 0x7f }, Action::Unreachable));
    }
    state.fdb.insert(("egress.vxlan".into(), mac(1)), remote("172.30.0.2", 5001));
    state.fdb.insert(("egress.vxlan".into(), mac(3)), remote("172.30.0.3", 4097));
    state.sysctls.insert("net/ipv4/conf/egress.vxlan/rp_filter".into(), "2".into());
    state.sysctls.insert("net/ipv4/fib_multipath_hash_policy".into(), "1".into());
    state.sysctls.insert("net/ipv4/ping_group_range".into(), "0 2147483647".into());
    state
}

#[test]
fn every_kind_of_object_is_observed_as_it_was_applied() {
    let node = node();
    let place = Place::node(&node);
    let desired = full_node();
    let report = settle(&place, &desired, &mut Saved::new());
    assert_eq!(report.unchanged, 0);
    let observed = observe(&place, &scope(), desired.sysctls.keys().map(String::as_str)).unwrap();
    assert_eq!(observed, desired);
}

#[test]
fn a_second_reconcile_finds_nothing_to_do_and_counts_what_it_found() {
    let node = node();
    let place = Place::node(&node);
    let (desired, mut saved) = (full_node(), Saved::new());
    let first = settle(&place, &desired, &mut saved);
    let second = settle(&place, &desired, &mut saved);
    assert!(second.done.is_empty());
    assert_eq!(second.unchanged, first.done.len());
}
