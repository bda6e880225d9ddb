//! What both kinds of pool share: a range cut into blocks, and selectors.
//!
//! A pool is right by construction: masked, its block inside it, no address in it that could never be a source.

use super::fields::{Findings, Section};
use super::shape::{Field, Rule, Shape, field, rule};
use crate::addr::{Cidr, CidrError, Family};
use crate::egress::selector::Selector;

/// What a pool without `blockSize` is cut into.
#[derive(Clone, Copy)]
pub(super) struct DefaultBlock {
    pub(super) v4: u8,
    pub(super) v6: u8,
    /// Whether a pool that is smaller than that is one block (ours) or an error (Calico's).
    pub(super) shrinks: bool,
}

/// Ranges whose addresses cannot be seen as a source outside: RFC 6890, RFC 5771, RFC 4291.
const UNUSABLE: [(&str, &str); 9] = [
    ("0.0.0.0/8", "this network"),
    ("127.0.0.0/8", "loopback"),
    ("169.254.0.0/16", "link-local"),
    ("224.0.0.0/4", "multicast"),
    ("255.255.255.255/32", "broadcast"),
    ("::/127", "unspecified and loopback"),
    ("::ffff:0.0.0.0/96", "IPv4 in IPv6"),
    ("fe80::/10", "link-local"),
    ("ff00::/8", "multicast"),
];

/// What can be said of `spec.cidr` without reading it here: the same as [`range`] says.
pub(super) const RANGE_RULES: &[Rule] = &[
    rule(
        "!isCIDR(self) || cidr(self) == cidr(self).masked()",
        "the prefix has bits set below its length; write its first address, as in 10.10.10.0/28",
    ),
    rule(
        "!isCIDR(self) && !isIP(self) || !['0.0.0.0/8', '127.0.0.0/8', '169.254.0.0/16', '224.0.0.0/4', \
         '255.255.255.255/32', '::/127', 'fe80::/10', 'ff00::/8'].exists(range, isIP(self) \
         ? cidr(range).containsIP(self) : cidr(range).containsCIDR(self) || cidr(self).containsCIDR(range))",
        "the range holds loopback, link-local, multicast or other special addresses, which no outside host answers; \
         choose a range that is routed to your nodes",
    ),
];

/// The sizes that both kinds of pool may be cut into.
pub(super) const BLOCK_SIZE: Rule = rule(
    "!has(self.blockSize) || (self.cidr.contains(':') ? self.blockSize >= 116 && self.blockSize <= 128 \
     : self.blockSize >= 20 && self.blockSize <= 32)",
    "blockSize is not between 20 and 32, the sizes for IPv4, or 116 and 128, those for IPv6",
);

pub(super) const NODE_SELECTOR: Field =
    field("nodeSelector", Shape::Text, "Selector over the nodes that may use the pool unasked.")
        .or("all()")
        .selects();

pub(super) const NAT_OUTGOING: Field =
    field("natOutgoing", Shape::Flag, "Leave with the node's address instead.").or("false");

pub(super) const DISABLED: Field = field("disabled", Shape::Flag, "No new leases.").or("false");

/// A permission is never given by an oversight.
pub(super) const PERMISSION_RULES: &[Rule] = &[rule(
    "self.matches('[^ \\t]')",
    "the selector is empty; write `all()` for every namespace, or leave the field out",
)];

/// `spec.cidr` and `spec.blockSize`.
pub(super) fn range(
    spec: &Section<'_>,
    default: DefaultBlock,
    findings: &mut Findings<'_>,
) -> Option<(Cidr, u8)> {
    let path = spec.path("cidr");
    // Read before any way out, so that both fields are checked in one go.
    let block = spec.number("blockSize", 0..=128, findings);
    let Some(text) = spec.text("cidr", findings) else {
        if spec.get("cidr").is_none() {
            let message = format!("{path} is missing; write the pool's addresses, as in 10.10.10.0/28");
            findings.wrong(&path, "", "MissingField", message);
        }
        return None;
    };
    let cidr: Cidr = match text.parse() {
        Ok(cidr) => cidr,
        Err(error) => {
            refuse_cidr(&path, text, &error, findings);
            return None;
        }
    };
    for (range, what) in UNUSABLE {
        if range.parse::<Cidr>().is_ok_and(|range| range.overlaps(cidr)) {
            let message = format!(
                "`{cidr}` holds {what} addresses ({range}), which no outside host answers; \
                 choose a range that is routed to your nodes"
            );
            findings.wrong(&path, cidr, "UnusableRange", message);
            return None;
        }
    }
    if spec.get("blockSize").is_some() && block.is_none() {
        return None;
    }
    let block = block.and_then(|b| u8::try_from(b).ok());
    block_size(spec, cidr, block, default, findings).map(|block| (cidr, block))
}

