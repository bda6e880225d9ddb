//! D: what a node remembers is torn or gone. Nothing is emptied, nothing leaks, and it is named.

use egret::addr::Family;
use egret::testbed::{Outside, RUN_DIR};

use crate::lab::{Lab, nodes};

/// A record that cannot be read says nothing about its pod, so the pod stays what it was: gateway or client.
#[test]
fn d_torn_records_of_running_pods_change_nothing() {
    let lab = Lab::raise(nodes(1));
    let gateway = lab.gateway(1, "g1");
    let client = lab.client(1, "c1");
    let leases = lab.leases(&gateway);
    lab.leaves_as_predicted(&client);
    let capture = lab.capture().unwrap();
    let tear =
        format!("for f in $(find {RUN_DIR} -path '*attachments*' -name '*.json'); do echo torn > $f; done");
    lab.node(1).sh(&tear).unwrap();
    assert!(lab.reasons(1).iter().any(|reason| reason == "TornRecord"));
    assert_eq!(lab.leases(&gateway), leases, "its endpoint stays");
    for family in [Family::V4, Family::V6] {
        // Its binding's rules are lost with the record, so it may be held; what it must not do is leave as itself.
        let _ = client.tcp(Outside::Near.address(family));
        let _ = client.udp(Outside::Near.address(family));
    }
    let sources = capture.sources_of(&client);
    assert!(sources.keys().all(|ip| leases.contains(ip)), "{sources:?}");
}

/// The kernel says what it holds: running flows do not notice that the plan was lost.
#[test]
fn d_a_lost_plan_is_read_back_from_the_kernel_and_flows_live_on() {
    let lab = Lab::raise(nodes(2));
    lab.gateway(2, "g1");
    let client = lab.client(1, "c1");
    let mut flow = client.tcp_flow(Outside::Near.address(Family::V4)).unwrap();
    let before = flow.ask();
    lab.node(1).sh(&format!("rm $(find {RUN_DIR} -name plan.json)")).unwrap();
    assert!(lab.check_pod(&client).is_err(), "CHECK says that the plan is lost");
    lab.reasons(1);
    assert_eq!(format!("{:?}", flow.ask()), format!("{before:?}"));
    lab.check_pod(&client).unwrap();
    lab.leaves_as_predicted(&client);
}
