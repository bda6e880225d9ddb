//! Routes in any table.

use std::net::IpAddr;

use netlink_packet_core::NetlinkSerializable;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteProtocol, RouteScope, RouteType,
};

use super::attributes::{behind, family_number, family_of, ip_of, u32_of};
use crate::addr::{Cidr, Family, address_from_bits};
use crate::kernel::state::{IPV6_METRIC, Route, Via};

/// `struct rtmsg`.
const HEADER: usize = 12;
const RTN_UNICAST: u8 = 1;
const RTN_LOCAL: u8 = 2;
const RTN_BLACKHOLE: u8 = 6;
const RTN_UNREACHABLE: u8 = 7;
const RTNH_F_ONLINK: u32 = 4;
/// `RTM_F_CLONED`: a cache entry, not a route.
const CLONED: u32 = 0x200;
/// A route as the kernel has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// Table number.
    pub table: u32,
    /// Destination.
    pub to: Cidr,
    /// Metric as the kernel says it, except that IPv6's default reads 0.
    pub metric: u32,
    /// Who made it.
    pub protocol: u8,
    /// What it does.
    pub shape: Shape,
}

/// What a route does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shape {
    /// Out of the device with this index, with this preferred source.
    Device(u32, Option<IpAddr>),
    /// To a gateway on the device with this index, `onlink`.
    Gateway(IpAddr, u32),
    /// To a nexthop object.
    Nexthop(u32),
    /// `unreachable`
    Unreachable,
    /// Anything that we do not make.
    Other,
}

/// Reads `RTM_NEWROUTE`.
pub fn read(payload: &[u8]) -> Option<Known> {
    let family = family_of(*payload.first()?)?;
    let (length, from, tos) = (*payload.get(1)?, *payload.get(2)?, *payload.get(3)?);
    let flags = u32_of(payload.get(8..)?)?;
    if flags & CLONED != 0 {
        return None;
    }
    let mut table = u32::from(*payload.get(4)?);
    let (mut to, mut index, mut gateway, mut source, mut metric, mut nexthop) =
        (None, None, None, None, 0, None);
    let (mut several, mut other) = (false, from != 0 || tos != 0);
    for attribute in behind(payload, HEADER) {
        match attribute.kind {
            1 => to = ip_of(attribute.value),
            4 => index = u32_of(attribute.value),
            5 => gateway = ip_of(attribute.value),
            6 => metric = u32_of(attribute.value)?,
            7 => source = ip_of(attribute.value),
            8 => other = true,             // metrics such as an MTU
            9 | 18 | 22 => several = true, // multipath, a gateway of the other family, encapsulation
            15 => table = u32_of(attribute.value)?,
            30 => nexthop = u32_of(attribute.value),
            _ => {} // counters; router preference
        }
    }
    let onlink = flags & RTNH_F_ONLINK != 0;
    let shape = match (*payload.get(7)?, nexthop, gateway, index) {
        _ if other => Shape::Other,
        // Beside the id the kernel repeats what the object says, so that old programs can read the route.
        // (IPv6 also repeats that the object is a blackhole.)
        (RTN_UNICAST | RTN_BLACKHOLE, Some(id), ..) if source.is_none() => Shape::Nexthop(id),
        _ if several => Shape::Other,
        (RTN_UNREACHABLE, None, None, _) => Shape::Unreachable,
        (RTN_UNICAST, None, None, Some(index)) => Shape::Device(index, source),
        (RTN_UNICAST, None, Some(gateway), Some(index)) if onlink && source.is_none() => {
            Shape::Gateway(gateway, index)
        }
        _ => Shape::Other,
    };
    let metric = if family == Family::V6 && metric == IPV6_METRIC { 0 } else { metric };
    let to = Cidr::covering(to.unwrap_or_else(|| address_from_bits(family, 0)), length);
    Some(Known { table, to, metric, protocol: *payload.get(5)?, shape })
}

