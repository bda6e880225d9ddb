//! What `egret status` says of a node, as values: stable JSON for machines, only additions to come.
//!
//! In: made by [`super::status`]. Out: serialized. Never: text for people; that is `cli`'s.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::Serialize;

use crate::addr::Cidr;
use crate::egress::model::{EndpointState, PodName};

/// How a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub enum Health {
    /// Nothing of Egret is wired here.
    Idle,
    /// The kernel holds the plan, and nothing is wrong.
    Well,
    /// The kernel holds the plan, and something is wrong in objects, records or around addresses.
    Degraded,
    /// The kernel does not hold what follows from the directory.
    Differs,
    /// The kernel or the directory could not be read.
    Unknown,
}

/// One node.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct NodeStatus {
    /// Its name.
    pub node: String,
    /// How it is.
    pub health: Health,
    /// Where its tunnel ends; absent if nothing was ever wired here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tunnel: Option<Tunnel>,
    /// Pod gateways that run here.
    pub gateways: Vec<GatewayHere>,
    /// Node gateways that this node is, for policies that name it.
    pub node_gateways: Vec<ExitHere>,
    /// Client pods that run here.
    pub clients: Vec<ClientHere>,
    /// Distinct sets of rules of these clients.
    pub bindings: Vec<BindingHere>,
    /// Gateway sets by their mark.
    pub sets: Vec<SetHere>,
    /// What differs from what follows from the directory: `egret reconcile` takes these steps.
    pub differences: Vec<Difference>,
    /// Settings of the host.
    pub settings: Settings,
    /// What rules of ours dropped or refused, since they were loaded.
    pub drops: Vec<Drops>,
    /// What went into the node's `forward` hook of ours and did not come out: a firewall's work.
    pub firewall: Vec<Firewall>,
}

/// The node on the underlay.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Tunnel {
    /// Device.
    pub device: &'static str,
    /// The node's address that carries it.
    pub underlay: IpAddr,
    /// The device that has this address, where it is an uplink.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uplink: Option<String>,
    /// VNI.
    pub vni: u32,
    /// UDP port.
    pub port: u16,
    /// MTU inside.
    pub mtu: u32,
}

/// A pod gateway that runs here.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct GatewayHere {
    /// The pod, where its endpoint or record names it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod: Option<PodName>,
    /// Its attachment.
    pub attachment: String,
    /// What its endpoint says; absent: it has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<EndpointState>,
    /// Its addresses.
    pub leases: Vec<LeaseHere>,
}

/// A leased address of a gateway here, and how replies find it.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct LeaseHere {
    /// The address.
    pub address: IpAddr,
    /// Its pool.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pool: Option<String>,
    /// Uplinks on which the node answers for it.
    pub announced: Vec<String>,
    /// The same as a sentence's end.
    pub way_back: String,
}

/// A node gateway that this node is.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct ExitHere {
    /// Who it is: `node/NODE/INTERFACE/ADDRESS[,ADDRESS]`.
    pub key: String,
    /// Interface it leaves by, and by no other.
    pub interface: String,
    /// Addresses it leaves with, which the interface has: replies find the node by them.
    pub addresses: Vec<IpAddr>,
    /// Addresses it should leave with and has not got: what would leave with them is dropped.
    pub missing: Vec<IpAddr>,
}

/// A client pod that runs here.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct ClientHere {
    /// The pod, where a record names it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod: Option<PodName>,
    /// Its attachment.
    pub attachment: String,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// Its binding.
    pub binding: String,
}

/// A binding.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct BindingHere {
    /// Its chain in nftables.
    pub binding: String,
    /// How many pods have it.
    pub clients: usize,
    /// Its rules.
    pub rules: Vec<RuleHere>,
}

/// One rule of a binding.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct RuleHere {
    /// The longest prefix wins.
    pub destination: Cidr,
    /// `gateway`, `direct` or `held`.
    pub action: &'static str,
    /// The gateway set's mark.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub set: Option<u8>,
}

/// A gateway set.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct SetHere {
    /// Its mark.
    pub mark: u8,
    /// Its members.
    pub gateways: Vec<MemberHere>,
}

/// A gateway as this node sees it.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct MemberHere {
    /// The gateway pod, where its endpoint names it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod: Option<PodName>,
    /// Who it is.
    pub key: String,
    /// Its node, where it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Addresses that the outside sees.
    pub addresses: Vec<IpAddr>,
    /// Where it is reached; absent: on this node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub underlay: Option<IpAddr>,
}

/// A step that is missing.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Difference {
    /// `node`, or a gateway's attachment.
    pub place: String,
    /// As `egret reconcile --dry-run` prints it.
    pub step: String,
}

/// Settings of the host that Egret changes.
#[derive(Debug, Clone, Default, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Settings {
    /// Whether Egret wants flows spread by ports (`multipathHash`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hash_ports: Option<bool>,
    /// What `net.ipv4.fib_multipath_hash_policy` is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hash_policy: Option<String>,
    /// What uninstall will put back, by path below `/proc/sys`.
    pub saved: BTreeMap<String, String>,
}

/// What a rule dropped or refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Drops {
    /// `node`, or a gateway's attachment.
    pub place: String,
    /// The rule's comment.
    pub rule: String,
    /// Packets, both families together.
    pub packets: u64,
}

/// What a hook did to packets of ours.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Firewall {
    /// `forward`.
    pub hook: &'static str,
    /// `from gateways` or `to gateways`.
    pub direction: &'static str,
    /// How many went in.
    pub before: u64,
    /// How many came out.
    pub after: u64,
    /// How many did not.
    pub lost: u64,
}
