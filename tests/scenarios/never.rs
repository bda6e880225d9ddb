//! What never goes to a gateway, beside what `inside` tells: services, multicast, gateways themselves, host-network pods, replies
//! through a node's port; and the ranges of the cluster as objects come and go.

use std::net::{IpAddr, SocketAddr};

use egret::addr::Family;
use egret::egress::explain::Verdict;
use egret::testbed::{Answer, LINES_PORT, Masquerade, Outside, Topology, node_address};

use crate::lab::{Lab, SELECTS_RED, nodes};

/// An address of each family, as nft and URLs write it with a port.
fn at(ip: IpAddr) -> String {
    SocketAddr::new(ip, LINES_PORT).to_string()
}

/// Translates what arrives for an address and port, as kube-proxy does.
fn translate(lab: &Lab, node: u8, from: &str, to: IpAddr) {
    let word = if to.is_ipv4() { "ip" } else { "ip6" };
    let rules = format!(
        "table {word} services {{ chain pre {{ type nat hook prerouting priority dstnat; {from} dnat to {}; }}; }}",
        at(to)
    );
    lab.node(node).feed("nft", &["-f", "-"], &rules).unwrap();
}

#[test]
fn a_service_of_the_cluster_is_reached_with_the_pods_own_address() {
    let lab = Lab::raise(nodes(2));
    lab.gateway(1, "g1");
    let (client, server) = (lab.client(1, "c1"), lab.plain(2, "server"));
    let _server = server.serve().unwrap();
    let capture = lab.capture().unwrap();
    for (family, service) in Family::BOTH.into_iter().zip(["10.96.0.10", "fd00:10:96::10"]) {
        let word = if family == Family::V4 { "ip" } else { "ip6" };
        let to = server.address(family).unwrap();
        translate(&lab, 1, &format!("{word} daddr {service} tcp dport {LINES_PORT}"), to);
        let service = SocketAddr::new(service.parse().unwrap(), LINES_PORT);
        let answer = client.tcp_flow_to(service).unwrap().ask();
        assert_eq!(answer, Answer::From(client.address(family).unwrap()));
    }
    lab.leaves_as_predicted(&client);
    capture.assert_clean(&[&client]);
}

/// The outside comes by a port of the client's own node, and by one of another node, which hides it.
#[test]
fn replies_through_a_nodes_port_go_back_the_way_they_came() {
    let lab = Lab::raise(Topology { masquerade: Masquerade::None, ..nodes(2) });
    lab.gateway(2, "g1");
    let client = lab.client(1, "c1");
    let _server = client.serve().unwrap();
    let capture = lab.capture().unwrap();
    for family in Family::BOTH {
        let word = if family == Family::V4 { "ip" } else { "ip6" };
        for node in [1, 2] {
            translate(&lab, node, "tcp dport 30080", client.address(family).unwrap());
        }
        let hide = format!(
            "table {word} hide {{ chain post {{ type nat hook postrouting priority srcnat; ct status dnat masquerade; }}; }}"
        );
        lab.node(2).feed("nft", &["-f", "-"], &hide).unwrap();
        for (node, seen) in [(1, Outside::Near.address(family)), (2, node_address(2, family))] {
            let port = SocketAddr::new(node_address(node, family), 30080);
            let mut flow = lab.connect_from(Outside::Near, port).unwrap();
            assert_eq!(flow.ask(), Answer::From(seen), "by node{node}");
            flow.download(100_000).unwrap();
        }
    }
    lab.leaves_as_predicted(&client);
    capture.assert_clean(&[&client]);
}

/// A range is inside from the moment an object says so, until none does.
#[test]
fn ranges_of_the_cluster_follow_their_objects() {
    let lab = Lab::raise(nodes(2));
    lab.gateway(2, "g1");
    let client = lab.client(1, "c1");
    let far = Family::BOTH.map(|family| Outside::Far.address(family));
    let objects = [
        (
            "ServiceCIDR",
            "{apiVersion: networking.k8s.io/v1, kind: ServiceCIDR, metadata: {name: late}, spec: {cidrs: [198.51.101.0/24, '2001:db8:fe::/64']}}",
        ),
        (
            "Node",
            "{apiVersion: v1, kind: Node, metadata: {name: late}, status: {addresses: [{type: ExternalIP, address: 198.51.101.100}, {type: ExternalIP, address: '2001:db8:fe::100'}]}}",
        ),
        (
            "Node",
            "{apiVersion: v1, kind: Node, metadata: {name: late}, spec: {podCIDRs: [198.51.101.0/24, '2001:db8:fe::/64']}}",
        ),
        (
            "IPPool",
            "{apiVersion: projectcalico.org/v3, kind: IPPool, metadata: {name: late}, spec: {cidr: 198.51.101.0/24}}",
        ),
    ];
    for (kind, yaml) in objects {
        lab.object(yaml).unwrap();
        lab.settle().unwrap();
        for to in far.iter().filter(|to| to.is_ipv4() || kind != "IPPool") {
            let said = lab.explain(&client, *to);
            let inside = said.items[0].inside.as_ref();
            assert!(inside.is_some_and(|inside| inside.source.contains(kind)), "{said}");
            assert_eq!(client.tcp(*to).unwrap(), node_address(1, Family::of(*to)), "{yaml}");
        }
        lab.remove_object(kind, None, "late").unwrap();
        lab.settle().unwrap();
        for to in far {
            assert!(lab.predicted(&client, to).contains(&client.tcp(to).unwrap()), "after {yaml}");
        }
    }
    for to in
        ["224.0.0.251", "255.255.255.255", "ff02::fb", "ff05::1", "169.254.169.254", "fe80::1", "127.0.0.1"]
    {
        let said = lab.explain(&client, to.parse().unwrap());
        assert!(said.items[0].action == Verdict::Direct && said.items[0].inside.is_some(), "{said}");
    }
}

#[test]
fn gateways_and_host_network_pods_are_never_redirected() {
    let lab = Lab::raise(nodes(2));
    lab.namespace("gw", &[], &SELECTS_RED).unwrap();
    lab.namespace("shop", &[], &SELECTS_RED).unwrap();
    let gateways = [lab.gateway(1, "g1"), lab.gateway(2, "g2")];
    gateways.iter().for_each(|gateway| lab.leaves_as_before(gateway));
    lab.object(
        "{apiVersion: v1, kind: Pod, metadata: {namespace: shop, name: proxy}, spec: {nodeName: node1, hostNetwork: true}}",
    )
    .unwrap();
    let said = lab.json(1, &["explain", "shop/proxy", "198.51.100.100"]);
    assert_eq!(said["items"][0]["action"], "direct", "{said:#}");
    assert_eq!(said["problems"][0]["reason"], "HostNetworkSelected", "{said:#}");
}
