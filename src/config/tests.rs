//! What users write into the configuration, and what they are told.

use serde_json::{Value, json};

use super::*;

fn config(value: &Value) -> Config {
    Config::from_json(value).unwrap()
}

#[test]
fn an_entry_without_our_keys_is_the_default() {
    let entry = json!({"cniVersion": "1.0.0", "name": "n", "type": "egret", "prevResult": {}, "runtimeConfig": {"x": 1}});
    assert_eq!(config(&entry), Config::default());
    assert_eq!(Config::misspelled(&entry), []);
    assert_eq!(config(&json!({"mode": null, "underlay": null})), Config::default());
}

#[test]
fn every_key_is_read_and_written_back_the_same() {
    let entry = json!({
        "mode": "embedded",
        "stateDir": "/srv/egret",
        "runDir": "/run/e",
        "nodeName": "node-a.example",
        "egressIPSupport": "EnabledPerNamespace",
        "clusterCIDRs": ["10.244.0.0/16", "fd00:244::/56"],
        "adopt": ["calico", "cilium"],
        "underlay": {"device": "eth0", "address": "192.0.2.11", "port": 4789, "vni": 8000, "mtu": 1450},
        "announce": {"interfaces": ["eth0", "eth1.20"]},
        "multipathHash": "leave",
        "markMask": 0x7f00,
        "lockTimeout": 500,
        "log": "warn,egret=debug"
    });
    let read = config(&entry);
    assert_eq!(serde_json::to_value(&read).unwrap(), entry);
    assert_eq!(read, serde_json::from_value(entry).unwrap());
}

#[test]
fn a_mark_mask_is_a_number_or_a_text() {
    for mask in [json!(127), json!("127"), json!("0x7f"), json!("0X7F")] {
        assert_eq!(config(&json!({"markMask": mask})).mark_mask, 0x7f);
    }
    assert_eq!(config(&json!({"markMask": "0xfe000000"})).mark_mask, 0xfe00_0000);
}

#[test]
fn a_value_of_the_wrong_type_or_form_is_named() {
    for (entry, key, value, want) in [
        (json!([1]), "", "[1]", "the configuration is a list, but must be a map of keys and values"),
        (
            json!({"stateDir": 5}),
            "stateDir",
            "5",
            "stateDir is the number 5, but must be a text (put it in quotes)",
        ),
        (
            json!({"stateDir": "var"}),
            "stateDir",
            "var",
            "stateDir is `var`, but must be an absolute path; plugins run in any directory",
        ),
        (
            json!({"nodeName": "../a"}),
            "nodeName",
            "../a",
            "nodeName is `../a`, but must be the name of a Node object: lower-case letters, digits, `-` and `.`",
        ),
        (
            json!({"clusterCIDRs": "10.0.0.0/8"}),
            "clusterCIDRs",
            "10.0.0.0/8",
            "clusterCIDRs is the text \"10.0.0.0/8\", but must be a list",
        ),
        (
            json!({"clusterCIDRs": ["10.0.0.1/8"]}),
            "clusterCIDRs[0]",
            "10.0.0.1/8",
            "clusterCIDRs[0]: `10.0.0.1/8` has bits set below its prefix length; did you mean 10.0.0.0/8?",
        ),
        (json!({"underlay": true}), "underlay", "true", "underlay is `true`, a boolean, but must be a map"),
        (
            json!({"underlay": {"port": 0}}),
            "underlay.port",
            "0",
            "underlay.port is the number 0, but must be a whole number from 1 to 65535",
        ),
        (
            json!({"underlay": {"address": "node-a"}}),
            "underlay.address",
            "node-a",
            "underlay.address is `node-a`, but must be an address of this node such as 192.0.2.11",
        ),
        (
            json!({"announce": {"interfaces": ["a/b"]}}),
            "announce.interfaces[0]",
            "a/b",
            "announce.interfaces[0] is `a/b`, but must be the name of a network device such as eth0",
        ),
        (
            json!({"markMask": "all"}),
            "markMask",
            "all",
            "markMask is the text \"all\", but must be a number such as \"0x7f\"",
        ),
        (
            json!({"underlay": {"vni": 16_777_216}}),
            "underlay.vni",
            "16777216",
            "underlay.vni is the number 16777216, but must be a whole number from 1 to 16777215",
        ),
        (
            json!({"lockTimeout": "10s"}),
            "lockTimeout",
            "10s",
            "lockTimeout is the text \"10s\", but must be a whole number from 0 to 120000",
        ),
    ] {
        let error = Config::from_json(&entry).unwrap_err();
        assert_eq!(error.to_string(), want);
        let ConfigError::Wrong { key: k, value: v, .. } = error else { panic!("{entry}: {error:?}") };
        assert_eq!((k.as_str(), v.as_str()), (key, value));
    }
}

