//! Core `Pod`, as far as egress cares. Everything else in it is the kubelet's and is not looked at.

use serde_json::Value;

use super::Object;
use super::fields::{Findings, Section};
use crate::egress::model::Pod;

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
        ips: Vec::new(),
        stateful_set: stateful_set(metadata.list("ownerReferences", findings)),
    }))
}

/// The `StatefulSet` that controls the pod. Of several owners at most one has `controller: true`.
fn stateful_set(owners: &[Value]) -> Option<String> {
    let owner = owners.iter().find(|o| o.get("controller").and_then(Value::as_bool) == Some(true))?;
    let word = |key: &str| owner.get(key).and_then(Value::as_str);
    let apps = word("apiVersion").is_some_and(|v| v.starts_with("apps/"));
    (apps && word("kind") == Some("StatefulSet")).then(|| word("name").map(str::to_owned)).flatten()
}
