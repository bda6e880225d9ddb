//! Section 7: GC removes what is not valid, and only that.

use std::fs;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::call::Call;
use crate::world::{RECORDS, World, for_an_unselected_pod, for_every_pod, ip};

const VALID: &str = "cni.dev/valid-attachments";
const OLD: &str = "cni.dev/attachments";

/// GC as libcni calls it: every other variable empty, no prevResult, no runtimeConfig.
fn gc(world: &World) -> Call {
    let empty = ["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_ARGS"];
    empty.iter().fold(world.call("GC").lacking("prevResult"), |call, name| call.env(name, ""))
}

fn attachments(list: &[(&str, &str)]) -> Value {
    list.iter().map(|(id, ifname)| json!({"containerID": id, "ifname": ifname})).collect()
}

/// c1/eth0, c2/eth0 and c1/net1 on `net`, c2/eth0 on `other`.
fn four(world: &World) {
    world.add("c1");
    world.add("c2");
    let mut net1 = crate::call::result("1.1.0");
    net1["ips"] = json!([]);
    world.call("ADD").env("CNI_IFNAME", "net1").with("prevResult", net1).run().succeeds();
    world.call("ADD").container("c2").with("name", "other").run().succeeds();
}

#[test]
fn row_7_1_gc_came_with_1_1_0() {
    for_an_unselected_pod(|world| {
        for version in ["0.3.1", "0.4.0", "1.0.0"] {
            world.call("GC").version(version).run().fails(1, &["config version does not allow GC"]);
        }
    });
}

#[test]
fn row_7_2_what_is_not_listed_goes() {
    for_an_unselected_pod(|world| {
        four(world);
        gc(world).with(VALID, attachments(&[("c1", "eth0")])).run().succeeds();
        assert_eq!(world.records(), ["net/c1:eth0.json", "other/c2:eth0.json"]);
    });
}

/// Of pods with egress the kernel's part goes too, and that of others stays.
#[test]
fn row_7_2_what_is_not_listed_is_unwired_and_nobody_else_is() {
    for_every_pod(|world| {
        world.netns("b");
        ip(&["link", "add", "vethb", "type", "veth", "peer", "name", "eth0", "netns", "/run/netns/b"]);
        let second = |verb: &str| {
            let mut prev = crate::call::result("1.1.0");
            prev["ips"][0]["address"] = "10.1.2.4/24".into();
            prev["interfaces"][1]["sandbox"] = "/run/netns/b".into();
            world.call(verb).container("c2").env("CNI_NETNS", "/run/netns/b").with("prevResult", prev)
        };
        second("ADD").run().succeeds();
        let alone = world.node_kernel();
        world.add("c1");
        assert!(world.is_wired("10.1.2.3") && world.is_wired("10.1.2.4"));
        gc(world).with(VALID, attachments(&[("c2", "eth0")])).run().succeeds();
        assert_eq!(world.records(), ["net/c2:eth0.json"]);
        world.node_kernel().is_as(&alone);
        second("CHECK").run().succeeds();
    });
}

#[test]
fn row_7_3_an_empty_list_means_all_of_this_network() {
    for_an_unselected_pod(|world| {
        four(world);
        gc(world).with(VALID, json!([])).run().succeeds();
        assert_eq!(world.records(), ["other/c2:eth0.json"]);
    });
}

#[test]
fn row_7_4_null_means_the_same() {
    for_an_unselected_pod(|world| {
        four(world);
        gc(world).with(VALID, Value::Null).run().succeeds();
        assert_eq!(world.records(), ["other/c2:eth0.json"]);
    });
}

#[test]
fn row_7_5_without_a_list_only_what_is_provably_gone_goes() {
    for_every_pod(|world| {
        let before = world.records();
        world.add("c1");
        world.netns("b");
        ip(&["link", "add", "vethb", "type", "veth", "peer", "name", "eth0", "netns", "/run/netns/b"]);
        world.call("ADD").container("gone").env("CNI_NETNS", "/run/netns/b").run().succeeds();
        gc(world).run().succeeds();
        assert_eq!(world.records().len(), before.len() + 2, "both namespaces live");
        world.remove_netns("b");
        gc(world).run().succeeds();
        assert_eq!(world.records(), [before, vec!["net/c1:eth0.json".to_owned()]].concat());
    });
}

