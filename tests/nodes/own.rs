//! A pool with `source: PodAddress`: clients on both nodes leave with the address that the gateway's pod has of its primary, which routes the
//! answers.

use crate::lab::Lab;
use crate::live::{leave_with, nodes};
use crate::only;

pub(crate) fn addresses_of_gateways_are_what_clients_leave_with(lab: &Lab) {
    lab.kubectl(&["apply", "-f", "-"], OWN);
    let endpoint = |field: &str| {
        let filter = format!("jsonpath={{.items[?(@.spec.pod==\"gw/own\")].spec.{field}}}");
        lab.kubectl(&["get", "eep", "-o", &filter], "")
    };
    lab.eventually("a gateway with its own address serves", || endpoint("state") == "ready");
    let own = lab.kubectl(&["get", "pod", "-n", "gw", "own", "-o", "jsonpath={.status.podIP}"], "");
    assert_eq!(endpoint("addresses[0].ip"), own);
    let annotate = |words: [&str; 2]| {
        for (pod, _) in lab.running("plain") {
            lab.kubectl(&[&["annotate", "pod", "-n", "plain", &pod][..], &words].concat(), "");
        }
    };
    annotate([
        "egret.dev/selector=app == 'own'",
        "egret.dev/namespaceSelector=projectcalico.org/name == 'gw'",
    ]);
    leave_with(lab, "plain", &only(&own), "clients of both nodes leave with the gateway's own address");
    let pools = lab.kubectl(&["get", "egressblocks", "-o", "jsonpath={.items[*].spec.pool}"], "");
    assert!(!pools.split(' ').any(|pool| pool == "own"), "nothing is leased: {pools}");
    annotate(["egret.dev/selector-", "egret.dev/namespaceSelector-"]);
    leave_with(lab, "plain", &nodes(), "and let go they leave as before");
    lab.kubectl(&["delete", "pod", "-n", "gw", "own"], "");
    lab.kubectl(&["delete", "epool", "own"], "");
}

const OWN: &str = r#"
apiVersion: egret.dev/v1alpha1
kind: EgressPool
metadata: {name: own}
spec: {cidr: 10.244.0.0/16, source: PodAddress, gatewayNamespaces: "projectcalico.org/name == 'gw'", clientNamespaces: all()}
---
apiVersion: v1
kind: Pod
metadata: {name: own, namespace: gw, labels: {app: own}, annotations: {egret.dev/ipv4pools: '["own"]'}}
spec:
  nodeName: node1
  terminationGracePeriodSeconds: 0
  containers: [{name: c, image: "lab.local/busybox:1", imagePullPolicy: Never, command: [sleep, "100000"]}]
"#;
