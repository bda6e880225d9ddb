//! Who cheats: pods that send with another's address, forge the tunnel's traffic, or send what conntrack does not track; and a node that
//! takes another's replies.
//!
//! In: a lab. Out: what was sent, and how much of it arrived as what it is not. Never: says which belts are for it.

use std::net::{IpAddr, UdpSocket};
use std::path::PathBuf;
use std::time::Duration;

use egret::addr::Family;
use egret::egress::numbers::node_mac;
use egret::kernel::Netns;
use egret::testbed::{Capture, Outside, Pod, node_address};

use crate::lab::Lab;
use crate::traffic::{Sender, WAIT};

/// A pod sends from an address that is another's. `nodad`: also an IPv6 address on `lo` cannot be bound until a work queue of the kernel
/// has had its turn, which on a busy machine is later than the next line (for IPv4 the word says nothing).
pub(crate) fn borrowed(thief: &Pod, stolen: IpAddr) {
    thief.place().sh(&format!("ip address replace {stolen} dev lo nodad")).unwrap();
    sends(thief, stolen);
    thief.place().sh(&format!("ip address del {stolen} dev lo")).unwrap();
}

/// A pod of the gateway's node sends from the lease: a new flow, and resets of no connection, which meet no NAT. Its primary hides its own
/// pods alone, where that of these tests hides whatever leaves by the uplink. Gives how much left with the lease.
pub(crate) fn leased(lab: &Lab, thief: &Pod, capture: &Capture) -> usize {
    let [v4, v6] = Family::BOTH.map(|family| lab.lease(family));
    let narrow = format!(
        "table inet narrow {{ chain post {{ type nat hook postrouting priority 50;\n\
         ip saddr {v4} snat ip to {v4}\nip6 saddr {v6} snat ip6 to {v6}\n}}; }}"
    );
    lab.node(thief.node).feed("nft", &["-f", "-"], &narrow).unwrap();
    for lease in [v4, v6] {
        borrowed(thief, lease);
    }
    lab.node(thief.node).sh("nft delete table inet narrow").unwrap();
    let resets = format!(
        "import socket, struct\n\
         reset = struct.pack('!HHIIBBHHH', 4444, {}, 1, 0, 0x50, 4, 0, 0, 0)\n\
         for kind, own, to in ((socket.AF_INET, '{v4}', '{}'), (socket.AF_INET6, '{v6}', '{}')):\n\
         \x20   s = socket.socket(kind, socket.SOCK_RAW, socket.IPPROTO_TCP)\n\
         \x20   s.bind((own, 0))\n\
         \x20   s.sendto(reset, (to, 0))\n",
        thief.port(),
        Lab::outside_address(Family::V4),
        Lab::outside_address(Family::V6),
    );
    let lo = |verb: &str| {
        thief.place().sh(&format!("ip address {verb} {v4} dev lo; ip address {verb} {v6} dev lo nodad"))
    };
    lo("replace").unwrap();
    thief.place().feed("python3", &["-"], &resets).unwrap();
    lo("del").unwrap();
    std::thread::sleep(Duration::from_millis(30));
    thefts(lab, thief, capture)
}

/// A pod sends what node 2 would send for a client, to the gateway at this address of its node. Gives how much left with the lease.
pub(crate) fn forged(lab: &Lab, thief: &Pod, to: IpAddr, capture: &Capture) -> usize {
    let gateway = lab.endpoint();
    let own = thief.place().sh("ip -4 -o address show dev lo scope global").unwrap();
    let local = own.split_whitespace().nth(3).and_then(|ip| Some(format!("local {}", ip.split_once('/')?.0)));
    let lines = format!(
        "ip link add forged type vxlan id {} {} remote {to} dstport 4790 nolearning\n\
         ip link set forged address {} up\nip addr add 10.60.2.99/32 dev forged\n\
         ip neigh add 169.254.9.9 lladdr {} dev forged nud permanent\n\
         ip route add 198.51.100.100 via 169.254.9.9 dev forged onlink",
        gateway.vni,
        local.unwrap_or_default(),
        node_mac([172, 30, 0, 2].into()),
        gateway.mac,
    );
    thief.place().sh(&lines).unwrap();
    sends(thief, [10, 60, 2, 99].into());
    thief.place().sh("ip link del forged").unwrap();
    thefts(lab, thief, capture)
}

