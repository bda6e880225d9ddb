//! `EgressRange` of egret.dev/v1alpha1: ranges that are inside the cluster and never sent to a gateway, said once for all nodes.
//!
//! ```yaml
//! apiVersion: egret.dev/v1alpha1
//! kind: EgressRange
//! metadata: {name: pods}
//! spec:
//!   cidrs: [10.244.0.0/16, "fd00:244::/56"]
//! ```

use super::Object;
use super::fields::{Findings, Section};
use super::pool;
use super::shape::{CIDR, Field, Rule, Shape, document, field, rule};

pub(super) const FIELDS: &[Field] = &document(SPEC, RULES);

const SPEC: &[Field] =
    &[field("cidrs", Shape::Texts, "Ranges: of pods, or whatever else clients reach directly.")
        .required()
        .like(CIDR)
        .items(1, 64)];

const RULES: &[Rule] = &[
    rule(
        "self.cidrs.all(c, !c.endsWith('/0'))",
        "a range of everything would leave nothing to gateways; write the ranges that pods have addresses from",
    ),
    rule(
        "self.cidrs.all(c, !isCIDR(c) || cidr(c) == cidr(c).masked())",
        "a prefix has bits set below its length; write its first address, as in 10.244.0.0/16",
    ),
];

pub(super) fn read(_name: &str, root: &Section<'_>, findings: &mut Findings<'_>) -> Option<Object> {
    let spec = root.spec_of_ours(findings);
    let cidrs = super::node::cidrs(spec.texts("cidrs", findings), findings);
    for cidr in &cidrs {
        pool::refuse_hidden("spec.cidrs", &cidr.to_string(), *cidr, findings);
    }
    if let Some(all) = cidrs.iter().find(|cidr| cidr.prefix() == 0) {
        let message = "a range of everything would leave nothing to gateways; write the ranges that pods have addresses from";
        findings.wrong("spec.cidrs", all.to_string(), "CidrTooWide", message);
    } else if cidrs.is_empty() && !findings.broken {
        let message =
            "spec.cidrs is missing; write the ranges that pods have addresses from, as in [10.244.0.0/16]";
        findings.wrong("spec.cidrs", "", "MissingField", message);
    }
    (!findings.broken).then_some(Object::Range(cidrs))
}
