//! The resolver beside a second one: a hundred naive lines, written from the documents alone, and asked about the same random worlds.
//!
//! `EGRET_WORLDS=N` asks about so many worlds (1,500 without it; 256 where worlds change). A world that differs is shrunk and printed whole.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is a test's report")]

mod limits;
mod live;
mod manifests;
mod model;
mod world;

use std::collections::BTreeSet;
use std::net::IpAddr;

use egret::addr::{Cidr, Family};
use egret::egress::explain::Verdict;
use egret::egress::list::{Row, list};
use egret::egress::model::{PodName, View};
use proptest::prelude::*;

use model::Outcome;
use world::World;

fn worlds() -> ProptestConfig {
    worlds_or(256)
}

/// As many as the environment says, or else so many.
fn worlds_or(otherwise: u32) -> ProptestConfig {
    let cases = std::env::var("EGRET_WORLDS").ok().and_then(|n| n.parse().ok()).unwrap_or(otherwise);
    ProptestConfig { cases, failure_persistence: None, max_shrink_iters: 200, ..ProptestConfig::default() }
}

/// What a pod does with a destination, in our resolver's view: the longest prefix of its rows.
fn listed(rows: &[Row], destination: IpAddr) -> Outcome {
    let holding = rows.iter().filter(|row| row.destination.contains(destination));
    let row = holding.max_by_key(|row| row.destination.prefix()).expect("a row for every destination");
    match row.action {
        Verdict::Direct => Outcome::Direct,
        Verdict::Held => Outcome::Held,
        Verdict::Gateway => {
            Outcome::Through(row.gateways.iter().map(|g| g.egress_address.expect("an address")).collect())
        }
    }
}

/// Where the two differ, as sentences.
fn differences(world: &World, view: &View) -> Vec<String> {
    let mut wrong = Vec::new();
    for (number, pod) in world.pods.iter().enumerate() {
        let listing = list(view, [PodName::new(&pod.namespace, format!("pod-{number}"))]);
        for destination in world::destinations() {
            let ours = listed(&listing.items, destination);
            let theirs = model::decide(world, pod, destination);
            if !theirs.admits(&ours) {
                wrong.push(format!("pod-{number} to {destination}: resolver {ours:?}, model {theirs:?}"));
            }
        }
    }
    wrong
}

proptest! {
    // Where two policies meet in one prefix is one world of some hundreds, and only one whose choices reach to its policies.
    #![proptest_config(worlds_or(1500))]

    #[test]
    fn two_resolvers_agree(choices in prop::collection::vec(any::<u8>(), 250..500)) {
        let world = World::of(&choices);
        let view = manifests::view(&world);
        let wrong = differences(&world, &view);
        prop_assert!(wrong.is_empty(), "{}\n{:#?}\n{}", wrong.join("\n"), world, manifests::text(&world));
    }
}

#[test]
fn the_worlds_are_worth_asking_about() {
    let mut seen = BTreeSet::new();
    let mut state = 1_u64;
    for _ in 0..2000 {
        let mut byte = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        };
        let world = World::of(&std::iter::repeat_with(&mut byte).take(400).collect::<Vec<_>>());
        for (pod, destination) in
            world.pods.iter().flat_map(|pod| world::destinations().map(move |d| (pod, d)))
        {
            let family = Family::of(destination);
            seen.insert((
                family,
                match model::decide(&world, pod, destination) {
                    Outcome::Direct => "direct",
                    Outcome::Held => "held",
                    Outcome::Through(all) if all.len() > 1 => "several",
                    Outcome::Through(_) => "one",
                    Outcome::Some(..) => "some",
                },
            ));
        }
    }
    assert_eq!(seen.len(), 10, "{seen:?}");
}

#[test]
fn a_model_that_thinks_otherwise_is_heard() {
    let mut heard = 0;
    for n in 0..200_u8 {
        let choices: Vec<u8> = (0..=255).map(|i: u8| i.wrapping_mul(31).wrapping_add(n)).collect();
        let world = World::of(&choices);
        let mut other = world.clone();
        other.policies.iter_mut().for_each(|policy| policy.enforced = !policy.enforced);
        heard += usize::from(!differences(&other, &manifests::view(&world)).is_empty());
    }
    assert!(heard > 10, "{heard} of 200");
}

fn cidr(text: &str) -> Cidr {
    text.parse().unwrap()
}
