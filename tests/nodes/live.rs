//! Running pods follow everything that decides about them: labels of pods, namespaces and gateways, policies, pools, ranges. Nothing is
//! started anew for it, and people are told.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::Value;

use crate::lab::{Lab, OUTSIDE};
use crate::{addresses, begins, bypassed, only, own};

#[test]
fn running_pods_follow_whatever_decides_about_them_and_people_are_told() {
    let lab = Lab::raise("live", "nftables,iptables", "bridge,ptp");
    let mut agents = [1, 2].map(|node| Some(lab.agent(node)));
    let controller = lab.controller();
    let red = begins(&lab);
    lab.kubectl(&["apply", "-f", "-"], BLUE);
    let blue = blue(&lab);
    follow_labels_and_policies(&lab, &blue);
    follow_a_pods_own_annotations(&lab, &red, &blue);
    follow_gateways_pools_and_ranges(&lab, &red);
    follow_a_nodes_address(&lab, &red, &blue);
    own::addresses_of_gateways_are_what_clients_leave_with(&lab);
    addresses::belong_to_whoever_has_them_now(&lab, &red);
    everything_has_conditions(&lab);
    answers_for_people(&lab, &red);
    bypassed::is_refused_or_reported(&lab, &mut agents);
    an_agent_that_is_away_is_told_of(&lab, &mut agents);
    drop(controller);
}

/// Pods of this prefix are heard, with these addresses alone; and so again.
#[track_caller]
pub(crate) fn leave_with(lab: &Lab, prefix: &str, addresses: &BTreeSet<String>, what: &str) {
    for what in [what, "and on"] {
        lab.hears(Duration::from_millis(500), what, || lab.seen(prefix) == *addresses);
    }
}

/// The same of pods that are held: nobody hears them, while others are heard.
#[track_caller]
pub(crate) fn is_held(lab: &Lab, prefix: &str, heard: &str, what: &str) {
    for what in [what, "and on"] {
        lab.hears(Duration::from_secs(1), what, || {
            lab.seen(prefix).is_empty() && !lab.seen(heard).is_empty()
        });
    }
}

pub(crate) fn nodes() -> BTreeSet<String> {
    ["172.31.0.1", "172.31.0.2"].map(str::to_owned).into()
}

fn blue(lab: &Lab) -> String {
    let filter = "jsonpath={.items[?(@.spec.pod==\"gw/blue\")].spec.addresses[0].ip}";
    let address = || lab.kubectl(&["get", "eep", "-o", filter], "");
    lab.eventually("the second gateway is there", || !address().is_empty());
    address()
}

