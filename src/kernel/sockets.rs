//! Who talks with whom from one namespace, and who began it: asked of the kernel's own sockets, where nobody tracked their packets.
//!
//! In: a namespace. Out: each TCP connection and each connected UDP socket as a flow with a direction. Never: changes anything, or
//! knows what a flow is looked for. Sockets that are not connected say nothing, and what other namespaces send through this one has
//! no socket in it. The format: sock_diag(7), linux/inet_diag.h.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use netlink_packet_core::NetlinkSerializable;
use netlink_sys::protocols::NETLINK_SOCK_DIAG;

use super::netlink::{Refusal, Socket};
use super::netns::Netns;
use crate::addr::Family;

const SOCK_DIAG_BY_FAMILY: u16 = 20;
/// Length of `struct inet_diag_req_v2`.
const QUESTION: usize = 56;
/// States of TCP sockets (net/tcp_states.h), as UDP sockets have them, too.
const ESTABLISHED: u8 = 1;
const LISTEN: u8 = 10;
/// Those in which the far end may be answered: FIN-WAIT-1 and 2, TIME-WAIT, CLOSE-WAIT, LAST-ACK, CLOSING. Who still waits for the first
/// answer is not among them: it makes no entry.
const CLOSING: [u8; 6] = [4, 5, 6, 8, 9, 11];

/// What carries a flow that has ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Carrier {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Carrier {
    /// Both.
    pub const ALL: [Carrier; 2] = [Carrier::Tcp, Carrier::Udp];

    /// Its number in IP's header.
    pub fn number(self) -> u8 {
        match self {
            Carrier::Tcp => 6,
            Carrier::Udp => 17,
        }
    }
}

/// A flow, in the direction of its first packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Opened {
    /// What carries it.
    pub carrier: Carrier,
    /// Who opened it.
    pub from: SocketAddr,
    /// To whom.
    pub to: SocketAddr,
}

impl Opened {
    /// The same, had the other end opened it.
    #[must_use]
    pub fn reversed(self) -> Opened {
        Opened { from: self.to, to: self.from, ..self }
    }
}

/// One socket, as the kernel tells of it. An address of IPv4 that an IPv6 socket has is one of IPv4.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seen {
    state: u8,
    here: SocketAddr,
    there: SocketAddr,
}

/// Flows of a namespace's sockets of one kind, each with its address in there. A TCP connection at an address and port where somebody
/// listens was opened by the far end; all else is taken for opened from here.
///
/// # Errors
/// The kernel's refusal, or the system's: the namespace cannot be entered.
pub fn flows(netns: &Netns, carrier: Carrier) -> Result<Vec<(IpAddr, Opened)>, Refusal> {
    let mut socket = Socket::of(netns, NETLINK_SOCK_DIAG).map_err(|error| Refusal::of(&error))?;
    let mut seen = Vec::new();
    for family in Family::BOTH {
        let answer = socket.dump(&Question::of(carrier, family))?;
        seen.extend(answer.iter().filter_map(socket_of));
    }
    Ok(directed(carrier, &seen))
}

fn directed(carrier: Carrier, seen: &[Seen]) -> Vec<(IpAddr, Opened)> {
    let listening: BTreeSet<SocketAddr> =
        seen.iter().filter(|socket| socket.state == LISTEN).map(|socket| socket.here).collect();
    let any = [IpAddr::from(Ipv4Addr::UNSPECIFIED), Ipv6Addr::UNSPECIFIED.into()];
    let serves = |here: SocketAddr| {
        any.into_iter().chain([here.ip()]).any(|ip| listening.contains(&SocketAddr::new(ip, here.port())))
    };
    let connected = seen.iter().filter(|socket| socket.state != LISTEN && socket.there.port() != 0);
    let flow = |socket: &Seen| {
        let own = Opened { carrier, from: socket.here, to: socket.there };
        (socket.here.ip(), if serves(socket.here) { own.reversed() } else { own })
    };
    connected.map(flow).collect()
}

/// `struct inet_diag_msg`: family, state, two bytes, then ports and addresses in network order.
fn socket_of(message: &[u8]) -> Option<Seen> {
    let family = i32::from(*message.first()?);
    let end = |port: usize, address: usize| {
        let port = u16::from_be_bytes(message.get(port..port + 2)?.try_into().ok()?);
        let bytes: [u8; 16] = message.get(address..address + 16)?.try_into().ok()?;
        let ip = match family {
            libc::AF_INET => Ipv4Addr::new(bytes[0], bytes[1], bytes[2], bytes[3]).into(),
            libc::AF_INET6 => IpAddr::from(Ipv6Addr::from(bytes)).to_canonical(),
            _ => return None,
        };
        Some(SocketAddr::new(ip, port))
    };
    Some(Seen { state: *message.get(1)?, here: end(4, 8)?, there: end(6, 24)? })
}

/// `struct inet_diag_req_v2`: family, protocol, what is told besides, padding, states, and a socket that stands for all.
#[derive(Debug, Clone)]
struct Question([u8; QUESTION]);

impl Question {
    fn of(carrier: Carrier, family: Family) -> Question {
        let mut bytes = [0; QUESTION];
        bytes[0] = match family {
            Family::V4 => libc::AF_INET as u8,
            Family::V6 => libc::AF_INET6 as u8,
        };
        bytes[1] = carrier.number();
        let closing = CLOSING.iter().fold(1 << LISTEN, |mask: u32, state| mask | 1 << state);
        let besides = if carrier == Carrier::Tcp { closing } else { 0 };
        bytes[4..8].copy_from_slice(&(1 << ESTABLISHED | besides).to_ne_bytes());
        Question(bytes)
    }
}

impl NetlinkSerializable for Question {
    fn message_type(&self) -> u16 {
        SOCK_DIAG_BY_FAMILY
    }
    fn buffer_len(&self) -> usize {
        QUESTION
    }
    fn serialize(&self, buffer: &mut [u8]) {
        buffer[..QUESTION].copy_from_slice(&self.0);
    }
}

#[cfg(test)]
mod tests;
