//! F: policy changes on running pods that send all the time.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use egret::addr::Family;
use egret::testbed::{Leak, Masquerade, Outside, Packet, Pod, Spot, Topology, node_address, within};

use crate::lab::{Lab, SELECTS_RED, Stop, anywhere, nodes};

/// How long traffic may take to be seen on a machine with other things to do.
const PATIENCE: Duration = Duration::from_secs(120);
/// Pause between looks.
const LOOK: Duration = Duration::from_millis(50);

/// Sends from new and from old sockets, both families, until told to stop. In each round the old ones are begun anew while the pod
/// is unselected: an answer to the round before that is still under way (the far end is slow on a busy machine) would otherwise
/// look like a flow that the far end opens, and replies to those rightly pass.
fn chatter(pod: &Pod, stop: &AtomicBool, round: &AtomicU32, begun: &AtomicU32) {
    let mut pod = pod.clone();
    pod.patience = Duration::from_millis(100);
    let destinations = Family::BOTH.map(|family| Outside::Near.address(family));
    let begin = || -> Vec<_> {
        let flows = destinations.iter().flat_map(|to| [pod.udp_flow(*to), pod.tcp_flow(*to)]);
        flows.filter_map(Result::ok).collect()
    };
    let (mut old, mut current) = (Vec::new(), None);
    while !stop.load(Ordering::Relaxed) {
        let now = round.load(Ordering::Relaxed);
        if Some(now) != current {
            (old, current) = (begin(), Some(now));
            begun.store(now, Ordering::Relaxed);
        }
        for flow in &mut old {
            flow.set_patience(Duration::from_millis(100));
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
/// ACK) of the node itself, whose address the pod had there. Of the pod it gets none.
fn nodes_reset(packet: &Packet) -> bool {
    const RST: u8 = 4;
    let nodes = Family::BOTH.map(|family| [1, 2].map(|node| node_address(node, family)));
    packet.protocol == 6 && packet.flags == RST && nodes.concat().contains(&packet.source)
}

/// The router sees first what leaves the nodes: what in a window only the outside sees passed the router before it began, and says nothing of it.
fn left_before(packet: &Packet) -> bool {
    packet.spot != Spot::Router
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
    // The round that each pod has begun.
    let begun = [AtomicU32::new(0), AtomicU32::new(0)];
    let capture = lab.capture().unwrap();
    std::thread::scope(|scope| {
        let (stop, round) = (&stop, &round);
        let _stop = Stop(stop);
        for (pod, begun) in pods.iter().zip(&begun) {
            scope.spawn(move || chatter(pod, stop, round, begun));
        }
        for n in 1..=3 {
            round.store(n, Ordering::Relaxed);
            let all_begun = || begun.iter().all(|begun| begun.load(Ordering::Relaxed) == n);
            assert!(within(PATIENCE, LOOK, all_begun).is_some(), "the pods do not begin anew");
            std::thread::sleep(Duration::from_millis(500));
            annotate(&SELECTS_RED);
            capture.restart();
            std::thread::sleep(Duration::from_millis(400));
            let leased = || {
                let heard = pods.iter().map(|pod| capture.sources_of(pod));
                heard.into_iter().all(|sources| leases.iter().all(|ip| sources.contains_key(ip)))
            };
            within(PATIENCE, LOOK, leased);
            let verdict = match capture.verdict(&[&pods[0], &pods[1]]) {
                Err(Leak::Forbidden(packets, _))
                    if packets.iter().all(|p| nodes_reset(p) || left_before(p)) =>
                {
                    None
                }
                other => other.err(),
            };
            let heard: Vec<_> = pods.iter().map(|pod| capture.sources_of(pod)).collect();
            annotate(&[]);
            capture.restart();
            let back = |pod: &Pod| {
                let seen = capture.sources_of(pod);
                Family::BOTH.iter().all(|family| seen.contains_key(&without_egret(pod, masquerade, *family)))
            };
            within(PATIENCE, LOOK, || pods.iter().all(back));
            std::thread::sleep(Duration::from_millis(200));
            let direct: Vec<_> = pods.iter().map(|pod| capture.sources_of(pod)).collect();
            let leased = heard.iter().all(|s| leases.iter().all(|ip| s.contains_key(ip)));
            if let Some(leak) = verdict {
                panic!("{leak}");
            }
            assert!(leased, "selected, but not all of {leases:?} were seen: {heard:?}");
            for (pod, sources) in pods.iter().zip(direct) {
                let expected = Family::BOTH.map(|f| without_egret(pod, masquerade, f));
                let is_back = expected.iter().all(|ip| sources.contains_key(ip));
                assert!(is_back, "{} did not go back to {expected:?}: {sources:?}", pod.name);
            }
        }
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

/// Answers each datagram late, and speaks unasked on each connection, until told to stop.
fn slow_far_end(datagrams: &UdpSocket, listener: &TcpListener, stop: &AtomicBool) {
    const LATE: Duration = Duration::from_millis(300);
    let (mut due, mut talks): (VecDeque<(Instant, SocketAddr)>, Vec<TcpStream>) = Default::default();
    datagrams.set_read_timeout(Some(Duration::from_millis(10))).unwrap();
    listener.set_nonblocking(true).unwrap();
    while !stop.load(Ordering::Relaxed) {
        if let Ok((_, from)) = datagrams.recv_from(&mut [0; 64]) {
            due.push_back((Instant::now() + LATE, from));
        }
        while let Some((_, to)) = due.pop_front_if(|(at, _)| *at <= Instant::now()) {
            let _ = datagrams.send_to(b"late", to);
        }
        talks.extend(listener.accept().map(|(stream, _)| stream));
        talks.retain_mut(|stream| stream.write(b"!").is_ok());
    }
}

/// Nobody tracked packets on the pod's node before: the far end's answers that are on their way then are the first that anybody
/// remembers of their flows. The pod's packets must not pass as replies to them.
#[test]
fn f1_answers_on_their_way_when_a_node_begins_to_track_open_no_flow() {
    let lab = Lab::raise(Topology { masquerade: Masquerade::None, ..nodes(2) });
    lab.gateway(1, "g1");
    let pod = lab.plain(2, "late");
    let port = pod.port() + 3;
    let far = lab.outside(Outside::Near).netns().unwrap();
    let datagrams = far.run(|| UdpSocket::bind(("::", port))).unwrap().unwrap();
    let listener = far.run(|| TcpListener::bind(("::", port))).unwrap().unwrap();
    let near = pod.place().netns().unwrap();
    let open = |family| {
        let to = SocketAddr::new(Outside::Near.address(family), port);
        let asking = near.run(|| UdpSocket::bind(anywhere(family))).unwrap().unwrap();
        asking.connect(to).unwrap();
        (asking, near.run(|| TcpStream::connect(to)).unwrap().unwrap())
    };
    let capture = lab.capture().unwrap();
    let stop = AtomicBool::new(false);
    let verdict = std::thread::scope(|scope| {
        let stop = &stop;
        scope.spawn(|| slow_far_end(&datagrams, &listener, stop));
        for (asking, mut hearing) in Family::BOTH.map(open) {
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let _ = asking.send(b"?");
                    std::thread::sleep(Duration::from_millis(20));
                }
            });
            hearing.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    if hearing.read(&mut [0; 64]).is_err() {
                        std::thread::sleep(Duration::from_millis(10));
                    }
                }
            });
        }
        let _stopped = Stop(stop);
        std::thread::sleep(Duration::from_millis(500));
        lab.is_selected(&pod);
        capture.restart();
        std::thread::sleep(Duration::from_millis(800));
        within(PATIENCE, LOOK, || !capture.sources_of(&pod).is_empty());
        capture.verdict(&[&pod])
    });
    verdict.unwrap();
}
