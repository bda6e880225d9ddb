//! Section 4, third part: many calls at once, and calls that are killed.

use std::time::Instant;

use crate::call::{AN_END, entry, finish, result};
use crate::world::{Kind, World, for_every_pod, ip};

/// Namespaces `p0`… with `eth0` in each.
fn pods(world: &World, count: usize) {
    for i in 0..count {
        let path = world.netns(&format!("p{i}"));
        ip(&[
            "link",
            "add",
            &format!("v{i}"),
            "type",
            "veth",
            "peer",
            "name",
            "eth0",
            "netns",
            path.to_str().unwrap(),
        ]);
    }
}

#[test]
fn row_4_26_fifty_pods_at_once_get_fifty_right_answers() {
    for_every_pod(|world| {
        // Gateways are wired one after the other, and no node has fifty.
        let count = if world.kind == Kind::Gateway { 8 } else { 50 };
        pods(world, count);
        let before = world.records();
        let call = |verb: &str, i: usize| {
            let mut stdin = entry("1.1.0");
            // Fifty wait in line for one node's lock, also on a busy machine.
            stdin["lockTimeout"] = 100_000.into();
            stdin["prevResult"]["ips"][0]["address"] = format!("10.1.2.{}/24", i + 1).into();
            stdin["prevResult"]["interfaces"][1]["sandbox"] = format!("/run/netns/p{i}").into();
            let call = world.call(verb).container(&format!("c{i}"));
            (call.env("CNI_NETNS", &format!("/run/netns/p{i}")).json(stdin.clone()).start(), stdin)
        };
        for verb in ["ADD", "CHECK", "DEL"] {
            let running: Vec<_> = (0..count).map(|i| call(verb, i)).collect();
            for (child, stdin) in running {
                let output = finish(child, AN_END);
                let text = String::from_utf8_lossy(&output.stdout);
                assert!(output.status.success(), "{verb}: {text}");
                if verb == "ADD" {
                    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
                    assert_eq!(answer, stdin["prevResult"]);
                }
            }
            let expected = if verb == "DEL" { before.len() } else { before.len() + count };
            assert_eq!(world.records().len(), expected, "after {verb}");
        }
    });
}

#[test]
fn row_4_27_two_interfaces_of_one_container_at_once_do_not_meet() {
    for_every_pod(|world| {
        if world.kind == Kind::Gateway {
            return; // one namespace is one gateway, so Egret stands behind one of its interfaces only
        }
        ip(&["link", "add", "vethn", "type", "veth", "peer", "name", "net1", "netns", "/run/netns/a"]);
        let before = world.records();
        for _ in 0..20 {
            world.add("c1");
            let mut net1 = result("1.1.0");
            net1["interfaces"][1]["name"] = "net1".into();
            net1["ips"][0]["address"] = "10.7.7.7/24".into();
            let children = [
                world.call("DEL").start(),
                world.call("ADD").env("CNI_IFNAME", "net1").with("prevResult", net1.clone()).start(),
            ];
            for child in children {
                let output = finish(child, AN_END);
                assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
            }
            assert_eq!(world.records(), [before.clone(), vec!["net/c1:net1.json".to_owned()]].concat());
            world.call("CHECK").env("CNI_IFNAME", "net1").with("prevResult", net1).run().succeeds();
            world.call("DEL").env("CNI_IFNAME", "net1").run().succeeds();
        }
    });
}

#[test]
fn row_4_28_what_a_killed_add_left_del_removes() {
    for_every_pod(|world| {
        let before = world.records();
        let start = Instant::now();
        world.add("c1");
        world.call("DEL").run().succeeds();
        let whole = start.elapsed();
        for step in 0u32..60 {
            let mut child = world.call("ADD").start();
            std::thread::sleep(whole * step / 60);
            child.kill().unwrap();
            child.wait().unwrap();
            world.call("DEL").run().succeeds();
            assert_eq!(world.records(), before, "killed after {:?}", whole * step / 60);
        }
    });
}
