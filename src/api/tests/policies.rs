//! Policies of the three kinds, as users write them, and what is said of those that cannot be obeyed.

use super::{names, one, read, told};
use crate::api::Object;
use crate::egress::policy::{Policy, PolicyKind, To};

/// A policy without a problem.
fn policy(text: &str) -> Policy {
    let Object::Policy(policy) = one(text) else { panic!("no policy: {text}") };
    assert_eq!(policy.unfit, []);
    policy
}

/// The policy in a text, fit or not.
fn any(text: &str) -> Policy {
    let mut reading = read("x.yaml", text.as_bytes());
    assert_eq!(reading.objects.len(), 1, "{text}");
    let Some(Object::Policy(policy)) = reading.objects.remove(0).object else { panic!("no policy: {text}") };
    policy
}

fn ours(spec: &str) -> String {
    format!(
        "{{apiVersion: egret.dev/v1alpha1, kind: EgressGatewayPolicy, metadata: {{name: p}}, spec: {{{spec}}}}}"
    )
}

fn calico(spec: &str) -> String {
    format!(
        "{{apiVersion: projectcalico.org/v3, kind: EgressGatewayPolicy, metadata: {{name: p}}, spec: {{{spec}}}}}"
    )
}

/// Cilium's, with what it must have where `spec` has not.
fn cilium(spec: &str) -> String {
    let mut spec = spec.to_owned();
    for (key, value) in [
        ("selectors", "[{podSelector: {}}]"),
        ("destinationCIDRs", "[0.0.0.0/0]"),
        ("egressGateway", "{nodeSelector: {}}"),
    ] {
        if !spec.contains(&format!("{key}:")) {
            spec += &format!(", {key}: {value}");
        }
    }
    let spec = spec.trim_start_matches(", ");
    format!(
        "{{apiVersion: cilium.io/v2, kind: CiliumEgressGatewayPolicy, metadata: {{name: p}}, spec: {{{spec}}}}}"
    )
}

/// `field: destination → where`, one per rule.
fn table(policy: &Policy) -> Vec<String> {
    let to = |to: &To| match to {
        To::Direct => "direct".to_owned(),
        To::Pods(gateways) => {
            let most = gateways.max_next_hops.map_or("all".to_owned(), |most| most.to_string());
            let local = if gateways.prefer_local { ", local first" } else { "" };
            format!(
                "{} of {} in {}{local}",
                most,
                gateways.pods,
                gateways.namespaces.as_deref().unwrap_or("-")
            )
        }
        To::Nodes(wishes) => {
            let wishes: Vec<String> = wishes
                .iter()
                .map(|w| format!("{} {} {:?}", w.nodes, w.interface.as_deref().unwrap_or("-"), w.egress_ip))
                .collect();
            wishes.join("; ")
        }
    };
    policy
        .rules
        .iter()
        .map(|rule| format!("{}: {} → {}", rule.field, rule.destination, to(&rule.to)))
        .collect()
}

/// `pods | namespaces | nodes`, one per entry.
fn selected(policy: &Policy) -> Vec<String> {
    let text = |t: &Option<String>| t.clone().unwrap_or_else(|| "-".to_owned());
    let entry = |s: &crate::egress::policy::PodSelection| {
        format!("{} | {} | {}", text(&s.pods), text(&s.namespaces), text(&s.nodes))
    };
    policy.selectors.iter().map(entry).collect()
}

