//! What is known of the cluster: the nouns of egress. What was decided about a pod is beside them, in `decision`.
//!
//! In: filled by `api` and `store` from objects and records. Out: read by `resolve`, `plan` and `explain`.
//! Never: does anything; no clock, no files, no kernel.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::addr::{Cidr, Family, Mac};
pub use crate::egress::decision::{
    Action, Candidate, Decision, NodeGateway, Outcome, Resolution, Role, Source,
};
use crate::egress::interfaces::Interfaces;
use crate::egress::policy::{Policy, To};
use crate::problem::Problem;

/// A pod by namespace and name; prints as `namespace/name`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct PodName {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl PodName {
    /// From its two parts.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> PodName {
        PodName { namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for PodName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl Serialize for PodName {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PodName {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        let (namespace, name) = text.split_once('/').unwrap_or(("default", &text));
        Ok(PodName::new(namespace, name))
    }
}

/// Labels or annotations.
pub type Pairs = BTreeMap<String, String>;

/// Whose annotations are read (Calico's `egressIPSupport`; `Disabled` is not offered: uninstall instead).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum EgressSupport {
    /// The namespace's only.
    EnabledPerNamespace,
    /// The pod's, which replace its namespace's as a whole.
    #[default]
    EnabledPerNamespaceOrPerPod,
}

/// A snapshot of the cluster, as far as one asks. A missing object is simply not in its map.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct View {
    /// Whose annotations count.
    pub support: EgressSupport,
    /// Ranges of pods, services and nodes, from the configuration and from `EgressRange` objects.
    pub cluster_cidrs: Vec<Cidr>,
    /// Namespaces by name.
    pub namespaces: BTreeMap<String, Namespace>,
    /// Pods by name.
    pub pods: BTreeMap<PodName, Pod>,
    /// Nodes by name.
    pub nodes: BTreeMap<String, Node>,
    /// Pools by name.
    pub pools: BTreeMap<String, Pool>,
    /// `EgressGatewayPolicy` objects by name, ours and Calico's: annotations name either.
    pub policies: BTreeMap<String, Policy>,
    /// `CiliumEgressGatewayPolicy` objects by name.
    pub cilium_policies: BTreeMap<String, Policy>,
    /// Interfaces of nodes, by node; who has not said its own is missing, and cannot be a node gateway.
    pub interfaces: BTreeMap<String, Interfaces>,
    /// Service ranges (`ServiceCIDR` objects).
    pub service_cidrs: Vec<Cidr>,
    /// Where the API server is (its `EndpointSlice`).
    pub api_servers: Vec<Cidr>,
    /// Subnets that primary plugins put pods in, by node, each with whose it is (`Pod a/b`; `Attachment …` of a container without one). A node
    /// knows its own. Inside for the pods of that node; no decision asks.
    pub subnets: BTreeMap<String, Vec<(String, Cidr)>>,
    /// Gateways: the only place where resolve learns of them.
    pub endpoints: Vec<Endpoint>,
    /// Objects that exist but cannot be understood, by `Kind name`: what depends on them is held, not guessed.
    pub broken: BTreeSet<String>,
}

impl View {
    /// Whether any policy asks for node gateways.
    pub fn asks_for_nodes(&self) -> bool {
        let rules =
            self.policies.values().chain(self.cilium_policies.values()).flat_map(|policy| &policy.rules);
        rules.into_iter().any(|rule| matches!(rule.to, To::Nodes(_)))
    }
}

/// A core `Namespace`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Namespace {
    /// As written. `projectcalico.org/name` and `kubernetes.io/metadata.name` are added when selecting.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: Pairs,
    /// As written.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: Pairs,
}

/// A core `Pod`, as far as egress cares.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Pod {
    /// `metadata.uid`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
    /// `metadata.labels`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: Pairs,
    /// `metadata.annotations`, with those that the runtime passed laid over them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: Pairs,
    /// `spec.nodeName`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// `spec.hostNetwork`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub host_network: bool,
    /// `status.podIPs` (or `status.podIP`) of a pod that has not ended. Only `list` asks: on a node the attachment says it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ips: Vec<IpAddr>,
    /// `StatefulSet` that owns it (`metadata.ownerReferences` with `controller: true`), by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stateful_set: Option<String>,
}

/// The annotation of a static pod's object that says the UID of its file. Its object, which the kubelet makes, has another.
pub const STATIC_POD_UID: &str = "kubernetes.io/config.hash";

impl Pod {
    /// The UIDs that it goes by: a static one by its file's, too, which is the one that the runtime passes.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        let of_its_file = self.annotations.get(STATIC_POD_UID);
        self.uid.as_deref().into_iter().chain(of_its_file.map(String::as_str))
    }
}

/// A core `Node`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Node {
    /// `metadata.labels`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: Pairs,
    /// `status.addresses` of type InternalIP, in order. The first of a family is the underlay address.
    #[serde(default)]
    pub internal_ips: Vec<IpAddr>,
    /// Every other address in `status.addresses` that is an IP.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub other_ips: Vec<IpAddr>,
    /// `spec.podCIDRs`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pod_cidrs: Vec<Cidr>,
    /// Number of the node on the wire (1–0x3fff), from its record in the store; `None` until it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub number: Option<u16>,
    /// Four bytes for its MAC addresses: its IPv4 address, or one of 240.0.0.0/4 allocated in the store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wire: Option<std::net::Ipv4Addr>,
}

