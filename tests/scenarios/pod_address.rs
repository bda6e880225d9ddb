//! Pools with `source: PodAddress`: clients leave with the address that the gateway's pod has of its primary, which also routes the
//! answers. The router of these worlds knows the way to pod networks, as it does wherever a primary announces them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use egret::addr::Family;
use egret::testbed::{Masquerade, Outside, Pod, Primary, Topology, node_address, pod_networks};

use crate::lab::{Lab, nodes};

/// Namespace `gw` may have gateways with addresses of their own, and `shop` uses them.
fn raise(topology: Topology) -> Lab {
    let lab = Lab::raise(topology);
    lab.own_address_pools().unwrap();
    lab
}

fn gateway(lab: &Lab, node: u8, name: &str, pools: &[(&str, &str)]) -> Pod {
    lab.pod_object(name, &[("egress-code", "red")], pools, node).unwrap();
    lab.add_pod(node, name).unwrap()
}

const OWN: [(&str, &str); 2] = [("egret.dev/ipv4pools", "[\"own\"]"), ("egret.dev/ipv6pools", "[\"own6\"]")];

fn own(gateway: &Pod) -> BTreeSet<IpAddr> {
    Family::BOTH.iter().map(|family| gateway.address(*family).unwrap()).collect()
}

#[test]
fn clients_here_and_elsewhere_leave_with_the_gateways_own_address_behind_every_masquerade() {
    for (primary, masquerade) in [
        (Primary::Bridge, Masquerade::IptablesNft),
        (Primary::Bridge, Masquerade::IpMasq),
        (Primary::Ptp, Masquerade::Nft),
        (Primary::Ptp, Masquerade::None),
    ] {
        let lab = raise(Topology { primary, masquerade, ..nodes(2) });
        let gateway = gateway(&lab, 1, "gw/g", &OWN);
        let clients = [lab.client(1, "c1"), lab.client(2, "c2")];
        let capture = lab.capture().unwrap();
        for client in &clients {
            assert_eq!(
                lab.leaves_as_predicted(client),
                own(&gateway),
                "{} {primary:?} {masquerade:?}",
                client.name
            );
            let saw: BTreeSet<IpAddr> = capture.sources_of(client).into_keys().collect();
            assert_eq!(saw, own(&gateway), "{}, {primary:?} {masquerade:?}", client.name);
            lab.check_pod(client).unwrap();
        }
        lab.check_pod(&gateway).unwrap();
        lab.leaves_as_before(&lab.plain(1, "p"));
        assert_eq!(lab.reasons(1), [""; 0]);
    }
}

#[test]
fn nothing_is_leased_or_announced_and_everybody_says_whose_address_it_is() {
    let lab = raise(nodes(2));
    let gateway = gateway(&lab, 1, "gw/g", &OWN);
    assert_eq!(lab.leases(&gateway).into_iter().collect::<BTreeSet<_>>(), own(&gateway));
    let said = lab.json(1, &["explain", "gw/g"])["notes"].to_string();
    assert!(said.contains("own, the pod's own address"), "{said}");
    let books = lab.json(1, &["ipam", "show"]);
    assert_eq!(books["items"].as_array().map(Vec::len), Some(0), "{books}");
    let pools = books["pools"].as_array().unwrap();
    assert!(pools.iter().any(|pool| pool["name"] == "own" && pool["source"] == "PodAddress"), "{books}");
    let status = lab.json(1, &["status"]).to_string();
    assert!(status.contains("the primary network routes it: it is the pod's own address"), "{status}");
    let proxies = "for f in -4 -6; do ip $f neigh show proxy; done";
    assert_eq!(lab.node(1).sh(proxies).unwrap().trim(), "");

    // What the gateway itself sends and offers is as on any pod, and what it offers to the cluster, too.
    let client = lab.client(2, "c");
    lab.leaves_as_predicted(&client);
    for to in lab.destinations() {
        assert_eq!(gateway.tcp(to).unwrap(), gateway.address(Family::of(to)).unwrap());
    }
}

#[test]
fn one_family_leased_and_one_its_own() {
    let lab = raise(nodes(2));
    let pools = [("egret.dev/ipv4pools", "[\"own\"]"), ("egret.dev/ipv6pools", "[\"red6\"]")];
    let gateway = gateway(&lab, 1, "gw/g", &pools);
    let lease = lab.lease(&gateway, Family::V6);
    let expected = BTreeSet::from([gateway.address(Family::V4).unwrap(), lease]);
    for (node, name) in [(1, "c1"), (2, "c2")] {
        assert_eq!(lab.leaves_as_predicted(&lab.client(node, name)), expected, "{name}");
    }
}

