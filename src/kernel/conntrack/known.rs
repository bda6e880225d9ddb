//! Entries for flows that nobody tracked, made by us: then the direction of each is what it was, whoever speaks next.
//!
//! In: flows. Out: an entry of each. Never: knows a NAT binding; none was made for a flow that nobody tracked.

use std::net::{IpAddr, SocketAddr};

use super::entry::{DELETE, NEW, PROTO_SOURCE_PORT, PROTOCOL_STATE, TUPLE_PROTO, TUPLE_REPLY};
use super::{Error, SUBSYSTEM, TUPLE_IP, TUPLE_ORIG, each, open};
use crate::kernel::nfnetlink::{CREATE, EXCLUSIVE, Request};
use crate::kernel::sockets::{Carrier, Opened};

const STATUS: u16 = 3;
const TIMEOUT: u16 = 7;
const PROTO_NUMBER: u16 = 1;
const PROTO_DESTINATION_PORT: u16 = 3;

/// Bits of `enum ip_conntrack_status` (linux/netfilter/nf_conntrack_common.h).
const SEEN_REPLY: u32 = 1 << 1;
const ASSURED: u32 = 1 << 2;
const CONFIRMED: u32 = 1 << 3;
const FIXED_TIMEOUT: u32 = 1 << 10;
/// Seconds that the kernel itself remembers a TCP connection on which nobody speaks.
const LIFE: u32 = 432_000;

/// Makes an entry of each flow, as of one that both ends have spoken on; what stood there before goes, which way round it ever was.
/// Each lives as long as a connection on which nobody speaks: TCP's from its last packet on as any, UDP's from now on, because its
/// peers may be silent for longer than the kernel remembers a datagram.
///
/// # Errors
/// As [`super::judge`]; the others were made.
pub fn remember(flows: &[Opened]) -> Result<(), Error> {
    if flows.is_empty() {
        return Ok(());
    }
    // One after the other, so that of each nothing stands there for some microseconds only: its next packet makes an entry, too.
    let requests = flows.iter().flat_map(|flow| [about(DELETE, 0, *flow), made(*flow)]).collect();
    let expected = [libc::ENOENT, libc::EEXIST];
    each(&mut open()?, ("make", flows.len()), requests, &expected).map(drop)
}

fn about(message: u16, flags: u16, flow: Opened) -> Request {
    let family = if flow.from.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    let mut request = Request::new(SUBSYSTEM, message, flags, family as u8);
    put_tuple(&mut request, TUPLE_ORIG, flow);
    request
}

fn made(flow: Opened) -> Request {
    let mut request = about(NEW, CREATE | EXCLUSIVE, flow);
    put_tuple(&mut request, TUPLE_REPLY, flow.reversed());
    let fixed = if flow.carrier == Carrier::Udp { FIXED_TIMEOUT } else { 0 };
    request.put_u32(STATUS, CONFIRMED | SEEN_REPLY | ASSURED | fixed).put_u32(TIMEOUT, LIFE);
    if flow.carrier == Carrier::Tcp {
        request.nest(PROTOCOL_STATE, established);
    }
    request
}

/// TCP that is in no state to be judged by its windows: nobody saw its handshake (linux/netfilter/nf_conntrack_tcp.h).
fn established(state: &mut Request) {
    const TCP: u16 = 1;
    const STATE: u16 = 1;
    const FLAGS: [u16; 2] = [4, 5];
    const ESTABLISHED: u8 = 3;
    const LIBERAL: u8 = 0x08;
    state.nest(TCP, |tcp| {
        tcp.put(STATE, &[ESTABLISHED]);
        for direction in FLAGS {
            tcp.put(direction, &[LIBERAL, LIBERAL]);
        }
    });
}

fn put_tuple(request: &mut Request, kind: u16, Opened { carrier, from, to }: Opened) {
    let port = |end: SocketAddr| end.port().to_be_bytes();
    request.nest(kind, |tuple| {
        tuple.nest(TUPLE_IP, |ip| {
            for (end, v4, v6) in [(from, 1, 3), (to, 2, 4)] {
                match end.ip() {
                    IpAddr::V4(address) => ip.put(v4, &address.octets()),
                    IpAddr::V6(address) => ip.put(v6, &address.octets()),
                };
            }
        });
        tuple.nest(TUPLE_PROTO, |protocol| {
            protocol.put(PROTO_NUMBER, &[carrier.number()]);
            protocol.put(PROTO_SOURCE_PORT, &port(from)).put(PROTO_DESTINATION_PORT, &port(to));
        });
    });
}

#[cfg(test)]
mod tests;
