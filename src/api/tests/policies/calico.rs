//! Calico's kind: what its documents show, and what its API server rejects.

use super::*;

#[test]
fn calicos_policy_as_its_documents_show_it() {
    let text = "
apiVersion: projectcalico.org/v3
kind: EgressGatewayPolicy
metadata: {name: egw-policy1, creationTimestamp: '2026-08-21T10:00:00Z'}
spec:
  rules:
  - destination: {cidr: 10.0.0.0/8}
    description: 'Local: no gateway'
  - destination: {cidr: 11.0.0.0/8}
    description: 'Gateway to 11.0.0.0/8'
    gateway:
      namespaceSelector: projectcalico.org/name == 'default'
      selector: egress-code == 'blue'
      maxNextHops: 2
    gatewayPreference: PreferNodeLocal
  - description: 'Gateway to internet'
    gateway:
      namespaceSelector: projectcalico.org/name == 'default'
      selector: egress-code == 'red'
    gatewayPreference: None
";
    let policy = policy(text);
    assert_eq!((policy.kind, policy.created), (PolicyKind::Calico, Some(1_787_306_400)));
    assert_eq!(
        table(&policy),
        [
            "spec.rules[0]: 10.0.0.0/8 → direct",
            "spec.rules[1]: 11.0.0.0/8 → 2 of egress-code == 'blue' in projectcalico.org/name == 'default', local first",
            "spec.rules[2]: 0.0.0.0/0 → all of egress-code == 'red' in projectcalico.org/name == 'default'",
            "spec.rules[2]: ::/0 → all of egress-code == 'red' in projectcalico.org/name == 'default'",
        ]
    );
}

#[test]
fn calicos_stored_form_is_the_same_and_a_bare_address_is_itself_alone() {
    let text = calico("rules: [{destination: {cidr: 8.8.8.8}}, {destination: {cidr: '2001:db8::1'}}]");
    let stored = text.replace("projectcalico.org/v3", "crd.projectcalico.org/v1");
    assert_eq!(
        table(&policy(&text)),
        ["spec.rules[0]: 8.8.8.8/32 → direct", "spec.rules[1]: 2001:db8::1/128 → direct"]
    );
    assert_eq!(policy(&text), policy(&stored));
}

#[test]
fn a_rule_for_all_of_ipv6_stands_beside_one_for_everything() {
    let text = calico(&format!("rules: [{{gateway: {GATEWAY}}}, {{destination: {{cidr: '::/0'}}}}]"));
    assert_eq!(
        table(&policy(&text)),
        ["spec.rules[1]: ::/0 → direct", "spec.rules[0]: 0.0.0.0/0 → all of has(red) in all()"]
    );
}

