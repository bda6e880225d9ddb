//! What this machine is: its underlay, its tunnel's MTU, its uplinks. Found once per call, at the door.
//!
//! In: the configuration, the Node object, the devices of the namespace. Out: a [`Here`], or a sentence that says which key to
//! set. Never: changes anything.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::addr::{Cidr, Family};
use crate::config::{Config, MultipathHash};
use crate::egress::interfaces::{Interface, Interfaces};
use crate::egress::model::Node;
use crate::egress::numbers::LINK_GROUP;
use crate::egress::plan::{Door, Here, Uplink};
use crate::kernel::devices::{DefaultRoute, Device};

/// Bytes that VXLAN adds over IPv4: outer IPv4 20, UDP 8, VXLAN 8, inner Ethernet 14 (RFC 7348 §4).
const OVERHEAD_V4: u32 = 50;
/// The same over IPv6.
const OVERHEAD_V6: u32 = 70;

/// Why this machine cannot be a node yet.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FactsError {
    /// Nothing says which address carries the tunnel.
    #[error(
        "node {0} has no underlay address: its Node object names no InternalIP that a device here holds, and there is no \
         default route. Write the Node object, or set `underlay.address`"
    )]
    NoUnderlay(String),
    /// The configured address or device is not here.
    #[error(
        "`underlay` of node {node} names {what}, but no device here has it. `ip address` lists what there is"
    )]
    NotHere {
        /// The node.
        node: String,
        /// The address or device.
        what: String,
    },
}

/// What the machine offers, beside its objects.
pub struct Machine<'a> {
    /// Its devices with their addresses.
    pub devices: &'a [Device],
    /// Source address of the default route of a family, if there is one.
    pub default_source: &'a dyn Fn(Family) -> Option<IpAddr>,
    /// Whether this kernel has IPv6.
    pub ipv6: bool,
}

/// Finds out what this node is.
///
/// # Errors
/// [`FactsError`], each with the key to set.
pub fn here(
    config: &Config,
    name: &str,
    node: Option<&Node>,
    machine: &Machine<'_>,
) -> Result<Here, FactsError> {
    let underlay = underlay(config, name, node, machine)?;
    let device = machine.devices.iter().find(|d| d.addresses.iter().any(|(ip, _)| *ip == underlay));
    let mtu = config.underlay.mtu.or_else(|| device.map(|d| d.mtu)).unwrap_or(1500);
    let overhead = if underlay.is_ipv4() { OVERHEAD_V4 } else { OVERHEAD_V6 };
    Ok(Here {
        node: name.to_owned(),
        underlay,
        port: config.underlay.port,
        vni: config.underlay.vni,
        tunnel_mtu: mtu.saturating_sub(overhead),
        veth_mtu: mtu,
        mark_mask: config.mark_mask,
        ipv6: machine.ipv6,
        hash_ports: config.multipath_hash == MultipathHash::L4,
        uplinks: uplinks(config, machine.devices).into(),
        outward: outward(config, underlay, machine.devices),
        doors: BTreeMap::new(),
    })
}

fn underlay(
    config: &Config,
    name: &str,
    node: Option<&Node>,
    machine: &Machine<'_>,
) -> Result<IpAddr, FactsError> {
    let held = |ip: &IpAddr| machine.devices.iter().any(|d| d.addresses.iter().any(|(own, _)| own == ip));
    let not_here = |what: String| FactsError::NotHere { node: name.to_owned(), what };
    if let Some(ip) = config.underlay.address {
        return if held(&ip) { Ok(ip) } else { Err(not_here(ip.to_string())) };
    }
    if let Some(dev) = &config.underlay.device {
        let device = machine.devices.iter().find(|d| d.name == *dev);
        let first = device.and_then(|d| d.addresses.iter().map(|(ip, _)| *ip).find(is_routable));
        return first.ok_or_else(|| not_here(dev.clone()));
    }
    let of_node = node.into_iter().flat_map(|n| &n.internal_ips).copied().find(held);
    let of_route = || Family::BOTH.into_iter().find_map(|family| (machine.default_source)(family));
    of_node.or_else(of_route).ok_or_else(|| FactsError::NoUnderlay(name.to_owned()))
}

/// Whether an address can be reached from elsewhere, by its kind.
pub(crate) fn is_routable(ip: &IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => !ip.is_link_local() && !ip.is_loopback(),
        IpAddr::V6(ip) => !ip.is_unicast_link_local() && !ip.is_loopback(),
    }
}

