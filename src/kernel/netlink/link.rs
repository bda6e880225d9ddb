//! Devices: what a dump says of them, and the requests that make, change and delete them.

use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoData, InfoKind, InfoVeth, InfoVxlan, LinkAttribute,
    LinkExtentMask, LinkFlags, LinkInfo, LinkMessage,
};
use netlink_packet_route::nsid::{NsidAttribute, NsidMessage};

use super::attributes::{attributes, behind, ip_of, mac_of, u16_of, u32_of};
use crate::addr::Mac;
use crate::kernel::netns::Netns;
use crate::kernel::state::Link;

/// `struct ifinfomsg`.
const HEADER: usize = 16;

/// A device as the kernel describes it, ours or not. Borrows from the dump: most of them are looked at and left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device<'a> {
    /// Interface index in its namespace.
    pub index: u32,
    /// Name.
    pub name: &'a str,
    /// Alternative names (`IFLA_PROP_LIST`).
    pub altnames: Vec<&'a str>,
    /// Link-layer address, where it has one of six bytes.
    pub mac: Option<Mac>,
    /// Bytes.
    pub mtu: u32,
    /// Administratively up.
    pub up: bool,
    /// ARP and neighbour discovery.
    pub arp: bool,
    /// Link group.
    pub group: u32,
    /// `veth`, `vxlan`, `netkit`, …; empty for hardware.
    pub kind: &'a str,
    /// Index of the lower or opposite device (`IFLA_LINK`); in the namespace `peer_netns` if that is set, else in this one.
    pub peer: Option<u32>,
    /// What kind of device it is a port of: `bridge`, `openvswitch`, …; empty if of none.
    pub port_of: &'a str,
    /// Index of the device that it is a port of (`IFLA_MASTER`).
    pub above: Option<u32>,
    /// An XDP program is attached.
    pub xdp: bool,
    /// Id, valid in this namespace, of the one that `peer` or a tunnel's socket lives in (`IFLA_LINK_NETNSID`).
    pub peer_netns: Option<i32>,
    data: &'a [u8],
}

/// What is particular to a VXLAN device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Vxlan {
    /// VXLAN network identifier.
    pub vni: u32,
    /// UDP port.
    pub port: u16,
    /// Source of the outer packets, if it is fixed.
    pub local: Option<IpAddr>,
    /// Learns from packets, or takes its destination from elsewhere: not one of ours.
    pub other: bool,
}

/// Reads a device from `RTM_NEWLINK`.
pub fn read(payload: &[u8]) -> Option<Device<'_>> {
    let flags = u32_of(payload.get(8..)?)?;
    let mut device = Device {
        index: u32_of(payload.get(4..)?)?,
        name: "",
        altnames: Vec::new(),
        mac: None,
        mtu: 0,
        up: flags & LinkFlags::Up.bits() != 0,
        arp: flags & LinkFlags::Noarp.bits() == 0,
        group: 0,
        kind: "",
        port_of: "",
        above: None,
        xdp: false,
        peer: None,
        peer_netns: None,
        data: &[],
    };
    for attribute in behind(payload, HEADER) {
        match attribute.kind {
            1 => device.mac = mac_of(attribute.value),
            3 => device.name = str_of(attribute.value),
            4 => device.mtu = u32_of(attribute.value)?,
            5 => device.peer = u32_of(attribute.value).filter(|index| *index != 0),
            10 => device.above = u32_of(attribute.value),
            18 => {
                for info in attributes(attribute.value) {
                    match info.kind {
                        1 => device.kind = str_of(info.value),
                        2 => device.data = info.value,
                        4 => device.port_of = str_of(info.value),
                        _ => {}
                    }
                }
            }
            52 => {
                let names = attributes(attribute.value).filter(|property| property.kind == 53);
                device.altnames.extend(names.map(|name| str_of(name.value)));
            }
            43 => {
                let mut xdp = attributes(attribute.value);
                device.xdp =
                    xdp.any(|part| part.kind == 2 && part.value.first().is_some_and(|how| *how != 0));
            }
            27 => device.group = u32_of(attribute.value)?,
            37 => device.peer_netns = u32_of(attribute.value).map(u32::cast_signed),
            _ => {}
        }
    }
    Some(device)
}

fn str_of(value: &[u8]) -> &str {
    std::str::from_utf8(value.strip_suffix(b"\0").unwrap_or(value)).unwrap_or_default()
}

impl Device<'_> {
    /// The VXLAN side of it, if it is one.
    pub fn vxlan(&self) -> Option<Vxlan> {
        if self.kind != "vxlan" {
            return None;
        }
        let mut vxlan = Vxlan { vni: 0, port: 0, local: None, other: false };
        for attribute in attributes(self.data) {
            let set = attribute.value.first().is_some_and(|byte| *byte != 0);
            match attribute.kind {
                1 => vxlan.vni = u32_of(attribute.value)?,
                4 | 17 => vxlan.local = ip_of(attribute.value).filter(|ip| !ip.is_unspecified()),
                7 | 25 | 30 => vxlan.other |= set, // learning, external, vnifilter
                2 | 16 => vxlan.other = true,      // a default destination
                15 => vxlan.port = u16::from_be(u16_of(attribute.value)?),
                _ => {}
            }
        }
        Some(vxlan)
    }
}

/// All devices, without their counters.
pub fn list() -> RouteNetlinkMessage {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
    RouteNetlinkMessage::GetLink(message)
}

/// One device by name.
pub fn by_name(name: &str) -> RouteNetlinkMessage {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::IfName(name.to_owned()));
    message.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
    RouteNetlinkMessage::GetLink(message)
}

/// One device by index.
pub fn by_index(index: u32) -> RouteNetlinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
    RouteNetlinkMessage::GetLink(message)
}

