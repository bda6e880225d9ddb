//! Sizes that nobody means, and what they cost.

use std::fmt::Write;
use std::time::Instant;

use egret::api;
use egret::config::Config;
use egret::egress::explain::Verdict;
use egret::egress::list::{everyone, list};
use egret::egress::model::{PodName, View};
use egret::store::objects::Objects;

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
    assert!(took.as_secs() < 2, "{took:?}");
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
