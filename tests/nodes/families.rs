//! A cluster whose nodes, pods and services have both families: each leaves with its own lease, and the API's objects hold both.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::lab::{Lab, OUTSIDE};
use crate::world::callers;
use crate::{only, predicted};

/// The outside in IPv6.
const OUTSIDE_TOO: &str = "2001:db8:113::10";

#[test]
fn in_a_cluster_of_both_families_each_leaves_with_its_own_lease() {
    let lab = Lab::raise("families", "nftables,iptables", "dual");
    lab.witness_too(OUTSIDE_TOO);
    let mut agents = [1, 2].map(|node| Some(lab.agent(node)));
    let controller = lab.controller();
    lab.kubectl(&["apply", "-f", "-"], WORLD);
    for namespace in ["shop", "plain"] {
        let four = callers(namespace, &format!("{}four", &namespace[..1]), 2);
        let six = callers(namespace, &format!("{}six", &namespace[..1]), 2).replace(OUTSIDE, OUTSIDE_TOO);
        lab.kubectl(&["apply", "-f", "-"], &four);
        lab.kubectl(&["apply", "-f", "-"], &six);
    }
    let heard = || ["sfour", "ssix", "pfour", "psix"].map(|prefix| lab.who(prefix).len()) == [2; 4];
    lab.eventually("all are heard, in both families", heard);
    let both = leases(&lab);
    let [four, six] = &both;
    println!("leases: {four} {six}");
    let nodes = ["fd00:31::1", "fd00:31::2"].map(str::to_owned).into();
    assert_eq!(lab.seen("psix"), nodes, "whom nothing selects leaves as its node");
    holds(&lab, &both);
    for (pod, node) in lab.running("shop") {
        assert_eq!(predicted(&lab, &node, &format!("shop/{pod}")), only(four));
    }
    // Another agent, another pod of the gateway, another node of it.
    lab.kill_agent(1, agents[0].take().unwrap());
    agents[0] = Some(lab.agent(1));
    holds(&lab, &both);
    lab.kubectl(&["delete", "pod", "-n", "gw", "red-0"], "");
    lab.eventually("the gateway keeps both addresses", || leases(&lab) == both);
    holds(&lab, &both);
    let to = r#"{"spec": {"template": {"spec": {"nodeSelector": {"kubernetes.io/hostname": "node2"}}}}}"#;
    lab.kubectl(&["patch", "statefulset", "-n", "gw", "red", "-p", to], "");
    let node = || lab.kubectl(&["get", "eep", "-o", "jsonpath={.items[*].spec.node}"], "");
    lab.eventually("on the other node, too", || node() == "node2" && leases(&lab) == both);
    holds(&lab, &both);
    // Without one both are held.
    lab.kubectl(&["scale", "statefulset", "-n", "gw", "red", "--replicas=0"], "");
    lab.hears(Duration::from_secs(1), "without a gateway both are held", || {
        lab.packets() == 0 && lab.who("psix").len() == 2
    });
    println!("{}", lab.kubectl_egret(&["ipam", "check"]));
    lab.kubectl(&["wait", "--for=condition=AddressesInside", "enode", "--all", "--timeout=300s"], "");
    drop(controller);
}

/// The gateway's address in each family; empty while it has none.
fn leases(lab: &Lab) -> [String; 2] {
    let said = lab.kubectl(&["get", "eep", "-o", "jsonpath={.items[*].spec.addresses[*].ip}"], "");
    let of = |six: bool| said.split(' ').find(|ip| ip.contains(':') == six).unwrap_or_default().to_owned();
    [of(false), of(true)]
}

/// From here on, and at no moment anything else.
#[track_caller]
fn holds(lab: &Lab, [four, six]: &[String; 2]) {
    for what in ["each family leaves with its lease", "and on"] {
        lab.eventually(what, || lab.who("sfour").len() == 2 && lab.who("ssix").len() == 2);
        assert_eq!((lab.seen("sfour"), lab.seen("ssix")), (only(four), only(six)));
        assert!(lab.sources().is_subset(&BTreeSet::from([four.clone(), six.clone()])), "{:?}", lab.sources());
        lab.forget();
    }
}

const WORLD: &str = r#"
{apiVersion: v1, kind: Namespace, metadata: {name: gw}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: plain}}
---
apiVersion: v1
kind: Namespace
metadata:
  name: shop
  annotations:
    egress.projectcalico.org/selector: app == 'gw'
    egress.projectcalico.org/namespaceSelector: projectcalico.org/name == 'gw'
---
apiVersion: egret.dev/v1alpha1
kind: EgressRange
metadata: {name: pods}
spec: {cidrs: [10.244.0.0/16, "fd00:244::/32"]}
---
apiVersion: egret.dev/v1alpha1
kind: EgressPool
metadata: {name: red}
spec: {cidr: 172.31.0.128/28, gatewayNamespaces: "projectcalico.org/name == 'gw'", clientNamespaces: all(), cooldownSeconds: 1}
---
apiVersion: egret.dev/v1alpha1
kind: EgressPool
metadata: {name: red6}
spec: {cidr: "fd00:31::1000/124", gatewayNamespaces: "projectcalico.org/name == 'gw'", clientNamespaces: all(), cooldownSeconds: 1}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: red, namespace: gw}
spec:
  serviceName: red
  selector: {matchLabels: {app: gw}}
  template:
    metadata: {labels: {app: gw}, annotations: {egret.dev/ipv4pools: '["red"]', egret.dev/ipv6pools: '["red6"]'}}
    spec:
      nodeSelector: {kubernetes.io/hostname: node1}
      terminationGracePeriodSeconds: 0
      containers: [{name: c, image: "lab.local/busybox:1", imagePullPolicy: Never, command: [sleep, "100000"]}]
"#;
