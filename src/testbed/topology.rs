//! What a world looks like: how many nodes, which primary plugin, which masquerade, which addresses.
//!
//! In: a plain value with knobs. Out: every address and prefix of the world, by arithmetic.
//! Never: touches a kernel or a file.

use std::net::IpAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::addr::{Cidr, Family};

/// The plugin that gives pods their interface. All of them with host-local addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
pub enum Primary {
    /// Reference `bridge`: pods behind the Linux bridge `cni0`.
    Bridge,
    /// Reference `ptp`: one routed veth per pod.
    Ptp,
    /// `bridge`, then `portmap`, then Egret.
    BridgePortmap,
    /// `bridge`, then Egret, then `portmap`.
    BridgePortmapLast,
}

/// Who hides pods behind their node's address when they leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
pub enum Masquerade {
    /// Nobody: the outside sees pod addresses.
    None,
    /// The primary plugin (`ipMasq: true`).
    IpMasq,
    /// Rules of the node in iptables on nftables.
    IptablesNft,
    /// Rules of the node in legacy iptables.
    IptablesLegacy,
    /// A native nftables table of the node.
    Nft,
}

/// Address families of the pods. Nodes always have both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Families {
    /// IPv4 alone.
    V4,
    /// IPv6 alone.
    V6,
    /// Both.
    Dual,
}

impl Families {
    /// As a list, IPv4 first.
    pub fn list(self) -> &'static [Family] {
        match self {
            Families::V4 => &[Family::V4],
            Families::V6 => &[Family::V6],
            Families::Dual => &Family::BOTH,
        }
    }
}

/// The knobs of a world. Take the default and change what the story is about.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Topology {
    /// Number of nodes, 1 to 99; they are called `node1`, `node2` …
    pub nodes: u8,
    /// Who wires pods.
    pub primary: Primary,
    /// Who hides them.
    pub masquerade: Masquerade,
    /// `rp_filter=1` for everything, set before any device exists; else 0.
    pub strict_rp_filter: bool,
    /// MTU of the fabric, bytes: nodes' uplinks and the router's leg, so that the router can say what does not fit.
    pub uplink_mtu: u32,
    /// MTU that the primary gives to pods, bytes.
    pub pod_mtu: u32,
    /// What pods have.
    pub families: Families,
    /// Which family carries the tunnel: first InternalIP of each Node object, and `underlay.address` of Egret.
    pub underlay: Family,
    /// Whether bridged packets pass the nodes' netfilter (`bridge-nf-call-iptables`).
    pub br_netfilter: bool,
    /// Whether each node has a second way out: `eth1`, with a subnet of its own, a leg of the router, and a default route in a table
    /// of its own (100), so that `main` knows nothing of it.
    pub second_uplink: bool,
    /// `cniVersion` of the nodes' network list.
    pub cni_version: String,
    /// The `egret` binary to chain; `None` leaves the reference plugins alone.
    pub egret: Option<PathBuf>,
    /// Keys laid over Egret's entry in the list.
    pub egret_keys: Map<String, Value>,
    /// Whether pod annotations reach plugins as containerd hands them over (`CAP_ARGS`), beside the Pod object.
    pub runtime_annotations: bool,
    /// Whether every node reconciles after each ADD and DEL, as a cluster's agents would.
    pub settle: bool,
}

impl Default for Topology {
    fn default() -> Self {
        Topology {
            nodes: 3,
            primary: Primary::Bridge,
            masquerade: Masquerade::IptablesNft,
            strict_rp_filter: true,
            uplink_mtu: 1500,
            pod_mtu: 1500,
            families: Families::Dual,
            underlay: Family::V4,
            br_netfilter: true,
            second_uplink: false,
            cni_version: "1.0.0".to_owned(),
            egret: None,
            egret_keys: Map::new(),
            runtime_annotations: true,
            settle: true,
        }
    }
}

/// Name of the network on every node.
pub const NETWORK: &str = "pods";
/// The fabric's second subnet, whose low addresses pools may lease.
pub const LEASE_NET: [&str; 2] = ["10.10.10.0/24", "fd00:10:10::/64"];
/// MTU of the way to `far`, bytes.
pub const FAR_MTU: u32 = 1300;

/// Places behind the router.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Outside {
    /// At MTU 1500.
    Near,
    /// At MTU 1300.
    Far,
}

impl Outside {
    /// Both.
    pub const BOTH: [Outside; 2] = [Outside::Near, Outside::Far];

