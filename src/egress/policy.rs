//! Policies as they were written: what the resolver reads, whoever's manifest it was.
//!
//! In: filled by `api` from `EgressGatewayPolicy` (ours and Calico's) and `CiliumEgressGatewayPolicy`. Out: read by `resolve`,
//! `explain`, `lint` and `convert`. Never: looks at gateways, pods or nodes; that is resolving.
//!
//! All three kinds become one type: a policy selects pods (by itself, or because an annotation names it) and says for each
//! destination prefix where it goes. Label selectors of Kubernetes become texts of the selector grammar, which can say all they
//! can (`In` → `in`, `NotIn` → `not in`, `Exists` → `has()`, `DoesNotExist` → `!has()`).

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::addr::Cidr;
use crate::problem::Problem;

/// Which kind of object a policy was written as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum PolicyKind {
    /// `EgressGatewayPolicy` of `egret.dev`.
    Ours,
    /// `EgressGatewayPolicy` of `projectcalico.org` or `crd.projectcalico.org`.
    Calico,
    /// `CiliumEgressGatewayPolicy` of `cilium.io`.
    Cilium,
}

impl PolicyKind {
    /// As in `kind:` of the manifest.
    pub fn as_str(self) -> &'static str {
        match self {
            PolicyKind::Ours | PolicyKind::Calico => "EgressGatewayPolicy",
            PolicyKind::Cilium => "CiliumEgressGatewayPolicy",
        }
    }
}

/// A policy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Policy {
    /// Object's name.
    pub name: String,
    /// What it was written as.
    pub kind: PolicyKind,
    /// `metadata.creationTimestamp` in Unix seconds: the older of two policies wins. `None`: as old as can be told, after all
    /// that have one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<i64>,
    /// Decides before every annotation (the first tier). Ours only.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub enforced: bool,
    /// Pods that it selects by itself; any entry is enough. Empty: annotations name it, or nobody does.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub selectors: Vec<PodSelection>,
    /// Destinations and where they go, one entry per prefix. The longest prefix wins, in any order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<PolicyRule>,
    /// Destinations that no rule matches are held, not direct. Ours only.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub deny_others: bool,
    /// Where it sends one family's whole internet to gateways and says nothing of the other's, that one is left as it is instead of
    /// held, as Cilium leaves it. Ours only; Cilium's kind always does.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ignores_other_family: bool,
    /// Why it cannot be obeyed. Pods that name it, or that it selects, are held; Cilium's kind is left out instead, as Cilium does.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unfit: Vec<Problem>,
}

impl Policy {
    /// `EgressGatewayPolicy web`: how problems and decisions name it.
    pub fn object(&self) -> String {
        format!("{} {}", self.kind.as_str(), self.name)
    }
}

/// Pods that a policy selects: all of what is given must match; what is not given matches everything.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodSelection {
    /// Selector over pod labels, and over `io.kubernetes.pod.namespace` = the pod's namespace. Text; it parses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pods: Option<String>,
    /// Selector over the labels of the pod's namespace. Text; it parses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespaces: Option<String>,
    /// Selector over the labels of the node the pod runs on; an unknown node has none. Text; it parses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nodes: Option<String>,
}

/// Where one destination prefix goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyRule {
    /// The destination. A rule without one stands twice here, once for each family's whole internet.
    pub destination: Cidr,
    /// Where in the object it is: `spec.rules[2]`, `spec.excludedCIDRs[0]`.
    pub field: String,
    /// Where it goes.
    pub to: To,
}

/// Where a rule sends.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum To {
    /// As if we were not there: a rule without gateway, an excluded prefix.
    Direct,
    /// To pod gateways.
    Pods(PodGateways),
    /// To one of these node gateways, chosen by the pod's UID. Never empty.
    Nodes(Vec<NodeGatewayWish>),
}

/// The pod gateways of a rule.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PodGateways {
    /// Selector over the gateway pods' labels. Text; it parses.
    pub pods: String,
    /// Selector over their namespaces. Text; it parses. `None`: the client's own namespace.
    pub namespaces: Option<String>,
    /// At most so many of them for one pod. `None`: all.
    pub max_next_hops: Option<u32>,
    /// Those of the client's node if any is usable, else all (`gatewayPreference: PreferNodeLocal`).
    pub prefer_local: bool,
}

/// One entry of `egressGateway` or `egressGateways`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct NodeGatewayWish {
    /// Selector over node labels; of the nodes that match and have an address, the first by name serves. Text; it parses.
    pub nodes: String,
    /// Interface whose first address of each family it leaves with, by name or alternative name.
    pub interface: Option<String>,
    /// Address it leaves with; the other family's comes from the interface that owns it. Without `interface` and this: the
    /// first addresses of the default route's interface.
    pub egress_ip: Option<IpAddr>,
}