const GATEWAY: &str = "{selector: has(red), namespaceSelector: all()}";

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
            "spec.rules[0].gateway.selector: spec.rules[0].gateway.selector is missing; a gateway needs one over its pods; write `all()` if every one is meant",
        ),
        (
            rule("gateway: {selector: '', namespaceSelector: all()}"),
            "spec.rules[0].gateway.selector: spec.rules[0].gateway.selector is empty; a gateway needs one over its pods; write `all()` if every one is meant",
        ),
        (
            rule("gateway: {selector: all(), namespaceSelector: ' '}"),
            "spec.rules[0].gateway.namespaceSelector: spec.rules[0].gateway.namespaceSelector is empty; a gateway needs one over the namespaces of its pods; write `all()` if every one is meant",
        ),
        (
            rule("gateway: {selector: a = 'b', namespaceSelector: all()}"),
            "spec.rules[0].gateway.selector: the selector does not parse at character 3: a single `=` is no operator; write `==`",
        ),
        (
            rule("gateway: {selector: all(), namespaceSelector: all(), maxNextHops: -1}"),
            "spec.rules[0].gateway.maxNextHops: spec.rules[0].gateway.maxNextHops is the number -1, but must be a whole number from 0 to 4294967295",
        ),
        (
            rule("gatewayPreference: Local"),
            "spec.rules[0].gatewayPreference: spec.rules[0].gatewayPreference is `Local`, but must be None or PreferNodeLocal",
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
            "spec.rules[0].destination: spec.rules[0].destination is the text \"10.0.0.0/8\", but must be a map",
        ),
        (calico("rules: {}"), "spec.rules: spec.rules is a map, but must be a list"),
        (calico("rules: [x]"), "spec.rules[0]: spec.rules[0] is the text \"x\", but must be a map"),
        (
            calico("rules: [{gateway: red}]"),
            "spec.rules[0].gateway: spec.rules[0].gateway is the text \"red\", but must be a map",
        ),
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
            "EgressGatewayPolicy p: spec.rules[0].gatewayPreference: spec.rules[0].gatewayPreference has no effect on a rule without gateway; remove it",
            "EgressGatewayPolicy p: spec.rules[0].destination.cidrs: the field spec.rules[0].destination.cidrs is unknown and has no effect; did you mean `cidr`?",
            "EgressGatewayPolicy p: spec.rules[0].destination.cidr: `10.0.0.1/8` has bits set below its prefix length and is read as 10.0.0.0/8; write that",
            "EgressGatewayPolicy p: spec.rules[1].gateways: the field spec.rules[1].gateways is unknown and has no effect; did you mean `gateway`?",
            "EgressGatewayPolicy p: spec.rules[1].destination.cidr: 169.254.0.0/16 is link-local (169.254.0.0/16), which never goes to a gateway, so it has no effect; remove it",
        ]
    );
    assert_eq!(any(&text).unfit, []);
}

#[test]
fn ours_says_all_that_calicos_and_ciliums_do_and_more() {
    let text = "
apiVersion: egret.dev/v1alpha1
kind: EgressGatewayPolicy
metadata: {name: shop}
spec:
  enforced: true
  selectors:
  - {selector: app == 'cart', namespaceSelector: env == 'production'}
  - {nodeSelector: zone == 'a'}
  rules:
  - destination: {cidrs: [203.0.113.0/24, '2001:db8::/32']}
    gateway: {selector: egress == 'red'}
  - destination: {cidr: 198.51.100.0/24}
    gateway:
      nodes:
      - {nodeSelector: role == 'edge', interface: eth1}
      - {nodeSelector: role == 'edge2', egressIP: 192.0.2.10}
      - {nodeSelector: all()}
  excludedCIDRs: [203.0.113.7, 203.0.113.8/31]
  defaultAction: Deny
";
    let policy = policy(text);
    assert_eq!((policy.kind, policy.enforced, policy.deny_others), (PolicyKind::Ours, true, true));
    assert_eq!(selected(&policy), ["app == 'cart' | env == 'production' | -", "- | - | zone == 'a'"]);
    assert_eq!(
        table(&policy),
        [
            "spec.rules[0]: 203.0.113.0/24 → all of egress == 'red' in -",
            "spec.rules[0]: 2001:db8::/32 → all of egress == 'red' in -",
            "spec.rules[1]: 198.51.100.0/24 → role == 'edge' eth1 None; role == 'edge2' - Some(192.0.2.10); all() - None",
            "spec.excludedCIDRs[0]: 203.0.113.7/32 → direct",
            "spec.excludedCIDRs[1]: 203.0.113.8/31 → direct",
        ]
    );
}