/// Clients send what conntrack does not track: of its own accord some of ICMPv6, and by somebody's rule all of IPv4.
pub(crate) fn untracked(lab: &Lab, senders: &mut [Sender], capture: &Capture) -> usize {
    let raw = format!(
        "import socket, struct\n\
         s = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)\n\
         s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, 64)\n\
         for kind in (130, 134, 135, 143): s.sendto(struct.pack('!BBHI', kind, 0, 0, 0) + b'payload', ('{}', 0))\n",
        Lab::outside_address(Family::V6)
    );
    for pod in &lab.clients {
        pod.place().feed("python3", &["-"], &raw).unwrap();
    }
    let line = "table ip foreign { chain raw { type filter hook prerouting priority -300; notrack; }; }";
    lab.nodes().for_each(|node| drop(node.sh(&format!("nft '{line}'")).unwrap()));
    for _ in 0..2 {
        senders.iter_mut().for_each(Sender::lively_round);
        std::thread::sleep(Duration::from_millis(5));
    }
    lab.nodes().for_each(|node| drop(node.sh("nft delete table ip foreign").unwrap()));
    capture.packets().iter().filter(|packet| lab.is_clients(packet.source)).count()
}

/// A thief sends to its own port outside, from an address that is not its own.
fn sends(thief: &Pod, from: IpAddr) {
    let to = (Lab::outside_address(Family::of(from)), thief.port());
    let netns = Netns::open(thief.place().path()).unwrap();
    let socket = netns.run(|| UdpSocket::bind((from, 0))).unwrap().unwrap();
    for _ in 0..3 {
        let _ = socket.send_to(b"mine", to);
    }
    std::thread::sleep(Duration::from_millis(30));
}

/// Packets of a thief that left with a lease.
pub(crate) fn thefts(lab: &Lab, thief: &Pod, capture: &Capture) -> usize {
    let leases = Family::BOTH.map(|family| lab.lease(family));
    capture.sources_of(thief).iter().filter(|(ip, _)| leases.contains(ip)).map(|(_, n)| n).sum()
}

/// Node 2 pretends to be the far end of a flow of node 1's client, and sends one datagram of it by the tunnel. Gives how many of the
/// far end's own datagrams no longer find the client afterwards, as they went to node 2, and how many of node 2's did.
pub(crate) fn reply_by_tunnel(lab: &Lab) -> usize {
    let (gateway, lease) = (lab.endpoint(), lab.lease(Family::V4));
    let open = |path: PathBuf| Netns::open(path).unwrap();
    let bind = |netns: &Netns, at: (IpAddr, u16)| netns.run(|| UdpSocket::bind(at)).unwrap().unwrap();
    let outside = Lab::outside_address(Family::V4);
    let far = bind(&open(lab.outside(Outside::Near).path()), (outside, 0));
    let near = bind(&open(lab.clients[0].place().path()), ([0, 0, 0, 0].into(), 0));
    far.set_read_timeout(Some(WAIT)).unwrap();
    near.send_to(b"hello", far.local_addr().unwrap()).unwrap();
    let (_, from) = far.recv_from(&mut [0; 9]).unwrap();
    assert_eq!(from.ip(), lease);

    let forged = format!(
        "ip link add forged type vxlan id {} remote {} dstport 4790 nolearning\n\
         ip link set forged address {} up\nip addr add {outside}/32 dev forged\n\
         ip neigh add 169.254.9.9 lladdr {} dev forged nud permanent\n\
         ip route add {lease} via 169.254.9.9 dev forged onlink",
        gateway.vni,
        node_address(1, Family::V4),
        node_mac([172, 30, 0, 2].into()),
        gateway.mac,
    );
    lab.node(2).sh(&forged).unwrap();
    let forger = bind(&open(lab.node(2).path()), far.local_addr().map(|at| (at.ip(), at.port())).unwrap());
    forger.send_to(b"forged", from).unwrap();
    // Where it arrives, it does so at the client.
    near.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    let mut answer = [0; 9];
    let forged = near.recv(&mut answer).is_ok();
    lab.node(2).sh("ip link del forged").unwrap();

    far.send_to(b"news", from).unwrap();
    near.set_read_timeout(Some(if forged { Duration::from_millis(500) } else { WAIT })).unwrap();
    let heard = near.recv(&mut answer).is_ok_and(|n| answer[..n] == *b"news");
    usize::from(forged) + usize::from(!heard)
}
