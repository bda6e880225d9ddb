//! `CiliumEgressGatewayPolicy` (cilium.io/v2), as Cilium's CRD and agent read it.
//!
//! ```yaml
//! apiVersion: cilium.io/v2
//! kind: CiliumEgressGatewayPolicy
//! metadata: {name: egress-sample}
//! spec:
//!   selectors:                                 # required; any entry is enough
//!   - podSelector: {matchLabels: {org: empire}}          # this or namespaceSelector is required
//!     namespaceSelector: {matchLabels: {team: a}}
//!     nodeSelector: {matchLabels: {zone: z1}}  # where the pod runs; those of all entries are pooled, as in Cilium
//!   destinationCIDRs: [0.0.0.0/0, "::/0"]      # required
//!   excludedCIDRs: [192.0.2.0/24]              # direct
//!   egressGateway:                             # required, or egressGateways
//!     nodeSelector: {matchLabels: {role: edge}}          # the first node by name
//!     interface: eth1                          # or egressIP, not both; neither: the default route's interface
//!   egressGateways: []                         # up to 64; if any, egressGateway is ignored
//! ```

use super::Object;
use super::fields::{Findings, Section};
use super::label_selector::{self, LABEL_SELECTOR, Terms};
use super::policy::{Draft, destination, leaves_by};
use super::policy_gateway::{ADDRESS_RULES, EGRESS_IP, INTERFACE, MOST_NODE_GATEWAYS};
use super::shape::{Field, PREFIX, Rule, Shape, document, field, rule};
use crate::addr::Cidr;
use crate::egress::policy::{NodeGatewayWish, PodSelection, PolicyKind, To};

pub(super) const FIELDS: &[Field] = &document(SPEC, POLICY_RULES);

const SPEC: &[Field] = &[
    field("selectors", Shape::Maps(SELECTION), "Pods that the policy is for; any entry is enough.")
        .required()
        .each(&[rule(
            "has(self.podSelector) || has(self.namespaceSelector)",
            "the entry has neither podSelector nor namespaceSelector, and Cilium wants one; write `podSelector: {}` for every pod",
        )]),
    field("destinationCIDRs", Shape::Texts, "Destinations; the longest prefix wins.").required().like(PREFIX),
    field("excludedCIDRs", Shape::Texts, "Destinations that go direct.").like(PREFIX),
    field("egressGateway", Shape::Map(GATEWAY), "The node through which they go.").rules(ADDRESS_RULES),
    field(
        "egressGateways",
        Shape::Maps(GATEWAY),
        "Several: each pod takes one, by its UID. If there is any, `egressGateway` has no effect.",
    )
    .items(0, MOST_NODE_GATEWAYS)
    .each(ADDRESS_RULES),
];

const POLICY_RULES: &[Rule] = &[
    rule(
        "size(self.destinationCIDRs) > 0",
        "destinationCIDRs is empty; write the destinations, such as 0.0.0.0/0 for all of IPv4",
    ),
    rule(
        "has(self.egressGateway) || has(self.egressGateways) && size(self.egressGateways) > 0",
        "egressGateway is missing, and egressGateways is empty; write where the traffic leaves",
    ),
];

const SELECTION: &[Field] = &[
    field(
        "podSelector",
        Shape::Map(LABEL_SELECTOR),
        "Over the pods' labels, and `io.kubernetes.pod.namespace`. This or `namespaceSelector` is required.",
    ),
    field("namespaceSelector", Shape::Map(LABEL_SELECTOR), "Over the labels of their namespaces."),
    field(
        "nodeSelector",
        Shape::Map(LABEL_SELECTOR),
        "Over the labels of the node they run on; those of all entries are pooled.",
    ),
];

const GATEWAY: &[Field] = &[
    field("nodeSelector", Shape::Map(LABEL_SELECTOR), "The first node by name that matches serves.")
        .required(),
    INTERFACE,
    EGRESS_IP,
];

pub(super) fn read(name: &str, root: &Section<'_>, findings: &mut Findings<'_>) -> Option<Object> {
    root.closed(findings);
    let mut draft = Draft::new(name, PolicyKind::Cilium, root, findings);
    let spec = root.section("spec", findings);
    spec.closed(findings);
    draft.select(selections(&spec, findings));
    let wishes = gateways(&spec, findings);
    let destinations = cidrs(&spec, "destinationCIDRs", findings);
    if destinations.is_empty() && !findings.broken {
        let message =
            "spec.destinationCIDRs is empty; write the destinations, such as 0.0.0.0/0 for all of IPv4";
        findings.wrong("spec.destinationCIDRs", "", "NoDestination", message);
    }
    for (at, cidr) in destinations {
        draft.listed(&at, cidr, To::Nodes(wishes.clone()));
    }
    for (at, cidr) in cidrs(&spec, "excludedCIDRs", findings) {
        draft.exclude(&at, cidr, findings);
    }
    draft.finish(findings)
}

