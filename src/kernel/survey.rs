//! Questions about a namespace that is not ours to write: its devices and addresses, and who stands at the other end.
//!
//! In: a namespace and a name. Out: what the kernel says. Never: changes anything.

use std::net::IpAddr;

use super::Netns;
use super::netlink::{Socket, address, link, route};
use super::observe::{KernelError, open, reading};
use crate::addr::{Family, Mac};

/// A device with the addresses that others may know it by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// Name.
    pub name: String,
    /// Interface index.
    pub index: u32,
    /// Link-layer address, where it has one of six bytes.
    pub mac: Option<Mac>,
    /// Bytes.
    pub mtu: u32,
    /// Administratively up.
    pub up: bool,
    /// Link group: tells ours from others.
    pub group: u32,
    /// Global addresses with their prefix lengths; those for the link or the host alone are left out.
    pub addresses: Vec<(IpAddr, u8)>,
}

/// All devices of a namespace.
pub fn link_addresses(netns: &Netns) -> Result<Vec<Interface>, KernelError> {
    let mut socket = open(netns)?;
    let dump = socket.dump(&link::list()).map_err(reading("devices"))?;
    let mut interfaces: Vec<Interface> = dump
        .iter()
        .filter_map(|message| link::read(message.payload))
        .map(|device| Interface {
            name: device.name.to_owned(),
            index: device.index,
            mac: device.mac,
            mtu: device.mtu,
            up: device.up,
            group: device.group,
            addresses: Vec::new(),
        })
        .collect();
    for (index, ip, prefix) in global_addresses(&mut socket, None)? {
        if let Some(interface) = interfaces.iter_mut().find(|interface| interface.index == index) {
            interface.addresses.push((ip, prefix));
        }
    }
    Ok(interfaces)
}

/// The global addresses of one device, with their prefix lengths.
pub fn addresses_of(netns: &Netns, device: &str) -> Result<Vec<(IpAddr, u8)>, KernelError> {
    let mut socket = open(netns)?;
    let answer = socket.ask(link::by_name(device)).map_err(reading("a pod's device"))?;
    let Some(index) = answer.iter().find_map(|m| link::read(m.payload)).map(|device| device.index) else {
        return Ok(Vec::new());
    };
    let found = global_addresses(&mut socket, Some(index))?;
    Ok(found.into_iter().map(|(_, ip, prefix)| (ip, prefix)).collect())
}

fn global_addresses(socket: &mut Socket, index: Option<u32>) -> Result<Vec<(u32, IpAddr, u8)>, KernelError> {
    let dump = socket.dump(&address::list(index)).map_err(reading("addresses"))?;
    let known = dump.iter().filter_map(|message| address::read(message.payload));
    let global =
        known.filter(|a| !a.link_scope && !a.host_scope && index.is_none_or(|index| index == a.index));
    Ok(global.map(|a| (a.index, a.ip, a.prefix)).collect())
}

/// The node's end of a pod's device, by name, whatever kind the two are.
///
/// The pod's device says index and namespace of its opposite; that one must exist at home and point back. `None` where there is
/// no such pair: ipvlan, macvlan, a device moved in whole, the loopback. An error where the pod has no device of this name.
pub fn peer_of(home: &Netns, pod: &Netns, device: &str) -> Result<Option<String>, KernelError> {
    let mut inside = open(pod)?;
    let answer = inside.ask(link::by_name(device)).map_err(reading("the pod's device"))?;
    let Some(own) = answer.iter().find_map(|message| link::read(message.payload)) else { return Ok(None) };
    let (Some(peer), Some(peer_netns)) = (own.peer, own.peer_netns) else { return Ok(None) };
    let id_of = |socket: &mut Socket, other: &Netns| {
        let answer = socket.ask(link::netns_id(other)).map_err(reading("a namespace's id"))?;
        Ok::<_, KernelError>(answer.iter().find_map(|message| link::read_netns_id(message.payload)))
    };
    if id_of(&mut inside, home)? != Some(peer_netns) {
        return Ok(None);
    }
    let mut outside = open(home)?;
    let pod_id = id_of(&mut outside, pod)?;
    let answer = match outside.ask(link::by_index(peer)) {
        Ok(answer) => answer,
        Err(refusal) if refusal.is_absence() => return Ok(None),
        Err(refusal) => return Err(reading("the node's end of the pod's device")(refusal)),
    };
    let end = answer.iter().find_map(|message| link::read(message.payload));
    // macvlan and ipvlan name a lower device, too, but that one does not point back.
    let points_back = |end: &link::Device<'_>| {
        end.peer == Some(own.index) && end.peer_netns.is_some() && end.peer_netns == pod_id
    };
    Ok(end.filter(points_back).map(|end| end.name.to_owned()))
}

/// Source address and device of a packet to the internet: what the kernel would choose now. `None` without a default route.
///
/// Asked with an address that is reserved for documentation (RFC 5737, RFC 3849), so that no real route is meant for it.
pub fn default_route_source(netns: &Netns, family: Family) -> Result<Option<(IpAddr, String)>, KernelError> {
    let outside: IpAddr = match family {
        Family::V4 => [192, 0, 2, 1].into(),
        Family::V6 => [0x2001, 0xdb8, 0, 0, 0, 0, 0, 1].into(),
    };
    let mut socket = open(netns)?;
    let answer = match socket.ask(route::lookup(outside)) {
        Ok(answer) => answer,
        Err(refusal) if [libc::ENETUNREACH, libc::EHOSTUNREACH, libc::EACCES].contains(&refusal.errno) => {
            return Ok(None);
        }
        Err(refusal) => return Err(reading("the default route")(refusal)),
    };
    let Some((source, index)) = answer.iter().find_map(|message| route::read_lookup(message.payload)) else {
        return Ok(None);
    };
    let answer = socket.ask(link::by_index(index)).map_err(reading("the default route's device"))?;
    Ok(answer.iter().find_map(|m| link::read(m.payload)).map(|device| (source, device.name.to_owned())))
}
