//! Pools with `natOutgoing`: a gateway's clients leave with the address of its node, as Calico has it.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use egret::addr::Family;
use egret::testbed::{Answer, Flow, Masquerade, Outside, Pod, Topology, node_address, within};

use crate::lab::{Lab, nodes};

const POOLS: [(&str, &str); 2] = [("hide", "10.10.10.16/28"), ("hide6", "fd00:10:10::20/124")];

fn pools(lab: &Lab, nat_outgoing: bool) {
    for (name, cidr) in POOLS {
        lab.object(&format!(
            "apiVersion: egret.dev/v1alpha1\nkind: EgressPool\nmetadata: {{name: {name}}}\n\
             spec: {{cidr: '{cidr}', gatewayNamespaces: all(), clientNamespaces: all(), natOutgoing: {nat_outgoing}}}\n"
        ))
        .unwrap();
    }
}

/// A gateway of these pools on node 1, a client beside it and one on node 2.
fn raise(topology: Topology) -> (Lab, Pod, [Pod; 2]) {
    let lab = Lab::raise(topology);
    pools(&lab, true);
    let asks = [
        ("cni.projectcalico.org/ipv4pools", "[\"hide\"]"),
        ("cni.projectcalico.org/ipv6pools", "[\"hide6\"]"),
    ];
    lab.pod_object("gw/g1", &[("egress-code", "red")], &asks, 1).unwrap();
    let gateway = lab.add_pod(1, "gw/g1").unwrap();
    let clients = [lab.client(1, "c1"), lab.client(2, "c2")];
    (lab, gateway, clients)
}

fn of_node_1() -> BTreeSet<IpAddr> {
    Family::BOTH.map(|family| node_address(1, family)).into()
}

#[test]
fn clients_leave_with_the_address_of_the_gateways_node_and_nobody_announces_the_lease() {
    for masquerade in [Masquerade::IptablesNft, Masquerade::None] {
        let (lab, gateway, clients) = raise(Topology { masquerade, ..nodes(2) });
        let capture = lab.capture().unwrap();
        for client in &clients {
            assert_eq!(lab.leaves_as_predicted(client), of_node_1(), "{}", client.name);
            let saw: BTreeSet<IpAddr> = capture.sources_of(client).into_keys().collect();
            assert_eq!(saw, of_node_1(), "{}, {masquerade:?}", client.name);
            lab.check_pod(client).unwrap();
        }
        lab.check_pod(&gateway).unwrap();
        let proxies = "for f in -4 -6; do ip $f neigh show proxy; done";
        assert_eq!(lab.node(1).sh(proxies).unwrap().trim(), "");
        assert_eq!(lab.reasons(1), [""; 0]);
        let said = lab.json(1, &["explain", "gw/g1"])["notes"].to_string();
        assert!(said.contains("its node's address") && said.contains("172.30.0.1"), "{said}");
    }
}

/// The pool changes while flows run: new ones leave as it says now, and those that run keep the address they began with.
#[test]
fn the_pool_is_obeyed_live() {
    let (lab, gateway, clients) = raise(nodes(2));
    let leases: BTreeSet<IpAddr> = lab.leases(&gateway).into_iter().collect();
    for (nat_outgoing, expected) in [(false, &leases), (true, &of_node_1())] {
        let to = Family::BOTH.map(|family| Outside::Near.address(family));
        let mut running: Vec<_> =
            clients.iter().flat_map(|client| to.map(|to| client.tcp_flow(to).unwrap())).collect();
        let before: Vec<Answer> = running.iter_mut().map(Flow::ask).collect();
        pools(&lab, nat_outgoing);
        lab.settle().unwrap();
        for client in &clients {
            // Echo requests of one pod have one number, so they are one flow.
            for to in to {
                assert!(lab.predicted(client, to).is_subset(expected), "{}", lab.explain(client, to));
                for saw in [client.tcp(to), client.udp(to)] {
                    assert!(expected.contains(&saw.unwrap()), "{} to {to}, {nat_outgoing}", client.name);
                }
            }
        }
        let after: Vec<Answer> = running.iter_mut().map(Flow::ask).collect();
        assert_eq!(after, before);
    }
}

/// A node without an address of a family has nothing to leave with: that family is held, the other goes on.
#[test]
fn a_family_that_the_node_has_no_address_of_is_held() {
    let (lab, _gateway, clients) = raise(nodes(2));
    let address = node_address(1, Family::V4);
    lab.object(&format!(
        "{{apiVersion: v1, kind: Node, metadata: {{name: node1}}, spec: {{podCIDRs: [10.60.1.0/24, 'fd00:10:60:1::/64']}}, \
         status: {{addresses: [{{type: InternalIP, address: {address}}}]}}}}"
    ))
    .unwrap();
    lab.settle().unwrap();
    let leases = lab.json(1, &["status"])["items"][0]["gateways"][0]["leases"].clone();
    let ways = [
        (false, format!("seen with the node's address {address}")),
        (true, "no address of this family".to_owned()),
    ];
    for (v6, way_back) in ways {
        let mut leases = leases.as_array().unwrap().iter();
        let lease = leases.find(|lease| lease["address"].as_str().unwrap().contains(':') == v6).unwrap();
        assert!(lease["wayBack"].as_str().unwrap().contains(&way_back), "{lease}");
    }
    for client in &clients {
        assert_eq!(client.tcp(Outside::Near.address(Family::V4)).unwrap(), address);
        let to = Outside::Near.address(Family::V6);
        let said = lab.explain(client, to).to_string();
        assert!(said.contains("held") && said.contains("natOutgoing"), "{said}");
        assert!(client.tcp(to).is_err() && client.udp(to).is_err() && client.ping(to).is_err());
    }
}

/// The kernel tracks no neighbour discovery, wherever it is sent: what has no entry gets no NAT, and would show the lease.
#[test]
fn what_conntrack_does_not_track_does_not_show_the_lease() {
    let (lab, gateway, _clients) = raise(nodes(2));
    let lease = lab.lease(&gateway, Family::V6);
    let text = format!(
        "import socket, struct\n\
         s = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)\n\
         s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, 64)\n\
         s.bind(('{lease}', 0))\n\
         for kind in (130, 134, 135, 143): s.sendto(struct.pack('!BBHI', kind, 0, 0, 0) + b'payload', ('{}', 0))\n",
        Outside::Near.address(Family::V6)
    );
    let capture = lab.capture().unwrap();
    let shown = || capture.packets().iter().filter(|packet| packet.source == lease).count();
    let send = || drop(gateway.place().feed("python3", &["-"], &text).unwrap());
    send();
    assert!(gateway.tcp(Outside::Near.address(Family::V4)).is_ok());
    assert_eq!(shown(), 0, "packets with the lease left");
    // Without the rule they do leave: this shows that they come so far.
    lab.node(1).sh("nft flush chain inet egret forward").unwrap();
    send();
    let leaks = within(Duration::from_secs(60), Duration::from_millis(10), || shown() > 0);
    assert!(leaks.is_some(), "nothing leaves at all: this test proves nothing");
}
