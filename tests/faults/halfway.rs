//! ADDs that fail half-way leave nothing, and say what to do.

use std::fs::File;
use std::path::Path;

use egret::testbed::{Pod, RUN_DIR, STATE_DIR, Topology};

use crate::books::{assert_in_order, reconcile_command, said, was_killed, without_cooldown};
use crate::lab::{Lab, WANTS_LEASES, kind, nodes};

/// Everything in a node's kernel that a plugin could leave behind.
pub(crate) fn kernel(lab: &Lab) -> String {
    let lists = "ip -o link | grep -v 'veth\\|cni0' | sed 's/^[0-9]*: //'; ip rule; ip -6 rule; ip nexthop; ip route show table all | grep -v 'dev cni0\\|veth'; \
                 ip neigh show proxy; nft list tables; sysctl net.ipv4.fib_multipath_hash_policy net.ipv4.neigh.eth0.proxy_delay \
                 net.ipv6.conf.eth0.proxy_ndp";
    lab.node(1).sh(lists).unwrap()
}

/// A lab whose node has a bridge already, so that the primary changes nothing more.
pub(crate) fn lab() -> Lab {
    let mut topology = Topology { settle: false, ..nodes(1) };
    topology.egret_keys.insert("lockTimeout".into(), 300.into());
    let lab = Lab::raise(topology);
    without_cooldown(&lab);
    let first = lab.plain(1, "first");
    lab.del_pod(&first).unwrap();
    lab
}

/// A gateway's ADD fails with all these words, and everything is as before; without what made it fail, it works.
#[track_caller]
fn fails_without_a_trace(lab: &Lab, spoil: &str, mend: &str, words: &[&str]) {
    lab.pod_object("gw/g", &[("egress-code", "red")], &WANTS_LEASES, 1).unwrap();
    lab.node(1).sh(spoil).unwrap();
    let before = kernel(lab);
    let error = lab.add_pod(1, "gw/g").expect_err(spoil).to_string();
    for word in words {
        assert!(error.contains(word), "{spoil}: no `{word}` in: {error}");
    }
    assert_eq!(kernel(lab), before, "{spoil}: {error}");
    lab.node(1).sh(mend).unwrap();
    assert_in_order(lab, &[], spoil);
    let pod: Pod = lab.add_pod(1, "gw/g").unwrap();
    assert_in_order(lab, &[&pod], mend);
    lab.del_pod(&pod).unwrap();
}

#[test]
fn somebody_elses_rule_at_our_priority() {
    fails_without_a_trace(
        &lab(),
        "ip rule add fwmark 0x1000000/0x1000000 priority 720 table 99",
        "ip rule del priority 720",
        &["720"],
    );
}

/// Each is named with who has it, and what to change.
#[test]
fn somebody_elses_mark_nexthop_port_and_device() {
    let lab = lab();
    for (spoil, mend, words) in [
        (
            "ip rule add fwmark 0x10/0x30 priority 650 table 99",
            "ip rule del priority 650",
            &["0x10/0x30", "650", "markMask"][..],
        ),
        (
            "ip nexthop add id 234881030 dev eth0 protocol 186",
            "ip nexthop del id 234881030",
            &["234881030", "bgp", "must use others"],
        ),
        (
            "ip link add flannel.1 type vxlan id 7 dstport 4790 dev eth0",
            "ip link del flannel.1",
            &["flannel.1", "4790", "underlay.port"],
        ),
        (
            "ip link add egress.vxlan type bridge",
            "ip link del egress.vxlan",
            &["egress.vxlan", "link group 0", "another"],
        ),
    ] {
        fails_without_a_trace(&lab, spoil, mend, words);
        // What makes a node asked again: nothing of ours is left.
        let list = lab.conflist_path(1).display().to_string();
        assert!(lab.egret(1, &["uninstall", "--config", &list]).unwrap().status.success());
    }
}

#[test]
fn a_pool_that_is_full_for_the_second_family_alone() {
    let lab = lab();
    let small = "apiVersion: egret.dev/v1alpha1\nkind: EgressPool\nmetadata: {name: red6}\n\
                 spec: {cidr: 'fd00:10:10::10/127', gatewayNamespaces: all(), clientNamespaces: all(), cooldownSeconds: 0}\n";
    lab.object(small).unwrap();
    let (a, b) = (lab.gateway(1, "a"), lab.gateway(1, "b"));
    let before = kernel(&lab);
    let error = lab.try_gateway(1, "c").expect_err("two addresses, three gateways").to_string();
    assert!(error.contains("red6") && error.contains("2 of 2"), "{error}");
    assert_eq!(kernel(&lab), before);
    assert_in_order(&lab, &[&a, &b], "the IPv6 pool is full");
}

