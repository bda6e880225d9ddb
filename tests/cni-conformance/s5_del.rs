//! Section 5: DEL cleans up whatever is missing, and succeeds.

use std::fs;
use std::path::Path;

use serde_json::json;

use crate::world::{Kind, for_every_pod, ip};

#[test]
fn row_5_1_after_add_nothing_stays() {
    for_every_pod(|world| {
        // What a node with egress has once and for all is made by the first pod; each further one takes its own away.
        world.add("c0");
        world.call("DEL").container("c0").run().succeeds();
        let (before, records) = (world.node_kernel(), world.records());
        world.add("c1");
        assert_eq!(world.records().len(), records.len() + 1);
        assert!(world.is_wired("10.1.2.3"));
        world.call("DEL").run().succeeds();
        assert_eq!(world.records(), records);
        world.node_kernel().is_as(&before);
    });
}

#[test]
fn row_5_2_ten_times_is_as_good_as_once() {
    for_every_pod(|world| {
        world.add("c1");
        for _ in 0..10 {
            world.call("DEL").run().succeeds();
        }
    });
}

#[test]
fn row_5_3_without_any_add_there_is_nothing_to_do() {
    for_every_pod(|world| {
        let before = world.dump();
        world.call("DEL").container("never-seen").run().succeeds();
        world.dump().is_as(&before);
    });
}

#[test]
fn row_5_4_no_previous_result_is_needed() {
    for_every_pod(|world| {
        let before = world.records();
        for version in ["0.3.0", "0.3.1", "1.1.0"] {
            world.call("ADD").version(version).run().succeeds();
            world.call("DEL").version(version).lacking("prevResult").run().succeeds();
            assert_eq!(world.records(), before);
        }
    });
}

#[test]
fn row_5_5_no_namespace_is_needed() {
    for_every_pod(|world| {
        let before = world.records();
        world.add("c1");
        world.call("DEL").env("CNI_NETNS", "").run().succeeds();
        assert_eq!(world.records(), before);
    });
}

#[test]
fn row_5_6_the_previous_result_is_only_a_hint() {
    for_every_pod(|world| {
        let before = world.records();
        for garbage in
            [json!("x"), json!(7), json!({"ips": "x"}), json!({"ips": [{"address": 1}]}), json!([])]
        {
            world.add("c1");
            world.call("DEL").with("prevResult", garbage).run().succeeds();
            assert_eq!(world.records(), before);
        }
    });
}

#[test]
fn row_5_7_a_namespace_that_is_gone_is_not_made_again() {
    for_every_pod(|world| {
        let before = world.records();
        world.add("c1");
        world.remove_netns("a");
        world.call("DEL").run().succeeds();
        assert_eq!(world.records(), before);
        assert!(!Path::new("/run/netns/a").exists());
    });
}

#[test]
fn row_5_8_an_interface_that_is_gone_is_no_obstacle() {
    for_every_pod(|world| {
        let before = world.records();
        world.add("c1");
        ip(&["link", "del", "vetha"]);
        world.call("DEL").run().succeeds();
        assert_eq!(world.records(), before);
    });
}

#[test]
fn row_5_9_another_pods_namespace_at_the_same_path_is_not_touched() {
    for_every_pod(|world| {
        let before = world.records();
        world.add("c1");
        world.remove_netns("a");
        world.netns("a");
        let listing = || crate::world::output(&["nsenter", "--net=/run/netns/a", "ip", "-d", "addr"]);
        let other = listing();
        world.call("DEL").run().succeeds();
        assert_eq!((world.records(), listing()), (before, other));
    });
}

#[test]
fn row_5_10_without_its_agent_it_succeeds_at_once_and_leaves_the_rest_to_the_next_one() {
    for_every_pod(|world| {
        world.add("c1");
        let (start, records) = (std::time::Instant::now(), world.records());
        for prev in [crate::call::result("1.1.0"), json!("garbage")] {
            let done = world.call("DEL").with("mode", "cluster").with("prevResult", prev).run();
            assert_eq!(done.exit, 0, "{done:?}");
            assert!(done.stderr.contains("left to the agent"), "{}", done.stderr);
        }
        assert!(start.elapsed() < std::time::Duration::from_secs(20), "{:?}", start.elapsed());
        // The record is what the next agent finds: its namespace is gone by then.
        assert_eq!(world.records(), records);
    });
}

