//! Addresses on devices.

use std::net::IpAddr;

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage, AddressScope};

use super::attributes::{behind, family_number, ip_of, u32_of};
use crate::addr::Family;

/// `struct ifaddrmsg`.
const HEADER: usize = 8;
/// `RT_SCOPE_LINK`.
const SCOPE_LINK: u8 = 253;
/// `IFA_F_DEPRECATED`.
const DEPRECATED: u8 = 0x20;
/// `IFA_F_TEMPORARY`, which in IPv4 means secondary, and `IFA_F_DADFAILED`.
const PASSING_V6: u8 = 0x01 | 0x08;

/// An address as the kernel has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Assigned {
    /// Index of its device.
    pub index: u32,
    /// The address.
    pub ip: IpAddr,
    /// Prefix length of the subnet it stands for.
    pub prefix: u8,
    /// Valid on this link only.
    pub link_scope: bool,
    /// Temporary, deprecated, or refused by duplicate address detection.
    pub passing: bool,
}

/// Reads `RTM_NEWADDR`. On a point-to-point device the own address is `IFA_LOCAL`, elsewhere both are equal or only
/// `IFA_ADDRESS` is there (IPv6).
pub fn read(payload: &[u8]) -> Option<Assigned> {
    let (mut address, mut local) = (None, None);
    for attribute in behind(payload, HEADER) {
        match attribute.kind {
            1 => address = ip_of(attribute.value),
            2 => local = ip_of(attribute.value),
            _ => {}
        }
    }
    let (flags, scope) = (*payload.get(2)?, *payload.get(3)?);
    let ip = local.or(address)?;
    Some(Assigned {
        index: u32_of(payload.get(4..)?)?,
        ip,
        prefix: *payload.get(1)?,
        passing: flags & DEPRECATED != 0 || ip.is_ipv6() && flags & PASSING_V6 != 0,
        link_scope: scope == SCOPE_LINK,
    })
}

/// All addresses of both families, or those of one device.
pub fn list(index: Option<u32>) -> RouteNetlinkMessage {
    let mut message = AddressMessage::default();
    message.header.index = index.unwrap_or(0);
    RouteNetlinkMessage::GetAddress(message)
}

/// A host address. IPv6: usable at once (`nodad`), and without the route to itself that the kernel would put into `main`.
pub fn add(index: u32, ip: IpAddr, link_scope: bool) -> RouteNetlinkMessage {
    let mut message = base(index, ip, Family::of(ip).bits());
    message.header.scope = if link_scope { AddressScope::Link } else { AddressScope::Universe };
    if ip.is_ipv6() {
        message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad | AddressFlags::Noprefixroute));
    }
    RouteNetlinkMessage::NewAddress(message)
}

/// Takes an address off a device.
pub fn delete(index: u32, ip: IpAddr, prefix: u8) -> RouteNetlinkMessage {
    RouteNetlinkMessage::DelAddress(base(index, ip, prefix))
}

fn base(index: u32, ip: IpAddr, prefix: u8) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = family_number(Family::of(ip)).into();
    message.header.prefix_len = prefix;
    message.header.index = index;
    message.attributes.push(AddressAttribute::Local(ip));
    message.attributes.push(AddressAttribute::Address(ip));
    message
}
