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

    // Nobody waited for the API server, or once at most; and it was asked no more than once a pod for each thing.
    for node in [1, 2] {
        assert!(lab.page(node, "/readyz").starts_with("HTTP/1.1 200"), "{}", lab.page(node, "/readyz"));
        assert!(lab.page(node, "/healthz").ends_with("ok\n"));
        let adds = lab.counted(node, "egret_cni_requests_total", "verb=\"ADD\"");
        let by = |how: &str| lab.counted(node, "egret_cni_freshness_total", &format!("\"{how}\""));
        assert_eq!((by("memory"), by("none")), (0.0, 0.0), "{}", lab.page(node, "/metrics"));
        assert!(adds >= 3.0 && by("known") + by("answer") <= adds, "{}", lab.page(node, "/metrics"));
        for of in ["namespace", "policies"] {
            let reads = lab.counted(node, "egret_kube_fresh_reads_total", of);
            assert!(reads > 0.0 && reads <= adds, "{of}: {reads} of {adds}");
        }
        let page = lab.page(node, "/metrics");
        let said: Vec<&str> = page.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
        let documented = include_str!("../../docs/metrics.md").lines().filter_map(|line| {
            let mut words = line.strip_prefix("| `egret_")?.split("` | ").chain([""]);
            Some(format!("egret_{} {}", words.next()?, words.next()?.split(' ').next()?))
        });
        assert_eq!(said, documented.collect::<Vec<_>>(), "docs/metrics.md");
        println!("node{node}: {adds} ADDs, {} waited for no answer, {} for one", by("known"), by("answer"));
    }

    // An agent that was killed and started anew finds everything as it is, and so does its list of all objects.
    lab.kill_agent(1, agents[0].take().unwrap());
    agents[0] = Some(lab.agent(1));
    lab.eventually("an agent that was killed is ready again", || {
        lab.page(1, "/readyz").starts_with("HTTP/1.1 200")
            && lab.counted(1, "egret_watch_lists_total", "") >= 15.0
    });
    std::thread::sleep(Duration::from_secs(2)); // whatever it would do, it would do by now
    assert_eq!(lab.counted(1, "egret_reconcile_steps_total", ""), 0.0, "{}", lab.log_of_agent(1));

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
    a_gateway_follows_its_pod(&lab, &address);
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

/// A second gateway on the other node, whose pod becomes ready, unready, ready again, and ends slowly.
fn a_gateway_follows_its_pod(lab: &Lab, first: &str) {
    let state = || {
        let filter = "{range .items[*]}{.spec.pod} {.spec.state} {.spec.addresses[0].ip}{\"\\n\"}{end}";
        let all = lab.kubectl(&["get", "eep", "-o", &format!("jsonpath={filter}")], "");
        let row = all.lines().find(|row| row.starts_with("gw/two ")).unwrap_or_default().to_owned();
        row.split(' ').skip(1).map(str::to_owned).collect::<Vec<_>>()
    };
    let is = |word: &str| state().first().is_some_and(|found| found == word);
    let ready = |word: &str| {
        let patch = format!(
            "{{\"status\": {{\"conditions\": [{{\"type\": \"lab.local/ok\", \"status\": \"{word}\"}}]}}}}"
        );
        lab.kubectl(&["patch", "pod", "-n", "gw", "two", "--subresource=status", "-p", &patch], "");
    };
    lab.kubectl(&["apply", "-f", "-"], SECOND);
    lab.eventually("a gateway whose pod is not ready yet is starting", || is("starting"));
    let second = state()[1].clone();
    lab.forget();
    lab.eventually("it takes no flows", || lab.who("cart").len() == 6);
    assert_eq!(lab.seen("cart"), only(first));
    ready("True");
    lab.eventually("with its pod it becomes ready", || is("ready"));
    let both = BTreeSet::from([first.to_owned(), second.clone()]);
    lab.eventually("and takes flows", || lab.seen("cart") == both);
    ready("False");
    lab.eventually("with a pod that is not ready it drains", || is("draining"));
    let elsewhere = || {
        lab.forget();
        std::thread::sleep(Duration::from_secs(1));
        lab.who("cart").len() == 6 && lab.seen("cart") == only(first)
    };
    lab.eventually("new flows go elsewhere", elsewhere);
    ready("True");
    lab.eventually("ready again", || is("ready"));
    lab.kubectl(&["delete", "pod", "-n", "gw", "two", "--wait=false"], "");
    lab.eventually("it drains while its pod ends", || is("draining"));
    lab.eventually("and is gone with it", || state().is_empty());
    lab.eventually("the first serves all", elsewhere);
}

const SECOND: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: two, namespace: gw, labels: {app: gw}, annotations: {cni.projectcalico.org/ipv4pools: '["red"]'}}
spec:
  nodeName: node2
  terminationGracePeriodSeconds: 4
  readinessGates: [{conditionType: lab.local/ok}]
  containers: [{name: c, image: "lab.local/busybox:1", imagePullPolicy: Never, command: [sleep, "100000"]}]
"#;
