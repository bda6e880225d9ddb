//! Each thing of ours is taken away or spoiled in turn, by somebody else; the next reconcile puts it back.

use egret::kernel::state::LinkKind;
use egret::kernel::{Place, Saved, Step, reconcile};

use crate::roundtrip::full_node;
use crate::world::*;

/// What somebody does, as a shell command.
const DAMAGE: [&str; 30] = [
    "ip link del egress.vxlan",
    "ip link del egg2",
    "ip link del peer2",
    "ip link set egress.vxlan down",
    "ip link set egg2 down",
    "ip link set peer2 down && sleep 0.2 && ip link set peer2 up",
    "ip link set egress.vxlan mtu 1400",
    "ip link set egg2 address 02:00:00:00:00:99",
    "ip link set peer2 address 02:00:00:00:00:99",
    "ip link set egress.vxlan arp on",
    "ip link set egress.vxlan type vxlan learning",
    "ip addr del 169.254.77.1/32 dev egress.vxlan",
    "ip addr flush dev egg2",
    "ip addr add 10.9.9.9/24 dev egg2",
    "ip neigh flush dev egress.vxlan nud permanent",
    "ip neigh replace 203.0.113.2 lladdr 02:00:00:00:00:99 dev egg2 nud permanent",
    "ip neigh del proxy 203.0.113.2 dev up0",
    "bridge fdb del 02:67:00:00:00:01 dev egress.vxlan",
    "bridge fdb replace 02:67:00:00:00:01 dev egress.vxlan dst 172.30.0.9",
    "ip nexthop del id 479001",
    "ip nexthop flush",
    "ip nexthop replace id 479100 group 479001,3 protocol 179",
    "ip nexthop replace id 479002 via 203.0.113.9 dev egg2 onlink protocol 179",
    "ip route del unreachable default table 479001 metric 4294967295",
    "ip -6 route del default table 479127 metric 7",
    "ip route replace 203.0.113.2/32 dev egg2 mtu 1000 protocol 179",
    "ip route replace default via 169.254.77.254 dev egg2 onlink table 479127 metric 7 protocol 179",
    "ip rule del pref 799",
    "ip -6 rule del pref 720; ip -6 rule del pref 720",
    "ip rule add pref 720 fwmark 1/0x7f tos 0x10 lookup 479001 protocol 179",
];

#[test]
fn whatever_is_taken_away_or_spoiled_is_put_back() {
    let node = node();
    let place = Place::node(&node);
    let (desired, mut saved) = (full_node(), Saved::new());
    settle(&place, &desired, &mut saved);
    let healthy = calm();
    for damage in DAMAGE {
        sh(damage);
        let found = reconcile(&place, &scope(), &desired, &mut saved, true).unwrap();
        assert!(!found.pending.is_empty(), "`{damage}` was not noticed");
        let report = settle(&place, &desired, &mut saved);
        assert_same(listing, &healthy);
        let rebuilt = report.done.iter().any(|step| matches!(step, Step::AddLink { .. }));
        let rebuild = damage.contains("link del") || damage.contains("learning");
        assert_eq!(rebuilt, rebuild, "`{damage}`: {}", lines(&report.done));
    }
}

#[test]
fn settings_that_somebody_changed_are_written_again() {
    let node = node();
    let place = Place::node(&node);
    let (desired, mut saved) = (full_node(), Saved::new());
    settle(&place, &desired, &mut saved);
    sh("echo 0 > /proc/sys/net/ipv4/conf/egress.vxlan/rp_filter");
    let report = settle(&place, &desired, &mut saved);
    assert_eq!(lines(&report.done), "  sysctl -w net/ipv4/conf/egress.vxlan/rp_filter=\"2\"\n");
}

#[test]
fn one_step_that_fails_does_not_stop_the_others() {
    let node = node();
    let place = Place::node(&node);
    let mut desired = full_node();
    desired.links.insert("eg9".into(), egret::kernel::state::Link { kind: LinkKind::VethPeer, ..veth("") });
    let report = reconcile(&place, &scope(), &desired, &mut Saved::new(), false).unwrap();
    let [(step, why)] = &report.failed[..] else { panic!("{:?}", report.failed) };
    assert!(matches!(step, Step::AddLink { name, .. } if name == "eg9"));
    assert_eq!(
        why,
        "there is no device eg9: it is one end of a veth and is made with its gateway's namespace"
    );
    desired.links.remove("eg9");
    assert_settled(&place, &desired, &mut Saved::new(), "");
}

#[test]
fn a_group_that_loses_its_only_member_gets_the_next_one_without_being_empty_in_between() {
    let node = node();
    let place = Place::node(&node);
    let (mut desired, mut saved) = (full_node(), Saved::new());
    let narrow = |state: &mut egret::kernel::state::State, id: u32| {
        let members = [id].into();
        let family = egret::addr::Family::V4;
        state.nexthops.insert(479_100, egret::kernel::state::Nexthop::Group { family, members });
    };
    narrow(&mut desired, 479_001);
    settle(&place, &desired, &mut saved);
    narrow(&mut desired, 479_002);
    desired.nexthops.remove(&479_001);
    let report = settle(&place, &desired, &mut saved);
    assert_eq!(
        lines(&report.done),
        "  ip nexthop replace id 479100 group 479002\n  ip nexthop del id 479001\n"
    );
}

#[test]
fn a_lease_that_moves_to_another_node_is_reached_through_the_tunnel_afterwards() {
    use egret::kernel::state::{Nexthop, Via};
    let node = node();
    let place = Place::node(&node);
    let (mut desired, mut saved) = (full_node(), Saved::new());
    settle(&place, &desired, &mut saved);
    // The kernel refuses the new IPv6 nexthop as long as `main` has the host route to the veth.
    let tunnel = |gateway: &str| Nexthop::Via { gateway: addr(gateway), dev: "egress.vxlan".into() };
    desired.nexthops.insert(479_002, tunnel("203.0.113.2"));
    desired.nexthops.insert(479_502, tunnel("2001:db8:e::2"));
    desired.routes.retain(|route| !matches!(&route.via, Via::Device { dev, .. } if dev == "egg2"));
    settle(&place, &desired, &mut saved);
    desired = full_node();
    settle(&place, &desired, &mut saved);
}

#[test]
fn a_rule_that_stands_twice_is_made_single() {
    use egret::kernel::netlink::{Socket, rule};
    let node = node();
    let place = Place::node(&node);
    let (desired, mut saved) = (full_node(), Saved::new());
    settle(&place, &desired, &mut saved);
    let healthy = sh("ip rule; ip -6 rule").lines().count();
    let mut socket = Socket::open(&node).unwrap();
    for rule in &desired.rules {
        socket.change(rule::add(rule, scope().protocol), netlink_packet_core::NLM_F_CREATE).unwrap();
    }
    settle(&place, &desired, &mut saved);
    assert_eq!(sh("ip rule; ip -6 rule").lines().count(), healthy);
}