/// Devices on which a lease may be announced: those configured, else all that are up, not ours and have a subnet.
fn uplinks(config: &Config, devices: &[Device]) -> Vec<Uplink> {
    let named = &config.announce.interfaces;
    let serves = |device: &&Device| {
        device.group != LINK_GROUP
            && device.name != "lo"
            && device.up
            && (named.is_empty() || named.contains(&device.name))
    };
    let subnets = |device: &Device| {
        let subnet = |(ip, prefix): &(IpAddr, u8)| (*ip, Cidr::covering(*ip, *prefix));
        let addresses: Vec<_> =
            device.addresses.iter().filter(|(ip, _)| is_routable(ip)).map(subnet).collect();
        Uplink { dev: device.name.clone(), addresses }
    };
    devices.iter().filter(serves).map(subnets).filter(|uplink| !uplink.addresses.is_empty()).collect()
}

/// Devices by which no pod of this node sends. Not the uplinks above: those are for leases, so a bridge of pods is one, and an interface without
/// an address or one that the configuration leaves out is none. Of veths and bridges the one with the underlay's address counts, and those that
/// somebody names as uplinks: any other may lead to pods.
fn outward(config: &Config, underlay: IpAddr, devices: &[Device]) -> BTreeSet<String> {
    let is_outward = |device: &&Device| {
        device.group != LINK_GROUP
            && device.name != "lo"
            && (device.leads_to_machines
                || device.addresses.iter().any(|(ip, _)| *ip == underlay)
                || config.announce.interfaces.contains(&device.name))
    };
    devices.iter().filter(is_outward).map(|device| device.name.clone()).collect()
}

/// What a node says of its own interfaces: those that are up and have an address, ours, `lo` and pods' ends left out.
pub fn interfaces(devices: &[Device], default: &dyn Fn(Family) -> Option<u32>) -> Interfaces {
    // A plugin that routes to each pod gives every pod's end the same host address: it is nobody's way out.
    let is_pods = |device: &Device| {
        let host = |(ip, prefix): &(IpAddr, u8)| *prefix == Family::of(*ip).bits() || !is_routable(ip);
        device.leads_to_pod && device.addresses.iter().all(host)
    };
    let serves =
        |device: &&Device| device.group != LINK_GROUP && device.name != "lo" && device.up && !is_pods(device);
    let described = |device: &Device| Interface {
        name: device.name.clone(),
        altnames: device.altnames.clone(),
        addresses: device.addresses.iter().map(|(ip, _)| *ip).filter(is_routable).collect(),
        ways: None,
    };
    let links = devices.iter().filter(serves).map(described).filter(|link| !link.addresses.is_empty());
    let name = |family| {
        let index = default(family)?;
        devices.iter().find(|device| device.index == index).map(|device| device.name.clone())
    };
    Interfaces { links: links.collect(), default4: name(Family::V4), default6: name(Family::V6) }
}

/// The interfaces by which node gateways leave, as they are: what they are called, every device, every default route of the node.
pub fn doors(
    names: &BTreeSet<&str>,
    devices: &[Device],
    defaults: &[DefaultRoute],
) -> BTreeMap<String, Door> {
    let here = devices.iter().filter(|device| names.contains(device.name.as_str()));
    here.map(|device| (device.name.clone(), door(device, defaults))).collect()
}

fn door(device: &Device, defaults: &[DefaultRoute]) -> Door {
    let mut door =
        Door { addresses: device.addresses.iter().map(|(ip, _)| *ip).collect(), routes: BTreeMap::new() };
    if !device.up {
        return door;
    }
    for (ip, prefix) in device.addresses.iter().filter(|(ip, _)| is_routable(ip)) {
        let subnet = Cidr::covering(*ip, *prefix);
        if subnet.size() > 1 {
            door.routes.insert(subnet, None);
        }
    }
    // The first that names this device; of the tables' order `devices::default_routes` has taken care.
    for way in defaults.iter().filter(|way| way.index == device.index) {
        door.routes.entry(way.family.everything()).or_insert(way.gateway);
    }
    door
}

#[cfg(test)]
mod tests {
    use super::*;

