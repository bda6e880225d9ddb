//! D and E: what must not go through a gateway.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use egret::addr::Family;
use egret::testbed::{
    Answer, Families, LINES_PORT, Masquerade, Outside, Pod, RUN_DIR, Topology, node_address,
    node_lease_address, within,
};

use crate::lab::{Lab, nodes};

/// D1 D4 D8: pods, node addresses, primary and secondary, are reached with the pod's own address.
#[test]
fn d1_d4_d8_pods_and_nodes_see_the_pods_own_address() {
    let lab = Lab::raise(nodes(2));
    lab.gateway(1, "g1");
    // Only InternalIPs are in a Node object by themselves; a second address is named there too.
    for node in [1, 2] {
        let both = [node_address(node, Family::V4), node_address(node, Family::V6)];
        let second = [node_lease_address(node, Family::V4), node_lease_address(node, Family::V6)];
        let list = |kind: &str, ips: &[IpAddr]| -> String {
            ips.iter().map(|ip| format!("{{type: {kind}, address: '{ip}'}}, ")).collect()
        };
        lab.object(&format!(
            "{{apiVersion: v1, kind: Node, metadata: {{name: node{node}}}, status: {{addresses: [{}{}]}}}}",
            list("InternalIP", &both),
            list("ExternalIP", &second)
        ))
        .unwrap();
    }
    let clients = [lab.client(1, "c1"), lab.client(2, "c2")];
    let plains = [lab.plain(1, "p1"), lab.plain(2, "p2")];
    let plain = &plains[1];
    let capture = lab.capture().unwrap();
    let _servers: Vec<_> = clients.iter().chain(&plains).map(|p| p.serve().unwrap()).collect();
    let _nodes: Vec<_> =
        lab.nodes().map(|n| egret::testbed::Service::start(&n.netns().unwrap()).unwrap()).collect();
    for (from, to) in [(0, &clients[1]), (1, &clients[0]), (0, plain), (1, plain)] {
        for family in Family::BOTH {
            let own = clients[from].address(family).unwrap();
            let server = SocketAddr::new(to.address(family).unwrap(), LINES_PORT);
            assert_eq!(clients[from].tcp_flow_to(server).unwrap().ask(), Answer::From(own));
            for node in [1, 2] {
                for ip in [node_address(node, family), node_lease_address(node, family)] {
                    clients[from].reaches(ip).unwrap();
                    let mut flow = clients[from].tcp_flow_to(SocketAddr::new(ip, LINES_PORT)).unwrap();
                    assert_eq!(flow.ask(), before(&plains[from], ip, own), "{} to {ip}", clients[from].name);
                    let said = lab.explain(&clients[from], ip);
                    assert!(said.items.iter().all(|i| i.inside.is_some()), "{said}");
                }
            }
        }
    }
    clients.iter().for_each(|c| drop(lab.leaves_as_predicted(c)));
    capture.assert_clean(&[&clients[0], &clients[1]]);
}

/// What a server sees of a client if Egret does nothing: its own address, or the node's where an unselected neighbour is
/// hidden too.
fn before(neighbour: &Pod, server: IpAddr, own: IpAddr) -> Answer {
    let Answer::From(seen) = neighbour.tcp_flow_to(SocketAddr::new(server, LINES_PORT)).unwrap().ask() else {
        panic!("{} cannot reach {server}", neighbour.name)
    };
    Answer::From(if neighbour.addresses.contains(&seen) { own } else { seen })
}

/// D3: metadata and link-local addresses are never tunnelled.
#[test]
fn d3_metadata_addresses_stay_on_the_node() {
    let lab = Lab::raise(nodes(2));
    lab.gateway(2, "g1");
    let client = lab.client(1, "c1");
    lab.node(1)
        .sh("ip addr add 169.254.169.254/32 dev lo; ip addr add fd00:ec2::254/128 dev lo nodad")
        .unwrap();
    let capture = lab.capture().unwrap();
    for ip in ["169.254.169.254", "fd00:ec2::254"] {
        // The kernel makes the route of an IPv6 address from a work queue; until then nobody answers.
        let answers =
            within(Duration::from_secs(120), Duration::ZERO, || client.reaches(ip.parse().unwrap()).is_ok());
        assert!(answers.is_some(), "{ip} does not answer");
    }
    lab.leaves_as_predicted(&client);
    capture.assert_clean(&[&client]);
}