#[test]
fn a_lock_that_somebody_holds_is_named_in_time() {
    let lab = lab();
    let node = Path::new(RUN_DIR).join("node1");
    std::fs::create_dir_all(&node).unwrap();
    for path in [Path::new(STATE_DIR).join("lock"), node.join("lock")] {
        lab.pod_object("gw/g", &[("egress-code", "red")], &WANTS_LEASES, 1).unwrap();
        let before = kernel(&lab);
        let held = File::options().create(true).truncate(false).write(true).open(&path).unwrap();
        held.lock().unwrap();
        std::fs::write(&path, r#"{"pid": 4711, "who": "a slow test", "since": 0}"#).unwrap();
        let begun = std::time::Instant::now();
        let error = lab.add_pod(1, "gw/g").expect_err("the lock is held").to_string();
        // Not how long it takes on a busy machine, but that it takes an end: the lock stays held.
        let waited = error.split_once("gave up after ").and_then(|(_, rest)| rest.split_once(" ms"));
        let waited: u64 = waited.expect(&error).0.parse().expect(&error);
        assert!(begun.elapsed().as_secs() < 60 && waited >= 300, "{error}");
        assert!(error.contains("a slow test") && error.contains("4711"), "{error}");
        drop(held);
        assert_eq!(kernel(&lab), before, "{error}");
        assert_in_order(&lab, &[], &path.display().to_string());
    }
}

#[test]
fn a_run_directory_or_a_state_directory_that_is_read_only() {
    let lab = lab();
    // The lab's mounts are the calling thread's own: nodes run in copies of them.
    let mount = |arguments: &[&str]| {
        assert!(std::process::Command::new("mount").args(arguments).status().unwrap().success());
    };
    lab.pod_object("gw/g", &[("egress-code", "red")], &WANTS_LEASES, 1).unwrap();
    for (spoil, mend, word) in [
        (["-o", "remount,ro", "/run"], ["-o", "remount,rw", "/run"], "/run/egret"),
        (["-o", "remount,ro", STATE_DIR], ["-o", "remount,rw", STATE_DIR], STATE_DIR),
    ] {
        let before = kernel(&lab);
        let pod = lab.sandbox(1, "gw/g").unwrap();
        mount(&spoil);
        let added = lab.cnitool("add", &pod);
        mount(&mend);
        let error = added.expect_err(word).to_string();
        assert!(error.contains(word), "{error}");
        lab.cnitool("del", &pod).unwrap();
        lab.lose_pod(&pod).unwrap();
        assert_eq!(kernel(&lab), before, "{error}");
        assert_in_order(&lab, &[], word);
    }
}

/// A change is taken back after the call that followed it was killed: by what the plan was made from, nothing seems to be new. Whoever comes by
/// next takes the change out of the kernel all the same.
#[test]
fn a_change_that_was_followed_by_half_and_taken_back_is_not_in_force() {
    let lab = lab();
    let serves = |clients: &str| {
        for (name, cidr) in crate::lab::POOLS {
            lab.pool(name, cidr, clients);
        }
    };
    let nobody = "projectcalico.org/name == 'nobody'";
    serves(nobody);
    lab.gateway(1, "g");
    let client = lab.client(1, "c");
    let is_refused = || {
        for to in lab.destinations() {
            assert_eq!(kind(client.tcp(to)), std::io::ErrorKind::ConnectionRefused, "tcp to {to}");
        }
    };
    lab.pod_object("plain/p2", &[], &[], 1).unwrap();
    lab.settle().unwrap();
    // The times of folders are believed once they are two seconds old: until then everything may be new.
    std::thread::sleep(std::time::Duration::from_millis(2_100));
    lab.plain(1, "p1");
    is_refused();
    serves("all()");
    let killed = reconcile_command(&lab, 1).env("EGRET_FAULT", "update.after-plan").output().unwrap();
    assert!(was_killed(&killed), "{}", said(&killed));
    lab.leaves_as_predicted(&client);
    serves(nobody);
    lab.add_pod(1, "plain/p2").unwrap();
    is_refused();
}
