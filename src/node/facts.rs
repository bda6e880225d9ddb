//! What this machine is: its underlay, its tunnel's MTU, its uplinks. Found once per call, at the door.
//!
//! In: the configuration, the Node object, the devices of the namespace. Out: a [`Here`], or a sentence that says which key to
//! set. Never: changes anything.

use std::net::IpAddr;

use crate::addr::{Cidr, Family};
use crate::config::{Config, MultipathHash};
use crate::egress::model::Node;
use crate::egress::numbers::LINK_GROUP;
use crate::egress::plan::{Here, Uplink};
use crate::kernel::devices::Device;

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
        uplinks: uplinks(config, machine.devices),
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

#[cfg(test)]
mod tests {
    use super::*;

    fn eth0() -> Device {
        let addresses = [("172.30.0.1", 24), ("10.10.10.101", 24), ("fe80::1", 64), ("fd00:172:30::1", 64)];
        Device {
            name: "eth0".into(),
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
}
