//! The story of a node gateway on every kind of node, and every way to say with which address it leaves.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use egret::addr::Family;
use egret::testbed::{
    Answer, Families, LINES_PORT, Masquerade, Outside, Pod, Primary, RUN_DIR, Topology, node_address,
    second_address,
};
use serde_json::json;

use crate::lab::{Lab, kind, prohibited};
use crate::mtu::bulk_through;
use crate::node_gateways::{WHOLE, pod, policy, seconds, topology};

/// A client on the gateway's node and one elsewhere, an unselected pod; then no node matches any more.
fn tell(topology: Topology) {
    let lab = Lab::raise(topology);
    let plain = lab.plain(2, "p");
    policy(&lab, "by-eth1", "shop", WHOLE, &[(2, "interface: eth1")]);
    let mut clients = [pod(&lab, 1, "c1", "shop"), pod(&lab, 2, "c2", "shop")];
    let capture = lab.capture().unwrap();
    let families = lab.topology().families.list();
    let expected: BTreeSet<IpAddr> = families.iter().map(|family| second_address(2, *family)).collect();
    for client in &clients {
        assert_eq!(lab.leaves_as_predicted(client), expected, "{}", client.name);
        lab.check_pod(client).unwrap();
    }
    lab.leaves_as_before(&plain);
    policy(&lab, "by-eth1", "shop", WHOLE, &[(9, "interface: eth1")]);
    // Nothing answers a ping that is held, so no longer than this.
    clients.iter_mut().for_each(|client| client.patience = Duration::from_millis(200));
    clients.iter().for_each(|client| lab.is_held(client));
    assert!(lab.reasons(1).contains(&"NoGatewayNode".to_owned()), "{:?}", lab.reasons(1));
    capture.assert_clean(&[&clients[0], &clients[1]]);
}

#[test]
fn nobody_masquerades_and_pods_have_ipv4_only() {
    tell(Topology { masquerade: Masquerade::None, families: Families::V4, ..topology(2) });
}

#[test]
fn the_primary_masquerades_and_is_ptp() {
    tell(Topology { primary: Primary::Ptp, masquerade: Masquerade::IpMasq, ..topology(2) });
}

#[test]
fn iptables_legacy_masquerades_bridged_packets_skip_netfilter_and_filters_are_loose() {
    let loose = Topology { br_netfilter: false, strict_rp_filter: false, ..topology(2) };
    tell(Topology { masquerade: Masquerade::IptablesLegacy, ..loose });
}

#[test]
fn nft_masquerades_and_pods_have_ipv6_only() {
    tell(Topology { masquerade: Masquerade::Nft, families: Families::V6, ..topology(2) });
}

#[test]
fn the_underlay_is_ipv6_and_the_mark_mask_is_moved() {
    let mut topology = Topology { underlay: Family::V6, ..topology(2) };
    topology.egret_keys.insert("markMask".to_owned(), json!(0x7f00_0000_u32));
    tell(topology);
}

/// The gateway's node has no pod at all.
#[test]
fn a_node_without_pods_is_a_gateway_for_others() {
    let lab = Lab::raise(topology(2));
    policy(&lab, "by-eth1", "shop", WHOLE, &[(2, "interface: eth1")]);
    let client = pod(&lab, 1, "c1", "shop");
    let capture = lab.capture().unwrap();
    assert_eq!(lab.leaves_as_predicted(&client), seconds(2));
    capture.assert_clean(&[&client]);
}

/// Big things both ways, whole; paths that are narrower are found, from both sides of the tunnel.
#[test]
fn bulk_and_fragments_pass_both_ways() {
    for uplink_mtu in [1500, 1400] {
        let lab = Lab::raise(Topology { uplink_mtu, ..topology(2) });
        policy(&lab, "by-eth1", "shop", WHOLE, &[(2, "interface: eth1")]);
        let clients = [pod(&lab, 2, "c2", "shop"), pod(&lab, 1, "c1", "shop")];
        bulk_through(&lab, &clients, &|family| second_address(2, family), 3000);
    }
}

