//! What people are told of a node's pods, by annotations and events, while the API server takes some of it only.

use std::sync::Arc;

use egret::kube::Client;
use egret::node::attachment::Attachment;
use egret::node::embedded::Embedded;
use serde_json::{Value, json};

use crate::follower::{Follower, follow};
use crate::hanging::SELECTS;
use crate::leases::wait;
use crate::proxy::{Fate, Proxy, refusal};
use crate::server::kubectl;
use crate::trouble::{namespace, node};
use crate::world::*;

const NODE: &str = "tells";
const PODS: &str = "/api/v1/namespaces/told/pods";
/// By name, so in this order they are told of.
const NAMES: [&str; 3] = ["a", "b", "c"];

/// A node with wired pods that a namespace's annotation sends through gateways, of which there is none: all are held.
fn held_pods(client: &Client, proxy: &Arc<Proxy>) -> Follower {
    forget(client);
    node(client, NODE);
    namespace(client, "told");
    let annotations: serde_json::Map<String, Value> =
        SELECTS.iter().map(|(key, value)| ((*key).to_owned(), (*value).into())).collect();
    let patch = json!({"metadata": {"annotations": annotations}}).to_string();
    kubectl(&["patch", "namespace", "told", "--type=merge", "-p", &patch], "");
    let agent = follow(proxy, NODE);
    agent.synced();
    let records = Embedded::at(&agent.config).unwrap().records;
    for (n, name) in NAMES.into_iter().enumerate() {
        let address = format!("10.244.0.{}", 20 + n);
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "told"},
            "spec": {"nodeName": NODE, "containers": [{"name": "c", "image": "x"}]}});
        let made = client.create(PODS, &pod).unwrap();
        let record = json!({"network": "net", "containerId": name, "ifname": "eth0", "netns": "/var/run/netns/none", "dev": 1, "inode": 1,
            "pod": format!("told/{name}"), "uid": made["metadata"]["uid"], "addresses": [address]});
        records.write(&serde_json::from_value::<Attachment>(record).unwrap()).unwrap();
        let running = json!({"status": {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]}});
        client.merge(&format!("{PODS}/{name}/status"), &running).unwrap();
    }
    agent
}

fn annotated(client: &Client, pod: &str) -> bool {
    let pod = client.get(&format!("{PODS}/{pod}")).unwrap();
    pod["metadata"]["annotations"]["egret.dev/egress-addresses"] == "none"
}

/// Whether people find an event of this pod.
fn has_event(client: &Client, pod: &str) -> bool {
    let (events, _) = client.list("/api/v1/namespaces/told/events?").unwrap();
    events.iter().any(|event| event["involvedObject"]["name"] == pod && event["reason"] == "EgressHeld")
}

fn over(client: &Client, agent: Follower) {
    drop(agent);
    kubectl(&["delete", "pods,events", "-n", "told", "--all", "--force", "--grace-period=0"], "");
    kubectl(&["annotate", "namespace", "told", &format!("{}-", SELECTS[0].0)], "");
    forget(client);
}

#[test]
fn a_pod_whose_annotation_the_server_does_not_take_silences_no_other_pod_of_its_node() {
    let _alone = alone();
    let client = client_of("admin");
    let proxy = Proxy::start();
    proxy.judge(|line| match line.contains("PATCH /api/v1/namespaces/told/pods/a/status") {
        true => refusal(
            500,
            "InternalError",
            "failed calling webhook \"pods.example.com\": no endpoints available",
        ),
        false => Fate::Pass,
    });
    let agent = held_pods(&client, &proxy);
    for name in ["b", "c"] {
        wait(&format!("{name} is not annotated"), || annotated(&client, name).then_some(()));
    }
    for name in NAMES {
        wait(&format!("nobody is told that {name} is held"), || has_event(&client, name).then_some(()));
    }
    assert!(!annotated(&client, "a"));
    proxy.judge(|_| Fate::Pass);
    wait("what was refused is not tried again", || annotated(&client, "a").then_some(()));
    over(&client, agent);
}

#[test]
fn an_event_that_was_due_while_the_server_was_away_is_made_when_it_is_back() {
    let _alone = alone();
    let client = client_of("admin");
    let proxy = Proxy::start();
    let annotating = "PATCH /api/v1/namespaces/told/pods/";
    proxy.judge(move |line| match line.contains(annotating) {
        true => refusal(503, "ServiceUnavailable", "the server is shutting down"),
        false => Fate::Pass,
    });
    let agent = held_pods(&client, &proxy);
    wait("nothing is tried", || (proxy.asked(annotating) > 0).then_some(()));
    proxy.judge(|_| Fate::Pass);
    for name in NAMES {
        wait(&format!("{name} is not annotated"), || annotated(&client, name).then_some(()));
        wait(&format!("nobody is told that {name} is held"), || has_event(&client, name).then_some(()));
    }
    over(&client, agent);
}
