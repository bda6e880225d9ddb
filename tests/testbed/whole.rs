//! The world with Egret in its lists: the smoke of the whole, and that the judge agrees.

use egret::addr::Family;
use egret::testbed::{Leak, Outside, Topology, World};

/// Pools of both families, and a gateway that wants them, on this node.
fn gateway_on(world: &World, node: u8) -> egret::testbed::Pod {
    for (name, cidr) in [("blue", "10.10.10.0/31"), ("blue6", "'fd00:10:10::10/127'")] {
        let spec = format!("{{cidr: {cidr}, gatewayNamespaces: all(), clientNamespaces: all()}}");
        let kind = "apiVersion: egret.dev/v1alpha1, kind: EgressPool";
        world.object(&format!("{{{kind}, metadata: {{name: {name}}}, spec: {spec}}}")).unwrap();
    }
    world.namespace("shop", &[], &[]).unwrap();
    let pools = [
        ("cni.projectcalico.org/ipv4pools", "[\"blue\"]"),
        ("cni.projectcalico.org/ipv6pools", "[\"blue6\"]"),
    ];
    world.pod_object("shop/gateway", &[("app", "gateway")], &pools, node).unwrap();
    world.add_pod(node, "shop/gateway").unwrap()
}

#[test]
fn a_selected_pod_leaves_with_its_gateways_lease_and_an_unselected_one_as_its_node() {
    let egret = Some(env!("CARGO_BIN_EXE_egret").into());
    let world = World::raise(Topology { egret, ..Topology::default() }).unwrap();
    let gateway = gateway_on(&world, 2);
    let select = [("egress.projectcalico.org/selector", "app == 'gateway'")];
    let clients = [1, 2].map(|node| {
        let name = format!("shop/client{node}");
        world.pod_object(&name, &[], &select, node).unwrap();
        world.add_pod(node, &name).unwrap()
    });
    let other = world.add_pod(1, "shop/other").unwrap();

    let capture = world.capture().unwrap();
    for family in Family::BOTH {
        let lease = |ip: std::net::IpAddr| {
            ip.to_string().starts_with(["10.10.10.", "fd00:10:10::"][usize::from(ip.is_ipv6())])
        };
        for client in &clients {
            assert!(lease(super::seen_outside(client, family)));
        }
        assert_eq!(super::seen_outside(&other, family), egret::testbed::node_address(1, family));
    }
    capture.assert_clean(&[&clients[0], &clients[1]]);
    assert!(matches!(capture.verdict(&[&other]), Err(Leak::Forbidden(..))), "the judge can say no");

    world.del_pod(&gateway).unwrap();
    capture.restart();
    assert!(clients[0].tcp(Outside::Near.address(Family::V4)).is_err(), "its last gateway is gone: held");
    assert!(matches!(capture.verdict(&[&clients[0]]), Err(Leak::Unheard(_))));
}
