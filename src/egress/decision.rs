//! What was decided about a pod, and why: the nouns that follow from what is known.
//!
//! In: filled by `resolve`. Out: read by `planning`, `explain` and `list`. Never: does anything; no clock, no files, no kernel.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::addr::{Cidr, Family};
use crate::egress::model::PodName;
use crate::problem::Problem;

/// What one pod does with its traffic, and why.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision {
    /// The pod.
    pub pod: PodName,
    /// What kind of pod it is to us.
    pub role: Role,
    /// Destination → outcome; the longest prefix wins, in any order. Empty: everything goes direct.
    /// Inside destinations (`inside`) are not repeated here: they go direct before any rule is asked.
    /// Shared, because thousands of pods have the same.
    pub rules: Arc<BTreeMap<Cidr, Outcome>>,
    /// Which object decided: `Pod shop/cart`, `Namespace shop`; `None` when nothing selects the pod.
    pub decided_by: Option<Source>,
    /// Names the set of rules *as written* (not as resolved), so that pods with equal rules share one binding and the
    /// binding survives a change of gateways. Empty unless the role is `Client`.
    pub binding: String,
}

/// What a pod is to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub enum Role {
    /// Nothing selects it.
    Unselected,
    /// It is or wants to be a gateway; never redirected.
    Gateway,
    /// Shares its node's network: cannot be served.
    HostNetwork,
    /// Selected.
    Client,
}

/// Where a decision was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Source {
    /// `Pod shop/cart` or `Namespace shop`.
    pub object: String,
    /// The annotation that decided: `egress.projectcalico.org/selector`.
    pub field: String,
    /// Its value.
    pub value: String,
}

/// What happens to packets for one destination prefix.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// What is done.
    pub action: Action,
    /// Every gateway that was looked at, with the reason if it is out. Empty for `Direct`.
    /// Shared, because thousands of prefixes have the same.
    pub candidates: Arc<Vec<Candidate>>,
    /// What this prefix was decided by, where tiers and policies differ between prefixes; `None`: the decision's own source.
    pub decided_by: Option<Arc<Source>>,
}

/// What is done with a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// As if we were not there.
    Direct,
    /// Refused: TCP reset, the rest admin-prohibited. The sentence says why and what to do.
    Held(String),
    /// Through one of these, ascending, never empty: attachments of usable endpoints (pod gateways), or keys of
    /// [`Resolution::node_gateways`].
    Through(Arc<BTreeSet<String>>),
}

/// A gateway that a rule considered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// The gateway pod; `None`: the node itself is the gateway.
    pub pod: Option<PodName>,
    /// The key in `Action::Through`: its attachment, or the node gateway's key.
    pub key: String,
    /// Its node.
    pub node: String,
    /// Its address of the rule's family.
    pub address: Option<IpAddr>,
    /// `None`: usable. Else why not, as a sentence with the next step.
    pub unusable: Option<String>,
}

impl Candidate {
    /// `shop/gw-0`, or `node edge1`: how sentences and tables name it.
    pub fn gateway(&self) -> String {
        self.pod.as_ref().map_or_else(|| format!("node {}", self.node), ToString::to_string)
    }
}

/// Everything resolved: one decision per pod asked for, and the problems met on the way.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Resolution {
    /// By pod.
    pub decisions: BTreeMap<PodName, Decision>,
    /// Node gateways that decisions speak of, by key.
    pub node_gateways: BTreeMap<String, NodeGateway>,
    /// In the order found, without doubles.
    pub problems: Vec<Problem>,
}

/// A node that serves as a gateway, and the addresses it leaves by. Who it is follows from all of its fields, so that every node
/// that resolves the same objects finds the same gateway.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NodeGateway {
    /// The node.
    pub node: String,
    /// Interface it leaves by.
    pub interface: String,
    /// Addresses it leaves with, at most one per family, never empty.
    pub addresses: Vec<IpAddr>,
}

impl NodeGateway {
    /// Its key in `Action::Through`: `node/NODE/INTERFACE/ADDRESS[,ADDRESS]`. No attachment's starts so: attachments have three
    /// parts and a network of that name would give four.
    pub fn key(&self) -> String {
        let addresses: Vec<String> = self.addresses.iter().map(ToString::to_string).collect();
        format!("node/{}/{}/{}", self.node, self.interface, addresses.join(","))
    }

    /// The interface that a key names.
    pub fn interface_in(key: &str) -> Option<&str> {
        key.strip_prefix("node/")?.split('/').nth(1)
    }

    /// Its egress address of a family.
    pub fn address(&self, family: Family) -> Option<IpAddr> {
        self.addresses.iter().copied().find(|ip| Family::of(*ip) == family)
    }
}
