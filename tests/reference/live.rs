//! Decisions that follow changes are those that are made from nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use egret::egress::model::{PodName, Resolution};
use egret::egress::numbering::Numbering;
use egret::egress::plan::{Here, LocalPod};
use egret::egress::planning::{Inputs, Planned};
use egret::egress::resolve::{Live, resolve};
use egret::node::kept::Kept;
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
            prop_assert_eq!(&changed, &differ(&before, &now), "who changed with {}", pod);
        }
    }
}

/// The pods among those of two resolutions whose decisions differ.
fn differ(before: &Resolution, now: &Resolution) -> BTreeSet<PodName> {
    let all = before.decisions.keys().chain(now.decisions.keys());
    all.filter(|pod| before.decisions.get(pod) != now.decisions.get(pod)).cloned().collect()
}

proptest! {
    #![proptest_config(crate::worlds())]

    /// From one view to the next: with other pods, other gateways' labels, other policies, other pods asked for.
    #[test]
    fn a_view_that_follows_another_is_decided_as_from_nothing(
        choices in prop::collection::vec(any::<u8>(), 0..400),
        others in prop::collection::vec(any::<u8>(), 0..400),
        steps in prop::collection::vec((any::<u8>(), any::<u8>(), 0..8_u8), 1..12),
    ) {
        let other = manifests::view(&World::of(&others));
        let mut view = manifests::view(&World::of(&choices));
        let all: Vec<PodName> = view.pods.keys().chain(other.pods.keys()).cloned().collect();
        let mut asked: BTreeSet<PodName> = all.iter().cloned().collect();
        let mut live = Live::of(view.clone(), asked.clone());
        for (first, second, kind) in steps {
            for n in [first, second] {
                let pod = &all[usize::from(n) % all.len()];
                match kind {
                    0 => drop(asked.remove(pod)),
                    1 => drop(asked.insert(pod.clone())),
                    2 => drop(view.pods.remove(pod)),
                    3 => view.policies = other.policies.clone(),
                    _ => drop(other.pods.get(pod).and_then(|object| view.pods.insert(pod.clone(), object.clone()))),
                }
            }
            let before = live.resolution().clone();
            let changed = live.follow(view.clone().into(), &asked);
            let now = sorted(resolve(&view, asked.clone()));
            prop_assert_eq!(live.resolution(), &now, "after a change of kind {}", kind);
            if let Some(changed) = changed {
                prop_assert_eq!(changed, differ(&before, &now), "who changed, kind {}", kind);
            }
        }
    }
}

pub(crate) fn here() -> Here {
    Here {
        node: "n0".into(),
        underlay: "192.168.0.1".parse().unwrap(),
        port: 4790,
        vni: 4097,
        tunnel_mtu: 1450,
        veth_mtu: 1500,
        mark_mask: 0x7f,
        ipv6: true,
        hash_ports: true,
        uplinks: Vec::new().into(),
        outward: BTreeSet::new(),
        doors: BTreeMap::new(),
    }
}

/// Every pod is wired here; where `shared`, some have the address of another.
pub(crate) fn locals(pods: &BTreeSet<PodName>, shared: bool) -> Vec<LocalPod> {
    let local = |(n, pod): (u8, &PodName)| LocalPod {
        attachment: format!("pods/{}-{}/eth0", pod.namespace, pod.name),
        pod: Some(pod.clone()),
        addresses: vec![
            [10, 244, 0, if shared { n / 2 } else { n }].into(),
            IpAddr::from([0xfd01, 0, 0, 0, 0, 0, 0, n.into()]),
        ],
        networks: Vec::new(),
    };
    (1..).zip(pods).map(local).collect()
}

