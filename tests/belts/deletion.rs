//! Each thing that we own, taken away in turn under traffic: nothing leaks, and reconcile puts it back.

use std::collections::BTreeMap;
use std::time::Duration;

use egret::addr::Family;
use egret::kernel::Step;
use egret::kernel::state::State;
use egret::testbed::Pod;

use crate::lab::Lab;
use crate::traffic::Stream;

/// One deletion of each thing in a state.
fn deletions(state: &State) -> Vec<Step> {
    let mut steps: Vec<Step> = state.rules.iter().cloned().map(Step::DelRule).collect();
    steps.extend(state.routes.iter().cloned().map(Step::DelRoute));
    steps.extend(state.nexthops.keys().copied().map(Step::DelNexthop));
    let neighbours = state.neighbours.keys().cloned();
    steps.extend(neighbours.map(|(dev, ip)| Step::DelNeighbour { dev, ip }));
    steps.extend(state.fdb.keys().cloned().map(|(dev, mac)| Step::DelFdb { dev, mac }));
    steps.extend(state.proxies.iter().cloned().map(|(dev, ip)| Step::DelProxy { dev, ip }));
    steps.extend(state.addresses.iter().cloned().map(Step::DelAddress));
    steps.extend(state.links.keys().cloned().map(Step::DelLink));
    steps
}

/// Whether the pod is seen with the lease again, patiently: the router may have to ask for the lease's MAC first.
fn flows(lab: &Lab, pod: &Pod, family: Family) -> bool {
    let to = Lab::outside_address(family);
    let lease = lab.lease(family);
    (0..5).any(|_| pod.tcp(to).is_ok_and(|ip| ip == lease) && pod.udp(to).is_ok_and(|ip| ip == lease))
}

/// Kinds of things that are there to delete where a pod is the gateway.
const KINDS: [&str; 8] =
    ["rule", "route", "nexthop", "neighbour", "forwarding entry", "proxy entry", "address", "device"];
/// Where a node is the gateway.
const KINDS_OF_A_NODE: [&str; 5] = ["rule", "route", "nexthop", "forwarding entry", "device"];

fn kind(step: &Step) -> &'static str {
    match step {
        Step::DelRule(_) => "rule",
        Step::DelRoute(_) => "route",
        Step::DelNexthop(_) => "nexthop",
        Step::DelNeighbour { .. } => "neighbour",
        Step::DelFdb { .. } => "forwarding entry",
        Step::DelProxy { .. } => "proxy entry",
        Step::DelAddress(_) => "address",
        Step::DelLink(_) => "device",
        _ => "no deletion",
    }
}

#[test]
fn whatever_of_ours_is_deleted_nothing_leaks_and_reconcile_puts_it_back() {
    let kinds = delete_each(&Lab::raise());
    assert!(KINDS.iter().all(|kind| kinds.contains_key(kind)), "not every kind was deleted: {kinds:?}");
}

#[test]
fn whatever_a_node_gateway_loses_nothing_leaks_and_reconcile_puts_it_back() {
    let kinds = delete_each(&Lab::raise_by_node());
    assert!(
        KINDS_OF_A_NODE.iter().all(|kind| kinds.contains_key(kind)),
        "not every kind was deleted: {kinds:?}"
    );
}

/// Deletes each thing in turn, and counts the kinds.
fn delete_each(lab: &Lab) -> BTreeMap<&'static str, usize> {
    let capture = lab.capture().unwrap();
    let _traffic = Stream::start(&lab.clients);
    let mut kinds = BTreeMap::<&str, usize>::new();
    for holder in lab.holders() {
        for step in deletions(&holder.state()) {
            let what = format!("{}: {step}", holder.name);
            *kinds.entry(kind(&step)).or_default() += 1;
            capture.restart();
            holder.take(&step);
            std::thread::sleep(Duration::from_millis(60));
            lab.settle().unwrap();
            for node in [1, 2] {
                assert_eq!(lab.missing(node), [""; 0], "after {what}, node {node}");
            }
            for pod in &lab.clients {
                for family in Family::BOTH {
                    assert!(
                        flows(lab, pod, family),
                        "after {what}: {} has no way out in {family:?}",
                        pod.name
                    );
                }
            }
            lab.assert_clean(&capture, &what);
        }
    }
    kinds
}
