//! One captured IP packet, read from its first bytes.
//!
//! In: bytes from the network header on. Out: addresses, protocol, ports, and the *service* it belongs to: the outside
//! port (or ICMP echo id) by which it can be given to a pod whatever happened to its source. Never: touches a socket.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// IP protocol numbers.
const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const FRAGMENT6: u8 = 44;
const ICMP6: u8 = 58;

/// TCP's flag (RFC 9293, 3.1).
const RST: u8 = 4;
/// Hops that a kernel gives what it sends (`ip_default_ttl`, IPv6 `hop_limit`).
const HOPS: u8 = 64;

/// Stands in an echo request's data before the id that its pod gave it: a NAT that finds a header's id in use gives another.
pub(super) const ECHO_OF: &[u8; 6] = b"egret:";

/// Where a packet was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Spot {
    /// Coming in at the router from the nodes: also what the router would drop.
    Router,
    /// Coming in at `outside`.
    Outside,
    /// Coming in at `far`.
    Far,
}

/// A packet on its way out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    /// Where it was seen.
    pub spot: Spot,
    /// Source as it was there.
    pub source: IpAddr,
    /// Destination.
    pub destination: IpAddr,
    /// IP protocol number, behind IPv6 extension headers.
    pub protocol: u8,
    /// Source and destination port, where there are any.
    pub ports: Option<(u16, u16)>,
    /// TCP flags, else 0.
    pub flags: u8,
    /// Hops left (TTL, hop limit) where it was seen. What a node itself says has passed one router fewer than what a pod says.
    pub hops: u8,
    /// TCP and UDP: destination port. Echo request: the id that its pod gave it. ICMP error: the outside port of the packet it quotes.
    /// `None` for anything else.
    pub service: Option<u16>,
    /// An ICMP error: where the packet it quotes was going.
    pub about: Option<IpAddr>,
}

/// Fragments after the first carry no ports; the first of their datagram did.
pub(super) type Fragments = HashMap<(Spot, IpAddr, IpAddr, u32), (Option<(u16, u16)>, Option<u16>)>;

/// The network header, taken apart.
struct Header {
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    hops: u8,
    /// Offset of what follows.
    length: usize,
    /// Datagram id, whether this is its first fragment, if it is a fragment at all.
    fragment: Option<(u32, bool)>,
}

/// Reads a packet; `None` for what is not IP or is cut off before the addresses.
pub(super) fn read(spot: Spot, bytes: &[u8], fragments: &mut Fragments) -> Option<Packet> {
    let header = read_header(bytes)?;
    let payload = bytes.get(header.length..).unwrap_or(&[]);
    let key = |id| (spot, header.source, header.destination, id);
    let (ports, service) = match header.fragment {
        Some((id, false)) => fragments.get(&key(id)).copied().unwrap_or((None, None)),
        Some((id, true)) => {
            let known = read_ports(header.protocol, payload);
            fragments.insert(key(id), known);
            known
        }
        None => read_ports(header.protocol, payload),
    };
    let later = matches!(header.fragment, Some((_, false)));
    let flags = if header.protocol == TCP && !later { payload.get(13).copied().unwrap_or(0) } else { 0 };
    let Header { source, destination, protocol, hops, .. } = header;
    let about = quoted(protocol, payload).and_then(read_header).map(|quoted| quoted.destination);
    Some(Packet { spot, source, destination, protocol, ports, flags, hops, service, about })
}

fn read_header(bytes: &[u8]) -> Option<Header> {
    match bytes.first()? >> 4 {
        4 => {
            let word = |at: usize| Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]));
            let address =
                |at: usize| Some(Ipv4Addr::from_octets(bytes.get(at..at + 4)?.try_into().ok()?).into());
            let (id, place) = (u32::from(word(4)?), word(6)?);
            let fragment = (place & 0x3fff != 0).then_some((id, place & 0x1fff == 0));
            let length = usize::from(bytes.first()? & 0xf) * 4;
            Some(Header {
                source: address(12)?,
                destination: address(16)?,
                protocol: *bytes.get(9)?,
                hops: *bytes.get(8)?,
                length,
                fragment,
            })
        }
        6 => {
            let address =
                |at: usize| Some(Ipv6Addr::from_octets(bytes.get(at..at + 16)?.try_into().ok()?).into());
            let (mut protocol, mut length, mut fragment) = (*bytes.get(6)?, 40, None);
            // Hop-by-hop, routing, destination options, fragment.
            while let (0 | 43 | 60 | FRAGMENT6, Some(next)) = (protocol, bytes.get(length..length + 8)) {
                if protocol == FRAGMENT6 {
                    let place = u16::from_be_bytes([next[2], next[3]]);
                    let id = u32::from_be_bytes([next[4], next[5], next[6], next[7]]);
                    fragment = (place & 0xfff9 != 0).then_some((id, place & 0xfff8 == 0));
                    length += 8;
                } else {
                    length += 8 + 8 * usize::from(next[1]);
                }
                protocol = next[0];
                if matches!(fragment, Some((_, false))) {
                    break;
                }
            }
            let (source, destination, hops) = (address(8)?, address(24)?, *bytes.get(7)?);
            Some(Header { source, destination, protocol, hops, length, fragment })
        }
        _ => None,
    }
}