fn block_size(
    spec: &Section<'_>,
    cidr: Cidr,
    given: Option<u8>,
    default: DefaultBlock,
    findings: &mut Findings<'_>,
) -> Option<u8> {
    let path = spec.path("blockSize");
    let (family, pool) = (cidr.family(), cidr.prefix());
    let (usual, low, high) = match family {
        Family::V4 => (default.v4, 20, 32),
        Family::V6 => (default.v6, 116, 128),
    };
    let block = match given {
        Some(block) => block,
        None if default.shrinks => usual.max(pool),
        None => usual,
    };
    if !(low..=high).contains(&block) {
        let other = match family {
            Family::V4 if block > 32 => "; this is an IPv6 size, and the pool is IPv4",
            Family::V6 if (20..=32).contains(&block) => "; this is an IPv4 size, and the pool is IPv6",
            _ => "",
        };
        let message =
            format!("blockSize {block} is not between {low} and {high}, the sizes for {family}{other}");
        findings.wrong(&path, block, "BlockSizeRange", message);
        return None;
    }
    if block < pool {
        let origin = if given.is_some() { "" } else { " (the default of this kind)" };
        let message = format!(
            "the pool {cidr} has {}, fewer than one block of blockSize {block}{origin}, which has {}; \
             set blockSize to {pool} or more, or give the pool more addresses",
            addresses(cidr.size()),
            addresses(1 << (family.bits() - block)),
        );
        findings.wrong(&path, block, "PoolTooSmall", message);
        return None;
    }
    Some(block)
}

fn addresses(count: u128) -> String {
    if count == 1 { "1 address".to_owned() } else { format!("{count} addresses") }
}

/// Notes a text that is no prefix.
pub(super) fn refuse_cidr(path: &str, text: &str, error: &CidrError, findings: &mut Findings<'_>) {
    let reason = match error {
        CidrError::Syntax(_) => "CidrSyntax",
        CidrError::HostBits(..) => "CidrHostBits",
    };
    findings.wrong(path, text, reason, error.to_string());
}

/// Notes a prefix of IPv4 that is written inside IPv6; whether it is one.
pub(super) fn refuse_hidden(path: &str, text: &str, cidr: Cidr, findings: &mut Findings<'_>) -> bool {
    let is_hidden = "::ffff:0.0.0.0/96".parse::<Cidr>().is_ok_and(|hidden| hidden.covers(cidr));
    if is_hidden {
        let message =
            format!("`{text}` is IPv4 written inside IPv6, which no packet carries; write the IPv4 prefix");
        findings.wrong(path, text, "CidrSyntax", message);
    }
    is_hidden
}

/// `spec.nodeSelector`; absent or empty: every node.
pub(super) fn node_selector(spec: &Section<'_>, findings: &mut Findings<'_>) -> Option<String> {
    match spec.text("nodeSelector", findings).filter(|text| !text.trim().is_empty()) {
        None => Some("all()".to_owned()),
        Some(text) => selector(&spec.path("nodeSelector"), text, findings),
    }
}

/// A selector; one that does not parse is noted.
pub(super) fn selector(path: &str, text: &str, findings: &mut Findings<'_>) -> Option<String> {
    match Selector::parse(text) {
        Ok(_) => Some(text.to_owned()),
        Err(error) => {
            findings.wrong(path, text, "SelectorSyntax", error.sentence());
            None
        }
    }
}

/// A selector that gives a permission. The grammar reads an empty text as `all()`; here that would hand the pool to
/// everybody by an oversight, so it must be said.
pub(super) fn permission(path: &str, text: &str, findings: &mut Findings<'_>) -> Option<String> {
    if text.trim().is_empty() {
        let message = "the selector is empty; write `all()` for every namespace, or leave the field out";
        findings.wrong(path, text, "EmptySelector", message);
        return None;
    }
    selector(path, text, findings)
}
