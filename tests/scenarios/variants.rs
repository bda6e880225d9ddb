//! The same story on every kind of node: primaries, masquerades, families, underlays, filters, marks.

use egret::addr::Family;
use egret::testbed::{Families, Masquerade, Primary, Topology};
use serde_json::json;

use crate::lab::{Lab, nodes};

/// A gateway, a client beside it and one on the other node, an unselected pod; and everything is as it should be.
fn tell(topology: Topology) {
    let lab = Lab::raise(topology);
    let gateway = lab.gateway(1, "g1");
    let clients = [lab.client(1, "c1"), lab.client(2, "c2")];
    let plain = lab.plain(1, "p1");
    let capture = lab.capture().unwrap();
    for client in &clients {
        let mut leases = lab.leases(&gateway);
        leases.retain(|ip| lab.topology().families.list().contains(&Family::of(*ip)));
        assert_eq!(lab.leaves_as_predicted(client), leases.into_iter().collect());
    }
    lab.leaves_as_before(&plain);
    capture.assert_clean(&[&clients[0], &clients[1]]);
    lab.del_pod(&clients[0]).unwrap();
    lab.del_pod(&gateway).unwrap();
    lab.is_held(&clients[1]);
}

#[test]
fn nobody_masquerades() {
    tell(Topology { masquerade: Masquerade::None, ..nodes(2) });
}

#[test]
fn the_primary_masquerades() {
    tell(Topology { masquerade: Masquerade::IpMasq, ..nodes(2) });
}

#[test]
fn iptables_legacy_masquerades() {
    tell(Topology { masquerade: Masquerade::IptablesLegacy, ..nodes(2) });
}

#[test]
fn nft_masquerades() {
    tell(Topology { masquerade: Masquerade::Nft, ..nodes(2) });
}

#[test]
fn ptp_is_the_primary() {
    tell(Topology { primary: Primary::Ptp, masquerade: Masquerade::IpMasq, ..nodes(2) });
}

#[test]
fn portmap_stands_before_egret() {
    tell(Topology { primary: Primary::BridgePortmap, ..nodes(2) });
}

#[test]
fn portmap_stands_behind_egret() {
    tell(Topology { primary: Primary::BridgePortmapLast, ..nodes(2) });
}

/// C10: the primary gives IPv4 alone.
#[test]
fn c10_a14_pods_have_ipv4_only() {
    tell(Topology { families: Families::V4, ..nodes(2) });
}

/// C10: the primary gives IPv6 alone.
#[test]
fn c10_a15_pods_have_ipv6_only() {
    tell(Topology { families: Families::V6, ..nodes(2) });
}

#[test]
fn the_underlay_is_ipv6() {
    tell(Topology { underlay: Family::V6, ..nodes(2) });
}

#[test]
fn bridged_packets_skip_netfilter_and_filters_are_loose() {
    tell(Topology { br_netfilter: false, strict_rp_filter: false, ..nodes(2) });
}

#[test]
fn the_mark_mask_is_moved() {
    let mut topology = nodes(2);
    topology.egret_keys.insert("markMask".to_owned(), json!(0x7f00_0000_u32));
    tell(topology);
}
