//! What users write, and what they are told. Each story is a file; the sentences are compared whole.

mod definitions;
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
fn what_is_no_object_is_told_with_its_place() {
    for (text, want) in [
        ("", "the file is empty; write an object into it, or delete it"),
        ("\n  \n", "the file is empty; write an object into it, or delete it"),
        (
            "a: [1\nb: 2\n",
            "not YAML: line 2, column 2: did not find expected ',' or ']', while parsing a flow sequence at line 1 column 4; correct the file",
        ),
        (
            "kind: Pod\nkind: Pod\n",
            "not YAML: line 1, column 1: the key `kind` is written twice in one map; keep one; correct the file",
        ),
        ("- a\n", "a document is a list, but must be an object with apiVersion, kind and metadata"),
        (
            "hello",
            "a document is the text \"hello\", but must be an object with apiVersion, kind and metadata",
        ),
        (
            "{}",
            "kind: the object has no kind; write `kind: Pod`, `kind: EgressPool` or another that Egret reads",
        ),
        (
            "{kind: 5, metadata: {name: a}}",
            "a: kind: the object has no kind; write `kind: Pod`, `kind: EgressPool` or another that Egret reads",
        ),
        (
            "{apiVersion: apps/v1, kind: Deployment, metadata: {name: a, namespace: b}}",
            "Deployment b/a: kind: the kind `Deployment` is not read (read are Namespace, Pod, Node, EgressPool, IPPool, ServiceCIDR, EgressGatewayPolicy, CiliumEgressGatewayPolicy); take the object out of this directory",
        ),
        (
            "{apiVersion: egret.dev/v1alpha1, kind: egresspool, metadata: {name: a}}",
            "egresspool a: kind: the kind `egresspool` is not read (read are Namespace, Pod, Node, EgressPool, IPPool, ServiceCIDR, EgressGatewayPolicy, CiliumEgressGatewayPolicy); did you mean `EgressPool`?",
        ),
        (
            "{apiVersion: operator.tigera.io/v1, kind: EgressGateway, metadata: {name: a}}",
            "EgressGateway a: kind: EgressGateway is not served yet and has no effect; select gateways by annotations instead",
        ),
        (
            "{apiVersion: projectcalico.org/v3, kind: Node, metadata: {name: a}}",
            "Node a: apiVersion: Node of apiVersion `projectcalico.org/v3` is not read; Node is read from v1",
        ),
        (
            "{kind: Node, metadata: {name: a}}",
            "Node a: apiVersion: the object has no apiVersion; write `apiVersion: v1`",
        ),
        ("{apiVersion: v1, kind: Pod}", "Pod: metadata.name: the object has no name; write metadata.name"),
        (
            "{apiVersion: v1, kind: Pod, metadata: {name: ''}}",
            "Pod: metadata.name: the object has no name; write metadata.name",
        ),
        (
            "{apiVersion: v1, kind: Pod, metadata: {generateName: a-}}",
            "Pod: metadata.name: the object has only a generateName; a directory gives no names, so write metadata.name",
        ),
        ("{apiVersion: v1, kind: Pod, metadata: []}", "Pod: metadata: metadata is a list, but must be a map"),
        (
            "{apiVersion: v1, kind: Pod, metadata: {name: 5}}",
            "Pod: metadata.name: metadata.name is the number 5, but must be a text (put it in quotes)",
        ),
    ] {
        let found = told(text);
        assert_eq!(found.first().map(String::as_str), Some(want), "{text}");
    }
}

