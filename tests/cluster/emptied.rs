//! Blocks of which nothing is in use any more: the controller's own account deletes them, and no block that anybody has a part in.

use std::path::Path;

use serde_json::Value;

use crate::controller::{Controller, kubeconfig, until};
use crate::leading::leaderless;
use crate::server::kubectl;
use crate::world::{alone, client_of, forget};

const BLOCKS: &str = "
{apiVersion: v1, kind: Node, metadata: {name: emptied1}}
---
{apiVersion: egret.dev/v1alpha1, kind: EgressPool, metadata: {name: emptied}, spec: {cidr: 10.89.0.0/28, gatewayNamespaces: all()}}
---
{apiVersion: egret.dev/v1alpha1, kind: EgressBlock, metadata: {name: gone.v4-10-90-0-0-31}, spec: {pool: gone, cidr: 10.90.0.0/31,
 affinity: emptied1, sequence: 4, allocations: {}}}
---
{apiVersion: egret.dev/v1alpha1, kind: EgressBlock, metadata: {name: emptied.v4-10-89-0-0-31}, spec: {pool: emptied, cidr: 10.89.0.0/31,
 sequence: 2, allocations: {10.89.0.0: {owner: 'pod:u', sequence: 1, since: 5, freedAt: 5}}}}
---
{apiVersion: egret.dev/v1alpha1, kind: EgressBlock, metadata: {name: emptied.v4-10-89-0-2-31}, spec: {pool: emptied, cidr: 10.89.0.2/31,
 sequence: 2, allocations: {10.89.0.2: {owner: 'ordinal:emptied/lost/0', sequence: 1, since: 5}}}}
---
{apiVersion: egret.dev/v1alpha1, kind: EgressBlock, metadata: {name: emptied.v4-10-89-0-4-31}, spec: {pool: emptied, cidr: 10.89.0.4/31,
 affinity: emptied1, sequence: 2, allocations: {10.89.0.4: {owner: 'pod:v', sequence: 1, since: 5,
 holder: {network: net, container: c, ifname: eth0, node: emptied1}}}}}
";

fn path(block: &str) -> String {
    format!("/apis/egret.dev/v1alpha1/egressblocks/{block}")
}

#[test]
fn blocks_that_were_empty_for_long_are_deleted_and_those_that_anybody_has_a_part_in_are_not() {
    let _alone = alone();
    let client = client_of("admin");
    forget(&client);
    let own = kubeconfig();
    leaderless(&client);
    kubectl(&["apply", "--server-side", "-f", "-"], BLOCKS);
    let _controller = Controller::with(Path::new(&own), &[]);
    let is_freed = |block: &Value| block["spec"]["allocations"]["10.89.0.2"]["freedAt"].is_u64();
    until(&client, &path("emptied.v4-10-89-0-2-31"), "freed, which was reserved for nobody", is_freed);
    for block in ["gone.v4-10-90-0-0-31", "emptied.v4-10-89-0-0-31"] {
        until(&client, &path(block), "deleted", Value::is_null);
    }
    assert!(is_freed(&client.get(&path("emptied.v4-10-89-0-2-31")).unwrap()), "it was freed just now");
    client.get(&path("emptied.v4-10-89-0-4-31")).unwrap();
    forget(&client);
    kubectl(&["delete", "node/emptied1"], "");
}
