//! Workloads: their pod templates, read as pods.
//!
//! In: Deployments, StatefulSets and their like, as documents. Out: what their pods would be to Egret, under the workload's own
//! name. Never: counts replicas; one pod stands for all.

use serde_json::{Map, Value, json};

use super::manifests::Text;
use crate::api::document::{self, Format};
use crate::api::{self, Kind, Reading};
use crate::problem::Problem;

/// Kinds with a template, and where it is.
const WORKLOADS: [(&str, &str); 6] = [
    ("Deployment", "/spec/template"),
    ("StatefulSet", "/spec/template"),
    ("DaemonSet", "/spec/template"),
    ("ReplicaSet", "/spec/template"),
    ("Job", "/spec/template"),
    ("CronJob", "/spec/jobTemplate/spec/template"),
];

/// Whether a kind has a pod template.
pub fn is_one(kind: &str) -> bool {
    WORKLOADS.iter().any(|(name, _)| *name == kind)
}

/// Where a kind's pod template is, as a JSON pointer.
pub fn template(kind: &str) -> Option<&'static str> {
    WORKLOADS.iter().find(|(name, _)| *name == kind).map(|(_, pointer)| *pointer)
}

/// Between the workload's kind and its name in a pod's name: no name of a pod holds it.
const MARK: &str = " of ";

/// Adds the pods of a text's workloads to what was read of it.
pub fn add(text: &Text, reading: &mut Reading) {
    for value in document::read(&text.bytes, Format::of(&text.name)).values {
        let listed = value.get("items").and_then(Value::as_array);
        for document in listed.map_or(std::slice::from_ref(&value), Vec::as_slice) {
            add_one(&text.name, document, reading);
        }
    }
}

fn add_one(file: &str, document: &Value, reading: &mut Reading) {
    let word = |value: &Value, key: &str| value.get(key).and_then(Value::as_str).map(str::to_owned);
    let Some(kind) = word(document, "kind") else { return };
    let Some(template) = template(&kind).and_then(|pointer| document.pointer(pointer)) else { return };
    let part = |key: &str| template.get(key).cloned().unwrap_or_else(|| json!({}));
    let mut metadata = part("metadata");
    let own = document.get("metadata").cloned().unwrap_or_default();
    let Some(pairs) = metadata.as_object_mut() else { return };
    let give = |pairs: &mut Map<String, Value>, key: &str| match own.get(key) {
        Some(value) => drop(pairs.insert(key.to_owned(), value.clone())),
        None => drop(pairs.remove(key)),
    };
    give(pairs, "name");
    give(pairs, "namespace");
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": part("spec")});
    // The name says the format.
    let mut of_pod = api::read("pod.json", pod.to_string().as_bytes());
    for written in &mut of_pod.objects {
        written.name = match written.name.split_once('/') {
            Some((namespace, name)) => format!("{namespace}/{kind}{MARK}{name}"),
            None => format!("{kind}{MARK}{}", written.name),
        };
    }
    for mut problem in of_pod.problems {
        problem.file = file.to_owned();
        problem.object = problem.object.replacen("Pod", &kind, 1);
        problem.field = in_template(&kind, &problem.field);
        reading.problems.push(problem);
    }
    reading.objects.append(&mut of_pod.objects);
}

fn in_template(kind: &str, field: &str) -> String {
    match template(kind) {
        Some(pointer) if !field.is_empty() => format!("{}.{field}", pointer[1..].replace('/', ".")),
        _ => field.to_owned(),
    }
}

/// The object as the manifest has it: `Deployment shop/cart`, where our pod is `Pod shop/Deployment of cart`.
pub fn shown(kind: Kind, name: &str) -> String {
    match of_pod(&kind.named(name)) {
        Some((kind, name)) => format!("{kind} {name}"),
        None => kind.named(name),
    }
}

fn of_pod(object: &str) -> Option<(&str, String)> {
    let (namespace, rest) = object.strip_prefix("Pod ")?.split_once('/')?;
    let (kind, name) = rest.split_once(MARK)?;
    is_one(kind).then(|| (kind, format!("{namespace}/{name}")))
}

/// A problem of a template's pod, as one of its workload.
pub fn renamed(mut problem: Problem) -> Problem {
    if let Some((kind, name)) = of_pod(&problem.object) {
        let (kind, object) = (kind.to_owned(), format!("{kind} {name}"));
        problem.message = problem.message.replace(&problem.object, &object);
        problem.field = in_template(&kind, &problem.field);
        problem.object = object;
    }
    problem
}
