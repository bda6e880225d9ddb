//! Several gateways: new flows spread, live ones stay, and each end of a gateway is told to exactly its own flows.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use egret::addr::Family;
use egret::testbed::{Answer, Flow, Outside, Pod};

use crate::lab::{Lab, nodes};

/// Flows with the source that the outside saw at their start.
struct Held(Vec<(IpAddr, Flow)>);

impl Held {
    fn open(pod: &Pod, count: usize, tcp: bool) -> Held {
        let mut flows = Vec::new();
        for family in Family::BOTH {
            let to = Outside::Near.address(family);
            for _ in 0..count {
                let mut flow = if tcp { pod.tcp_flow(to) } else { pod.udp_flow(to) }.unwrap();
                let Answer::From(source) = flow.ask() else { panic!("{} to {to}", pod.name) };
                flows.push((source, flow));
            }
        }
        Held(flows)
    }

    fn sources(&self) -> BTreeSet<IpAddr> {
        self.0.iter().map(|(source, _)| *source).collect()
    }

    /// Every flow answers with the source it began with.
    #[track_caller]
    fn stay(&mut self) {
        for (source, flow) in &mut self.0 {
            assert_eq!(flow.ask(), Answer::From(*source));
        }
    }
}

fn spread(pod: &Pod, count: usize) -> BTreeMap<IpAddr, usize> {
    let mut seen = BTreeMap::new();
    for family in Family::BOTH {
        for _ in 0..count {
            *seen.entry(pod.tcp(Outside::Near.address(family)).unwrap()).or_default() += 1;
        }
    }
    seen
}

/// New flows of one pod spread over three gateways on three nodes; live flows stay where they are when a gateway comes.
#[test]
fn flows_spread_over_three_gateways_and_stay_when_one_is_added() {
    let lab = Lab::raise(nodes(3));
    let first = [lab.gateway(1, "g1"), lab.gateway(2, "g2")];
    let client = lab.client(1, "c1");
    let capture = lab.capture().unwrap();
    // So many that all of them by one gateway is nobody's luck.
    let (mut tcp, mut udp) = (Held::open(&client, 24, true), Held::open(&client, 24, false));
    let leases: BTreeSet<IpAddr> = first.iter().flat_map(|g| lab.leases(g)).collect();
    assert_eq!(tcp.sources(), leases, "48 flows over 2 × 2 leases");
    assert_eq!(udp.sources(), leases);
    let third = lab.gateway(3, "g3");
    tcp.stay();
    udp.stay();
    let seen = spread(&client, 80);
    let all: BTreeSet<IpAddr> = leases.into_iter().chain(lab.leases(&third)).collect();
    assert_eq!(seen.keys().copied().collect::<BTreeSet<_>>(), all);
    assert!(seen.values().all(|n| *n >= 8), "80 flows per family over 3 gateways: {seen:?}");
    assert_eq!(lab.leaves_as_predicted(&client).difference(&all).count(), 0);
    tcp.stay();
    udp.stay();
    capture.assert_clean(&[&client]);
}

/// DEL of a gateway: its established TCP is reset at its next packet, its UDP goes on with another lease, flows of the
/// other gateway never notice. Whether it was local or remote.
#[test]
fn a_deleted_gateway_resets_its_tcp_and_moves_its_udp_and_nobody_elses() {
    let lab = Lab::raise(nodes(2));
    let mut gateways = [lab.gateway(1, "g1"), lab.gateway(2, "g2")];
    let clients = [lab.client(1, "c1"), lab.client(2, "c2")];
    let capture = lab.capture().unwrap();
    for round in 0..2 {
        let goes = &gateways[0];
        let stays: BTreeSet<IpAddr> = lab.leases(&gateways[1]).into_iter().collect();
        let mut held: Vec<_> =
            clients.iter().map(|c| (Held::open(c, 12, true), Held::open(c, 12, false))).collect();
        lab.del_pod(goes).unwrap();
        for (tcp, udp) in &mut held {
            let mut reset = 0;
            for (source, flow) in &mut tcp.0 {
                let answer = flow.ask();
                if stays.contains(source) {
                    assert_eq!(answer, Answer::From(*source), "round {round}");
                } else {
                    assert_eq!(answer, Answer::Reset, "round {round}: {source}");
                    reset += 1;
                }
            }
            assert!(reset > 0, "no flow was on the gateway that went");
            for (source, flow) in &mut udp.0 {
                let Answer::From(now) = flow.ask() else { panic!("round {round}: UDP of {source} stopped") };
                assert!(stays.contains(&now) && (!stays.contains(source) || now == *source));
            }
        }
        gateways[0] = lab.gateway(1 + round, &format!("again{round}"));
        gateways.swap(0, 1);
    }
    capture.assert_clean(&[&clients[0], &clients[1]]);
}

/// The last gateway goes: TCP is reset, everything else prohibited. A new one, and all works again.
#[test]
fn g3_without_gateway_all_is_refused_and_a_new_one_serves_at_once() {
    let lab = Lab::raise(nodes(2));
    let gateway = lab.gateway(1, "g1");
    let clients = [lab.client(1, "c1"), lab.client(2, "c2")];
    let capture = lab.capture().unwrap();
    let mut held: Vec<_> =
        clients.iter().map(|c| (Held::open(c, 2, true), Held::open(c, 2, false))).collect();
    lab.del_pod(&gateway).unwrap();
    for (tcp, udp) in &mut held {
        for (_, flow) in &mut tcp.0 {
            assert_eq!(flow.ask(), Answer::Reset);
        }
        for (_, flow) in &mut udp.0 {
            assert!(matches!(flow.ask(), Answer::Refused(_)), "UDP is told that it is prohibited");
        }
    }
    clients.iter().for_each(|c| lab.is_held(c));
    lab.gateway(2, "g2");
    for client in &clients {
        lab.leaves_as_predicted(client);
    }
    for (_, udp) in &mut held {
        for (_, flow) in &mut udp.0 {
            assert!(
                matches!(flow.ask(), Answer::From(_)),
                "a UDP flow goes on when there is a gateway again"
            );
        }
    }
    capture.assert_clean(&[&clients[0], &clients[1]]);
}
