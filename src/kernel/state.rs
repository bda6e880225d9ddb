//! What one network namespace holds of ours, as a value that one can type, print, compare and count.
//!
//! In: built by `observe` from the kernel, or by the planner from nothing. Out: compared by `steps`.
//! Never: reads or writes a kernel; knows nothing of gateways or pods.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::addr::{Cidr, Family, Mac};
use crate::kernel::nft::table::Table;

/// Everything of ours in one namespace. Two equal values mean: nothing to do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Devices by name.
    pub links: BTreeMap<String, Link>,
    /// Addresses on our devices.
    pub addresses: BTreeSet<Address>,
    /// Permanent neighbours on our devices: (device, address) → MAC.
    pub neighbours: BTreeMap<(String, IpAddr), Mac>,
    /// Proxy neighbour entries, on any device: (device, address). Ours carry our protocol number.
    pub proxies: BTreeSet<(String, IpAddr)>,
    /// Permanent forwarding entries of our VXLAN devices: (device, MAC) → where to.
    pub fdb: BTreeMap<(String, Mac), Remote>,
    /// Nexthop objects and groups by id, all inside the scope's id range.
    pub nexthops: BTreeMap<u32, Nexthop>,
    /// Routes that carry our protocol number, in any table.
    pub routes: BTreeSet<Route>,
    /// Policy rules at our priorities.
    pub rules: BTreeSet<Rule>,
    /// Kernel settings below `/proc/sys`, path with slashes (`net/ipv4/conf/eg1/rp_filter`) → value.
    pub sysctls: BTreeMap<String, String>,
    /// nftables tables of ours by (family, name).
    pub tables: BTreeMap<(NftFamily, String), Table>,
    /// What is wrong with things of ours and cannot be said above. Only `observe` fills this; in a desired state it is empty.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub faults: BTreeSet<Fault>,
}

/// Something of ours that is not as we make it. Each one is repaired by a step.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Fault {
    /// A device of ours is down. The kernel then drops its routes, neighbours and nexthops, and does not bring them back.
    Down(String),
    /// A policy rule of ours stands twice.
    Twice(Rule),
    /// It carries our mark of ownership but has a shape that [`State`] has no words for; it is removed.
    Odd {
        /// What it is, for people.
        what: String,
        /// How to remove it.
        removal: Removal,
    },
}

/// How to remove something of an odd shape.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Removal {
    /// A device, by name.
    Link(String),
    /// An address with this prefix length.
    Address {
        /// Device name.
        dev: String,
        /// The address.
        ip: IpAddr,
        /// Length of the prefix it was given with.
        prefix: u8,
    },
    /// A nexthop object, by id.
    Nexthop(u32),
    /// A route, by the kernel's own description of it.
    Route(Vec<u8>),
    /// A policy rule, by the kernel's own description of it.
    Rule(Vec<u8>),
}

/// What `observe` may look at: the marks of ownership. Anything else in the namespace is invisible to us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    /// Link group of our devices.
    pub link_group: u32,
    /// Protocol number of our routes, rules, nexthops and proxy neighbours.
    pub protocol: u8,
    /// Priorities of our policy rules; a rule at one of them with another protocol is somebody else's.
    pub rule_priorities: Vec<u32>,
    /// Ids of our nexthop objects.
    pub nexthop_ids: std::ops::RangeInclusive<u32>,
    /// Our nftables tables.
    pub tables: Vec<(NftFamily, String)>,
}

/// A device of ours.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// What it is, with what cannot be changed after it was made.
    pub kind: LinkKind,
    /// Link-layer address.
    pub mac: Mac,
    /// Bytes.
    pub mtu: u32,
    /// ARP and neighbour discovery; off on tunnels, where the egress hook writes the MAC.
    pub arp: bool,
}

impl Link {
    /// Name and MAC of a veth's other end, if that MAC is another than it was.
    pub fn new_peer_mac(&self, was: &Link) -> Option<(&str, Mac)> {
        match (&self.kind, &was.kind) {
            (LinkKind::Veth { peer, peer_mac }, LinkKind::Veth { peer_mac: old, .. }) if peer_mac != old => {
                Some((peer, *peer_mac))
            }
            _ => None,
        }
    }
}

