//! Real kubelets start real pods, containerd calls the plugin, the plugin asks the agent, and the outside says whom it saw.
//!
//! `scripts/cluster` raises etcd, the API server, controllers, and two nodes with containerd, kubelet and kube-proxy.
#![allow(clippy::print_stdout, reason = "how long things take is worth a line")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic in a test is its report")]

mod lab;

use std::collections::BTreeSet;
use std::time::Duration;

use lab::{Lab, OUTSIDE};
use serde_json::Value;

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
kind: EgressPool
metadata: {name: red}
spec: {cidr: 172.31.0.128/28, gatewayNamespaces: "projectcalico.org/name == 'gw'", clientNamespaces: all(), cooldownSeconds: 1}
---
apiVersion: v1
kind: Pod
metadata: {name: one, namespace: gw, labels: {app: gw}, annotations: {cni.projectcalico.org/ipv4pools: '["red"]'}}
spec:
  nodeName: node1
  terminationGracePeriodSeconds: 0
  containers: [{name: c, image: "lab.local/busybox:1", imagePullPolicy: Never, command: [sleep, "100000"]}]
"#;

/// A Deployment whose pods say their names outside, five times a second and from the first moment.
fn callers(namespace: &str, name: &str, replicas: u8) -> String {
    format!(
        r#"
apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}, namespace: {namespace}}}
spec:
  replicas: {replicas}
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata: {{labels: {{app: {name}}}}}
    spec:
      terminationGracePeriodSeconds: 0
      topologySpreadConstraints:
      - {{maxSkew: 1, topologyKey: kubernetes.io/hostname, whenUnsatisfiable: DoNotSchedule, labelSelector: {{matchLabels: {{app: {name}}}}}}}
      containers:
      - name: c
        image: lab.local/busybox:1
        imagePullPolicy: Never
        command: [sh, -c, 'while true; do echo $HOSTNAME | nc -w 2 {OUTSIDE} 8080; sleep 0.2; done']
"#
    )
}

fn only(address: &str) -> BTreeSet<String> {
    BTreeSet::from([address.to_owned()])
}

/// What a node's own `egret explain` says that the outside will see.
fn predicted(lab: &Lab, node: &str, pod: &str) -> BTreeSet<String> {
    let config = "/etc/cni/net.d/10-net.conflist";
    let egret = ["/opt/cni/bin/egret", "explain", "--config", config, "-o", "json", pod, OUTSIDE];
    let said: Value = serde_json::from_str(&lab.on(node, &egret)).unwrap_or_default();
    serde_json::from_value(said["items"][0]["sources"].clone()).unwrap_or_default()
}

fn lease(lab: &Lab) -> String {
    lab.kubectl(&["get", "eep", "-o", "jsonpath={.items[*].spec.addresses[0].ip}"], "")
}

#[test]
fn a_deployment_annotated_by_its_namespace_leaves_with_its_gateways_address_whatever_is_away() {
    let lab = Lab::raise();
    let mut agents = [1, 2].map(|node| Some(lab.agent(node)));
    lab.kubectl(&["apply", "-f", "-"], WORLD);
    lab.kubectl(&["apply", "-f", "-"], &callers("shop", "cart", 4));
    lab.kubectl(&["apply", "-f", "-"], &callers("plain", "plain", 2));
    lab.eventually("all clients are heard", || lab.who("cart").len() == 4);
    lab.eventually("and those whom nothing selects", || lab.who("plain").len() == 2);
    let address = lease(&lab);
    assert_eq!(lab.seen("cart"), only(&address), "from the first packet on");
    assert_eq!(lab.seen("plain"), ["172.31.0.1", "172.31.0.2"].map(str::to_owned).into());
    for (pod, node) in lab.running("shop") {
        assert_eq!(predicted(&lab, &node, &format!("shop/{pod}")), only(&address));
    }

    // Without an agent.
    lab.kill_agent(2, agents[1].take().unwrap());
    lab.forget();
    lab.kubectl(&["scale", "deployment", "-n", "shop", "cart", "--replicas=6"], "");
    lab.kubectl(&["scale", "deployment", "-n", "plain", "plain", "--replicas=4"], "");
    lab.eventually("whom nothing selects starts without an agent", || lab.who("plain").len() == 4);
    lab.eventually("a client of the other node starts", || lab.who("cart").len() == 5);
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(
        (lab.who("cart").len(), lab.seen("cart")),
        (5, only(&address)),
        "the sixth waits, the others go on"
    );
    let ready = lab.kubectl(&["get", "nodes", "--no-headers"], "");
    assert_eq!(ready.matches(" Ready ").count(), 2, "{ready}");

    // And without the API server: what is known on disk is enough to keep the node true.
    lab.api_server(true);
    agents[1] = Some(lab.agent(2));
    lab.eventually("an agent starts without the API server", || {
        lab.log_of_agent(2).contains("cannot follow objects") && lab.state_of_agent(2)["health"] == "well"
    });
    lab.on("node2", &["nft", "delete", "table", "inet", "egret"]);
    lab.eventually("and repairs", || {
        lab.on("node2", &["nft", "list", "table", "inet", "egret"]).contains("chain")
    });
    lab.forget();
    lab.eventually("clients go on", || lab.who("cart").len() == 5);
    assert_eq!(lab.seen("cart"), only(&address));
    lab.api_server(false);
    lab.eventually("with the API server back the sixth starts", || lab.who("cart").len() == 6);
    assert_eq!(lab.seen("cart"), only(&address));

    // Live: the namespace, and the gateway.
    let annotate = |selector: &str, namespaces: &str| {
        let words = [
            format!("egress.projectcalico.org/selector{selector}"),
            format!("egress.projectcalico.org/namespaceSelector{namespaces}"),
        ];
        lab.kubectl(&["annotate", "namespace", "shop", "--overwrite", &words[0], &words[1]], "");
    };
    annotate("-", "-");
    lab.eventually("clients are let go", || {
        lab.forget();
        std::thread::sleep(Duration::from_secs(1));
        lab.who("cart").len() == 6 && !lab.seen("cart").contains(&address)
    });
    annotate("=app == 'gw'", "=projectcalico.org/name == 'gw'");
    lab.eventually("and taken in again", || {
        lab.forget();
        std::thread::sleep(Duration::from_secs(1));
        lab.who("cart").len() == 6 && lab.seen("cart") == only(&address)
    });
    lab.forget();
    lab.kubectl(&["delete", "pod", "-n", "gw", "one"], "");
    lab.eventually("its endpoint goes with the gateway", || lease(&lab).is_empty());
    std::thread::sleep(Duration::from_secs(1));
    lab.forget();
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(lab.who("cart"), BTreeSet::new(), "held, not let out");
    lab.kubectl(&["apply", "-f", "-"], WORLD);
    lab.eventually("the next gateway serves", || lab.who("cart").len() == 6);
    assert_eq!(lab.seen("cart"), only(&lease(&lab)));
}
