//! An address belongs to the pod that the plugin was last called for: not to one that has ended and still says it in its status, nor to one
//! that is about to go.

use serde_json::Value;

use crate::lab::{Lab, OUTSIDE, PORTS};
use crate::live::leave_with;
use crate::only;

/// The node where it happens: its primary gives addresses by `host-local`, and lets two pods have one for a moment.
const NODE: &str = "node1";
const LEASES: &str = "/var/lib/cni/networks/net";

pub(crate) fn belong_to_whoever_has_them_now(lab: &Lab, red: &str) {
    let node = only("172.31.0.1");
    // Selected, and ended: who gets its address at once is let out as its node.
    start(lab, "shop", "job", true);
    lab.eventually("a pod is selected, and heard", || lab.seen("job") == only(red));
    let address = ended(lab, "shop", "job");
    next_is(lab, &address);
    start(lab, "plain", "stranger", false);
    leave_with(
        lab,
        "stranger",
        &node,
        "whom nothing selects leaves as its node with the address of one that has ended",
    );
    // The kubelet says a pod's address when it has looked at the container; the pod itself is heard before.
    lab.eventually("its status says that address", || ip(lab, "plain", "stranger") == address);
    assert_eq!(ended(lab, "shop", "job"), address, "the first one's status still says it");
    lab.kubectl(&["delete", "pod", "-n", "shop", "job"], "");
    leave_with(lab, "stranger", &node, "also when that one's object goes");

    // The other way round, with both alive for a moment: the later has it, and keeps it.
    next_is(lab, &address);
    start(lab, "shop", "heir", false);
    lab.eventually("two pods have one address", || ip(lab, "shop", "heir") == address);
    lab.kubectl(&["delete", "pod", "-n", "plain", "stranger"], "");
    leave_with(lab, "heir", &only(red), "the later one is selected, and so are its packets");

    next_is(lab, &address);
    start(lab, "plain", "last", false);
    lab.eventually("two pods have one address again", || ip(lab, "plain", "last") == address);
    lab.kubectl(&["delete", "pod", "-n", "shop", "heir"], "");
    leave_with(lab, "last", &node, "the later one is not selected, and leaves as its node");
    lab.kubectl(&["delete", "pod", "-n", "plain", "last"], "");

    let warned = lab.kubectl(&["get", "events", "-A", "--field-selector=reason=EgressUnprotected"], "");
    assert_eq!(warned, "", "every one of them was wired, and those that ended are nobody's concern");
}

/// A pod that says its name outside: a few times and ends, or for ever.
fn start(lab: &Lab, namespace: &str, name: &str, ends: bool) {
    let port = PORTS[usize::from(namespace != "shop")];
    let call = format!("echo $HOSTNAME | nc -w 2 {OUTSIDE} {port}; sleep 0.2");
    let (policy, script) = match ends {
        true => ("Never", format!("for n in 1 2 3 4 5; do {call}; done")),
        false => ("Always", format!("while true; do {call}; done")),
    };
    let pod = serde_json::json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": namespace}, "spec": {
        "nodeName": NODE, "restartPolicy": policy, "terminationGracePeriodSeconds": 0,
        "containers": [{"name": "c", "image": "lab.local/busybox:1", "imagePullPolicy": "Never", "command": ["sh", "-c", script]}]}});
    lab.kubectl(&["create", "-f", "-"], &pod.to_string());
}

fn status(lab: &Lab, namespace: &str, name: &str) -> Value {
    let said = lab.kubectl(&["get", "pod", "-n", namespace, name, "-o", "json"], "");
    serde_json::from_str::<Value>(&said).unwrap()["status"].take()
}

fn ip(lab: &Lab, namespace: &str, name: &str) -> String {
    status(lab, namespace, name)["podIP"].as_str().unwrap_or_default().to_owned()
}

/// The address that a pod still says when it has ended.
fn ended(lab: &Lab, namespace: &str, name: &str) -> String {
    lab.eventually("it has ended", || status(lab, namespace, name)["phase"] == "Succeeded");
    ip(lab, namespace, name)
}

/// The primary gives this one to the next pod of the node, whoever has it.
fn next_is(lab: &Lab, address: &str) {
    let file = format!("{LEASES}/{address}");
    let (net, last) = address.rsplit_once('.').unwrap();
    let before = format!("{net}.{}", last.parse::<u8>().unwrap() - 1);
    let script = format!("rm -f {file}; printf %s {before} > {LEASES}/last_reserved_ip.0");
    lab.on(NODE, &["sh", "-c", &script]);
}
