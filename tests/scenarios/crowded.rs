//! Numbers are few: what a change needs for a moment beside what stands.

use std::fmt::Write;

use egret::addr::Family;
use egret::testbed::{Outside, Topology};

use crate::lab::{Lab, nodes};

/// Gateways, and clients that each have a set of their own of them.
const CLIENTS: u8 = 60;

/// Given more than half as many gateway sets as there are mark numbers, when a gateway joins all of them, each needs another number beside its
/// own for a moment. For want of one nobody is held, then or later, and no flow ends.
#[test]
fn a_gateway_that_joins_most_of_the_sets_there_can_be_leaves_nobody_held() {
    let lab = Lab::raise(Topology { settle: false, ..nodes(2) });
    let gateway = |n: u8| {
        let name = format!("gw/g{n}");
        // A client selects by its own label: which of the first six it takes are the bits of its number.
        let labels: Vec<(String, String)> = (1..=CLIENTS)
            .filter(|client| n > 5 || client >> n & 1 == 1)
            .map(|client| (format!("for-{client}"), "yes".to_owned()))
            .collect();
        let labels: Vec<(&str, &str)> = labels.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        lab.pod_object(&name, &labels, &crate::lab::WANTS_LEASES, 2).unwrap();
        lab.add_pod(2, &name).unwrap()
    };
    (0..6).for_each(|n| drop(gateway(n)));
    let client = |n: u8| {
        let (name, query) = (format!("own/c{n}"), format!("for-{n} == 'yes'"));
        let selects = [
            ("egress.projectcalico.org/selector", query.as_str()),
            ("egress.projectcalico.org/namespaceSelector", "projectcalico.org/name == 'gw'"),
        ];
        lab.pod_object(&name, &[], &selects, 1).unwrap();
        lab.add_pod(1, &name).unwrap()
    };
    let clients: Vec<_> = (1..=CLIENTS).map(client).collect();
    lab.settle().unwrap();
    let serves = |pod: &egret::testbed::Pod| pod.tcp(Outside::Near.address(Family::V4));
    let mut flows: Vec<_> =
        clients.iter().map(|pod| pod.tcp_flow(Outside::Near.address(Family::V4)).unwrap()).collect();
    let mut answers = || flows.iter_mut().map(|flow| format!("{:?}", flow.ask())).collect::<Vec<_>>();
    let before = answers();
    gateway(6);
    lab.settle().unwrap();
    let mut held = String::new();
    for pod in &clients {
        if let Err(error) = serves(pod) {
            write!(held, "{}: {error}; ", pod.name).unwrap();
        }
    }
    assert_eq!(held, "");
    assert_eq!(answers(), before, "and flows stay where they are");
    let sets = lab.node(1).sh("ip rule | grep -c ^720").unwrap();
    assert_eq!((lab.reasons(1), sets.trim()), (Vec::new(), CLIENTS.to_string().as_str()));
}
