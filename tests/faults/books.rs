//! The judgement after every fault: nothing lost, nothing doubled, nothing leaked. And the verbs that stories interrupt.
//!
//! In: a lab and the pods that live. Out: nothing, or a panic that shows what is wrong with which node.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use egret::testbed::{NETWORK, Pod, RUN_DIR};
use serde_json::{Value, json};

use crate::lab::Lab;

/// A pool of sixteen addresses per family would cool down in a story of a hundred gateways.
pub(crate) fn without_cooldown(lab: &Lab) {
    for (name, cidr) in crate::lab::POOLS {
        lab.object(&format!(
            "apiVersion: egret.dev/v1alpha1\nkind: EgressPool\nmetadata: {{name: {name}}}\n\
             spec: {{cidr: '{cidr}', gatewayNamespaces: all(), clientNamespaces: all(), cooldownSeconds: 0}}\n"
        ))
        .unwrap();
    }
}

/// The world is as it would be if nothing had gone wrong: `live` pods, and nothing of any other.
#[track_caller]
pub(crate) fn assert_in_order(lab: &Lab, live: &[&Pod], story: &str) {
    for node in lab.topology().node_numbers() {
        let report = lab.json(node, &["reconcile", "--dry-run"]);
        for item in report["items"].as_array().unwrap() {
            let steps = [&item["pending"], &item["failed"]].map(|list| list.as_array().unwrap().len());
            assert_eq!(steps, [0, 0], "{story}: node{node} is not as planned: {item:#}");
        }
        let check = lab.json(node, &["ipam", "check", "--grace", "0"]);
        assert_eq!(check["problems"], json!([]), "{story}: node{node}: ipam check");
        let here = live.iter().filter(|pod| pod.node == node).map(|pod| container(lab, pod));
        assert_eq!(records(node), here.collect(), "{story}: attachment records of node{node}");
    }
    let gateways: BTreeSet<String> =
        live.iter().filter(|p| p.name.namespace == "gw").map(|p| container(lab, p)).collect();
    let mut held: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut addresses = BTreeSet::new();
    for lease in lab.json(1, &["ipam", "show"])["items"].as_array().unwrap() {
        let address = lease["address"].as_str().unwrap().to_owned();
        assert!(addresses.insert(address.clone()), "{story}: {address} is there twice");
        if let Some(holder) = lease["holder"]["container"].as_str() {
            held.entry(holder.to_owned()).or_default().insert(address);
        }
    }
    let holders: BTreeSet<String> = held.keys().cloned().collect();
    assert_eq!(holders, gateways, "{story}: who holds leases");
    let families = lab.topology().families.list().len();
    assert!(held.values().all(|own| own.len() == families), "{story}: {held:?}");
    let published: BTreeMap<String, BTreeSet<String>> = endpoints();
    assert_eq!(published, held, "{story}: endpoints and what is leased to them");
}

/// Addresses by container, of every endpoint that is published.
fn endpoints() -> BTreeMap<String, BTreeSet<String>> {
    let dir = egret::store::Dir::at(Path::new(egret::testbed::STATE_DIR)).unwrap();
    let (endpoints, problems) = egret::store::endpoints::list(&dir).unwrap();
    assert_eq!(problems, []);
    let container = |attachment: &str| attachment.split('/').nth(1).unwrap().to_owned();
    endpoints
        .iter()
        .map(|e| (container(&e.attachment), e.addresses.iter().map(|a| a.ip.to_string()).collect()))
        .collect()
}

/// Containers that a node has records of.
pub(crate) fn records(node: u8) -> BTreeSet<String> {
    let folder = Path::new(RUN_DIR).join(format!("node{node}/attachments")).join(NETWORK);
    let names = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let names = names.map(|entry| entry.file_name().to_string_lossy().into_owned());
    names
        .filter_map(|name| Some(name.split_once(':')?.0.to_owned()))
        .filter(|name| !name.starts_with('.'))
        .collect()
}

/// The container id that cnitool gives a pod, also when its namespace is gone.
pub(crate) fn container(lab: &Lab, pod: &Pod) -> String {
    let path = pod.place().path();
    let sum = lab.router().feed("sha512sum", &["-"], &path.to_string_lossy()).unwrap();
    format!("cnitool-{}", &sum[..20])
}

/// The plugin's verb GC on a node, as libcni 1.3 would call it: `None` leaves the list of valid attachments out.
pub(crate) fn gc_command(lab: &Lab, node: u8, valid: Option<&[&Pod]>) -> (Command, PathBuf) {
    let mut config = egret_config(lab, node);
    config["cniVersion"] = "1.1.0".into();
    if let Some(valid) = valid {
        let valid = valid.iter().map(|pod| json!({"containerID": container(lab, pod), "ifname": "eth0"}));
        config["cni.dev/valid-attachments"] = valid.collect();
    }
    let stdin = Path::new("/run").join(format!("gc-{node}.json"));
    std::fs::write(&stdin, config.to_string()).unwrap();
    let mut command = lab.node(node).command(env!("CARGO_BIN_EXE_egret")).unwrap();
    command.env("CNI_COMMAND", "GC").stdin(std::fs::File::open(&stdin).unwrap());
    (command, stdin)
}

/// GC, which must succeed.
#[track_caller]
pub(crate) fn gc(lab: &Lab, node: u8, valid: Option<&[&Pod]>) {
    let output = gc_command(lab, node, valid).0.output().unwrap();
    assert!(output.status.success(), "GC on node{node}: {}", said(&output));
}

/// Egret's entry of a node's list, with the list's name.
pub(crate) fn egret_config(lab: &Lab, node: u8) -> Value {
    let list: Value =
        serde_json::from_str(&std::fs::read_to_string(lab.conflist_path(node)).unwrap()).unwrap();
    let plugins = list["plugins"].as_array().unwrap();
    let mut config = plugins.iter().find(|p| p["type"] == "egret").unwrap().clone();
    config["name"] = list["name"].clone();
    config
}

/// `egret reconcile` on a node.
pub(crate) fn reconcile_command(lab: &Lab, node: u8) -> Command {
    let mut command = lab.node(node).command(env!("CARGO_BIN_EXE_egret")).unwrap();
    command.args(["reconcile", "--config"]).arg(lab.conflist_path(node));
    command
}

/// Everything a process said.
pub(crate) fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[output.stdout.as_slice(), &output.stderr].concat()).trim().to_owned()
}

/// Whether it, or the plugin that it called, was killed. One that is killed between its answer and its end has libcni read the
/// answer as an error, with no words in it.
pub(crate) fn was_killed(output: &Output) -> bool {
    let said = said(output);
    let wordless =
        ["failed (add):", "failed (delete):", "failed (del):"].iter().any(|end| said.ends_with(end));
    output.status.signal() == Some(9) || said.contains("signal: killed") || wordless
}
