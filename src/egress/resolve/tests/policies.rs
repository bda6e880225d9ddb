//! Policies: by annotation, by their own selectors, in tiers; node gateways.

use super::*;
use crate::egress::interfaces::{Interface, Interfaces};
use crate::egress::policy::{NodeGatewayWish, PodGateways, PodSelection, Policy, PolicyKind, PolicyRule, To};

const POLICY: &str = "egress.projectcalico.org/egressGatewayPolicy";

pub(super) fn to_red() -> To {
    To::Pods(PodGateways {
        pods: "role == 'egress'".into(),
        namespaces: Some("team == 'net'".into()),
        max_next_hops: None,
        prefer_local: false,
    })
}

fn to_node(nodes: &str, interface: Option<&str>, egress_ip: Option<&str>) -> To {
    To::Nodes(vec![NodeGatewayWish {
        nodes: nodes.into(),
        interface: interface.map(Into::into),
        egress_ip: egress_ip.map(|ip| ip.parse().unwrap()),
    }])
}

fn policy(kind: PolicyKind, name: &str, rules: &[(&str, To)]) -> Policy {
    let rule = |(i, (cidr, to)): (usize, &(&str, To))| PolicyRule {
        destination: cidr.parse().unwrap(),
        field: format!("spec.rules[{i}]"),
        to: to.clone(),
    };
    Policy {
        name: name.into(),
        kind,
        created: None,
        enforced: false,
        selectors: Vec::new(),
        rules: rules.iter().enumerate().map(rule).collect(),
        deny_others: false,
        ignores_other_family: kind == PolicyKind::Cilium,
        unfit: Vec::new(),
    }
}

pub(super) fn ours(name: &str, rules: &[(&str, To)]) -> Policy {
    policy(PolicyKind::Ours, name, rules)
}

/// Cilium's kind, over pods with the label `app=web`.
fn cilium(name: &str, rules: &[(&str, To)]) -> Policy {
    selecting("app == 'web'", policy(PolicyKind::Cilium, name, rules))
}

pub(super) fn selecting(pods: &str, policy: Policy) -> Policy {
    let entry = PodSelection { pods: Some(pods.into()), ..PodSelection::default() };
    Policy { selectors: vec![entry], ..policy }
}

pub(super) fn with(mut view: View, policies: impl IntoIterator<Item = Policy>) -> View {
    for policy in policies {
        let map = match policy.kind {
            PolicyKind::Cilium => &mut view.cilium_policies,
            _ => &mut view.policies,
        };
        map.insert(policy.name.clone(), policy);
    }
    view
}

fn interfaces(view: &mut View, node: &str, links: &[(&str, &[&str])]) {
    let link = |(name, ips): &(&str, &[&str])| Interface {
        name: (*name).into(),
        altnames: Vec::new(),
        addresses: ips.iter().map(|ip| ip.parse().unwrap()).collect(),
        ways: None,
    };
    let links = links.iter().map(link).collect();
    view.interfaces.insert(node.into(), Interfaces { links, default4: None, default6: None });
}

/// Rules of a pod as `PREFIX ACTION by OBJECT FIELD`.
fn rules(view: &View, pod: &str) -> Vec<String> {
    let decision = decide(view, pod);
    let line = |(cidr, outcome): (&Cidr, &Outcome)| {
        let action = match &outcome.action {
            Action::Direct => "direct".to_owned(),
            Action::Held(_) => "held".to_owned(),
            Action::Through(gateways) => gateways.iter().cloned().collect::<Vec<_>>().join("+"),
        };
        let by = outcome.decided_by.as_ref().map(|by| format!("{} {}", by.object, by.field));
        format!("{cidr} {action} by {}", by.unwrap_or_else(|| "the annotation".into()))
    };
    decision.rules.iter().map(line).collect()
}

#[test]
fn a_policy_named_by_an_annotation_decides_by_the_longest_prefix() {
    let web = ours("web", &[("0.0.0.0/0", to_red()), ("::/0", to_red()), ("10.0.0.0/8", To::Direct)]);
    let view = with(world(), [web]).pod("shop/cart", "", &[(POLICY, "web")]);
    assert_eq!(
        rules(&view, "shop/cart"),
        [
            format!("0.0.0.0/0 {BOTH_GATEWAYS} by EgressGatewayPolicy web spec.rules[0]"),
            "10.0.0.0/8 direct by EgressGatewayPolicy web spec.rules[2]".to_owned(),
            format!("::/0 {BOTH_GATEWAYS} by EgressGatewayPolicy web spec.rules[1]"),
        ]
    );
    assert_eq!(decide(&view, "shop/cart").decided_by.unwrap().object, "Pod shop/cart");
    assert_eq!(problems(&view, "shop/cart"), Vec::<String>::new());
}

#[test]
fn enforced_comes_before_annotations_and_they_before_what_selects_by_itself() {
    let guard =
        Policy { enforced: true, ..selecting("app == 'web'", ours("guard", &[("10.0.0.0/8", To::Direct)])) };
    let all = cilium("all", &[("0.0.0.0/0", to_node("all()", None, None)), ("192.0.2.0/24", To::Direct)]);
    let mine = ours("mine", &[("10.1.0.0/16", to_red()), ("192.0.0.0/8", to_red())]);
    let mut view = with(world(), [guard, all, mine]).pod("shop/cart", "app=web", &[(POLICY, "mine")]);
    interfaces(&mut view, "n1", &[("eth0", &["192.168.0.1"])]);
    assert_eq!(
        rules(&view, "shop/cart"),
        [
            "0.0.0.0/0 node/n1/eth0/192.168.0.1 by CiliumEgressGatewayPolicy all spec.rules[0]".to_owned(),
            "10.0.0.0/8 direct by EgressGatewayPolicy guard spec.rules[0]".to_owned(),
            format!("192.0.0.0/8 {BOTH_GATEWAYS} by EgressGatewayPolicy mine spec.rules[1]"),
        ]
    );
}