    fn eth0() -> Device {
        let addresses = [("172.30.0.1", 24), ("10.10.10.101", 24), ("fe80::1", 64), ("fd00:172:30::1", 64)];
        Device {
            name: "eth0".into(),
            altnames: Vec::new(),
            leads_to_pod: true,
            leads_to_machines: false,
            index: 2,
            mtu: 1500,
            group: 0,
            up: true,
            mac: None,
            addresses: addresses.iter().map(|(ip, prefix)| (ip.parse().unwrap(), *prefix)).collect(),
        }
    }

    fn find(config: &Config, node: Option<&Node>, route: Option<&str>) -> Result<Here, FactsError> {
        let devices = [eth0()];
        let source = |family| route.map(|ip| ip.parse().unwrap()).filter(|ip| Family::of(*ip) == family);
        let machine = Machine { devices: &devices, default_source: &source, ipv6: true };
        here(config, "node1", node, &machine)
    }

    #[test]
    fn the_node_object_names_the_underlay_and_the_device_its_mtu() {
        let node = Node {
            internal_ips: vec!["192.0.2.9".parse().unwrap(), "172.30.0.1".parse().unwrap()],
            ..Node::default()
        };
        let here = find(&Config::default(), Some(&node), None).unwrap();
        assert_eq!(
            (here.underlay.to_string(), here.tunnel_mtu, here.veth_mtu),
            ("172.30.0.1".into(), 1450, 1500)
        );
        assert_eq!(here.uplinks_for("10.10.10.0".parse().unwrap()), ["eth0"]);
        assert_eq!(here.uplinks_for("203.0.113.1".parse().unwrap()), [""; 0]);
    }

    #[test]
    fn an_ipv6_underlay_costs_seventy_bytes() {
        let node = Node { internal_ips: vec!["fd00:172:30::1".parse().unwrap()], ..Node::default() };
        assert_eq!(find(&Config::default(), Some(&node), None).unwrap().tunnel_mtu, 1430);
    }

    #[test]
    fn without_a_node_object_the_default_route_decides_and_without_that_a_sentence() {
        assert_eq!(
            find(&Config::default(), None, Some("10.10.10.101")).unwrap().underlay.to_string(),
            "10.10.10.101"
        );
        let error = find(&Config::default(), None, None).unwrap_err().to_string();
        assert!(error.contains("set `underlay.address`"), "{error}");
        let mut config = Config::default();
        config.underlay.address = Some("192.0.2.1".parse().unwrap());
        assert!(find(&config, None, None).unwrap_err().to_string().contains("192.0.2.1"));
    }

    #[test]
    fn who_comes_by_an_uplink_is_not_asked_whether_the_way_back_is_the_same_and_who_comes_by_a_pods_device_is()
     {
        let device = |name: &str, leads_to_machines: bool, addresses: &[(&str, u8)]| Device {
            name: name.into(),
            leads_to_pod: !leads_to_machines,
            leads_to_machines,
            addresses: addresses.iter().map(|(ip, prefix)| (ip.parse().unwrap(), *prefix)).collect(),
            ..eth0()
        };
        let devices = [
            device("lo", true, &[("127.0.0.1", 8), ("172.30.0.1", 32)]),
            // Uplinks of a routed fabric, without an address of their own, one of them down for now.
            device("enp1s0", true, &[]),
            Device { up: false, ..device("enp2s0", true, &[]) },
            device("cilium_wg0", true, &[]),
            Device { group: LINK_GROUP, ..device("egress.vxlan", true, &[]) },
            // Pods': a bridge with their subnet, which may announce leases; a routed end.
            device("cni0", false, &[("10.60.1.1", 24)]),
            device("veth1", false, &[("10.60.1.1", 32)]),
            device("br0", false, &[("192.0.2.7", 24)]),
        ];
        let outward = |announced: &[&str], underlay: &str| {
            let mut config = Config::default();
            config.announce.interfaces = announced.iter().map(|name| (*name).to_owned()).collect();
            outward(&config, underlay.parse().unwrap(), &devices).into_iter().collect::<Vec<_>>().join(" ")
        };
        assert_eq!(outward(&[], "172.30.0.1"), "cilium_wg0 enp1s0 enp2s0");
        assert_eq!(
            outward(&[], "192.0.2.7"),
            "br0 cilium_wg0 enp1s0 enp2s0",
            "the nodes' network is bridged"
        );
        assert_eq!(outward(&["br0"], "172.30.0.1"), "br0 cilium_wg0 enp1s0 enp2s0", "somebody says so");
    }
}
