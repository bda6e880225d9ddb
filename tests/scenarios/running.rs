//! F: policy changes on running pods that send all the time.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use egret::addr::Family;
use egret::testbed::{Leak, Masquerade, Outside, Packet, Pod, Topology, node_address};

use crate::lab::{Lab, SELECTS_RED, nodes};

/// Sends from new and from old sockets, both families, until told to stop. In each round the old ones are begun anew while the pod
/// is unselected: an answer to the round before that is still under way (the far end is slow on a busy machine) would otherwise
/// look like a flow that the far end opens, and replies to those rightly pass.
fn chatter(pod: &Pod, stop: &AtomicBool, round: &AtomicU32) {
    let mut pod = pod.clone();
    pod.patience = Duration::from_millis(100);
    let destinations = Family::BOTH.map(|family| Outside::Near.address(family));
    let begin = || -> Vec<_> {
        let flows = destinations.iter().flat_map(|to| [pod.udp_flow(*to), pod.tcp_flow(*to)]);
        flows.filter_map(Result::ok).collect()
    };
    let (mut old, mut current) = (begin(), round.load(Ordering::Relaxed));
    while !stop.load(Ordering::Relaxed) {
        let now = round.load(Ordering::Relaxed);
        if now != current {
            (old, current) = (begin(), now);
        }
        for flow in &mut old {
            let _ = flow.set_patience(Duration::from_millis(100));
            let _ = flow.ask();
        }
        for to in destinations {
            let _ = (pod.udp(to), pod.tcp(to), pod.ping(to));
        }
    }
}

fn without_egret(pod: &Pod, masquerade: Masquerade, family: Family) -> IpAddr {
    match masquerade {
        Masquerade::None => pod.address(family).unwrap(),
        _ => node_address(pod.node, family),
    }
}

/// A far end that still sends on a flow which is long over gets TCP's answer from where it sends to: a bare reset (RST without
/// ACK), the node's own or, where pods have no other address, as a reply to what came in. It carries nothing of the pod's.
fn bare_reset(packet: &Packet) -> bool {
    const RST: u8 = 4;
    packet.protocol == 6 && packet.flags == RST
}

/// F1 F2: annotated, un-annotated, annotated again while it sends. Once the change is in force no packet has the pod's or the
/// node's address; before and after it leaves as ever.
fn annotate_under_traffic(masquerade: Masquerade) {
    let lab = Lab::raise(Topology { masquerade, ..nodes(2) });
    let gateway = lab.gateway(1, "g1");
    let leases = lab.leases(&gateway);
    let pods = [lab.plain(1, "a"), lab.plain(2, "b")];
    let annotate = |words: &[(&str, &str)]| {
        for pod in &pods {
            lab.pod_object(&pod.name.to_string(), &[], words, pod.node).unwrap();
        }
        lab.settle().unwrap();
    };
    let (stop, round) = (AtomicBool::new(false), AtomicU32::new(0));
    let capture = lab.capture().unwrap();
    std::thread::scope(|scope| {
        let (stop, round) = (&stop, &round);
        pods.iter().for_each(|pod| drop(scope.spawn(move || chatter(pod, stop, round))));
        for _ in 0..3 {
            round.fetch_add(1, Ordering::Relaxed);
            std::thread::sleep(Duration::from_millis(500));
            annotate(&SELECTS_RED);
            capture.restart();
            std::thread::sleep(Duration::from_millis(400));
            let verdict = match capture.verdict(&[&pods[0], &pods[1]]) {
                Err(Leak::Forbidden(packets, _)) if packets.iter().all(bare_reset) => None,
                other => other.err(),
            };
            let heard: Vec<_> = pods.iter().map(|pod| capture.sources_of(pod)).collect();
            annotate(&[]);
            capture.restart();
            std::thread::sleep(Duration::from_millis(200));
            let direct: Vec<_> = pods.iter().map(|pod| capture.sources_of(pod)).collect();
            let leased = heard.iter().all(|s| leases.iter().all(|ip| s.contains_key(ip)));
            if let Some(leak) = verdict {
                stop.store(true, Ordering::Relaxed);
                panic!("{leak}");
            }
            if !leased {
                stop.store(true, Ordering::Relaxed);
                panic!("selected, but not all of {leases:?} were seen: {heard:?}");
            }
            for (pod, sources) in pods.iter().zip(direct) {
                let expected = Family::BOTH.map(|f| without_egret(pod, masquerade, f));
                if !expected.iter().all(|ip| sources.contains_key(ip)) {
                    stop.store(true, Ordering::Relaxed);
                    panic!("{} did not go back to {expected:?}: {sources:?}", pod.name);
                }
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    pods.iter().for_each(|pod| lab.leaves_as_before(pod));
}

#[test]
fn f1_f2_a_running_pod_is_selected_and_let_go_behind_a_masquerade() {
    annotate_under_traffic(Masquerade::IptablesNft);
}

#[test]
fn f1_f2_a_running_pod_is_selected_and_let_go_without_masquerade() {
    annotate_under_traffic(Masquerade::None);
}