/// Kinds of devices.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum LinkKind {
    /// A VXLAN device (`nolearning`), its socket in the *home* namespace whatever namespace it stands in.
    Vxlan {
        /// VXLAN network identifier, 24 bits.
        vni: u32,
        /// UDP port of the node.
        port: u16,
        /// Underlay address of the node.
        local: IpAddr,
    },
    /// A veth whose other end is made in the *home* namespace under this name.
    Veth {
        /// Name of the other end.
        peer: String,
        /// MAC of the other end.
        peer_mac: Mac,
    },
    /// The home end of a veth that another namespace's reconcile made. Configured here, never created here.
    VethPeer,
}

/// An address on a device.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Address {
    /// Device name.
    pub dev: String,
    /// The address itself; always a host prefix (/32, /128).
    pub ip: IpAddr,
    /// `scope link` (true) keeps it from being chosen as a source; `scope global` otherwise. IPv6 has no choice here: the kernel
    /// derives the scope from the address, and what is said here is not looked at.
    pub link_scope: bool,
}

/// Where a VXLAN forwarding entry points.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remote {
    /// Underlay address of the other node.
    pub node: IpAddr,
    /// VNI of the device over there.
    pub vni: u32,
}

/// A nexthop object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Nexthop {
    /// One next hop, `onlink`.
    Via {
        /// Address of the next hop.
        gateway: IpAddr,
        /// Output device.
        dev: String,
    },
    /// Several of one family, weight 1 each.
    Group {
        /// Family of the members.
        family: Family,
        /// Ids of the members, ascending.
        members: BTreeSet<u32>,
    },
    /// Discards.
    Blackhole {
        /// Its family.
        family: Family,
    },
}

/// A route of ours.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Route {
    /// Table number; 254 is `main`.
    pub table: u32,
    /// Destination.
    pub to: Cidr,
    /// Metric; 0 is the kernel's default. IPv6 takes that as 1024, so there 1024 and 0 are one; `observe` says 0.
    pub metric: u32,
    /// What to do with the packet.
    pub via: Via,
}

/// What a route does.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Via {
    /// Directly out of a device, with a preferred source.
    Device {
        /// Output device.
        dev: String,
        /// Preferred source, so that errors made by this node come from a known address.
        source: Option<IpAddr>,
    },
    /// To a next hop on a device (`onlink`).
    Gateway {
        /// Address of the next hop.
        gateway: IpAddr,
        /// Output device.
        dev: String,
    },
    /// To a nexthop object.
    Nexthop(u32),
    /// `unreachable`: the seat belt at the end of a table.
    Unreachable,
}

/// A policy rule of ours.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Rule {
    /// Family.
    pub family: Family,
    /// Priority.
    pub priority: u32,
    /// What it matches.
    pub matches: Match,
    /// What it does with that.
    pub action: Action,
}

/// What a policy rule does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Action {
    /// `lookup TABLE`.
    Lookup(u32),
    /// `unreachable`.
    Unreachable,
    /// `goto PRIORITY`: on with the first rule of that priority, which is a later one. Where there is none, on with the next.
    Goto(u32),
    /// `nop`: on with the next rule. What a `goto` leads to.
    Nop,
}

impl Rule {
    /// The table that it looks up.
    pub fn table(&self) -> Option<u32> {
        match self.action {
            Action::Lookup(table) => Some(table),
            Action::Unreachable | Action::Goto(_) | Action::Nop => None,
        }
    }
}

/// What a policy rule matches.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Match {
    /// `fwmark value/mask`.
    Mark {
        /// Value under the mask.
        value: u32,
        /// Mask.
        mask: u32,
    },
    /// `not fwmark value/mask`.
    NotMark {
        /// Value under the mask.
        value: u32,
        /// Mask.
        mask: u32,
    },
    /// `iif device`.
    Input(String),
    /// `from address`.
    From(IpAddr),
}

/// nftables families we use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum NftFamily {
    /// IPv4 and IPv6 in one table.
    Inet,
    /// Hooks at a device.
    Netdev,
}

impl NftFamily {
    /// As nft's syntax names it.
    pub fn name(self) -> &'static str {
        match self {
            NftFamily::Inet => "inet",
            NftFamily::Netdev => "netdev",
        }
    }

    /// As netlink numbers it (`NFPROTO_*`).
    pub fn number(self) -> u8 {
        match self {
            NftFamily::Inet => 1,
            NftFamily::Netdev => 5,
        }
    }
}

/// The metric that IPv6 puts where none is given.
pub const IPV6_METRIC: u32 = 1024;
