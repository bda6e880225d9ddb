//! Devices that are not ours: what carries the tunnel, what leads outside, what stands at the other end of a pod's interface.
//!
//! In: a namespace. Out: devices with their addresses. Never: changes anything.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::addr::{Family, Mac};
pub use crate::kernel::netlink::route::DefaultRoute;
use crate::kernel::netlink::{Socket, address, link, route};
use crate::kernel::netns::Netns;
use crate::kernel::observe::{KernelError, open, reading};

/// Kinds of devices behind which there is no pod of this machine, but for such as stand on another device. What is not named may lead to one:
/// a bridge, a veth, a macvlan, a port of Open vSwitch, a tun device.
const OF_MACHINES: [&str; 22] = [
    "",
    "bond",
    "team",
    "ipoib",
    "wireguard",
    "ovpn",
    "xfrm",
    "vti",
    "vti6",
    "vxlan",
    "geneve",
    "bareudp",
    "gre",
    "gretap",
    "erspan",
    "ip6gre",
    "ip6gretap",
    "ip6erspan",
    "ipip",
    "sit",
    "ip6tnl",
    "gtp",
];
/// Kinds that are as the device below them is.
const AS_BELOW: [&str; 2] = ["vlan", "macsec"];

/// A device with its addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Name.
    pub name: String,
    /// Alternative names.
    pub altnames: Vec<String>,
    /// One end of a veth whose other end is in another namespace: a pod's interface, as a rule.
    pub leads_to_pod: bool,
    /// Of a kind that brings what other machines sent, and stands on no device that is not: hardware, what bundles or divides it, far ends
    /// of tunnels.
    pub leads_to_machines: bool,
    /// Interface index.
    pub index: u32,
    /// Bytes.
    pub mtu: u32,
    /// Link group.
    pub group: u32,
    /// Administratively up.
    pub up: bool,
    /// Link-layer address, where it has one of six bytes.
    pub mac: Option<Mac>,
    /// Addresses with the prefix lengths of their subnets, in the kernel's order, but for those that pass, which come last: a
    /// fixed egress address must not be one.
    pub addresses: Vec<(IpAddr, u8)>,
}

/// Every device of a namespace.
///
/// # Errors
/// The namespace cannot be entered or read.
pub fn list(netns: &Netns) -> Result<Vec<Device>, KernelError> {
    let mut socket = open(netns)?;
    let dump = socket.dump(&link::list()).map_err(reading("devices"))?;
    let links: Vec<link::Device<'_>> = dump.iter().filter_map(link::read).collect();
    let kinds = kinds(&links);
    let mut devices: Vec<Device> = links.iter().map(|device| plain(device, &kinds)).collect();
    let dump = socket.dump(&address::list(None)).map_err(reading("addresses"))?;
    let mut found: Vec<_> = dump.iter().filter_map(address::read).collect();
    found.sort_by_key(|found| found.passing);
    for found in found {
        if let Some(device) = devices.iter_mut().find(|device| device.index == found.index) {
            device.addresses.push((found.ip, found.prefix));
        }
    }
    Ok(devices)
}

/// Kinds of all devices of a namespace, each with the index of the device of this namespace that it stands on.
type Kinds<'a> = BTreeMap<u32, (&'a str, Option<u32>)>;

fn kinds<'a>(links: &[link::Device<'a>]) -> Kinds<'a> {
    // One in another namespace may be a pod's.
    let below = |device: &link::Device<'_>| device.peer.filter(|_| device.peer_netns.is_none());
    links.iter().map(|device| (device.index, (device.kind, below(device)))).collect()
}

fn leads_to_machines(index: u32, kinds: &Kinds<'_>) -> bool {
    match kinds.get(&index) {
        Some((kind, Some(below))) if AS_BELOW.contains(kind) => leads_to_machines(*below, kinds),
        Some((kind, _)) => OF_MACHINES.contains(kind),
        None => false,
    }
}

fn plain(device: &link::Device<'_>, kinds: &Kinds<'_>) -> Device {
    Device {
        name: device.name.to_owned(),
        altnames: device.altnames.iter().map(|name| (*name).to_owned()).collect(),
        leads_to_pod: device.kind == "veth" && device.peer_netns.is_some(),
        leads_to_machines: leads_to_machines(device.index, kinds),
        index: device.index,
        mtu: device.mtu,
        group: device.group,
        up: device.up,
        mac: device.mac,
        addresses: Vec::new(),
    }
}