fn follow_labels_and_policies(lab: &Lab, blue: &str) {
    leave_with(lab, "plain", &nodes(), "nothing selects them");
    for (pod, node) in lab.running("plain") {
        let own = only(if node == "node1" { "172.31.0.1" } else { "172.31.0.2" });
        lab.kubectl(&["label", "pod", "-n", "plain", &pod, "colour=blue"], "");
        leave_with(lab, &pod, &only(blue), "a pod's label selects it");
        lab.eventually("its neighbour leaves as before", || lab.seen("plain").len() == 2);
        lab.kubectl(&["label", "pod", "-n", "plain", &pod, "colour-"], "");
        leave_with(lab, &pod, &own, &format!("without the label it is let go on {node}"));
    }

    lab.kubectl(&["label", "namespace", "plain", "colour=blue"], "");
    leave_with(lab, "plain", &only(blue), "a namespace's label selects all its pods");
    let rules = |destination: &str| {
        let rule = format!(r#"{{"destination": {{"cidrs": ["{destination}"]}}, "gateway": {GATEWAY}}}"#);
        let patch = format!(r#"{{"spec": {{"rules": [{rule}]}}}}"#);
        lab.kubectl(&["patch", "egpol", "blue", "--type=merge", "-p", &patch], "");
    };
    rules("198.51.100.0/24");
    leave_with(lab, "plain", &nodes(), "the policy is about other destinations now");
    rules(&format!("{OUTSIDE}/32"));
    leave_with(lab, "plain", &only(blue), "and about this one again");
    lab.kubectl(&["label", "namespace", "plain", "colour-"], "");
    leave_with(lab, "plain", &nodes(), "without the namespace's label all are let go");
}

/// They replace its namespace's as a whole; and the pod says where it leaves.
fn follow_a_pods_own_annotations(lab: &Lab, red: &str, blue: &str) {
    let (pod, _) = lab.running("shop").into_iter().find(|(pod, _)| pod.starts_with("cart")).unwrap();
    let annotate = |words: [&str; 2]| {
        lab.kubectl(&[&["annotate", "pod", "-n", "shop", &pod][..], &words].concat(), "");
    };
    lab.eventually("what it leaves with is told before", || describes(lab, &pod, red, "gw/red-0"));
    annotate([
        "egret.dev/selector=app == 'blue'",
        "egret.dev/namespaceSelector=projectcalico.org/name == 'gw'",
    ]);
    leave_with(lab, &pod, &only(blue), "a pod's own annotations");
    let both = [red, blue].map(str::to_owned).into();
    lab.eventually("the others follow their namespace", || lab.seen("cart") == both);
    lab.eventually("and where it leaves now", || describes(lab, &pod, blue, "gw/blue"));
    annotate(["egret.dev/selector-", "egret.dev/namespaceSelector-"]);
    leave_with(lab, "cart", &only(red), "without them it follows its namespace");
}

/// `kubectl describe pod` has the annotation and the event.
fn describes(lab: &Lab, pod: &str, address: &str, gateway: &str) -> bool {
    let said = lab.kubectl(&["describe", "pod", "-n", "shop", pod], "");
    said.contains(&format!("egret.dev/egress-addresses: {address}\n"))
        && said.contains(&format!("leaves with {address} through {gateway}\n"))
}

fn follow_gateways_pools_and_ranges(lab: &Lab, red: &str) {
    let (pod, _) = lab.running("shop").into_iter().find(|(pod, _)| pod.starts_with("cart")).unwrap();
    let told = |word: &str| lab.kubectl(&["describe", "pod", "-n", "shop", &pod], "").contains(word);
    let label = |value: &str| lab.kubectl(&["label", "pod", "-n", "gw", "red-0", "--overwrite", value], "");
    label("app=other");
    is_held(lab, "cart", "plain", "a gateway that is nobody's by its labels: its clients are held");
    lab.eventually("people are told that, and why", || {
        told("egret.dev/egress-addresses: none") && told("EgressHeld")
    });
    label("app=gw");
    leave_with(lab, "cart", &only(red), "by its label it is their gateway again");

    let clients = |selector: &str| {
        let patch = format!(r#"{{"spec": {{"clientNamespaces": "{selector}"}}}}"#);
        lab.kubectl(&["patch", "epool", "red", "--type=merge", "-p", &patch], "");
    };
    clients("projectcalico.org/name == 'nobody'");
    is_held(lab, "cart", "plain", "a pool that is not for them any more");
    clients("all()");
    leave_with(lab, "cart", &only(red), "and is again");

    lab.kubectl(&["apply", "-f", "-"], RANGE);
    leave_with(lab, "cart", &nodes(), "what counts as inside is no gateway's affair");
    lab.kubectl(&["delete", "erange", "partner"], "");
    leave_with(lab, "cart", &only(red), "and outside again");
}

/// A node's InternalIP is another one: gateways there are reached by it, and clients there come from it. Later it is what it was.
fn follow_a_nodes_address(lab: &Lab, red: &str, blue: &str) {
    let (pod, _) = lab.running("plain").into_iter().find(|(_, node)| node == "node1").unwrap();
    lab.kubectl(&["label", "pod", "-n", "plain", &pod, "colour=blue"], "");
    leave_with(lab, &pod, &only(blue), "a client on the other node");
    let underlay = "jsonpath={.items[?(@.spec.node==\"node2\")].spec.underlay[0]}";
    let is = |address: &str| lab.kubectl(&["get", "eep", "-o", underlay], "") == address;
    let follows = |address: &str| {
        lab.eventually("its gateways say its address", || is(address));
        leave_with(lab, &pod, &only(blue), "clients elsewhere reach its gateway");
        leave_with(lab, "cart", &only(red), "and its own clients their gateway");
    };
    lab.on("node2", &["ip", "address", "add", "172.31.0.22/24", "dev", "eth0"]);
    // The kubelet would say at once what it was told at its start.
    lab.signal("node2", "kubelet", "-STOP");
    let now = r#"{"status": {"addresses": [{"type": "InternalIP", "address": "172.31.0.22"}]}}"#;
    lab.kubectl(&["patch", "node", "node2", "--subresource=status", "--type=merge", "-p", now], "");
    follows("172.31.0.22");
    lab.signal("node2", "kubelet", "-CONT");
    follows("172.31.0.2");
    lab.on("node2", &["ip", "address", "del", "172.31.0.22/24", "dev", "eth0"]);
    lab.kubectl(&["label", "pod", "-n", "plain", &pod, "colour-"], "");
}

/// As people wait for them.
fn everything_has_conditions(lab: &Lab) {
    lab.kubectl(&["apply", "-f", "-"], &RANGE.replace("203.0.113.0/24", "10.244.0.0/16"));
    for (kind, conditions) in [
        ("epool", ["Accepted", "Ready", "Protected"].as_slice()),
        ("egpol", &["Accepted", "Ready", "Protected"]),
        ("erange", &["Accepted", "AddressesInside"]),
        ("enode", &["AgentReady", "AddressesInside"]),
        ("eep", &["Ready"]),
    ] {
        for condition in conditions {
            let waits = format!("--for=condition={condition}");
            let said = lab.try_kubectl(&["wait", &waits, kind, "--all", "--timeout=300s"], "");
            assert!(
                said.as_ref().is_ok_and(|said| said.contains("condition met")),
                "{kind} {condition}: {said:?}"
            );
        }
    }
    lab.kubectl(&["delete", "erange", "partner"], "");
}

/// All verbs, as kubectl's plugin.
fn answers_for_people(lab: &Lab, red: &str) {
    let json = |arguments: &[&str]| -> Value {
        let said = lab.kubectl_egret(&[arguments, &["-o", "json"]].concat());
        serde_json::from_str(&said).unwrap_or_else(|error| panic!("{arguments:?}: {error}: {said}"))
    };
    let (pod, _) = lab.running("shop").into_iter().find(|(pod, _)| pod.starts_with("cart")).unwrap();
    let listed = json(&["list", "-n", "shop"]);
    let rows = listed["items"].as_array().unwrap();
    assert!(
        !rows.is_empty() && rows.iter().all(|row| row["pod"].as_str().unwrap().starts_with("shop/")),
        "{listed:#}"
    );
    assert_eq!(json(&["explain", "-n", "shop", &pod, OUTSIDE])["items"][0]["sources"][0], red);
    let status = json(&["status"]);
    assert_eq!(status["items"].as_array().unwrap().len(), 2, "{status:#}");
    assert_eq!(json(&["ipam", "show", "red"])["pools"][0]["leased"], 1);
    json(&["ipam", "check"]);
    json(&["lint"]);
}

/// Its node gets the taint, its pods are named by their policy and their pool; both end with its return.
fn an_agent_that_is_away_is_told_of(lab: &Lab, agents: &mut [Option<std::process::Child>; 2]) {
    lab.kubectl(&["label", "namespace", "plain", "colour=blue"], "");
    let named =
        |kind: &str| lab.kubectl(&["get", kind, "blue", "-o", "jsonpath={.status.unprotectedPods[*]}"], "");
    let taints = || lab.kubectl(&["get", "node", "node2", "-o", "jsonpath={.spec.taints[*].key}"], "");
    let here: Vec<String> =
        lab.running("plain").into_iter().filter(|(_, node)| node == "node2").map(|(pod, _)| pod).collect();
    lab.eventually("everybody is served", || {
        let pods = lab.kubectl(&["get", "egpol", "blue", "-o", "jsonpath={.status.pods}"], "");
        pods.parse().is_ok_and(|count: usize| count >= 2) && named("egpol").is_empty()
    });
    lab.kill_agent(2, agents[1].take().unwrap());
    lab.eventually("its node is tainted", || taints().contains("egret.dev/agent-away"));
    for kind in ["egpol", "epool"] {
        lab.eventually("its pods are named", || here.iter().all(|pod| named(kind).contains(pod)));
    }
    agents[1] = Some(lab.agent(2));
    lab.eventually("the taint goes", || !taints().contains("egret.dev/agent-away"));
    lab.eventually("nobody is named", || named("egpol").is_empty() && named("epool").is_empty());
}

const GATEWAY: &str =
    r#"{"selector": "app == 'blue'", "namespaceSelector": "projectcalico.org/name == 'gw'"}"#;

const RANGE: &str = "{apiVersion: egret.dev/v1alpha1, kind: EgressRange, metadata: {name: partner}, spec: {cidrs: [203.0.113.0/24]}}";

const BLUE: &str = r#"
apiVersion: egret.dev/v1alpha1
kind: EgressPool
metadata: {name: blue}
spec: {cidr: 172.31.0.144/31, gatewayNamespaces: "projectcalico.org/name == 'gw'", clientNamespaces: all(), cooldownSeconds: 1}
---
apiVersion: v1
kind: Pod
metadata: {name: blue, namespace: gw, labels: {app: blue}, annotations: {egret.dev/ipv4pools: '["blue"]'}}
spec:
  nodeName: node2
  terminationGracePeriodSeconds: 0
  containers: [{name: c, image: "lab.local/busybox:1", imagePullPolicy: Never, command: [sleep, "100000"]}]
---
apiVersion: egret.dev/v1alpha1
kind: EgressGatewayPolicy
metadata: {name: blue}
spec:
  selectors:
  - {selector: "colour == 'blue'", namespaceSelector: projectcalico.org/name == 'plain'}
  - {namespaceSelector: colour == 'blue'}
  rules: [{gateway: {selector: app == 'blue', namespaceSelector: projectcalico.org/name == 'gw'}}]
"#;
