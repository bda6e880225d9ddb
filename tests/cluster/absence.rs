//! What a controller on a real API server takes for gone, and what not: a dead agent when the controller begins anew, a node that the
//! DaemonSet leaves out, and what a watch that hangs has not told.

use std::path::Path;
use std::time::Duration;

use egret::kube::{Client, lease};
use egret::testbed::within;
use serde_json::Value;

use crate::controller::{Beats, Controller, PATIENCE, condition, kubeconfig, taints, until};
use crate::leading::leaderless;
use crate::proxy::{Fate, Proxy};
use crate::server::kubectl;
use crate::world::{alone, client_of, forget};

const LOOK: Duration = Duration::from_millis(50);

fn is_away(node: &Value) -> bool {
    taints(node).contains(&"egret.dev/agent-away")
}

fn node(name: &str) {
    kubectl(
        &["apply", "--server-side", "-f", "-"],
        &format!("{{apiVersion: v1, kind: Node, metadata: {{name: {name}}}}}"),
    );
}

/// An agent that lived, and is dead.
fn dead(client: &Client, node: &'static str) {
    let beats = Beats::of(node);
    until(client, &beat(node), "heard", |lease| !lease.is_null());
    drop(beats);
}

fn beat(node: &str) -> String {
    format!("{}/{}", lease::LEASES, lease::beat_of(node))
}

fn is_there(client: &Client, path: &str) -> bool {
    match client.get(path) {
        Ok(_) => true,
        Err(error) if error.is_absent() => false,
        Err(error) => panic!("{error}"),
    }
}

const BURNT: &str = "
{apiVersion: v1, kind: Namespace, metadata: {name: burnt}}
---
{apiVersion: v1, kind: ServiceAccount, metadata: {name: default, namespace: burnt}}
---
{apiVersion: v1, kind: Pod, metadata: {name: one, namespace: burnt, labels: {app: burnt}}, spec: {nodeName: burnt1, containers: [{name: c, image: x}]}}
---
{apiVersion: egret.dev/v1alpha1, kind: EgressNode, metadata: {name: node-66}, spec: {node: burnt1, number: 66, wire: 172.31.9.66}}
";

const POLICY: &str = "{apiVersion: egret.dev/v1alpha1, kind: EgressGatewayPolicy, metadata: {name: burnt}, spec: {selectors: [{selector: \"app == 'burnt'\"}],
 rules: [{destination: {cidrs: [CIDR]}}]}}";

#[test]
fn a_controller_that_begins_takes_no_dead_agent_for_a_living_one() {
    let _alone = alone();
    let client = client_of("admin");
    forget(&client);
    let own = kubeconfig();
    leaderless(&client);
    node("burnt1");
    kubectl(&["apply", "--server-side", "-f", "-"], BURNT);
    let wish = |cidr: &str| {
        kubectl(&["apply", "--server-side", "-f", "-"], &POLICY.replace("CIDR", cidr));
    };
    wish("10.0.0.0/8");
    dead(&client, "burnt1");
    let (path, record) = (
        "/apis/egret.dev/v1alpha1/egressgatewaypolicies/burnt",
        "/apis/egret.dev/v1alpha1/egressnodes/node-66",
    );
    let first = Controller::with(Path::new(&own), &[]);
    until(&client, "/api/v1/nodes/burnt1", "tainted", is_away);
    until(&client, path, "unprotected", |policy| policy["status"]["unprotected"] == 1);
    until(&client, record, "silent", |node| condition(node, "AgentReady")["reason"] == "AgentAway");
    let said = || {
        let (policy, record) = (client.get(path).unwrap(), client.get(record).unwrap());
        let protected = &condition(&policy, "Protected")["lastTransitionTime"];
        (
            protected.clone(),
            condition(&record, "AgentReady").clone(),
            policy["status"]["unprotectedPods"].clone(),
        )
    };
    let before = said();
    drop(first);
    leaderless(&client);

    // Two looks of the next one: whatever it has to say is said by then.
    let _second = Controller::with(Path::new(&own), &[]);
    for (generation, cidr) in [(2, "10.0.0.0/9"), (3, "10.0.0.0/10")] {
        wish(cidr);
        until(&client, path, "looked at", |policy| policy["status"]["observedGeneration"] == generation);
    }
    assert!(is_away(&client.get("/api/v1/nodes/burnt1").unwrap()), "its agent is as dead as before");
    assert_eq!(said(), before);
    // And who speaks again is heard.
    let _beats = Beats::of("burnt1");
    until(&client, "/api/v1/nodes/burnt1", "free of it", |node| !is_away(node));
    until(&client, path, "protected", |policy| policy["status"]["unprotected"] == 0);
    kubectl(&["delete", "node/burnt1", "egpol/burnt", "enode/node-66"], "");
    kubectl(&["delete", "ns/burnt", "--wait=false"], "");
}