/// One way of a default route, whoever made it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DefaultRoute {
    /// Table number.
    pub table: u32,
    /// Family of what it carries.
    pub family: Family,
    /// Metric as the kernel says it.
    pub metric: u32,
    /// Index of the device it leaves by.
    pub index: u32,
    /// Next hop, of the same family; `None`: the device itself is the way.
    pub gateway: Option<IpAddr>,
}

/// The ways of a default route in `RTM_NEWROUTE`, several if it is a multipath one; none if the message is about anything else, or
/// carries this protocol number. A route to a nexthop object repeats what the object says (`nexthop_compat_mode`, on by default).
pub fn read_default(payload: &[u8], without: u8) -> Vec<DefaultRoute> {
    read_default_ways(payload, without).unwrap_or_default()
}

fn read_default_ways(payload: &[u8], without: u8) -> Option<Vec<DefaultRoute>> {
    let family = family_of(*payload.first()?)?;
    let cloned = u32_of(payload.get(8..)?)? & CLONED != 0;
    let is_plain = payload.get(1..4)? == [0; 3] && *payload.get(7)? == RTN_UNICAST;
    if cloned || !is_plain || *payload.get(5)? == without {
        return None;
    }
    let (mut table, mut metric) = (u32::from(*payload.get(4)?), 0);
    let (mut index, mut gateway) = (None, None);
    let mut hops = Vec::new();
    for attribute in behind(payload, HEADER) {
        match attribute.kind {
            4 => index = u32_of(attribute.value),
            5 => gateway = ip_of(attribute.value),
            6 => metric = u32_of(attribute.value)?,
            9 => hops.extend(read_hops(attribute.value)),
            15 => table = u32_of(attribute.value)?,
            _ => {}
        }
    }
    hops.extend(index.map(|index| (index, gateway)));
    let way = |(index, gateway)| DefaultRoute { table, family, metric, index, gateway };
    Some(hops.into_iter().map(way).collect())
}

/// `struct rtnexthop` after `struct rtnexthop`: length, flags, weight, index, then attributes.
fn read_hops(mut bytes: &[u8]) -> Vec<(u32, Option<IpAddr>)> {
    const HOP: usize = 8;
    let mut hops = Vec::new();
    while let Some(length) = bytes.get(..2).and_then(|b| <[u8; 2]>::try_from(b).ok()).map(u16::from_ne_bytes)
    {
        let length = usize::from(length);
        let (Some(hop), Some(index)) = (bytes.get(..length), bytes.get(4..).and_then(u32_of)) else { break };
        if length < HOP {
            break;
        }
        let gateway = behind(hop, HOP).find(|attribute| attribute.kind == 5).and_then(|a| ip_of(a.value));
        hops.push((index, gateway));
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    hops
}

/// The routes of one family that carry a protocol number, in all tables.
pub fn list(family: Family, protocol: u8) -> RouteNetlinkMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = family_number(family).into();
    message.header.protocol = RouteProtocol::from(protocol);
    RouteNetlinkMessage::GetRoute(message)
}

/// How a packet to this address would travel now.
pub fn lookup(to: IpAddr) -> RouteNetlinkMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = family_number(Family::of(to)).into();
    message.header.destination_prefix_length = Family::of(to).bits();
    message.attributes.push(RouteAttribute::Destination(address(to)));
    RouteNetlinkMessage::GetRoute(message)
}

/// The preferred source and the device in a look-up's answer.
pub fn read_lookup(payload: &[u8]) -> Option<(IpAddr, u32)> {
    let (mut source, mut index) = (None, None);
    for attribute in behind(payload, HEADER) {
        match attribute.kind {
            4 => index = u32_of(attribute.value),
            7 => source = ip_of(attribute.value),
            _ => {}
        }
    }
    Some((source?, index?))
}

/// The device in a look-up's answer.
pub fn read_device(payload: &[u8]) -> Option<u32> {
    behind(payload, HEADER)
        .find(|attribute| attribute.kind == 4)
        .and_then(|attribute| u32_of(attribute.value))
}

