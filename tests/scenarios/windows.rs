//! What passes in between: a pod that ends while its sockets still send, a gateway that is gone for its node and not for itself, a pool
//! that is deleted, a connection that is forgotten. One node knows, the other does not yet, and the outside sees nothing new.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use egret::addr::Family;
use egret::kernel::Netns;
use egret::testbed::{Masquerade, Outside, Pod, Spot, Topology, node_address, pod_networks};

use crate::lab::{Lab, nodes};
use crate::traffic::Meeting;

/// Pools whose gateways' clients are seen with the node's address, and what a gateway says to be one of theirs.
pub(crate) type Pools = [(&'static str, String, &'static str); 2];

pub(crate) fn own() -> Pools {
    [("own", Family::V4, "ipv4pools"), ("own6", Family::V6, "ipv6pools")].map(|(name, family, key)| {
        (name, format!("cidr: '{}', source: PodAddress", pod_networks(family)), key)
    })
}

pub(crate) fn leased() -> Pools {
    [("hide", "10.10.10.16/28", "ipv4pools"), ("hide6", "fd00:10:10::20/124", "ipv6pools")]
        .map(|(name, cidr, key)| (name, format!("cidr: '{cidr}'"), key))
}

fn write(lab: &Lab, pools: &Pools) {
    for (name, spec, _) in pools {
        lab.object(&format!(
            "apiVersion: egret.dev/v1alpha1\nkind: EgressPool\nmetadata: {{name: {name}}}\n\
             spec: {{{spec}, natOutgoing: true, gatewayNamespaces: all(), clientNamespaces: all()}}\n"
        ))
        .unwrap();
    }
}

/// A gateway of these pools on node 1, a client beside it and one on node 2.
pub(crate) fn raise(topology: Topology, pools: &Pools) -> (Lab, Pod, [Pod; 2]) {
    let lab = Lab::raise(topology);
    write(&lab, pools);
    let asks = pools.clone().map(|(name, _, key)| (format!("egret.dev/{key}"), format!("[\"{name}\"]")));
    let asks: Vec<(&str, &str)> = asks.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    lab.pod_object("gw/g", &[("egress-code", "red")], &asks, 1).unwrap();
    let gateway = lab.add_pod(1, "gw/g").unwrap();
    let clients = [lab.client(1, "c1"), lab.client(2, "c2")];
    for client in &clients {
        assert_eq!(lab.leaves_as_predicted(client), of_node_1(), "{}", client.name);
    }
    (lab, gateway, clients)
}

pub(crate) fn of_node_1() -> BTreeSet<IpAddr> {
    Family::BOTH.map(|family| node_address(1, family)).into()
}

