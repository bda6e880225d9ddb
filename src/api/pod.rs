//! Core `Pod`, as far as egress cares. Everything else in it is the kubelet's and is not looked at.

use std::net::IpAddr;

use serde_json::Value;

use super::Object;
use super::fields::{Findings, Section};
use super::shape::{Field, Shape, field};
use crate::egress::model::Pod;

pub(super) const FIELDS: &[Field] = &[
    field("metadata", Shape::Open(METADATA), "As far as it is read.").required(),
    field("spec", Shape::Open(SPEC), "As far as it is read."),
    field("status", Shape::Any, "`podIPs`, `podIP` and `phase`: the addresses that `list` shows."),
];

const METADATA: &[Field] = &[
    field("name", Shape::Text, "The pod's name.").required(),
    field("namespace", Shape::Text, "Its namespace.").or("default"),
    field("uid", Shape::Text, "Chooses among several node gateways."),
    field("labels", Shape::Pairs, "What selectors look at."),
    field("annotations", Shape::Pairs, "What makes it a client or a gateway."),
    field("ownerReferences", Shape::Any, "The `StatefulSet` that controls it keeps its addresses."),
];

const SPEC: &[Field] = &[
    field("nodeName", Shape::Text, "The node it runs on."),
    field("hostNetwork", Shape::Flag, "Such a pod is never a client nor a gateway.").or("false"),
];

pub(super) fn read(_name: &str, root: &Section<'_>, findings: &mut Findings<'_>) -> Option<Object> {
    let metadata = root.section("metadata", findings);
    let spec = root.section("spec", findings);
    let owned = |s: &str| Some(s.to_owned()).filter(|s| !s.is_empty());
    Some(Object::Pod(Pod {
        uid: metadata.text("uid", findings).and_then(owned),
        labels: metadata.pairs("labels", findings),
        annotations: metadata.pairs("annotations", findings),
        node: spec.text("nodeName", findings).and_then(owned),
        host_network: spec.flag("hostNetwork", findings),
        ips: ips(root),
        stateful_set: stateful_set(metadata.list("ownerReferences", findings)),
    }))
}

/// Its addresses, while it has any: those of a pod that has ended are given to others. What is no address is not looked at:
/// a decision rests on what the CNI said, and this is for lists only.
fn ips(root: &Section<'_>) -> Vec<IpAddr> {
    let Some(status) = root.get("status") else { return Vec::new() };
    let word = |value: &Value, key: &str| value.get(key).and_then(Value::as_str).map(str::to_owned);
    if matches!(word(status, "phase").as_deref(), Some("Succeeded" | "Failed")) {
        return Vec::new();
    }
    let address = |text: String| text.parse::<IpAddr>().ok();
    let several = status.get("podIPs").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let ips: Vec<IpAddr> = several.iter().filter_map(|ip| word(ip, "ip").and_then(address)).collect();
    if ips.is_empty() { word(status, "podIP").and_then(address).into_iter().collect() } else { ips }
}

/// The `StatefulSet` that controls the pod. Of several owners at most one has `controller: true`.
fn stateful_set(owners: &[Value]) -> Option<String> {
    let owner = owners.iter().find(|o| o.get("controller").and_then(Value::as_bool) == Some(true))?;
    let word = |key: &str| owner.get(key).and_then(Value::as_str);
    let apps = word("apiVersion").is_some_and(|v| v.starts_with("apps/"));
    (apps && word("kind") == Some("StatefulSet")).then(|| word("name").map(str::to_owned)).flatten()
}
