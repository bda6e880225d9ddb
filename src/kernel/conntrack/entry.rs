//! One entry of conntrack, as the kernel lists it, and the requests about just that entry.
//!
//! In: the attributes of a reply. Out: addresses, marks, requests. Never: asks the kernel.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{Flow, MARK, MARK_MASK, SUBSYSTEM, TUPLE_IP, TUPLE_ORIG};
use crate::kernel::nfnetlink::{Attributes, Request};

pub(super) const NEW: u16 = 0;
pub(super) const DELETE: u16 = 2;
pub(super) const TUPLE_REPLY: u16 = 2;
pub(super) const PROTOCOL_STATE: u16 = 4;
const ID: u16 = 12;
const ZONE: u16 = 18;
pub(super) const TUPLE_PROTO: u16 = 2;
pub(super) const PROTO_SOURCE_PORT: u16 = 2;

/// One flow.
pub(super) struct Entry<'a> {
    pub(super) family: u8,
    pub(super) attributes: Attributes<'a>,
}

impl Entry<'_> {
    pub(super) fn source(&self) -> Option<IpAddr> {
        source_of(self.attributes.inside(TUPLE_ORIG))
    }

    pub(super) fn source_port(&self) -> Option<u16> {
        let bytes = self.attributes.inside(TUPLE_ORIG).inside(TUPLE_PROTO).get(PROTO_SOURCE_PORT)?;
        bytes.try_into().ok().map(u16::from_be_bytes)
    }

    pub(super) fn mark(&self) -> u32 {
        self.attributes.u32(MARK).unwrap_or(0)
    }

    /// What it is judged by.
    pub(super) fn flow(&self) -> Option<Flow> {
        let source = self.source()?;
        Some(Flow {
            source,
            to: self.real_destination(),
            mark: self.mark(),
            bare: self.is_answered_at(source),
            established_tcp: self.is_established_tcp(),
        })
    }

    /// Where the packets go after DNAT is where the answers come from.
    fn real_destination(&self) -> Option<IpAddr> {
        source_of(self.attributes.inside(TUPLE_REPLY))
    }

    /// Whether the far end answers to this address: nobody translates it.
    fn is_answered_at(&self, source: IpAddr) -> bool {
        destination_of(self.attributes.inside(TUPLE_REPLY)) == Some(source)
    }

    /// TCP that went through its handshake and is not closed (enum tcp_conntrack of linux/netfilter/nf_conntrack_tcp.h).
    fn is_established_tcp(&self) -> bool {
        const ESTABLISHED_TO_LAST_ACK: std::ops::RangeInclusive<u8> = 3..=6;
        let state = self.attributes.inside(PROTOCOL_STATE).inside(1).get(1).and_then(<[u8]>::first);
        state.is_some_and(|state| ESTABLISHED_TO_LAST_ACK.contains(state))
    }

    /// A request that writes the bits `value` under `mask` into its mark.
    pub(super) fn marked(&self, (value, mask): (u32, u32)) -> Request {
        let mut request = self.request(NEW);
        request.put_u32(MARK, value & mask).put_u32(MARK_MASK, mask);
        request
    }

    /// A request that deletes it. The tuple may belong to a new flow by the time the kernel looks; the id tells them apart.
    pub(super) fn deleted(&self) -> Request {
        let mut request = self.request(DELETE);
        if let Some(id) = self.attributes.get(ID) {
            request.put(ID, id);
        }
        request
    }

    /// A request about just this entry.
    fn request(&self, message: u16) -> Request {
        let mut request = Request::new(SUBSYSTEM, message, 0, self.family);
        request.put_nested(TUPLE_ORIG, self.attributes.get(TUPLE_ORIG).unwrap_or_default());
        if let Some(zone) = self.attributes.get(ZONE) {
            request.put(ZONE, zone);
        }
        request
    }
}

fn source_of(tuple: Attributes<'_>) -> Option<IpAddr> {
    address_of(tuple, 1, 3)
}

fn destination_of(tuple: Attributes<'_>) -> Option<IpAddr> {
    address_of(tuple, 2, 4)
}

fn address_of(tuple: Attributes<'_>, v4: u16, v6: u16) -> Option<IpAddr> {
    let ip = tuple.inside(TUPLE_IP);
    let v4 = ip.get(v4).and_then(|bytes| <[u8; 4]>::try_from(bytes).ok());
    let v6 = ip.get(v6).and_then(|bytes| <[u8; 16]>::try_from(bytes).ok());
    v4.map(|bytes| IpAddr::V4(Ipv4Addr::from(bytes))).or(v6.map(|bytes| IpAddr::V6(Ipv6Addr::from(bytes))))
}