/// Ports, and the service they say.
fn read_ports(protocol: u8, payload: &[u8]) -> (Option<(u16, u16)>, Option<u16>) {
    let word = |at: usize| Some(u16::from_be_bytes([*payload.get(at)?, *payload.get(at + 1)?]));
    match (protocol, payload.first()) {
        (TCP | UDP, _) => {
            let ports = word(0).zip(word(2));
            (ports, ports.map(|(_, to)| to))
        }
        (ICMP, Some(8)) | (ICMP6, Some(128)) => (None, echo_id(payload)),
        _ => (None, quoted(protocol, payload).and_then(quoted_service)),
    }
}

/// What an error quotes: destination unreachable, time exceeded, parameter problem; in IPv6 also packet too big.
fn quoted(protocol: u8, payload: &[u8]) -> Option<&[u8]> {
    match (protocol, payload.first()) {
        (ICMP, Some(3 | 11 | 12)) | (ICMP6, Some(1..=4)) => payload.get(8..),
        _ => None,
    }
}

/// An error that leaves quotes a packet that came in: there the outside's port is the source, and an echo is a reply.
fn quoted_service(quoted: &[u8]) -> Option<u16> {
    let header = read_header(quoted)?;
    let payload = quoted.get(header.length..)?;
    let word = |at: usize| Some(u16::from_be_bytes([*payload.get(at)?, *payload.get(at + 1)?]));
    match (header.protocol, payload.first()) {
        (TCP | UDP, _) => word(0),
        (ICMP, Some(0)) | (ICMP6, Some(129)) => echo_id(payload),
        _ => None,
    }
}

/// Whose echo this is: in the data of those that our pods send (after eight bytes for the answering side), else in the header.
fn echo_id(message: &[u8]) -> Option<u16> {
    let told = message.get(16..24).filter(|told| told.starts_with(ECHO_OF));
    let id = told.and_then(|told| told.get(6..8)).or_else(|| message.get(4..6))?;
    Some(u16::from_be_bytes(id.try_into().ok()?))
}

impl Packet {
    /// TCP's answer to a segment that belongs to no connection (RFC 9293, 3.10.7.1: RST without ACK), made by a node's kernel: the far end still
    /// speaks on a flow that the node gave its address once, when it had lost its rules or its pod was not selected yet. A pod's own reset has
    /// been forwarded by its node too, so it has one hop fewer left.
    pub fn is_nodes_own_reset(&self) -> bool {
        let routers = if self.spot == Spot::Router { 0 } else { 1 };
        self.protocol == TCP && self.flags == RST && self.hops == HOPS - routers
    }
}

