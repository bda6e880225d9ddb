//! Decisions that follow changes are those that are made from nothing.

use std::collections::BTreeSet;

use egret::egress::model::{PodName, Resolution};
use egret::egress::resolve::{Live, resolve};
use proptest::prelude::*;

use crate::manifests;
use crate::world::World;

fn sorted(mut resolution: Resolution) -> Resolution {
    resolution.problems.sort();
    resolution
}

proptest! {
    #![proptest_config(crate::worlds())]

    /// Both worlds have the same policies, pools, nodes and endpoints; the pods and gateways' labels differ.
    #[test]
    fn one_pod_after_another_ends_where_a_new_beginning_does(
        choices in prop::collection::vec(any::<u8>(), 0..400),
        others in prop::collection::vec(any::<u8>(), 0..400),
    ) {
        let view = manifests::view(&World::of(&choices));
        let other = manifests::view(&World::of(&others));
        let asked: BTreeSet<PodName> = view.pods.keys().chain(other.pods.keys()).cloned().collect();
        let mut live = Live::of(view, asked.clone());
        for pod in &asked {
            let before = live.resolution().clone();
            let changed = live.replace_pod(pod, other.pods.get(pod).cloned());
            let now = sorted(resolve(live.view(), asked.clone()));
            prop_assert_eq!(live.resolution(), &now, "after {} changed", pod);
            let differ = asked.iter().filter(|pod| before.decisions.get(pod) != now.decisions.get(pod));
            prop_assert_eq!(&changed, &differ.cloned().collect::<BTreeSet<_>>(), "who changed with {}", pod);
        }
    }
}
