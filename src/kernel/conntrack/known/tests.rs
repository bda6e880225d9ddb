//! Entries that are made by us, in a kernel that begins to track.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use super::*;
use crate::kernel::conntrack::MarkFilter;
use crate::kernel::conntrack::tests::count;
use crate::kernel::netns::Netns;
use crate::kernel::sandbox::Namespace;
use crate::kernel::sockets::flows;

const OWN: [&str; 2] = ["10.60.1.2", "fd00::2"];
const FAR: [&str; 2] = ["198.51.100.1", "2001:db8::1"];

/// A node between a pod and the outside.
struct Way {
    pod: Namespace,
    node: Namespace,
    far: Namespace,
}

fn way() -> Way {
    let way = Way { pod: Namespace::new(), node: Namespace::new(), far: Namespace::new() };
    way.pod.wire("eth0", &way.node, "pod0");
    way.far.wire("eth0", &way.node, "up0");
    way.node.sh("sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
         ip addr add 10.60.1.1/24 dev pod0; ip addr add fd00::1/64 dev pod0 nodad
         ip addr add 198.51.100.254/24 dev up0; ip addr add 2001:db8::fe/64 dev up0 nodad");
    way.node.can_speak_from(&["fd00::1", "2001:db8::fe"]);
    for (end, [v4, v6], [via4, via6]) in
        [(&way.pod, OWN, ["10.60.1.1", "fd00::1"]), (&way.far, FAR, ["198.51.100.254", "2001:db8::fe"])]
    {
        end.sh(&format!(
            "ip addr add {v4}/24 dev eth0; ip addr add {v6}/64 dev eth0 nodad
             ip route add default via {via4}; ip -6 route add default via {via6}"
        ));
        end.can_speak_from(&[v6]);
    }
    way
}

impl Way {
    fn begins_to_track(&self) {
        self.node.sh(
            "nft 'table inet t { chain c { type filter hook forward priority 0; ct state invalid counter drop; }; }'",
        );
    }

    fn sockets(&self) -> Vec<Opened> {
        let netns = self.pod.run(|| Netns::current().unwrap());
        let all = Carrier::ALL.into_iter().flat_map(|carrier| flows(&netns, carrier).unwrap());
        all.map(|(_, flow)| flow).collect()
    }

    fn remembers(&self, flows: &[Opened]) {
        self.node.run(|| remember(flows)).unwrap();
    }

    /// Who opened each flow of a carrier, by the listing.
    fn openers(&self, carrier: &str) -> Vec<IpAddr> {
        let listed = self.node.sh("for f in ipv4 ipv6; do conntrack -L -f $f 2>/dev/null; done");
        let lines = listed.lines().filter(|line| line.starts_with(carrier));
        let source =
            |line: &str| line.split_whitespace().find_map(|word| word.strip_prefix("src="))?.parse().ok();
        let mut openers: Vec<IpAddr> = lines.filter_map(source).collect();
        openers.sort();
        openers
    }
}

/// Both ends of a connection that `from` opens to `to`'s address, and the listener.
fn call(from: &Namespace, to: &Namespace, address: &str) -> (TcpStream, TcpStream, TcpListener) {
    let listener = to.run(|| TcpListener::bind((address, 0))).unwrap();
    let there = listener.local_addr().unwrap();
    let caller = from.run(|| TcpStream::connect(there)).unwrap();
    let called = listener.accept().unwrap().0;
    for end in [&caller, &called] {
        end.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    }
    (caller, called, listener)
}

fn says(speaker: &mut TcpStream, listener: &mut TcpStream, much: &[u8]) {
    std::thread::scope(|scope| {
        scope.spawn(|| speaker.write_all(much).unwrap());
        listener.read_exact(&mut vec![0; much.len()]).unwrap();
    });
}

fn ips(texts: &[&str]) -> Vec<IpAddr> {
    let mut ips: Vec<IpAddr> = texts.iter().map(|text| text.parse().unwrap()).collect();
    ips.sort();
    ips
}

#[test]
fn a_far_end_that_speaks_first_opens_no_flow_that_is_remembered() {
    let way = way();
    let mut own: Vec<_> = FAR.iter().map(|far| call(&way.pod, &way.far, far)).collect();
    let mut guests: Vec<_> = OWN.iter().map(|own| call(&way.far, &way.pod, own)).collect();
    let datagrams: Vec<_> = FAR
        .iter()
        .map(|far| {
            let any = if far.contains(':') { "[::]:0" } else { "0.0.0.0:0" };
            let (asks, answers) =
                (way.pod.run(|| UdpSocket::bind(any)), way.far.run(|| UdpSocket::bind((*far, 53))));
            let (asks, answers) = (asks.unwrap(), answers.unwrap());
            asks.connect((*far, 53)).unwrap();
            asks.send(b"?").unwrap();
            let (_, from) = answers.recv_from(&mut [0; 8]).unwrap();
            (asks, answers, from)
        })
        .collect();
    let sockets = way.sockets();
    assert_eq!(sockets.len(), 6, "{sockets:?}");
    way.remembers(&sockets);
    way.begins_to_track();
    // More than any window that nobody saw the scale of.
    let much = vec![b'!'; 4 << 20];
    for (caller, called, _) in own.iter_mut().chain(&mut guests) {
        says(called, caller, &much);
        says(caller, called, &much);
    }
    for (asks, answers, from) in &datagrams {
        answers.send_to(b"!", from).unwrap();
        asks.recv(&mut [0; 8]).unwrap();
    }
    let invalid = way.node.sh("nft list table inet t");
    assert!(invalid.contains("counter packets 0 "), "windows that nobody knows: {invalid}");
    assert_eq!(way.openers("udp"), ips(&OWN));
    assert_eq!(way.openers("tcp"), ips(&[OWN, FAR].concat()));
    let left = way.node.sh("for f in ipv4 ipv6; do conntrack -L -f $f -p udp 2>/dev/null; done");
    let seconds = left.lines().map(|line| line.split_whitespace().nth(2).unwrap().parse::<u32>().unwrap());
    assert!(seconds.into_iter().all(|left| left > LIFE - 60), "as long as nobody speaks on it: {left}");
}

#[test]
fn what_was_remembered_the_wrong_way_round_is_put_right() {
    let way = way();
    way.begins_to_track();
    let stream = call(&way.far, &way.pod, OWN[0]);
    let wrong: Vec<Opened> = way.sockets().into_iter().map(Opened::reversed).collect();
    way.remembers(&wrong);
    assert_eq!(way.openers("tcp"), ips(&OWN[..1]));
    way.remembers(&way.sockets());
    assert_eq!(way.openers("tcp"), ips(&FAR[..1]));
    way.remembers(&[]);
    drop(stream);
}

#[test]
fn ten_thousand_flows_are_remembered_in_no_time() {
    let node = Namespace::new();
    let to = "198.51.100.1:443".parse().unwrap();
    let flow = |port| Opened { carrier: Carrier::Tcp, from: ([10, 60, 1, 2], port).into(), to };
    let flows: Vec<Opened> = (20_000..30_000).map(flow).collect();
    let begun = std::time::Instant::now();
    node.run(|| remember(&flows)).unwrap();
    println!("10,000 flows remembered in {:?}", begun.elapsed());
    assert_eq!(node.run(|| count(MarkFilter::ALL)).unwrap(), 10_000);
    node.run(|| remember(&flows)).unwrap();
    assert_eq!(node.run(|| count(MarkFilter::ALL)).unwrap(), 10_000, "again is as good as once");
}