#[test]
fn what_calico_rejects_is_unfit_with_the_reason_and_has_no_rule() {
    let rule = |rule: &str| calico(&format!("rules: [{{destination: {{cidr: 10.0.0.0/8}}, {rule}}}]"));
    for (text, expected) in [
        (
            calico(""),
            "spec.rules: no rule of spec.rules specifies a gateway or a destination; write one that does",
        ),
        (
            calico("rules: [{description: x}]"),
            "spec.rules: no rule of spec.rules specifies a gateway or a destination; write one that does",
        ),
        (
            rule("gateway: {}"),
            "spec.rules[0].gateway.selector is missing; a gateway needs one over its pods; write `all()` if every one is meant",
        ),
        (
            rule("gateway: {selector: '', namespaceSelector: all()}"),
            "spec.rules[0].gateway.selector is empty; a gateway needs one over its pods; write `all()` if every one is meant",
        ),
        (
            rule("gateway: {selector: all(), namespaceSelector: ' '}"),
            "spec.rules[0].gateway.namespaceSelector is empty; a gateway needs one over the namespaces of its pods; write `all()` if every one is meant",
        ),
        (
            rule("gateway: {selector: a = 'b', namespaceSelector: all()}"),
            "spec.rules[0].gateway.selector: the selector does not parse at character 3: a single `=` is no operator; write `==`",
        ),
        (
            rule("gateway: {selector: all(), namespaceSelector: all(), maxNextHops: -1}"),
            "spec.rules[0].gateway.maxNextHops is the number -1, but must be a whole number from 0 to 4294967295",
        ),
        (
            rule("gatewayPreference: Local"),
            "spec.rules[0].gatewayPreference is `Local`, but must be None or PreferNodeLocal",
        ),
        (
            calico("rules: [{destination: {cidr: 10.0.0.0/8}}, {destination: {cidr: 10.0.0.0/8}}]"),
            "spec.rules[1].destination.cidr: 10.0.0.0/8 is the destination of spec.rules[0] too, and one destination cannot go two ways; remove one of the rules",
        ),
        (
            calico(&format!("rules: [{{gateway: {GATEWAY}}}, {{destination: {{}}}}]")),
            "spec.rules[1].destination: spec.rules[1] and spec.rules[0] both have no destination, so both are for everything; keep one of them",
        ),
        (
            calico(&format!("rules: [{{gateway: {GATEWAY}}}, {{destination: {{cidr: 0.0.0.0/0}}}}]")),
            "spec.rules[0].destination: 0.0.0.0/0 is the destination of spec.rules[1] too, and one destination cannot go two ways; remove one of the rules",
        ),
        (
            calico("rules: [{destination: {cidr: 10.0.0.0/33}}]"),
            "spec.rules[0].destination.cidr: `10.0.0.0/33` is not an address prefix such as 10.10.10.0/31 or fd00:10::/127",
        ),
        (
            calico("rules: [{destination: {cidr: '::ffff:10.0.0.0/104'}}]"),
            "spec.rules[0].destination.cidr: `::ffff:10.0.0.0/104` is IPv4 written inside IPv6, which no packet carries; write the IPv4 prefix",
        ),
        (
            calico("rules: [{destination: {cidr: 'fe80::1%eth0/64'}}]"),
            "spec.rules[0].destination.cidr: `fe80::1%eth0/64` is not an address prefix such as 10.10.10.0/31 or fd00:10::/127",
        ),
        (
            calico("rules: [{destination: 10.0.0.0/8}]"),
            "spec.rules[0].destination is the text \"10.0.0.0/8\", but must be a map",
        ),
        (calico("rules: {}"), "spec.rules is a map, but must be a list"),
        (calico("rules: [x]"), "spec.rules[0] is the text \"x\", but must be a map"),
        (calico("rules: [{gateway: red}]"), "spec.rules[0].gateway is the text \"red\", but must be a map"),
    ] {
        let policy = any(&text);
        assert_eq!(told(&text)[0], format!("EgressGatewayPolicy p: {expected}"), "{text}");
        assert!(!policy.unfit.is_empty() && policy.rules.is_empty(), "{text}");
        assert!(policy.unfit.iter().all(|p| p.file == "x.yaml" && p.object == "EgressGatewayPolicy p"));
    }
}

#[test]
fn a_slip_that_a_policy_survives_is_said() {
    let text = calico(
        "order: 5, rules: [{destination: {cidr: 10.0.0.1/8, cidrs: []}, gatewayPreference: PreferNodeLocal}, \
         {destination: {cidr: 169.254.0.0/16}, gateways: 3}]",
    );
    assert_eq!(
        told(&text),
        [
            "EgressGatewayPolicy p: spec.order: the field spec.order is unknown and has no effect; remove it",
            "EgressGatewayPolicy p: spec.rules[0].gatewayPreference has no effect on a rule without gateway; remove it",
            "EgressGatewayPolicy p: spec.rules[0].destination.cidrs: the field spec.rules[0].destination.cidrs is unknown and has no effect; did you mean `cidr`?",
            "EgressGatewayPolicy p: spec.rules[0].destination.cidr: `10.0.0.1/8` has bits set below its prefix length and is read as 10.0.0.0/8; write that",
            "EgressGatewayPolicy p: spec.rules[1].gateways: the field spec.rules[1].gateways is unknown and has no effect; did you mean `gateway`?",
            "EgressGatewayPolicy p: spec.rules[1].destination.cidr: 169.254.0.0/16 is link-local (169.254.0.0/16), which never goes to a gateway, so it has no effect; remove it",
        ]
    );
    assert_eq!(any(&text).unfit, []);
}
