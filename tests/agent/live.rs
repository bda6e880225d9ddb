//! What is written reaches running pods, and only what changed is touched.

use std::collections::BTreeSet;
use std::time::Duration;

use egret::addr::Family;
use egret::testbed::Topology;
use nix::sys::signal::Signal;

use crate::changes::settled;
use crate::lab::{Lab, SELECTS_RED, eventually, leaves_by, outside, records, within};

#[test]
fn a_running_pod_is_annotated_and_let_go_again_and_nothing_leaks_on_the_way() {
    let lab = Lab::raise(2);
    let agents = lab.agents();
    let gateway = lab.gateway(1, "red");
    let pods = [lab.plain(1, "near"), lab.plain(2, "far")];
    lab.select(&pods[0], true);
    lab.select(&pods[1], true);
    for pod in &pods {
        eventually("the pod leaves by the gateway", || leaves_by(&lab, pod, &gateway));
    }
    let capture = lab.capture().unwrap();
    for pod in &pods {
        assert!(leaves_by(&lab, pod, &gateway));
    }
    capture.assert_clean(&[&pods[0], &pods[1]]);
    for pod in &pods {
        lab.select(pod, false);
    }
    for pod in &pods {
        eventually("the pod leaves as before", || {
            outside().iter().all(|to| pod.udp(*to).is_ok_and(|ip| ip != lab.lease(&gateway, Family::of(*to))))
        });
    }
    eventually("nothing is wrong", || agents.iter().all(|agent| agent.reasons().is_empty()));
}

#[test]
fn a_gateway_on_another_node_is_used_without_any_call_here_and_its_end_is_noticed() {
    let lab = Lab::raise(2);
    let _agents = lab.agents();
    let client = lab.client(2, "cart");
    assert!(client.udp(outside()[0]).is_err(), "no gateway yet: held");
    let first = lab.gateway(1, "one");
    eventually("the first gateway is used", || leaves_by(&lab, &client, &first));
    let second = lab.gateway(2, "two");
    let leases = [&first, &second].map(|gateway| lab.lease(gateway, Family::V4));
    let mut seen = BTreeSet::new();
    eventually("both gateways are used", || {
        seen.extend(client.udp(outside()[0]).ok());
        leases.iter().all(|lease| seen.contains(lease))
    });
    lab.del_pod(&first).unwrap();
    eventually("only the second is left", || leaves_by(&lab, &client, &second));
    lab.del_pod(&second).unwrap();
    eventually("held again", || client.udp(outside()[0]).is_err());
}

#[test]
fn a_pod_that_may_use_more_gateways_or_fewer_does_so_at_once() {
    let lab = Lab::raise(2);
    let _agents = lab.agents();
    let gateways = [lab.gateway(1, "one"), lab.gateway(2, "two")];
    let pod = lab.plain(2, "cart");
    let may_use = |many: &str| {
        let words = [SELECTS_RED[0], SELECTS_RED[1], ("egress.projectcalico.org/maxNextHops", many)];
        lab.pod_object(&pod.name.to_string(), &[], &words, 2).unwrap();
    };
    let to = outside()[0];
    let leases: BTreeSet<_> = gateways.iter().map(|gateway| lab.lease(gateway, Family::V4)).collect();
    // Each datagram is a flow of its own.
    let seen = || -> BTreeSet<_> { (0..30).filter_map(|_| pod.udp(to).ok()).collect() };
    may_use("1");
    eventually("it leaves by one of them", || seen().is_subset(&leases) && seen().len() == 1);
    may_use("2");
    eventually("it leaves by both", || seen() == leases);
    may_use("1");
    eventually("it leaves by one again", || seen().is_subset(&leases) && seen().len() == 1);
}

#[test]
fn a_gateway_whose_namespace_is_lost_without_a_del_goes_and_clients_elsewhere_are_told() {
    let lab = Lab::raise(2);
    let agents = lab.agents();
    let client = lab.client(2, "cart");
    let (lost, stays) = (lab.gateway(1, "lost"), lab.gateway(1, "stays"));
    eventually("gateways are used", || client.udp(outside()[0]).is_ok());
    lab.lose_pod(&lost).unwrap();
    eventually("only the other is left", || leaves_by(&lab, &client, &stays));
    eventually("the record of the lost one is gone", || records(&agents[0].directory()) == 1);
    eventually("nothing differs", || lab.differs(1).is_empty() && lab.differs(2).is_empty());
}

#[test]
fn a_hundred_annotations_at_once_are_few_updates() {
    const PODS: u8 = 25;
    let lab = Lab::with(Topology { nodes: 1, ..Topology::default() });
    let agents = lab.agents();
    let gateway = lab.gateway(1, "red");
    let pods: Vec<_> = (0..PODS).map(|n| lab.plain(1, &format!("p{n}"))).collect();
    let before = agents[0].state().unwrap().updates.times;
    // However long it takes to write them, the agent hears of all of them at once.
    agents[0].signal(Signal::SIGSTOP);
    for _ in 0..2 {
        pods.iter().for_each(|pod| lab.select(pod, true));
        pods.iter().for_each(|pod| lab.select(pod, false));
    }
    pods.iter().for_each(|pod| lab.select(pod, true));
    agents[0].signal(Signal::SIGCONT);
    for pod in &pods {
        eventually("the pod leaves by the gateway", || leaves_by(&lab, pod, &gateway));
    }
    let updates = agents[0].state().unwrap().updates.times - before;
    println!("{updates} updates for {} files", u32::from(PODS) * 5);
    assert!(updates <= 10, "{updates} updates for {} files", u32::from(PODS) * 5);
    eventually("nothing differs", || lab.differs(1).is_empty());
}

#[test]
fn a_label_that_changes_no_decision_changes_nothing() {
    let lab = Lab::raise(1);
    let agents = lab.agents();
    let gateway = lab.gateway(1, "red");
    let client = lab.client(1, "cart");
    assert!(leaves_by(&lab, &client, &gateway));
    eventually("the agent has nothing to do", || settled(&agents[0]));
    let before = agents[0].state().unwrap();
    lab.pod_object("shop/cart", &[("app", "cart")], &SELECTS_RED, 1).unwrap();
    eventually("the file was read", || agents[0].state().unwrap().updates.times > before.updates.times);
    assert!(!within(Duration::from_millis(300), || agents[0].state().unwrap().updates.changed
        > before.updates.changed));
    assert_eq!(agents[0].state().unwrap().repairs, before.repairs);
}
