//! What users write, and what they are told. Each story is a file; the sentences are compared whole.

mod definitions;
mod findings;
mod policies;
mod schemas;

use super::*;
use crate::egress::model::{Announce, PoolKind, PoolSource};

/// `file: object: field: message`, one per line.
fn told(text: &str) -> Vec<String> {
    read("x.yaml", text.as_bytes()).problems.iter().map(|p| p.to_string().replace("x.yaml: ", "")).collect()
}

/// `Kind name`, with `!` before the broken ones.
fn names(reading: &Reading) -> Vec<String> {
    let mark = |w: &Written| if w.object.is_none() { "!" } else { "" };
    reading.objects.iter().map(|w| format!("{}{} {}", mark(w), w.kind, w.name)).collect()
}

fn one(text: &str) -> Object {
    let reading = read("x.yaml", text.as_bytes());
    assert_eq!(reading.problems, [], "{text}");
    assert_eq!(reading.objects.len(), 1, "{text}");
    reading.objects.into_iter().next().unwrap().object.unwrap()
}

fn pool(spec: &str) -> String {
    format!(
        "{{apiVersion: egret.dev/v1alpha1, kind: EgressPool, metadata: {{name: blue}}, spec: {{{spec}}}}}"
    )
}

fn ip_pool(spec: &str) -> String {
    format!("{{apiVersion: projectcalico.org/v3, kind: IPPool, metadata: {{name: green}}, spec: {{{spec}}}}}")
}

fn pod(metadata: &str) -> String {
    format!("{{apiVersion: v1, kind: Pod, metadata: {{name: cart, namespace: shop, {metadata}}}}}")
}

#[test]
fn a_pod_keeps_what_egress_needs_and_nothing_else_is_looked_at() {
    let text = "
apiVersion: v1
kind: Pod
metadata:
  name: cart-0
  namespace: shop
  uid: 6a4e
  labels: {app: cart}
  annotations: {egress.projectcalico.org/selector: egress-code == 'red'}
  ownerReferences:
  - {apiVersion: v1, kind: Other, name: x}
  - {apiVersion: apps/v1, kind: StatefulSet, name: cart, controller: true}
spec: {nodeName: a, hostNetwork: true, containers: 5}
status: {podIP: 10.244.0.7, podIPs: [{ip: 10.244.0.7}, {ip: 'fd00:244::7'}, {ip: x}]}
";
    let Object::Pod(pod) = one(text) else { panic!("no pod") };
    assert_eq!((pod.uid.as_deref(), pod.node.as_deref(), pod.host_network), (Some("6a4e"), Some("a"), true));
    assert_eq!(pod.stateful_set.as_deref(), Some("cart"));
    assert_eq!(format!("{:?}", pod.ips), "[10.244.0.7, fd00:244::7]");
    assert_eq!(pod.labels["app"], "cart");
    assert_eq!(pod.annotations["egress.projectcalico.org/selector"], "egress-code == 'red'");
}

#[test]
fn a_pod_that_has_ended_has_no_address_and_a_status_of_another_shape_is_none() {
    for (status, expected) in [
        ("{podIP: 10.244.0.7}", "[10.244.0.7]"),
        ("{phase: Running, podIP: 'fd00::7'}", "[fd00::7]"),
        ("{phase: Succeeded, podIP: 10.244.0.7}", "[]"),
        ("{phase: Failed, podIPs: [{ip: 10.244.0.7}]}", "[]"),
        ("7", "[]"),
        ("{podIPs: 7, podIP: 8}", "[]"),
    ] {
        let Object::Pod(pod) =
            one(&format!("{{apiVersion: v1, kind: Pod, metadata: {{name: a}}, status: {status}}}"))
        else {
            panic!("no pod")
        };
        assert_eq!(format!("{:?}", pod.ips), expected, "{status}");
    }
}

#[test]
fn a_pod_without_namespace_lies_in_default_and_null_is_absent() {
    let reading =
        read("x.yaml", b"{apiVersion: v1, kind: Pod, metadata: {name: a, labels: , annotations: null}}");
    assert_eq!((names(&reading), reading.problems), (vec!["Pod default/a".to_owned()], vec![]));
}

#[test]
fn a_node_has_its_addresses_by_type() {
    let text = "
apiVersion: v1
kind: Node
metadata: {name: node-a.example, labels: {zone: z1}}
spec: {podCIDR: 10.244.0.0/24, podCIDRs: [10.244.0.0/24, 'fd00:244::/64']}
status:
  addresses:
  - {type: Hostname, address: node-a}
  - {type: InternalIP, address: 192.0.2.11}
  - {type: InternalIP, address: '2001:db8::11'}
  - {type: ExternalIP, address: 198.51.100.7}
";
    let Object::Node(node) = one(text) else { panic!("no node") };
    let shown = format!("{:?} {:?} {:?}", node.internal_ips, node.other_ips, node.pod_cidrs);
    assert_eq!(shown, "[192.0.2.11, 2001:db8::11] [198.51.100.7] [10.244.0.0/24, fd00:244::/64]");
    assert_eq!((node.number, node.wire), (None, None));
}

