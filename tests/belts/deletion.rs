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

#[test]
fn whatever_of_ours_is_deleted_nothing_leaks_and_reconcile_puts_it_back() {
    let kinds = delete_each(&Lab::raise());
    for kind in
        ["ip rule del", "ip route del", "ip neigh del", "ip link del", "ip address del", "bridge fdb del"]
    {
        assert!(kinds.keys().any(|k| k.contains(kind)), "nothing of kind `{kind}` was deleted: {kinds:?}");
    }
}

#[test]
fn whatever_a_node_gateway_loses_nothing_leaks_and_reconcile_puts_it_back() {
    let kinds = delete_each(&Lab::raise_by_node());
    for kind in ["ip rule del", "ip route del", "ip nexthop del", "ip link del", "bridge fdb del"] {
        assert!(kinds.keys().any(|k| k.contains(kind)), "nothing of kind `{kind}` was deleted: {kinds:?}");
    }
}

/// Deletes each thing in turn, and counts the kinds.
fn delete_each(lab: &Lab) -> BTreeMap<String, usize> {
    let capture = lab.capture().unwrap();
    let _traffic = Stream::start(&lab.clients);
    let mut kinds = BTreeMap::<String, usize>::new();
    for holder in lab.holders() {
        for step in deletions(&holder.state()) {
            let what = format!("{}: {step}", holder.name);
            *kinds.entry(step.to_string().split(' ').take(3).collect::<Vec<_>>().join(" ")).or_default() += 1;
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