#[test]
fn row_5_11_what_cannot_be_read_is_cleaned_up_by_the_environment_and_said() {
    for_every_pod(|world| {
        // Where the records lie is not known either: the default must do.
        let stdin = |stdin: serde_json::Value| stdin.as_object().unwrap().clone();
        let mut default = stdin(crate::call::entry("1.1.0"));
        default.shift_remove("nodeName");
        let records = || {
            let hosts = fs::read_dir("/run/egret").into_iter().flatten().flatten();
            let found = hosts
                .flat_map(|host| fs::read_dir(host.path().join("attachments/net")).into_iter().flatten());
            found.flatten().map(|file| file.file_name().into_string().unwrap()).collect::<Vec<_>>()
        };
        let before = records();
        world.netns("b");
        ip(&["link", "add", "vethb", "type", "veth", "peer", "name", "eth0", "netns", "/run/netns/b"]);
        for (bytes, code) in [("", 6), ("{", 6), ("{}", 7), (r#"{"name":"net","cniVersion":"9.9.9"}"#, 1)] {
            world.call("ADD").json(default.clone().into()).run().succeeds();
            let other = world.call("ADD").container("c2").env("CNI_NETNS", "/run/netns/b");
            other.json(default.clone().into()).run().succeeds();
            world.call("DEL").bytes(bytes).run().fails(code, &[]);
            assert_eq!(records(), [before.clone(), vec!["c2:eth0.json".to_owned()]].concat(), "{bytes}");
            world.call("DEL").container("c2").json(default.clone().into()).run().succeeds();
        }
    });
}

#[test]
fn row_5_12_no_error_says_what_containerd_takes_for_already_gone() {
    // The words themselves are looked for in every DEL of every case (`Outcome::keeps_the_general_rules`).
    for_every_pod(|world| {
        for bytes in ["", "no such file or directory: not found", r#"{"name":"not found/x"}"#, "{}"] {
            assert_eq!(world.call("DEL").bytes(bytes).run().exit, 1);
        }
        // What cannot be removed is for GC: an error here would keep the primary plugin from freeing the address.
        world.add("c1");
        fs::remove_file("/run/egret/n1/attachments/net/c1:eth0.json").unwrap();
        fs::create_dir("/run/egret/n1/attachments/net/c1:eth0.json").unwrap();
        let outcome = world.call("DEL").run();
        assert_eq!(outcome.exit, 0);
        assert!(outcome.stderr.contains("clean-up is left to GC"), "{}", outcome.stderr);
    });
}

#[test]
fn row_5_13_before_or_after_the_primary_plugin() {
    for_every_pod(|world| {
        let before = world.records();
        world.add("c1");
        world.call("DEL").run().succeeds();
        world.add("c1");
        ip(&["link", "del", "vetha"]);
        world.call("DEL").run().succeeds();
        assert_eq!(world.records(), before);
    });
}

/// The entry is out of the list, so no call comes any more; whoever looks next takes what is gone.
#[test]
fn row_5_14_without_an_entry_in_the_list_reconcile_reclaims() {
    for_every_pod(|world| {
        if world.kind == Kind::Unselected {
            return; // its machine has neither a Node object nor a default route, so it is no node to reconcile
        }
        world.add("c1");
        let reconcile = || {
            let mut reconcile = std::process::Command::new(crate::world::egret());
            let said = reconcile.args(["reconcile", "--node", "n1"]).output().unwrap();
            assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
        };
        reconcile();
        assert_eq!(world.records(), ["net/c1:eth0.json"], "it lives");
        world.remove_netns("a");
        reconcile();
        assert!(world.records().is_empty());
        assert!(!world.is_wired("10.1.2.3"));
    });
}