#[test]
fn an_egress_pool_has_the_defaults_of_the_design() {
    let Object::Pool(p) = one(&pool("cidr: 10.10.10.0/28")) else { panic!("no pool") };
    assert_eq!((p.kind, p.block_size, p.node_selector.as_str()), (PoolKind::EgressPool, 31, "all()"));
    assert_eq!((&p.gateway_namespaces, &p.client_namespaces), (&None, &None));
    assert_eq!((p.source, p.announce, p.cooldown_seconds), (PoolSource::Pool, Announce::Auto, 60));
    assert_eq!((p.nat_outgoing, p.strict_affinity, p.disabled), (false, false, false));
    for (cidr, block) in [("10.0.0.7/32", 32), ("10.0.0.7", 32), ("'fd00::/64'", 127), ("'fd00::1'", 128)] {
        let Object::Pool(p) = one(&pool(&format!("cidr: {cidr}"))) else { panic!("no pool") };
        assert_eq!(p.block_size, block, "{cidr}");
    }
}

#[test]
fn calicos_pool_counts_as_all_unless_its_annotations_narrow_it() {
    let Object::Pool(p) =
        one(&ip_pool("cidr: 10.10.10.0/31, blockSize: 31, nodeSelector: '!all()', ipipMode: Never"))
    else {
        panic!("no pool")
    };
    assert_eq!((p.kind, p.block_size, p.node_selector.as_str()), (PoolKind::IPPool, 31, "!all()"));
    assert_eq!(
        (p.gateway_namespaces.as_deref(), p.client_namespaces.as_deref()),
        (Some("all()"), Some("all()"))
    );
    let text = "
apiVersion: crd.projectcalico.org/v1
kind: IPPool
metadata:
  name: green
  annotations: {egret.dev/gateway-namespaces: team == 'net', egret.dev/client-namespaces: has(egress)}
spec: {cidr: 10.244.0.0/16, assignmentMode: Manual, natOutgoing: true, disabled: true}
";
    let Object::Pool(p) = one(text) else { panic!("no pool") };
    assert_eq!(
        (p.block_size, p.node_selector.as_str(), p.nat_outgoing, p.disabled),
        (26, "!all()", true, true)
    );
    assert_eq!(p.gateway_namespaces.as_deref(), Some("team == 'net'"));
    assert_eq!(p.client_namespaces.as_deref(), Some("has(egress)"));
}

#[test]
fn lists_are_flattened_and_typed_lists_lend_their_kind() {
    let text = "
apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: Namespace, metadata: {name: shop}}
- {kind: Rubbish, apiVersion: v1}
- {apiVersion: networking.k8s.io/v1, kind: ServiceCIDR, metadata: {name: kubernetes}, spec: {cidrs: [10.96.0.0/16]}}
---
{apiVersion: v1, kind: PodList, metadata: {}, items: [{metadata: {name: a}}, {metadata: {name: b, namespace: c}}]}
";
    let reading = read("x.yaml", text.as_bytes());
    assert_eq!(names(&reading), ["Namespace shop", "ServiceCIDR kubernetes", "Pod default/a", "Pod c/b"]);
    assert_eq!(reading.problems.len(), 1);
    assert!(reading.whole);
}

#[test]
fn addresses_of_nodes_and_services_are_checked() {
    let node = "{apiVersion: v1, kind: Node, metadata: {name: a}, spec: {podCIDRs: [10.0.0.1/24]}, status: {addresses: [{type: InternalIP, address: x}]}}";
    assert_eq!(
        told(node),
        [
            "Node a: status.addresses[0].address: the InternalIP `x` is not an IP address; write one such as 192.0.2.11",
            "Node a: spec.podCIDRs[0]: `10.0.0.1/24` has bits set below its prefix length; did you mean 10.0.0.0/24?",
        ]
    );
    let service = "{apiVersion: networking.k8s.io/v1, kind: ServiceCIDR, metadata: {name: a}}";
    assert_eq!(
        told(service),
        ["ServiceCIDR a: spec.cidrs is missing; write the service range, as in [10.96.0.0/16]"]
    );
}

#[test]
fn of_slices_of_endpoints_that_of_the_api_server_alone_says_anything() {
    let slice = |namespace: &str, name: &str| {
        let text = format!(
            "{{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {{namespace: {namespace}, name: {name}}}, addressType: IPv4,\n\
             endpoints: [{{addresses: [192.0.2.251], conditions: {{ready: false}}}}, {{addresses: [\"2001:db8::1\", api.example]}}, {{}}]}}"
        );
        let reading = read("x.yaml", text.as_bytes());
        assert_eq!(reading.problems, []);
        reading.objects[0].object.clone()
    };
    let server = ["192.0.2.251/32", "2001:db8::1/128"].map(|cidr| cidr.parse().unwrap()).to_vec();
    assert_eq!(slice("default", "kubernetes"), Some(Object::ApiServer(server)));
    assert_eq!(slice("default", "partner"), Some(Object::ApiServer(Vec::new())));
    assert_eq!(slice("shop", "kubernetes"), Some(Object::ApiServer(Vec::new())));
}

#[test]
fn json_is_read_by_its_name() {
    let reading = read("x.json", br#"{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"a"}}"#);
    assert_eq!(names(&reading), ["Namespace a"]);
    let reading = read("x.json", b"{apiVersion: v1}");
    assert_eq!(
        reading.problems[0].to_string(),
        "x.json: not JSON: line 1, column 2: key must be a string; correct the file"
    );
    assert_eq!((reading.problems[0].reason.as_str(), reading.whole), ("NotJson", false));
}