/// A pod's interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// Its addresses with the prefix lengths of their subnets.
    pub addresses: Vec<(IpAddr, u8)>,
    /// The node's end of it, as [`peer_of`] finds it.
    pub peer: Option<End>,
}

/// The node's end of a pod's interface. Names come again with the next pod, and indexes with the next namespace; both together name
/// this one as long as the machine runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    /// Its name.
    pub name: String,
    /// Its index.
    pub index: u32,
}

/// One interface of a pod; `None` if there is none of this name.
///
/// # Errors
/// A namespace cannot be entered or read.
pub fn interface_of(node: &Netns, pod: &Netns, ifname: &str) -> Result<Option<Interface>, KernelError> {
    let mut inside = open(pod)?;
    let Some(found) = index_of(&mut inside, ifname)? else { return Ok(None) };
    let addresses = addresses_at(&mut inside, found.0)?;
    Ok(Some(Interface { addresses, peer: other_end(node, pod, &mut inside, found)? }))
}

/// The addresses of one interface of a pod, with the prefix lengths of their subnets; none if there is none of this name.
///
/// # Errors
/// The namespace cannot be entered or read.
pub fn addresses_of(pod: &Netns, ifname: &str) -> Result<Vec<(IpAddr, u8)>, KernelError> {
    let mut inside = open(pod)?;
    match index_of(&mut inside, ifname)? {
        Some((index, ..)) => addresses_at(&mut inside, index),
        None => Ok(Vec::new()),
    }
}

fn addresses_at(inside: &mut Socket, index: u32) -> Result<Vec<(IpAddr, u8)>, KernelError> {
    let dump = inside.dump(&address::list(Some(index))).map_err(reading("addresses"))?;
    let addresses = dump.iter().filter_map(address::read);
    Ok(addresses.filter(|a| a.index == index).map(|a| (a.ip, a.prefix)).collect())
}

/// The node's end of a pod's interface, if it has one that points back.
///
/// Asked of every kind of device, not of veth alone: netkit pairs have two ends too. A device without a peer (ipvlan's and
/// macvlan's `IFLA_LINK` is the node's uplink, which does not point back) has none.
///
/// # Errors
/// A namespace cannot be entered or read.
pub fn peer_of(node: &Netns, pod: &Netns, ifname: &str) -> Result<Option<End>, KernelError> {
    let mut inside = open(pod)?;
    match index_of(&mut inside, ifname)? {
        Some(found) => other_end(node, pod, &mut inside, found),
        None => Ok(None),
    }
}

fn other_end(
    node: &Netns,
    pod: &Netns,
    inside: &mut Socket,
    (index, peer, in_netns): Found,
) -> Result<Option<End>, KernelError> {
    let Some(peer) = peer else { return Ok(None) };
    let mut outside = open(node)?;
    let answer = match outside.ask(link::by_index(peer)) {
        Ok(answer) => answer,
        Err(refusal) if refusal.is_absence() => return Ok(None),
        Err(refusal) => return Err(reading("the other end of the pod's interface")(refusal)),
    };
    let points_back = |device: &link::Device<'_>| device.peer == Some(index) && device.peer_netns.is_some();
    // Both sides must name the other's namespace: indexes alone meet by chance, every namespace counts them from 1.
    let node_id = id_of(inside, node)?;
    let pod_id = id_of(&mut outside, pod)?;
    let found = answer.iter().filter_map(link::read).find(points_back);
    let ours =
        found.filter(|device| in_netns.is_some() && in_netns == node_id && device.peer_netns == pod_id);
    Ok(ours.map(|device| End { name: device.name.to_owned(), index: device.index }))
}

fn id_of(socket: &mut Socket, other: &Netns) -> Result<Option<i32>, KernelError> {
    let answer = socket.ask(link::netns_id(other)).map_err(reading("a namespace's id"))?;
    Ok(answer.iter().find_map(link::read_netns_id))
}

/// Those of these addresses to which this node's routes lead by a device, or by the one that it is a port of.
///
/// # Errors
/// The namespace cannot be entered or read.
pub fn led_to(node: &Netns, end: &End, addresses: Vec<IpAddr>) -> Result<Vec<IpAddr>, KernelError> {
    if addresses.is_empty() {
        return Ok(addresses);
    }
    let mut socket = open(node)?;
    let answer =
        socket.ask(link::by_index(end.index)).map_err(reading("the node's end of a pod's interface"))?;
    let above = answer.iter().find_map(link::read).and_then(|device| device.above);
    let mut leads = |ip: &IpAddr| {
        let way = socket.ask(route::lookup(*ip)).ok();
        let device = way.and_then(|answer| answer.iter().find_map(route::read_device));
        device.is_some_and(|device| device == end.index || Some(device) == above)
    };
    Ok(addresses.into_iter().filter(|ip| leads(ip)).collect())
}

