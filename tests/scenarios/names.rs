//! One machine is one node, by one name and one directory: who says another one is refused, and nothing is undone or leaks.

use std::path::Path;

use egret::addr::Family;
use egret::testbed::{Outside, RUN_DIR, STATE_DIR};

use crate::lab::{Lab, nodes};
use crate::node_gateways;

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

/// Node 1 is `vm2` from now on, to its plugin and in the directory.
fn rename(lab: &Lab) {
    let list = lab.conflist_path(1).display().to_string();
    lab.node(1).sh(&format!("sed -i 's/\"node1\"/\"vm2\"/' {list}")).unwrap();
    lab.remove_object("Node", None, "node1").unwrap();
    lab.object(
        "apiVersion: v1\nkind: Node\nmetadata: {name: vm2, labels: {kubernetes.io/hostname: vm2}}\n\
         status: {addresses: [{type: InternalIP, address: 172.30.0.1}]}\n",
    )
    .unwrap();
}

/// A machine that was renamed: pods that nobody selects start, clients wait, those that run end, and then all goes on by itself.
#[test]
fn a_renamed_machine_ends_its_pods_under_the_old_name_before_it_wires_others() {
    let lab = Lab::raise(nodes(2));
    lab.gateway(2, "g1");
    let client = lab.client(1, "c1");
    lab.leaves_as_predicted(&client);
    let before = rules(&lab);
    rename(&lab);
    let add = |pod: &str| lab.add(&lab.sandbox(1, pod).unwrap());
    let plain = lab.sandbox(1, "plain/p1").unwrap();
    lab.add(&plain).unwrap();
    lab.check_pod(&plain).unwrap();
    lab.check_pod(&client).unwrap();
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

/// A pod of the old name that is gone without a DEL is ended by nobody who calls by that name: there is nobody.
#[test]
fn what_a_renamed_machine_lost_under_the_old_name_does_not_keep_it_from_the_new_one() {
    let lab = Lab::raise(nodes(2));
    lab.gateway(2, "g1");
    let gateway = lab.gateway(1, "g2");
    let leases = lab.leases(&gateway);
    let client = lab.client(1, "c1");
    lab.leaves_as_predicted(&client);
    rename(&lab);
    for pod in [&client, &gateway] {
        lab.lose_pod(pod).unwrap();
        lab.remove_pod_object(&pod.name.to_string()).unwrap();
    }
    let next = lab.client(1, "c2");
    let seen = lab.leaves_as_predicted(&next);
    assert!(leases.iter().all(|lease| !seen.contains(lease)), "{seen:?}");
    let records = lab.node(1).sh(&format!("find {RUN_DIR}/node1/attachments -name '*.json'")).unwrap();
    assert_eq!(records, "", "and nothing is remembered of them");
}

/// Of a gateway that is the node itself no pod can be ended. The name that was mistyped is no node; the one that came is.
#[test]
fn a_renamed_machine_that_is_a_gateway_itself_is_none_by_the_old_name_once_the_nodes_object_is_replaced() {
    let lab = Lab::raise(node_gateways::topology(2));
    node_gateways::policy(&lab, "by-eth1", "shop", node_gateways::WHOLE, &[(1, "interface: eth1")]);
    let client = node_gateways::pod(&lab, 2, "c1", "shop");
    assert_eq!(lab.leaves_as_predicted(&client), node_gateways::seconds(1));
    let before = rules(&lab);
    for verb in [&["reconcile", "--node", "typo"][..], &["uninstall", "--node", "typo"]] {
        let (_, err, status) = said(&lab, verb);
        assert!(err.contains("wired as node `node1`, and none as `typo`"), "{verb:?}: {err}");
        assert_eq!(status, Some(2), "{verb:?}");
    }
    assert_eq!(rules(&lab), before);
    rename(&lab);
    let (_, err, status) = said(&lab, &["reconcile"]);
    assert_eq!((err.as_str(), status), ("", Some(0)));
    assert!(!lab.node(1).sh("nft list tables").unwrap().contains("egret"), "nobody asks it to be one");
    // By the new name it is one again, when somebody asks for it.
    let [v4, v6] = Family::BOTH.map(|family| egret::testbed::second_address(1, family));
    lab.object(
        "apiVersion: cilium.io/v2\nkind: CiliumEgressGatewayPolicy\nmetadata: {name: by-eth1}\nspec:\n  \
         selectors: [{podSelector: {matchLabels: {app: shop}}}]\n  destinationCIDRs: [0.0.0.0/0, '::/0']\n  \
         egressGateway: {nodeSelector: {matchLabels: {kubernetes.io/hostname: vm2}}, interface: eth1}\n",
    )
    .unwrap();
    lab.settle().unwrap();
    lab.settle().unwrap();
    assert_eq!(lab.leaves_as_predicted(&client), [v4, v6].into());
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