proptest! {
    #![proptest_config(crate::worlds())]

    #[test]
    fn a_plan_that_follows_one_pod_is_the_plan_from_nothing(
        choices in prop::collection::vec(any::<u8>(), 0..400),
        others in prop::collection::vec(any::<u8>(), 0..400),
        shared: bool,
    ) {
        let mut view = manifests::view(&World::of(&choices));
        for (endpoint, n) in view.endpoints.iter_mut().zip(0..) {
            endpoint.underlay = vec![[192, 168, 0, 1 + n].into()];
        }
        let other = manifests::view(&World::of(&others));
        let asked: BTreeSet<PodName> = view.pods.keys().chain(other.pods.keys()).cloned().collect();
        let (here, locals) = (here(), locals(&asked, shared));
        let mut live = Live::of(view, asked.clone());
        fn inputs<'a>(live: &'a Live, here: &'a Here, locals: &'a [LocalPod]) -> Inputs<'a> {
            Inputs { here, view: live.view(), locals, resolution: live.resolution(), inside: &[] }
        }
        let mut planned = Planned::of(&inputs(&live, &here, &locals), &mut Numbering::default());
        for pod in &asked {
            let changed = live.replace_pod(pod, other.pods.get(pod).cloned());
            let inputs = inputs(&live, &here, &locals);
            let numbering = Numbering::of(&planned.plan);
            let anew = Planned::of(&inputs, &mut numbering.clone());
            if changed.iter().any(|other| other != pod) {
                planned = anew; // a gateway's pod
                continue;
            }
            for pod in &changed {
                planned.follow(&inputs, pod, &mut numbering.clone());
            }
            prop_assert_eq!(&planned.plan.clients, &anew.plan.clients, "clients after {} changed", pod);
            prop_assert_eq!(&planned.plan.sets, &anew.plan.sets, "sets after {} changed", pod);
            prop_assert_eq!(&planned.plan.gateways, &anew.plan.gateways, "gateways after {} changed", pod);
            prop_assert_eq!(&planned.plan.exits, &anew.plan.exits, "exits after {} changed", pod);
            if !changed.is_empty() {
                prop_assert_eq!(&planned, &anew, "after {} changed", pod);
            }
        }
    }
}

proptest! {
    #![proptest_config(crate::worlds())]

    /// What the agent does at each update, while pods, policies, addresses and the plan applied change.
    #[test]
    fn what_is_kept_between_updates_changes_no_plan(
        choices in prop::collection::vec(any::<u8>(), 0..400),
        others in prop::collection::vec(any::<u8>(), 0..400),
        steps in prop::collection::vec((any::<u8>(), 0..9_u8), 1..16),
    ) {
        let other = manifests::view(&World::of(&others));
        let mut view = manifests::view(&World::of(&choices));
        let asked: BTreeSet<PodName> = view.pods.keys().chain(other.pods.keys()).cloned().collect();
        let all: Vec<PodName> = asked.iter().cloned().collect();
        let (here, mut locals) = (here(), locals(&asked, true));
        let kept = Kept::default();
        let mut applied = None;
        for (n, kind) in steps {
            let pod = &all[usize::from(n) % all.len()];
            match kind {
                0 => locals.rotate_left(1),
                1 => drop(view.pods.remove(pod)),
                2 => view.policies = other.policies.clone(),
                3 => applied = None,
                4 => {}
                _ => drop(other.pods.get(pod).and_then(|object| view.pods.insert(pod.clone(), object.clone()))),
            }
            let now = Arc::new(view.clone());
            let resolution = kept.resolution(&now, asked.clone());
            let inputs =
                Inputs { here: &here, view: &now, locals: &locals, resolution: &resolution, inside: &[] };
            let numbering = applied.as_ref().map(Numbering::of).unwrap_or_default();
            let planned = kept.plan(applied.as_ref(), &inputs, &mut numbering.clone());
            let resolution = sorted(resolve(&view, asked.clone()));
            let anew = Planned::of(&Inputs { resolution: &resolution, ..inputs }, &mut numbering.clone());
            prop_assert_eq!(&planned, &anew, "after a change of kind {}", kind);
            applied = Some(planned.plan);
        }
    }
}
