//! F: a node on which nobody tracked packets begins to, while the far ends of its pods' flows talk without a pause, or while nobody
//! says anything.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use egret::addr::Family;
use egret::egress::numbers::node_scope;
use egret::egress::overture::{overture, unheard};
use egret::kernel::{self, Place};
use egret::testbed::{Answer, Flow, Masquerade, Outside, Pod, Topology, within};

use crate::lab::{Lab, Stop, anywhere, kind, nodes, prohibited};
use crate::node_gateways::{WHOLE, policy, topology};

/// Many, so that somebody's answer comes in the very moment.
const FLOWS: usize = 100;

/// Sends to everybody who ever asked, as fast as it can, until told to stop.
fn talkative(socket: &UdpSocket, stop: &AtomicBool) {
    socket.set_nonblocking(true).unwrap();
    let mut asked: Vec<SocketAddr> = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        while let Ok((_, from)) = socket.recv_from(&mut [0; 64]) {
            if !asked.contains(&from) {
                asked.push(from);
            }
        }
        asked.iter().for_each(|to| drop(socket.send_to(b"and another thing", to)));
    }
}

/// Flows of a pod to the far end, each with a socket of its own.
fn flows(pod: &Pod, port: u16) -> Vec<UdpSocket> {
    let near = pod.place().netns().unwrap();
    let open = |n: usize| {
        let family = Family::BOTH[n % 2];
        let socket = near.run(|| UdpSocket::bind(anywhere(family))).unwrap().unwrap();
        socket.connect(SocketAddr::new(Outside::Near.address(family), port)).unwrap();
        socket
    };
    (0..FLOWS).map(open).collect()
}

/// Given flows that are talked to all the time, `begins` happens and the pod is selected; then nothing of it shows its own address.
fn selected_while_talked_to(begins: impl FnOnce(&Lab)) {
    let lab = Lab::raise(Topology { masquerade: Masquerade::None, ..nodes(2) });
    lab.gateway(1, "g1");
    let pod = lab.plain(2, "listener");
    let port = pod.port() + 3;
    let far = lab.outside(Outside::Near).netns().unwrap();
    let far = far.run(|| UdpSocket::bind(("::", port))).unwrap().unwrap();
    let asking = flows(&pod, port);
    let capture = lab.capture().unwrap();
    let stop = AtomicBool::new(false);
    let verdict = std::thread::scope(|scope| {
        scope.spawn(|| talkative(&far, &stop));
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                asking.iter().for_each(|socket| drop(socket.send(b"?")));
                std::thread::sleep(Duration::from_millis(50));
            }
        });
        let _stopped = Stop(&stop);
        std::thread::sleep(Duration::from_millis(300));
        begins(&lab);
        lab.is_selected(&pod);
        capture.restart();
        std::thread::sleep(Duration::from_millis(300));
        within(PATIENCE, Duration::from_millis(10), || !capture.sources_of(&pod).is_empty());
        capture.verdict(&[&pod])
    });
    verdict.unwrap();
}

#[test]
fn f1_far_ends_that_talk_all_the_time_open_no_flow_when_a_running_pod_is_selected() {
    selected_while_talked_to(|_| {});
}

/// The node tracks from its first gateway on, and the pod becomes a client later.
#[test]
fn f1_far_ends_that_talk_all_the_time_open_no_flow_when_a_gateway_comes_before_a_running_pod_is_selected() {
    selected_while_talked_to(|lab| drop(lab.gateway(2, "g2")));
}

/// A flow that the pod opened, both ends of it: each has heard the other once.
struct Own {
    datagrams: (UdpSocket, UdpSocket, SocketAddr),
    stream: (TcpStream, TcpStream),
}

/// A connection that the outside opened: the far end, and the pod's.
struct Guest(Flow, TcpStream);

const PATIENCE: Duration = Duration::from_secs(120);

fn own_flows(lab: &Lab, pod: &Pod, family: Family, port: u16) -> Own {
    let (near, far) = (pod.place().netns().unwrap(), lab.outside(Outside::Near).netns().unwrap());
    let there = SocketAddr::new(Outside::Near.address(family), port);
    let (asks, answers) =
        (near.run(|| UdpSocket::bind(anywhere(family))), far.run(|| UdpSocket::bind(there)));
    let (asks, answers) = (asks.unwrap().unwrap(), answers.unwrap().unwrap());
    asks.connect(there).unwrap();
    asks.send(b"hello").unwrap();
    let listener = far.run(|| TcpListener::bind(there)).unwrap().unwrap();
    let calls = near.run(|| TcpStream::connect(there)).unwrap().unwrap();
    let (called, _) = listener.accept().unwrap();
    for socket in [&asks, &answers] {
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
    }
    for stream in [&calls, &called] {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
    }
    let (_, from) = answers.recv_from(&mut [0; 64]).unwrap();
    Own { datagrams: (asks, answers, from), stream: (calls, called) }
}

/// Connections to a listener of the pod's that serves both families by one socket.
fn guests(lab: &Lab, pod: &Pod, port: u16) -> Vec<Guest> {
    let near = pod.place().netns().unwrap();
    let listener = near.run(|| TcpListener::bind(("::", port))).unwrap().unwrap();
    let to = Family::BOTH.map(|family| SocketAddr::new(pod.address(family).unwrap(), port));
    std::thread::scope(|scope| {
        let calling = scope.spawn(|| to.map(|to| lab.connect_from(Outside::Near, to).unwrap()));
        let accept = || {
            let (mut stream, from) = listener.accept().unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            writeln!(stream, "{}", from.ip().to_canonical()).unwrap();
            stream
        };
        let accepted = [accept(), accept()];
        // It goes on listening, as servers do.
        std::mem::forget(listener);
        calling.join().unwrap().into_iter().zip(accepted).map(|(far, pod)| Guest(far, pod)).collect()
    })
}