/// Which kind of object a pool was written as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum PoolKind {
    /// Ours.
    EgressPool,
    /// Calico's.
    IPPool,
}

/// Where a gateway's egress address comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub enum PoolSource {
    /// Leased from the pool.
    #[default]
    Pool,
    /// The gateway pod's own primary address, which lies in the pool: nothing is leased.
    PodAddress,
}

impl PoolSource {
    /// Whether addresses are leased.
    pub fn is_pool(&self) -> bool {
        *self == PoolSource::Pool
    }
}

/// How the outside learns the way to a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Announce {
    /// Proxy neighbour entries on the uplink whose subnet holds the address.
    #[default]
    Auto,
    /// Somebody else sees to it.
    None,
}

/// A pool of egress addresses, right by construction: masked, its block size inside its prefix.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Pool {
    /// Object's name.
    pub name: String,
    /// What it was written as.
    pub kind: PoolKind,
    /// Its addresses.
    pub cidr: Cidr,
    /// Prefix length of its blocks; at least the pool's own.
    pub block_size: u8,
    /// Selector over nodes, for unrequested use only. Text; it parses (checked at the door).
    pub node_selector: String,
    /// Selector over the namespaces whose pods may be gateways. `None`: no namespace.
    pub gateway_namespaces: Option<String>,
    /// Selector over the namespaces whose pods may use them. `None`: the gateway's own namespace.
    pub client_namespaces: Option<String>,
    /// Where the address comes from.
    pub source: PoolSource,
    /// Leave with the node's address instead (Calico's host-IP mode).
    pub nat_outgoing: bool,
    /// Never borrow from another node's block.
    pub strict_affinity: bool,
    /// How the outside learns the way.
    pub announce: Announce,
    /// Seconds that a freed address rests.
    pub cooldown_seconds: u32,
    /// No new leases.
    pub disabled: bool,
    /// When the object was made, in seconds since 1970. `None`: after all others.
    pub created: Option<i64>,
}

impl Pool {
    /// What an `EgressPool` is that says no more than its addresses and its blocks' size: no namespace may have gateways of it.
    pub fn new(name: &str, cidr: Cidr, block_size: u8) -> Pool {
        Pool {
            name: name.to_owned(),
            kind: PoolKind::EgressPool,
            cidr,
            block_size,
            node_selector: "all()".to_owned(),
            gateway_namespaces: None,
            client_namespaces: None,
            source: PoolSource::Pool,
            nat_outgoing: false,
            strict_affinity: false,
            announce: Announce::Auto,
            cooldown_seconds: 60,
            disabled: false,
            created: None,
        }
    }
}

/// State of an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum EndpointState {
    /// Being wired; not used yet.
    Starting,
    /// Takes flows.
    Ready,
    /// Keeps its flows, takes no new ones.
    Draining,
    /// Out of use; its flows are told.
    Failed,
}

impl EndpointState {
    /// As endpoints and people say it.
    pub fn word(self) -> &'static str {
        match self {
            EndpointState::Starting => "starting",
            EndpointState::Ready => "ready",
            EndpointState::Draining => "draining",
            EndpointState::Failed => "failed",
        }
    }
}

/// Where a pod gateway is. Written only by its own node; clients trust this and nothing that a tenant can write.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Endpoint {
    /// The gateway pod.
    pub pod: PodName,
    /// Pod UID, where one is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
    /// The attachment that holds it (`NETWORK/CONTAINERID/IFNAME`).
    pub attachment: String,
    /// Node it runs on.
    pub node: String,
    /// Underlay addresses of that node.
    pub underlay: Vec<IpAddr>,
    /// VNI of its VXLAN device.
    pub vni: u32,
    /// MAC of its VXLAN device: who it is on the wire.
    pub mac: Mac,
    /// Egress addresses, at most one per family, each with its pool.
    pub addresses: Vec<EgressAddress>,
    /// Whether it may be used.
    pub state: EndpointState,
    /// Raised with every write.
    pub generation: u64,
    /// What the node found wrong with it: another owner of its address, no uplink to announce on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<Problem>,
}

impl Endpoint {
    /// Its egress address of a family.
    pub fn address(&self, family: Family) -> Option<IpAddr> {
        self.addresses.iter().map(|a| a.ip).find(|ip| Family::of(*ip) == family)
    }
}

/// One egress address of an endpoint.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EgressAddress {
    /// The address.
    pub ip: IpAddr,
    /// Pool it came from, or lies in.
    pub pool: String,
    /// Whether it was leased, or is the pod's own. Said here, because the pool may say something else tomorrow.
    #[serde(default, skip_serializing_if = "PoolSource::is_pool")]
    pub source: PoolSource,
}

impl EgressAddress {
    /// One that was leased from a pool.
    pub fn leased(ip: IpAddr, pool: impl Into<String>) -> EgressAddress {
        EgressAddress { ip, pool: pool.into(), source: PoolSource::Pool }
    }

    /// The gateway pod's own, which lies in a pool.
    pub fn of_the_pod(ip: IpAddr, pool: impl Into<String>) -> EgressAddress {
        EgressAddress { ip, pool: pool.into(), source: PoolSource::PodAddress }
    }
}
