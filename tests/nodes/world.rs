//! Manifests of the story.

use crate::lab::{OUTSIDE, PORTS};

/// Namespaces, one of them annotated; a pool; a gateway that keeps its address.
pub(crate) const WORLD: &str = r#"
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
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: red, namespace: gw}
spec:
  serviceName: red
  selector: {matchLabels: {app: gw}}
  template:
    metadata: {labels: {app: gw}, annotations: {cni.projectcalico.org/ipv4pools: '["red"]'}}
    spec:
      nodeSelector: {kubernetes.io/hostname: node1}
      terminationGracePeriodSeconds: 0
      containers: [{name: c, image: "lab.local/busybox:1", imagePullPolicy: Never, command: [sleep, "100000"]}]
"#;

/// A Deployment whose pods say their names outside, five times a second and from the first moment. Not for longer than 5 s: `nc` waits for
/// ever for an answer on a flow that ended while it was on its way, because who only waits sends nothing that could be refused.
pub(crate) fn callers(namespace: &str, name: &str, replicas: u8) -> String {
    let port = PORTS[usize::from(namespace != "shop")];
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
      - maxSkew: 1
        topologyKey: kubernetes.io/hostname
        whenUnsatisfiable: DoNotSchedule
        nodeTaintsPolicy: Honor
        labelSelector: {{matchLabels: {{app: {name}}}}}
      containers:
      - name: c
        image: lab.local/busybox:1
        imagePullPolicy: Never
        command: [sh, -c, 'while true; do echo $HOSTNAME | timeout 5 nc -w 2 {OUTSIDE} {port}; sleep 0.2; done']
"#
    )
}

/// A namespace, and a pod whose init container is the first that says anything; one on each node.
pub(crate) const BEFORE: &str = r#"
apiVersion: v1
kind: Namespace
metadata:
  name: before
  annotations:
    egress.projectcalico.org/selector: app == 'gw'
    egress.projectcalico.org/namespaceSelector: projectcalico.org/name == 'gw'
---
apiVersion: v1
kind: Pod
metadata: {name: early-1, namespace: before}
spec:
  nodeName: node1
  terminationGracePeriodSeconds: 0
  initContainers: [{name: i, image: "lab.local/busybox:1", imagePullPolicy: Never, command: [sh, -c, 'until echo early-1 | timeout 5 nc -w 2 203.0.113.10 8080; do true; done']}]
  containers: [{name: c, image: "lab.local/busybox:1", imagePullPolicy: Never, command: [sleep, "100000"]}]
---
apiVersion: v1
kind: Pod
metadata: {name: early-2, namespace: before}
spec:
  nodeName: node2
  terminationGracePeriodSeconds: 0
  initContainers: [{name: i, image: "lab.local/busybox:1", imagePullPolicy: Never, command: [sh, -c, 'until echo early-2 | timeout 5 nc -w 2 203.0.113.10 8080; do true; done']}]
  containers: [{name: c, image: "lab.local/busybox:1", imagePullPolicy: Never, command: [sleep, "100000"]}]
"#;

/// Servers on node 2 that say whom they see: one that nothing selects, and one that is selected; behind Services. And a pod on its node's
/// own network in a selected namespace.
pub(crate) fn services() -> String {
    let port = PORTS[1];
    let server = |namespace: &str, name: &str| {
        format!(
            r#"
---
apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: {namespace}, labels: {{app: {name}}}}}
spec:
  nodeName: node2
  terminationGracePeriodSeconds: 0
  containers:
  - name: c
    image: lab.local/busybox:1
    imagePullPolicy: Never
    command:
    - sh
    - -c
    - |
      mkdir -p /tmp/www/cgi-bin && cd /tmp/www/cgi-bin
      printf '#!/bin/sh\nprintf "Content-Type: text/plain\\r\\n\\r\\n"\necho "you are $REMOTE_ADDR"\n' > who
      chmod +x who && exec httpd -f -p 8000 -h /tmp/www
"#
        )
    };
    format!(
        r#"{}{}
---
apiVersion: v1
kind: Service
metadata: {{name: inside, namespace: plain}}
spec: {{clusterIP: 10.96.7.7, selector: {{app: inside}}, ports: [{{port: 80, targetPort: 8000}}]}}
---
apiVersion: v1
kind: Service
metadata: {{name: front, namespace: shop}}
spec: {{type: NodePort, selector: {{app: front}}, ports: [{{port: 80, targetPort: 8000, nodePort: 30080}}]}}
---
apiVersion: v1
kind: Service
metadata: {{name: front-local, namespace: shop}}
spec: {{type: NodePort, externalTrafficPolicy: Local, selector: {{app: front}}, ports: [{{port: 80, targetPort: 8000, nodePort: 30081}}]}}
---
apiVersion: v1
kind: Pod
metadata: {{name: host, namespace: shop}}
spec:
  nodeName: node1
  hostNetwork: true
  terminationGracePeriodSeconds: 0
  containers:
  - name: c
    image: lab.local/busybox:1
    imagePullPolicy: Never
    command: [sh, -c, 'while true; do echo host | timeout 5 nc -w 2 {OUTSIDE} {port}; sleep 0.2; done']
"#,
        server("plain", "inside"),
        server("shop", "front")
    )
}
