//! A gateway's namespace: its tunnel's socket and its veth's other end live in the node's.

use egret::addr::Family;
use egret::kernel::netlink::{Socket, link};
use egret::kernel::state::{Action, Link, LinkKind, Match, Nexthop, Route, Rule, State, Via};
use egret::kernel::{Netns, Place, Saved, Step, observe, reconcile};

use crate::world::*;

pub fn gateway() -> State {
    let mut state = State::default();
    state.links.insert("vxlan0".into(), vxlan(5001, "172.30.0.1"));
    state.links.insert("egress0".into(), veth("eg1"));
    state.addresses.insert(address("vxlan0", "169.254.77.1", true));
    state.addresses.insert(address("egress0", "203.0.113.1", false));
    state.addresses.insert(address("egress0", "2001:db8:e::1", false));
    state.fdb.insert(("vxlan0".into(), mac(1)), remote("172.30.0.2", 4097));
    let out = |gateway: &str| Via::Gateway { gateway: addr(gateway), dev: "egress0".into() };
    for (family, next) in [(Family::V4, "169.254.77.253"), (Family::V6, "fe80::77:253")] {
        state.neighbours.insert(("egress0".into(), addr(next)), mac(9));
        let to = family.everything();
        state.routes.insert(Route { table: 4791, to, metric: 0, via: out(next) });
        state.routes.insert(Route { table: 4791, to, metric: u32::MAX, via: Via::Unreachable });
        let matches = Match::Input("vxlan0".into());
        state.rules.insert(Rule { family, priority: 700, matches, action: Action::Lookup(4791) });
    }
    state.sysctls.insert("net/ipv4/conf/vxlan0/forwarding".into(), "1".into());
    state
}

/// The node's side of that gateway.
fn host() -> State {
    let mut state = State::default();
    let link = Link { kind: LinkKind::VethPeer, mac: mac(202), mtu: 1500, arp: true };
    state.links.insert("eg1".into(), link);
    state.addresses.insert(address("eg1", "169.254.77.253", true));
    state.nexthops.insert(479_001, Nexthop::Via { gateway: addr("203.0.113.1"), dev: "eg1".into() });
    state
}

#[test]
fn a_gateway_is_wired_from_its_node_and_read_back() {
    let (home, pod) = (node(), another());
    let place = Place { here: &pod, home: &home };
    settle(&place, &gateway(), &mut Saved::new());
    let keys = gateway();
    let observed = observe(&place, &scope(), keys.sysctls.keys().map(String::as_str)).unwrap();
    assert_eq!(observed, gateway());
    assert_eq!(Netns::current().unwrap(), home);
    settle(&Place::node(&home), &host(), &mut Saved::new());
}

#[test]
fn the_tunnel_sends_from_the_nodes_namespace() {
    let (home, pod) = (node(), another());
    let place = Place { here: &pod, home: &home };
    let listens = || ip_in(&home, "ss -lun").contains(":4790");
    assert!(!listens());
    settle(&place, &gateway(), &mut Saved::new());
    assert!(listens(), "the tunnel's socket is not in the node's namespace");
    assert!(!ip_in(&pod, "ss -lun").contains(":4790"));
}

#[test]
fn losing_either_end_of_the_veth_is_repaired() {
    let (home, pod) = (node(), another());
    let (gateway_place, node_place) = (Place { here: &pod, home: &home }, Place::node(&home));
    let (mut saved, mut node_saved) = (Saved::new(), Saved::new());
    settle(&gateway_place, &gateway(), &mut saved);
    settle(&node_place, &host(), &mut node_saved);
    for (netns, damage) in
        [(&home, "ip link del eg1"), (&pod, "ip link del egress0"), (&home, "ip link set eg1 down")]
    {
        ip_in(netns, damage);
        let found = reconcile(&gateway_place, &scope(), &gateway(), &mut saved, true).unwrap();
        let node_found = reconcile(&node_place, &scope(), &host(), &mut node_saved, true).unwrap();
        assert!(!(found.pending.is_empty() && node_found.pending.is_empty()), "`{damage}` was not noticed");
        settle(&gateway_place, &gateway(), &mut saved);
        settle(&node_place, &host(), &mut node_saved);
        settle(&gateway_place, &gateway(), &mut saved);
    }
}

#[test]
fn a_tunnel_with_its_socket_in_the_wrong_namespace_is_made_anew() {
    let (home, pod) = (node(), another());
    let place = Place { here: &pod, home: &home };
    ip_in(&pod, "ip link add vxlan0 type vxlan id 5001 dstport 4790 local 172.30.0.1 nolearning");
    ip_in(&pod, "ip link set vxlan0 group 4097 up");
    let report = settle(&place, &gateway(), &mut Saved::new());
    assert!(matches!(&report.done[0], Step::RemoveOdd { what, .. } if what.contains("vxlan0")));
}

#[test]
fn reconciling_a_gateway_to_empty_takes_the_nodes_end_with_it() {
    let (home, pod) = (node(), another());
    let place = Place { here: &pod, home: &home };
    settle(&place, &gateway(), &mut Saved::new());
    settle(&place, &State::default(), &mut Saved::new());
    let mut socket = Socket::open(&home).unwrap();
    assert!(socket.ask(link::by_name("eg1")).is_err());
    assert_settled(&Place::node(&home), &State::default(), &mut Saved::new(), "");
}

#[test]
fn a_node_removes_the_end_of_a_gateway_that_it_no_longer_knows() {
    let (home, pod) = (node(), another());
    settle(&Place { here: &pod, home: &home }, &gateway(), &mut Saved::new());
    let report = settle(&Place::node(&home), &State::default(), &mut Saved::new());
    assert_eq!(lines(&report.done), "  ip link del eg1\n");
}

pub fn ip_in(netns: &Netns, command: &str) -> String {
    netns.run(|| sh(command)).unwrap()
}