fn cidrs(spec: &Section<'_>, key: &str, findings: &mut Findings<'_>) -> Vec<(String, Cidr)> {
    let texts = spec.texts(key, findings);
    let read = |(at, text): (String, &str)| destination(&at, text, false, findings).map(|cidr| (at, cidr));
    texts.into_iter().filter_map(read).collect()
}

/// `spec.selectors`.
///
/// Cilium pools the node selectors of all entries: a pod is selected if any entry matches the pod, and any node selector
/// that is written anywhere matches its node. The YAML suggests otherwise, but users' pods were selected like this.
fn selections(spec: &Section<'_>, findings: &mut Findings<'_>) -> Vec<PodSelection> {
    if spec.get("selectors").is_none() {
        let message = "spec.selectors is missing; write which pods the policy is for";
        findings.wrong("spec.selectors", "", "MissingField", message);
    }
    let (mut selections, mut nodes) = (Vec::new(), Vec::new());
    let entries = spec.sections("selectors", findings);
    if entries.is_empty() && !findings.broken {
        let message =
            "spec.selectors is empty, so the policy selects no pod; write an entry with a podSelector";
        findings.doubt("spec.selectors", "[]", "SelectsNothing", message);
    }
    for entry in &entries {
        entry.closed(findings);
        if entry.get("podSelector").is_none() && entry.get("namespaceSelector").is_none() {
            let message = format!(
                "{} has neither podSelector nor namespaceSelector, and Cilium wants one; write `podSelector: {{}}` for every pod",
                entry.here()
            );
            findings.wrong(entry.here(), "", "EmptySelector", message);
        }
        let mut terms = |key: &str| {
            let section = entry.section(key, findings);
            entry.get(key).and_then(|_| label_selector::read(&section, findings))
        };
        let (pods, namespaces) = (terms("podSelector"), terms("namespaceSelector"));
        nodes.extend(terms("nodeSelector").map(|terms| terms.own));
        let given = |text: String| Some(text).filter(|text| text != "all()");
        let of_pods = pods.as_ref().and_then(|terms| terms.namespace.clone());
        let namespaces = match (namespaces.and_then(|Terms { own, .. }| given(own)), of_pods) {
            (Some(own), Some(named)) => Some(format!("{own} && {named}")),
            (own, named) => own.or(named),
        };
        selections.push(PodSelection {
            pods: pods.and_then(|terms| given(terms.own)),
            namespaces,
            nodes: None,
        });
    }
    let pooled = match nodes.as_slice() {
        [] => None,
        [one] => Some(one.clone()),
        several => Some(format!("({})", several.join(") || ("))),
    };
    for selection in &mut selections {
        selection.nodes.clone_from(&pooled);
    }
    selections
}

/// `spec.egressGateways`, or else `spec.egressGateway`. Not empty, or the policy is unfit.
fn gateways(spec: &Section<'_>, findings: &mut Findings<'_>) -> Vec<NodeGatewayWish> {
    let several = spec.sections("egressGateways", findings);
    if several.len() > MOST_NODE_GATEWAYS {
        let message = format!(
            "spec.egressGateways has {} entries; at most {MOST_NODE_GATEWAYS} are taken",
            several.len()
        );
        findings.wrong("spec.egressGateways", several.len(), "NodeGateways", message);
    }
    if !several.is_empty() {
        // The CRD wants `egressGateway` in any case, so an empty one says nothing.
        let one = spec.get("egressGateway");
        if one
            .is_some_and(|one| one.as_object().is_some_and(|one| one.keys().any(|key| key != "nodeSelector")))
        {
            let message =
                "spec.egressGateway has no effect beside spec.egressGateways; move it into that list";
            findings.doubt("spec.egressGateway", "", "IgnoredField", message);
        }
        return several.iter().filter_map(|gateway| wish(gateway, findings)).collect();
    }
    if spec.get("egressGateway").is_none() {
        let message =
            "spec.egressGateway is missing, and spec.egressGateways is empty; write where the traffic leaves";
        findings.wrong("spec.egressGateway", "", "MissingField", message);
        return Vec::new();
    }
    let one = spec.section("egressGateway", findings);
    wish(&one, findings).into_iter().collect()
}

fn wish(gateway: &Section<'_>, findings: &mut Findings<'_>) -> Option<NodeGatewayWish> {
    gateway.closed(findings);
    if gateway.is_there() && gateway.get("nodeSelector").is_none() {
        let path = gateway.path("nodeSelector");
        let message = format!("{path} is missing; write which nodes, or `{{}}` for all");
        findings.wrong(&path, "", "MissingField", message);
    }
    let section = gateway.section("nodeSelector", findings);
    let nodes = label_selector::read(&section, findings);
    let (interface, egress_ip) = leaves_by(gateway, findings);
    Some(NodeGatewayWish { nodes: nodes?.own, interface, egress_ip })
}