#[test]
fn an_enforced_policy_that_selects_no_pod_is_said() {
    assert_eq!(
        told(&ours("enforced: true, defaultAction: Deny")),
        [
            "EgressGatewayPolicy p: spec.enforced: spec.enforced is true, and the policy has no spec.selectors, so it is enforced on no pod; write whom it is for"
        ]
    );
}

#[test]
fn ours_may_hold_everything_without_a_rule() {
    let policy = policy(&ours("selectors: [{selector: all()}], defaultAction: Deny"));
    assert_eq!((policy.deny_others, policy.rules.len()), (true, 0));
}

#[test]
fn on_one_prefix_the_excluded_one_wins_and_the_rule_is_named() {
    let text = ours(&format!(
        "rules: [{{destination: {{cidr: 10.0.0.0/8}}, gateway: {GATEWAY}}}], excludedCIDRs: [10.0.0.0/8]"
    ));
    assert_eq!(table(&any(&text)), ["spec.excludedCIDRs[0]: 10.0.0.0/8 → direct"]);
    assert_eq!(
        told(&text),
        [
            "EgressGatewayPolicy p: spec.rules[0]: 10.0.0.0/8 is excluded by spec.excludedCIDRs[0], which wins, so spec.rules[0] has no effect on it; remove one"
        ]
    );
}

#[test]
fn what_of_ours_cannot_be_obeyed_is_unfit() {
    let gateway = |gateway: &str| ours(&format!("rules: [{{gateway: {{{gateway}}}}}]"));
    let many = vec!["{nodeSelector: all()}"; 65].join(", ");
    for (text, expected) in [
        (
            ours("enforced: true"),
            "spec.rules: the policy says nothing: it has no rule with a gateway or a destination, no excludedCIDRs, and defaultAction is not `Deny`; write a rule",
        ),
        (
            ours("enforced: 'yes', defaultAction: Deny"),
            "spec.enforced: spec.enforced is the text \"yes\", but must be true or false",
        ),
        (
            ours("defaultAction: deny"),
            "spec.defaultAction: spec.defaultAction is `deny`, but must be Allow or Deny",
        ),
        (
            ours("selectors: [{}], defaultAction: Deny"),
            "spec.selectors[0]: spec.selectors[0] has no selector; write `selector: all()` if every pod of the cluster is meant",
        ),
        (
            ours("selectors: [{selector: ''}], defaultAction: Deny"),
            "spec.selectors[0].selector: spec.selectors[0].selector is empty; leave it out; write `all()` if every one is meant",
        ),
        (
            ours("rules: [{destination: {cidr: 10.0.0.0/8, cidrs: [11.0.0.0/8]}}]"),
            "spec.rules[0].destination.cidrs: spec.rules[0].destination.cidrs stands beside cidr; move that prefix into the list",
        ),
        (
            ours("rules: [{destination: {cidrs: []}}]"),
            "spec.rules[0].destination.cidrs: spec.rules[0].destination.cidrs is empty; write a prefix, or leave `destination` out for everything",
        ),
        (
            ours("rules: [{destination: {cidrs: [10.0.0.0/8, 5]}}]"),
            "spec.rules[0].destination.cidrs[1]: spec.rules[0].destination.cidrs[1] is the number 5, but must be a text",
        ),
        (
            ours("excludedCIDRs: [ten]"),
            "spec.excludedCIDRs[0]: `ten` is not an address prefix such as 10.10.10.0/31 or fd00:10::/127",
        ),
        (
            gateway("selector: all(), nodes: [{nodeSelector: all()}]"),
            "spec.rules[0].gateway.selector: spec.rules[0].gateway.selector is for gateway pods, and spec.rules[0].gateway.nodes names nodes; remove one",
        ),
        (
            gateway("nodes: []"),
            "spec.rules[0].gateway.nodes: spec.rules[0].gateway.nodes has 0 entries; write from 1 to 64",
        ),
        (
            gateway(&format!("nodes: [{many}]")),
            "spec.rules[0].gateway.nodes: spec.rules[0].gateway.nodes has 65 entries; write from 1 to 64",
        ),
        (
            gateway("nodes: [{interface: eth1}]"),
            "spec.rules[0].gateway.nodes[0].nodeSelector: spec.rules[0].gateway.nodes[0].nodeSelector is missing; a node gateway needs one over the nodes; write `all()` if every one is meant",
        ),
        (
            gateway("nodes: [{nodeSelector: all(), interface: eth1, egressIP: 192.0.2.1}]"),
            "spec.rules[0].gateway.nodes[0].interface: interface `eth1` stands beside egressIP `192.0.2.1`, and only one of them can say the address; remove one",
        ),
        (
            gateway("nodes: [{nodeSelector: all(), egressIP: 192.0.2.0/24}]"),
            "spec.rules[0].gateway.nodes[0].egressIP: `192.0.2.0/24` is not an address such as 192.0.2.10 or 2001:db8::10",
        ),
        (
            gateway("nodes: [{nodeSelector: all(), interface: 'eth 1'}]"),
            "spec.rules[0].gateway.nodes[0].interface: `eth 1` is no name of a network interface; write one as `ip link` prints it, such as eth1",
        ),
    ] {
        assert_eq!(told(&text)[0], format!("EgressGatewayPolicy p: {expected}"), "{text}");
        assert!(!any(&text).unfit.is_empty() && any(&text).rules.is_empty(), "{text}");
    }
}