#[test]
fn a_value_that_is_not_served_is_another_error() {
    for (entry, key, value, want) in [
        (json!({"mode": "fancy"}), "mode", "fancy", "mode is `fancy`, but must be embedded or cluster"),
        (
            json!({"egressIPSupport": "Disabled"}),
            "egressIPSupport",
            "Disabled",
            "egressIPSupport `Disabled` is not offered; take Egret's entry out of the list instead, after `egret uninstall`",
        ),
        (
            json!({"egressIPSupport": "Enabled"}),
            "egressIPSupport",
            "Enabled",
            "egressIPSupport is `Enabled`, but must be EnabledPerNamespace or EnabledPerNamespaceOrPerPod",
        ),
        (
            json!({"markMask": 255}),
            "markMask",
            "0xff",
            "markMask is 0xff, but must have seven adjacent bits, as 0x7f, 0x7f00 or 0xfe000000 do",
        ),
        (
            json!({"markMask": 0}),
            "markMask",
            "0x0",
            "markMask is 0x0, but must have seven adjacent bits, as 0x7f, 0x7f00 or 0xfe000000 do",
        ),
        (
            json!({"adopt": ["calico", "IPPool"]}),
            "adopt[1]",
            "IPPool",
            "adopt[1] is `IPPool`, but must be calico or cilium",
        ),
        (
            json!({"multipathHash": "L4"}),
            "multipathHash",
            "L4",
            "multipathHash is `L4`, but must be l4 or leave",
        ),
        (
            json!({"underlay": {"VNI": 5}}),
            "underlay.VNI",
            "5",
            "the field underlay.VNI is unknown; did you mean `vni`?",
        ),
        (
            json!({"log": "wran"}),
            "log",
            "wran",
            "log is `wran`, but must be error, warn, info, debug, trace or off, or several of TARGET=LEVEL separated by commas",
        ),
    ] {
        let error = Config::from_json(&entry).unwrap_err();
        assert_eq!(error.to_string(), want);
        let ConfigError::Unsupported { key: k, value: v, .. } = error else { panic!("{entry}: {error:?}") };
        assert_eq!((k.as_str(), v.as_str()), (key, value));
    }
}

#[test]
fn keys_that_look_like_ours_are_warned_of() {
    let entry = json!({"stateDIR": "/x", "clusterCidrs": [], "names": 1, "ipMasq": true, "log": "info"});
    let told: Vec<String> = Config::misspelled(&entry).iter().map(ToString::to_string).collect();
    assert_eq!(
        told,
        [
            "stateDIR: the key `stateDIR` is unknown and has no effect; did you mean `stateDir`?",
            "clusterCidrs: the key `clusterCidrs` is unknown and has no effect; did you mean `clusterCIDRs`?",
        ]
    );
    assert_eq!(config(&entry).log, "info");
}

#[test]
fn a_file_is_a_map_an_entry_or_a_list_with_one() {
    let dir = std::env::temp_dir().join(format!("egret-config-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let read = |name: &str, text: &str| {
        let path = dir.join(name);
        std::fs::write(&path, text).unwrap();
        Config::from_file(&path)
            .map_err(|error| error.to_string().replace(&format!("{}/", dir.display()), ""))
    };
    for (name, text) in [
        ("config.json", r#"{"log": "info"}"#),
        ("config.yaml", "log: info\n"),
        ("egret.conf", r#"{"type": "egret", "log": "info"}"#),
        (
            "a.conflist",
            r#"{"name": "n", "plugins": [{"type": "bridge", "log": 5}, {"type": "egret", "log": "info"}]}"#,
        ),
    ] {
        assert_eq!(read(name, text).unwrap().log, "info", "{name}");
    }
    for (name, text, want) in [
        (
            "b.conflist",
            r#"{"plugins": [{"type": "bridge"}]}"#,
            "the configuration b.conflist has no entry of type \"egret\"; name the file that has, or write one",
        ),
        (
            "c.json",
            r#"{"type": "bridge"}"#,
            "the configuration c.json has no entry of type \"egret\"; name the file that has, or write one",
        ),
        ("d.json", "{\n\"log\" 5}", "the configuration d.json is not JSON: line 2, column 7: expected `:`"),
        ("e.json", "", "the configuration e.json holds no single map of keys and values"),
        ("f.yaml", "mode: fancy", "mode is `fancy`, but must be embedded or cluster"),
    ] {
        assert_eq!(read(name, text).unwrap_err(), want);
    }
    let missing = Config::from_file(&dir.join("none.json")).unwrap_err().to_string();
    assert!(
        missing.contains("none.json: No such file or directory (os error 2); --config names"),
        "{missing}"
    );
    std::fs::remove_dir_all(&dir).unwrap();
}
