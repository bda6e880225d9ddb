//! What is wrong with objects is told, with its place, and says what to write instead.

use super::*;

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
            "Deployment b/a: kind: the kind `Deployment` is not read (read are Namespace, Pod, Node, EgressPool, IPPool, ServiceCIDR, EgressGatewayPolicy, CiliumEgressGatewayPolicy, EgressRange, EndpointSlice); take the object out of this directory",
        ),
        (
            "{apiVersion: egret.dev/v1alpha1, kind: egresspool, metadata: {name: a}}",
            "egresspool a: kind: the kind `egresspool` is not read (read are Namespace, Pod, Node, EgressPool, IPPool, ServiceCIDR, EgressGatewayPolicy, CiliumEgressGatewayPolicy, EgressRange, EndpointSlice); did you mean `EgressPool`?",
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
        ("{apiVersion: v1, kind: Pod, metadata: []}", "Pod: metadata is a list, but must be a map"),
        (
            "{apiVersion: v1, kind: Pod, metadata: {name: 5}}",
            "Pod: metadata.name is the number 5, but must be a text (put it in quotes)",
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
        (pool(""), "spec.cidr is missing; write the pool's addresses, as in 10.10.10.0/28"),
        (
            pool("cidr: 10.10.10.1/31"),
            "spec.cidr: `10.10.10.1/31` has bits set below its prefix length; did you mean 10.10.10.0/31?",
        ),
        (
            pool("cidr: 10.10.10.0-9"),
            "spec.cidr: `10.10.10.0-9` is not an address prefix such as 10.10.10.0/31 or fd00:10::/127",
        ),
        (pool("cidr: 7"), "spec.cidr is the number 7, but must be a text (put it in quotes)"),
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
            "spec.blockSize 127 is not between 20 and 32, the sizes for IPv4; this is an IPv6 size, and the pool is IPv4",
        ),
        (
            pool("cidr: 'fd00::/64', blockSize: 31"),
            "spec.blockSize 31 is not between 116 and 128, the sizes for IPv6; this is an IPv4 size, and the pool is IPv6",
        ),
        (
            pool("cidr: 10.0.0.0/24, blockSize: -1"),
            "spec.blockSize is the number -1, but must be a whole number from 0 to 128",
        ),
        (
            pool("cidr: 10.0.0.0/24, cooldownSeconds: 1.5"),
            "spec.cooldownSeconds is the number 1.5, but must be a whole number from 0 to 604800",
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
            "spec.source is `podaddress`, but must be Pool or PodAddress",
        ),
        (pool("cidr: 10.0.0.0/24, announce: auto"), "spec.announce is `auto`, but must be Auto or None"),
        (
            pool("cidr: 10.0.0.0/24, disabled: 'yes'"),
            "spec.disabled is the text \"yes\", but must be true or false",
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
fn a_field_that_stands_one_level_too_deep_is_told_where_it_belongs() {
    let policy = "apiVersion: projectcalico.org/v3\nkind: EgressGatewayPolicy\nmetadata: {name: p}\nspec: {rules: [{gateway: \
                  {selector: all(), namespaceSelector: all(), gatewayPreference: PreferNodeLocal, rules: []}}]}\n";
    assert_eq!(
        told(policy),
        [
            "EgressGatewayPolicy p: spec.rules[0].gateway.gatewayPreference: the field spec.rules[0].gateway.gatewayPreference is \
             unknown and has no effect; it belongs into spec.rules[0]",
            "EgressGatewayPolicy p: spec.rules[0].gateway.rules: the field spec.rules[0].gateway.rules is unknown and has no effect; \
             remove it",
        ]
    );
}

#[test]
fn labels_and_annotations_that_are_no_texts_break_the_object() {
    for (metadata, want) in [
        (
            "annotations: {egret.dev/x: 2}",
            "metadata.annotations[\"egret.dev/x\"] is the number 2, but must be a text; put it in quotes: \"2\"",
        ),
        ("labels: {a: [b]}", "metadata.labels[\"a\"] is a list, but must be a text"),
        ("labels: [a]", "metadata.labels is a list, but must be a map"),
    ] {
        let text = pod(metadata);
        assert_eq!(names(&read("x.yaml", text.as_bytes())), ["!Pod shop/cart"]);
        assert_eq!(told(&text), [format!("Pod shop/cart: {want}")]);
    }
}
