//! Section 4, first part: the previous plugin's result, in all its shapes.

use serde_json::{Value, json};

use crate::call::{entry, result};
use crate::world::{Kind, World, for_an_unselected_pod, for_every_pod, output};

fn add(world: &World, prev: &Value) -> Value {
    let version = prev["cniVersion"].as_str().unwrap().to_owned();
    let mut stdin = entry(&version);
    stdin["prevResult"] = prev.clone();
    world.call("ADD").json(stdin).run().succeeds()
}

/// Adds with this result and returns the addresses that the record holds.
fn recorded(world: &World, prev: &Value) -> Vec<String> {
    assert_eq!(&add(world, prev), prev);
    let record = std::fs::read(format!("{}/net/c1:eth0.json", crate::world::RECORDS)).unwrap();
    let record: Value = serde_json::from_slice(&record).unwrap();
    record["addresses"].as_array().unwrap().iter().map(|a| a.as_str().unwrap().to_owned()).collect()
}

#[test]
fn row_4_1_without_a_previous_result_it_is_not_chained() {
    for_an_unselected_pod(|world| {
        world.call("ADD").lacking("prevResult").run().fails(7, &["chained"]);
        world.call("ADD").with("prevResult", Value::Null).run().fails(7, &["chained"]);
        assert!(world.records().is_empty());
    });
}

