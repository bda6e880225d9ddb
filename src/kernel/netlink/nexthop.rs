//! Nexthop objects (5.3), built by hand: `netlink-packet-route` has no message for them.
//!
//! Wire format: `linux/nexthop.h`. A group entry is id (4 bytes), weight − 1 (1 byte), 3 bytes of zero.

use std::net::IpAddr;

use netlink_packet_core::NetlinkSerializable;

use super::attributes::{behind, family_number, family_of, ip_of, octets, put, u16_of, u32_of};
use crate::addr::Family;
use crate::kernel::state::Nexthop;

const RTM_NEWNEXTHOP: u16 = 104;
const RTM_DELNEXTHOP: u16 = 105;
const RTM_GETNEXTHOP: u16 = 106;
const NHA_ID: u16 = 1;
const NHA_GROUP: u16 = 2;
const NHA_GROUP_TYPE: u16 = 3;
const NHA_BLACKHOLE: u16 = 4;
const NHA_OIF: u16 = 5;
const NHA_GATEWAY: u16 = 6;
const NHA_ENCAP_TYPE: u16 = 7;
const NHA_ENCAP: u16 = 8;
const NHA_FDB: u16 = 11;
const NHA_RES_GROUP: u16 = 12;
const RTNH_F_ONLINK: u32 = 4;
/// `struct nhmsg`: family, scope, protocol, reserved, flags.
const HEADER: usize = 8;

/// A request about nexthop objects.
#[derive(Debug, Clone)]
pub struct NexthopMessage {
    kind: u16,
    bytes: Vec<u8>,
}

impl NetlinkSerializable for NexthopMessage {
    fn message_type(&self) -> u16 {
        self.kind
    }
    fn buffer_len(&self) -> usize {
        self.bytes.len()
    }
    fn serialize(&self, buffer: &mut [u8]) {
        buffer[..self.bytes.len()].copy_from_slice(&self.bytes);
    }
}

fn message(kind: u16, family: u8, protocol: u8, flags: u32) -> NexthopMessage {
    let mut bytes = vec![family, 0, protocol, 0];
    bytes.extend_from_slice(&flags.to_ne_bytes());
    NexthopMessage { kind, bytes }
}

/// All nexthop objects.
pub fn list() -> NexthopMessage {
    message(RTM_GETNEXTHOP, 0, 0, 0)
}

/// Makes or replaces a nexthop; `index` is the one of the device of a `Via`, and not looked at otherwise.
pub fn set(id: u32, nexthop: &Nexthop, index: u32, protocol: u8) -> NexthopMessage {
    let (family, flags) = match nexthop {
        Nexthop::Via { gateway, .. } => (family_number(Family::of(*gateway)), RTNH_F_ONLINK),
        Nexthop::Blackhole { family } => (family_number(*family), 0),
        Nexthop::Group { .. } => (0, 0), // a group with a family is refused
    };
    let mut message = message(RTM_NEWNEXTHOP, family, protocol, flags);
    put(&mut message.bytes, NHA_ID, &id.to_ne_bytes());
    match nexthop {
        Nexthop::Via { gateway, .. } => {
            put(&mut message.bytes, NHA_OIF, &index.to_ne_bytes());
            put(&mut message.bytes, NHA_GATEWAY, &octets(*gateway));
        }
        Nexthop::Blackhole { .. } => put(&mut message.bytes, NHA_BLACKHOLE, &[]),
        Nexthop::Group { members, .. } => {
            let mut group = Vec::with_capacity(members.len() * 8);
            for member in members {
                group.extend_from_slice(&member.to_ne_bytes());
                group.extend_from_slice(&[0; 4]);
            }
            put(&mut message.bytes, NHA_GROUP, &group);
        }
    }
    message
}

/// Deletes a nexthop. Groups lose the member; a group that becomes empty goes, and with it every route that uses it.
pub fn delete(id: u32) -> NexthopMessage {
    let mut message = message(RTM_DELNEXTHOP, 0, 0, 0);
    put(&mut message.bytes, NHA_ID, &id.to_ne_bytes());
    message
}

/// A nexthop object as the kernel has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// Its number.
    pub id: u32,
    /// Who made it.
    pub protocol: u8,
    /// What it does.
    pub shape: Shape,
}

/// What a nexthop object does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shape {
    /// `via gateway dev index onlink`
    Via(IpAddr, u32),
    /// Members of weight 1; the family is that of the members.
    Group(Vec<u32>),
    /// `blackhole`
    Blackhole(Family),
    /// Anything that we do not make.
    Other,
}

/// Reads `RTM_NEWNEXTHOP`.
pub fn read(payload: &[u8]) -> Option<Object> {
    let protocol = *payload.get(2)?;
    let onlink = u32_of(payload.get(4..)?)? & RTNH_F_ONLINK != 0;
    let (mut id, mut index, mut gateway, mut group, mut blackhole, mut other) =
        (0, None, None, None, false, false);
    for attribute in behind(payload, HEADER) {
        match attribute.kind {
            NHA_ID => id = u32_of(attribute.value)?,
            NHA_GROUP => {
                group = members(attribute.value);
                other |= group.is_none();
            }
            NHA_GROUP_TYPE => other |= u16_of(attribute.value)? != 0,
            NHA_BLACKHOLE => blackhole = true,
            NHA_OIF => index = u32_of(attribute.value),
            NHA_GATEWAY => gateway = ip_of(attribute.value),
            NHA_ENCAP_TYPE | NHA_ENCAP | NHA_FDB | NHA_RES_GROUP => other = true,
            _ => {} // newer kernels add flags of their own to every dump
        }
    }
    let shape = match (group, blackhole, gateway, index) {
        _ if other => Shape::Other,
        (Some(members), ..) => Shape::Group(members),
        (None, true, ..) => family_of(payload[0]).map_or(Shape::Other, Shape::Blackhole),
        (None, false, Some(gateway), Some(index)) if onlink => Shape::Via(gateway, index),
        _ => Shape::Other,
    };
    Some(Object { id, protocol, shape })
}

/// The ids of a group, if all weights are 1.
fn members(value: &[u8]) -> Option<Vec<u32>> {
    value.chunks_exact(8).map(|entry| (entry[4..] == [0; 4]).then(|| u32_of(entry)).flatten()).collect()
}