#[test]
fn a_pod_whose_address_lies_elsewhere_does_not_start_as_a_gateway() {
    let lab = raise(nodes(1));
    lab.object(
        "{apiVersion: egret.dev/v1alpha1, kind: EgressPool, metadata: {name: far}, spec: {cidr: 10.99.0.0/24, source: PodAddress, \
         gatewayNamespaces: all(), clientNamespaces: all()}}",
    )
    .unwrap();
    lab.pod_object("gw/g", &[("egress-code", "red")], &[("egret.dev/ipv4pools", "[\"far\"]")], 1).unwrap();
    let error = lab.add_pod(1, "gw/g").unwrap_err().to_string();
    assert!(error.contains("must have an address of pool `far` (10.99.0.0/24)"), "{error}");
}

/// Where the pool hides its gateways, the outside sees the node, although no masquerade of the primary does it.
#[test]
fn with_nat_outgoing_the_outside_sees_the_gateways_node() {
    let lab = raise(Topology { masquerade: Masquerade::None, ..nodes(2) });
    lab.object(&format!(
        "{{apiVersion: egret.dev/v1alpha1, kind: EgressPool, metadata: {{name: own}}, spec: {{cidr: '{}', source: PodAddress, \
         natOutgoing: true, gatewayNamespaces: all(), clientNamespaces: all()}}}}",
        pod_networks(Family::V4)
    ))
    .unwrap();
    let gateway = gateway(&lab, 1, "gw/g", &OWN);
    let expected = BTreeSet::from([node_address(1, Family::V4), gateway.address(Family::V6).unwrap()]);
    for (node, name) in [(1, "c1"), (2, "c2")] {
        assert_eq!(lab.leaves_as_predicted(&lab.client(node, name)), expected, "{name}");
    }
}

/// The gateway goes: its flows are told, and clients are held, never let out by another address.
#[test]
fn a_gateway_that_goes_holds_its_clients() {
    let lab = raise(nodes(2));
    let gateway = gateway(&lab, 1, "gw/g", &OWN);
    let clients = [lab.client(1, "c1"), lab.client(2, "c2")];
    let mut flows: Vec<_> = clients
        .iter()
        .flat_map(|client| Family::BOTH.map(|family| client.tcp_flow(Outside::Near.address(family)).unwrap()))
        .collect();
    for flow in &mut flows {
        flow.ask();
    }
    let capture = lab.capture().unwrap();
    let before = own(&gateway);
    lab.del_pod(&gateway).unwrap();
    for client in &clients {
        lab.is_held(client);
        let saw: BTreeSet<IpAddr> = capture.sources_of(client).into_keys().collect();
        // A flow's last word may have left before the gateway went.
        assert!(saw.is_subset(&before), "{}: {saw:?}", client.name);
    }
}

/// Between our DEL and the end of the pod's namespace stand the primary's DEL and the runtime. Clients of other nodes, which have not
/// heard of it yet, still send to the gateway meanwhile, and no rule of its node keeps the primary's masquerade away any more.
#[test]
fn a_gateway_that_goes_is_closed_before_its_namespace_ends() {
    let lab = raise(nodes(2));
    let gateway = gateway(&lab, 1, "gw/g", &OWN);
    let mut clients = [lab.client(1, "c1"), lab.client(2, "c2")];
    clients.iter().for_each(|client| drop(lab.leaves_as_predicted(client)));
    let capture = lab.capture().unwrap();

    // The list's plugins go last to first: ours, and then libcni does not find the primary.
    let egret = lab.topology().egret.clone().unwrap();
    let mut command = lab.cnitool_command("del", &gateway).unwrap();
    let output = command.env("CNI_PATH", egret.parent().unwrap()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("failed to find plugin"), "{said}");
    // The namespace lives, and so does its primary's wiring.
    for to in lab.destinations() {
        gateway.udp(to).unwrap();
    }

    for client in &mut clients {
        client.patience = Duration::from_millis(200);
        for to in lab.destinations() {
            client.udp(to).unwrap_err();
            client.tcp(to).unwrap_err();
        }
        assert_eq!(capture.sources_of(client), BTreeMap::new(), "{}", client.name);
    }
}
