//! Cilium's kind: what its documents show, and what it rejects.

use super::*;

#[test]
fn ciliums_policy_as_its_documents_show_it() {
    let text = "
apiVersion: cilium.io/v2
kind: CiliumEgressGatewayPolicy
metadata: {name: egress-sample}
spec:
  selectors:
  - podSelector:
      matchLabels: {org: empire, class: mediabot, io.kubernetes.pod.namespace: default}
  - namespaceSelector:
      matchExpressions:
      - {key: team, operator: In, values: [a, b]}
      - {key: env, operator: NotIn, values: [test]}
    podSelector:
      matchExpressions:
      - {key: 'k8s:app', operator: Exists}
      - {key: 'any:old', operator: DoesNotExist}
  destinationCIDRs: [0.0.0.0/0, '::/0']
  excludedCIDRs: [192.0.2.0/24]
  egressGateway:
    nodeSelector: {matchLabels: {node.kubernetes.io/name: node1}}
    egressIP: 10.168.60.100
";
    let policy = policy(text);
    assert_eq!(
        selected(&policy),
        [
            "class == \"mediabot\" && io.kubernetes.pod.namespace == \"default\" && org == \"empire\" | - | -",
            "has(app) && !has(old) | team in {\"a\", \"b\"} && env not in {\"test\"} | -",
        ]
    );
    assert_eq!(
        table(&policy),
        [
            "spec.destinationCIDRs[0]: 0.0.0.0/0 → node.kubernetes.io/name == \"node1\" - Some(10.168.60.100)",
            "spec.destinationCIDRs[1]: ::/0 → node.kubernetes.io/name == \"node1\" - Some(10.168.60.100)",
            "spec.excludedCIDRs[0]: 192.0.2.0/24 → direct",
        ]
    );
}

#[test]
fn node_selectors_of_all_entries_are_pooled_as_in_cilium() {
    let text = cilium(
        "selectors: [{podSelector: {matchLabels: {a: '1'}}}, {podSelector: {matchLabels: {b: '2'}}, nodeSelector: \
         {matchLabels: {zone: x}}}, {namespaceSelector: {}, nodeSelector: {matchLabels: {zone: y}}}]",
    );
    let nodes = "(zone == \"x\") || (zone == \"y\")";
    assert_eq!(
        selected(&policy(&text)),
        [
            format!("a == \"1\" | - | {nodes}"),
            format!("b == \"2\" | - | {nodes}"),
            format!("- | - | {nodes}")
        ]
    );
}

#[test]
fn labels_of_the_namespace_among_the_pods_own_are_the_namespaces() {
    let text = cilium(
        "selectors: [{podSelector: {matchLabels: {'k8s:io.cilium.k8s.namespace.labels.team': a, x: y}}, namespaceSelector: {matchLabels: {e: f}}}]",
    );
    assert_eq!(selected(&policy(&text)), ["x == \"y\" | e == \"f\" && team == \"a\" | -"]);
}

#[test]
fn a_list_of_gateways_replaces_the_one() {
    let list = "egressGateways: [{nodeSelector: {matchLabels: {a: b}}, interface: eth1}, {nodeSelector: {}, egressIP: 'fd00::1'}]";
    let expected = "spec.destinationCIDRs[0]: 0.0.0.0/0 → a == \"b\" eth1 None; all() - Some(fd00::1)";
    let with = |one: &str| cilium(&format!("{list}{one}"));
    for text in [
        with(""),
        with(", egressGateway: {}"),
        with(", egressGateway: {nodeSelector: {}, egressIP: 10.0.0.1}"),
    ] {
        assert_eq!(table(&any(&text)), [expected], "{text}");
    }
    assert_eq!(
        told(&with(", egressGateway: {nodeSelector: {}, egressIP: 10.0.0.1}")),
        [
            "CiliumEgressGatewayPolicy p: spec.egressGateway has no effect beside spec.egressGateways; move it into that list"
        ]
    );
}