#[test]
fn row_4_2_the_result_passes_through_byte_for_byte() {
    for_every_pod(|world| {
        let prev = concat!(
            r#"{ "x-top":[1, 2.50,1e3, 123456789012345678901234567890 ],"cniVersion":"1.0.0","dns":{},"#,
            r#""interfaces":[{"x-if":{"z":null,"a":"\u00e9"},"name":"eth0","sandbox":"/run/netns/a"}],"#,
            r#""ips":[{"interface":0,"address":"10.1.2.3/24"}],"routes":[{"dst":"0.0.0.0/0"}] }"#
        );
        let stdin = format!(r#"{{"cniVersion":"1.0.0","name":"net","nodeName":"n1","prevResult":{prev}}}"#);
        let mut outcome = world.call("ADD").bytes(stdin.clone()).start();
        drop(outcome.stdin.take());
        let output = crate::call::finish(outcome, crate::call::AN_END);
        assert_eq!(String::from_utf8(output.stdout).unwrap(), format!("{prev}\n"));
    });
}

#[test]
fn row_4_3_the_old_layout_stays() {
    for_every_pod(|world| {
        for version in ["0.3.0", "0.3.1", "0.4.0"] {
            let prev = result(version);
            assert_eq!(prev["ips"][0]["version"], "4");
            assert_eq!(add(world, &prev), prev);
        }
    });
}

#[test]
fn row_4_4_the_new_layout_stays() {
    for_every_pod(|world| {
        assert_eq!(add(world, &result("1.0.0")), result("1.0.0"));
        let mut prev = result("1.1.0");
        prev["interfaces"][1]["mtu"] = json!(1450);
        prev["interfaces"][1]["socketPath"] = json!("/run/x.sock");
        prev["interfaces"][1]["pciID"] = json!("0000:00:1f.6");
        prev["routes"][0] =
            json!({"dst": "0.0.0.0/0", "mtu": 1400, "advmss": 1360, "priority": 3, "table": 7, "scope": 253});
        assert_eq!(add(world, &prev), prev);
    });
}

#[test]
fn row_4_5_a_result_without_a_version_gets_the_lists() {
    for_every_pod(|world| {
        for version in ["0.3.1", "1.0.0", "1.1.0"] {
            let mut stdin = entry(version);
            stdin["prevResult"].as_object_mut().unwrap().shift_remove("cniVersion");
            let answer = world.call("ADD").json(stdin).run().succeeds();
            assert_eq!(answer, result(version));
        }
    });
}

#[test]
fn row_4_6_a_result_that_is_none_is_refused() {
    for_an_unselected_pod(|world| {
        for (wrong, word) in [
            (json!({"ips": "10.1.2.3"}), "prevResult.ips"),
            (json!({"interfaces": {}}), "prevResult.interfaces"),
            (json!({"ips": [{"address": "10.1.2.3"}]}), "10.1.2.3"),
            (json!([1]), "prevResult"),
            (json!("x"), "prevResult"),
        ] {
            world.call("ADD").with("prevResult", wrong).run().fails(6, &[word]);
        }
        assert!(world.records().is_empty());
    });
}

#[test]
fn row_4_7_all_addresses_of_our_interface_and_no_other() {
    for_every_pod(|world| {
        let mut prev = result("1.0.0");
        prev["interfaces"].as_array_mut().unwrap().push(json!({"name": "net1", "sandbox": "/run/netns/a"}));
        prev["ips"] = json!([
            {"interface": 1, "address": "10.1.2.3/24"},
            {"interface": 2, "address": "10.9.9.9/24"},
            {"interface": 1, "address": "fd00::3/64"},
            {"interface": 1, "address": "10.1.2.4/24"},
            {"address": "10.1.2.5/32"},
            {"interface": 77, "address": "10.1.2.6/32"}
        ]);
        assert_eq!(recorded(world, &prev), ["10.1.2.3", "fd00::3", "10.1.2.4", "10.1.2.5", "10.1.2.6"]);
    });
}

#[test]
fn row_4_8_of_two_interfaces_of_our_name_ours_is_the_one_in_the_sandbox() {
    for_every_pod(|world| {
        let mut prev = result("1.0.0");
        prev["interfaces"] = json!([{"name": "eth0"}, {"name": "eth0", "sandbox": "/run/netns/a"}]);
        prev["ips"] =
            json!([{"interface": 0, "address": "10.9.9.9/24"}, {"interface": 1, "address": "10.1.2.3/24"}]);
        assert_eq!(recorded(world, &prev), ["10.1.2.3"]);
    });
}

#[test]
fn row_4_9_kindnet_names_no_sandbox() {
    for_every_pod(|world| {
        let mut prev = result("0.4.0");
        prev["interfaces"] = json!([{"name": "eth0"}]);
        prev["ips"] =
            json!([{"version": "4", "interface": 0, "address": "10.1.2.3/24", "gateway": "10.1.2.1"}]);
        assert_eq!(recorded(world, &prev), ["10.1.2.3"]);
    });
}

#[test]
fn row_4_10_azure_gives_no_index() {
    for_every_pod(|world| {
        let mut prev = result("0.3.0");
        prev["interfaces"] = json!([{"name": "eth0", "mac": "aa:aa:aa:aa:aa:02"}]);
        prev["ips"] = json!([{"version": "4", "address": "10.1.2.3/24"}]);
        assert_eq!(recorded(world, &prev), ["10.1.2.3"]);
    });
}

#[test]
fn row_4_11_aws_puts_numbers_where_macs_and_sandboxes_belong() {
    for_every_pod(|world| {
        let mut prev = result("0.4.0");
        prev["interfaces"] = json!([
            {"name": "eni3b5a7c1d2e9"},
            {"name": "eth0", "mac": "254", "sandbox": "/run/netns/a"},
            {"name": "dummy3b5a7c1d2e9", "mac": "0", "sandbox": "0"}
        ]);
        prev["ips"] = json!([{"version": "4", "interface": 1, "address": "10.1.2.3/32"}]);
        assert_eq!(recorded(world, &prev), ["10.1.2.3"]);
    });
}

#[test]
fn row_4_12_addresses_without_interfaces_are_accepted() {
    for_every_pod(|world| {
        let mut prev = result("1.0.0");
        prev.as_object_mut().unwrap().shift_remove("interfaces");
        prev["ips"] = json!([{"address": "10.1.2.3/24"}]);
        assert_eq!(recorded(world, &prev), ["10.1.2.3"]);
    });
}

#[test]
fn row_4_13_a_pod_without_addresses_and_without_egress_passes() {
    for_an_unselected_pod(|world| {
        for ips in [json!([]), Value::Null] {
            let mut prev = result("1.0.0");
            prev["ips"] = ips;
            assert!(recorded(world, &prev).is_empty());
        }
    });
}

#[test]
fn row_4_13_a_pod_with_egress_needs_an_address() {
    for_every_pod(|world| {
        if world.kind == Kind::Unselected {
            return; // the case above
        }
        let before = world.dump();
        output(&["nsenter", "--net=/run/netns/a", "ip", "addr", "flush", "dev", "eth0"]);
        let call = || world.call("ADD");
        let mut prev = result("1.1.0");
        prev["ips"] = json!([]);
        call().with("prevResult", prev.clone()).run().fails(7, &["eth0", "address"]);
        // What the namespace has counts where the result says nothing.
        output(&["nsenter", "--net=/run/netns/a", "ip", "addr", "add", "10.1.2.3/24", "dev", "eth0"]);
        world.dump().is_as(&before);
        call().with("prevResult", prev).run().succeeds();
        assert!(world.is_wired("10.1.2.3"));
    });
}

#[test]
fn row_4_29_the_addresses_are_neither_more_nor_in_another_order() {
    for_every_pod(|world| {
        let mut prev = result("1.0.0");
        prev["ips"] =
            (2..40).rev().map(|i| json!({"interface": 1, "address": format!("10.1.2.{i}/24")})).collect();
        assert_eq!(add(world, &prev)["ips"], prev["ips"]);
    });
}

#[test]
fn row_4_30_the_interfaces_begin_with_those_of_the_previous_result() {
    for_every_pod(|world| {
        let prev = result("1.0.0");
        let answer = add(world, &prev);
        let (before, after) =
            (prev["interfaces"].as_array().unwrap(), answer["interfaces"].as_array().unwrap());
        assert_eq!(after[..before.len()], before[..]);
        assert!(after[before.len()..].iter().all(|interface| interface["name"] != "eth0"));
    });
}
