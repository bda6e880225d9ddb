//! kill -9 at random moments of many ADDs and DELs on three nodes with one directory; at the end, GC.

use std::time::{Duration, Instant};

use egret::testbed::{Pod, Topology};

use crate::books::{assert_in_order, gc, reconcile_command, said, was_killed, without_cooldown};
use crate::lab::{Lab, WANTS_LEASES, nodes};

/// A generator of its own: the moment of a kill need not be secret, and a seed must give the same story again.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }
}

pub(crate) fn number(variable: &str, otherwise: u64) -> u64 {
    std::env::var(variable).ok().and_then(|n| n.parse().ok()).unwrap_or(otherwise)
}

/// `EGRET_FAULT_ROUNDS`: how many verbs (60; 1,000 in `scripts/soak`). `EGRET_FAULT_SEED` gives the same story again.
#[test]
fn killed_at_random_moments_of_many_verbs_nothing_is_lost_doubled_or_leaked() {
    let rounds = number("EGRET_FAULT_ROUNDS", 60);
    let seed = number("EGRET_FAULT_SEED", 1 + u64::from(std::process::id()));
    println!("EGRET_FAULT_ROUNDS={rounds} EGRET_FAULT_SEED={seed}");
    let mut dice = Dice(seed);
    let lab = Lab::raise(Topology { settle: false, ..nodes(3) });
    without_cooldown(&lab);
    let mut live: Vec<Pod> = Vec::new();
    let (mut killed, mut longest) = (0, Duration::from_millis(40));
    for round in 0..rounds {
        let story = format!("seed {seed}, round {round}");
        // Before those whom nobody ended fill the pool.
        if round % 25 == 24 {
            tidy(&lab, &live, &story);
        }
        let deletes = live.len() > 9 || (!live.is_empty() && dice.below(2) == 0);
        let (verb, pod) = if deletes {
            ("del", live.remove(usize::try_from(dice.below(live.len() as u64)).unwrap()))
        } else {
            ("add", sandbox(&lab, &mut dice, round))
        };
        let begun = Instant::now();
        let mut call = lab.cnitool_command(verb, &pod).unwrap();
        // The plugin, and not libcni: the primary's own half-done work is not the question here.
        call.env(
            "EGRET_FAULT_AFTER_MICROS",
            dice.below(u64::try_from(longest.as_micros()).unwrap()).to_string(),
        );
        let output = call.output().unwrap();
        longest = longest.max(begun.elapsed()).min(Duration::from_millis(60));
        if output.status.success() {
            if verb == "add" {
                live.push(pod);
            } else {
                lab.lose_pod(&pod).unwrap();
            }
            continue;
        }
        assert!(was_killed(&output), "{story}: {verb} of {}: {}", pod.name, said(&output));
        killed += 1;
        // Sometimes DEL comes, sometimes nobody does; then the namespace goes.
        if dice.below(2) == 0 {
            lab.cnitool("del", &pod).unwrap_or_else(|e| panic!("{story}: {e}"));
        }
        lab.lose_pod(&pod).unwrap();
    }
    assert!(killed * 8 > rounds, "only {killed} of {rounds} were killed: the moments miss the plugin");
    tidy(&lab, &live, &format!("seed {seed}, {killed} of {rounds} killed"));
    println!(
        "soak: {killed} of {rounds} verbs were killed; {} pods live, nothing lost, doubled or leaked",
        live.len()
    );
}

/// What runtimes do now and then; afterwards the books are right.
fn tidy(lab: &Lab, live: &[Pod], story: &str) {
    for node in 1..=3 {
        let here: Vec<&Pod> = live.iter().filter(|pod| pod.node == node).collect();
        gc(lab, node, Some(&here));
    }
    for node in 1..=3 {
        let output = reconcile_command(lab, node).output().unwrap();
        assert!(output.status.success(), "{story}: {}", said(&output));
    }
    assert_in_order(lab, &live.iter().collect::<Vec<_>>(), story);
}

fn sandbox(lab: &Lab, dice: &mut Dice, round: u64) -> Pod {
    let node = 1 + u8::try_from(dice.below(3)).unwrap();
    let name = match dice.below(5) {
        0 | 1 => format!("gw/g{round}"),
        2 | 3 => format!("shop/c{round}"),
        _ => format!("plain/p{round}"),
    };
    if name.starts_with("gw/") {
        lab.pod_object(&name, &[("egress-code", "red")], &WANTS_LEASES, node).unwrap();
    } else {
        lab.pod_object(&name, &[], &[], node).unwrap();
    }
    lab.sandbox(node, &name).unwrap()
}
