//! Every TCP segment between the outside and the cluster on the port that selected pods call, whoever sent it.
//!
//! In: a packet socket (packet(7)) in the outside's namespace. Out: sources, and what else was said on their flows. Never: believes a window
//! in which packets were dropped.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, setsockopt, socket, sockopt,
};

/// TCP's flags SYN and RST (RFC 9293, 3.1).
const SYN: u8 = 2;
const RESET: u8 = 4;
/// Hops that are left to what a node itself says, once the router has forwarded it. A pod's packet has been forwarded by its node too.
const NODES_OWN: u8 = 63;

/// What was seen.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wire(Arc<Mutex<Seen>>);

#[derive(Debug, Default)]
struct Seen {
    /// Packets by source, since it was last forgotten.
    sources: BTreeMap<IpAddr, usize>,
    /// By the address and port that the outside talks to; this is never forgotten.
    flows: BTreeMap<SocketAddr, Vec<Segment>>,
}

/// What one packet said.
#[derive(Debug, Clone, Copy)]
struct Segment {
    at: Instant,
    /// From the cluster, or from the outside.
    comes: bool,
    flags: u8,
    /// Hops left (TTL, hop limit) where it was seen.
    hops: u8,
    sequence: u32,
    acknowledged: u32,
}

impl Segment {
    /// TCP's answer to a segment that belongs to no connection, made by a node's kernel: the far end still speaks on a flow that the node gave
    /// its address once, when it had lost its rules or its pod was not selected yet. A pod's own reset has one hop fewer.
    fn is_nodes_own_reset(&self) -> bool {
        self.flags == RESET && self.hops == NODES_OWN
    }
}

impl Wire {
    /// Begins to look, in this thread's namespace, at TCP with this port outside.
    pub(crate) fn watch(&self, port: u16) {
        let all = SockProtocol::EthAll;
        let tap = socket(AddressFamily::Packet, SockType::Datagram, SockFlag::empty(), all).unwrap();
        setsockopt(&tap, sockopt::RcvBufForce, &(16 << 20)).unwrap();
        let seen = self.0.clone();
        std::thread::spawn(move || {
            let mut bytes = [0; 128];
            loop {
                let length = recv(tap.as_raw_fd(), &mut bytes, MsgFlags::MSG_TRUNC).unwrap();
                if let Some((peer, segment)) = read(&bytes[..length.min(128)], port) {
                    seen.lock().unwrap().note(peer, segment);
                }
                assert_eq!(dropped(&tap), 0, "the capture lost packets");
            }
        });
    }

    /// Sources, with how many packets each sent. A reset that a node's kernel says for itself is nobody's packet.
    pub(crate) fn sources(&self) -> BTreeMap<IpAddr, usize> {
        self.0.lock().unwrap().sources.clone()
    }

    /// All that was said on flows of sources that are none of these, since the beginning.
    pub(crate) fn flows_of_others(&self, these: &BTreeSet<String>) -> String {
        let seen = self.0.lock().unwrap();
        let others = seen.sources.keys().filter(|ip| !these.contains(&ip.to_string()));
        others.map(|ip| seen.story(*ip)).collect()
    }

    pub(crate) fn forget(&self) {
        self.0.lock().unwrap().sources.clear();
    }
}

impl Seen {
    fn note(&mut self, peer: SocketAddr, segment: Segment) {
        let flow = self.flows.entry(peer).or_default();
        // A port is used again: by a SYN that is not the one before said once more.
        if segment.flags == SYN && flow.first().is_some_and(|first| first.sequence != segment.sequence) {
            flow.clear();
        }
        flow.push(segment);
        if !segment.comes {
            return;
        }
        if segment.is_nodes_own_reset() {
            println!("a node's own reset:\n{}", Flow(&peer, flow));
        } else {
            *self.sources.entry(peer.ip()).or_default() += 1;
        }
    }

    fn story(&self, of: IpAddr) -> String {
        let flows = self.flows.iter().filter(|(peer, _)| peer.ip() == of);
        flows.map(|(peer, flow)| format!("\n{}", Flow(peer, flow))).collect()
    }
}

