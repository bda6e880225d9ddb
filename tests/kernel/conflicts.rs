//! Overlaps with others are found, and named so that one can act on them.

use egret::kernel::{Place, Saved, conflicts, lacks};

use crate::roundtrip::full_node;
use crate::world::*;

#[test]
fn an_untouched_node_has_none_and_neither_has_a_wired_one() {
    let node = node();
    let place = Place::node(&node);
    assert_eq!(conflicts(&place, &scope(), 0x7f, ("ours0", 4790)).unwrap(), Vec::<String>::new());
    settle(&place, &full_node(), &mut Saved::new());
    assert_eq!(conflicts(&place, &scope(), 0x7f, ("ours0", 4790)).unwrap(), Vec::<String>::new());
    assert_eq!(lacks(&node), Vec::<String>::new(), "these tests need Linux 5.19 and nftables 1.0.1");
    assert!(!sh("nft list tables").contains("egret-probe"), "the probe left its table behind");
}

#[test]
fn each_overlap_says_who_and_what_to_do() {
    let node = node();
    let place = Place::node(&node);
    for command in [
        "ip rule add pref 720 from 10.60.0.0/16 lookup 4242",
        "ip -6 rule add pref 52 fwmark 0x10/0xff lookup 52 protocol bgp",
        "ip rule add pref 53 fwmark 0x10000/0xff0000 lookup 52",
        "ip nexthop add id 479900 via 172.30.0.8 dev up0",
        "ip link add flannel.1 type vxlan id 1 dstport 4790 local 172.30.0.1 nolearning",
        "ip link add ours0 type bridge",
    ] {
        sh(command);
    }
    assert_eq!(
        conflicts(&place, &scope(), 0x7f, ("ours0", 4790)).unwrap(),
        [
            "IPv4 policy rule 720 (no protocol number: made by hand, or by a program that gives none) stands at one of Egret's \
             priorities; move it to another (`ip rule`)",
            "IPv6 policy rule 52 (protocol 186: bgp) looks at packet mark 0x10/0xff, which overlaps Egret's bits 0x7f; set \
             `markMask` to seven adjacent bits that nobody uses",
            "nexthop object 479900 (no protocol number: made by hand, or by a program that gives none) lies among Egret's ids 479000 to 479999; its owner must use others",
            "VXLAN device flannel.1 (VNI 1) uses UDP port 4790, Egret's tunnel port; set `underlay.port` to a free one, equal \
             on all nodes",
            "device ours0 is not Egret's (link group 0, not 4097), and Egret needs the name; remove it, or give it another \
             (`ip link set ours0 name …`)",
        ]
    );
}