#[test]
fn what_cilium_rejects_is_unfit_with_the_reason() {
    let selector = |selector: &str| cilium(&format!("selectors: [{{podSelector: {{{selector}}}}}]"));
    let gateway = |gateway: &str| cilium(&format!("egressGateway: {{{gateway}}}"));
    let many = vec!["{nodeSelector: {}}"; 65].join(", ");
    for (text, expected) in [
        (
            cilium("destinationCIDRs: null"),
            "spec.destinationCIDRs is empty; write the destinations, such as 0.0.0.0/0 for all of IPv4",
        ),
        (
            cilium("destinationCIDRs: []"),
            "spec.destinationCIDRs is empty; write the destinations, such as 0.0.0.0/0 for all of IPv4",
        ),
        (
            cilium("destinationCIDRs: [10.0.0.1]"),
            "spec.destinationCIDRs[0]: `10.0.0.1` has no prefix length; write 10.0.0.1/32",
        ),
        (
            cilium("excludedCIDRs: [x]"),
            "spec.excludedCIDRs[0]: `x` is not an address prefix such as 10.10.10.0/31 or fd00:10::/127",
        ),
        (
            cilium("egressGateway: null"),
            "spec.egressGateway is missing, and spec.egressGateways is empty; write where the traffic leaves",
        ),
        (
            cilium("egressGateway: null, egressGateways: null"),
            "spec.egressGateway is missing, and spec.egressGateways is empty; write where the traffic leaves",
        ),
        (
            cilium(&format!("egressGateways: [{many}]")),
            "spec.egressGateways has 65 entries; at most 64 are taken",
        ),
        (
            gateway("interface: eth1"),
            "spec.egressGateway.nodeSelector is missing; write which nodes, or `{}` for all",
        ),
        (
            gateway("nodeSelector: {}, interface: eth1, egressIP: 10.0.0.1"),
            "spec.egressGateway.interface `eth1` stands beside egressIP `10.0.0.1`, and only one of them can say the address; remove one",
        ),
        (
            gateway("nodeSelector: {}, egressIP: ten"),
            "spec.egressGateway.egressIP: `ten` is not an address such as 192.0.2.10 or 2001:db8::10",
        ),
        (cilium("selectors: null"), "spec.selectors is missing; write which pods the policy is for"),
        (
            cilium("selectors: [{nodeSelector: {}}]"),
            "spec.selectors[0] has neither podSelector nor namespaceSelector, and Cilium wants one; write `podSelector: {}` for every pod",
        ),
        (
            selector("matchLabels: {a: 'b c'}"),
            "spec.selectors[0].podSelector.matchLabels[\"a\"]: `b c` cannot be the value of a label: write at most 63 letters, digits, `-`, `_` and `.`, with a letter or digit at both ends",
        ),
        (
            selector("matchLabels: {'reserved:host': ''}"),
            "spec.selectors[0].podSelector.matchLabels[\"reserved:host\"]: `reserved:host` is a label of the source `reserved`, and only labels of Kubernetes are known; write `k8s:`, `any:` or no prefix",
        ),
        (
            selector("matchLabels: {'a b': ''}"),
            "spec.selectors[0].podSelector.matchLabels[\"a b\"]: `a b` is no name of a label; write letters, digits, `-`, `_`, `.` and one `/`",
        ),
        (
            selector("matchLabels: {a: 5}"),
            "spec.selectors[0].podSelector.matchLabels[\"a\"] is the number 5, but must be a text; put it in quotes: \"5\"",
        ),
        (
            selector("matchExpressions: [{operator: Exists}]"),
            "spec.selectors[0].podSelector.matchExpressions[0].key is missing; write the label's name",
        ),
        (
            selector("matchExpressions: [{key: a}]"),
            "spec.selectors[0].podSelector.matchExpressions[0].operator is missing; write In, NotIn, Exists or DoesNotExist",
        ),
        (
            selector("matchExpressions: [{key: a, operator: Gt, values: ['1']}]"),
            "spec.selectors[0].podSelector.matchExpressions[0].operator is `Gt`, but must be In or NotIn or Exists or DoesNotExist",
        ),
        (
            selector("matchExpressions: [{key: a, operator: In, values: []}]"),
            "spec.selectors[0].podSelector.matchExpressions[0].values is empty, and the operator needs at least one value",
        ),
        (
            selector("matchExpressions: [{key: a, operator: Exists, values: [b]}]"),
            "spec.selectors[0].podSelector.matchExpressions[0].values must be empty for this operator; remove it, or write In or NotIn",
        ),
    ] {
        assert_eq!(told(&text)[0], format!("CiliumEgressGatewayPolicy p: {expected}"), "{text}");
        assert!(!any(&text).unfit.is_empty() && any(&text).rules.is_empty(), "{text}");
    }
}
