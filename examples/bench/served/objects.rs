//! The cluster's objects, as long as such objects are: 12 KB a node, 3 KB a pod.
//!
//! Pods 0 to 109 are node 1's, 110 to 219 node 3's, the others of nodes that exist by name alone; ten to a namespace. Of five
//! namespaces one is annotated with a policy, and so are the first ten of node 1. 40 gateways are elsewhere.

use std::net::Ipv4Addr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use egret::addr::Family;
use egret::egress::numbers::gateway_mac;
use egret::kube::Client;
use egret::testbed::{Trouble, node_address};
use serde_json::{Value, json};

use super::ground::trouble;

pub(super) const PODS: usize = 10_000;
pub(super) const NAMESPACES: usize = 1_000;
pub(super) const POLICIES: usize = 200;
pub(super) const NODES: usize = 500;
/// Pods of nodes 1 and 3.
pub(super) const ON_NODE: usize = 110;
/// Of the pods of node 1, the first are of namespaces that are annotated.
pub(super) const CLIENTS: usize = 100;
const GATEWAYS: usize = 40;
/// Nodes with these numbers are here.
const HERE: usize = 3;
/// Connections to write by.
const WRITERS: usize = 24;

pub(super) const POLICY: &str = "egress.projectcalico.org/egressGatewayPolicy";
const PODS_OF: &str = "/api/v1/namespaces";
const OURS: &str = "/apis/egret.dev/v1alpha1";

/// Writes everything.
pub(super) fn write(client: &Client) -> Result<(), Trouble> {
    let began = Instant::now();
    let named = ["gate".to_owned(), "shop".to_owned()];
    let names: Vec<String> = named.into_iter().chain((0..NAMESPACES).map(namespace_name)).collect();
    create(client, names.len(), |n| ("/api/v1/namespaces".into(), namespace(&names[n], n.checked_sub(2))))?;
    create(client, names.len(), |n| {
        let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}});
        (format!("/api/v1/namespaces/{}/serviceaccounts", names[n]), account)
    })?;
    create(client, NODES, |n| ("/api/v1/nodes".into(), node(n)))?;
    // Those that are here say themselves what they are.
    create(client, NODES - HERE, |n| (format!("{OURS}/egressnodes"), node_record(n + HERE)))?;
    let pools = [("red", "10.10.10.0/28"), ("blue", "10.10.10.64/26")];
    create(client, pools.len(), |n| (format!("{OURS}/egresspools"), pool(pools[n].0, pools[n].1)))?;
    create(client, POLICIES, |n| {
        let rules = json!([{
            "destination": {"cidr": format!("203.0.113.{n}/32")},
            "gateway": {"selector": format!("group == 'g{}'", n % (GATEWAYS / 2)), "namespaceSelector": "projectcalico.org/name == 'gate'"},
        }]);
        (format!("{OURS}/egressgatewaypolicies"), policy(&format!("way-{n}"), &rules))
    })?;
    create(client, GATEWAYS, |n| (format!("{OURS}/egressendpoints"), endpoint(n)))?;
    create(client, PODS, |n| {
        let name = pod_name(n);
        (format!("{PODS_OF}/{}/pods", namespace_of(n)), pod(&namespace_of(n), &name, &node_of(n), &[]))
    })?;
    println!(
        "{PODS} pods, {NAMESPACES} namespaces, {POLICIES} policies, {NODES} nodes written in {:.1?}",
        began.elapsed()
    );
    Ok(())
}

