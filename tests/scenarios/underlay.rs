//! The underlay as it is found: nodes without an object, ways back by another device, packets that were decrypted on their way.

use std::net::IpAddr;

use egret::addr::Family;
use egret::testbed::{Masquerade, RUN_DIR, STATE_DIR, Topology, node_address, second_address};
use serde_json::json;

use crate::lab::{Lab, nodes};

/// Elements of the set of nodes' addresses, as this node's kernel has it.
fn known_nodes(lab: &Lab, node: u8) -> String {
    lab.node(node).sh("nft list set inet egret nodes4").unwrap()
}

/// Tunnel packets that this node let in nowhere.
fn refused_tunnels(lab: &Lab, node: u8) -> u64 {
    let rules = lab.node(node).sh("nft list chain inet egret entrance").unwrap();
    let counted = rules.lines().filter_map(|line| line.split_once("counter packets ")?.1.split_once(' '));
    counted.map(|(packets, _)| packets.parse::<u64>().unwrap()).sum()
}

/// `kubectl delete node` under a kubelet that lives: the endpoint still says where the gateway is.
#[test]
fn a_gateway_whose_node_has_no_object_serves_and_no_pod_forges_tunnel_packets_to_it() {
    let lab = Lab::raise(nodes(2));
    let gateway = lab.gateway(2, "g1");
    let client = lab.client(1, "c1");
    lab.leaves_as_predicted(&client);

    lab.remove_object("Node", None, "node2").unwrap();
    lab.settle().unwrap();
    lab.leaves_as_predicted(&client);

    // What is heard is what is guarded, at whoever may send there.
    let address = node_address(2, Family::V4).to_string();
    for node in [1, 2] {
        let known = known_nodes(&lab, node);
        assert!(known.contains(&address), "node {node}: {known}");
    }
    lab.stop_sandbox(&gateway).unwrap();
    lab.settle().unwrap();
    assert!(!known_nodes(&lab, 1).contains(&address), "nobody is reached there");
}

/// The record of the gateway's node is torn, and a node that remembers no plan has never heard its number.
#[test]
fn a_gateway_whose_node_has_no_number_serves_and_is_guarded() {
    let lab = Lab::raise(nodes(2));
    lab.gateway(2, "g1");
    std::fs::write(format!("{STATE_DIR}/nodes/node2.json"), "torn").unwrap();
    lab.node(1).sh(&format!("rm -f {RUN_DIR}/node1/plan.json")).unwrap();
    let client = lab.client(1, "c1");
    lab.leaves_as_predicted(&client);
    let known = known_nodes(&lab, 1);
    assert!(known.contains(&node_address(2, Family::V4).to_string()), "{known}");
}

/// A node with two uplinks: tunnel packets come by the one and go by the other.
fn two_uplinks(keys: serde_json::Value) -> Lab {
    // A masquerade of the uplink's would drop the first packet of a tunnel's flow that leaves by another device than before.
    let masquerade = Masquerade::IpMasq;
    let mut topology = Topology { second_uplink: true, strict_rp_filter: false, masquerade, ..nodes(2) };
    topology.egret_keys.extend(keys.as_object().cloned().unwrap());
    let lab = Lab::raise(topology);
    let gateway = lab.gateway(1, "g1");
    for lease in lab.leases(&gateway) {
        let (family, via) = (Family::of(lease), node_address(1, Family::of(lease)));
        let digit = if family == Family::V4 { 4 } else { 6 };
        lab.router().sh(&format!("ip -{digit} route replace {lease} via {via}")).unwrap();
    }
    lab
}

/// Leases are announced on one uplink alone, and the nodes' own network is another.
#[test]
fn tunnel_packets_come_by_the_device_that_has_the_underlay_address_whatever_announces_leases() {
    let lab = two_uplinks(json!({"announce": {"interfaces": ["eth1"]}}));
    let client = lab.client(2, "c1");
    lab.leaves_as_predicted(&client);

    let back = node_address(2, Family::V4);
    let own = node_address(1, Family::V4);
    lab.node(1).sh(&format!("ip route add {back} via 172.31.1.254 dev eth1 src {own}")).unwrap();
    let before = refused_tunnels(&lab, 1);
    lab.leaves_as_predicted(&client);
    assert_eq!(refused_tunnels(&lab, 1), before);
}

/// As with Cilium's node encryption: what a node sends comes out of another device than the one that leads there.
#[test]
fn tunnel_packets_that_come_out_of_another_tunnel_are_let_in() {
    let lab = two_uplinks(json!({}));
    let client = lab.client(2, "c1");
    lab.leaves_as_predicted(&client);

    let [one, two] = [1, 2].map(|node| second_address(node, Family::V4));
    let tunnel = |node: u8, local: IpAddr, remote: IpAddr| {
        let line = format!(
            "ip link add decrypted type vxlan id 77 dstport 8472 local {local} remote {remote} && \
             ip link set decrypted up"
        );
        lab.node(node).sh(&line).unwrap();
    };
    tunnel(1, one, two);
    tunnel(2, two, one);
    let [to, from] = [1, 2].map(|node| node_address(node, Family::V4));
    lab.node(2).sh(&format!("ip route add {to} dev decrypted src {from}")).unwrap();
    // The node hears of the device as of every other change: by its agent, or with the next call.
    lab.settle().unwrap();
    let before = refused_tunnels(&lab, 1);
    lab.leaves_as_predicted(&client);
    assert_eq!(refused_tunnels(&lab, 1), before);
    let seen = lab.node(1).sh("cat /sys/class/net/decrypted/statistics/rx_packets").unwrap();
    assert!(seen.trim().parse::<u64>().unwrap() > 0, "they came by it");
}
