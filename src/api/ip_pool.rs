//! Calico's `IPPool` (projectcalico.org/v3 and, as stored, crd.projectcalico.org/v1).
//!
//! It says nothing of whose pods may be gateways or use them, so it counts as `all()` for both, as in Calico, unless its
//! annotations `egret.dev/gateway-namespaces` and `egret.dev/client-namespaces` narrow it. `assignmentMode: Manual`, the
//! newer word for `nodeSelector: "!all()"`, becomes just that. `egret.dev/source: PodAddress` says that somebody
//! else gives its addresses to pods, so that none may be leased. Fields about encapsulation and BGP are Calico's own.

use super::Object;
use super::fields::{Findings, Section};
use super::pool::{self, BLOCK_SIZE, DISABLED, DefaultBlock, NAT_OUTGOING, NODE_SELECTOR, RANGE_RULES};
use super::shape::{CIDR, Field, METADATA, Rule, Shape, field, rule};
use super::timestamp;
use crate::egress::model::{Pairs, Pool, PoolKind, PoolSource};

/// Annotation that says where a pool's addresses come from, as `spec.source` of an `EgressPool`.
pub const SOURCE: &str = "egret.dev/source";

/// Calico's defaults. A pool smaller than a block is invalid there, and so it is here.
const BLOCK: DefaultBlock = DefaultBlock { v4: 26, v6: 122, shrinks: false };

pub(super) const FIELDS: &[Field] = &[
    field(
        "metadata",
        Shape::Open(METADATA),
        "Annotations `egret.dev/gateway-namespaces` and `egret.dev/client-namespaces` narrow the pool.",
    )
    .required(),
    field("spec", Shape::Open(SPEC), "As in Calico; what is not listed is Calico's own.")
        .required()
        .rules(BLOCK_RULES),
];

/// Calico's blocks do not shrink to their pool.
const BLOCK_RULES: &[Rule] = &[
    BLOCK_SIZE,
    rule(
        "!isCIDR(self.cidr) || cidr(self.cidr).prefixLength() <= (has(self.blockSize) ? self.blockSize \
         : self.cidr.contains(':') ? 122 : 26)",
        "the pool has fewer addresses than one block of blockSize (26 if absent, 122 for IPv6); set blockSize to the \
         pool's prefix length or more",
    ),
];

const SPEC: &[Field] = &[
    field("cidr", Shape::Text, "The pool's addresses.").required().like(CIDR).rules(RANGE_RULES),
    field(
        "blockSize",
        Shape::Number(0, 128),
        "Prefix length of a block: 20 to 32 (26 if absent), for IPv6 116 to 128 (122).",
    ),
    NODE_SELECTOR,
    field(
        "assignmentMode",
        Shape::Choice(&["Automatic", "Manual"]),
        "`Manual` is `nodeSelector: \"!all()\"`.",
    )
    .or("Automatic"),
    field("namespaceSelector", Shape::Text, "Has no effect on egress."),
    NAT_OUTGOING,
    DISABLED,
];

/// Fields of Calico's that mean nothing to egress.
const CALICOS: [&str; 6] =
    ["allowedUses", "awsSubnetID", "disableBGPExport", "ipip", "ipipMode", "vxlanMode"];

pub(super) fn read(name: &str, root: &Section<'_>, findings: &mut Findings<'_>) -> Option<Object> {
    let metadata = root.section("metadata", findings);
    metadata.pairs("labels", findings);
    let annotations = metadata.pairs("annotations", findings);
    let created = timestamp::created(&metadata, "pool", findings);
    let spec = root.section("spec", findings);
    let known: Vec<&str> = SPEC.iter().map(|field| field.name).chain(CALICOS).collect();
    spec.only(&known, findings);
    let range = pool::range(&spec, BLOCK, findings);
    let selector = pool::node_selector(&spec, findings);
    let manual = spec.choice("assignmentMode", &[("Automatic", false), ("Manual", true)], findings);
    let node_selector = if manual == Some(true) { Some("!all()".to_owned()) } else { selector };
    if let Some(text) = spec.text("namespaceSelector", findings)
        && !matches!(text.trim(), "" | "all()")
    {
        let path = spec.path("namespaceSelector");
        let message = format!(
            "{path} has no effect on egress; narrow the pool by its annotation \
             egret.dev/gateway-namespaces or egret.dev/client-namespaces"
        );
        findings.doubt(&path, text, "IgnoredField", message);
    }
    let gateway_namespaces = narrowed(&annotations, "egret.dev/gateway-namespaces", findings);
    let client_namespaces = narrowed(&annotations, "egret.dev/client-namespaces", findings);
    let source = match annotations.get(SOURCE).map(|text| text.trim()) {
        None | Some("Pool") => PoolSource::Pool,
        Some("PodAddress") => PoolSource::PodAddress,
        Some(text) => {
            let path = format!("metadata.annotations[\"{SOURCE}\"]");
            let message = format!("{path} is `{text}`, but must be Pool or PodAddress");
            findings.wrong(&path, text, "WrongValue", &message);
            return None;
        }
    };
    let nat_outgoing = spec.flag("natOutgoing", findings);
    let disabled = spec.flag("disabled", findings);
    let (cidr, block_size) = range?;
    Some(Object::Pool(Pool {
        kind: PoolKind::IPPool,
        node_selector: node_selector?,
        gateway_namespaces,
        client_namespaces,
        source,
        nat_outgoing,
        disabled,
        created,
        ..Pool::new(name, cidr, block_size)
    }))
}

fn narrowed(annotations: &Pairs, key: &str, findings: &mut Findings<'_>) -> Option<String> {
    match annotations.get(key) {
        None => Some("all()".to_owned()),
        Some(text) => pool::permission(&format!("metadata.annotations[\"{key}\"]"), text, findings),
    }
}
