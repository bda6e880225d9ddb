//! `ServiceCIDR`: ranges that are inside the cluster and never sent to a gateway.

use super::Object;
use super::fields::{Findings, Section};

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