impl fmt::Display for Packet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.protocol {
            ICMP => "icmp".to_owned(),
            TCP => "tcp".to_owned(),
            UDP => "udp".to_owned(),
            ICMP6 => "icmpv6".to_owned(),
            other => format!("protocol {other}"),
        };
        match self.ports {
            Some((from, to)) => write!(f, "{}.{from} → {}.{to} {name}", self.source, self.destination)?,
            None => write!(f, "{} → {} {name}", self.source, self.destination)?,
        }
        if self.flags != 0 {
            let letters = "FSRPA".chars().enumerate().filter(|(bit, _)| self.flags & (1 << bit) != 0);
            write!(f, " [{}]", letters.map(|(_, c)| c).collect::<String>())?;
        }
        if let (None, Some(service)) = (self.ports, self.service) {
            write!(f, " of {service}")?;
        }
        let spot = match self.spot {
            Spot::Router => "the router",
            Spot::Outside => "outside",
            Spot::Far => "far",
        };
        write!(f, ", seen at {spot}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v4(protocol: u8, place: u16, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0x45, 0, 0, 0, 0, 9];
        bytes.extend(place.to_be_bytes());
        bytes.extend([64, protocol, 0, 0, 10, 60, 1, 2, 198, 51, 100, 100]);
        bytes.extend(payload);
        bytes
    }

    #[test]
    fn a_tcp_packet_belongs_to_the_port_it_goes_to() {
        let mut segment = vec![0x9c, 0x40, 0x4e, 0x20];
        segment.extend([0; 9]);
        segment.push(0x02);
        let packet = read(Spot::Outside, &v4(TCP, 0x4000, &segment), &mut Fragments::new()).unwrap();
        assert_eq!(packet.service, Some(20000));
        assert_eq!(packet.to_string(), "10.60.1.2.40000 → 198.51.100.100.20000 tcp [S], seen at outside");
    }

    #[test]
    fn a_nodes_own_reset_is_nobodys_packet_and_a_pods_is_somebodys() {
        let is_nodes_own = |spot, hops: u8, flags: u8| {
            let mut segment = vec![0x9c, 0x40, 0x4e, 0x20];
            segment.extend([0; 9]);
            segment.push(flags);
            let mut bytes = v4(TCP, 0x4000, &segment);
            bytes[8] = hops;
            read(spot, &bytes, &mut Fragments::new()).unwrap().is_nodes_own_reset()
        };
        assert!(is_nodes_own(Spot::Outside, 63, RST) && is_nodes_own(Spot::Router, 64, RST));
        assert!(!is_nodes_own(Spot::Outside, 62, RST), "a pod's");
        assert!(!is_nodes_own(Spot::Router, 63, RST), "a pod's");
        assert!(!is_nodes_own(Spot::Outside, 63, 2), "a SYN");
        assert!(
            !is_nodes_own(Spot::Outside, 63, RST | 16),
            "with ACK it answers a SYN that should not have come"
        );
    }

    #[test]
    fn later_fragments_belong_where_the_first_did() {
        let mut fragments = Fragments::new();
        let datagram = [0x9c, 0x40, 0x4e, 0x20, 0, 0, 0, 0];
        read(Spot::Far, &v4(UDP, 0x2000, &datagram), &mut fragments).unwrap();
        let second = read(Spot::Far, &v4(UDP, 0x00b9, &[1, 2, 3, 4, 5, 6, 7, 8]), &mut fragments).unwrap();
        assert_eq!(second.service, Some(20000));
        let stray = read(Spot::Router, &v4(UDP, 0x00b9, &[1, 2, 3, 4]), &mut fragments).unwrap();
        assert_eq!(stray.service, None);
    }

    #[test]
    fn an_error_belongs_to_the_packet_it_quotes() {
        let mut error = vec![3, 4, 0, 0, 0, 0, 5, 20];
        error.extend(v4(UDP, 0, &[0x4e, 0x24, 0x9c, 0x40]));
        let packet = read(Spot::Outside, &v4(ICMP, 0, &error), &mut Fragments::new()).unwrap();
        assert_eq!((packet.ports, packet.service), (None, Some(20004)));
    }

    #[test]
    fn an_echo_belongs_to_the_id_in_its_data_whatever_a_nat_wrote_into_its_header() {
        let service =
            |message: &[u8]| read(Spot::Far, &v4(ICMP, 0, message), &mut Fragments::new()).unwrap().service;
        let mut ours = vec![8, 0, 0, 0, 0x4e, 0x20, 0, 1];
        assert_eq!(service(&ours), Some(20000), "somebody else's");
        ours.extend([0; 8]);
        ours.extend(ECHO_OF);
        ours.extend([0x80, 0xe9]);
        assert_eq!(service(&ours), Some(33001));
        ours[0] = 0;
        let mut error = vec![3, 1, 0, 0, 0, 0, 0, 0];
        error.extend(v4(ICMP, 0, &ours));
        assert_eq!(service(&error), Some(33001), "quoted");
    }

    #[test]
    fn noise_is_no_packet() {
        for bytes in [&[][..], &[0x45], &[0x60, 0, 0], &[0x12; 60]] {
            assert_eq!(read(Spot::Outside, bytes, &mut Fragments::new()), None);
        }
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_stumble(version in 4u8..7, bytes in proptest::collection::vec(0u8.., 0..256)) {
            let mut bytes = bytes;
            if let Some(first) = bytes.first_mut() {
                *first = version << 4 | (*first & 0xf);
            }
            if let Some(packet) = read(Spot::Far, &bytes, &mut Fragments::new()) {
                let _ = packet.to_string();
            }
        }
    }
}