/// Neither interface nor address: the interface of the default route, as it is now.
#[test]
fn neither_an_interface_nor_an_address_means_the_default_routes_interface() {
    let lab = Lab::raise(topology(2));
    let default = |lines: &str| drop(lab.node(2).sh(lines).unwrap());
    default(
        "ip route replace default via 172.31.2.254 dev eth1; ip -6 route replace default via fd00:172:31:2::254 dev eth1",
    );
    policy(&lab, "by-default", "shop", WHOLE, &[(2, "")]);
    let clients = [pod(&lab, 1, "c1", "shop"), pod(&lab, 2, "c2", "shop")];
    let capture = lab.capture().unwrap();
    clients.iter().for_each(|client| assert_eq!(lab.leaves_as_predicted(client), seconds(2)));
    capture.assert_clean(&[&clients[0], &clients[1]]);
    default(
        "ip route replace default via 172.30.0.254 dev eth0; ip -6 route replace default via fd00:172:30::254 dev eth0",
    );
    lab.settle().unwrap();
    lab.settle().unwrap();
    let first = Family::BOTH.map(|family| node_address(2, family)).into();
    clients.iter().for_each(|client| assert_eq!(lab.leaves_as_predicted(client), first));
}

/// Two interfaces of one node, and another node, for one pod by different prefixes; excluded prefixes go direct.
#[test]
fn several_interfaces_of_one_node_and_another_node_for_one_pod() {
    let lab = Lab::raise(topology(3));
    let add = "ip address add 10.10.10.77/24 dev eth0; ip address add fd00:10:10::77/64 dev eth0 nodad";
    lab.node(2).sh(add).unwrap();
    policy(&lab, "rest", "shop", WHOLE, &[(2, "interface: eth1")]);
    policy(&lab, "far", "shop", "198.51.101.0/24", &[(2, "egressIP: 10.10.10.77")]);
    policy(&lab, "far6", "shop", "'2001:db8:fe::/64'", &[(3, "interface: eth1")]);
    let clients: Vec<Pod> = (1..=3).map(|n| pod(&lab, n, &format!("c{n}"), "shop")).collect();
    let capture = lab.capture().unwrap();
    let far: [IpAddr; 2] = ["10.10.10.77".parse().unwrap(), second_address(3, Family::V6)];
    let all = &seconds(2) | &far.into();
    for client in &clients {
        assert_eq!(lab.leaves_as_predicted(client), all, "{}", client.name);
        for (family, far) in Family::BOTH.into_iter().zip(far) {
            let near = second_address(2, family);
            assert_eq!(client.tcp(Outside::Near.address(family)).unwrap(), near, "{}", client.name);
            assert_eq!(client.tcp(Outside::Far.address(family)).unwrap(), far, "{}", client.name);
        }
    }
    capture.assert_clean(&clients.iter().collect::<Vec<_>>());
}

#[test]
fn excluded_prefixes_leave_as_the_primary_has_it() {
    let lab = Lab::raise(topology(2));
    lab.object(
        "apiVersion: cilium.io/v2\nkind: CiliumEgressGatewayPolicy\nmetadata: {name: but-far}\nspec:\n  \
         selectors: [{podSelector: {matchLabels: {app: shop}}}]\n  destinationCIDRs: [0.0.0.0/0, '::/0']\n  \
         excludedCIDRs: [198.51.101.0/24, '2001:db8:fe::/64']\n  \
         egressGateway: {nodeSelector: {matchLabels: {kubernetes.io/hostname: node2}}, interface: eth1}\n",
    )
    .unwrap();
    lab.settle().unwrap();
    lab.settle().unwrap();
    for client in [pod(&lab, 1, "c1", "shop"), pod(&lab, 2, "c2", "shop")] {
        for family in Family::BOTH {
            let (near, far) = (Outside::Near.address(family), Outside::Far.address(family));
            let own = node_address(client.node, family);
            assert_eq!(lab.predicted(&client, far), BTreeSet::new());
            assert_eq!(
                [client.tcp(far).unwrap(), client.udp(far).unwrap(), client.ping(far).unwrap()],
                [own; 3]
            );
            let there = second_address(2, family);
            assert_eq!(lab.predicted(&client, near), [there].into());
            assert_eq!([client.tcp(near).unwrap(), client.udp(near).unwrap()], [there; 2]);
        }
    }
}

