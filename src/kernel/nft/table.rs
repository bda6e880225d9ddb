//! An nftables table as a value: chains with rules as text, sets and maps with typed elements.
//!
//! In: built by the planner, or read back from the kernel. Out: compared by `nft::diff`, printed by `nft::render`.
//! Never: runs `nft` or opens netlink. A rule is known by its label and the hash of its text, both in the rule's comment in the
//! kernel, because nft prints a rule differently from what it was given and differently in each version.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::addr::Mac;
use crate::kernel::state::NftFamily;

/// Tables by family and name.
pub type Tables = BTreeMap<(NftFamily, String), Table>;

/// One table; its family and name are the key in `State::tables`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    /// Chains by name.
    pub chains: BTreeMap<String, Chain>,
    /// Sets and maps by name.
    pub maps: BTreeMap<String, Map>,
}

/// A chain; base chains have a hook.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chain {
    /// Where the kernel calls it; `None` for a chain reached by jump or goto.
    pub hook: Option<Hook>,
    /// Rules in order.
    pub rules: Vec<Rule>,
}

/// A base chain's place. The policy is always accept; a chain read back with anything else about it says so in `kind`
/// (`filter policy drop`), and so equals no desired one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hook {
    /// `filter`, `nat` or `route`.
    pub kind: String,
    /// `prerouting`, `input`, `forward`, `output`, `postrouting`, `egress`.
    pub hook: String,
    /// Priority as a number.
    pub priority: i32,
    /// Device of a netdev chain.
    pub device: Option<String>,
}

/// One rule. Two are equal if label and hash are: the kernel does not give the text back.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Rule {
    /// What it is for, in a few words: shown by `nft list` as the comment, with the text's hash behind it.
    /// At most [`Rule::LABEL`] bytes without quotes and control characters; [`Rule::new`] makes it so.
    pub label: String,
    /// The hash of the text ([`Rule::new`] computes it); what equality rests on.
    pub hash: u32,
    /// nft syntax, on one line. Empty in a rule read back from the kernel; not part of equality by `same`.
    pub text: String,
}

impl PartialEq for Rule {
    fn eq(&self, other: &Rule) -> bool {
        self.same(other)
    }
}

impl Eq for Rule {}

impl Rule {
    /// Longest label in bytes: nft refuses comments above 127.
    pub const LABEL: usize = 112;

    /// A rule with its hash.
    pub fn new(label: &str, text: impl Into<String>) -> Rule {
        let text = text.into();
        let mut label: String =
            label.chars().map(|c| if c.is_control() || matches!(c, '"' | '\\') { '_' } else { c }).collect();
        label.truncate(label.floor_char_boundary(Rule::LABEL));
        Rule { label, hash: fnv1a(text.as_bytes()), text }
    }

    /// A rule in a table of ours that is not ours: equal to no desired one.
    pub fn foreign() -> Rule {
        Rule { label: "foreign".to_owned(), hash: 0, text: String::new() }
    }

    /// The comment it carries in the kernel: `label #0123abcd`.
    pub fn comment(&self) -> String {
        format!("{} #{:08x}", self.label, self.hash)
    }

    /// The rule that carries this comment in the kernel; [`Rule::foreign`] if we never wrote such a comment.
    pub fn from_comment(comment: &str) -> Rule {
        let parts = comment.rsplit_once(" #").filter(|(_, hash)| hash.len() == 8);
        parts
            .and_then(|(label, hash)| {
                let hash = u32::from_str_radix(hash, 16).ok()?;
                Some(Rule { label: label.to_owned(), hash, text: String::new() })
            })
            .unwrap_or_else(Rule::foreign)
    }

    /// Whether the kernel's rule is this one.
    pub fn same(&self, other: &Rule) -> bool {
        self.label == other.label && self.hash == other.hash
    }
}

/// 32-bit FNV-1a: stable between builds and machines, which Rust's own hasher is not.
fn fnv1a(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

/// A set (no value type) or a map.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Map {
    /// Types of the key's parts; more than one is a concatenation. Empty when the kernel's set is of a kind we never make.
    pub key: Vec<KeyType>,
    /// Type of the value; `None` for a set.
    pub value: Option<ValueType>,
    /// Keys are ranges. Only for a single address part.
    pub interval: bool,
    /// Key → value; `None` in a set. Keys of an interval map are [`Atom::Range`] and do not overlap.
    pub elements: BTreeMap<Key, Option<Value>>,
}

/// A key: one atom per part.
pub type Key = Vec<Atom>;

/// Types of key parts, as nft names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum KeyType {
    /// `ipv4_addr`
    Ipv4,
    /// `ipv6_addr`
    Ipv6,
    /// `mark`
    Mark,
    /// `ether_addr`
    Ether,
    /// `ifname`
    Ifname,
    /// `typeof @th,96,32`: the VNI of a VXLAN header behind UDP's, and the reserved byte behind it (RFC 7348 section 5). Stands alone.
    Vni,
}

/// Types of map values, as nft names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum ValueType {
    /// `verdict`
    Verdict,
    /// `mark`
    Mark,
    /// `ether_addr`
    Ether,
}

/// One part of a key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Atom {
    /// An address.
    Ip(IpAddr),
    /// Addresses from the first to the last, both inside.
    Range(IpAddr, IpAddr),
    /// A mark.
    Mark(u32),
    /// A MAC address.
    Mac(Mac),
    /// A device name.
    Dev(String),
    /// A VXLAN network identifier, 24 bits.
    Vni(u32),
}

/// What a map gives.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Value {
    /// `goto chain`
    Goto(String),
    /// `accept`
    Accept,
    /// `drop`
    Drop,
    /// A mark.
    Mark(u32),
    /// A MAC address.
    Mac(Mac),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comment_gives_the_rule_back_and_a_foreign_comment_does_not() {
        let rule = Rule::new("replies pass", "ct direction reply accept");
        assert_eq!(Rule::from_comment(&rule.comment()), rule);
        assert_ne!(
            rule,
            Rule::new("replies pass", "ct direction reply drop"),
            "another text is another rule"
        );
        for comment in ["", "replies pass", "replies pass #12", "x #zzzzzzzz", "#0123abcd"] {
            assert_eq!(Rule::from_comment(comment), Rule::foreign(), "{comment}");
        }
    }

    #[test]
    fn a_label_that_nft_would_refuse_is_made_harmless() {
        let rule = Rule::new(&format!("a \"quoted\"\n\\ {}", "ü".repeat(100)), "accept");
        assert!(rule.label.starts_with("a _quoted___ ü"), "{}", rule.label);
        assert!(rule.comment().len() <= 127);
        assert_eq!(Rule::from_comment(&rule.comment()), rule);
    }
}
