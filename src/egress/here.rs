//! What this node is, as a plan knows it.
//!
//! In: found at the door, by `node::facts`. Out: part of every plan. Never: an object's words, or a look at the machine.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::addr::Cidr;
use crate::egress::shared::Shared;

/// What this node is, found at the door: configuration and the machine, not objects.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Here {
    /// This node's name.
    pub node: String,
    /// Its underlay address.
    pub underlay: IpAddr,
    /// UDP port of the tunnel.
    pub port: u16,
    /// VNI of the node's own device.
    pub vni: u32,
    /// MTU of the tunnel devices: the underlay's less 50 bytes (IPv4) or 70 (IPv6).
    pub tunnel_mtu: u32,
    /// MTU of a gateway's veth: the underlay's.
    pub veth_mtu: u32,
    /// Our bits of the packet mark.
    pub mark_mask: u32,
    /// Whether this kernel has IPv6.
    pub ipv6: bool,
    /// Spread flows over gateways by ports (`fib_multipath_hash_policy=1`).
    pub hash_ports: bool,
    /// Devices on which a lease can be announced, with their addresses and prefix lengths.
    pub uplinks: Shared<Vec<Uplink>>,
    /// Devices by which no pod of this node sends to it: what comes by them is another machine's, whatever way leads back there.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub outward: BTreeSet<String>,
    /// Interfaces by which this node's own gateways leave, as they are now.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub doors: BTreeMap<String, Door>,
}

/// An interface by which node gateways leave.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Door {
    /// Its addresses.
    pub addresses: BTreeSet<IpAddr>,
    /// Where it leads: its subnets, and everything, if any table of the node names a default route through it. Destination → next
    /// hop, `None` where the device itself is the way. Empty while it is down.
    pub routes: BTreeMap<Cidr, Option<IpAddr>>,
}

/// A device that leads to the outside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Uplink {
    /// Device name.
    pub dev: String,
    /// Its addresses with the subnets they lie in.
    pub addresses: Vec<(IpAddr, Cidr)>,
}

impl Here {
    /// Devices whose subnet holds an address.
    pub fn uplinks_for(&self, ip: IpAddr) -> Vec<String> {
        let holds = |uplink: &&Uplink| uplink.addresses.iter().any(|(_, net)| net.contains(ip));
        self.uplinks.iter().filter(holds).map(|uplink| uplink.dev.clone()).collect()
    }
}