/// An address that the node has not got, that comes, and that goes again while flows run.
#[test]
fn an_address_that_the_node_has_not_got_is_named_and_nothing_leaves_with_another() {
    let lab = Lab::raise(topology(2));
    policy(&lab, "solo", "shop", "0.0.0.0/0", &[(2, "egressIP: 172.31.2.99")]);
    let mut clients = [pod(&lab, 1, "c1", "shop"), pod(&lab, 2, "c2", "shop")];
    clients.iter_mut().for_each(|client| client.patience = Duration::from_millis(300));
    let (to, declared): (_, IpAddr) = (Outside::Near.address(Family::V4), "172.31.2.99".parse().unwrap());
    let capture = lab.capture().unwrap();
    let silent = |client: &Pod| {
        let said = lab.explain(client, to).to_string();
        assert!(said.contains("held") && said.contains("172.31.2.99"), "{said}");
        assert_eq!(kind(client.udp(to)), prohibited(to), "{}", client.name);
        assert!(client.tcp(to).is_err() && client.ping(to).is_err(), "{}", client.name);
    };
    for round in 0..2 {
        clients.iter().for_each(silent);
        assert!(lab.reasons(1).contains(&"NoEgressAddress".to_owned()), "{:?}", lab.reasons(1));
        lab.node(2).sh("ip address add 172.31.2.99/24 dev eth1").unwrap();
        lab.settle().unwrap();
        lab.settle().unwrap();
        let mut flows: Vec<_> = clients.iter().map(|client| client.udp_flow(to).unwrap()).collect();
        for client in &clients {
            assert_eq!(lab.predicted(client, to), [declared].into(), "round {round}");
            assert_eq!(
                [client.tcp(to).unwrap(), client.udp(to).unwrap(), client.ping(to).unwrap()],
                [declared; 3]
            );
        }
        lab.node(2).sh("ip address del 172.31.2.99/24 dev eth1").unwrap();
        // Nobody has noticed yet: what leaves, leaves with the declared address.
        let seen =
            |answer: Answer| assert!(!matches!(answer, Answer::From(ip) if ip != declared), "{answer:?}");
        flows.iter_mut().for_each(|flow| seen(flow.ask()));
        clients.iter().for_each(|client| assert!(client.tcp(to).map_or(true, |ip| ip == declared)));
        lab.settle().unwrap();
        lab.settle().unwrap();
        flows.iter_mut().for_each(|flow| seen(flow.ask()));
    }
    capture.assert_clean(&[&clients[0], &clients[1]]);
}

/// One family has a gateway and the other has none: it is held where our policy sends the whole internet to gateways.
#[test]
fn a_family_without_an_address_is_held_and_the_other_goes_on() {
    let lab = Lab::raise(topology(2));
    lab.node(2).sh("ip -6 address flush dev eth1").unwrap();
    lab.object(
        "apiVersion: egret.dev/v1alpha1\nkind: EgressGatewayPolicy\nmetadata: {name: whole}\nspec:\n  \
         selectors: [{selector: app == 'shop'}]\n  rules:\n  - gateway: {nodes: [{nodeSelector: \"kubernetes.io/hostname == 'node2'\", interface: eth1}]}\n",
    )
    .unwrap();
    lab.settle().unwrap();
    lab.settle().unwrap();
    let clients = [pod(&lab, 1, "c1", "shop"), pod(&lab, 2, "c2", "shop")];
    let capture = lab.capture().unwrap();
    for client in &clients {
        let [v4, v6] = Family::BOTH.map(|family| Outside::Near.address(family));
        assert_eq!(client.tcp(v4).unwrap(), second_address(2, Family::V4));
        assert_eq!(lab.predicted(client, v4), [second_address(2, Family::V4)].into());
        assert_eq!(lab.predicted(client, v6), BTreeSet::new());
        assert_eq!(kind(client.udp(v6)), prohibited(v6));
        assert!(client.tcp(v6).is_err() && client.ping(v6).is_err());
    }
    capture.assert_clean(&[&clients[0], &clients[1]]);
}

