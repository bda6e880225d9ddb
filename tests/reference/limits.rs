//! Sizes that nobody means, and what they cost.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::time::Instant;

use egret::api;
use egret::config::Config;
use egret::egress::explain::Verdict;
use egret::egress::list::{everyone, list};
use egret::egress::model::{EgressAddress, Endpoint, EndpointState, PodName, View};
use egret::egress::numbering::Numbering;
use egret::egress::numbers::gateway_mac;
use egret::egress::plan::Verdict as Planned;
use egret::egress::planning::{Inputs, plan};
use egret::egress::resolve::resolve;
use egret::store::objects::Objects;

use crate::live;

fn view(manifests: &str) -> View {
    let reading = api::read("case.yaml", manifests.as_bytes());
    Objects::of(vec![("case.yaml".to_owned(), reading)]).unwrap().view(&Config::default(), Vec::new())
}

#[test]
fn ten_thousand_rules_in_a_policy_are_obeyed_and_take_no_time() {
    let mut text = String::from(
        "{apiVersion: v1, kind: Namespace, metadata: {name: shop, annotations: {egret.dev/egressGatewayPolicy: big}}}\n\
         ---\n{apiVersion: v1, kind: Pod, metadata: {namespace: shop, name: cart}}\n\
         ---\napiVersion: egret.dev/v1alpha1\nkind: EgressGatewayPolicy\nmetadata: {name: big}\nspec:\n  rules:\n",
    );
    for n in 0..10_000 {
        writeln!(text, "  - destination: {{cidr: 100.{}.{}.0/24}}", n / 250, n % 250).unwrap();
    }
    let view = view(&text);
    let begun = Instant::now();
    let listing = list(&view, everyone(&view));
    let took = begun.elapsed();
    let direct = listing.items.iter().filter(|row| row.action == Verdict::Direct && row.decided_by.is_some());
    assert_eq!((direct.count(), listing.problems.len()), (10_000, 0));
    // The right order of magnitude on any machine: ten thousand rules that were compared in pairs would take minutes.
    assert!(took.as_secs() < 60, "{took:?}");
}

#[test]
fn a_rule_that_is_wrong_among_ten_thousand_is_named() {
    let mut text = String::from(
        "{apiVersion: v1, kind: Namespace, metadata: {name: shop, annotations: {egret.dev/egressGatewayPolicy: big}}}\n\
         ---\napiVersion: egret.dev/v1alpha1\nkind: EgressGatewayPolicy\nmetadata: {name: big}\nspec:\n  rules:\n",
    );
    for n in 0..10_000 {
        let cidr =
            if n == 7_777 { "100.0.0.0/24".to_owned() } else { format!("100.{}.{}.0/24", n / 250, n % 250) };
        writeln!(text, "  - destination: {{cidr: {cidr}}}").unwrap();
    }
    let listing = list(&view(&text), [PodName::new("shop", "cart")]);
    assert!(listing.items.iter().all(|row| row.action == Verdict::Held));
    assert!(listing.items[0].reason.contains("spec.rules[7777]"), "{}", listing.items[0].reason);
}

#[test]
fn more_gateway_sets_than_mark_numbers_hold_the_last_pods_and_name_the_knob() {
    let mut text = String::from(
        "{apiVersion: egret.dev/v1alpha1, kind: EgressPool, metadata: {name: red}, spec: {cidr: 10.10.0.0/24, \
         gatewayNamespaces: all(), clientNamespaces: all()}}\n",
    );
    let mut endpoints = Vec::new();
    for n in 0..100_u8 {
        writeln!(text, "---\n{{apiVersion: v1, kind: Namespace, metadata: {{name: ns-{n:03}, annotations: {{egret.dev/selector: all()}}}}}}").unwrap();
        endpoints.push(Endpoint {
            pod: PodName::new(format!("ns-{n:03}"), "gw"),
            uid: None,
            attachment: format!("pods/gw-{n}/eth0"),
            node: "far".into(),
            underlay: vec![[192, 168, 0, 2].into()],
            vni: 5000,
            mac: gateway_mac([10, 10, 0, n].into()),
            addresses: vec![EgressAddress::leased([10, 10, 0, n].into(), "red")],
            state: EndpointState::Ready,
            generation: 1,
            problems: Vec::new(),
        });
    }
    let view = View { endpoints, ..view(&text) };
    let pods: BTreeSet<PodName> = (0..100).map(|n| PodName::new(format!("ns-{n:03}"), "cart")).collect();
    let (here, locals) = (live::here(), live::locals(&pods, false));
    let resolution = resolve(&view, pods.clone());
    let inputs = Inputs { here: &here, view: &view, locals: &locals, resolution: &resolution, inside: &[] };
    let (planned, problems) = plan(&inputs, &mut Numbering::default());
    let held =
        planned.bindings.values().filter(|b| b.rules.values().all(|verdict| *verdict == Planned::Held));
    assert_eq!((planned.sets.len(), held.count()), (0x5f, 100 - 0x5f));
    let problem = problems.iter().find(|problem| problem.reason == "TooManyGatewaySets").unwrap();
    assert!(
        problem.message.contains("more than 95") && problem.message.contains("share gateways"),
        "{problem}"
    );
}
