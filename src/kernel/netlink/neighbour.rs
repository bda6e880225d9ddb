//! Neighbours, proxy neighbours, and the forwarding entries of VXLAN devices: one message type for all three.

use std::net::IpAddr;

use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::attributes::{behind, family_number, ip_of, mac_of, u16_of, u32_of};
use crate::addr::{Family, Mac};
use crate::kernel::state::Remote;

/// `struct ndmsg`.
const HEADER: usize = 12;
/// `NUD_PERMANENT`.
const PERMANENT: u16 = 0x80;
const SELF: u8 = 0x02;

/// A neighbour, proxy neighbour or forwarding entry as the kernel has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Index of its device; 0 for a proxy on all devices.
    pub index: u32,
    /// Stays until it is deleted.
    pub permanent: bool,
    /// Belongs to the device itself, not to a bridge above it.
    pub own: bool,
    /// The neighbour's address, or the other node's in a forwarding entry.
    pub ip: Option<IpAddr>,
    /// Link-layer address.
    pub mac: Option<Mac>,
    /// VNI, where it differs from the device's.
    pub vni: Option<u32>,
    /// Who made it (`NDA_PROTOCOL`); 0 where nobody said.
    pub protocol: u8,
}

/// Reads `RTM_NEWNEIGH`.
pub fn read(payload: &[u8]) -> Option<Entry> {
    let mut entry = Entry {
        index: u32_of(payload.get(4..)?)?,
        permanent: u16_of(payload.get(8..)?)? & PERMANENT != 0,
        own: payload.get(10)? & SELF != 0,
        ip: None,
        mac: None,
        vni: None,
        protocol: 0,
    };
    for attribute in behind(payload, HEADER) {
        match attribute.kind {
            1 => entry.ip = ip_of(attribute.value),
            2 => entry.mac = mac_of(attribute.value),
            7 => entry.vni = u32_of(attribute.value),
            12 => entry.protocol = attribute.value.first().copied().unwrap_or(0),
            _ => {}
        }
    }
    Some(entry)
}

/// Neighbours of both families on one device.
pub fn list(index: u32) -> RouteNetlinkMessage {
    let mut message = NeighbourMessage::default();
    message.attributes.push(NeighbourAttribute::IfIndex(index));
    RouteNetlinkMessage::GetNeighbour(message)
}

/// Proxy neighbours of both families on all devices.
pub fn list_proxies() -> RouteNetlinkMessage {
    let mut message = NeighbourMessage::default();
    message.header.flags = NeighbourFlags::Proxy;
    RouteNetlinkMessage::GetNeighbour(message)
}

/// Forwarding entries of one device.
pub fn list_fdb(index: u32) -> RouteNetlinkMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Bridge;
    message.attributes.push(NeighbourAttribute::IfIndex(index));
    RouteNetlinkMessage::GetNeighbour(message)
}

/// A permanent neighbour.
pub fn set(index: u32, ip: IpAddr, mac: Mac) -> RouteNetlinkMessage {
    let mut message = base(index, ip);
    message.header.state = NeighbourState::Permanent;
    message.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.0.to_vec()));
    RouteNetlinkMessage::NewNeighbour(message)
}

/// Forgets a neighbour.
pub fn delete(index: u32, ip: IpAddr) -> RouteNetlinkMessage {
    RouteNetlinkMessage::DelNeighbour(base(index, ip))
}

/// Answers for an address on a device, signed with our protocol number.
pub fn set_proxy(index: u32, ip: IpAddr, protocol: u8) -> RouteNetlinkMessage {
    let mut message = base(index, ip);
    message.header.flags = NeighbourFlags::Proxy;
    message.attributes.push(NeighbourAttribute::Protocol(protocol.into()));
    RouteNetlinkMessage::NewNeighbour(message)
}

/// Answers no longer.
pub fn delete_proxy(index: u32, ip: IpAddr) -> RouteNetlinkMessage {
    let mut message = base(index, ip);
    message.header.flags = NeighbourFlags::Proxy;
    RouteNetlinkMessage::DelNeighbour(message)
}

/// A permanent forwarding entry of a VXLAN device.
pub fn set_fdb(index: u32, mac: Mac, remote: &Remote) -> RouteNetlinkMessage {
    let mut message = fdb(index, mac);
    message.header.state = NeighbourState::Permanent;
    message.attributes.push(NeighbourAttribute::Destination(address(remote.node)));
    message.attributes.push(NeighbourAttribute::Vni(remote.vni));
    RouteNetlinkMessage::NewNeighbour(message)
}

/// Deletes a forwarding entry.
pub fn delete_fdb(index: u32, mac: Mac) -> RouteNetlinkMessage {
    RouteNetlinkMessage::DelNeighbour(fdb(index, mac))
}

fn base(index: u32, ip: IpAddr) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = family_number(Family::of(ip)).into();
    message.header.ifindex = index;
    message.attributes.push(NeighbourAttribute::Destination(address(ip)));
    message
}

fn fdb(index: u32, mac: Mac) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Bridge;
    message.header.ifindex = index;
    message.header.flags = NeighbourFlags::Own;
    message.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.0.to_vec()));
    message
}

fn address(ip: IpAddr) -> NeighbourAddress {
    match ip {
        IpAddr::V4(ip) => NeighbourAddress::Inet(ip),
        IpAddr::V6(ip) => NeighbourAddress::Inet6(ip),
    }
}