#[test]
fn a_wrong_name_or_version_is_an_object_that_exists() {
    for (text, broken, want) in [
        (
            "{apiVersion: v1, kind: Pod, metadata: {name: Cart, namespace: shop}}",
            "!Pod shop/Cart",
            "Pod shop/Cart: metadata.name: `Cart` is no name: write at most 253 lower-case letters, digits, `-` and `.`, with a letter or digit at both ends of each part",
        ),
        (
            "{apiVersion: v1, kind: Pod, metadata: {name: cart, namespace: ../shop}}",
            "!Pod ../shop/cart",
            "Pod ../shop/cart: metadata.namespace: `../shop` is no name: write at most 63 lower-case letters, digits and `-`, with a letter or digit at both ends",
        ),
        (
            "{apiVersion: v1, kind: Namespace, metadata: {name: a.b}}",
            "!Namespace a.b",
            "Namespace a.b: metadata.name: `a.b` is no name: write at most 63 lower-case letters, digits and `-`, with a letter or digit at both ends",
        ),
        (
            "{apiVersion: egret.dev/v2, kind: EgressPool, metadata: {name: blue}}",
            "!EgressPool blue",
            "EgressPool blue: apiVersion: EgressPool of apiVersion `egret.dev/v2` is not read; EgressPool is read from egret.dev/v1alpha1",
        ),
        (
            "{kind: IPPool, metadata: {name: green}}",
            "!IPPool green",
            "IPPool green: apiVersion: the object has no apiVersion; write `apiVersion: projectcalico.org/v3 or crd.projectcalico.org/v1`",
        ),
    ] {
        let reading = read("x.yaml", text.as_bytes());
        assert_eq!((names(&reading), told(text)), (vec![broken.to_owned()], vec![want.to_owned()]), "{text}");
    }
}

#[test]
fn a_wrong_field_breaks_its_object_and_is_named_with_its_value() {
    let name = "EgressPool blue: ";
    for (text, want) in [
        (pool(""), "spec.cidr: spec.cidr is missing; write the pool's addresses, as in 10.10.10.0/28"),
        (
            pool("cidr: 10.10.10.1/31"),
            "spec.cidr: `10.10.10.1/31` has bits set below its prefix length; did you mean 10.10.10.0/31?",
        ),
        (
            pool("cidr: 10.10.10.0-9"),
            "spec.cidr: `10.10.10.0-9` is not an address prefix such as 10.10.10.0/31 or fd00:10::/127",
        ),
        (pool("cidr: 7"), "spec.cidr: spec.cidr is the number 7, but must be a text (put it in quotes)"),
        (
            pool("cidr: 0.0.0.0/0"),
            "spec.cidr: `0.0.0.0/0` holds this network addresses (0.0.0.0/8), which no outside host answers; choose a range that is routed to your nodes",
        ),
        (
            pool("cidr: 10.0.0.0/31, blockSize: 30"),
            "spec.blockSize: the pool 10.0.0.0/31 has 2 addresses, fewer than one block of blockSize 30, which has 4 addresses; set blockSize to 31 or more, or give the pool more addresses",
        ),
        (
            pool("cidr: 10.0.0.0/24, blockSize: 127"),
            "spec.blockSize: blockSize 127 is not between 20 and 32, the sizes for IPv4; this is an IPv6 size, and the pool is IPv4",
        ),
        (
            pool("cidr: 'fd00::/64', blockSize: 31"),
            "spec.blockSize: blockSize 31 is not between 116 and 128, the sizes for IPv6; this is an IPv4 size, and the pool is IPv6",
        ),
        (
            pool("cidr: 10.0.0.0/24, blockSize: -1"),
            "spec.blockSize: spec.blockSize is the number -1, but must be a whole number from 0 to 128",
        ),
        (
            pool("cidr: 10.0.0.0/24, cooldownSeconds: 1.5"),
            "spec.cooldownSeconds: spec.cooldownSeconds is the number 1.5, but must be a whole number from 0 to 604800",
        ),
        (
            pool("cidr: 10.0.0.0/24, gatewayNamespaces: ''"),
            "spec.gatewayNamespaces: the selector is empty; write `all()` for every namespace, or leave the field out",
        ),
        (
            pool("cidr: 10.0.0.0/24, clientNamespaces: 'team = \"net\"'"),
            "spec.clientNamespaces: the selector does not parse at character 6: a single `=` is no operator; write `==`",
        ),
        (
            pool("cidr: 10.0.0.0/24, source: podaddress"),
            "spec.source: spec.source is `podaddress`, but must be Pool or PodAddress",
        ),
        (
            pool("cidr: 10.0.0.0/24, announce: auto"),
            "spec.announce: spec.announce is `auto`, but must be Auto or None",
        ),
        (
            pool("cidr: 10.0.0.0/24, disabled: 'yes'"),
            "spec.disabled: spec.disabled is the text \"yes\", but must be true or false",
        ),
    ] {
        let reading = read("x.yaml", text.as_bytes());
        assert_eq!(names(&reading), ["!EgressPool blue"], "{text}");
        assert_eq!(told(&text), [format!("{name}{want}")], "{text}");
    }
    let narrowed = "{apiVersion: projectcalico.org/v3, kind: IPPool, metadata: {name: green, annotations: \
                    {egret.dev/client-namespaces: all}}, spec: {cidr: 10.244.0.0/16, nodeSelector: '!!'}}";
    assert_eq!(
        told(narrowed),
        [
            "IPPool green: spec.nodeSelector: the selector does not parse at character 3: expected a label, `has(…)`, `all()`, `global()` or `(`",
            "IPPool green: metadata.annotations[\"egret.dev/client-namespaces\"]: the selector does not parse at character 1: `all` alone says nothing; write `has(all)` or compare it",
        ]
    );
    assert_eq!(
        told(&ip_pool("cidr: 10.10.10.0/31")),
        [
            "IPPool green: spec.blockSize: the pool 10.10.10.0/31 has 2 addresses, fewer than one block of blockSize 26 (the default of this kind), which has 64 addresses; set blockSize to 31 or more, or give the pool more addresses"
        ]
    );
}

