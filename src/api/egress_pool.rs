//! `EgressPool` of egret.dev/v1alpha1: egress addresses, who may hold them and who may use them.
//!
//! ```yaml
//! apiVersion: egret.dev/v1alpha1
//! kind: EgressPool
//! metadata: {name: shop}
//! spec:
//!   cidr: 10.10.10.0/28                        # required
//!   blockSize: 31                              # prefix length of a block; 31, or 127 for IPv6
//!   nodeSelector: all()                        # nodes that may use it unasked; all()
//!   gatewayNamespaces: team == "shop"          # whose pods may be gateways of it; none
//!   clientNamespaces: env == "production"      # whose pods may use those; the gateway's own namespace
//!   source: Pool                               # where the address comes from; PodAddress: the gateway pod has it already
//!   natOutgoing: false                         # true: leave with the node's address instead
//!   strictAffinity: false                      # true: never borrow from another node's block
//!   announce: Auto                             # how the outside finds the way; or None
//!   cooldownSeconds: 60                        # rest of a freed address; 0 to 604800
//!   disabled: false                            # true: no new leases
//! ```

use super::Object;
use super::fields::{Findings, Section};
use super::pool::{
    self, BLOCK_SIZE, DISABLED, DefaultBlock, NAT_OUTGOING, NODE_SELECTOR, PERMISSION_RULES, RANGE_RULES,
};
use super::shape::{CIDR, Field, Rule, Shape, document, field, rule};
use super::timestamp;
use crate::egress::model::{Announce, Pool, PoolSource};

pub(super) const FIELDS: &[Field] = &document(SPEC, BLOCK_RULES);

const SPEC: &[Field] = &[
    field(
        "cidr",
        Shape::Text,
        "The pool's addresses. They must be routed to the nodes, and be no special ones.",
    )
    .required()
    .like(CIDR)
    .rules(RANGE_RULES),
    field(
        "blockSize",
        Shape::Number(0, 128),
        "Prefix length of a block: 20 to 32 for IPv4, 116 to 128 for IPv6; 31 and 127, or the pool's own where that is longer, if absent.",
    ),
    NODE_SELECTOR,
    field(
        "gatewayNamespaces",
        Shape::Text,
        "Selector over the namespaces whose pods may be gateways of the pool. Absent: none.",
    )
    .selects()
    .rules(PERMISSION_RULES),
    field(
        "clientNamespaces",
        Shape::Text,
        "Selector over the namespaces whose pods may use those gateways. Absent: the gateway's own.",
    )
    .selects()
    .rules(PERMISSION_RULES),
    field(
        "source",
        Shape::Choice(&["Pool", "PodAddress"]),
        "Where the address comes from. PodAddress: nothing is leased; a gateway's pod has an address of this range already.",
    )
    .or("Pool"),
    NAT_OUTGOING,
    field("strictAffinity", Shape::Flag, "Never borrow from another node's block.").or("false"),
    field("announce", Shape::Choice(&["Auto", "None"]), "How the outside finds the way to a lease.")
        .or("Auto"),
    field("cooldownSeconds", Shape::Number(0, 604_800), "Rest of a freed address, in seconds.").or("60"),
    DISABLED,
];

/// Absent, the block is the usual one or the pool, whatever is smaller: nothing to check.
const BLOCK_RULES: &[Rule] = &[
    BLOCK_SIZE,
    rule(
        "!has(self.blockSize) || (isCIDR(self.cidr) ? self.blockSize >= cidr(self.cidr).prefixLength() \
         : !isIP(self.cidr) || self.blockSize == (self.cidr.contains(':') ? 128 : 32))",
        "the pool has fewer addresses than one block of blockSize; set blockSize to the pool's prefix length or more",
    ),
];

/// /31 has two usable addresses (RFC 3021). A pool of one address is one block.
const BLOCK: DefaultBlock = DefaultBlock { v4: 31, v6: 127, shrinks: true };

pub(super) fn read(name: &str, root: &Section<'_>, findings: &mut Findings<'_>) -> Option<Object> {
    let spec = root.spec_of_ours(findings);
    let created = timestamp::created(&root.section("metadata", findings), "pool", findings);
    let range = pool::range(&spec, BLOCK, findings);
    let node_selector = pool::node_selector(&spec, findings);
    let mut permission = |key: &str| {
        let text = spec.text(key, findings)?;
        pool::permission(&spec.path(key), text, findings)
    };
    let gateway_namespaces = permission("gatewayNamespaces");
    let client_namespaces = permission("clientNamespaces");
    let sources = [("Pool", PoolSource::Pool), ("PodAddress", PoolSource::PodAddress)];
    let source = spec.choice("source", &sources, findings).unwrap_or_default();
    if source == PoolSource::PodAddress {
        for key in ["blockSize", "strictAffinity", "announce", "cooldownSeconds"] {
            let Some(value) = spec.get(key) else { continue };
            let path = spec.path(key);
            let message = format!(
                "{path} has no effect with source PodAddress: nothing is leased from the pool, and the primary network routes its addresses"
            );
            findings.doubt(&path, value.to_string(), "IgnoredField", message);
        }
    }
    let announce = [("Auto", Announce::Auto), ("None", Announce::None)];
    let announce = spec.choice("announce", &announce, findings).unwrap_or_default();
    let cooldown_seconds = spec.number("cooldownSeconds", 0..=604_800, findings).unwrap_or(60);
    let flags = ["natOutgoing", "strictAffinity", "disabled"].map(|key| spec.flag(key, findings));
    let [nat_outgoing, strict_affinity, disabled] = flags;
    let (cidr, block_size) = range?;
    Some(Object::Pool(Pool {
        node_selector: node_selector?,
        gateway_namespaces,
        client_namespaces,
        source,
        nat_outgoing,
        strict_affinity,
        announce,
        cooldown_seconds,
        disabled,
        created,
        ..Pool::new(name, cidr, block_size)
    }))
}
