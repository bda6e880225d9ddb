//! CustomResourceDefinitions: what a cluster must know to keep our objects, and those of others where their own are missing.
//!
//! In: the tables of fields, and the table below. Out: one definition per kind; `egret crds` prints them, `deploy/` keeps them.
//! Never: asks a cluster anything.

use std::fmt;

use serde_json::{Map, Value, json};

use super::shape::{Field, Shape};
use super::{
    calico_policy, cilium_policy, egress_policy, egress_pool, egress_range, ip_pool, kept, structural,
};

/// The definition of one kind.
#[derive(Debug, Clone, PartialEq)]
pub struct Definition {
    /// `PLURAL.GROUP`.
    pub name: String,
    /// Whether the kind is ours. A foreign one is for clusters that never had it.
    pub ours: bool,
    /// The `CustomResourceDefinition`.
    pub object: Value,
}

/// As it is printed and kept in `deploy/`.
impl fmt::Display for Definition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&serde_yaml_ng::to_string(&self.object).map_err(|_| fmt::Error)?)
    }
}

/// Ours first.
pub fn definitions() -> Vec<Definition> {
    KINDS.iter().map(definition).collect()
}

/// What `kubectl get` shows: title, type, where it stands, what it means.
type Column = (&'static str, &'static str, &'static str, &'static str);

struct Row {
    kind: &'static str,
    group: &'static str,
    version: &'static str,
    plural: &'static str,
    short: &'static [&'static str],
    about: &'static str,
    fields: &'static [Field],
    /// What the controller says of it; empty: the object has no status.
    status: &'static [Field],
    columns: &'static [Column],
    /// Fields that a list can be narrowed by.
    found_by: &'static [&'static str],
}

const OURS: &str = "egret.dev";
const AGE: Column = ("Age", "date", ".metadata.creationTimestamp", "Since when.");
const READY: Column =
    ("Ready", "string", ".status.conditions[?(@.type==\"Ready\")].status", "Whether it is obeyed.");
const REASON: Column =
    ("Reason", "string", ".status.conditions[?(@.type==\"Ready\")].reason", "Why, or why not.");

static KINDS: [Row; 9] = [
    Row {
        kind: "EgressPool",
        group: OURS,
        version: "v1alpha1",
        plural: "egresspools",
        short: &["epool"],
        about: "Egress addresses, who may hold them and who may use them.",
        fields: egress_pool::FIELDS,
        status: kept::POOL_STATUS,
        columns: &[
            ("Range", "string", ".spec.cidr", "Its addresses."),
            ("Leased", "integer", ".status.leased", "Addresses in use."),
            ("Free", "string", ".status.free", "Addresses that anybody may have."),
            ("Clients", "integer", ".status.clients", "Pods that leave with one of them."),
            READY,
            REASON,
            AGE,
        ],
        found_by: &[],
    },
    Row {
        kind: "EgressGatewayPolicy",
        group: OURS,
        version: "v1alpha1",
        plural: "egressgatewaypolicies",
        short: &["egpol"],
        about: "Destinations, and the gateways through which the selected pods reach them.",
        fields: egress_policy::FIELDS,
        status: kept::POLICY_STATUS,
        columns: &[
            ("Pods", "integer", ".status.pods", "Pods that follow it."),
            (
                "Held",
                "integer",
                ".status.held",
                "Those of them that reach nothing outside, for want of a gateway.",
            ),
            ("Unprotected", "integer", ".status.unprotected", "Selected pods that no agent serves."),
            READY,
            REASON,
            AGE,
        ],
        found_by: &[],
    },
    Row {
        kind: "EgressBlock",
        group: OURS,
        version: "v1alpha1",
        plural: "egressblocks",
        short: &["eblock"],
        about: "The books of adjacent addresses of a pool. Written by Egret alone; `egret ipam` reads and mends them.",
        fields: kept::BLOCK,
        status: &[],
        columns: &[
            ("Pool", "string", ".spec.pool", "The pool it was cut from."),
            ("Range", "string", ".spec.cidr", "Its addresses."),
            ("Node", "string", ".spec.affinity", "The node that claimed it."),
            ("Sequence", "integer", ".spec.sequence", "Raised with every change."),
            AGE,
        ],
        found_by: &[".spec.pool"],
    },
    Row {
        kind: "EgressEndpoint",
        group: OURS,
        version: "v1alpha1",
        plural: "egressendpoints",
        short: &["eep"],
        about: "Where a gateway pod is. Written by the agent of its node alone.",
        fields: kept::ENDPOINT,
        status: kept::ENDPOINT_STATUS,
        columns: &[
            ("Pod", "string", ".spec.pod", "The gateway pod."),
            ("Node", "string", ".spec.node", "Where it runs."),
            // Of several values the server shows the first alone.
            ("Address", "string", ".spec.addresses[0].ip", "Whom the outside sees."),
            ("Other", "string", ".spec.addresses[1].ip", "The same in the other family."),
            ("State", "string", ".spec.state", "Whether it takes flows."),
            AGE,
        ],
        found_by: &[".spec.node"],
    },
    Row {
        kind: "EgressNode",
        group: OURS,
        version: "v1alpha1",
        plural: "egressnodes",
        short: &["enode"],
        about: "What a node is called on the wire, and its interfaces. Written by its own agent alone; its name is `node-NUMBER`, so \
                that no number is given twice.",
        fields: kept::NODE,
        status: kept::NODE_STATUS,
        columns: &[
            ("Node", "string", ".spec.node", "The node."),
            (
                "Agent",
                "string",
                ".status.conditions[?(@.type==\"AgentReady\")].status",
                "Whether its agent gives signs of life.",
            ),
            ("Number", "integer", ".spec.number", "Who it is in connection marks."),
            ("Wire", "string", ".spec.wire", "The last four bytes of its MAC addresses."),
            AGE,
        ],
        found_by: &[],
    },
    Row {
        kind: "EgressRange",
        group: OURS,
        version: "v1alpha1",
        plural: "egressranges",
        short: &["erange"],
        about: "Ranges that are inside the cluster, for every node: never sent to a gateway.",
        fields: egress_range::FIELDS,
        status: kept::RANGE_STATUS,
        columns: &[
            ("Ranges", "string", ".spec.cidrs", "The ranges."),
            (
                "Complete",
                "string",
                ".status.conditions[?(@.type==\"AddressesInside\")].status",
                "Whether every pod of the cluster has its addresses in a range that is inside.",
            ),
            AGE,
        ],
        found_by: &[],
    },
    Row {
        kind: "IPPool",
        group: "projectcalico.org",
        version: "v3",
        plural: "ippools",
        short: &[],
        about: "Calico's pool, for clusters without Calico.",
        fields: ip_pool::FIELDS,
        status: &[],
        columns: &[("Range", "string", ".spec.cidr", "Its addresses."), AGE],
        found_by: &[],
    },
    Row {
        kind: "EgressGatewayPolicy",
        group: "projectcalico.org",
        version: "v3",
        plural: "egressgatewaypolicies",
        short: &[],
        about: "Calico's policy, for clusters without Calico.",
        fields: calico_policy::FIELDS,
        status: &[],
        columns: &[AGE],
        found_by: &[],
    },
    Row {
        kind: "CiliumEgressGatewayPolicy",
        group: "cilium.io",
        version: "v2",
        plural: "ciliumegressgatewaypolicies",
        short: &["cegp"],
        about: "Cilium's policy, for clusters without Cilium.",
        fields: cilium_policy::FIELDS,
        status: &[],
        columns: &[AGE],
        found_by: &[],
    },
];