/// An agent's pod of a DaemonSet.
fn agent(name: &str, place: &str) {
    let pod = format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}, namespace: egret-system, labels: {{app.kubernetes.io/name: egret-agent}}}}, \
         spec: {{{place}, serviceAccountName: out-none, automountServiceAccountToken: false, tolerations: [{{operator: Exists}}], containers: [{{name: c, image: x}}]}}}}"
    );
    kubectl(&["create", "-f", "-"], &pod);
}

const MANY: [&str; 6] = ["out3", "out4", "out5", "out6", "out7", "out8"];

#[test]
fn a_node_that_the_daemonset_leaves_out_is_open_again() {
    let _alone = alone();
    let client = client_of("admin");
    forget(&client);
    kubeconfig();
    leaderless(&client);
    kubectl(&["create", "serviceaccount", "-n", "egret-system", "out-none"], "");
    for name in ["out1", "out2"] {
        node(name);
        agent(&format!("agent-{name}"), &format!("nodeName: {name}"));
    }
    dead(&client, "out2");
    let _beats = Beats::of("out1");
    let proxy = Proxy::start();
    let one = Controller::with(proxy.kubeconfig(), &[]);
    let out = "/api/v1/nodes/out2";
    until(&client, out, "tainted", is_away);

    // The next pod waits for room there.
    let only = "affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: [{matchFields: \
                [{key: metadata.name, operator: In, values: [out2]}]}]}}}";
    agent("agent-next", only);
    let gone = |pod: &str| {
        kubectl(&["delete", "pod", pod, "-n", "egret-system", "--force", "--grace-period=0"], "");
    };
    gone("agent-out2");
    let asked = within(PATIENCE, LOOK, || proxy.asked("/egret-system/pods?labelSelector") >= 2);
    assert!(asked.is_some(), "it never asks for the agents' pods");
    assert!(is_away(&client.get(out).unwrap()) && is_there(&client, &beat("out2")));

    // And then it is left out.
    gone("agent-next");
    until(&client, out, "free of it", |node| !is_away(node));
    let forgotten = within(PATIENCE, LOOK, || !is_there(&client, &beat("out2")));
    assert!(forgotten.is_some(), "its agent's Lease stays");

    // Many at once: it asks for the agents' pods, and not for each node.
    let lists = || proxy.asked("/egret-system/pods?labelSelector");
    for name in MANY {
        node(name);
        agent(&format!("agent-{name}"), &format!("nodeName: {name}"));
        dead(&client, name);
    }
    for name in MANY {
        until(&client, &format!("/api/v1/nodes/{name}"), "tainted", is_away);
    }
    let before = lists();
    let pods = MANY.map(|name| format!("agent-{name}"));
    let mut delete = vec!["delete", "pods", "-n", "egret-system", "--force", "--grace-period=0"];
    delete.extend(pods.iter().map(String::as_str));
    kubectl(&delete, "");
    for name in MANY {
        until(&client, &format!("/api/v1/nodes/{name}"), "free of it", |node| !is_away(node));
    }
    let lists = lists() - before;
    assert!(lists < MANY.len(), "{lists} lists for {} nodes", MANY.len());
    drop(one);
    gone("agent-out1");
    kubectl(&["delete", "node", "out1", "out2"], "");
    kubectl(&[&["delete", "node"][..], &MANY].concat(), "");
    kubectl(&["delete", "serviceaccount", "-n", "egret-system", "out-none"], "");
}

