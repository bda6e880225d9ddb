//! What the plugin must know of a pod and a node before it plans.

use egret::addr::Family;
use egret::kernel::devices::{default_route_device, default_route_source, interface_of, list, peer_of};

use crate::world::*;

#[test]
fn the_nodes_end_of_a_pods_device_is_found_and_must_point_back() {
    let (home, pod, stranger) = (node(), another(), another());
    ip("link add caliX type veth peer name tmp0");
    let fd = std::os::fd::AsRawFd::as_raw_fd(&std::os::fd::AsFd::as_fd(&pod));
    sh(&format!("ip link set tmp0 netns /proc/{}/fd/{fd}", std::process::id()));
    pod.run(|| {
        ip("link set tmp0 name eth0");
        ip("link add inner type veth peer name inner2");
        ip("link add eth1 link eth0 type macvlan mode bridge || true");
    })
    .unwrap();
    assert_eq!(peer_of(&home, &pod, "eth0").unwrap().map(|end| end.name).as_deref(), Some("caliX"));
    assert_eq!(peer_of(&home, &pod, "inner").unwrap(), None, "both ends inside");
    assert_eq!(peer_of(&home, &pod, "lo").unwrap(), None);
    assert_eq!(peer_of(&stranger, &pod, "eth0").unwrap(), None, "the other end is in another namespace");
    assert_eq!(peer_of(&home, &home, "caliX").unwrap(), None);
    assert_eq!(peer_of(&home, &pod, "eth7").unwrap(), None, "no such device");
}

#[test]
fn devices_are_listed_with_their_addresses() {
    let node = node();
    ip("addr add 169.254.1.1/32 dev up0 scope link");
    let expected = vec![(addr("169.254.1.1"), 32), (addr("172.30.0.1"), 24), (addr("fd00:172:30::1"), 64)];
    let of = |name| interface_of(&node, &node, name).unwrap().map(|found| (found.addresses, found.peer));
    assert_eq!(of("up0"), Some((expected.clone(), None)));
    assert_eq!(of("up7"), None);
    let all = list(&node).unwrap();
    let uplink = all.iter().find(|device| device.name == "up0").unwrap();
    assert_eq!((uplink.addresses.clone(), uplink.mtu, uplink.up, uplink.group), (expected, 1500, true, 0));
    assert!(uplink.mac.is_some());
}

/// Behind a tunnel's far end there are other machines; behind a bridge or a veth there may be pods.
#[test]
fn what_brings_other_machines_packets_is_told_from_what_may_bring_pods() {
    let node = node();
    ip("link add far type vxlan id 7 dstport 8472 remote 192.0.2.9");
    ip("link add bridge0 type bridge");
    ip("link add inner type veth peer name outer");
    let mut found: Vec<_> =
        list(&node).unwrap().into_iter().filter(|d| d.leads_to_machines).map(|d| d.name).collect();
    found.sort_unstable();
    assert_eq!(found, ["far", "lo"]);
}

#[test]
fn the_source_of_the_default_route_is_what_the_kernel_would_choose() {
    let node = node();
    for family in Family::BOTH {
        assert_eq!(default_route_source(&node, family).unwrap(), None);
    }
    ip("addr add 172.30.0.50/24 dev up0");
    ip("route add default via 172.30.0.254 src 172.30.0.50");
    ip("route add default via fd00:172:30::fe");
    assert_eq!(default_route_source(&node, Family::V4).unwrap(), Some(addr("172.30.0.50")));
    assert_eq!(default_route_source(&node, Family::V6).unwrap(), Some(addr("fd00:172:30::1")));
}

/// As in a lab, or where what should never be on the wire is dropped: the default route is another one all the same.
#[test]
fn an_address_of_documentation_that_has_a_route_of_its_own_is_not_taken_for_the_default_route() {
    let node = node();
    let up0 = list(&node).unwrap().into_iter().find(|device| device.name == "up0").unwrap().index;
    ip("addr add 172.30.0.50/24 dev up0");
    ip("route add default via 172.30.0.254");
    ip("route add default via fd00:172:30::fe");
    ip("link add lab0 type veth peer name lab1");
    ip("addr add 192.0.2.77/24 dev lab0");
    ip("addr add 2001:db8::77/64 dev lab0 nodad");
    ip("link set lab0 up");
    ip("link set lab1 up");
    for family in Family::BOTH {
        assert_eq!(default_route_device(&node, family).unwrap(), Some(up0), "{family}");
    }
    ip("addr del 192.0.2.77/24 dev lab0");
    ip("route add unreachable 198.51.100.0/24");
    assert_eq!(default_route_device(&node, Family::V4).unwrap(), Some(up0));
    ip("route add unreachable 203.0.113.0/24");
    assert_eq!(default_route_device(&node, Family::V4).unwrap(), None, "what two of three say");
}
