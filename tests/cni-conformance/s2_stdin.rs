//! Section 2: what may come on standard input.

use serde_json::json;

use crate::call::entry;
use crate::world::{for_an_unselected_pod, for_every_pod};

#[test]
fn row_2_1_what_is_not_json_is_said() {
    for_an_unselected_pod(|world| {
        for bytes in
            [&b"{"[..], b"hello", b"[]", b"7", b"{\"name\":\"net\"} {}", b"{\"name\":\"\xff\"}", b"\0"]
        {
            for verb in ["ADD", "CHECK", "GC", "STATUS"] {
                world.call(verb).bytes(bytes).run().fails(6, &["JSON"]);
            }
        }
        let deep = format!("{{\"name\":\"net\",\"cniVersion\":\"1.0.0\",\"x\":{}", "[".repeat(100_000));
        world.call("ADD").bytes(deep).run().fails(6, &["JSON"]);
    });
}

#[test]
fn row_2_2_nothing_is_not_json() {
    for_an_unselected_pod(|world| world.call("ADD").bytes("").run().fails(6, &["JSON", "EOF"]));
}

#[test]
fn row_2_3_a_network_has_a_name() {
    for_an_unselected_pod(|world| {
        world.call("ADD").lacking("name").run().fails(7, &["missing network name"]);
        world.call("ADD").with("name", "").run().fails(7, &["missing network name"]);
    });
}

#[test]
fn row_2_4_a_malformed_network_name_is_refused() {
    for_an_unselected_pod(|world| {
        for name in ["a/b", "..", "a b"] {
            world.call("ADD").with("name", name).run().fails(7, &["network name", name]);
        }
        world.call("ADD").with("name", 7).run().fails(7, &["`name`", "7"]);
    });
}

#[test]
fn row_2_5_an_unknown_version_is_named_beside_those_that_would_do() {
    for_an_unselected_pod(|world| {
        for verb in ["ADD", "DEL", "CHECK", "GC", "STATUS"] {
            world.call(verb).with("cniVersion", "9.9.9").run().fails(1, &["9.9.9", "0.3.0", "1.1.0"]);
        }
        world.call("ADD").with("cniVersion", "0.2.0").run().fails(1, &["0.2.0"]);
    });
}

#[test]
fn row_2_6_a_version_that_is_none_is_named() {
    for_an_unselected_pod(|world| world.call("ADD").with("cniVersion", "abc").run().fails(1, &["abc"]));
}

#[test]
fn row_2_7_no_version_means_0_1_0() {
    for_an_unselected_pod(|world| world.call("ADD").lacking("cniVersion").run().fails(1, &["0.1.0"]));
}

#[test]
fn row_2_8_keys_of_others_are_ignored() {
    for_every_pod(|world| {
        let mut stdin = entry("1.0.0");
        stdin["capabilities"] = json!({"io.kubernetes.cri.pod-annotations": true});
        stdin["cni.dev/attachments"] = json!("?");
        stdin["somebody"] = json!({"else": [1, 2, 3]});
        stdin["ipam"] = json!({});
        world.call("ADD").json(stdin.clone()).run().succeeds();
        world.call("DEL").json(stdin).run().succeeds();
    });
}

#[test]
fn row_2_9_a_wrong_value_of_ours_is_named_with_its_key() {
    for_an_unselected_pod(|world| {
        let wrong = [
            (7, "stateDir", json!(7), "7"),
            (7, "runDir", json!("run"), "run"),
            (7, "nodeName", json!("a/b"), "a/b"),
            (7, "clusterCIDRs", json!(["10.0.0.1/8"]), "10.0.0.0/8"),
            (7, "clusterCIDRs", json!("10.0.0.0/8"), "10.0.0.0/8"),
            (7, "lockTimeout", json!("soon"), "soon"),
            (7, "underlay", json!(["eth0"]), "underlay"),
            (7, "underlay", json!({"address": "here"}), "underlay.address"),
            // Well formed, but there is no such thing.
            (2, "mode", json!("daemon"), "daemon"),
            (2, "egressIPSupport", json!("Sometimes"), "Sometimes"),
            (2, "multipathHash", json!("l5"), "l5"),
            (2, "markMask", json!(5), "0x5"),
            (7, "underlay", json!({"port": 70000}), "70000"),
            (2, "underlay", json!({"prot": 4790}), "prot"),
            (2, "log", json!("loud"), "loud"),
        ];
        for (code, key, value, word) in wrong {
            world.call("ADD").with(key, value).run().fails(code, &[key, word]);
        }
        assert!(world.records().is_empty());
    });
}

#[test]
fn row_2_9_a_wrong_value_does_not_stop_del() {
    for_every_pod(|world| {
        let before = world.records();
        world.add("c1");
        world.call("DEL").with("lockTimeout", "soon").with("mode", "daemon").run().succeeds();
        assert_eq!(world.records(), before);
    });
}

#[test]
fn row_2_10_twice_in_one_list_does_no_harm() {
    for_every_pod(|world| {
        world.add("c0");
        world.call("DEL").container("c0").run().succeeds();
        let (before, records) = (world.node_kernel(), world.records());
        let first = world.call("ADD").run().succeeds();
        let mut second = entry("1.1.0");
        second["prevResult"] = first.clone();
        assert_eq!(world.call("ADD").json(second.clone()).run().succeeds(), first);
        world.call("CHECK").run().succeeds();
        world.call("DEL").json(second).run().succeeds();
        world.call("DEL").run().succeeds();
        world.node_kernel().is_as(&before);
        assert_eq!(world.records(), records);
    });
}
