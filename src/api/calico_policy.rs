//! Calico's `EgressGatewayPolicy` (projectcalico.org/v3 and, as stored, crd.projectcalico.org/v1).
//!
//! ```yaml
//! apiVersion: projectcalico.org/v3
//! kind: EgressGatewayPolicy
//! metadata: {name: internet}
//! spec:
//!   rules:                                     # required; the longest prefix wins, in any order
//!   - description: partners                    # for people
//!     destination: {cidr: 203.0.113.0/24}      # absent: everything, both families; a bare address is /32 or /128
//!     gateway:                                 # absent: direct
//!       selector: egress-code == 'red'         # required
//!       namespaceSelector: projectcalico.org/name == 'default'   # required
//!       maxNextHops: 2                         # 0 or absent: all
//!     gatewayPreference: PreferNodeLocal       # None
//! ```
//!
//! What Calico's API server rejects is rejected here in the same words, as far as they are public; the pods that name such a
//! policy are held.

use super::Object;
use super::egress_policy::{ALL_TWICE, SAME_DESTINATION};
use super::fields::{Findings, Section};
use super::policy::{Draft, destination, selector};
use super::policy_gateway::{MAX_NEXT_HOPS, PREFERENCE, SAID, pods, to};
use super::shape::{CIDR, Field, Rule, Shape, document, field, rule};
use crate::egress::policy::{PolicyKind, To};

pub(super) const FIELDS: &[Field] = &document(SPEC, POLICY_RULES);

const SPEC: &[Field] = &[field(
    "rules",
    Shape::Maps(RULE),
    "Destinations and where they go. The longest prefix wins, in any order.",
)
.required()
.rules(&[
    rule(
        "self.filter(one, !has(one.destination) || !has(one.destination.cidr)).size() <= 1",
        "two rules have no destination, so both are for everything; keep one of them",
    ),
    rule(
        "!self.exists(one, !has(one.destination) || !has(one.destination.cidr)) || !self.exists(one, has(one.destination) \
         && has(one.destination.cidr) && one.destination.cidr.matches('^[0-9.]+/0$'))",
        ALL_TWICE,
    ),
    SAME_DESTINATION,
])];

const POLICY_RULES: &[Rule] = &[rule(
    "self.rules.exists(one, has(one.gateway) || has(one.destination) && has(one.destination.cidr))",
    "no rule of spec.rules specifies a gateway or a destination; write one that does",
)];

const RULE: &[Field] = &[
    field("description", Shape::Text, "For people."),
    field("destination", Shape::Map(DESTINATION), "Where packets go to. Absent: everything, both families."),
    field("gateway", Shape::Map(GATEWAY), "The gateway pods. Absent: direct, as if there were no policy."),
    PREFERENCE,
];

const DESTINATION: &[Field] =
    &[field("cidr", Shape::Text, "A prefix; a bare address is itself alone. Absent: everything.").like(CIDR)];

const GATEWAY: &[Field] = &[
    field("selector", Shape::Text, "Selector over the gateway pods' labels.")
        .required()
        .selects()
        .rules(SAID),
    field("namespaceSelector", Shape::Text, "Selector over the labels of their namespaces.")
        .required()
        .selects()
        .rules(SAID),
    MAX_NEXT_HOPS,
];

pub(super) fn read(name: &str, root: &Section<'_>, findings: &mut Findings<'_>) -> Option<Object> {
    root.closed(findings);
    let mut draft = Draft::new(name, PolicyKind::Calico, root, findings);
    let spec = root.section("spec", findings);
    spec.closed(findings);
    let mut says_something = false;
    for rule in spec.sections("rules", findings) {
        rule.closed(findings);
        rule.text("description", findings);
        let to = to(&rule, findings, gateway);
        let section = rule.section("destination", findings);
        section.closed(findings);
        let path = section.path("cidr");
        let field = rule.here();
        let given = section.get("cidr").is_some();
        says_something |= given || rule.get("gateway").is_some();
        let cidr = section.text("cidr", findings).and_then(|text| destination(&path, text, true, findings));
        match (cidr, to) {
            (Some(cidr), Some(to)) => draft.rule(field, &path, cidr, to, findings),
            (None, Some(to)) if !given => draft.rest(field, to, findings),
            _ => {}
        }
    }
    if !says_something && !findings.broken {
        let message = "no rule of spec.rules specifies a gateway or a destination; write one that does";
        findings.wrong("spec.rules", "", "NoRule", message);
    }
    draft.finish(findings)
}

/// A rule's `gateway`: pods, which Calico wants selected by both.
fn gateway(gateway: &Section<'_>, prefer_local: Option<bool>, findings: &mut Findings<'_>) -> Option<To> {
    let of_pods = selector(gateway, "selector", "a gateway needs one over its pods", findings);
    let namespaces = selector(
        gateway,
        "namespaceSelector",
        "a gateway needs one over the namespaces of its pods",
        findings,
    );
    pods(gateway, of_pods, namespaces.map(Some), prefer_local, findings)
}