/// Source address that a packet to the outside would get in a family; `None` without a default route.
///
/// # Errors
/// The namespace cannot be entered.
pub fn default_route_source(netns: &Netns, family: Family) -> Result<Option<IpAddr>, KernelError> {
    Ok(default_way(netns, family)?.map(|(source, _)| source))
}

/// Index of the device that a packet to the outside would leave by in a family; `None` without a default route.
///
/// # Errors
/// The namespace cannot be entered.
pub fn default_route_device(netns: &Netns, family: Family) -> Result<Option<u32>, KernelError> {
    Ok(default_way(netns, family)?.map(|(_, index)| index))
}

/// Every default route of both families, in every table, but those that carry this protocol number: `main`'s first, then by table;
/// within one by metric.
///
/// # Errors
/// The namespace cannot be entered or read.
pub fn default_routes(netns: &Netns, without: u8) -> Result<Vec<DefaultRoute>, KernelError> {
    let mut socket = open(netns)?;
    let mut found = Vec::new();
    for family in Family::BOTH {
        // A protocol of 0 asks for all.
        let dump = socket.dump(&route::list(family, 0)).map_err(reading("routes"))?;
        found.extend(dump.iter().flat_map(|object| route::read_default(object, without)));
    }
    found.sort_by_key(|way| (way.table != MAIN, way.table, way.metric));
    Ok(found)
}

/// Table `main` (RT_TABLE_MAIN).
const MAIN: u32 = 254;

fn default_way(netns: &Netns, family: Family) -> Result<Option<(IpAddr, u32)>, KernelError> {
    let mut socket = open(netns)?;
    let mut way = |outside: IpAddr| {
        let answer = socket.ask(route::lookup(outside));
        answer.ok().and_then(|a| a.iter().find_map(route::read_lookup))
    };
    let device = |way: &Option<(IpAddr, u32)>| way.map(|(_, index)| index);
    let [first, second, third] = far(family);
    let (first, second) = (way(first), way(second));
    if device(&first) == device(&second) {
        return Ok(first);
    }
    let third = way(third);
    Ok(if device(&second) == device(&third) { second } else { first })
}

/// Addresses of documentation (RFC 5737, 3849, 9637), which nobody routes but by the default route: nearly nobody. One range may be a lab's
/// own subnet, or be dropped as one that comes from nowhere, so what two of the three say counts.
fn far(family: Family) -> [IpAddr; 3] {
    match family {
        Family::V4 => [[192, 0, 2, 1], [198, 51, 100, 1], [203, 0, 113, 1]].map(IpAddr::from),
        Family::V6 => [[0x2001, 0xdb8, 0], [0x2001, 0xdb8, 0x8000], [0x3fff, 0, 0]]
            .map(|[a, b, c]| [a, b, c, 0, 0, 0, 0, 1].into()),
    }
}

type Found = (u32, Option<u32>, Option<i32>);

fn index_of(socket: &mut Socket, name: &str) -> Result<Option<Found>, KernelError> {
    match socket.ask(link::by_name(name)) {
        Ok(answer) => Ok(answer.iter().find_map(link::read).map(|d| (d.index, d.peer, d.peer_netns))),
        Err(refusal) if refusal.is_absence() => Ok(None),
        Err(refusal) => Err(reading("the pod's interface")(refusal)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vlan_leads_where_the_device_below_it_does() {
        let kinds = Kinds::from([
            (2, ("", None)),
            (3, ("bond", None)),
            (4, ("vlan", Some(3))),
            (5, ("macsec", Some(4))),
            (6, ("bridge", None)),
            (7, ("vlan", Some(6))),
            // Of these the lower device is another namespace's: a pod's, or the machine's where this one is a container.
            (8, ("vlan", None)),
            (9, ("macvlan", Some(2))),
            (10, ("of a kernel to come", None)),
        ]);
        let leading: Vec<u32> =
            kinds.keys().copied().filter(|index| leads_to_machines(*index, &kinds)).collect();
        assert_eq!(leading, [2, 3, 4, 5]);
    }
}
