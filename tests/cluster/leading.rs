//! A controller that the network treats badly, and one whose configuration changes: behind a proxy of our own, before a real server.

use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use egret::kube::lease;
use egret::testbed::within;
use serde_json::Value;

use crate::controller::{Beats, Controller, PATIENCE, condition, holder, kubeconfig, taints, until};
use crate::proxy::{Fate, Proxy};
use crate::server::kubectl;
use crate::world::{alone, client_of, forget};

const POLICY: &str = "{apiVersion: egret.dev/v1alpha1, kind: EgressGatewayPolicy, metadata: {name: cut}, spec: {selectors: [{selector: \"app == 'cut'\"}],
 rules: [{destination: {cidrs: [CIDR]}}]}}";

/// Nobody leads.
pub(crate) fn leaderless(client: &egret::kube::Client) {
    if let Err(error) = client.delete(&format!("{}/egret-controller", lease::LEASES)) {
        assert!(error.is_absent(), "{error}");
    }
}

#[test]
fn a_leader_that_is_cut_off_stops_and_another_takes_over_and_keeps_it() {
    let _alone = alone();
    let client = client_of("admin");
    forget(&client);
    let direct = PathBuf::from(kubeconfig());
    leaderless(&client);
    let path = "/apis/egret.dev/v1alpha1/egressgatewaypolicies/cut";
    kubectl(&["apply", "--server-side", "-f", "-"], &POLICY.replace("CIDR", "10.0.0.0/8"));
    let proxy = Proxy::start();
    let first = Controller::with(proxy.kubeconfig(), &[]);
    until(&client, path, "served", |policy| policy["status"]["observedGeneration"] == 1);
    let cut_off = holder(&client);
    let second = Controller::with(&direct, &[]);

    // Nothing that it asks from now on is answered. What it hears goes on.
    proxy.judge(|_| Fate::Silence);
    let cut = Instant::now();
    let taken = within(PATIENCE, Duration::from_millis(50), || holder(&client) != cut_off);
    assert!(taken.is_some(), "nobody took over");
    println!("cut off: another leads after {:?}", cut.elapsed());
    let leads = holder(&client);
    let wrote = proxy.asked("PUT ");
    kubectl(&["apply", "--server-side", "-f", "-"], &POLICY.replace("CIDR", "10.0.0.0/9"));
    until(&client, path, "served by the other", |policy| policy["status"]["observedGeneration"] == 2);
    thread::sleep(Duration::from_secs(2));
    assert_eq!(proxy.asked("PUT "), wrote, "who is cut off does not even try");

    // Back again it waits, like anybody.
    proxy.judge(|_| Fate::Pass);
    let asked = proxy.asked("/leases/egret-controller");
    let waits =
        within(PATIENCE, Duration::from_millis(100), || proxy.asked("/leases/egret-controller") > asked + 2);
    assert!(waits.is_some(), "it never asks again");
    assert_eq!((holder(&client), proxy.asked("PUT ")), (leads, wrote));
    drop((first, second));
    leaderless(&client);
    client.delete(path).unwrap();
}

#[test]
fn a_watch_that_hangs_makes_no_agent_silent() {
    let _alone = alone();
    let client = client_of("admin");
    forget(&client);
    kubeconfig();
    leaderless(&client);
    kubectl(&["apply", "--server-side", "-f", "-"], "{apiVersion: v1, kind: Node, metadata: {name: hung}}");
    let node = "/api/v1/nodes/hung";
    let away = |node: &Value| taints(node).contains(&"egret.dev/agent-away");
    let beats = Beats::of("hung");
    let beat = format!("{}/{}", lease::LEASES, lease::beat_of("hung"));
    until(&client, &beat, "heard", |lease| !lease.is_null());
    // The server answers everything, but on this one connection nothing arrives.
    let proxy = Proxy::start();
    proxy.judge(|line| match line.contains("/leases?") && line.contains("watch=1") {
        true => Fate::Lag(Duration::from_secs(3600)),
        false => Fate::Pass,
    });
    let one = Controller::with(proxy.kubeconfig(), &[]);
    let hung = within(PATIENCE, Duration::from_millis(50), || proxy.asked("/leases?") >= 2);
    assert!(hung.is_some());
    let lists = proxy.listed(lease::LEASES);
    let tainted = within(Duration::from_secs(14), Duration::from_millis(100), || {
        away(&client.get(node).unwrap_or_default())
    });
    assert!(tainted.is_none(), "its agent gives signs of life every half second");
    assert!(proxy.listed(lease::LEASES) > lists, "it was asked for, and by a list of all");
    // And who is silent is silent, whichever way it is asked.
    drop(beats);
    until(&client, node, "tainted", away);
    drop(one);
    kubectl(&["delete", "node", "hung"], "");
    leaderless(&client);
}