/// Creates so many objects, over many connections at once.
fn create(
    client: &Client,
    count: usize,
    make: impl Fn(usize) -> (String, Value) + Sync,
) -> Result<(), Trouble> {
    let (next, failed) = (AtomicUsize::new(0), Mutex::new(None));
    std::thread::scope(|threads| {
        for _ in 0..WRITERS.min(count) {
            threads.spawn(|| {
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n >= count {
                        return;
                    }
                    let (path, object) = make(n);
                    if let Err(error) = client.create(&path, &object) {
                        next.store(count, Ordering::Relaxed);
                        *failed.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(error);
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    failed.map_or(Ok(()), |error| Err(trouble(error)))
}

pub(super) fn namespace_name(number: usize) -> String {
    format!("team-{number:03}")
}

pub(super) fn pod_name(number: usize) -> String {
    format!("shop-7d4b9c6f5-{number:05}")
}

pub(super) fn namespace_of(pod: usize) -> String {
    namespace_name(pod / (PODS / NAMESPACES))
}

pub(super) fn pod_path(namespace: &str, name: &str) -> String {
    format!("{PODS_OF}/{namespace}/pods/{name}")
}

fn node_of(pod: usize) -> String {
    match pod {
        0..ON_NODE => "node1".to_owned(),
        pod if pod < 2 * ON_NODE => "node3".to_owned(),
        pod => format!("node{}", HERE + 1 + pod % (NODES - HERE)),
    }
}

fn namespace(name: &str, number: Option<usize>) -> Value {
    let labels = json!({"team": name, "environment": "production", "cost-center": "0815"});
    let mut object =
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}});
    if let Some(number) = number.filter(|n| n * (PODS / NAMESPACES) < CLIENTS || n % 5 == 4) {
        object["metadata"]["annotations"] = json!({POLICY: format!("way-{}", number % POLICIES)});
    }
    object
}

pub(super) fn node_status(number: usize) -> String {
    format!("/api/v1/nodes/node{}/status", number + 1)
}

/// What a kubelet says every few minutes of a node that is as it was.
pub(super) fn beat(number: usize) -> Value {
    json!({"status": {"conditions": conditions(number)}})
}

fn conditions(number: usize) -> Value {
    let at = format!("2026-01-01T00:{:02}:{:02}Z", number / 60 % 60, number % 60);
    let kinds = ["MemoryPressure", "DiskPressure", "PIDPressure", "Ready"];
    let condition = |kind: &str| {
        json!({
            "type": kind, "status": if kind == "Ready" { "True" } else { "False" }, "lastHeartbeatTime": at,
            "lastTransitionTime": "2026-01-01T00:00:00Z", "reason": format!("KubeletHas{kind}"), "message": "kubelet is posting its status",
        })
    };
    kinds.map(condition).to_vec().into()
}

fn node(number: usize) -> Value {
    let name = format!("node{}", number + 1);
    let address = match number {
        0..HERE => node_address(number as u8 + 1, Family::V4),
        _ => Ipv4Addr::new(172, 28, (number >> 8) as u8, number as u8).into(),
    };
    let images: Vec<Value> = (0..50)
        .map(|n| {
            let digest = format!("{n:02}").repeat(32);
            let names = [
                format!("registry.example.com/platform/component-{n}@sha256:{digest}"),
                format!("registry.example.com/platform/component-{n}:v1.{n}.0"),
            ];
            json!({"names": names, "sizeBytes": 50_000_000 + n})
        })
        .collect();
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": name, "labels": {
            "kubernetes.io/hostname": name, "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64",
            "topology.kubernetes.io/zone": format!("zone-{}", number % 3), "topology.kubernetes.io/region": "region-1",
            "node.kubernetes.io/instance-type": "large",
        }},
        "spec": {"podCIDR": format!("10.{}.{}.0/24", 100 + (number >> 8), number & 255)},
        "status": {
            "addresses": [{"type": "InternalIP", "address": address}, {"type": "Hostname", "address": name}],
            "capacity": {"cpu": "64", "memory": "256Gi", "pods": "110"}, "conditions": conditions(0), "images": images,
        },
    })
}

fn node_record(number: usize) -> Value {
    let wire = Ipv4Addr::new(10, 201, (number >> 8) as u8, number as u8);
    json!({
        "apiVersion": "egret.dev/v1alpha1", "kind": "EgressNode", "metadata": {"name": format!("node-{}", number + 1)},
        "spec": {"node": format!("node{}", number + 1), "number": number + 1, "wire": wire},
    })
}

fn pool(name: &str, cidr: &str) -> Value {
    json!({
        "apiVersion": "egret.dev/v1alpha1", "kind": "EgressPool", "metadata": {"name": name},
        "spec": {"cidr": cidr, "gatewayNamespaces": "all()", "clientNamespaces": "all()"},
    })
}

pub(super) fn policy(name: &str, rules: &Value) -> Value {
    json!({
        "apiVersion": "egret.dev/v1alpha1", "kind": "EgressGatewayPolicy", "metadata": {"name": name}, "spec": {"rules": rules},
    })
}

fn endpoint(number: usize) -> Value {
    let address = Ipv4Addr::new(10, 10, 10, 64 + number as u8);
    let node = HERE + 10 + number;
    let name = format!("gateway-{number}");
    json!({
        "apiVersion": "egret.dev/v1alpha1", "kind": "EgressEndpoint", "metadata": {"name": format!("gw-{number}")},
        "spec": {
            "pod": format!("gate/{name}"), "uid": format!("uid-{name}"), "attachment": format!("pods/{number:064}/eth0"),
            "labels": {"group": format!("g{}", number % (GATEWAYS / 2))}, "node": format!("node{}", node + 1),
            "underlay": [Ipv4Addr::new(172, 28, (node >> 8) as u8, node as u8)], "vni": 5000 + number, "mac": gateway_mac(address),
            "addresses": [{"ip": address, "pool": "blue"}], "state": "ready", "generation": 1,
        },
    })
}

/// A pod as a Deployment makes it.
pub(super) fn pod(namespace: &str, name: &str, node: &str, labels: &[(&str, &str)]) -> Value {
    let env: Vec<Value> = (0..12)
        .map(|n| json!({"name": format!("SETTING_{n}"), "value": format!("http://service-{n}.{namespace}.svc.cluster.local:8080")}))
        .collect();
    let probe = json!({"httpGet": {"path": "/healthz", "port": 8080}, "periodSeconds": 10});
    let mut object = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": {
            "app.kubernetes.io/name": "shop", "app.kubernetes.io/instance": namespace, "pod-template-hash": "7d4b9c6f5",
        }},
        "spec": {"nodeName": node, "containers": [{
            "name": "main", "image": "registry.example.com/shop/cart:v1.2.3", "ports": [{"containerPort": 8080}], "env": env,
            "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "256Mi"}},
            "livenessProbe": probe, "readinessProbe": probe,
        }]},
    });
    for (key, value) in labels {
        object["metadata"]["labels"][*key] = json!(value);
    }
    object
}

/// What a kubelet says of a pod that runs.
pub(super) fn running(ip: &str) -> Value {
    json!({"status": {
        "phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}], "conditions": [{"type": "Ready", "status": "True"}],
    }})
}