/// A flow as a person reads it.
struct Flow<'a>(&'a SocketAddr, &'a [Segment]);

impl fmt::Display for Flow<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Flow(peer, segments) = self;
        for Segment { at, comes, flags, hops, sequence, acknowledged } in *segments {
            let letters = "FSRPA".chars().enumerate().filter(|(bit, _)| flags & (1 << bit) != 0);
            let letters: String = letters.map(|(_, letter)| letter).collect();
            let (arrow, ago) = (if *comes { "→" } else { "←" }, at.elapsed());
            writeln!(
                f,
                "  {ago:.3?} ago {peer} {arrow} [{letters}] {sequence} ack {acknowledged}, {hops} hops left"
            )?;
        }
        Ok(())
    }
}

/// A TCP segment from or to this port outside, and whom the outside talks to with it.
fn read(packet: &[u8], port: u16) -> Option<(SocketAddr, Segment)> {
    let first = *packet.first()?;
    let v4 = |at: usize| Some(IpAddr::from(<[u8; 4]>::try_from(packet.get(at..at + 4)?).ok()?));
    let v6 = |at: usize| Some(IpAddr::from(<[u8; 16]>::try_from(packet.get(at..at + 16)?).ok()?));
    let (source, destination, protocol, hops, header) = match first >> 4 {
        4 => (v4(12)?, v4(16)?, packet.get(9)?, packet.get(8)?, usize::from(first & 15) * 4),
        6 => (v6(8)?, v6(24)?, packet.get(6)?, packet.get(7)?, 40),
        _ => return None,
    };
    let half =
        |at: usize| Some(u16::from_be_bytes(packet.get(header + at..header + at + 2)?.try_into().ok()?));
    let word =
        |at: usize| Some(u32::from_be_bytes(packet.get(header + at..header + at + 4)?.try_into().ok()?));
    let (from, to) = (half(0)?, half(2)?);
    let comes = to == port;
    let peer = if comes { SocketAddr::new(source, from) } else { SocketAddr::new(destination, to) };
    let flags = packet.get(header + 13)? & 0x1f;
    let (sequence, acknowledged) = (word(4)?, word(8)?);
    let segment = Segment { at: Instant::now(), comes, flags, hops: *hops, sequence, acknowledged };
    (*protocol == 6 && (comes || from == port)).then_some((peer, segment))
}

/// Packets that the kernel had no room for (`PACKET_STATISTICS`), since it was last asked.
fn dropped(tap: &OwnedFd) -> u32 {
    let mut counts = [0u32; 2];
    let mut length = libc::socklen_t::try_from(size_of_val(&counts)).unwrap();
    // SAFETY: the kernel writes at most `length` bytes into `counts`.
    let answer = unsafe {
        let into = (&raw mut counts).cast();
        libc::getsockopt(tap.as_raw_fd(), libc::SOL_PACKET, libc::PACKET_STATISTICS, into, &raw mut length)
    };
    assert_eq!(answer, 0);
    counts[1]
}

/// A check that cannot fail is none: of two resets the pod's counts, and so does whatever else a node's address sends.
#[test]
fn a_nodes_own_reset_is_nobodys_packet_and_a_pods_is_somebodys() {
    let packet = |hops: u8, flags: u8| {
        let mut packet = vec![0x45, 0, 0, 40, 0, 0, 0x40, 0, hops, 6, 0, 0, 172, 31, 0, 2, 203, 0, 113, 10];
        packet.extend([0x9c, 0x40, 0x1f, 0x90]);
        packet.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, flags, 0, 0, 0, 0, 0, 0]);
        packet
    };
    let counted = |hops: u8, flags: u8| {
        let (peer, segment) = read(&packet(hops, flags), 8080).unwrap();
        let mut seen = Seen::default();
        seen.note(peer, segment);
        seen.sources.len()
    };
    assert_eq!(counted(NODES_OWN, RESET), 0);
    assert_eq!(counted(NODES_OWN - 1, RESET), 1, "a pod's");
    assert_eq!(counted(NODES_OWN, SYN), 1);
    assert_eq!(
        counted(NODES_OWN, RESET | 16),
        1,
        "with ACK it is an answer to a SYN that should not have come"
    );
}
