//! Policies of the three kinds, as users write them, and what is said of those that cannot be obeyed.

mod calico;
mod cilium;

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
            "EgressGatewayPolicy p: spec.enforced is true, and the policy has no spec.selectors, so it is enforced on no pod; write whom it is for"
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
            "spec.enforced is the text \"yes\", but must be true or false",
        ),
        (ours("defaultAction: deny"), "spec.defaultAction is `deny`, but must be Allow or Deny"),
        (
            ours("selectors: [{}], defaultAction: Deny"),
            "spec.selectors[0] has no selector; write `selector: all()` if every pod of the cluster is meant",
        ),
        (
            ours("selectors: [{selector: ''}], defaultAction: Deny"),
            "spec.selectors[0].selector is empty; leave it out; write `all()` if every one is meant",
        ),
        (
            ours("rules: [{destination: {cidr: 10.0.0.0/8, cidrs: [11.0.0.0/8]}}]"),
            "spec.rules[0].destination.cidrs stands beside cidr; move that prefix into the list",
        ),
        (
            ours("rules: [{destination: {cidrs: []}}]"),
            "spec.rules[0].destination.cidrs is empty; write a prefix, or leave `destination` out for everything",
        ),
        (
            ours("rules: [{destination: {cidrs: [10.0.0.0/8, 5]}}]"),
            "spec.rules[0].destination.cidrs[1] is the number 5, but must be a text",
        ),
        (
            ours("excludedCIDRs: [ten]"),
            "spec.excludedCIDRs[0]: `ten` is not an address prefix such as 10.10.10.0/31 or fd00:10::/127",
        ),
        (
            gateway("selector: all(), nodes: [{nodeSelector: all()}]"),
            "spec.rules[0].gateway.selector is for gateway pods, and spec.rules[0].gateway.nodes names nodes; remove one",
        ),
        (gateway("nodes: []"), "spec.rules[0].gateway.nodes has 0 entries; write from 1 to 64"),
        (
            gateway(&format!("nodes: [{many}]")),
            "spec.rules[0].gateway.nodes has 65 entries; write from 1 to 64",
        ),
        (
            gateway("nodes: [{interface: eth1}]"),
            "spec.rules[0].gateway.nodes[0].nodeSelector is missing; a node gateway needs one over the nodes; write `all()` if every one is meant",
        ),
        (
            gateway("nodes: [{nodeSelector: all(), interface: eth1, egressIP: 192.0.2.1}]"),
            "spec.rules[0].gateway.nodes[0].interface `eth1` stands beside egressIP `192.0.2.1`, and only one of them can say the address; remove one",
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
