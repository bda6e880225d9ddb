//! `deploy/` on a real node: a kubelet starts the image's agents, the plugin gets into the primary's list and stays there, a pod is
//! told what it leaves with, and nothing is left in the end.
#![allow(clippy::print_stdout, reason = "how long things take is worth a line")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic in a test is its report")]

mod lab;

use lab::Lab;

const NAMESPACES: &str = r#"
{apiVersion: v1, kind: Namespace, metadata: {name: gw}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: shop, annotations: {egret.dev/selector: app == 'gw', egret.dev/namespaceSelector: projectcalico.org/name == 'gw'}}}
"#;

const POOL: &str = r#"
apiVersion: egret.dev/v1alpha1
kind: EgressPool
metadata: {name: red}
spec: {cidr: 172.31.0.128/31, gatewayNamespaces: projectcalico.org/name == 'gw', clientNamespaces: all()}
"#;

fn pod(namespace: &str, name: &str, more: &str) -> String {
    format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}, namespace: {namespace}{more}}}, spec: {{terminationGracePeriodSeconds: 0,
          containers: [{{name: c, image: 'lab.local/busybox:1', imagePullPolicy: Never, command: [sleep, '100000']}}]}}}}"
    )
}

const GATEWAY: &str = r#", labels: {app: gw}, annotations: {egret.dev/ipv4pools: '["red"]'}"#;

#[test]
fn a_cluster_is_installed_told_of_and_left_as_it_was() {
    let lab = Lab::raise();
    let list = lab.on_node(&["cat", "/etc/cni/net.d/10-net.conflist"]);
    lab.kubectl(&["apply", "-f", "-"], NAMESPACES);
    lab.kubectl(&["apply", "-f", "-"], &pod("shop", "early", ""));
    lab.eventually("a pod starts before Egret is there", || lab.phase("shop", "early") == "Running");

    lab.install();
    lab.eventually("the definitions are there", || lab.try_kubectl(&["apply", "-f", "-"], POOL).is_ok());
    lab.eventually("the agent is ready", || lab.ready("egret-agent"));
    lab.eventually("the entry is in the list", || lab.entries() == 1);
    // The agent found its token where it looks for one; who writes the list has none.
    assert_eq!(lab.mounts("egret-agent", "plugin"), "config state cni-bin cni-conf");
    lab.kubectl(&["apply", "-f", "-"], &pod("gw", "one", GATEWAY));
    lab.kubectl(&["apply", "-f", "-"], &pod("shop", "cart", ""));
    lab.eventually("the pod's addresses are told", || lab.told("shop", "cart") == "172.31.0.128");
    lab.eventually("by an event, too", || {
        lab.events("shop", "cart").contains("EgressGateway leaves with 172.31.0.128 through gw/one")
    });
    lab.eventually("the early pod is told to start again", || {
        lab.events("shop", "early").contains("EgressUnprotected")
    });
    assert_eq!(lab.told("shop", "early"), "", "it leaves with no address of ours");
    let status = lab.on_node(&["/opt/cni/bin/egret", "status"]);
    assert!(status.contains("gw/one"), "{status}");

    // Another pod of the agent takes over while pods come.
    lab.kubectl(&["rollout", "restart", "-n", "egret-system", "daemonset/egret-agent"], "");
    lab.kubectl(&["apply", "-f", "-"], &pod("shop", "next", ""));
    let over = ["rollout", "status", "-n", "egret-system", "daemonset/egret-agent", "--timeout=200s"];
    lab.kubectl(&over, "");
    lab.eventually("whoever came meanwhile is served", || lab.told("shop", "next") == "172.31.0.128");
    assert_eq!((lab.entries(), lab.told("shop", "cart").as_str()), (1, "172.31.0.128"));

    // The primary starts anew and writes its list as it knows it.
    lab.write_list(&list);
    lab.eventually("the entry is back", || lab.entries() == 1);

    // No gateway is left: held, and said.
    lab.kubectl(&["delete", "pod", "-n", "gw", "one", "--force"], "");
    lab.eventually("a held pod is told so", || lab.told("shop", "cart") == "none");
    lab.eventually("by an event, too", || lab.events("shop", "cart").contains("EgressHeld"));

    lab.uninstall();
    assert_eq!(lab.entries(), 0);
    assert_eq!(lab.on_node(&["ls", "/opt/cni/bin/egret"]), "");
    let tables = lab.on_node(&["nft", "list", "tables"]);
    assert!(!tables.contains("egret"), "{tables}");
    let list: serde_json::Value = serde_json::from_str(&list).unwrap();
    let now = lab.on_node(&["cat", "/etc/cni/net.d/10-net.conflist"]);
    assert_eq!(serde_json::from_str::<serde_json::Value>(&now).unwrap(), list);
}
