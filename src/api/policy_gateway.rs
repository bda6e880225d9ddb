//! Where a policy's rule sends: its gateway, pods or nodes, in our words and in those that Calico and Cilium share with us.
//!
//! In: the section of a rule. Out: [`To`], or findings. Never: reads destinations, or what selects clients.

use super::fields::{Findings, Section};
use super::policy::{leaves_by, selector};
use super::shape::{ADDRESS, Field, Rule, Shape, field, rule};
use crate::egress::policy::{NodeGatewayWish, PodGateways, To};

/// As in Cilium's kind (`maxItems`).
pub(super) const MOST_NODE_GATEWAYS: usize = 64;

pub(super) const GATEWAY: &[Field] = &[
    field("selector", Shape::Text, "Selector over the gateway pods' labels; this or `nodes`.")
        .selects()
        .rules(SAID),
    field(
        "namespaceSelector",
        Shape::Text,
        "Selector over the labels of the gateway pods' namespaces. Absent: the client's own namespace.",
    )
    .selects()
    .rules(SAID),
    MAX_NEXT_HOPS,
    field(
        "nodes",
        Shape::Maps(NODE),
        "Node gateways, instead of `selector`: each pod takes one of them, by its UID.",
    )
    .items(1, MOST_NODE_GATEWAYS)
    .each(ADDRESS_RULES),
];

const NODE: &[Field] = &[
    field(
        "nodeSelector",
        Shape::Text,
        "Selector over node labels; the first node by name that matches serves.",
    )
    .required()
    .selects()
    .rules(SAID),
    INTERFACE,
    EGRESS_IP,
];

/// A selector that is written says something: the grammar reads an empty text as `all()`.
pub(super) const SAID: &[Rule] = &[rule(
    "self.matches('[^ \\t]')",
    "the selector is empty; write `all()` if every one is meant, or leave the field out",
)];

/// Of a gateway of ours and of Calico's.
pub(super) const MAX_NEXT_HOPS: Field = field(
    "maxNextHops",
    Shape::Number(0, u32::MAX),
    "At most so many of the gateways for one pod; `0` is all.",
)
.or("0");

/// Of a rule of ours and of Calico's.
pub(super) const PREFERENCE: Field = field(
    "gatewayPreference",
    Shape::Choice(&["None", "PreferNodeLocal"]),
    "`PreferNodeLocal`: gateways of the pod's own node if any is usable, else all.",
)
.or("None");

/// Of a node gateway of ours and of Cilium's.
pub(super) const INTERFACE: Field = field(
    "interface",
    Shape::Text,
    "Leaves with the first address of each family of this interface, by its name or alternative name. Not beside `egressIP`.",
)
.rules(&[rule(
    "size(self) <= 127 && !self.matches('[[:space:]/]')",
    "this is no name of a network interface; write one as `ip link` prints it, such as eth1",
)]);

/// Of a node gateway of ours and of Cilium's.
pub(super) const ADDRESS_RULES: &[Rule] = &[rule(
    "!has(self.interface) || self.interface == '' || !has(self.egressIP) || self.egressIP == ''",
    "interface stands beside egressIP, and only one of them can say the address; remove one",
)];

/// Of a node gateway of ours and of Cilium's.
pub(super) const EGRESS_IP: Field = field(
    "egressIP",
    Shape::Text,
    "Leaves with this address, which the node must have; the other family's comes from the same interface. Without it and \
     `interface`: the default route's interface.",
)
.like(ADDRESS);

/// Where a rule of ours or of Calico's sends; `None` if that cannot be said. `through` reads its `gateway`, with whether those of the
/// client's node come first.
pub(super) fn to(
    rule: &Section<'_>,
    findings: &mut Findings<'_>,
    through: impl FnOnce(&Section<'_>, Option<bool>, &mut Findings<'_>) -> Option<To>,
) -> Option<To> {
    let prefer_local = preference(rule, findings);
    if rule.get("gateway").is_none() {
        return Some(To::Direct);
    }
    let gateway = rule.section("gateway", findings);
    gateway.closed(findings);
    if gateway.is_there() { through(&gateway, prefer_local, findings) } else { None }
}

/// Gateway pods, once their selectors were read; `None` if something could not be.
pub(super) fn pods(
    gateway: &Section<'_>,
    selector: Option<String>,
    namespaces: Option<Option<String>>,
    prefer_local: Option<bool>,
    findings: &mut Findings<'_>,
) -> Option<To> {
    let max_next_hops = gateway.number("maxNextHops", 0..=u32::MAX, findings).filter(|most| *most > 0);
    Some(To::Pods(PodGateways {
        pods: selector?,
        namespaces: namespaces?,
        max_next_hops,
        prefer_local: prefer_local?,
    }))
}

/// A rule's `gateway`: pods or nodes.
pub(super) fn gateway(
    gateway: &Section<'_>,
    prefer_local: Option<bool>,
    findings: &mut Findings<'_>,
) -> Option<To> {
    if gateway.get("nodes").is_some() {
        return nodes(gateway, prefer_local == Some(true), findings);
    }
    let of_pods = selector(gateway, "selector", "a gateway needs one over its pods, or `nodes`", findings);
    let namespaces = match gateway.get("namespaceSelector") {
        None => None,
        Some(_) => Some(selector(
            gateway,
            "namespaceSelector",
            "leave it out for the client's own namespace",
            findings,
        )?),
    };
    pods(gateway, of_pods, Some(namespaces), prefer_local, findings)
}

/// `gateway.nodes`.
fn nodes(gateway: &Section<'_>, prefer_local: bool, findings: &mut Findings<'_>) -> Option<To> {
    for key in ["selector", "namespaceSelector", "maxNextHops"] {
        if gateway.get(key).is_some() {
            let path = gateway.path(key);
            let message =
                format!("{path} is for gateway pods, and {} names nodes; remove one", gateway.path("nodes"));
            findings.wrong(&path, "", "PodsAndNodes", message);
        }
    }
    if prefer_local {
        let message = "PreferNodeLocal is for gateway pods and has no effect on `nodes`; remove it";
        findings.doubt(&gateway.path("nodes"), "PreferNodeLocal", "IgnoredField", message);
    }
    let path = gateway.path("nodes");
    let entries = gateway.sections("nodes", findings);
    if entries.is_empty() || entries.len() > MOST_NODE_GATEWAYS {
        let message = format!("{path} has {} entries; write from 1 to {MOST_NODE_GATEWAYS}", entries.len());
        findings.wrong(&path, entries.len(), "NodeGateways", message);
        return None;
    }
    let mut wishes = Vec::new();
    for entry in &entries {
        entry.closed(findings);
        let nodes = selector(entry, "nodeSelector", "a node gateway needs one over the nodes", findings);
        let (interface, egress_ip) = leaves_by(entry, findings);
        wishes.push(NodeGatewayWish { nodes: nodes?, interface, egress_ip });
    }
    Some(To::Nodes(wishes))
}

/// `gatewayPreference`: whether gateways of the client's node come first; `None` if it cannot be read.
fn preference(rule: &Section<'_>, findings: &mut Findings<'_>) -> Option<bool> {
    let words = [("None", false), ("PreferNodeLocal", true)];
    let prefer = rule.choice("gatewayPreference", &words, findings);
    if prefer == Some(true) && rule.get("gateway").is_none() {
        let path = rule.path("gatewayPreference");
        let message = format!("{path} has no effect on a rule without gateway; remove it");
        findings.doubt(&path, "PreferNodeLocal", "IgnoredField", message);
    }
    if rule.get("gatewayPreference").is_none() { Some(false) } else { prefer }
}