#[test]
fn selectors_that_can_be_read_stay_in_an_unfit_policy() {
    let policy = any(&ours("selectors: [{selector: has(a)}, {selector: (}], rules: [{gateway: {}}]"));
    assert_eq!(selected(&policy), ["has(a) | - | -"]);
    assert_eq!(policy.unfit.len(), 2);
}

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
            "CiliumEgressGatewayPolicy p: spec.egressGateway: spec.egressGateway has no effect beside spec.egressGateways; move it into that list"
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
            "spec.destinationCIDRs: spec.destinationCIDRs is empty; write the destinations, such as 0.0.0.0/0 for all of IPv4",
        ),
        (
            cilium("destinationCIDRs: []"),
            "spec.destinationCIDRs: spec.destinationCIDRs is empty; write the destinations, such as 0.0.0.0/0 for all of IPv4",
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
            "spec.egressGateway: spec.egressGateway is missing, and spec.egressGateways is empty; write where the traffic leaves",
        ),
        (
            cilium("egressGateway: null, egressGateways: null"),
            "spec.egressGateway: spec.egressGateway is missing, and spec.egressGateways is empty; write where the traffic leaves",
        ),
        (
            cilium(&format!("egressGateways: [{many}]")),
            "spec.egressGateways: spec.egressGateways has 65 entries; at most 64 are taken",
        ),
        (
            gateway("interface: eth1"),
            "spec.egressGateway.nodeSelector: spec.egressGateway.nodeSelector is missing; write which nodes, or `{}` for all",
        ),
        (
            gateway("nodeSelector: {}, interface: eth1, egressIP: 10.0.0.1"),
            "spec.egressGateway.interface: interface `eth1` stands beside egressIP `10.0.0.1`, and only one of them can say the address; remove one",
        ),
        (
            gateway("nodeSelector: {}, egressIP: ten"),
            "spec.egressGateway.egressIP: `ten` is not an address such as 192.0.2.10 or 2001:db8::10",
        ),
        (
            cilium("selectors: null"),
            "spec.selectors: spec.selectors is missing; write which pods the policy is for",
        ),
        (
            cilium("selectors: [{nodeSelector: {}}]"),
            "spec.selectors[0]: spec.selectors[0] has neither podSelector nor namespaceSelector, and Cilium wants one; write `podSelector: {}` for every pod",
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
            "spec.selectors[0].podSelector.matchLabels[\"a\"]: spec.selectors[0].podSelector.matchLabels[\"a\"] is the number 5, but must be a text; put it in quotes: \"5\"",
        ),
        (
            selector("matchExpressions: [{operator: Exists}]"),
            "spec.selectors[0].podSelector.matchExpressions[0].key: spec.selectors[0].podSelector.matchExpressions[0].key is missing; write the label's name",
        ),
        (
            selector("matchExpressions: [{key: a}]"),
            "spec.selectors[0].podSelector.matchExpressions[0].operator: spec.selectors[0].podSelector.matchExpressions[0].operator is missing; write In, NotIn, Exists or DoesNotExist",
        ),
        (
            selector("matchExpressions: [{key: a, operator: Gt, values: ['1']}]"),
            "spec.selectors[0].podSelector.matchExpressions[0].operator: spec.selectors[0].podSelector.matchExpressions[0].operator is `Gt`, but must be In or NotIn or Exists or DoesNotExist",
        ),
        (
            selector("matchExpressions: [{key: a, operator: In, values: []}]"),
            "spec.selectors[0].podSelector.matchExpressions[0].values: spec.selectors[0].podSelector.matchExpressions[0].values is empty, and the operator needs at least one value",
        ),
        (
            selector("matchExpressions: [{key: a, operator: Exists, values: [b]}]"),
            "spec.selectors[0].podSelector.matchExpressions[0].values: spec.selectors[0].podSelector.matchExpressions[0].values must be empty for this operator; remove it, or write In or NotIn",
        ),
    ] {
        assert_eq!(told(&text)[0], format!("CiliumEgressGatewayPolicy p: {expected}"), "{text}");
        assert!(!any(&text).unfit.is_empty() && any(&text).rules.is_empty(), "{text}");
    }
}

