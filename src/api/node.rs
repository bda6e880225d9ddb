//! Core `Node`: labels, addresses, pod ranges. Its number and wire bytes are the store's, not the object's.

use std::net::IpAddr;

use serde_json::Value;

use super::Object;
use super::fields::{Findings, Section, shown};
use super::shape::{CIDR, Field, METADATA, Shape, field};
use crate::addr::Cidr;
use crate::egress::model::Node;

pub(super) const FIELDS: &[Field] = &[
    field("metadata", Shape::Open(METADATA), "Name and labels.").required(),
    field("spec", Shape::Open(SPEC), "As far as it is read."),
    field("status", Shape::Open(STATUS), "As far as it is read."),
];

const SPEC: &[Field] = &[
    field("podCIDRs", Shape::Texts, "Ranges of the node's pods: inside the cluster.").like(CIDR),
    field("podCIDR", Shape::Text, "The same where `podCIDRs` is absent."),
];

const STATUS: &[Field] = &[field(
    "addresses",
    Shape::Any,
    "Pairs of `type` and `address`; the first `InternalIP` of a family is where tunnels end, all of them are inside the cluster.",
)];

pub(super) fn read(_name: &str, root: &Section<'_>, findings: &mut Findings<'_>) -> Option<Object> {
    let metadata = root.section("metadata", findings);
    let spec = root.section("spec", findings);
    let status = root.section("status", findings);
    let mut node = Node { labels: metadata.pairs("labels", findings), ..Node::default() };
    for (i, value) in status.list("addresses", findings).iter().enumerate() {
        let word = |key: &str| value.get(key).and_then(Value::as_str);
        let ip = word("address").and_then(|a| a.parse::<IpAddr>().ok());
        match (word("type"), ip) {
            (Some("InternalIP"), Some(ip)) => node.internal_ips.push(ip),
            (Some("InternalIP"), None) => {
                let path = format!("status.addresses[{i}].address");
                let value = value.get("address").map(shown).unwrap_or_default();
                let message =
                    format!("the InternalIP `{value}` is not an IP address; write one such as 192.0.2.11");
                findings.wrong(&path, value, "AddressSyntax", message);
            }
            (_, Some(ip)) => node.other_ips.push(ip),
            // Host names and DNS names.
            (_, None) => {}
        }
    }
    node.pod_cidrs = cidrs(spec.texts("podCIDRs", findings), findings);
    if node.pod_cidrs.is_empty()
        && let Some(one) = spec.text("podCIDR", findings).filter(|c| !c.is_empty())
    {
        node.pod_cidrs = cidrs(vec![(spec.path("podCIDR"), one)], findings);
    }
    Some(Object::Node(node))
}

/// Address prefixes of a list; what is none is noted.
pub(super) fn cidrs(texts: Vec<(String, &str)>, findings: &mut Findings<'_>) -> Vec<Cidr> {
    let mut cidrs = Vec::new();
    for (path, text) in texts {
        match text.parse() {
            Ok(cidr) => cidrs.push(cidr),
            Err(error) => super::pool::refuse_cidr(&path, text, &error, findings),
        }
    }
    cidrs
}