#[test]
fn a_node_gateway_leaves_with_what_its_policy_names_and_says_who_it_is() {
    let mut view = with(
        world(),
        [
            cilium(
                "a",
                &[
                    ("0.0.0.0/0", to_node("all()", Some("eth1"), None)),
                    ("::/0", to_node("all()", Some("eth1"), None)),
                ],
            ),
            cilium("b", &[("192.0.2.0/24", to_node("all()", None, Some("192.0.2.9")))]),
        ],
    )
    .pod("shop/web", "app=web", &[]);
    interfaces(
        &mut view,
        "n1",
        &[("eth0", &["192.168.0.1"]), ("eth1", &["198.51.100.7", "fe80::1", "2001:db8::7"])],
    );
    let resolution = resolve(&view, [pod_name("shop/web")]);
    assert_eq!(
        resolution.node_gateways.keys().collect::<Vec<_>>(),
        ["node/n1/eth1/198.51.100.7,2001:db8::7"],
        "decisions speak of one"
    );
    let held = &resolution.decisions[&pod_name("shop/web")].rules[&"192.0.2.0/24".parse().unwrap()];
    let Action::Held(why) = &held.action else { panic!("{held:?}") };
    assert!(why.starts_with("no interface of node n1 has the address 192.0.2.9"), "{why}");
    let (all, said) = node_gateways(&view);
    assert_eq!(all.len(), 1);
    assert_eq!(said.len(), 1);
    assert_eq!(
        (said[0].object.as_str(), said[0].reason.as_str()),
        ("CiliumEgressGatewayPolicy b", "NoEgressAddress")
    );
}

#[test]
fn the_family_that_no_rule_names_is_held_unless_its_policy_says_ignore() {
    let to_v4 = || ours("v4", &[("0.0.0.0/0", to_red())]);
    let of = |policies: Vec<Policy>| with(world(), policies).pod("shop/cart", "app=web", &[(POLICY, "v4")]);
    let sent = format!("0.0.0.0/0 {BOTH_GATEWAYS} by EgressGatewayPolicy v4 spec.rules[0]");
    let held = "::/0 held by EgressGatewayPolicy v4 spec.rules[0]".to_owned();
    assert_eq!(rules(&of(vec![to_v4()]), "shop/cart"), [sent.clone(), held.clone()]);
    let ignoring = Policy { ignores_other_family: true, ..to_v4() };
    assert_eq!(rules(&of(vec![ignoring.clone()]), "shop/cart"), std::slice::from_ref(&sent));
    // A policy for a part of the internet says nothing about the rest of it, in either family.
    let part = ours("v4", &[("10.0.0.0/8", to_red())]);
    assert_eq!(rules(&of(vec![part]), "shop/cart").len(), 1);
    // Where a later tier speaks of the family, it decides there.
    let later = selecting("app == 'web'", ours("v6", &[("::/0", To::Direct)]));
    let spoken = "::/0 direct by EgressGatewayPolicy v6 spec.rules[0]".to_owned();
    for first in [to_v4(), ignoring] {
        assert_eq!(rules(&of(vec![first, later.clone()]), "shop/cart"), [sent.clone(), spoken.clone()]);
    }
    let decision = decide(&of(vec![to_v4()]), "shop/cart");
    let Action::Held(why) = &outcome(&decision, Family::V6).action else { panic!("{decision:?}") };
    assert_eq!(
        why,
        "EgressGatewayPolicy v4 sends all of IPv4 to gateways and says nothing of IPv6, which would leave with another address: \
         add a rule for ::/0, without gateway if it may go direct"
    );
}

#[test]
fn a_binding_over_two_lists_has_one_name_whoever_was_asked_first() {
    let list = |interface: &str| {
        let entry = |nodes: &str| NodeGatewayWish {
            nodes: nodes.into(),
            interface: Some(interface.into()),
            egress_ip: None,
        };
        To::Nodes(vec![entry("has(first)"), entry("has(second)")])
    };
    let both = cilium("both", &[("10.0.0.0/8", list("eth0")), ("11.0.0.0/8", list("eth1"))]);
    let other =
        selecting("app == 'db'", policy(PolicyKind::Cilium, "other", &[("12.0.0.0/8", list("eth1"))]));
    let mut view = with(world(), [both, other]).pod("shop/web", "app=web", &[]).pod("shop/db", "app=db", &[]);
    for (node, label) in [("n1", "first"), ("n2", "second")] {
        view.nodes.get_mut(node).unwrap().labels.insert(label.into(), String::new());
        interfaces(&mut view, node, &[("eth0", &["192.0.2.1"]), ("eth1", &["192.0.2.2"])]);
    }
    let binding = |asked: [&str; 2]| {
        resolve(&view, asked.map(pod_name)).decisions[&pod_name("shop/web")].binding.clone()
    };
    let name = binding(["shop/web", "shop/db"]);
    assert!(name.contains("of list 1"), "{name}");
    assert_eq!(name, binding(["shop/db", "shop/web"]));
}
