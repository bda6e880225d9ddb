//! Interfaces of nodes, as far as a node gateway leaves by one of them.
//!
//! In: each node says its own (`interfaces/NODE.json` in the state directory), or a person puts there what `ip -j address`
//! printed. Out: read by `resolve`, which derives from them the address that the outside sees. Never: the kernel's own view; `Here` is.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::addr::Cidr;

/// Interfaces of one node, in the kernel's order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Interfaces {
    /// Every device that is up and has an address, ours and `lo` left out.
    pub links: Vec<Interface>,
    /// Device of the default route, IPv4. `None`: there is none, or nobody said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default4: Option<String>,
    /// Device of the default route, IPv6.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default6: Option<String>,
}

/// One interface.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its alternative names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub altnames: Vec<String>,
    /// Its addresses that can be reached from elsewhere, in the kernel's order; IPv6 addresses that pass (temporary, deprecated, failed)
    /// come last.
    pub addresses: Vec<IpAddr>,
    /// Where it leads as a node gateway's: its subnets, and everything, where any table of the node has a default route by it. `None`: nobody
    /// said, because no policy asks for it, or the node's release is an older one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ways: Option<Vec<Cidr>>,
}
