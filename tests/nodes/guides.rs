//! Calico's and Cilium's own examples, applied as their guides say on a cluster that has neither: what they promise is what the outside sees.
//! Only addresses are others: those of this network.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use egret::testbed::repository;

use crate::lab::{Lab, OUTSIDE, egret};
use crate::live::leave_with;
use crate::world::callers;
use crate::{only, predicted, scale};

/// Calico's pool of egress addresses, and Cilium's egress address.
const POOL: [&str; 2] = ["172.31.0.160", "172.31.0.161"];
const EDGE: &str = "172.31.0.103";

#[test]
fn what_the_guides_of_calico_and_cilium_show_is_done() {
    let lab = Lab::adopting("guides", "iptables", "bridge", &["calico", "cilium"]);
    let _agents = [1, 2].map(|node| lab.agent(node));
    lab.kubectl(&["apply", "-f", "-"], &callers("default", "plain", 2));
    lab.eventually("pods start before there is any of this", || lab.who("plain").len() == 2);
    // Their definitions come when the agents are there already.
    lab.kubectl(&["apply", "--server-side", "-f", "-"], &egret(&["crds", "--foreign"]));
    lab.kubectl(&["wait", "--for=condition=Established", "crd", "--all", "--timeout=120s"], "");
    calicos(&lab);
    ciliums(&lab);
}

/// The documents of an example, but for what the server fills in and kinds that nobody has.
fn example(file: &str, without: &[&str]) -> String {
    let text = std::fs::read_to_string(repository().join("examples").join(file)).unwrap();
    let text = text.replace("crd.projectcalico.org/v1", "projectcalico.org/v3");
    let is_wanted =
        |document: &&str| !without.iter().any(|kind| document.contains(&format!("kind: {kind}\n")));
    let text = text.split("\n---").filter(is_wanted).collect::<Vec<_>>().join("\n---");
    let is_the_servers = |line: &&str| {
        ["uid:", "resourceVersion:", "creationTimestamp:", "generation:"]
            .iter()
            .any(|key| line.trim_start().starts_with(key))
    };
    text.lines().filter(|line| !is_the_servers(line)).map(|line| format!("{line}\n")).collect()
}

fn calicos(lab: &Lab) {
    let apply = |text: &str| lab.kubectl(&["apply", "-f", "-"], text);
    apply(&example("calico-guide/pools.yaml", &[]).replace("10.10.10.0/30", "172.31.0.160/31"));
    let gateways = example("calico-guide/gateways.yaml", &["EgressGateway", "Namespace"]);
    let ours = "image: \"lab.local/busybox:1\", imagePullPolicy: Never, command: [sleep, \"100000\"]";
    apply(&gateways.replace("image: registry.k8s.io/pause:3.10", ours));
    apply(&example("calico-guide/clients.yaml", &["FelixConfiguration", "Pod"]));
    apply(&callers("shop", "cart", 4));
    apply(&callers("bank", "teller", 2));
    let pool: BTreeSet<String> = POOL.map(str::to_owned).into();
    lab.eventually("all are heard", || lab.who("cart").len() == 4 && lab.who("teller").len() == 2);
    // `maxNextHops: 1`: one gateway for each pod, whatever it opens. The other pods share both.
    leave_with(lab, "teller", &pool, "a policy's clients leave by both gateways");
    let mut used = BTreeSet::new();
    for (pod, node) in lab.running("shop") {
        let seen = lab.seen(&pod);
        assert!(seen.len() == 1 && seen.is_subset(&pool), "{pod}: {seen:?}");
        assert_eq!(seen, predicted(lab, &node, &format!("shop/{pod}")));
        used.extend(seen);
    }
    println!("maxNextHops 1: {used:?}");
    lab.shows_only_pool(&pool);

    // One gateway less: whom it served goes to the other. None: nobody leaves.
    scale(lab, "default", "red", 1);
    let left = || lab.kubectl(&["get", "eep", "-o", "jsonpath={.items[*].spec.addresses[0].ip}"], "");
    lab.eventually("one gateway is left", || POOL.contains(&left().as_str()));
    let last = left();
    leave_with(lab, "cart", &only(&last), "all leave by the one that is left");
    scale(lab, "default", "red", 0);
    lab.hears(Duration::from_secs(1), "without any they are held", || {
        lab.seen("cart").is_empty() && lab.seen("teller").is_empty() && lab.seen("plain").len() == 2
    });
    scale(lab, "default", "red", 2);
    leave_with(lab, "teller", &pool, "both serve again");
    lab.kubectl(&["delete", "namespace", "shop", "bank", "--wait=false"], "");
}

/// The sample of Cilium's documents, for two pods that run.
fn ciliums(lab: &Lab) {
    let pods: BTreeMap<String, String> =
        lab.running("default").into_iter().filter(|(pod, _)| pod.starts_with("plain")).collect();
    let own: BTreeSet<String> = ["172.31.0.1", "172.31.0.2"].map(str::to_owned).into();
    leave_with(lab, "plain", &own, "nothing selects them yet");
    lab.on("node2", &["ip", "address", "add", &format!("{EDGE}/24"), "dev", "eth0"]);
    lab.kubectl(&["label", "node", "node2", "node.kubernetes.io/name=a-specific-node"], "");
    let sample = example("policies/cilium-sample.yaml", &[]).replace("10.168.60.100", EDGE);
    lab.kubectl(&["apply", "-f", "-"], &sample);
    for pod in pods.keys() {
        lab.kubectl(&["label", "pod", "-n", "default", pod, "org=empire", "class=mediabot"], "");
    }
    leave_with(lab, "plain", &only(EDGE), "its pods leave with the policy's address");
    for (pod, node) in &pods {
        assert_eq!(predicted(lab, node, &format!("default/{pod}")), only(EDGE));
    }
    let excluded = |cidr: &str| {
        let patch = format!(r#"{{"spec": {{"excludedCIDRs": ["{cidr}"]}}}}"#);
        lab.kubectl(
            &["patch", "ciliumegressgatewaypolicy", "egress-sample", "--type=merge", "-p", &patch],
            "",
        );
    };
    excluded(&format!("{OUTSIDE}/32"));
    leave_with(lab, "plain", &own, "what is excluded goes as before");
    excluded("192.0.2.0/24");
    leave_with(lab, "plain", &only(EDGE), "and what is not goes by the gateway");
    lab.kubectl(&["label", "node", "node2", "node.kubernetes.io/name-"], "");
    lab.hears(Duration::from_secs(1), "no node matches: dropped, not let out", || {
        lab.seen("plain").is_empty()
    });
    lab.kubectl(&["delete", "ciliumegressgatewaypolicy", "egress-sample"], "");
    leave_with(lab, "plain", &own, "without the policy they are let go");
}
