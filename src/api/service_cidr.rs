//! `ServiceCIDR`: ranges that are inside the cluster and never sent to a gateway.

use super::Object;
use super::fields::{Findings, Section};
use super::shape::{CIDR, Field, METADATA, Shape, field};

pub(super) const FIELDS: &[Field] = &[
    field("metadata", Shape::Open(METADATA), "Its name.").required(),
    field("spec", Shape::Open(SPEC), "The ranges.").required(),
];

const SPEC: &[Field] = &[field("cidrs", Shape::Texts, "Ranges of services: inside the cluster.")
    .required()
    .like(CIDR)
    .items(1, 2)];

pub(super) fn read(_name: &str, root: &Section<'_>, findings: &mut Findings<'_>) -> Option<Object> {
    let spec = root.section("spec", findings);
    let cidrs = super::node::cidrs(spec.texts("cidrs", findings), findings);
    if cidrs.is_empty() && !findings.broken {
        findings.wrong(
            "spec.cidrs",
            "",
            "MissingField",
            "spec.cidrs is missing; write the service range, as in [10.96.0.0/16]",
        );
    }
    Some(Object::ServiceCidr(cidrs))
}
