//! What tells one pod from another where rules are the same, and the name of what those have that agree in it.
//!
//! In: what goals ask for. Out: a [`Standing`]; the name of a binding. Never: looks at a pod itself; goals do.

/// What goals must know of a pod.
#[derive(Debug, Default)]
pub(super) struct Needs {
    pub(super) pods: Vec<u32>,
    pub(super) bucket: bool,
    pub(super) node: bool,
    /// Goals among whose node gateways the UID chooses.
    pub(super) spread: Vec<u32>,
}

/// What tells one pod from another where rules are the same.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(super) struct Standing {
    /// Number of its namespace: gateways are sought there, and pools admit by it.
    pub(super) namespace: Option<u32>,
    pub(super) bucket: Option<u8>,
    pub(super) node: Option<String>,
    /// The goal, and the entry of its list.
    pub(super) chosen: Vec<(u32, usize)>,
}

/// Names rules as written, for pods of one standing. Where pod gateways are concerned the client's namespace is always in it,
/// because pools admit clients by namespace: were it left out, pods with one binding could differ in their gateways after a change
/// of a pool.
pub(super) fn binding(words: &str, standing: &Standing, namespace: &str) -> String {
    let mut text = match standing.namespace {
        Some(_) => format!("namespace {namespace}: {words}"),
        None => words.to_owned(),
    };
    if let Some(bucket) = standing.bucket {
        text.push_str(&format!("; bucket {bucket}"));
    }
    if let Some(node) = &standing.node {
        text.push_str(&format!("; on node {node}"));
    }
    for (i, (_, entry)) in standing.chosen.iter().enumerate() {
        text.push_str(&format!("; entry {entry} of list {i}"));
    }
    text
}
