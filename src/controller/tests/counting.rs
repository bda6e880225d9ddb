//! What is counted of a whole cluster, whoever decided: policies, annotations, or both.

use super::*;
use crate::controller::tally::{Sum, Unserved};

fn sum(objects: &[Value], away: &[&str]) -> Sum {
    tally(&world(&mirror(objects), away)).sum
}

/// By an annotation, which no policy and no pool counts while there is no gateway.
fn annotated(name: &str, node: &str, selector: &str) -> Value {
    let mut pod = pod(name, node, &json!({}));
    pod["metadata"]["annotations"] = json!({"egret.dev/selector": selector});
    pod
}

#[test]
fn each_client_counts_once_whoever_decided() {
    assert_eq!(sum(&shop(), &[]), Sum { clients: 2, ..Sum::default() });
    let mut objects = shop();
    objects.push(annotated("shop/lost", "n1", "role == 'none'"));
    objects.push(annotated("red/found", "n1", "role == 'gw'"));
    assert_eq!(sum(&objects, &[]), Sum { clients: 4, held: 1, ..Sum::default() });
    // Nobody knows where one is that has no node yet.
    let mut waits = annotated("shop/waits", "n1", "role == 'none'");
    waits["spec"] = json!({});
    objects.push(waits);
    assert_eq!(sum(&objects, &[]).clients, 4);
}

#[test]
fn pods_that_nobody_serves_count_once_by_the_reason_also_where_no_policy_names_them() {
    let mut objects = shop();
    objects.push(annotated("shop/lost", "n2", "role == 'none'"));
    objects.push(annotated("shop/never", "never", "role == 'none'"));
    let mut host = pod("shop/host", "n1", &json!({"app": "cart"}));
    host["spec"]["hostNetwork"] = true.into();
    objects.push(host);
    let unserved = [(Unserved::AgentAway, 2), (Unserved::NoAgent, 1), (Unserved::HostNetwork, 1)].into();
    assert_eq!(sum(&objects, &["n2"]), Sum { clients: 4, held: 2, unserved });
}