#[test]
fn a_policy_that_cannot_be_read_at_all_is_known_by_name() {
    for (text, expected) in [
        (calico("").replace("v3", "v2"), "!EgressGatewayPolicy p"),
        (ours("").replace("v1alpha1", "v9"), "!EgressGatewayPolicy p"),
        (cilium("").replace("cilium.io/v2", "cilium.io/v2alpha1"), "!CiliumEgressGatewayPolicy p"),
        (ours("").replace("name: p", "name: P_"), "!EgressGatewayPolicy P_"),
    ] {
        assert_eq!(names(&read("x.yaml", text.as_bytes())), [expected], "{text}");
    }
}

#[test]
fn a_time_that_is_none_makes_no_policy_unfit() {
    let text = ours("defaultAction: Deny").replace("name: p", "name: p, creationTimestamp: yesterday");
    assert_eq!(
        told(&text),
        [
            "EgressGatewayPolicy p: metadata.creationTimestamp: `yesterday` is no time such as 2026-08-21T10:00:00Z, so the policy counts as younger than all others"
        ]
    );
    assert_eq!((any(&text).created, any(&text).unfit.len()), (None, 0));
    assert_eq!(any(&text.replace("yesterday", "null")).created, None);
}

#[test]
fn ten_thousand_rules_are_read() {
    let rules: Vec<String> = (0..10_000)
        .map(|i| format!("{{destination: {{cidr: 10.{}.{}.0/24}}, gateway: {GATEWAY}}}", i / 256, i % 256))
        .collect();
    let policy = policy(&calico(&format!("rules: [{}]", rules.join(", "))));
    assert_eq!(policy.rules.len(), 10_000);
    assert_eq!(policy.rules[9_999].field, "spec.rules[9999]");
}

#[test]
fn a_thousand_policies_are_read() {
    let text: Vec<String> =
        (0..1_000).map(|i| cilium("").replace("name: p", &format!("name: p{i}"))).collect();
    let reading = read("x.yaml", text.join("\n---\n").as_bytes());
    assert_eq!((reading.objects.len(), reading.problems.len()), (1_000, 0));
}