/// Connections from outside to clients, also to one on the gateway's node: replies go back as they came.
#[test]
fn replies_to_connections_from_outside_do_not_take_the_gateway() {
    let lab = Lab::raise(Topology { masquerade: Masquerade::None, ..topology(2) });
    policy(&lab, "by-eth1", "shop", WHOLE, &[(2, "interface: eth1")]);
    let clients = [pod(&lab, 1, "c1", "shop"), pod(&lab, 2, "c2", "shop")];
    let _servers: Vec<_> = clients.iter().map(|client| client.serve().unwrap()).collect();
    let capture = lab.capture().unwrap();
    for client in &clients {
        for family in Family::BOTH {
            let to = SocketAddr::new(client.address(family).unwrap(), LINES_PORT);
            let mut flow = lab.connect_from(Outside::Near, to).unwrap();
            assert_eq!(flow.ask(), Answer::From(Outside::Near.address(family)));
            flow.download(100_000).unwrap();
        }
        assert_eq!(lab.leaves_as_predicted(client), seconds(2));
    }
    capture.assert_clean(&[&clients[0], &clients[1]]);
}

/// Power goes: the node's kernel and what lay on tmpfs are empty. Until it reconciles, its clients send nothing.
#[test]
fn the_gateways_node_starts_anew() {
    let lab = Lab::raise(topology(2));
    policy(&lab, "by-eth1", "shop", WHOLE, &[(2, "interface: eth1")]);
    let mut client = pod(&lab, 1, "c1", "shop");
    let capture = lab.capture().unwrap();
    assert_eq!(lab.leaves_as_predicted(&client), seconds(2));
    lab.node(2)
        .sh("nft delete table inet egret; nft delete table netdev egret; ip link del egress.vxlan; conntrack -F 2>/dev/null\n\
             for f in -4 -6; do for p in 700 710 719 720 721 799; do while ip $f rule del priority $p 2>/dev/null; do :; done; done\n\
             for t in $(seq 479000 479127); do ip $f route flush table $t 2>/dev/null || true; done; done")
        .unwrap();
    std::fs::remove_dir_all(Path::new(RUN_DIR).join("node2")).unwrap();
    client.patience = Duration::from_millis(200);
    for to in lab.destinations() {
        assert!(client.tcp(to).is_err() && client.udp(to).is_err(), "to {to}");
    }
    lab.settle().unwrap();
    client.patience = Duration::from_secs(1);
    assert_eq!(lab.leaves_as_predicted(&client), seconds(2));
    capture.assert_clean(&[&client]);
}

/// What never goes to a gateway does not go to a node gateway either: pods, every node address, the gateway's own.
#[test]
fn pods_and_nodes_see_the_pods_own_address() {
    let lab = Lab::raise(topology(2));
    policy(&lab, "by-eth1", "shop", WHOLE, &[(2, "interface: eth1")]);
    let clients = [pod(&lab, 1, "c1", "shop"), pod(&lab, 2, "c2", "shop")];
    let _servers: Vec<_> = clients.iter().map(|client| client.serve().unwrap()).collect();
    let capture = lab.capture().unwrap();
    for (client, other) in [(&clients[0], &clients[1]), (&clients[1], &clients[0])] {
        for family in Family::BOTH {
            let own = client.address(family).unwrap();
            let to = SocketAddr::new(other.address(family).unwrap(), LINES_PORT);
            assert_eq!(client.tcp_flow_to(to).unwrap().ask(), Answer::From(own));
            for node in [1, 2] {
                client.reaches(node_address(node, family)).unwrap();
                let said = lab.explain(client, node_address(node, family));
                assert!(said.items[0].inside.is_some(), "{said}");
            }
            // The address that the outside sees is the gateway's own, and reached like any other of that node.
            client.reaches(second_address(2, family)).unwrap();
        }
        assert_eq!(lab.leaves_as_predicted(client), seconds(2));
    }
    capture.assert_clean(&[&clients[0], &clients[1]]);
}
