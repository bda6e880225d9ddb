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
use super::policy::{Draft, destination, selector};
use super::policy_gateway::{GATEWAY, PREFERENCE, SAID, gateway, to};
use super::shape::{CIDR, Field, Rule, Shape, document, field, rule};
use crate::addr::Cidr;
use crate::egress::policy::{PodSelection, PolicyKind};

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

const POLICY_RULES: &[Rule] = &[rule(
    "has(self.rules) && self.rules.exists(one, has(one.gateway) \
     || has(one.destination) && (has(one.destination.cidr) || has(one.destination.cidrs))) || has(self.excludedCIDRs) && size(self.excludedCIDRs) > 0 || has(self.defaultAction) && self.defaultAction == 'Deny'",
    "the policy says nothing: it has no rule with a gateway or a destination, no excludedCIDRs, and defaultAction is not \
     `Deny`; write a rule",
)];

/// Prefixes inside `cidrs`, and with bits set below their length, are compared when the policy is read: here it would cost more than the
/// API server allows.
const DESTINATION_RULES: &[Rule] = &[
    rule(
        "self.filter(one, !has(one.destination) || !has(one.destination.cidr) && !has(one.destination.cidrs)).size() <= 1",
        "two rules have no destination, so both are for everything; keep one of them",
    ),
    rule(
        "!self.exists(one, !has(one.destination) || !has(one.destination.cidr) && !has(one.destination.cidrs)) \
         || !self.exists(one, has(one.destination) && (has(one.destination.cidr) && one.destination.cidr.matches('^[0-9.]+/0$') \
         || has(one.destination.cidrs) && '0.0.0.0/0' in one.destination.cidrs))",
        ALL_TWICE,
    ),
    SAME_DESTINATION,
];

/// Of rules of ours and of Calico's.
pub(super) const ALL_TWICE: &str = "a rule for 0.0.0.0/0 stands beside one without destination, and both are for everything; keep one of them";

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
        let to = to(&rule, findings, gateway);
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