const LAGGING: &str = "
{apiVersion: v1, kind: Namespace, metadata: {name: unsaid}}
---
{apiVersion: v1, kind: ServiceAccount, metadata: {name: default, namespace: unsaid}}
---
{apiVersion: egret.dev/v1alpha1, kind: EgressPool, metadata: {name: unsaid}, spec: {cidr: 10.86.0.0/30, gatewayNamespaces: all()}}
---
{apiVersion: egret.dev/v1alpha1, kind: EgressBlock, metadata: {name: unsaid.v4-10-86-0-2-31}, spec: {pool: unsaid, cidr: 10.86.0.2/31,
 sequence: 2, allocations: {10.86.0.2: {owner: 'pod:v', sequence: 1, since: 5, holder: {network: net, container: c, ifname: eth0, node: lag1}},
 10.86.0.3: {owner: 'pod:w', sequence: 2, since: 5, holder: {network: net, container: d, ifname: eth0, node: lag2}}}}}
";

const RESERVED: &str =
    "{apiVersion: egret.dev/v1alpha1, kind: EgressBlock, metadata: {name: unsaid.v4-10-86-0-0-31}, spec: {pool: unsaid, cidr: 10.86.0.0/31,
 sequence: 2, allocations: {10.86.0.0: {owner: 'pod:UID', pod: unsaid/born, sequence: 1, since: 5},
 10.86.0.1: {owner: 'pod:zz-nobody', pod: unsaid/nobody, sequence: 2, since: 5}}}}";

#[test]
fn what_a_watch_has_not_told_is_asked_for_before_anything_is_taken() {
    let _alone = alone();
    let client = client_of("admin");
    forget(&client);
    kubeconfig();
    leaderless(&client);
    for name in ["lag1", "lag2"] {
        node(name);
    }
    dead(&client, "lag1");
    dead(&client, "lag2");
    kubectl(&["apply", "--server-side", "-f", "-"], LAGGING);
    // The server answers everything, but on these connections nothing arrives.
    let proxy = Proxy::start();
    proxy.judge(|line| {
        let hangs = line.contains("/leases?") || line.contains("/api/v1/pods?");
        match hangs && line.contains("watch=1") {
            true => Fate::Lag(Duration::from_secs(3600)),
            false => Fate::Pass,
        }
    });
    let one = Controller::with(proxy.kubeconfig(), &[]);
    for node in ["lag1", "lag2"] {
        until(&client, &format!("/api/v1/nodes/{node}"), "tainted", is_away);
    }
    let lease = |block: &str, ip: &str| {
        let block = client.get(&format!("/apis/egret.dev/v1alpha1/egressblocks/{block}")).unwrap();
        block["spec"]["allocations"][ip].clone()
    };
    let freed = |block: &str, ip: &str| {
        let freed = within(PATIENCE, LOOK, || lease(block, ip)["freedAt"].is_u64());
        assert!(freed.is_some(), "{ip} is never freed: {}", lease(block, ip));
    };

    // A pod is made, and an address is reserved for it; another for one that never was, which is looked at after it.
    kubectl(
        &["create", "-f", "-"],
        "{apiVersion: v1, kind: Pod, metadata: {name: born, namespace: unsaid}, spec: {nodeName: lag1, containers: [{name: c, image: x}]}}",
    );
    let born = client.get("/api/v1/namespaces/unsaid/pods/born").unwrap();
    let uid = born["metadata"]["uid"].as_str().unwrap();
    kubectl(&["apply", "--server-side", "-f", "-"], &RESERVED.replace("UID", uid));
    freed("unsaid.v4-10-86-0-0-31", "10.86.0.1");
    assert_eq!(lease("unsaid.v4-10-86-0-0-31", "10.86.0.0")["freedAt"], Value::Null, "its pod is there");

    // An agent is back, and somebody says of its node, and then of another, that nothing runs there.
    let before = client.get(&beat("lag1")).unwrap();
    let _beats = Beats::of("lag1");
    until(&client, &beat("lag1"), "back", |lease| lease["spec"] != before["spec"]);
    for node in ["lag1", "lag2"] {
        kubectl(&["taint", "node", node, "node.kubernetes.io/out-of-service=gone:NoSchedule"], "");
    }
    freed("unsaid.v4-10-86-0-2-31", "10.86.0.3");
    assert_eq!(lease("unsaid.v4-10-86-0-2-31", "10.86.0.2")["holder"]["node"], "lag1", "its agent lives");
    drop(one);
    kubectl(&["delete", "node/lag1", "node/lag2"], "");
    leaderless(&client);
    forget(&client);
    kubectl(&["delete", "ns/unsaid", "--wait=false"], "");
}
