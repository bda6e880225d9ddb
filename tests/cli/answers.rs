//! `-o json`: every answer is what its schema promises. `status`, `reconcile` and `uninstall` need a node: `tests/scenarios` holds every
//! document of theirs against its schema.

use crate::world::Folder;

const WORLD: &str = "
apiVersion: egret.dev/v1alpha1
kind: EgressPool
metadata: {name: egress}
spec: {cidr: 10.10.10.0/28, gatewayNamespaces: all()}
---
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: v1
kind: Pod
metadata: {name: cart, namespace: shop, annotations: {egret.dev/selector: \"app == 'gateway'\"}}
spec: {nodeName: n1}
";

/// A lease that is kept for a StatefulSet's pod.
const BLOCK: &str = r#"{"apiVersion": "egret.dev/v1alpha1", "kind": "EgressBlock", "metadata": {"name": "10-10-10-2-31"}, "version": 1,
  "spec": {"cidr": "10.10.10.2/31", "pool": "egress", "affinity": "n1", "sequence": 1, "allocations": {
    "10.10.10.2": {"owner": "ordinal:shop/gw/0", "pod": "shop/gw-0", "since": 1, "sequence": 1}}}}"#;

fn world() -> Folder {
    Folder::with(&[
        ("state/objects/world.yaml", WORLD),
        ("state/ipam/egress/10-10-10-2-31.json", BLOCK),
        ("egret.json", r#"{"stateDir": "state", "runDir": "run"}"#),
    ])
}

#[test]
fn every_answer_without_a_node_keeps_its_promise() {
    let world = world();
    let asked = [
        ("explain shop/cart --state state --node n1", "Explanation"),
        ("explain shop/cart 198.51.100.1 --state state --node n1", "Explanation"),
        ("explain shop/nobody 2001:db8::1 --state state --node n1", "Explanation"),
        ("ipam show --state state --node n1", "IpamReport"),
        ("ipam check --state state --node n1", "IpamReport"),
        ("ipam release 10.10.10.2 --state state --node n1", "IpamRelease"),
        ("lint -f state/objects", "LintReport"),
        ("list --state state", "List"),
        ("convert -f state/objects", "ConvertReport"),
        ("schema", "SchemaList"),
    ];
    for (arguments, kind) in asked {
        let said = world.egret(&format!("{arguments} -o json"));
        let document = said.json();
        assert_eq!(document["kind"], kind, "{arguments}: {}", said.out);
        if kind != "SchemaList" && !arguments.contains("release") {
            continue;
        }
        assert_eq!(said.status, 0, "{arguments}: {}", said.err);
    }
}

#[test]
fn every_listed_schema_is_printed_and_is_one() {
    let folder = Folder::with(&[]);
    let list = folder.egret("schema -o json").json();
    let items = list["items"].as_array().unwrap();
    assert!(items.len() > 12);
    for item in items {
        let said = folder.egret(&format!("schema {}", item["name"].as_str().unwrap()));
        let schema: serde_json::Value = serde_json::from_str(&said.out).unwrap();
        assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
    }
}