/// Makes a VXLAN device in namespace `target`. The socket that sends this must be the *home* namespace's: the tunnel's UDP
/// socket is opened where the request comes from. Giving no `IFLA_LINK_NETNSID` lets the kernel register the device in the
/// target at once; with it, it makes the device at home and moves it, which waits for grace periods (15 ms).
pub fn create_vxlan(
    name: &str,
    link: &Link,
    group: u32,
    (vni, port, local): (u32, u16, IpAddr),
    target: BorrowedFd<'_>,
) -> RouteNetlinkMessage {
    let local = match local {
        IpAddr::V4(ip) => InfoVxlan::Local(ip),
        IpAddr::V6(ip) => InfoVxlan::Local6(ip),
    };
    let data = vec![InfoVxlan::Id(vni), InfoVxlan::Port(port), local, InfoVxlan::Learning(false)];
    let mut message = base(name, link.mac, link.mtu, Some(group));
    message.attributes.push(LinkAttribute::NetNsFd(target.as_raw_fd()));
    message.attributes.push(LinkAttribute::LinkInfo(vec![
        LinkInfo::Kind(InfoKind::Vxlan),
        LinkInfo::Data(InfoData::Vxlan(data)),
    ]));
    RouteNetlinkMessage::NewLink(message)
}

/// Makes a veth pair: this end in the socket's namespace, the other one in `home`. The other end gets our group only where
/// another namespace's state will name it; in one namespace it would be found there as a device nobody asked for.
pub fn create_veth(
    name: &str,
    link: &Link,
    group: u32,
    (peer, peer_mac, peer_group): (&str, Mac, Option<u32>),
    home: BorrowedFd<'_>,
) -> RouteNetlinkMessage {
    let mut other = base(peer, peer_mac, link.mtu, peer_group);
    other.attributes.push(LinkAttribute::NetNsFd(home.as_raw_fd()));
    let mut message = base(name, link.mac, link.mtu, Some(group));
    message.attributes.push(LinkAttribute::LinkInfo(vec![
        LinkInfo::Kind(InfoKind::Veth),
        LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(other))),
    ]));
    RouteNetlinkMessage::NewLink(message)
}

fn base(name: &str, mac: Mac, mtu: u32, group: Option<u32>) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::IfName(name.to_owned()));
    message.attributes.push(LinkAttribute::Address(mac.0.to_vec()));
    message.attributes.push(LinkAttribute::Mtu(mtu));
    message.attributes.extend(group.map(LinkAttribute::Group));
    message
}

/// No link-local address by itself (`addrgenmode none`). Must come before the device is up, in a message of its own: the kernel
/// ignores it at creation, and in one message with `up` it brings the device up first.
pub fn silence(name: &str) -> RouteNetlinkMessage {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::IfName(name.to_owned()));
    message.attributes.push(LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet6(vec![
        AfSpecInet6::AddrGenMode(In6AddrGenMode::None),
    ])]));
    RouteNetlinkMessage::SetLink(message)
}

/// Up, with ARP on or off.
pub fn raise(name: &str, arp: bool) -> RouteNetlinkMessage {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::IfName(name.to_owned()));
    flags(&mut message, arp);
    RouteNetlinkMessage::SetLink(message)
}

/// Down.
pub fn lower(name: &str) -> RouteNetlinkMessage {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::IfName(name.to_owned()));
    message.header.change_mask = LinkFlags::Up;
    RouteNetlinkMessage::SetLink(message)
}

/// All that can be set on a device that exists already, and up.
pub fn configure(name: &str, link: &Link, group: u32) -> RouteNetlinkMessage {
    let mut message = base(name, link.mac, link.mtu, Some(group));
    flags(&mut message, link.arp);
    RouteNetlinkMessage::SetLink(message)
}

/// What differs on a living device, and up.
pub fn change(name: &str, from: &Link, to: &Link) -> RouteNetlinkMessage {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::IfName(name.to_owned()));
    if from.mac != to.mac {
        message.attributes.push(LinkAttribute::Address(to.mac.0.to_vec()));
    }
    if from.mtu != to.mtu {
        message.attributes.push(LinkAttribute::Mtu(to.mtu));
    }
    flags(&mut message, to.arp);
    RouteNetlinkMessage::SetLink(message)
}

/// Another MAC for the home end of a veth.
pub fn set_mac(name: &str, mac: Mac) -> RouteNetlinkMessage {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::IfName(name.to_owned()));
    message.attributes.push(LinkAttribute::Address(mac.0.to_vec()));
    RouteNetlinkMessage::SetLink(message)
}

fn flags(message: &mut LinkMessage, arp: bool) {
    message.header.change_mask = LinkFlags::Up | LinkFlags::Noarp;
    message.header.flags = if arp { LinkFlags::Up } else { LinkFlags::Up | LinkFlags::Noarp };
}

/// Deletes a device, and with it the other end of a veth.
pub fn delete(index: u32) -> RouteNetlinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index;
    RouteNetlinkMessage::DelLink(message)
}

/// The id by which this socket's namespace knows another one.
pub fn netns_id(other: &Netns) -> RouteNetlinkMessage {
    let mut message = NsidMessage::default();
    let fd = u32::try_from(other.as_fd().as_raw_fd()).unwrap_or(u32::MAX);
    message.attributes.push(NsidAttribute::Fd(fd));
    RouteNetlinkMessage::GetNsId(message)
}

/// Reads `RTM_NEWNSID`; `None` where the namespace is not known.
pub fn read_netns_id(payload: &[u8]) -> Option<i32> {
    let id = behind(payload, 4).find(|attribute| attribute.kind == 1)?;
    u32_of(id.value).map(u32::cast_signed).filter(|id| *id >= 0)
}
