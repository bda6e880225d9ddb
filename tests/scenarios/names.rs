//! One machine is one node, by one name and one directory: who says another one is refused, and nothing is undone or leaks.

use std::path::Path;

use egret::addr::Family;
use egret::testbed::{Outside, RUN_DIR, STATE_DIR};

use crate::lab::{Lab, nodes};

fn rules(lab: &Lab) -> String {
    lab.node(1)
        .sh("nft -s list table inet egret; ip rule; ip route show table all | grep egret || true")
        .unwrap()
}

/// What the program says on standard output and standard error, and its status.
fn said(lab: &Lab, arguments: &[&str]) -> (String, String, Option<i32>) {
    let list = lab.conflist_path(1).display().to_string();
    let output = lab.egret(1, &[arguments, &["--config", &list]].concat()).unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr), output.status.code())
}

/// By a name that was mistyped no pod is selected, and what follows is a node without rules.
#[test]
fn by_another_name_nothing_is_undone_or_recommended() {
    let lab = Lab::raise(nodes(2));
    lab.gateway(1, "g1");
    let client = lab.client(1, "c1");
    lab.leaves_as_predicted(&client);
    let before = rules(&lab);
    let verbs: [&[&str]; 4] = [
        &["reconcile"],
        &["reconcile", "--dry-run"],
        &["uninstall"],
        &["uninstall", "--dry-run", "-o", "json"],
    ];
    for verb in verbs {
        let (out, err, status) = said(&lab, &[verb, &["--node", "typo"]].concat());
        assert!(err.contains("wired as node `node1`, and none as `typo`"), "{verb:?}: {err}");
        assert_eq!((out.as_str(), status), ("", Some(2)), "{verb:?}");
        assert_eq!(rules(&lab), before, "{verb:?}");
    }
    assert!(!Path::new(RUN_DIR).join("typo").exists(), "nothing is remembered of a node that is none");
    let (out, _, status) = said(&lab, &["status", "--node", "typo"]);
    assert!(out.contains("wired as node `node1`, and none as `typo`"), "{out}");
    assert!(!out.contains("to do") && !out.contains("delete table"), "{out}");
    assert_eq!(status, Some(1));
    lab.leaves_as_predicted(&client);
    // Another machine is another kernel, whatever folder lies beside its own.
    assert!(
        lab.egret(2, &["reconcile", "--config", &lab.conflist_path(2).display().to_string()])
            .unwrap()
            .status
            .success()
    );
}

/// A machine that was renamed: pods that nobody selects start, clients wait, those that run end, and then all goes on by itself.
#[test]
fn a_renamed_machine_ends_its_pods_under_the_old_name_before_it_wires_others() {
    let lab = Lab::raise(nodes(2));
    lab.gateway(2, "g1");
    let client = lab.client(1, "c1");
    lab.leaves_as_predicted(&client);
    let before = rules(&lab);
    let list = lab.conflist_path(1).display().to_string();
    lab.node(1).sh(&format!("sed -i 's/\"node1\"/\"vm2\"/' {list}")).unwrap();
    lab.remove_object("Node", None, "node1").unwrap();
    lab.object(
        "apiVersion: v1\nkind: Node\nmetadata: {name: vm2}\n\
         status: {addresses: [{type: InternalIP, address: 172.30.0.1}]}\n",
    )
    .unwrap();
    let add = |pod: &str| lab.add(&lab.sandbox(1, pod).unwrap());
    add("plain/p1").unwrap();
    let refused = add("shop/c2").unwrap_err().to_string();
    assert!(refused.contains("wired as node `node1`, and none as `vm2`"), "{refused}");
    let (_, err, status) = said(&lab, &["reconcile"]);
    assert!(err.contains("egret uninstall --node node1"), "{err}");
    assert_eq!(status, Some(1), "the argument is right, the machine is not");
    assert_eq!(rules(&lab), before);
    lab.leaves_as_predicted(&client);

    lab.stop_sandbox(&client).unwrap();
    lab.settle().unwrap();
    let (_, err, status) = said(&lab, &["reconcile"]);
    assert_eq!((err.as_str(), status), ("", Some(0)));
    let client = lab.client(1, "c3");
    lab.leaves_as_predicted(&client);
}

/// In a directory that is not the one, nothing selects anybody.
#[test]
fn by_another_directory_nothing_is_undone_or_recommended() {
    let lab = Lab::raise(nodes(2));
    lab.gateway(1, "g1");
    let client = lab.client(1, "c1");
    lab.leaves_as_predicted(&client);
    let before = rules(&lab);
    let other = format!("{STATE_DIR}-other");
    std::fs::create_dir_all(Path::new(&other).join("objects")).unwrap();
    for verb in
        [&["reconcile"][..], &["reconcile", "--dry-run"], &["uninstall"], &["agent", "--listen", "off"]]
    {
        let (_, err, status) = said(&lab, &[verb, &["--state", &other]].concat());
        assert!(
            err.contains(&format!("wired by the state directory {STATE_DIR}, and not by {other}")),
            "{verb:?}: {err}"
        );
        assert_eq!(status, Some(if verb[0] == "agent" { 1 } else { 2 }), "{verb:?}");
        assert_eq!(rules(&lab), before, "{verb:?}");
    }
    let (out, _, _) = said(&lab, &["status", "--state", &other]);
    assert!(out.contains("wired by the state directory") && !out.contains("delete table"), "{out}");
    assert!(client.tcp(Outside::Near.address(Family::V4)).is_ok());
    lab.leaves_as_predicted(&client);
    std::os::unix::fs::symlink(STATE_DIR, format!("{other}/link")).unwrap();
    let (_, err, status) = said(&lab, &["reconcile", "--state", &format!("{other}/link")]);
    assert_eq!((err.as_str(), status), ("", Some(0)), "by another path it is the same one");
    // Whoever lost the right one must be able to leave.
    lab.node(1).sh(&format!("mv {STATE_DIR}/objects {STATE_DIR}/.away")).unwrap();
    let (_, err, status) = said(&lab, &["uninstall", "--state", &other]);
    assert_eq!(status, Some(0), "{err}");
    std::fs::remove_dir_all(&other).unwrap();
}
