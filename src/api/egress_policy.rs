//! Our `EgressGatewayPolicy` (egret.dev/v1alpha1): Calico's, with what Cilium's can say, and what both lack.
//!
//! ```yaml
//! apiVersion: egret.dev/v1alpha1
//! kind: EgressGatewayPolicy
//! metadata: {name: shop}
//! spec:
//!   enforced: false                            # true: before every annotation; a pod cannot annotate itself out of it
//!   selectors:                                 # pods it selects by itself; any entry is enough. Absent: annotations name it
//!   - selector: app == "cart"                  # over pod labels; absent: all
//!     namespaceSelector: env == "production"   # over the labels of their namespaces; absent: all
//!     nodeSelector: zone == "a"                # over the labels of the node they run on; absent: all
//!   rules:                                     # the longest prefix wins, in any order
//!   - description: partners                    # for people
//!     destination: {cidr: 203.0.113.0/24}      # or cidrs: [a list]; absent: everything, both families
//!     gateway:                                 # absent: direct
//!       selector: egress == "red"              # over gateway pods
//!       namespaceSelector: projectcalico.org/name == "egress"   # over their namespaces; absent: the client's own
//!       maxNextHops: 2                         # at most so many of them per pod; 0 or absent: all
//!     gatewayPreference: PreferNodeLocal       # those of the pod's node if any is usable; None
//!   - destination: {cidr: 198.51.100.0/24}
//!     gateway:
//!       nodes:                                 # instead of `selector`: nodes, one of them per pod (by its UID)
//!       - nodeSelector: role == "edge"         # the first by name that matches
//!         interface: eth1                      # leaves with its first addresses
//!       - nodeSelector: role == "edge2"
//!         egressIP: 192.0.2.10                 # leaves with this one; neither: the default route's interface
//!   excludedCIDRs: [203.0.113.7/32]            # direct; on one prefix they win over rules
//!   defaultAction: Allow                       # Deny: what no rule names is held
//!   otherFamily: Hold                          # Ignore: a family that no rule names is left as it is, though all of the other is sent
//! ```

use super::Object;
use super::fields::{Findings, Section};
use super::policy::{Draft, destination, leaves_by, selector};
use super::shape::{ADDRESS, CIDR, Field, Rule, Shape, document, field, rule};
use crate::addr::Cidr;
use crate::egress::policy::{NodeGatewayWish, PodGateways, PodSelection, PolicyKind, To};

/// As in Cilium's kind (`maxItems`).
pub(super) const MOST_NODE_GATEWAYS: usize = 64;

pub(super) const FIELDS: &[Field] = &document(SPEC, POLICY_RULES);

const SPEC: &[Field] = &[
    field(
        "enforced",
        Shape::Flag,
        "Decides before every annotation: a pod cannot annotate itself out of the policy. Needs `selectors`.",
    )
    .or("false"),
    field(
        "selectors",
        Shape::Maps(SELECTION),
        "Pods that the policy selects by itself; any entry is enough. Absent: annotations name the policy.",
    )
    .each(&[rule(
        "has(self.selector) || has(self.namespaceSelector) || has(self.nodeSelector)",
        "the entry has no selector; write `selector: all()` if every pod of the cluster is meant",
    )]),
    field(
        "rules",
        Shape::Maps(RULE),
        "Destinations and where they go. The longest prefix wins, in any order.",
    )
    .rules(DESTINATION_RULES),
    field("excludedCIDRs", Shape::Texts, "Destinations that go direct; on one prefix they win over rules.")
        .like(CIDR),
    field(
        "defaultAction",
        Shape::Choice(&["Allow", "Deny"]),
        "What becomes of destinations that no rule names: direct, or held.",
    )
    .or("Allow"),
    field(
        "otherFamily",
        Shape::Choice(&["Hold", "Ignore"]),
        "What becomes of a family that no rule names where all of the other is sent to gateways: held, or left as it is.",
    )
    .or("Hold"),
];

const SELECTION: &[Field] = &[
    field("selector", Shape::Text, "Selector over the pods' labels. Absent: all.").selects().rules(SAID),
    field("namespaceSelector", Shape::Text, "Selector over the labels of their namespaces. Absent: all.")
        .selects()
        .rules(SAID),
    field("nodeSelector", Shape::Text, "Selector over the labels of the node they run on. Absent: all.")
        .selects()
        .rules(SAID),
];

/// A selector that is written says something: the grammar reads an empty text as `all()`.
pub(super) const SAID: &[Rule] = &[rule(
    "self.matches('[^ \\t]')",
    "the selector is empty; write `all()` if every one is meant, or leave the field out",
)];