#[test]
fn all_that_is_wrong_with_an_object_is_told_at_once() {
    let text = pool("cidr: 10.0.0.1/24, disabled: 3, announce: x, nodeSelector: [a]");
    let fields: Vec<String> = read("x.yaml", text.as_bytes()).problems.into_iter().map(|p| p.field).collect();
    assert_eq!(fields, ["spec.cidr", "spec.nodeSelector", "spec.announce", "spec.disabled"]);
}

#[test]
fn unknown_fields_of_our_own_kinds_are_doubted_and_the_object_lives() {
    let text = pool("cidr: 10.0.0.0/24, blocksize: 30, colour: blue");
    let reading = read("x.yaml", text.as_bytes());
    assert_eq!(names(&reading), ["EgressPool blue"]);
    assert_eq!(
        told(&text),
        [
            "EgressPool blue: spec.blocksize: the field spec.blocksize is unknown and has no effect; did you mean `blockSize`?",
            "EgressPool blue: spec.colour: the field spec.colour is unknown and has no effect; remove it",
        ]
    );
    let problem = &reading.problems[0];
    assert_eq!((problem.reason.as_str(), problem.value.as_str()), ("UnknownField", "30"));
    let reading = read("x.yaml", ip_pool("cidr: 10.0.0.0/24, vxlanMode: Never, awsSubnetID: x").as_bytes());
    assert_eq!(reading.problems, []);
    let narrowed = ip_pool("cidr: 10.0.0.0/24, namespaceSelector: a == 'b'");
    assert_eq!(read("x.yaml", narrowed.as_bytes()).problems[0].reason, "IgnoredField");
}

#[test]
fn labels_and_annotations_that_are_no_texts_break_the_object() {
    for (metadata, want) in [
        (
            "annotations: {egret.dev/x: 2}",
            "metadata.annotations[\"egret.dev/x\"]: metadata.annotations[\"egret.dev/x\"] is the number 2, but must be a text; put it in quotes: \"2\"",
        ),
        ("labels: {a: [b]}", "metadata.labels[\"a\"]: metadata.labels[\"a\"] is a list, but must be a text"),
        ("labels: [a]", "metadata.labels: metadata.labels is a list, but must be a map"),
    ] {
        let text = pod(metadata);
        assert_eq!(names(&read("x.yaml", text.as_bytes())), ["!Pod shop/cart"]);
        assert_eq!(told(&text), [format!("Pod shop/cart: {want}")]);
    }
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
        ["ServiceCIDR a: spec.cidrs: spec.cidrs is missing; write the service range, as in [10.96.0.0/16]"]
    );
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
