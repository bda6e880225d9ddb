//! The faults: what goes wrong, what would leak, and which belts keep it in.
//!
//! In: a lab with traffic. Out: a fault done to it. Each line is shown by `matrix`; `docs/belts.md` is the same table for people.

use std::time::Duration;

use egret::addr::Family;
use egret::testbed::{Capture, Packet, node_address, second_address};

use crate::cheats::{borrowed, forged, leased, reply_by_tunnel, thefts, untracked};
use crate::lab::{Lab, forget};
use crate::traffic::{Meeting, Sender, Storm};

/// One line of the matrix.
pub(crate) struct Fault {
    /// What goes wrong.
    pub(crate) name: &'static str,
    /// Belts that cover it, each of them alone.
    pub(crate) covered_by: &'static [&'static str],
    /// Does it, with traffic. Gives the harm done that is not a forbidden source: an impostor's packets, broken connections.
    pub(crate) strike: fn(&Lab, &mut [Sender], &Capture) -> usize,
}

fn rounds(senders: &mut [Sender], n: usize) {
    for _ in 0..n {
        senders.iter_mut().for_each(Sender::lively_round);
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn on_nodes(lab: &Lab, line: &str) {
    for place in lab.nodes() {
        place.sh(line).unwrap();
    }
}

fn in_gateway(lab: &Lab, line: &str) {
    lab.gateway.place().sh(line).unwrap();
}

/// Every table of ours, whatever its number.
const EMPTY_TABLES: &str = "for f in -4 -6; do ip $f route show table all | \
    sed -n 's/^\\(unreachable \\)\\?\\(default\\).* table \\(479[0-9]*\\).*/\\1\\2 table \\3/p' | \
    while read r; do ip $f route del $r || true; done; done";

/// Long connections of clients that are let go end after that.
fn unbound_then_ended(lab: &Lab, _: &mut [Sender], capture: &Capture) -> usize {
    let ends = [(); 2].map(|()| lab.meetings());
    capture.restart();
    lab.bind(false);
    let ends = ends.into_iter().zip([false, true]);
    let ends: Vec<_> = ends
        .flat_map(|(meetings, abruptly)| meetings.into_iter().flat_map(move |m| m.client_ends(abruptly)))
        .collect();
    std::thread::sleep(Duration::from_millis(60));
    let own = capture.packets().iter().filter(|p| lab.is_clients(p.source)).count();
    drop(ends);
    lab.bind(true);
    capture.restart();
    lab.clients.iter().for_each(|pod| Sender::open(pod).round());
    own
}

/// All of them, where a pod is the gateway.
pub(crate) const FAULTS: &[Fault] = &[
    Fault {
        name: "the rules of sets, tunnel and local gateways are deleted",
        covered_by: &["last-rule", "forward"],
        strike: |lab, senders, _| {
            on_nodes(
                lab,
                "for f in -4 -6; do for p in 700 710 720; do while ip $f rule del pref $p 2>/dev/null; do :; done; done; done",
            );
            rounds(senders, 3);
            0
        },
    },
    Fault {
        name: "our tables are emptied, unreachable routes included",
        covered_by: &["last-rule", "forward"],
        strike: |lab, senders, _| {
            on_nodes(lab, EMPTY_TABLES);
            rounds(senders, 3);
            0
        },
    },
    Fault {
        name: "the nexthops are deleted",
        covered_by: &["unreachable-routes", "last-rule", "forward"],
        strike: |lab, senders, _| {
            on_nodes(lab, "ip nexthop flush");
            rounds(senders, 3);
            0
        },
    },
    Fault {
        name: "tunnel and gateway's veth go down on the node",
        covered_by: &["unreachable-routes", "last-rule", "forward"],
        strike: |lab, senders, _| {
            on_nodes(
                lab,
                "for d in $(ip -o link show group 4097 | sed 's/^[0-9]*: \\([^:@]*\\).*/\\1/'); do ip link set $d down; done",
            );
            rounds(senders, 3);
            0
        },
    },
    Fault {
        name: "tunnel and gateway's veth are deleted",
        covered_by: &["unreachable-routes", "last-rule", "forward"],
        strike: |lab, senders, _| {
            on_nodes(
                lab,
                "for d in $(ip -o link show group 4097 | sed 's/^[0-9]*: \\([^:@]*\\).*/\\1/'); do ip link del $d; done",
            );
            rounds(senders, 3);
            0
        },
    },
    Fault {
        name: "egress0 goes down in the gateway",
        covered_by: &["gateway-routes", "gateway-forward"],
        strike: |lab, senders, _| {
            in_gateway(lab, "ip link set egress0 down");
            rounds(senders, 3);
            0
        },
    },
    Fault {
        name: "the rules are deleted in the gateway",
        covered_by: &["gateway-forward"],
        strike: |lab, senders, _| {
            in_gateway(
                lab,
                "for f in -4 -6; do for p in 700 701 702 703 704; do while ip $f rule del pref $p 2>/dev/null; do :; done; done; done",
            );
            rounds(senders, 3);
            0
        },
    },
    Fault {
        name: "the SNAT rules are lost in the gateway",
        covered_by: &["source", "from-us"],
        strike: |lab, senders, _| {
            in_gateway(lab, "nft flush chain inet egret srcnat");
            rounds(senders, 3);
            0
        },
    },
    Fault {
        name: "conntrack of the client's node is flushed, then the server speaks first",
        covered_by: &["from-us"],
        strike: |lab, _, _| {
            let mut meetings = lab.meetings();
            on_nodes(lab, "conntrack -F 2>/dev/null");
            meetings.iter_mut().for_each(Meeting::server_speaks_first);
            drop(meetings);
            0
        },
    },
    Fault {
        name: "conntrack of the gateway is flushed, then the client's FIN",
        covered_by: &["gateway-invalid", "source", "from-us"],
        strike: |lab, _, _| {
            let meetings = lab.meetings();
            forget(lab.gateway.place());
            let far: Vec<_> = meetings.into_iter().map(|m| m.client_ends(false)).collect();
            std::thread::sleep(Duration::from_millis(60));
            drop(far);
            0
        },
    },
    Fault {
        name: "conntrack of the gateway is flushed, then the server speaks first: its connections are reset",
        covered_by: &["gateway-input"],
        strike: |lab, _, _| {
            let mut meetings = lab.meetings();
            forget(lab.gateway.place());
            meetings.iter_mut().for_each(Meeting::server_speaks_first);
            meetings.iter_mut().map(Meeting::broken).sum()
        },
    },
    Fault {
        name: "another pod of the node uses a client's address: it would leave with the lease",
        covered_by: &["spoof"],
        strike: |lab, _, capture| {
            for family in Family::BOTH {
                borrowed(&lab.thief, lab.clients[1].address(family).unwrap());
            }
            thefts(lab, &lab.thief, capture)
        },
    },
    Fault {
        name: "another pod of the gateway's node uses the lease",
        covered_by: &["spoof"],
        strike: |lab, _, capture| leased(lab, &lab.neighbour, capture),
    },
    Fault {
        name: "a pod forges tunnel traffic: it would leave with the lease",
        covered_by: &["guard"],
        strike: |lab, _, capture| forged(lab, &lab.thief, node_address(1, Family::V4), capture),
    },
    Fault {
        name: "a pod forges tunnel traffic to an address of the gateway's node that no Node object names",
        covered_by: &["guard"],
        strike: |lab, _, capture| {
            let second = [172, 30, 77, 1].into();
            let way = format!("ip route add {second} via {}", node_address(1, Family::V4));
            lab.node(1).sh(&format!("ip address add {second}/32 dev lo")).unwrap();
            lab.node(2).sh(&way).unwrap();
            let thefts = forged(lab, &lab.thief, second, capture);
            lab.node(2).sh(&way.replace("add", "del")).unwrap();
            lab.node(1).sh(&format!("ip address del {second}/32 dev lo")).unwrap();
            thefts
        },
    },
    Fault {
        name: "a pod of the gateway's node forges tunnel traffic of another node",
        covered_by: &["guard"],
        strike: |lab, _, capture| {
            // What its packets carry as their source; only who may make raw packets can do that.
            let other = node_address(2, Family::V4);
            lab.neighbour.place().sh(&format!("ip address add {other}/32 dev lo")).unwrap();
            let thefts = forged(lab, &lab.neighbour, node_address(1, Family::V4), capture);
            lab.neighbour.place().sh(&format!("ip address del {other}/32 dev lo")).unwrap();
            thefts
        },
    },
    Fault {
        name: "a node sends a reply by the tunnel: it would get the replies of another node's client",
        covered_by: &["gateway-replies"],
        strike: |lab, _, _| reply_by_tunnel(lab),
    },
    Fault {
        name: "clients are unbound, then they end their connections",
        covered_by: &["invalid"],
        strike: unbound_then_ended,
    },
    Fault {
        name: "clients are unbound while they send",
        covered_by: &["hold"],
        strike: |lab, _, capture| {
            let storm = Storm::start(&lab.clients);
            std::thread::sleep(Duration::from_millis(30));
            capture.restart();
            lab.bind(false);
            std::thread::sleep(Duration::from_millis(30));
            drop(storm);
            // From here on the clients may show their node, but never themselves: an entry without the primary's masquerade.
            let is_own = |p: &&Packet| lab.is_clients(p.source);
            let own = capture.packets().iter().filter(is_own).count();
            lab.bind(true);
            capture.restart();
            lab.clients.iter().for_each(|pod| Sender::open(pod).round());
            own
        },
    },
];

/// Faults of a node that is a gateway itself.
pub(crate) const EXIT_FAULTS: &[Fault] = &[
    Fault {
        name: "the rules are deleted where the node is the gateway",
        covered_by: &["last-rule", "forward", "exit-source"],
        strike: |lab, senders, _| {
            let rules = "for f in -4 -6; do for p in 700 710 720; do while ip $f rule del pref $p 2>/dev/null; do :; done; done; done";
            lab.node(2).sh(rules).unwrap();
            rounds(senders, 3);
            0
        },
    },
    Fault {
        name: "the interface that it leaves by goes down",
        covered_by: &["unreachable-routes", "last-rule", "forward", "exit-source"],
        strike: |lab, senders, _| {
            lab.node(2).sh("ip link set eth1 down").unwrap();
            rounds(senders, 3);
            let [v4, v6] = Family::BOTH.map(|family| (second_address(2, family), lab.lease(family)));
            let up = format!(
                "ip link set eth1 up; ip -6 address replace {}/64 dev eth1 nodad; ip -6 address replace {}/64 dev eth1 nodad preferred_lft 0\n\
                 ip route replace default via 172.31.2.254 dev eth1 table 100; ip -6 route replace default via fd00:172:31:2::254 dev eth1 table 100\n\
                 ip address show dev eth1 | grep -q {} && ip address show dev eth1 | grep -q {}",
                v6.0, v6.1, v4.0, v4.1
            );
            lab.node(2).sh(&up).unwrap();
            0
        },
    },
    Fault {
        name: "its SNAT rules are lost",
        covered_by: &["exit-source"],
        strike: |lab, senders, _| {
            lab.node(2).sh("nft flush chain inet egret srcnat").unwrap();
            rounds(senders, 3);
            0
        },
    },
    Fault {
        name: "its conntrack is flushed, then the client's FIN",
        covered_by: &["invalid", "forward"],
        strike: |lab, _, _| {
            let meetings = lab.meetings();
            forget(&lab.node(2));
            let far: Vec<_> = meetings.into_iter().map(|m| m.client_ends(false)).collect();
            std::thread::sleep(Duration::from_millis(60));
            drop(far);
            0
        },
    },
    Fault {
        name: "clients send what conntrack does not track, where the node is the gateway",
        covered_by: &["invalid", "forward"],
        strike: untracked,
    },
    Fault {
        name: "clients are unbound, then they end their connections to it",
        covered_by: &["invalid"],
        strike: unbound_then_ended,
    },
];

/// Faults that leak nothing even without these belts, where one would expect them to be needed.
pub(crate) const HARMLESS: &[Fault] = &[
    Fault {
        name: "conntrack is flushed everywhere, then the client's FIN",
        covered_by: &["invalid", "gateway-invalid", "source", "from-us"],
        strike: |lab, _, _| {
            let meetings = lab.meetings();
            lab.forget_all();
            let far: Vec<_> = meetings.into_iter().map(|m| m.client_ends(false)).collect();
            std::thread::sleep(Duration::from_millis(60));
            drop(far);
            0
        },
    },
    Fault {
        name: "conntrack of client's node and gateway is flushed, then the server speaks first",
        covered_by: &["gateway-replies", "gateway-input"],
        strike: |lab, _, _| {
            let mut meetings = lab.meetings();
            lab.forget_all();
            meetings.iter_mut().for_each(Meeting::server_speaks_first);
            drop(meetings);
            0
        },
    },
    Fault {
        name: "clients send what conntrack does not track",
        covered_by: &["invalid", "gateway-invalid", "source", "from-us"],
        strike: untracked,
    },
    Fault {
        name: "clients are bound while they send",
        covered_by: &["hold"],
        strike: |lab, _, capture| {
            lab.bind(false);
            let storm = Storm::start(&lab.clients);
            std::thread::sleep(Duration::from_millis(30));
            lab.bind(true);
            capture.restart();
            std::thread::sleep(Duration::from_millis(30));
            drop(storm);
            0
        },
    },
];
