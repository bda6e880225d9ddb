//! D: what a node remembers is torn or gone. Nothing is emptied, nothing leaks, and it is named.

use egret::addr::Family;
use egret::testbed::{Outside, RUN_DIR, STATE_DIR};

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

/// A state directory that is not mounted is an empty folder, in which nothing selects anybody.
#[test]
fn d_without_its_state_directory_a_node_lets_no_pod_go_and_starts_none() {
    let lab = Lab::raise(nodes(2));
    lab.gateway(2, "g1");
    let client = lab.client(1, "c1");
    let plain = lab.plain(1, "p1");
    let capture = lab.capture().unwrap();
    lab.node(1).sh(&format!("cd {STATE_DIR} && mkdir .away && mv [a-z]* .away")).unwrap();
    let refused = lab.add_pod(1, "plain/p2").unwrap_err().to_string();
    assert!(
        refused.contains("there is no directory") && refused.contains("mount what should be there"),
        "{refused}"
    );
    let list = lab.conflist_path(1).display().to_string();
    let reconciled = lab.egret(1, &["reconcile", "--config", &list]).unwrap();
    let said = String::from_utf8_lossy(&reconciled.stderr).into_owned();
    assert!(!reconciled.status.success() && said.contains("there is no directory"), "{said}");
    lab.stop_sandbox(&plain).unwrap();
    assert!(
        !std::path::Path::new(STATE_DIR).join("objects").exists(),
        "a DEL makes none for the next ADD to believe"
    );
    let seen = Family::BOTH.map(|family| client.tcp(Outside::Near.address(family)).unwrap());
    lab.node(1).sh(&format!("cd {STATE_DIR} && rm -rf [a-z]* && mv .away/* . && rmdir .away")).unwrap();
    assert_eq!(lab.leaves_as_predicted(&client), seen.into_iter().collect());
    let late = lab.add_pod(1, "plain/p2").unwrap();
    lab.leaves_as_before(&late);
    capture.assert_clean(&[&client]);
}

/// Given another release that was killed while it changed the kernel, nobody can read what it meant to do: the plan before it is not believed, by
/// whichever call comes first.
#[test]
fn d_where_what_somebody_began_cannot_be_read_the_kernel_is() {
    let lab = Lab::raise(nodes(1));
    lab.gateway(1, "g1");
    let client = lab.client(1, "c1");
    lab.leaves_as_predicted(&client);
    let own = client.address(Family::V4).unwrap();
    let half_done = || {
        let loses = format!("nft delete element inet egret binding4 '{{ {own} }}'");
        let begun =
            format!("echo '{{\"of\": 2}}' > $(dirname $(find {RUN_DIR} -name plan.json))/intended.json");
        lab.node(1).sh(&format!("{loses} && {begun}")).unwrap();
    };
    let is_past = || {
        assert_eq!(lab.node(1).sh(&format!("find {RUN_DIR} -name intended.json")).unwrap(), "");
        lab.leaves_as_predicted(&client);
        lab.check_pod(&client).unwrap();
    };
    half_done();
    let second = lab.client(1, "c2");
    is_past();
    half_done();
    lab.del_pod(&second).unwrap();
    is_past();
    half_done();
    assert_eq!(lab.reasons(1), [""; 0]);
    is_past();
}

/// Given a plan of another release, nobody knows whom it serves: without the state directory by which that is found again no pod is let go.
#[test]
fn d_a_plan_that_cannot_be_read_may_have_clients() {
    let lab = Lab::raise(nodes(2));
    lab.gateway(2, "g1");
    let client = lab.client(1, "c1");
    let seen = lab.leaves_as_predicted(&client);
    let capture = lab.capture().unwrap();
    let plan = format!("{RUN_DIR}/node1/plan.json");
    let of_another =
        || std::fs::write(&plan, "{\"inputs\": 1, \"plan\": {\"of\": \"another release\"}}").unwrap();
    of_another();
    lab.node(1).sh(&format!("mv {STATE_DIR}/objects {STATE_DIR}/.away")).unwrap();
    let refused = lab.add_pod(1, "plain/p1").map(|_| ()).unwrap_err().to_string();
    assert!(refused.contains("there is no directory"), "{refused}");
    let other = format!("{STATE_DIR}-other");
    std::fs::create_dir_all(std::path::Path::new(&other).join("objects")).unwrap();
    let list = lab.conflist_path(1).display().to_string();
    let said = lab.egret(1, &["reconcile", "--state", &other, "--config", &list]).unwrap();
    let said = String::from_utf8_lossy(&said.stderr).into_owned();
    assert!(said.contains("wired by the state directory"), "{said}");
    for family in Family::BOTH {
        assert!(seen.contains(&client.tcp(Outside::Near.address(family)).unwrap()));
    }
    std::fs::remove_dir_all(&other).unwrap();
    lab.node(1).sh(&format!("mv {STATE_DIR}/.away {STATE_DIR}/objects")).unwrap();
    lab.settle().unwrap();
    assert_eq!(lab.leaves_as_predicted(&client), seen);
    capture.assert_clean(&[&client]);

    // When nothing stands any more, nothing is left to be read.
    lab.del_pod(&client).unwrap();
    of_another();
    lab.settle().unwrap();
    assert!(!std::path::Path::new(&plan).exists());
}
