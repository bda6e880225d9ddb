//! Policies in the directory: two kinds of one name, the unfit, and the views that have them.

use super::world::{World, pod, told};
use crate::config::Config;
use crate::egress::model::PodName;
use crate::egress::policy::PolicyKind;

fn ours(name: &str, spec: &str) -> String {
    format!(
        "{{apiVersion: egret.dev/v1alpha1, kind: EgressGatewayPolicy, metadata: {{name: {name}}}, spec: {{{spec}}}}}\n"
    )
}

fn calico(name: &str, spec: &str) -> String {
    ours(name, spec).replace("egret.dev/v1alpha1", "projectcalico.org/v3")
}

fn cilium(name: &str) -> String {
    format!(
        "{{apiVersion: cilium.io/v2, kind: CiliumEgressGatewayPolicy, metadata: {{name: {name}}}, spec: {{selectors: \
         [{{podSelector: {{}}}}], destinationCIDRs: [0.0.0.0/0], egressGateway: {{nodeSelector: {{}}}}}}}}\n"
    )
}

const RULE: &str = "rules: [{destination: {cidr: 10.0.0.0/8}}]";

#[test]
fn of_two_kinds_with_one_name_ours_is_in_force_wherever_it_stands() {
    for (theirs, mine) in [("a.yaml", "b.yaml"), ("b.yaml", "a.yaml")] {
        let world = World::with(&[(theirs, &calico("web", RULE)), (mine, &ours("web", RULE))]);
        let objects = world.open();
        let kinds: Vec<_> = objects.policies().map(|(name, policy)| (name, policy.kind)).collect();
        assert_eq!(kinds, [("web".to_owned(), PolicyKind::Ours)]);
        assert_eq!(
            told(&objects),
            [format!(
                "{theirs}: EgressGatewayPolicy web: metadata.name: EgressGatewayPolicy web of egret.dev in {mine} has the \
                 same name and is in force, because an annotation cannot tell the two apart; delete or rename one of them"
            )]
        );
    }
}

#[test]
fn ours_of_that_name_is_in_force_even_if_it_cannot_be_read() {
    let broken = ours("web", RULE).replace("v1alpha1", "v9");
    let world = World::with(&[("a.yaml", &calico("web", RULE)), ("b.yaml", &broken)]);
    let objects = world.open();
    assert_eq!(objects.policies().count(), 0);
    assert!(objects.broken().contains("EgressGatewayPolicy web"));
}

#[test]
fn ciliums_policies_have_names_of_their_own() {
    let world = World::with(&[("a.yaml", &(calico("web", RULE) + "---\n" + &cilium("web")))]);
    let objects = world.open();
    assert_eq!(
        (objects.policies().count(), objects.cilium_policies().count(), told(&objects)),
        (1, 1, vec![])
    );
}

#[test]
fn both_views_have_the_policies_and_an_unfit_one_brings_its_reasons() {
    let world = World::with(&[
        ("a.yaml", &pod("a", "1")),
        (
            "p.yaml",
            &(calico("bad", "rules: [{gateway: {}}]")
                + "---\n"
                + &ours("good", RULE)
                + "---\n"
                + &cilium("c")),
        ),
    ]);
    // The second time from the cache.
    for objects in [world.open(), world.settle(), world.open()] {
        let config = Config::default();
        for view in
            [objects.view(&config, vec![]), objects.view_for(&config, &[PodName::new("s", "a")], vec![])]
        {
            assert_eq!(view.policies.keys().collect::<Vec<_>>(), ["bad", "good"]);
            assert_eq!(view.cilium_policies.keys().collect::<Vec<_>>(), ["c"]);
            let bad = &view.policies["bad"];
            assert_eq!((bad.unfit.len(), bad.rules.len()), (2, 0));
            assert!(
                bad.unfit.iter().all(|problem| problem.file == "p.yaml" && problem.reason == "EmptySelector")
            );
            assert!(view.broken.is_empty());
        }
    }
}

#[test]
fn a_policy_that_changes_changes_the_fingerprint() {
    let world = World::with(&[("p.yaml", &ours("web", RULE))]);
    let before = world.open().fingerprint();
    world.write("p.yaml", &ours("web", "rules: [{destination: {cidr: 11.0.0.0/8}}]"));
    assert_ne!(world.open().fingerprint(), before);
}