fn definition(row: &Row) -> Definition {
    let name = format!("{}.{}", row.plural, row.group);
    let columns: Vec<Value> = row.columns.iter().map(column).collect();
    let mut version = json!({
        "name": row.version,
        "served": true,
        "storage": true,
        "schema": {"openAPIV3Schema": schema(row)},
        "additionalPrinterColumns": columns,
    });
    if let Value::Object(version) = &mut version {
        if !row.status.is_empty() {
            version.insert("subresources".into(), json!({"status": {}}));
        }
        if !row.found_by.is_empty() {
            let fields: Vec<Value> = row.found_by.iter().map(|path| json!({"jsonPath": path})).collect();
            version.insert("selectableFields".into(), fields.into());
        }
    }
    let ours = row.group == OURS;
    let mut names = json!({
        "kind": row.kind,
        "listKind": format!("{}List", row.kind),
        "plural": row.plural,
        "singular": row.kind.to_lowercase(),
    });
    if let Value::Object(names) = &mut names {
        if !row.short.is_empty() {
            names.insert("shortNames".into(), json!(row.short));
        }
        if ours {
            names.insert("categories".into(), json!(["egret"]));
        }
    }
    let object = json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": name, "labels": {"app.kubernetes.io/part-of": "egret"}},
        "spec": {"group": row.group, "scope": "Cluster", "names": names, "versions": [version]},
    });
    Definition { name, ours, object }
}

fn column(column: &Column) -> Value {
    let (name, kind, path, about) = column;
    json!({"name": name, "type": kind, "jsonPath": path, "description": about})
}

/// `metadata` is the API server's own to check; `status` is the controller's.
fn schema(row: &Row) -> Value {
    let mut fields: Vec<Field> = row.fields.iter().copied().filter(|field| field.name == "spec").collect();
    if !row.status.is_empty() {
        fields.push(super::shape::field("status", Shape::Map(row.status), "What became of it."));
    }
    let Value::Object(mut body) = structural::map(&fields, false, 1) else { return Value::Null };
    let mut schema = Map::new();
    schema.insert("description".into(), row.about.into());
    schema.append(&mut body);
    if let Some(Value::Object(properties)) = schema.get_mut("properties") {
        let mut all = Map::new();
        all.insert("apiVersion".into(), json!({"type": "string"}));
        all.insert("kind".into(), json!({"type": "string"}));
        all.insert("metadata".into(), json!({"type": "object"}));
        all.append(properties);
        *properties = all;
    }
    schema.into()
}
