//! Sockets of a real kernel, in namespaces of their own.

use std::net::{TcpListener, TcpStream, UdpSocket};

use super::*;
use crate::kernel::sandbox::Namespace;

/// A pod's namespace with both families, and the far ends in it, too.
fn pod() -> Namespace {
    let namespace = Namespace::new();
    namespace.sh("for a in 10.60.1.2 198.51.100.1; do ip addr add $a/32 dev lo; done
         for a in fd00::2 2001:db8::1; do ip addr add $a/128 dev lo nodad; done");
    namespace.can_speak_from(&["fd00::2", "2001:db8::1"]);
    namespace
}

/// What is told of one address of the namespace.
fn told(of: &Namespace, own: &str) -> Vec<Opened> {
    let netns = of.run(|| Netns::current().unwrap());
    let own: IpAddr = own.parse().unwrap();
    Carrier::ALL
        .into_iter()
        .flat_map(|carrier| flows(&netns, carrier).unwrap())
        .filter(|(ip, _)| *ip == own)
        .map(|(_, flow)| flow)
        .collect()
}

/// A listener, and both ends of a connection to it from this address.
fn connected(from: &str, listener: &TcpListener) -> (TcpStream, TcpStream) {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, socket};
    use std::os::fd::AsRawFd;
    let (from, to): (IpAddr, _) = (from.parse().unwrap(), listener.local_addr().unwrap());
    let kind = if from.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let caller = socket(kind, SockType::Stream, SockFlag::empty(), None).unwrap();
    bind(caller.as_raw_fd(), &SockaddrStorage::from(SocketAddr::new(from, 0))).unwrap();
    let to = if to.ip().is_unspecified() { SocketAddr::new(from, to.port()) } else { to };
    connect(caller.as_raw_fd(), &SockaddrStorage::from(to)).unwrap();
    (caller.into(), listener.accept().unwrap().0)
}

#[test]
fn a_connection_is_its_callers_and_one_to_a_listener_is_the_outsides() {
    let pod = pod();
    for (own, outside) in [("10.60.1.2", "198.51.100.1"), ("fd00::2", "2001:db8::1")] {
        let (calls, called) = pod.run(|| {
            let far = TcpListener::bind((outside, 0)).unwrap();
            let called = TcpListener::bind((own, 0)).unwrap();
            let calls = connected(own, &far);
            let guest = connected(outside, &called);
            ((calls, far), (guest, called))
        });
        let [own_port, guest_port] = [&calls.0.0, &called.0.0].map(|s| s.local_addr().unwrap());
        let [far, listener] = [&calls.1, &called.1].map(|l| l.local_addr().unwrap());
        let tcp = |from, to| Opened { carrier: Carrier::Tcp, from, to };
        let mut expected = vec![tcp(own_port, far), tcp(guest_port, listener)];
        let mut seen = told(&pod, own);
        expected.sort();
        seen.sort();
        assert_eq!(seen, expected, "{own}");
    }
}

#[test]
fn an_ipv6_socket_that_serves_ipv4_is_told_by_its_ipv4_address() {
    let pod = pod();
    let ((guest, _accepted), listener) = pod.run(|| {
        let listener = TcpListener::bind("[::]:0").unwrap();
        (connected("10.60.1.2", &listener), listener)
    });
    let port = listener.local_addr().unwrap().port();
    let own: SocketAddr = ([10, 60, 1, 2], port).into();
    let flow = Opened { carrier: Carrier::Tcp, from: guest.local_addr().unwrap(), to: own };
    assert!(told(&pod, "10.60.1.2").contains(&flow));
    let mapped = pod.run(|| UdpSocket::bind("[::]:0")).unwrap();
    mapped.connect("[::ffff:198.51.100.1]:53").unwrap();
    let here = SocketAddr::new([10, 60, 1, 2].into(), mapped.local_addr().unwrap().port());
    // The kernel chooses the source: of several addresses on `lo` the destination's own.
    let seen = [told(&pod, "10.60.1.2"), told(&pod, "198.51.100.1")].concat();
    let asked = |flow: &&Opened| flow.carrier == Carrier::Udp && flow.from.port() == here.port();
    let flow = seen.iter().find(asked).expect("it is told");
    assert_eq!(flow.to, "198.51.100.1:53".parse().unwrap());
}

#[test]
fn who_listens_elsewhere_only_was_not_called() {
    let pod = pod();
    let (calls, _listener, _far) = pod.run(|| {
        let far = TcpListener::bind("198.51.100.1:0").unwrap();
        let calls = connected("10.60.1.2", &far);
        let port = calls.0.local_addr().unwrap().port();
        (calls, TcpListener::bind(("127.0.0.1", port)).unwrap(), far)
    });
    let own = calls.0.local_addr().unwrap();
    assert_eq!(told(&pod, "10.60.1.2").iter().map(|flow| flow.from).collect::<Vec<_>>(), [own]);
}

#[test]
fn a_datagram_socket_has_a_flow_if_it_is_connected() {
    let pod = pod();
    let sockets = pod.run(|| ["10.60.1.2:0", "10.60.1.2:0"].map(|here| UdpSocket::bind(here).unwrap()));
    assert_eq!(told(&pod, "10.60.1.2"), []);
    sockets[1].connect("198.51.100.1:53").unwrap();
    let from = sockets[1].local_addr().unwrap();
    let flow = Opened { carrier: Carrier::Udp, from, to: "198.51.100.1:53".parse().unwrap() };
    assert_eq!(told(&pod, "10.60.1.2"), [flow]);
}

#[test]
fn a_connection_that_is_being_closed_is_still_told() {
    let pod = pod();
    let (calls, called, _far) = pod.run(|| {
        let far = TcpListener::bind("198.51.100.1:0").unwrap();
        let (calls, called) = connected("10.60.1.2", &far);
        (calls, called, far)
    });
    let own = calls.local_addr().unwrap();
    drop(calls); // FIN-WAIT-2: nobody has the socket any more
    let opened_here = || told(&pod, "10.60.1.2").iter().any(|flow| flow.from == own);
    assert!(opened_here());
    drop(called); // TIME-WAIT
    assert!(opened_here());
}

#[test]
fn what_the_kernel_cut_short_is_nobodys_flow() {
    let message: Vec<u8> = [2, 1, 0, 0].into_iter().chain([0; 36]).collect();
    for length in 0..40 {
        assert_eq!(socket_of(&message[..length]), None);
    }
    assert!(socket_of(&message).is_some_and(|seen| seen.there.port() == 0));
    assert_eq!(socket_of(&[99; 40]), None, "a family that nobody knows");
}

/// Prints what it takes to ask one namespace, with few sockets and with many.
#[test]
#[ignore = "a measurement: cargo test --lib what_it_takes_to_ask -- --ignored --nocapture"]
fn what_it_takes_to_ask() {
    let pod = pod();
    let netns = pod.run(|| Netns::current().unwrap());
    let ask = |what: &str| {
        let mut times: Vec<u128> = (0..31)
            .map(|_| {
                let start = std::time::Instant::now();
                Carrier::ALL.iter().for_each(|carrier| drop(flows(&netns, *carrier).unwrap()));
                start.elapsed().as_micros()
            })
            .collect();
        times.sort_unstable();
        println!("{what}: {} µs (least {})", times[15], times[0]);
    };
    ask("no socket");
    let far = pod.run(|| TcpListener::bind("198.51.100.1:0").unwrap());
    let calls: Vec<_> = (0..400).map(|_| pod.run(|| connected("10.60.1.2", &far))).collect();
    ask("400 connections, both ends");
    drop(calls);
}
