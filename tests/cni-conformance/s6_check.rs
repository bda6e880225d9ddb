//! Section 6: CHECK compares and changes nothing.

use std::fs;

use crate::world::{Kind, RECORDS, for_every_pod, ip, output};

#[test]
fn row_6_1_check_came_with_0_4_0() {
    for_every_pod(|world| {
        for version in ["0.3.0", "0.3.1"] {
            world.call("ADD").version(version).run().succeeds();
            world.call("CHECK").version(version).run().fails(1, &["config version does not allow CHECK"]);
        }
    });
}

#[test]
fn row_6_2_right_after_add_all_is_well() {
    for_every_pod(|world| {
        for version in ["0.4.0", "1.0.0", "1.1.0"] {
            world.call("ADD").version(version).run().succeeds();
            world.call("CHECK").version(version).run().succeeds();
        }
    });
}

#[test]
fn row_6_3_what_of_ours_is_missing_is_named() {
    for_every_pod(|world| {
        world.call("CHECK").container("c9").run().fails(103, &["net/c9/eth0", "record"]);
        world.add("c1");
        fs::write(format!("{RECORDS}/net/c1:eth0.json"), "{\"network\":\"net\"").unwrap();
        world.call("CHECK").run().fails(103, &["c1:eth0.json"]);
    });
}

#[test]
fn row_6_3_a_rule_or_table_that_was_removed_is_named() {
    for_every_pod(|world| {
        if world.kind == Kind::Unselected {
            return; // nothing of it is in the kernel
        }
        world.add("c1");
        world.call("CHECK").run().succeeds();
        let rules = output(&["ip", "rule"]);
        let rule = rules.lines().find(|rule| rule.contains("fwmark")).expect("a rule of ours");
        let (priority, _) = rule.split_once(':').unwrap();
        ip(&["rule", "del", "priority", priority]);
        world.call("CHECK").run().fails(103, &[priority]);
        output(&["nft", "flush", "ruleset"]);
        world.call("CHECK").run().fails(103, &["egret"]);
    });
}

#[test]
fn row_6_4_routes_of_others_are_their_own_affair() {
    for_every_pod(|world| {
        world.add("c1");
        let inside = |args: &[&str]| {
            output(&[&["nsenter", "--net=/run/netns/a", "ip"], args].concat());
        };
        inside(&["link", "set", "eth0", "up"]);
        inside(&["route", "add", "10.99.0.0/16", "dev", "eth0"]);
        inside(&["rule", "add", "from", "10.1.2.3", "table", "100"]);
        ip(&["rule", "add", "from", "10.1.2.3", "table", "100"]);
        world.call("CHECK").run().succeeds();
    });
}

#[test]
fn row_6_5_check_needs_the_previous_result() {
    for_every_pod(|world| {
        world.add("c1");
        world.call("CHECK").lacking("prevResult").run().fails(7, &["prevResult"]);
        world.call("CHECK").with("prevResult", "x").run().fails(6, &["prevResult"]);
    });
}

#[test]
fn row_6_6_without_its_agent_it_is_tried_again() {
    for_every_pod(|world| {
        world.add("c1");
        let start = std::time::Instant::now();
        world.call("CHECK").with("mode", "cluster").run().fails(11, &["agent.sock", "CHECK is tried again"]);
        assert!(start.elapsed() < std::time::Duration::from_secs(20), "{:?}", start.elapsed());
    });
}

#[test]
fn row_6_7_a_pod_whose_namespace_is_gone_is_broken() {
    for_every_pod(|world| {
        world.add("c1");
        world.remove_netns("a");
        world.call("CHECK").run().fails(100, &["/run/netns/a"]);
        world.netns("b"); // so that the kernel does not give the old number to the new one
        world.netns("a");
        let outcome = world.call("CHECK").run();
        assert!(matches!(outcome.json()["code"].as_u64(), Some(100 | 101)), "{outcome:?}");
    });
}

#[test]
fn row_6_7_a_pod_whose_interface_is_gone_is_broken() {
    for_every_pod(|world| {
        world.add("c1");
        ip(&["link", "del", "vetha"]);
        world.call("CHECK").run().fails(101, &["eth0", "/run/netns/a"]);
    });
}

#[test]
fn row_6_8_a_pod_without_egress_is_well() {
    crate::world::for_an_unselected_pod(|world| {
        world.add("c1");
        world.call("CHECK").run().succeeds();
    });
}

#[test]
fn row_6_9_check_changes_nothing() {
    for_every_pod(|world| {
        world.add("c1");
        let before = world.dump();
        world.call("CHECK").run().succeeds();
        world.call("CHECK").container("c9").run().fails(103, &[]);
        world.dump().is_as(&before);
    });
}

/// A client's own element, and a local gateway's own way: each is missed by its own pod's CHECK and by no other's.
#[test]
fn check_speaks_of_its_own_pod_alone() {
    crate::world::for_a_client(|world| {
        // Each in a namespace of its own: a client is bound by every address that its interface has.
        world.netns("d");
        ip(&["link", "add", "vethd", "type", "veth", "peer", "name", "eth0", "netns", "/run/netns/d"]);
        let mut of_c2 = crate::call::result("1.1.0");
        of_c2["ips"] = [serde_json::json!({"interface": 1, "address": "10.1.2.4/24"})].into();
        of_c2["interfaces"][1]["sandbox"] = "/run/netns/d".into();
        let c1 =
            |verb: &str| world.call(verb).container("c1").with("prevResult", crate::call::result("1.1.0"));
        let c2 = |verb: &str| {
            world
                .call(verb)
                .container("c2")
                .env("CNI_NETNS", "/run/netns/d")
                .with("prevResult", of_c2.clone())
        };
        for verb in ["ADD", "CHECK"] {
            c1(verb).run().succeeds();
            c2(verb).run().succeeds();
        }
        output(&["nft", "delete", "element", "inet", "egret", "binding4", "{ 10.1.2.4 }"]);
        world.call("CHECK").container("c1").run().succeeds();
        c2("CHECK").run().fails(103, &["10.1.2.4"]);

        // A gateway that no client uses, in a namespace of its own, loses its way back.
        world.netns("b");
        ip(&["link", "add", "vethb", "type", "veth", "peer", "name", "eth0", "netns", "/run/netns/b"]);
        let annotations = serde_json::json!({"cni.projectcalico.org/ipv4pools": "[\"blue\"]"});
        let mut result = crate::call::result("1.1.0");
        result["ips"] = [serde_json::json!({"interface": 1, "address": "10.1.2.5/24"})].into();
        result["interfaces"][1]["sandbox"] = "/run/netns/b".into();
        let gateway = |verb: &str| {
            let call = world.call(verb).container("g1").env("CNI_NETNS", "/run/netns/b");
            let runtime = serde_json::json!({ crate::world::ANNOTATIONS: annotations });
            call.with("prevResult", result.clone()).with("runtimeConfig", runtime)
        };
        gateway("ADD").run().succeeds();
        gateway("CHECK").run().succeeds();
        let routes = output(&["ip", "route", "show", "table", "main"]);
        let route = routes.lines().find(|route| route.contains("dev eg")).expect("the lease's route");
        let lease = route.split(' ').next().unwrap();
        ip(&["route", "del", lease, "table", "main"]);
        world.call("CHECK").container("c1").run().succeeds();
        gateway("CHECK").run().fails(103, &[lease]);

        // What all share is everybody's.
        ip(&["link", "del", "egress.vxlan"]);
        world.call("CHECK").container("c1").run().fails(103, &["egress.vxlan"]);
        gateway("CHECK").run().fails(103, &["egress.vxlan"]);
    });
}