fn reconcile(lab: &Lab, node: u8) {
    let list = lab.conflist_path(node).display().to_string();
    let output = lab.egret(node, &["reconcile", "--config", &list]).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// What a pod may send and nobody serves goes nowhere.
#[track_caller]
fn nothing_leaves(lab: &Lab, pod: &Pod) {
    let mut pod = pod.clone();
    pod.patience = Duration::from_millis(200);
    let capture = lab.capture().unwrap();
    for to in lab.destinations() {
        pod.udp(to).unwrap_err();
        pod.tcp(to).unwrap_err();
    }
    assert_eq!(capture.sources_of(&pod), BTreeMap::new(), "{}", pod.name);
}

/// The gateway's node forgets its connections, and the clients close them: the FIN of one that nobody knows shows nothing hidden.
fn forgotten_connections_end_unseen(lab: &Lab, clients: &[Pod]) {
    let outside = lab.outside(Outside::Near).netns().unwrap();
    let meetings: Vec<Meeting> = clients.iter().map(|client| Meeting::arrange(client, &outside)).collect();
    let capture = lab.capture().unwrap();
    lab.node(1).sh("conntrack -F").unwrap();
    let ends: Vec<_> = meetings.into_iter().flat_map(|meeting| meeting.client_ends(false)).collect();
    // The kernel sends a FIN again after 200 ms.
    std::thread::sleep(Duration::from_millis(300));
    let seen: BTreeSet<IpAddr> = capture
        .packets()
        .iter()
        .filter(|p| p.spot == Spot::Outside && p.protocol == 6)
        .map(|p| p.source)
        .collect();
    assert!(seen.is_subset(&of_node_1()), "{seen:?}");
    drop(ends);
}

/// The gateway's node hears first that the pool is gone, the client's node later. Then it comes again.
fn a_deleted_pool_shows_nobody_else(lab: &Lab, pools: &Pools, client: &Pod) {
    let capture = lab.capture().unwrap();
    pools.iter().for_each(|(name, ..)| lab.remove_object("EgressPool", None, name).unwrap());
    reconcile(lab, 1);
    for to in lab.destinations() {
        assert_eq!(client.udp(to).unwrap(), node_address(1, Family::of(to)));
    }
    let seen: BTreeSet<IpAddr> = capture.sources_of(client).into_keys().collect();
    assert_eq!(seen, of_node_1());
    reconcile(lab, 2);
    lab.is_held(client);
    write(lab, pools);
    lab.settle().unwrap();
    assert_eq!(lab.leaves_as_predicted(client), of_node_1());
}

/// A runtime took the path of the gateway's namespace away, and a process of the pod keeps the namespace alive, wired as it was.
#[test]
fn a_gateway_with_its_pods_own_address_serves_nobody_whom_its_node_does_not_know_any_more() {
    let pools = own();
    let (lab, gateway, clients) = raise(nodes(2), &pools);
    forgotten_connections_end_unseen(&lab, &clients);
    a_deleted_pool_shows_nobody_else(&lab, &pools, &clients[1]);

    let alive = Netns::open(gateway.place().path()).unwrap();
    lab.lose_pod(&gateway).unwrap();
    reconcile(&lab, 1);
    clients.iter().for_each(|client| nothing_leaves(&lab, client));
    drop(alive);
}

/// Its processes are gone, and what they left in their sockets is still sent: between our DEL and the primary's nothing of it leaves. What
/// the primary needs for its own DEL is there.
#[test]
fn a_client_that_ends_says_nothing_more() {
    let pools = leased();
    let (lab, _gateway, clients) = raise(Topology { masquerade: Masquerade::None, ..nodes(2) }, &pools);
    forgotten_connections_end_unseen(&lab, &clients);
    a_deleted_pool_shows_nobody_else(&lab, &pools, &clients[1]);

    let [ending, other] = &clients;
    let outside = lab.outside(Outside::Near).netns().unwrap();
    let meeting = Meeting::arrange(ending, &outside);
    let capture = lab.capture().unwrap();
    // The list's plugins go last to first: ours, and then libcni does not find the primary.
    let egret = lab.topology().egret.clone().unwrap();
    let mut command = lab.cnitool_command("del", ending).unwrap();
    let output = command.env("CNI_PATH", egret.parent().unwrap()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("failed to find plugin"), "{said}");
    let ends = meeting.client_ends(false);
    nothing_leaves(&lab, ending);
    let shown: Vec<_> =
        capture.packets().into_iter().filter(|p| ending.addresses.contains(&p.source)).collect();
    assert_eq!(shown, []);
    let inside = ending.place().sh("ip -o addr show dev eth0 scope global").unwrap();
    assert!(ending.addresses.iter().all(|ip| inside.contains(&ip.to_string())), "{inside}");
    assert_eq!(lab.leaves_as_predicted(other), of_node_1());
    lab.del_pod(ending).unwrap();
    drop(ends);
    let rules = lab.node(1).sh("nft list table inet egret").unwrap();
    assert!(ending.addresses.iter().all(|ip| !rules.contains(&format!("{ip} "))), "{rules}");
}
