//! Many at once: on one node, and on four nodes that claim from one small pool.

use std::collections::BTreeSet;

use egret::testbed::{Pod, Topology};

use crate::books::{assert_in_order, gc, reconcile_command, said, without_cooldown};
use crate::lab::{Lab, WANTS_LEASES, nodes};

/// Every pod's ADD (or DEL) at the same moment, by its runtime.
fn at_once(lab: &Lab, verb: &str, pods: &[Pod]) -> Vec<Result<String, String>> {
    std::thread::scope(|scope| {
        let calls: Vec<_> = pods.iter().map(|pod| scope.spawn(move || call(lab, verb, pod))).collect();
        calls.into_iter().map(|call| call.join().unwrap()).collect()
    })
}

/// As a runtime calls.
fn call(lab: &Lab, verb: &str, pod: &Pod) -> Result<String, String> {
    if verb == "add" { lab.add(pod) } else { lab.cnitool(verb, pod) }.map_err(|e| e.to_string())
}

fn settle(lab: &Lab) {
    for node in lab.topology().node_numbers() {
        let output = reconcile_command(lab, node).output().unwrap();
        assert!(output.status.success(), "{}", said(&output));
    }
}

#[test]
fn fifty_pods_at_once_on_a_node_of_which_eight_are_gateways() {
    let mut topology = Topology { settle: false, ..nodes(1) };
    // Fifty in a row may take longer than one pod's runtime would wait for it on two busy cores.
    topology.egret_keys.insert("lockTimeout".into(), 120_000.into());
    let lab = Lab::raise(topology);
    without_cooldown(&lab);
    let pods: Vec<Pod> = (0..50)
        .map(|n| {
            let name = if n % 6 == 0 && n < 48 { format!("gw/g{n}") } else { format!("shop/c{n}") };
            let gateway = name.starts_with("gw/");
            let (labels, annotations) =
                if gateway { (&[("egress-code", "red")][..], &WANTS_LEASES[..]) } else { (&[][..], &[][..]) };
            lab.pod_object(&name, labels, annotations, 1).unwrap();
            lab.sandbox(1, &name).unwrap()
        })
        .collect();
    for (pod, result) in pods.iter().zip(at_once(&lab, "add", &pods)) {
        result.unwrap_or_else(|e| panic!("{}: {e}", pod.name));
    }
    // Each call left the kernel as the plan has it: no reconcile in between.
    assert_in_order(&lab, &pods.iter().collect::<Vec<_>>(), "fifty ADDs at once");
    for pod in pods.iter().filter(|pod| pod.name.namespace == "shop").take(3) {
        lab.leaves_as_predicted(pod);
    }
    for (pod, result) in pods.iter().zip(at_once(&lab, "del", &pods)) {
        result.unwrap_or_else(|e| panic!("{}: {e}", pod.name));
    }
    // A DEL that could not have the node's lock in time is left to GC.
    gc(&lab, 1, Some(&[]));
    assert_in_order(&lab, &[], "fifty DELs at once");
}

#[test]
fn four_nodes_at_once_share_a_small_pool_and_the_rest_hear_how_full_it_is() {
    let lab = Lab::bare(Topology { settle: false, ..nodes(4) });
    for (name, cidr) in [("red", "10.10.10.0/29"), ("red6", "fd00:10:10::10/125")] {
        lab.pool(name, cidr, "all()");
    }
    lab.namespace("gw", &[], &[]).unwrap();
    let pods: Vec<Pod> = (0..12)
        .map(|n| {
            let (name, node) = (format!("gw/g{n}"), 1 + n % 4);
            lab.pod_object(&name, &[("egress-code", "red")], &WANTS_LEASES, node).unwrap();
            lab.sandbox(node, &name).unwrap()
        })
        .collect();
    let results = at_once(&lab, "add", &pods);
    let live: Vec<&Pod> = pods.iter().zip(&results).filter(|(_, r)| r.is_ok()).map(|(pod, _)| pod).collect();
    assert_eq!(live.len(), 8, "eight addresses, eight gateways: {results:?}");
    for refused in results.iter().filter_map(|r| r.as_ref().err()) {
        assert!(refused.contains("8 of 8"), "{refused}");
    }
    settle(&lab);
    assert_in_order(&lab, &live, "twelve gateways for eight addresses");
    let leases: BTreeSet<_> = live.iter().flat_map(|pod| lab.leases(pod)).collect();
    assert_eq!(leases.len(), 16, "eight of each family");
}