const BUSY: &str = "
{apiVersion: v1, kind: Namespace, metadata: {name: busy}}
---
{apiVersion: v1, kind: ServiceAccount, metadata: {name: default, namespace: busy}}
---
{apiVersion: v1, kind: Node, metadata: {name: busy1}}
---
{apiVersion: egret.dev/v1alpha1, kind: EgressGatewayPolicy, metadata: {name: busy}, spec: {selectors: [{selector: \"app == 'busy'\"}],
 rules: [{destination: {cidrs: [10.0.0.0/8]}}]}}
";

#[test]
fn pods_that_come_one_by_one_are_counted_and_not_each_told_to_every_agent() {
    let _alone = alone();
    let client = client_of("admin");
    forget(&client);
    kubeconfig();
    leaderless(&client);
    kubectl(&["apply", "--server-side", "-f", "-"], BUSY);
    let path = "/apis/egret.dev/v1alpha1/egressgatewaypolicies/busy";
    let proxy = Proxy::start();
    let one = Controller::with(proxy.kubeconfig(), &[]);
    until(&client, path, "counted", |policy| policy["status"]["pods"] == 0);
    let (asked, begun) =
        (proxy.asked("PUT /apis/egret.dev/v1alpha1/egressgatewaypolicies/busy"), Instant::now());
    for n in 0..12 {
        kubectl(
            &["create", "-f", "-"],
            &format!(
                "{{apiVersion: v1, kind: Pod, metadata: {{name: p{n}, namespace: busy, labels: {{app: busy}}}}, spec: {{nodeName: busy1, containers: [{{name: c, image: x}}]}}}}"
            ),
        );
        thread::sleep(Duration::from_secs(1));
    }
    until(&client, path, "counted to the last", |policy| policy["status"]["pods"] == 12);
    let wrote = proxy.asked("PUT /apis/egret.dev/v1alpha1/egressgatewaypolicies/busy") - asked;
    // The first may be unprotected, which is an answer.
    let most = 3 + begun.elapsed().as_secs() / 20;
    println!("12 pods within {:?}: {wrote} writes", begun.elapsed());
    assert!(wrote as u64 <= most, "{wrote} writes, and no more than {most} have anything to say");
    drop(one);
    kubectl(&["delete", "node/busy1", "egpol/busy"], "");
    kubectl(&["delete", "ns/busy", "--wait=false"], "");
}

/// Calico's definition of its policy is in `deploy/foreign-crds`.
const ADOPTED: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: conf, annotations: {egress.projectcalico.org/egressGatewayPolicy: conf-out}}
---
{apiVersion: v1, kind: ServiceAccount, metadata: {name: default, namespace: conf}}
---
{apiVersion: v1, kind: Node, metadata: {name: conf1}}
---
{apiVersion: v1, kind: Pod, metadata: {name: gw, namespace: conf, labels: {role: conf}}, spec: {nodeName: conf1, containers: [{name: c, image: x}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: one, namespace: conf}, spec: {nodeName: conf1, containers: [{name: c, image: x}]}}
---
{apiVersion: egret.dev/v1alpha1, kind: EgressPool, metadata: {name: conf}, spec: {cidr: 10.87.0.0/31, gatewayNamespaces: all()}}
---
{apiVersion: projectcalico.org/v3, kind: EgressGatewayPolicy, metadata: {name: conf-out}, spec: {rules: [{gateway: {selector: role == 'conf', namespaceSelector: all()}}]}}
---
{apiVersion: egret.dev/v1alpha1, kind: EgressEndpoint, metadata: {name: conf}, spec: {pod: conf/gw, attachment: net/conf/eth0, node: conf1,
 underlay: [172.31.9.9], vni: 4099, mac: '02:67:0a:57:00:00', addresses: [{ip: 10.87.0.0, pool: conf}], state: ready, generation: 1,
 labels: {role: conf}}}
---
{apiVersion: egret.dev/v1alpha1, kind: EgressNode, metadata: {name: node-88}, spec: {node: conf1, number: 88, wire: 172.31.9.9}}
";

#[test]
fn a_controller_decides_by_the_configuration_as_it_is_now() {
    let _alone = alone();
    let client = client_of("admin");
    forget(&client);
    let own = PathBuf::from(kubeconfig());
    leaderless(&client);
    kubectl(&["apply", "--server-side", "-f", "-"], ADOPTED);
    let ips = r#"{"status": {"podIPs": [{"ip": "10.250.1.7"}], "podIP": "10.250.1.7"}}"#;
    kubectl(&["patch", "pod", "one", "-n", "conf", "--subresource=status", "--type=merge", "-p", ips], "");
    let file = std::env::temp_dir().join(format!("egret-conf-{}.json", std::process::id()));
    // As a volume of a ConfigMap does it: in one piece.
    let configure = |text: &str| {
        let draft = file.with_extension("draft");
        fs::write(&draft, text).unwrap();
        fs::rename(draft, &file).unwrap();
    };
    configure(r#"{"mode": "cluster"}"#);
    let one = Controller::with(&own, &["--config", file.to_str().unwrap()]);
    let (record, pool) =
        ("/apis/egret.dev/v1alpha1/egressnodes/node-88", "/apis/egret.dev/v1alpha1/egresspools/conf");
    let inside = |node: &Value| condition(node, "AddressesInside")["status"].clone();
    until(&client, record, "outside", |node| inside(node) == "False");
    until(&client, pool, "without clients", |pool| pool["status"]["clients"] == 0);

    configure(r#"{"mode": "cluster", "clusterCIDRs": ["10.250.0.0/16"], "adopt": ["calico"]}"#);
    until(&client, record, "inside", |node| inside(node) == "True");
    until(&client, pool, "with a client by Calico's policy", |pool| pool["status"]["clients"] == 1);

    // What is no configuration changes nothing.
    configure(r#"{"mode": "cluster", "clusterCIDRs": ["10.250.0.0/"#);
    thread::sleep(Duration::from_secs(7));
    assert_eq!(inside(&client.get(record).unwrap()), "True");
    drop(one);
    leaderless(&client);
    kubectl(&["delete", "node/conf1"], "");
    forget(&client);
    kubectl(&["delete", "ns/conf", "--wait=false"], "");
    fs::remove_file(file).unwrap();
}
