//! What is not ours is not touched: by reconciling, by uninstalling, by repairing.

use egret::kernel::state::State;
use egret::kernel::{Place, Saved, reconcile};

use crate::roundtrip::full_node;
use crate::world::*;

/// Somebody else's things, as near to ours as they can be: our tables, priorities, ids and devices of our kinds.
const FOREIGN: [&str; 24] = [
    "ip link add vxlan.calico type vxlan id 4096 dstport 4789 local 172.30.0.1 nolearning",
    "ip link set vxlan.calico up",
    "bridge fdb add 02:00:00:00:00:77 dev vxlan.calico dst 172.30.0.7",
    "ip link add cali1 type veth peer name cali2",
    "ip link set cali1 up group 7",
    "ip link set cali2 up",
    "ip neigh add 10.60.1.9 lladdr 02:00:00:00:00:09 dev cali1 nud permanent",
    "ip addr add 169.254.77.1/32 dev cali1 scope link",
    "ip neigh add proxy 203.0.113.77 dev up0",
    "ip neigh add proxy 203.0.113.78 dev up0 protocol 50",
    "ip nexthop add id 479900 via 172.30.0.8 dev up0",
    "ip nexthop add id 479901 blackhole protocol bgp",
    "ip nexthop add id 7 group 479900 protocol 179",
    "ip route add 10.0.0.0/8 via 172.30.0.254",
    "ip route add 203.0.113.0/24 nhid 7 table 479001",
    "ip route add 10.61.0.0/16 dev up0 table 479001 protocol bgp",
    "ip -6 route add 2001:db8:77::/48 dev up0 table 479001",
    "ip route add unreachable default table 4242 metric 4294967295",
    "ip rule add pref 720 from 10.60.0.0/16 lookup 4242",
    "ip rule add pref 720 fwmark 1/0x7f lookup 4242 protocol 50",
    "ip rule add pref 1000 fwmark 0x10000/0x10000 lookup 4242 protocol 179",
    "ip -6 rule add pref 799 iif up0 unreachable",
    "echo 3 > /proc/sys/net/ipv4/conf/up0/arp_announce || echo 2 > /proc/sys/net/ipv4/conf/up0/arp_announce",
    "ip -6 neigh add proxy 2001:db8:e::77 dev up0",
];

#[test]
fn foreign_objects_survive_reconcile_repair_and_uninstall() {
    let node = node();
    FOREIGN.iter().for_each(|command| drop(sh(command)));
    sh("sleep 0.3"); // link-local addresses of the foreign devices settle
    let place = Place::node(&node);
    let (desired, mut saved) = (full_node(), Saved::new());
    let before = calm();

    settle(&place, &desired, &mut saved);
    let missing: Vec<String> = before.difference(&listing()).cloned().collect();
    assert!(missing.is_empty(), "reconciling changed what is not ours: {missing:#?}");

    sh("ip link del egress.vxlan; ip nexthop del id 479002");
    settle(&place, &desired, &mut saved);
    settle(&place, &State::default(), &mut saved);
    assert_same(listing, &before);
}

#[test]
fn somebody_elses_route_in_the_place_of_ours_is_reported_and_left() {
    let node = node();
    let place = Place::node(&node);
    sh("ip route add 203.0.113.2/32 dev up0");
    let mut saved = Saved::new();
    let report = reconcile(&place, &scope(), &full_node(), &mut saved, false).unwrap();
    let failed: Vec<String> = report.failed.iter().map(|(step, why)| format!("{step}: {why}")).collect();
    assert_eq!(
        failed,
        vec![
            "ip route add 203.0.113.2/32 dev egg2 src 172.30.0.1 table 254: \
             something that is not Egret's is in its place: File exists (EEXIST)"
        ]
    );
    assert!(ip("route show 203.0.113.2").contains("dev up0"));
    settle(&place, &State::default(), &mut saved);
    assert!(ip("route show 203.0.113.2").contains("dev up0"));
}

#[test]
fn somebody_elses_device_of_our_name_is_reported_and_left() {
    let node = node();
    let place = Place::node(&node);
    sh("ip link add egress.vxlan type veth peer name x");
    let mut saved = Saved::new();
    let report = reconcile(&place, &scope(), &full_node(), &mut saved, false).unwrap();
    assert_eq!(
        report.failed[0].0.to_string().split(' ').take(4).collect::<Vec<_>>(),
        ["ip", "link", "add", "egress.vxlan"]
    );
    settle(&place, &State::default(), &mut saved);
    assert!(ip("link show egress.vxlan").contains("@x"));
}

#[test]
fn a_dry_run_shows_the_steps_and_changes_nothing() {
    let node = node();
    let place = Place::node(&node);
    let before = calm();
    let mut saved = Saved::new();
    let report = reconcile(&place, &scope(), &full_node(), &mut saved, true).unwrap();
    assert!(report.done.is_empty() && report.failed.is_empty() && saved.is_empty());
    assert_same(listing, &before);
    let applied = settle(&place, &full_node(), &mut saved);
    assert_eq!(lines(&report.pending), lines(&applied.done));
}
