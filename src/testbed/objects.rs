//! The user's objects in the directory that all nodes share.
//!
//! In: YAML text, or the parts of a core object. Out: files below `objects/`, replaced whole. Never: reads them back.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::Trouble;
use super::private::STATE_DIR;
use super::topology::{Topology, node_address, pod_network};
use crate::addr::Family;
use crate::egress::model::PodName;

/// Labels or annotations as tests write them.
pub type Words<'a> = &'a [(&'a str, &'a str)];

/// Where the objects lie.
pub(super) fn directory() -> PathBuf {
    Path::new(STATE_DIR).join("objects")
}

/// Writes an object under a file name made of its kind and name, so that writing it again replaces it.
pub(super) fn write(text: &str) -> Result<PathBuf, Trouble> {
    let value: Value = serde_yaml_ng::from_str(text).map_err(|e| {
        Trouble::new(format!("this object is not YAML ({e}); to test that, write the file itself:\n{text}"))
    })?;
    let word = |path: &str| value.pointer(path).and_then(Value::as_str).unwrap_or("none").to_owned();
    write_file(&file_name(&word("/kind"), &word("/metadata/namespace"), &word("/metadata/name")), text)
}

/// Removes an object written before; one that is not there is fine. Namespace `none` for objects without.
pub(super) fn remove(kind: &str, namespace: &str, name: &str) -> Result<(), Trouble> {
    let path = directory().join(file_name(kind, namespace, name));
    match fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Trouble::new(format!("cannot remove {}: {error}", path.display())))
        }
        _ => Ok(()),
    }
}

fn file_name(kind: &str, namespace: &str, name: &str) -> String {
    format!("{}-{namespace}-{name}.yaml", kind.to_lowercase())
}

/// Writes a file below `objects/` as it is, good or bad. Appears whole: written beside, then renamed.
pub(super) fn write_file(name: &str, text: &str) -> Result<PathBuf, Trouble> {
    let path = directory().join(name);
    let beside =
        path.with_file_name(format!(".{}.new", path.file_name().unwrap_or_default().to_string_lossy()));
    let parent = path.parent().unwrap_or(Path::new(STATE_DIR));
    fs::create_dir_all(parent)
        .and_then(|()| fs::write(&beside, text))
        .and_then(|()| fs::rename(&beside, &path))
        .map_err(|e| Trouble::new(format!("cannot write {}: {e}", path.display())))?;
    Ok(path)
}

fn write_value(value: &Value) -> Result<PathBuf, Trouble> {
    let text =
        serde_yaml_ng::to_string(value).map_err(|e| Trouble::new(format!("cannot write an object: {e}")))?;
    write(&text)
}

/// The core `Node` of a node: InternalIPs of both families, the underlay's first, and its pod networks.
pub(super) fn write_node(topology: &Topology, node: u8) -> Result<PathBuf, Trouble> {
    let mut order = Family::BOTH;
    order.sort_by_key(|f| *f != topology.underlay);
    let name = super::wire::node_name(node);
    let mut addresses: Vec<Value> =
        order.iter().map(|f| json!({"type": "InternalIP", "address": node_address(node, *f)})).collect();
    addresses.push(json!({"type": "Hostname", "address": name}));
    let pods: Vec<String> =
        topology.families.list().iter().map(|f| pod_network(node, *f).to_string()).collect();
    write_value(&json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
        "spec": {"podCIDR": pods[0], "podCIDRs": pods},
        "status": {"addresses": addresses},
    }))
}

/// A core `Namespace`.
pub(super) fn write_namespace(
    name: &str,
    labels: Words<'_>,
    annotations: Words<'_>,
) -> Result<PathBuf, Trouble> {
    let mut labels = map(labels);
    labels.insert("kubernetes.io/metadata.name".to_owned(), name.into());
    write_value(&json!({
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": name, "labels": labels, "annotations": map(annotations)},
    }))
}

/// A core `Pod`.
pub(super) fn write_pod(
    pod: &PodName,
    uid: &str,
    labels: Words<'_>,
    annotations: Words<'_>,
    node: u8,
) -> Result<PathBuf, Trouble> {
    write_value(&json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "namespace": pod.namespace, "name": pod.name, "uid": uid,
            "labels": map(labels), "annotations": map(annotations),
        },
        "spec": {"nodeName": super::wire::node_name(node)},
    }))
}

pub(super) fn map(words: Words<'_>) -> Map<String, Value> {
    words.iter().map(|(k, v)| ((*k).to_owned(), (*v).into())).collect()
}