    /// Name of its namespace: `outside` or `far`.
    pub fn name(self) -> &'static str {
        match self {
            Outside::Near => "outside",
            Outside::Far => "far",
        }
    }

    /// Its subnet.
    pub fn network(self, family: Family) -> Cidr {
        constant(match (self, family) {
            (Outside::Near, Family::V4) => "198.51.100.0/24",
            (Outside::Near, Family::V6) => "2001:db8:ff::/64",
            (Outside::Far, Family::V4) => "198.51.101.0/24",
            (Outside::Far, Family::V6) => "2001:db8:fe::/64",
        })
    }

    /// Its address: 198.51.100.100, 2001:db8:ff::100 and the like.
    pub fn address(self, family: Family) -> IpAddr {
        host(self.network(family), 100)
    }
}

/// The subnet that nodes and router share.
pub fn fabric(family: Family) -> Cidr {
    constant(match family {
        Family::V4 => "172.30.0.0/24",
        Family::V6 => "fd00:172:30::/64",
    })
}

/// The fabric's second subnet, where leases live; connected at the router, never routed.
pub fn lease_network(family: Family) -> Cidr {
    constant(match family {
        Family::V4 => LEASE_NET[0],
        Family::V6 => LEASE_NET[1],
    })
}

/// A node's address: 172.30.0.N or fd00:172:30::N.
pub fn node_address(node: u8, family: Family) -> IpAddr {
    host(fabric(family), node)
}

/// A node's address in the second subnet: 10.10.10.(100+N) or fd00:10:10::(100+N).
pub fn node_lease_address(node: u8, family: Family) -> IpAddr {
    host(lease_network(family), 100 + node)
}

/// The subnet of a node's second uplink: 172.31.N.0/24 or fd00:172:31:N::/64.
pub fn second_network(node: u8, family: Family) -> Cidr {
    constant(&match family {
        Family::V4 => format!("172.31.{node}.0/24"),
        Family::V6 => format!("fd00:172:31:{node}::/64"),
    })
}

/// A node's address on its second uplink: 172.31.N.N or fd00:172:31:N::N.
pub fn second_address(node: u8, family: Family) -> IpAddr {
    host(second_network(node, family), node)
}

/// A node's pod network: 10.60.N.0/24 or fd00:10:60:N::/64.
pub fn pod_network(node: u8, family: Family) -> Cidr {
    constant(&match family {
        Family::V4 => format!("10.60.{node}.0/24"),
        Family::V6 => format!("fd00:10:60:{node}::/64"),
    })
}

/// The prefix around all pod networks.
pub fn pod_networks(family: Family) -> Cidr {
    constant(match family {
        Family::V4 => "10.60.0.0/16",
        Family::V6 => "fd00:10:60::/48",
    })
}

/// The router's address in a subnet of the fabric.
pub fn router_address(subnet: Cidr) -> IpAddr {
    host(subnet, 254)
}

/// An address whose last part *reads* as the number in both families: `::254` is 0x254, so that people see 254.
pub(super) fn host(subnet: Cidr, number: u8) -> IpAddr {
    let offset = match subnet.family() {
        Family::V4 => u128::from(number),
        Family::V6 => (0..3).map(|d| u128::from(number / 10u8.pow(d) % 10) << (4 * d)).sum(),
    };
    subnet.nth(offset).unwrap_or(subnet.first())
}

impl Topology {
    /// Names of the nodes with their numbers.
    pub fn node_numbers(&self) -> std::ops::RangeInclusive<u8> {
        1..=self.nodes
    }

    /// Sources that a selected pod must never show outside: pod networks, node addresses, link-local.
    pub fn forbidden(&self) -> Vec<Cidr> {
        let mut all = vec![constant("169.254.0.0/16"), constant("fe80::/10")];
        for family in Family::BOTH {
            all.push(pod_networks(family));
            all.push(fabric(family));
            all.extend(self.node_numbers().map(|n| Cidr::host(node_lease_address(n, family))));
        }
        all
    }
}

fn constant(text: &str) -> Cidr {
    match text.parse() {
        Ok(cidr) => cidr,
        Err(error) => unreachable!("a prefix of the testbed's own is wrong: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_read_alike_in_both_families() {
        assert_eq!(node_lease_address(3, Family::V4).to_string(), "10.10.10.103");
        assert_eq!(node_lease_address(3, Family::V6).to_string(), "fd00:10:10::103");
        assert_eq!(router_address(fabric(Family::V6)).to_string(), "fd00:172:30::254");
        assert_eq!(Outside::Far.address(Family::V6).to_string(), "2001:db8:fe::100");
        assert_eq!(node_address(12, Family::V6).to_string(), "fd00:172:30::12");
    }

    #[test]
    fn a_lease_is_allowed_outside_and_a_node_is_not() {
        let forbidden = Topology::default().forbidden();
        let hit = |ip: &str| forbidden.iter().any(|c| c.contains(ip.parse().unwrap()));
        assert!(hit("10.60.2.7") && hit("172.30.0.2") && hit("10.10.10.103") && hit("fd00:10:10::101"));
        assert!(!hit("10.10.10.0") && !hit("10.10.10.104") && !hit("fd00:10:10::1"));
    }
}
