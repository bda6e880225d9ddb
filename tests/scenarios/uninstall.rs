//! B7: `egret uninstall` leaves a node as it was, with what others have there.

use egret::testbed::{Place, Topology};

use crate::lab::{Lab, is_emptied, listing, nodes};

/// What others may have on a node: devices, routes, rules, nexthops, neighbours, firewall, settings.
const FOREIGN: &str = "ip link add dum0 type bridge && ip addr add 192.0.2.1/24 dev dum0 && ip link set dum0 up group 77\n\
    ip route add 203.0.113.0/24 via 172.30.0.254 table 1234\n\
    ip rule add pref 650 fwmark 0x100/0xff00 lookup 1234\n\
    ip nexthop add id 7 via 172.30.0.254 dev eth0\n\
    ip neigh add proxy 192.0.2.77 dev eth0\n\
    ip neigh replace 172.30.0.77 lladdr 02:00:00:00:00:77 dev eth0 nud permanent\n\
    nft add table inet theirs && nft 'add chain inet theirs c { type filter hook forward priority 0; }'\n\
    nft add rule inet theirs c counter meta mark 0x1 accept";

fn veth_count(node: &Place) -> usize {
    node.sh("ip -br link show type veth").unwrap().lines().count()
}

/// Gateways, clients of both kinds, traffic; then uninstall on every node.
fn as_before(topology: Topology) {
    let lab = Lab::raise(topology);
    // The primary's own devices and settings stand before Egret has anything to do.
    let pods: Vec<_> = [1, 2].map(|n| lab.plain(n, &format!("p{n}"))).into();
    let nodes: Vec<_> = lab.nodes().collect();
    nodes.iter().for_each(|node| drop(node.sh(FOREIGN).unwrap()));
    let before: Vec<_> = nodes.iter().map(listing).collect();
    let veths: Vec<_> = nodes.iter().map(veth_count).collect();
    let gateways = [lab.gateway(1, "g1"), lab.gateway(2, "g2")];
    let clients = [lab.client(1, "c1"), lab.client(2, "c2")];
    let capture = lab.capture().unwrap();
    clients.iter().for_each(|c| drop(lab.leaves_as_predicted(c)));
    capture.assert_clean(&[&clients[0], &clients[1]]);
    drop(capture);
    // The primary takes its part back; ours is left to uninstall.
    for pod in clients.iter().chain(&gateways) {
        lab.lose_pod(pod).unwrap();
    }
    // The end of a namespace is asynchronous: its veths go a little later, on a busy machine much later.
    for (node, before) in nodes.iter().zip(&veths) {
        let gone = (0..600).any(|_| {
            std::thread::sleep(std::time::Duration::from_millis(100));
            veth_count(node) == *before
        });
        assert!(
            gone,
            "veths of namespaces that ended stay: {}",
            node.sh("ip -br link show type veth").unwrap()
        );
    }
    for (number, node) in (1..).zip(&nodes) {
        is_emptied(&lab, number);
        let after = listing(node);
        let before = &before[usize::from(number) - 1];
        let gone: Vec<_> = before.lines().filter(|line| !after.lines().any(|l| l == *line)).collect();
        let left: Vec<_> = after.lines().filter(|line| !before.lines().any(|l| l == *line)).collect();
        assert!(gone.is_empty() && left.is_empty(), "node{number}: gone {gone:#?}, left {left:#?}");
    }
    pods.iter().for_each(|p| assert!(p.tcp(lab.destinations()[0]).is_ok()));
}

#[test]
fn b7_uninstall_leaves_a_node_as_it_was() {
    as_before(nodes(2));
}
