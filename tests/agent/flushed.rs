//! Flows whose first packets left while somebody had flushed the ruleset: when it is back, they are decided about like all others.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use egret::egress::numbers::TRACKING_TABLE;
use egret::kernel::Netns;
use egret::testbed::{Outside, Place, Pod};
use nix::sys::signal::Signal;

use crate::lab::{Lab, PATIENCE, eventually, leaves_by, outside};

/// How often a datagram is sent until it is heard.
const TRIES: u32 = 100;

/// Who answers outside, late: on a port of the client's.
struct FarEnd {
    /// The client's, for what it says when nothing arrives.
    node: Place,
    datagrams: UdpSocket,
    listener: TcpListener,
    port: u16,
}

/// What a client began in one family while nobody decided: both ends.
struct Begun {
    datagrams: UdpSocket,
    /// As the far end knows it.
    from: SocketAddr,
    /// On which the far end speaks first.
    talk: (TcpStream, TcpStream),
    /// On which it speaks when the client has closed already.
    closed: (TcpStream, TcpStream),
}

impl FarEnd {
    fn of(lab: &Lab, pod: &Pod) -> FarEnd {
        let (far, port) = (lab.outside(Outside::Near).netns().unwrap(), pod.port() + 3);
        let datagrams = far.run(|| UdpSocket::bind(("::", port))).unwrap().unwrap();
        datagrams.set_read_timeout(Some(PATIENCE / TRIES)).unwrap();
        let listener = far.run(|| TcpListener::bind(("::", port))).unwrap().unwrap();
        FarEnd { node: lab.node(2), datagrams, listener, port }
    }

    /// Begins them, each seen with this address.
    fn meets(&self, near: &Netns, to: IpAddr, own: IpAddr) -> Begun {
        let to = SocketAddr::new(to, self.port);
        let any: IpAddr = if to.is_ipv4() { [0; 4].into() } else { [0u16; 8].into() };
        let datagrams = near.run(|| UdpSocket::bind((any, 0))).unwrap().unwrap();
        datagrams.connect(to).unwrap();
        datagrams.set_read_timeout(Some(PATIENCE)).unwrap();
        // The first may be lost, while the way to the outside is looked for that nobody took so far.
        let hears = || {
            let _ = datagrams.send(b"hello");
            let (_, from) = self.datagrams.recv_from(&mut [0; 64]).ok()?;
            (from.ip().to_canonical().is_ipv4() == to.is_ipv4()).then_some(from)
        };
        let from = (0..TRIES).find_map(|_| hears()).unwrap_or_else(|| {
            let stands = self.node.sh("ip rule; ip -6 rule; ip neigh; ip -6 neigh; nft list tables");
            panic!("the far end at {to} hears nothing of the client; its node has {stands:?}")
        });
        let connect = || {
            let near = near.run(|| TcpStream::connect(to)).unwrap().unwrap();
            let (far, seen) = self.listener.accept().unwrap();
            near.set_read_timeout(Some(PATIENCE)).unwrap();
            assert_eq!(seen.ip().to_canonical(), own, "it should have begun while nobody decided");
            (near, far)
        };
        assert_eq!(from.ip().to_canonical(), own, "it should have begun while nobody decided");
        Begun { datagrams, from, talk: connect(), closed: connect() }
    }
}

impl Begun {
    /// The far end speaks first on all of them, and the client answers, if it can.
    fn goes_on(self, far: &FarEnd) {
        far.datagrams.send_to(b"news", self.from).unwrap();
        self.datagrams.recv(&mut [0; 64]).unwrap();
        self.datagrams.send(b"indeed").unwrap();
        let (mut near, mut there) = self.talk;
        there.write_all(b"news").unwrap();
        let _ = near.read(&mut [0; 64]);
        let _ = near.write_all(b"indeed");
        let (near, mut there) = self.closed;
        drop(near);
        std::thread::sleep(Duration::from_millis(20));
        let _ = there.write_all(b"news");
        // What nobody acknowledges is sent again after 200 ms, and after 400 more.
        std::thread::sleep(Duration::from_millis(700));
    }
}

/// The agent hears of the flush late, as on a busy machine; so whole connections begin, where else it is a packet or two.
#[test]
fn what_began_while_the_ruleset_was_flushed_shows_no_address_of_its_pod_when_it_is_back() {
    let lab = Lab::raise(2);
    let agents = lab.agents();
    let gateway = lab.gateway(1, "red");
    let client = lab.client(2, "cart");
    eventually("the gateway is used", || leaves_by(&lab, &client, &gateway));
    // It takes the client's plan up a moment later than the plugin makes it.
    eventually("the agent has looked", || {
        let tables = lab.node(2).sh("nft list tables").unwrap();
        tables.contains(TRACKING_TABLE) && lab.differs(2).is_empty()
    });
    let far = FarEnd::of(&lab, &client);
    let near = client.place().netns().unwrap();
    let flushes = || agents[1].state().unwrap().ruleset_flushes.times;
    let before = flushes();
    // Whoever is stopped in the middle of a look may have clients braked, and then nothing begins.
    let braked = || lab.node(2).sh("ip rule; ip -6 rule").unwrap().contains("790:");
    eventually("the agent stops while nobody is braked", || {
        agents[1].signal(Signal::SIGSTOP);
        let free = !braked();
        if !free {
            agents[1].signal(Signal::SIGCONT);
        }
        free
    });
    lab.node(2).sh("nft flush ruleset").unwrap();
    let begun = outside().map(|to| {
        let own = client.address(egret::addr::Family::of(to)).unwrap();
        far.meets(&near, to, own)
    });
    agents[1].signal(Signal::SIGCONT);
    eventually("the rules are back", || flushes() > before);
    eventually("and clients are let go", || !braked());
    let capture = lab.capture().unwrap();
    begun.into_iter().for_each(|flows| flows.goes_on(&far));
    for to in outside() {
        assert_eq!(client.udp(to).unwrap(), lab.lease(&gateway, egret::addr::Family::of(to)));
    }
    capture.assert_clean(&[&client]);
}