const POLICY_RULES: &[Rule] = &[rule(
    "has(self.rules) && self.rules.exists(one, has(one.gateway) || has(one.destination)) \
     || has(self.excludedCIDRs) && size(self.excludedCIDRs) > 0 || has(self.defaultAction) && self.defaultAction == 'Deny'",
    "the policy says nothing: it has no rule with a gateway or a destination, no excludedCIDRs, and defaultAction is not \
     `Deny`; write a rule",
)];

/// Prefixes inside `cidrs` are compared when the policy is read: here it would cost more than the API server allows.
const DESTINATION_RULES: &[Rule] = &[
    rule(
        "self.filter(one, !has(one.destination) || !has(one.destination.cidr) && !has(one.destination.cidrs)).size() <= 1",
        "two rules have no destination, so both are for everything; keep one of them",
    ),
    SAME_DESTINATION,
];

/// Of rules of ours and of Calico's.
pub(super) const SAME_DESTINATION: Rule = rule(
    "self.filter(one, has(one.destination) && has(one.destination.cidr)).all(one, self.filter(other, \
         has(other.destination) && has(other.destination.cidr) && other.destination.cidr == one.destination.cidr).size() == 1)",
    "two rules have one destination, which cannot go two ways; remove one of them",
);

const RULE: &[Field] = &[
    field("description", Shape::Text, "For people."),
    field("destination", Shape::Map(DESTINATION), "Where packets go to. Absent: everything, both families.").rules(&[
        rule("!has(self.cidr) || !has(self.cidrs)", "cidrs stands beside cidr; move that prefix into the list"),
        rule(
            "!has(self.cidrs) || size(self.cidrs) > 0",
            "cidrs is empty; write a prefix, or leave `destination` out for everything",
        ),
    ]),
    field(
        "gateway",
        Shape::Map(GATEWAY),
        "Pods (`selector`) or nodes (`nodes`) through which they go. Absent: direct, as if there were no policy.",
    )
    .rules(&[
        rule(
            "has(self.selector) || has(self.nodes)",
            "the selector is missing; a gateway needs one over its pods, or `nodes`; write `all()` if every one is meant",
        ),
        rule(
            "!has(self.nodes) || !has(self.selector) && !has(self.namespaceSelector) && !has(self.maxNextHops)",
            "selector, namespaceSelector and maxNextHops are for gateway pods, and `nodes` names nodes; remove one",
        ),
    ]),
    PREFERENCE,
];

const DESTINATION: &[Field] = &[
    field("cidr", Shape::Text, "A prefix; a bare address is itself alone.").like(CIDR),
    field("cidrs", Shape::Texts, "Several, instead of `cidr`.").like(CIDR),
];

const GATEWAY: &[Field] = &[
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

pub(super) fn read(name: &str, root: &Section<'_>, findings: &mut Findings<'_>) -> Option<Object> {
    root.closed(findings);
    let mut draft = Draft::new(name, PolicyKind::Ours, root, findings);
    let spec = root.section("spec", findings);
    spec.closed(findings);
    let enforced = spec.flag("enforced", findings);
    draft.enforce(enforced);
    let selectors = selections(&spec, findings);
    let enforced_on_nobody = enforced && selectors.is_empty() && !findings.broken;
    draft.select(selectors);
    let deny = spec.choice("defaultAction", &[("Allow", false), ("Deny", true)], findings) == Some(true);
    draft.deny_others(deny);
    let ignore = spec.choice("otherFamily", &[("Hold", false), ("Ignore", true)], findings) == Some(true);
    draft.ignore_other_family(ignore);
    let mut says_something = deny;
    for rule in spec.sections("rules", findings) {
        rule.closed(findings);
        rule.text("description", findings);
        let to = to(&rule, findings);
        let destinations = destinations(&rule, findings);
        says_something |= rule.get("gateway").is_some() || !matches!(destinations, Destinations::All);
        let Some(to) = to else { continue };
        match destinations {
            Destinations::All => draft.rest(rule.here(), to, findings),
            Destinations::These(list) => {
                for (at, cidr) in list {
                    draft.rule(rule.here(), &at, cidr, to.clone(), findings);
                }
            }
        }
    }
    for (at, text) in spec.texts("excludedCIDRs", findings) {
        says_something = true;
        if let Some(cidr) = destination(&at, text, true, findings) {
            draft.exclude(&at, cidr, findings);
        }
    }
    if !says_something && !findings.broken {
        let message = "the policy says nothing: it has no rule with a gateway or a destination, no excludedCIDRs, and \
                       defaultAction is not `Deny`; write a rule";
        findings.wrong("spec.rules", "", "NoRule", message);
    }
    if enforced_on_nobody {
        let message = "spec.enforced is true, and the policy has no spec.selectors, so it is enforced on no pod; write whom it is for";
        findings.doubt("spec.enforced", true, "SelectsNothing", message);
    }
    draft.finish(findings)
}

/// `spec.selectors`. An entry that cannot be read is left out, and the policy is unfit by it.
fn selections(spec: &Section<'_>, findings: &mut Findings<'_>) -> Vec<PodSelection> {
    const KEYS: [&str; 3] = ["selector", "namespaceSelector", "nodeSelector"];
    let mut selections = Vec::new();
    for entry in spec.sections("selectors", findings) {
        entry.closed(findings);
        if KEYS.iter().all(|key| entry.get(key).is_none()) {
            let message = format!(
                "{} has no selector; write `selector: all()` if every pod of the cluster is meant",
                entry.here()
            );
            findings.wrong(entry.here(), "", "EmptySelector", message);
            continue;
        }
        let given = |key: &str, findings: &mut Findings<'_>| match entry.get(key) {
            None => Some(None),
            Some(_) => selector(&entry, key, "leave it out", findings).map(Some),
        };
        let [pods, namespaces, nodes] = KEYS.map(|key| given(key, findings));
        if let (Some(pods), Some(namespaces), Some(nodes)) = (pods, namespaces, nodes) {
            selections.push(PodSelection { pods, namespaces, nodes });
        }
    }
    selections
}