#[test]
fn row_7_6_the_old_key_counts_where_the_new_one_is_absent() {
    for_an_unselected_pod(|world| {
        four(world);
        let both =
            gc(world).with(OLD, attachments(&[])).with(VALID, attachments(&[("c1", "eth0"), ("c2", "eth0")]));
        both.run().succeeds();
        assert_eq!(world.records(), ["net/c1:eth0.json", "net/c2:eth0.json", "other/c2:eth0.json"]);
        gc(world).with(OLD, attachments(&[("c2", "eth0")])).run().succeeds();
        assert_eq!(world.records(), ["net/c2:eth0.json", "other/c2:eth0.json"]);
    });
}

#[test]
fn row_7_7_another_networks_attachments_stay() {
    for_an_unselected_pod(|world| {
        four(world);
        gc(world).with("name", "third").with(VALID, json!([])).run().succeeds();
        assert_eq!(world.records().len(), 4);
    });
}

#[test]
fn row_7_8_after_a_failure_the_rest_is_removed_and_all_is_reported() {
    for_an_unselected_pod(|world| {
        for id in ["c1", "c2", "c3", "c4"] {
            world.add(id);
        }
        for id in ["c2", "c3"] {
            fs::remove_file(format!("{RECORDS}/net/{id}:eth0.json")).unwrap();
            fs::create_dir_all(format!("{RECORDS}/net/{id}:eth0.json/x")).unwrap();
        }
        gc(world).with(VALID, json!([])).run().fails(5, &["2 of 4", "net/c2/eth0", "net/c3/eth0"]);
        assert_eq!(world.records(), ["net/c2:eth0.json", "net/c3:eth0.json"]);
    });
}

#[test]
fn row_7_8_a_list_that_cannot_be_read_removes_nothing() {
    for_an_unselected_pod(|world| {
        four(world);
        for wrong in [json!("all"), json!({}), json!([{"containerID": "c1"}]), json!([7])] {
            gc(world).with(VALID, wrong).run().fails(7, &[VALID]);
        }
        assert_eq!(world.records().len(), 4);
    });
}

#[test]
fn row_7_9_five_thousand_attachments_take_less_than_a_second() {
    for_an_unselected_pod(|world| {
        world.add("c1");
        let record = fs::read_to_string(format!("{RECORDS}/net/c1:eth0.json")).unwrap();
        let id = |i: usize| format!("{i:064x}");
        let valid: Value = (0..5000).map(|i| json!({"containerID": id(i), "ifname": "eth0"})).collect();
        // The best of three: other tests want the processors, too.
        let took = (0..3).map(|_| {
            for i in 0..6000 {
                let text = record.replace("\"c1\"", &format!("\"{}\"", id(i)));
                fs::write(format!("{RECORDS}/net/{}:eth0.json", id(i)), text).unwrap();
            }
            let start = Instant::now();
            gc(world).with(VALID, valid.clone()).run().succeeds();
            assert_eq!(world.records().len(), 5000);
            start.elapsed()
        });
        let took: Vec<Duration> = took.collect();
        assert!(took.iter().any(|one| *one < Duration::from_secs(1)), "{took:?}");
    });
}

#[test]
fn row_7_10_nothing_but_the_list_is_needed() {
    for_an_unselected_pod(|world| {
        four(world);
        let bare =
            json!({"cniVersion": "1.1.0", "name": "net", "type": "egret", "nodeName": "n1", VALID: []});
        gc(world).json(bare).run().succeeds();
        assert_eq!(world.records(), ["other/c2:eth0.json"]);
    });
}

#[test]
fn row_7_11_del_and_then_gc_is_fine() {
    for_every_pod(|world| {
        let before = world.records();
        world.add("c1");
        world.call("DEL").run().succeeds();
        gc(world).with(VALID, json!([])).run().succeeds();
        gc(world).run().succeeds();
        assert!(world.records().len() <= before.len());
    });
}
