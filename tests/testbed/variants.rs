//! Every primary, every masquerade, every family: pods reach the outside, and it sees what the variant promises.

use egret::addr::Family;
use egret::testbed::{Families, Masquerade, Pod, Primary, Topology, World, node_address};

use super::{one_pod_per_node, seen_outside};

/// What the outside must see of a pod.
fn promised(pod: &Pod, masquerade: Masquerade, family: Family) -> std::net::IpAddr {
    match masquerade {
        Masquerade::None => pod.address(family).unwrap(),
        _ => node_address(pod.node, family),
    }
}

/// Raises a world, checks all its pods in all its families, takes them down again.
fn raise_and_look(topology: Topology) {
    let (masquerade, families) = (topology.masquerade, topology.families);
    let world = World::raise(topology).unwrap();
    let capture = world.capture().unwrap();
    for pod in one_pod_per_node(&world) {
        for family in families.list() {
            let source = promised(&pod, masquerade, *family);
            assert_eq!(seen_outside(&pod, *family), source, "{masquerade:?}");
            assert!(capture.sources_of(&pod).contains_key(&source));
        }
        world.check_pod(&pod).unwrap();
        world.del_pod(&pod).unwrap();
        assert!(!pod.place().path().exists());
    }
    assert_eq!(world.pods().len(), 0);
    assert_eq!(capture.dropped(), 0);
}

#[test]
fn pods_of_three_nodes_are_seen_as_their_nodes() {
    raise_and_look(Topology::default());
}

#[test]
fn without_masquerade_pods_are_seen_as_themselves() {
    raise_and_look(Topology { masquerade: Masquerade::None, ..Topology::default() });
}

#[test]
fn each_masquerade_hides_pods() {
    for masquerade in [Masquerade::IpMasq, Masquerade::IptablesLegacy, Masquerade::Nft] {
        raise_and_look(Topology { nodes: 2, masquerade, ..Topology::default() });
    }
}

#[test]
fn each_primary_wires_pods() {
    for primary in [Primary::Ptp, Primary::BridgePortmap, Primary::BridgePortmapLast] {
        for masquerade in [Masquerade::None, Masquerade::IpMasq] {
            raise_and_look(Topology { nodes: 1, primary, masquerade, ..Topology::default() });
        }
    }
}

#[test]
fn each_family_stands_alone() {
    for families in [Families::V4, Families::V6] {
        raise_and_look(Topology { nodes: 2, families, ..Topology::default() });
    }
}

#[test]
fn loose_filters_and_no_bridge_netfilter_work_too() {
    raise_and_look(Topology {
        nodes: 1,
        strict_rp_filter: false,
        br_netfilter: false,
        ..Topology::default()
    });
}