/// The next hop in a look-up's answer, of either family; none where the destination is on the link.
pub fn read_next_hop(payload: &[u8]) -> Option<IpAddr> {
    let hop = behind(payload, HEADER).find_map(|attribute| match attribute.kind {
        5 => ip_of(attribute.value),
        18 => ip_of(attribute.value.get(2..)?), // behind its family
        _ => None,
    });
    hop.filter(|hop| !hop.is_unspecified())
}

/// Whether a look-up's answer is that the packet is for this namespace itself.
pub fn is_local(payload: &[u8]) -> bool {
    payload.get(7) == Some(&RTN_LOCAL)
}

/// Makes (or, with `NLM_F_REPLACE`, replaces) a route; `index` is that of its device, if it names one.
pub fn set(route: &Route, index: u32, protocol: u8) -> RouteNetlinkMessage {
    let mut message = base(route, index);
    message.header.protocol = RouteProtocol::from(protocol);
    message.header.scope = match route.via {
        Via::Device { .. } => RouteScope::Link,
        _ => RouteScope::Universe,
    };
    if let Via::Device { source: Some(source), .. } = route.via {
        message.attributes.push(RouteAttribute::PrefSource(address(source)));
    }
    RouteNetlinkMessage::NewRoute(message)
}

/// Deletes exactly this route. Everything it is known by is given: with a metric alone, IPv4 takes the first route of any
/// metric when that is 0, and IPv6 does not look at the type at all.
pub fn delete(route: &Route, index: u32, protocol: u8) -> RouteNetlinkMessage {
    let mut message = base(route, index);
    message.header.protocol = RouteProtocol::from(protocol);
    message.header.scope = RouteScope::NoWhere;
    RouteNetlinkMessage::DelRoute(message)
}

fn base(route: &Route, index: u32) -> RouteMessage {
    let family = route.to.family();
    let mut message = RouteMessage::default();
    message.header.address_family = family_number(family).into();
    message.header.destination_prefix_length = route.to.prefix();
    message.header.kind = RouteType::Unicast;
    message.attributes.push(RouteAttribute::Table(route.table));
    message.attributes.push(RouteAttribute::Destination(address(route.to.first())));
    let metric = if family == Family::V6 && route.metric == 0 { IPV6_METRIC } else { route.metric };
    if metric != 0 {
        message.attributes.push(RouteAttribute::Priority(metric));
    }
    match &route.via {
        Via::Device { .. } => message.attributes.push(RouteAttribute::Oif(index)),
        Via::Gateway { gateway, .. } => {
            message.header.flags = RouteFlags::Onlink;
            message.attributes.push(RouteAttribute::Gateway(address(*gateway)));
            message.attributes.push(RouteAttribute::Oif(index));
        }
        Via::Nexthop(id) => message.attributes.push(RouteAttribute::NhId(*id)),
        Via::Unreachable => message.header.kind = RouteType::Unreachable,
    }
    message
}

fn address(ip: IpAddr) -> RouteAddress {
    match ip {
        IpAddr::V4(ip) => RouteAddress::Inet(ip),
        IpAddr::V6(ip) => RouteAddress::Inet6(ip),
    }
}

/// Deletes an object by showing the kernel its own description of it: for shapes that we have no words for.
#[derive(Debug, Clone)]
pub struct Echo {
    /// `RTM_DELROUTE` or `RTM_DELRULE`.
    pub kind: u16,
    /// The payload of the dump.
    pub payload: Vec<u8>,
}

impl NetlinkSerializable for Echo {
    fn message_type(&self) -> u16 {
        self.kind
    }
    fn buffer_len(&self) -> usize {
        self.payload.len()
    }
    fn serialize(&self, buffer: &mut [u8]) {
        buffer[..self.payload.len()].copy_from_slice(&self.payload);
    }
}