/// Destinations of a rule.
enum Destinations {
    /// None written: everything.
    All,
    /// Those that could be read, each with its path.
    These(Vec<(String, Cidr)>),
}

fn destinations(rule: &Section<'_>, findings: &mut Findings<'_>) -> Destinations {
    let section = rule.section("destination", findings);
    section.closed(findings);
    let (one, several) = (section.get("cidr"), section.get("cidrs"));
    if let (Some(_), Some(_)) = (one, several) {
        let path = section.path("cidrs");
        let message = format!("{path} stands beside cidr; move that prefix into the list");
        findings.wrong(&path, "", "CidrAndCidrs", message);
    }
    if one.is_none() && several.is_none() {
        return Destinations::All;
    }
    let mut texts = section.texts("cidrs", findings);
    if several.is_some() && texts.is_empty() && !findings.broken {
        let path = section.path("cidrs");
        let message = format!("{path} is empty; write a prefix, or leave `destination` out for everything");
        findings.wrong(&path, "[]", "NoDestination", message);
    }
    texts.extend(section.text("cidr", findings).map(|text| (section.path("cidr"), text)));
    let read = |(at, text): (String, &str)| destination(&at, text, true, findings).map(|cidr| (at, cidr));
    Destinations::These(texts.into_iter().filter_map(read).collect())
}

/// `gatewayPreference`: whether gateways of the client's node come first; `None` if it cannot be read.
pub(super) fn preference(rule: &Section<'_>, findings: &mut Findings<'_>) -> Option<bool> {
    let words = [("None", false), ("PreferNodeLocal", true)];
    let prefer = rule.choice("gatewayPreference", &words, findings);
    if prefer == Some(true) && rule.get("gateway").is_none() {
        let path = rule.path("gatewayPreference");
        let message = format!("{path} has no effect on a rule without gateway; remove it");
        findings.doubt(&path, "PreferNodeLocal", "IgnoredField", message);
    }
    if rule.get("gatewayPreference").is_none() { Some(false) } else { prefer }
}

/// Where a rule sends; `None` if that cannot be said.
fn to(rule: &Section<'_>, findings: &mut Findings<'_>) -> Option<To> {
    let prefer_local = preference(rule, findings);
    if rule.get("gateway").is_none() {
        return Some(To::Direct);
    }
    let gateway = rule.section("gateway", findings);
    gateway.closed(findings);
    if !gateway.is_there() {
        return None;
    }
    if gateway.get("nodes").is_some() {
        return nodes(&gateway, prefer_local == Some(true), findings);
    }
    let pods = selector(&gateway, "selector", "a gateway needs one over its pods, or `nodes`", findings);
    let namespaces = match gateway.get("namespaceSelector") {
        None => None,
        Some(_) => Some(selector(
            &gateway,
            "namespaceSelector",
            "leave it out for the client's own namespace",
            findings,
        )?),
    };
    let most = gateway.number("maxNextHops", 0..=u32::MAX, findings).filter(|most| *most > 0);
    Some(To::Pods(PodGateways { pods: pods?, namespaces, max_next_hops: most, prefer_local: prefer_local? }))
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
