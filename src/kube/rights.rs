//! The roles of `deploy/`: every verb that some code asks for is granted, and no other.
//!
//! Lists and watches are what the kinds say of themselves; the rest stands here beside who asks. The test is of the manifests: that nobody asks
//! for more is seen by the stories that run as the service accounts, where a refusal fails.

use std::collections::BTreeSet;

use serde::Deserialize;
use serde_json::Value;

use super::pace::{Pace, tests::at_most};
use super::watched::{Reach, Watched};

/// Verbs of a resource in a group.
type Asked = (&'static str, &'static str, &'static [&'static str]);

const AGENT: &[Asked] = &[
    // What an ADD must be newer than.
    ("", "namespaces", &["get"]),
    ("", "pods", &["get"]),
    // What people are told.
    ("", "pods/status", &["patch"]),
    ("", "events", &["create", "patch"]),
    // Leases: a claim makes blocks, and reads and writes them; agents with gateways follow them.
    ("egret.dev", "egressblocks", &["get", "list", "watch", "create", "update"]),
    ("egret.dev", "egressendpoints", &["get", "create", "update", "delete"]),
    ("egret.dev", "egressnodes", &["get", "create", "update"]),
    // Whether an object went with its definition.
    ("apiextensions.k8s.io", "customresourcedefinitions", &["get"]),
    ("coordination.k8s.io", "leases", &["get", "create", "update"]),
];

const CONTROLLER: &[Asked] = &[
    // Asked for once more before anything is taken.
    ("", "pods", &["get"]),
    ("apps", "statefulsets", &["get"]),
    // The taint.
    ("", "nodes", &["get", "update"]),
    // Whose status is written.
    ("egret.dev", "egresspools", &["get"]),
    ("egret.dev", "egressgatewaypolicies", &["get"]),
    ("egret.dev", "egressranges", &["get"]),
    ("egret.dev", "egresspools/status", &["update"]),
    ("egret.dev", "egressgatewaypolicies/status", &["update"]),
    ("egret.dev", "egressranges/status", &["update"]),
    ("egret.dev", "egressnodes/status", &["update"]),
    ("egret.dev", "egressendpoints/status", &["update"]),
    // What is left of a node goes with it.
    ("egret.dev", "egressendpoints", &["get", "delete"]),
    ("egret.dev", "egressnodes", &["get", "delete"]),
    ("egret.dev", "egressblocks", &["get", "update", "delete"]),
    ("apiextensions.k8s.io", "customresourcedefinitions", &["get"]),
    // Its own, and those of agents that are gone.
    ("coordination.k8s.io", "leases", &["get", "create", "update", "delete"]),
];

/// A line for each verb of each resource.
type Rights = BTreeSet<String>;

fn right(group: &str, resource: &str, verb: &str) -> String {
    format!("{verb} {resource}.{group}")
}

fn asked(kinds: impl Iterator<Item = Watched>, others: &[Asked]) -> Rights {
    let mut all = Rights::new();
    for kind in kinds {
        let (path, watched) = (kind.collection(), at_most(kind) == Pace::Watched);
        let group = path.strip_prefix("/apis/").and_then(|rest| rest.split('/').next()).unwrap_or_default();
        let resource = path.rsplit('/').next().unwrap();
        all.insert(right(group, resource, "list"));
        all.extend(watched.then(|| right(group, resource, "watch")));
    }
    let others = others
        .iter()
        .flat_map(|(group, resource, verbs)| verbs.iter().map(|verb| right(group, resource, verb)));
    all.extend(others);
    all
}

fn granted(manifest: &str) -> Rights {
    let words = |list: &Value| -> Vec<String> {
        let all = list.as_array().unwrap().iter();
        all.map(|word| word.as_str().unwrap().to_owned()).collect()
    };
    let documents = serde_yaml_ng::Deserializer::from_str(manifest);
    let documents = documents.map(|document| Value::deserialize(document).unwrap());
    let rules = documents.flat_map(|role| role["rules"].as_array().cloned().unwrap_or_default());
    let of_rule = |rule: Value| {
        let [groups, resources, verbs] = ["apiGroups", "resources", "verbs"].map(|key| words(&rule[key]));
        let pairs = groups.iter().flat_map(|group| resources.iter().map(move |resource| (group, resource)));
        let all = pairs.flat_map(|(group, resource)| verbs.iter().map(|verb| right(group, resource, verb)));
        all.collect::<Vec<_>>()
    };
    rules.flat_map(of_rule).collect()
}

#[test]
fn roles_grant_what_is_asked_for_and_nothing_else() {
    for (manifest, kinds, others) in [
        (include_str!("../../deploy/rbac.yaml"), Reach::default(), AGENT),
        (include_str!("../../deploy/controller-rbac.yaml"), Reach::Cluster, CONTROLLER),
    ] {
        let (asked, granted) = (asked(kinds.kinds(), others), granted(manifest));
        let beside = |one: &Rights, other: &Rights| one.difference(other).cloned().collect::<Vec<_>>();
        assert_eq!(
            (beside(&asked, &granted), beside(&granted, &asked)),
            (vec![], vec![]),
            "lacking, and too many"
        );
    }
}
