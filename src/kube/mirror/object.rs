//! What of an object as the API server gives it is read here. Pure.

use serde_json::{Map, Value, json};

use crate::api::unix_seconds;
use crate::egress::annotations::{EGRESS_ADDRESSES, is_ours};
use crate::egress::model::STATIC_POD_UID;
use crate::egress::serving::Life;
use crate::kube::watched::{Reach, Watched};

/// The UIDs that a pod goes by: a static one by its file's, too.
pub fn ids(pod: &Value) -> impl Iterator<Item = &str> {
    let metadata = &pod["metadata"];
    [&metadata["uid"], &metadata["annotations"][STATIC_POD_UID]].into_iter().filter_map(Value::as_str)
}

/// How a pod is.
pub(super) fn life(pod: &Value) -> Life {
    let conditions = pod["status"]["conditions"].as_array();
    let ready = |c: &Value| c["type"] == "Ready" && c["status"] == "True";
    match pod["status"]["phase"].as_str() {
        Some("Failed" | "Succeeded") => Life::Ended,
        _ if !pod["metadata"]["deletionTimestamp"].is_null() => Life::Leaving,
        _ if conditions.is_some_and(|all| all.iter().any(ready)) => Life::Ready,
        _ => Life::Unready,
    }
}

/// `namespace/name`, or the name of what is in none.
pub(super) fn name(object: &Value) -> String {
    let word = |key: &str| object["metadata"][key].as_str();
    match (word("namespace"), word("name").unwrap_or_default()) {
        (Some(namespace), name) => format!("{namespace}/{name}"),
        (None, name) => name.to_owned(),
    }
}

/// When an object was made, in Unix seconds of the server that made it; `None` where that is not said, or was not kept.
pub fn made(object: &Value) -> Option<i64> {
    unix_seconds(object["metadata"]["creationTimestamp"].as_str()?)
}

/// Kubernetes calls versions opaque; they are growing numbers, and promised to be since 1.35. One that is none counts as old.
pub(super) fn version(object: &Value) -> u64 {
    object["metadata"]["resourceVersion"].as_str().and_then(|text| text.parse().ok()).unwrap_or_default()
}

/// Whether it says anything of the API server. That takes its address away before it ends, and nobody can be asked for the next one then: what
/// was said last stays.
pub(super) fn names_a_server(object: &Value) -> bool {
    let mut endpoints = object["endpoints"].as_array().into_iter().flatten();
    endpoints.any(|one| one["addresses"].as_array().is_some_and(|all| !all.is_empty()))
}

/// What we have told people of a pod's addresses.
pub(super) fn told(object: &Value) -> Option<String> {
    object["metadata"]["annotations"][EGRESS_ADDRESSES].as_str().map(str::to_owned)
}

/// An object without what nobody here reads: an event about that is no change, and it takes no memory.
pub(super) fn pruned(reach: &Reach, kind: Watched, object: &Value) -> Value {
    let (version, word) = kind.typed();
    let mut now = json!({"apiVersion": version, "kind": word});
    let mut keep = |part: &str, keys: &[&str]| {
        let Some(fields) = object.get(part).and_then(Value::as_object) else { return };
        let kept = fields.iter().filter(|(key, _)| keys.is_empty() || keys.contains(&key.as_str()));
        now[part] = kept.map(|(key, value)| (key.clone(), value.clone())).collect::<Map<_, _>>().into();
    };
    let all = *reach == Reach::Cluster;
    let metadata: &[&str] = match kind {
        Watched::Nodes => &["name", "uid", "labels"],
        Watched::Beats => &["name", "resourceVersion", "annotations"],
        Watched::NodeRecords | Watched::Endpoints if all => &["name", "generation"],
        Watched::Endpoints | Watched::NodeRecords | Watched::ServiceCidrs | Watched::Blocks => &["name"],
        Watched::StatefulSets | Watched::ApiServers => &["name", "namespace"],
        Watched::Pools | Watched::Policies | Watched::Ranges if all => {
            &["name", "labels", "annotations", "creationTimestamp", "generation"]
        }
        Watched::CalicoAgents | Watched::CiliumAgents => &["name", "namespace"],
        _ => &["name", "namespace", "uid", "labels", "annotations", "creationTimestamp", "ownerReferences"],
    };
    keep("metadata", metadata);
    match kind {
        Watched::Namespaces => {}
        Watched::Nodes => {
            keep("spec", if all { &["podCIDR", "podCIDRs", "taints"] } else { &["podCIDR", "podCIDRs"] });
            keep("status", &["addresses"]);
        }
        Watched::Pods => {
            keep("spec", &["nodeName", "hostNetwork"]);
            keep("status", &["phase", "podIP", "podIPs"]);
        }
        Watched::StatefulSets => keep("spec", &["replicas", "ordinals"]),
        // Whether one is ready is nothing to us: it may be asked.
        Watched::ApiServers => {
            let all = object["endpoints"].as_array().into_iter().flatten();
            now["endpoints"] = all.map(|one| json!({"addresses": one["addresses"]})).collect();
        }
        Watched::Beats => keep("spec", &["holderIdentity", "renewTime"]),
        Watched::Pools | Watched::Policies | Watched::Ranges | Watched::NodeRecords | Watched::Endpoints
            if all =>
        {
            keep("spec", &[]);
            keep("status", &[]);
        }
        Watched::CalicoAgents | Watched::CiliumAgents => {
            keep("status", &["desiredNumberScheduled", "currentNumberScheduled"]);
            let on_host = &object["spec"]["template"]["spec"]["hostNetwork"];
            now["spec"] = json!({"template": {"spec": {"hostNetwork": on_host}}});
        }
        _ => keep("spec", &[]),
    }
    if let Some(annotations) = now["metadata"].get_mut("annotations").and_then(Value::as_object_mut) {
        // A pod may have 256 KiB of others', and a node a hundred such pods. Ours of what the pod does, read back, would be a reason for itself.
        annotations.retain(|name, _| is_ours(name) || name == STATIC_POD_UID);
        if annotations.is_empty()
            && let Some(metadata) = now["metadata"].as_object_mut()
        {
            metadata.remove("annotations");
        }
    }
    now
}