impl Own {
    /// The far end speaks first, and the pod answers: its datagrams leave with a lease, or the pod is told to begin anew, as it is
    /// of its connection.
    fn hears_first(self, leases: Option<&BTreeSet<IpAddr>>) {
        let (asks, answers, from) = self.datagrams;
        answers.send_to(b"news", from).unwrap();
        let (mut calls, mut called) = self.stream;
        called.write_all(b"news").unwrap();
        asks.recv(&mut [0; 64]).unwrap();
        asks.send(b"indeed").unwrap();
        match leases {
            Some(leases) => {
                let (_, seen) = answers.recv_from(&mut [0; 64]).unwrap();
                assert!(leases.contains(&seen.ip().to_canonical()), "datagrams came from {seen}");
            }
            None => {
                assert_eq!(kind(asks.recv(&mut [0; 64])), prohibited(asks.peer_addr().unwrap().ip()));
            }
        }
        let begun = Instant::now();
        let told = loop {
            match calls.write_all(b"indeed") {
                Ok(()) if begun.elapsed() < PATIENCE => std::thread::sleep(Duration::from_millis(10)),
                other => break other,
            }
        };
        let told = told.unwrap_err().kind();
        assert!([ErrorKind::ConnectionReset, ErrorKind::BrokenPipe].contains(&told), "{told}");
        // Who is sent the same news for half a minute answers with a reset at last, when the connection is long forgotten.
        let abrupt = libc::linger { l_onoff: 1, l_linger: 0 };
        nix::sys::socket::setsockopt(&called, nix::sys::socket::sockopt::Linger, &abrupt).unwrap();
    }
}

impl Guest {
    /// The one who speaks first is the pod or the far end; either way the other answers.
    fn goes_on(self, pod_first: bool) {
        let Guest(mut far, mut pod) = self;
        far.set_patience(PATIENCE);
        if pod_first {
            pod.write_all(b"news\n").unwrap();
        }
        let server = std::thread::spawn(move || {
            let mut question = [0; 64];
            let length = pod.read(&mut question).unwrap();
            pod.write_all(&[b"192.0.2.1 ", &question[..length]].concat()).unwrap();
            pod
        });
        assert_eq!(far.ask(), Answer::From([192, 0, 2, 1].into()));
        server.join().unwrap();
    }
}

/// Given flows of a pod on node 2 on which nobody speaks while its node begins to track and it becomes a client, and longer, the far
/// end speaks first. `leased`: the pod's datagrams go on with a gateway's address.
fn silent_while(world: Topology, leased: bool, joins: impl FnOnce(&Lab, &Pod)) {
    let lab = Lab::raise(Topology { masquerade: Masquerade::None, ..world });
    lab.gateway(1, "g1");
    let pod = lab.plain(2, "listener");
    let own = Family::BOTH.map(|family| own_flows(&lab, &pod, family, pod.port() + 3));
    let guests = [7007, 7008].map(|port| guests(&lab, &pod, port));
    std::thread::sleep(Duration::from_millis(300));
    joins(&lab, &pod);
    let leases: BTreeSet<IpAddr> =
        lab.destinations().into_iter().flat_map(|to| lab.predicted(&pod, to)).collect();
    let capture = lab.capture().unwrap();
    own.into_iter().for_each(|flows| flows.hears_first(leased.then_some(&leases)));
    for (pod_first, guests) in [false, true].into_iter().zip(guests) {
        guests.into_iter().for_each(|guest| guest.goes_on(pod_first));
    }
    lab.leaves_as_predicted(&pod);
    capture.assert_clean(&[&pod]);
}

#[test]
fn f1_flows_that_are_silent_when_a_running_pod_is_selected_keep_their_direction() {
    silent_while(nodes(2), true, Lab::is_selected);
}

#[test]
fn f1_flows_that_are_silent_when_a_gateway_comes_before_a_running_pod_is_selected_keep_their_direction() {
    silent_while(nodes(2), true, |lab, pod| {
        lab.gateway(2, "g2");
        lab.is_selected(pod);
    });
}

/// Whoever comes after one that was killed within that second finds a node that tracks, and begins it all again.
#[test]
fn f1_flows_that_are_silent_keep_their_direction_when_who_began_to_track_was_killed() {
    silent_while(nodes(2), true, |lab, pod| {
        let node = lab.node(pod.node).netns().unwrap();
        let pods: BTreeSet<IpAddr> = Family::BOTH.iter().filter_map(|family| pod.address(*family)).collect();
        for left in [unheard(&pods), overture(&pods)] {
            let (place, mut saved) = (Place::node(&node), BTreeMap::new());
            let left = || kernel::reconcile(&place, &node_scope(), &left, &mut saved, false);
            assert_eq!(node.run(left).unwrap().unwrap().failed, []);
        }
        lab.is_selected(pod);
    });
}

/// Where this node translates, a flow that nobody translated has to begin anew, datagrams, too.
#[test]
fn f1_flows_that_are_silent_when_a_running_pod_gets_its_own_node_as_gateway_keep_their_direction() {
    silent_while(topology(2), false, |lab, pod| {
        lab.pod_object(&pod.name.to_string(), &[("app", "shop")], &[], pod.node).unwrap();
        policy(lab, "by-eth1", "shop", WHOLE, &[(2, "interface: eth1")]);
    });
}
