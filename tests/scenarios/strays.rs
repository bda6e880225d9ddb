//! Packets of clients that belong to no flow of theirs, by every kind of gateway: no NAT rule sees them, and yet none shows the pod.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

use egret::addr::Family;
use egret::testbed::{
    Capture, Masquerade, Outside, Packet, Place, Pod, Spot, Topology, node_address, within,
};

use crate::lab::{Lab, kind, nodes};
use crate::node_gateways::{WHOLE, pod, policy, topology};
use crate::windows::{leased, of_node_1, own, raise};

/// What makes them.
const MAKER: &str = include_str!("strays.py");
const PATIENCE: Duration = Duration::from_secs(120);
const LOOK: Duration = Duration::from_millis(10);
/// How many kinds there are in each family, and at least so many leave as they are where nobody selects who sends them.
const KINDS: usize = 90;
const PASS: usize = 60;

fn make(at: &Place, words: &[String]) -> String {
    let words: Vec<String> = ["-".to_owned()].into_iter().chain(words.iter().cloned()).collect();
    at.feed("python3", &words, MAKER).unwrap().trim().to_owned()
}

/// Each sends one of each kind to each place outside, and then what shows that it was heard.
#[track_caller]
fn send_all(lab: &Lab, clients: &[Pod]) -> Capture {
    let capture = lab.capture().unwrap();
    for client in clients {
        for to in lab.destinations() {
            let words = ["strays".to_owned(), to.to_string(), client.port().to_string()];
            let sent: usize = make(client.place(), &words).parse().unwrap();
            assert!(sent >= KINDS, "{} sent {sent} packets to {to}", client.name);
        }
    }
    // Pieces that nobody completes are kept for a while; what was sent again, and answers to it, too.
    std::thread::sleep(Duration::from_millis(300));
    clients.iter().for_each(|client| drop(lab.leaves_as_predicted(client)));
    capture
}

/// The same from a pod that nothing selects shows it: nobody else takes them on the way.
#[track_caller]
fn shows_itself(lab: &Lab, pod: &Pod) {
    let capture = lab.capture().unwrap();
    for to in Family::BOTH.map(|family| Outside::Near.address(family)) {
        make(pod.place(), &["strays".to_owned(), to.to_string(), pod.port().to_string()]);
        let own = pod.address(Family::of(to)).unwrap();
        let shown = || capture.packets().iter().filter(|p| p.spot == Spot::Router && p.source == own).count();
        assert!(within(PATIENCE, LOOK, || shown() >= PASS).is_some(), "{own}: {}", shown());
    }
}

#[track_caller]
fn shows_none(lab: &Lab, clients: &[Pod]) {
    let capture = send_all(lab, clients);
    let all: Vec<&Pod> = clients.iter().collect();
    capture.assert_clean(&all);
}

#[test]
fn strays_by_gateway_pods_show_no_pod() {
    for masquerade in [Masquerade::None, Masquerade::IptablesNft] {
        let lab = Lab::raise(Topology { masquerade, strict_rp_filter: false, ..nodes(2) });
        lab.gateway(1, "g1");
        if masquerade == Masquerade::None {
            shows_itself(&lab, &lab.plain(2, "p1"));
        }
        shows_none(&lab, &[lab.client(1, "c1"), lab.client(2, "c2")]);
    }
}

#[test]
fn strays_by_a_node_gateway_show_no_pod() {
    for masquerade in [Masquerade::None, Masquerade::IptablesNft] {
        let lab = Lab::raise(Topology { masquerade, strict_rp_filter: false, ..topology(2) });
        policy(&lab, "by-eth1", "shop", WHOLE, &[(2, "interface: eth1")]);
        shows_none(&lab, &[pod(&lab, 1, "c1", "shop"), pod(&lab, 2, "c2", "shop")]);
    }
}

/// Of these pools the outside sees the node, by its own NAT rules, whatever the primary masquerades.
#[test]
fn strays_by_gateways_that_their_node_hides_show_neither_pod_nor_gateway() {
    for (masquerade, pools) in [(Masquerade::None, leased()), (Masquerade::IptablesNft, own())] {
        let world = Topology { masquerade, strict_rp_filter: false, ..nodes(2) };
        let (lab, gateway, clients) = raise(world, &pools);
        let capture = send_all(&lab, &clients);
        let hidden: BTreeSet<IpAddr> = [
            lab.leases(&gateway),
            gateway.addresses.clone(),
            clients.iter().flat_map(|c| c.addresses.clone()).collect(),
        ]
        .concat()
        .into_iter()
        .collect();
        let shown: Vec<Packet> =
            capture.packets().into_iter().filter(|p| hidden.contains(&p.source)).collect();
        assert_eq!((shown, capture.dropped()), (vec![], 0));
        let seen: BTreeSet<IpAddr> = capture.sources_of(&clients[1]).into_keys().collect();
        assert_eq!(seen, of_node_1());
    }
}

/// Where no client listens.
const NOBODYS: u16 = 4444;

/// What a segment of no connection is answered with: letters of TCP flags.
fn answer(at: &Place, to: IpAddr, port: u16, own: u16) -> String {
    make(at, &["ack".to_owned(), to.to_string(), port.to_string(), own.to_string()])
}

/// The far end of a connection that nobody remembers speaks, and to conntrack that is the beginning of a flow that it opens. The reset is
/// no reply: it would show the pod. Whoever may know the pod gets it, and who does not know it either, behind a Service.
#[test]
fn the_reset_of_a_connection_that_nobody_remembers_is_no_reply() {
    let lab = Lab::raise(Topology { masquerade: Masquerade::None, ..nodes(2) });
    lab.gateway(1, "g1");
    let (clients, plain) = ([lab.client(1, "c1"), lab.client(2, "c2")], lab.plain(1, "p1"));
    let outside = lab.outside(Outside::Near);
    for (client, family) in clients.iter().flat_map(|client| Family::BOTH.map(|family| (client, family))) {
        let (own, word) = (client.address(family).unwrap(), if family == Family::V4 { "ip" } else { "ip6" });
        assert_eq!(answer(&outside, own, NOBODYS, 40000), "-", "{own}");
        assert_eq!(answer(plain.place(), own, NOBODYS, 40001), "R", "{own}");
        let to = SocketAddr::new(own, NOBODYS);
        let refused = outside.netns().unwrap().run(|| TcpStream::connect_timeout(&to, PATIENCE));
        assert_eq!(kind(refused.unwrap()), ErrorKind::ConnectionRefused, "{own}");
        let service = format!(
            "table {word} services {{ chain pre {{ type nat hook prerouting priority dstnat; tcp dport 30080 dnat to {to}; }}; }}"
        );
        lab.node(client.node).feed("nft", &["-f", "-"], &service).unwrap();
        assert_eq!(answer(&outside, node_address(client.node, family), 30080, 40002), "R", "{own}");
    }
    for family in Family::BOTH {
        assert_eq!(answer(&outside, plain.address(family).unwrap(), NOBODYS, 40000), "R");
    }
    clients.iter().for_each(|client| drop(lab.leaves_as_predicted(client)));
}