/// E1: the outside opens a connection to a client pod; its replies go back directly, while its own flows use the gateway.
#[test]
fn e1_replies_to_connections_from_outside_go_back_directly() {
    let lab = Lab::raise(Topology { masquerade: Masquerade::None, ..nodes(2) });
    lab.gateway(1, "g1");
    let clients = [lab.client(1, "c1"), lab.client(2, "c2")];
    let _servers: Vec<_> = clients.iter().map(|p| p.serve().unwrap()).collect();
    let capture = lab.capture().unwrap();
    for client in &clients {
        for family in Family::BOTH {
            let to = SocketAddr::new(client.address(family).unwrap(), LINES_PORT);
            for at in Outside::BOTH {
                let mut flow = lab.connect_from(at, to).unwrap();
                assert_eq!(flow.ask(), Answer::From(at.address(family)));
                flow.download(100_000).unwrap();
            }
        }
        lab.leaves_as_predicted(client);
    }
    capture.assert_clean(&[&clients[0], &clients[1]]);
}

/// Writes a subnet, and what else, into the record of a pod, as if its primary plugin and runtime had said so.
fn says(lab: &Lab, pod: &Pod, network: &str, edit: &str) {
    let record =
        format!("$(grep -lr '\"{}\"' {RUN_DIR}/node1/attachments)", pod.address(Family::V4).unwrap());
    let networks = format!("s#\"networks\":\\s*\\[[^]]*\\]#\"networks\":[\"{network}\"]#");
    let edit = format!("sed -i -E '{networks}; {edit}' {record}");
    lab.node(1).sh(&format!("{edit} && grep -q '{network}' {record}")).unwrap();
}

/// Why a destination of a client is inside, as `egret explain` has it.
fn source(lab: &Lab, client: &Pod, to: IpAddr) -> Option<String> {
    let said = lab.explain(client, to);
    said.items[0].inside.as_ref().map(|inside| inside.source.clone())
}

/// Subnets are as the primary plugins of a node's pods say: they are inside for all of that node's pods, and explain says of which pod. One of
/// everything is none.
#[test]
fn d_subnets_of_a_nodes_pods_are_inside_there_and_one_of_everything_is_none() {
    let lab = Lab::raise(Topology { families: Families::V4, ..nodes(2) });
    lab.gateway(1, "g1");
    let (client, elsewhere) = (lab.client(1, "c1"), lab.client(2, "c2"));
    let plain = lab.plain(1, "p1");
    says(&lab, &plain, "0.0.0.0/0", "");
    assert_eq!(lab.reasons(1), ["CidrTooWide"]);
    let capture = lab.capture().unwrap();
    lab.leaves_as_predicted(&client);
    capture.assert_clean(&[&client]);
    let far = Outside::Far.address(Family::V4);
    says(&lab, &plain, "198.51.101.0/24", "");
    assert_eq!(lab.reasons(1), [""; 0]);
    assert_eq!(source(&lab, &client, far).as_deref(), Some("subnet of Pod plain/p1"));
    assert_eq!(client.tcp(far).unwrap(), node_address(1, Family::V4), "it goes direct");
    lab.leaves_as_predicted(&elsewhere);
}

/// What the rules take for inside, explain does too: the subnet of a container that is no pod's, and no longer that of one whose namespace is
/// gone while nobody told.
#[test]
fn d_explain_knows_the_subnet_of_a_container_without_a_pod_and_forgets_a_lost_ones() {
    let lab = Lab::raise(Topology { families: Families::V4, ..nodes(1) });
    lab.gateway(1, "g1");
    let (client, plain) = (lab.client(1, "c1"), lab.plain(1, "p1"));
    let far = Outside::Far.address(Family::V4);
    // A runtime that names no pod.
    says(&lab, &plain, "198.51.101.0/24", "s#\"pod\":\"[^\"]*\",##");
    lab.settle().unwrap();
    let container = plain.container_id().unwrap();
    assert_eq!(client.tcp(far).unwrap(), node_address(1, Family::V4), "it goes direct");
    assert_eq!(source(&lab, &client, far), Some(format!("subnet of Attachment pods/{container}/eth0")));
    // The record stays when the namespace goes without a DEL.
    let path = plain.place().path().display().to_string();
    lab.node(1).sh(&format!("umount {path} && rm {path}")).unwrap();
    lab.settle().unwrap();
    assert_eq!(source(&lab, &client, far), None);
    lab.leaves_as_predicted(&client);
}
