//! Section 9: through the real libcni, behind real primaries.

use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use serde_json::{Value, json};

use crate::call::{AN_END, entry, finish};
use crate::libcni::{Libcni, bridge, ours, portmap, ptp};
use crate::world::{egret, for_every_pod};

const VERSIONS: [&str; 5] = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];

/// A pod's whole life with this list, in every version: what the others do with and without us is the same, all verbs
/// that the version has succeed, and afterwards nothing is left.
fn whole_life(plugins: &[Value]) {
    let position = plugins.iter().position(|plugin| plugin["type"] == "egret").unwrap();
    let mut others = plugins.to_vec();
    others.remove(position);
    for version in VERSIONS {
        for_every_pod(|world| {
            let mapping = json!([{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]);
            let runtime = Libcni::new(world).capability("portMappings", mapping);
            runtime.list(version, plugins);
            runtime.add(); // the first pod of a node makes what the node needs
            runtime.run("del").unwrap();
            fs::remove_dir_all("/var/lib/cni/networks/net").unwrap();
            runtime.pod("other");
            let (add, del) =
                (|| runtime.add_for("other"), || runtime.run_for("del", "net", "other").unwrap());
            runtime.list(version, &others);
            let without = add();
            del();
            fs::remove_dir_all("/var/lib/cni/networks/net").unwrap(); // addresses from the first on again

            runtime.list(version, plugins);
            let records = world.records();
            let before = crate::world::output(&["nft", "-s", "list", "ruleset"]);
            let with = add();
            assert_eq!(without_names(&with), without_names(&without), "{version}");
            assert_eq!(with["cniVersion"], version);
            assert_eq!(world.records().len(), records.len() + 1, "{version}");
            let address = with["ips"][0]["address"].as_str().unwrap().split_once('/').unwrap().0;
            assert!(world.is_wired(address), "{address}");
            if version >= "0.4.0" {
                runtime.run_for("check", "net", "other").unwrap();
            }
            if version >= "1.1.0" {
                runtime.run("status").unwrap();
            }
            del();
            assert_eq!(world.records(), records, "{version}");
            del();
            assert_eq!(crate::world::output(&["nft", "-s", "list", "ruleset"]), before);
            if version >= "1.1.0" {
                add();
                runtime.run("gc").unwrap();
                assert_eq!(world.records(), records, "cnitool gc deletes what is cached");
            }
        });
    }
}

/// A result without what a second ADD draws anew: names of host interfaces, MACs.
fn without_names(result: &Value) -> Value {
    let mut result = result.clone();
    for interface in result["interfaces"].as_array_mut().unwrap() {
        interface["mac"] = Value::Null;
        if interface["name"].as_str().is_some_and(|name| name.starts_with("veth")) {
            interface["name"] = Value::Null;
        }
    }
    result
}

#[test]
fn behind_bridge_and_host_local() {
    whole_life(&[bridge(), ours("egret")]);
}

#[test]
fn behind_ptp_and_host_local() {
    whole_life(&[ptp(), ours("egret")]);
}

#[test]
fn behind_bridge_and_before_portmap() {
    whole_life(&[bridge(), ours("egret"), portmap()]);
}

#[test]
fn behind_bridge_and_portmap() {
    whole_life(&[bridge(), portmap(), ours("egret")]);
}

#[test]
fn the_shipped_list_works_as_it_is() {
    for_every_pod(|world| {
        let runtime = Libcni::new(world);
        let shipped = concat!(env!("CARGO_MANIFEST_DIR"), "/conf/10-egress.conflist");
        let text = fs::read_to_string(shipped).unwrap();
        let list: Value = serde_json::from_str(&text).unwrap();
        fs::copy(shipped, runtime.lists().join("10-egress.conflist")).unwrap();
        let network = list["name"].as_str().unwrap();
        let result: Value = serde_json::from_str(&runtime.run_for("add", network, "pod").unwrap()).unwrap();
        assert_eq!(result["ips"].as_array().unwrap().len(), 2, "one address per family");
        assert!(world.is_wired(result["ips"][0]["address"].as_str().unwrap().split_once('/').unwrap().0));
        for verb in ["check", "status", "del", "del", "gc"] {
            runtime.run_for(verb, network, "pod").unwrap_or_else(|e| panic!("{verb}: {e}"));
        }
    });
}

#[test]
fn the_shipped_list_shows_every_key_and_the_documentation_explains_each() {
    let read = |file: &str| fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap();
    let list: Value = serde_json::from_str(&read("conf/10-egress.conflist")).unwrap();
    let ours = list["plugins"].as_array().unwrap().iter().find(|plugin| plugin["type"] == "egret").unwrap();
    assert_eq!(ours["capabilities"], json!({"io.kubernetes.cri.pod-annotations": true}));
    let documentation = read("docs/configuration.md");
    let defaults = serde_json::to_value(egret::config::Config::default()).unwrap();
    // What nobody reads would be shown as if it had an effect; and a default that changed must change here, too.
    let of_cni = ["type", "capabilities"];
    for (key, shown) in ours.as_object().unwrap().iter().filter(|(key, _)| !of_cni.contains(&key.as_str())) {
        let default = defaults.get(key).unwrap_or_else(|| panic!("nobody reads `{key}`"));
        assert!(shown == default || key == "clusterCIDRs", "`{key}` is {shown}, and by default {default}");
    }
    for (key, default) in defaults.as_object().unwrap() {
        assert!(ours.get(key).is_some(), "conf/10-egress.conflist lacks `{key}`");
        assert!(documentation.contains(&format!("### `{key}`")), "docs/configuration.md lacks `{key}`");
        for inner in default.as_object().into_iter().flat_map(serde_json::Map::keys) {
            assert!(ours[key].get(inner).is_some(), "conf/10-egress.conflist lacks `{key}.{inner}`");
            assert!(
                documentation.contains(&format!("`{inner}`")),
                "docs/configuration.md lacks `{key}.{inner}`"
            );
        }
    }
}

#[test]
fn row_9_1_of_several_versions_the_highest_is_spoken_with_everybody() {
    for_every_pod(|world| {
        let runtime = Libcni::new(world).with_witness();
        let list = json!({"cniVersion": "1.0.0", "cniVersions": ["1.0.0", "1.1.0"], "name": "net",
            "plugins": [ptp(), ours("witness")]});
        fs::write(runtime.lists().join("10-net.conflist"), list.to_string()).unwrap();
        assert_eq!(runtime.add()["cniVersion"], "1.1.0");
        assert_eq!(runtime.witnessed("ADD")[0]["cniVersion"], "1.1.0");
    });
}

#[test]
fn row_9_2_the_result_is_cached_as_libcni_expects() {
    for_every_pod(|world| {
        let runtime = Libcni::new(world);
        runtime.list("1.0.0", &[ptp(), ours("egret")]);
        let result = runtime.add();
        let cached: Vec<_> = fs::read_dir("/var/lib/cni/results").unwrap().flatten().collect();
        assert_eq!(cached.len(), 1);
        let name = cached[0].file_name().into_string().unwrap();
        assert!(name.starts_with("net-cnitool-") && name.ends_with("-eth0"), "{name}");
        let cache: Value = serde_json::from_slice(&fs::read(cached[0].path()).unwrap()).unwrap();
        assert_eq!((&cache["kind"], &cache["result"]), (&"cniCacheV1".into(), &result));
    });
}

#[test]
fn row_9_3_check_and_del_get_the_final_result_of_the_chain() {
    for_every_pod(|world| {
        let runtime = Libcni::new(world).capability("portMappings", json!([])).with_witness();
        runtime.list("1.0.0", &[ptp(), ours("witness"), portmap()]);
        let result = runtime.add();
        runtime.run("check").unwrap();
        runtime.run("del").unwrap();
        assert_eq!(runtime.witnessed("CHECK")[0]["prevResult"], result);
        assert_eq!(runtime.witnessed("DEL")[0]["prevResult"], result);
    });
}

#[test]
fn row_9_4_del_comes_in_reverse_and_our_interface_is_still_there() {
    for_every_pod(|world| {
        let runtime = Libcni::new(world).with_witness();
        // The last plugin of the list is asked first; it looks whether eth0 exists.
        let look = format!(
            "#!/bin/sh\n[ $CNI_COMMAND = DEL ] && nsenter --net=$CNI_NETNS ip link show eth0 > {}/look\ncat > /dev/null\n",
            crate::world::SCRATCH
        );
        let program = runtime.bin().join("look");
        fs::write(&program, look).unwrap();
        crate::world::output(&["chmod", "755", program.to_str().unwrap()]);
        runtime.list("1.0.0", &[ptp(), ours("witness")]);
        runtime.add();
        runtime.list("1.0.0", &[ptp(), json!({"type": "look"}), ours("witness")]);
        runtime.run("del").unwrap();
        assert!(fs::read_to_string(format!("{}/look", crate::world::SCRATCH)).unwrap().contains("eth0"));
        assert!(!crate::world::output(&["nsenter", "--net=/run/netns/pod", "ip", "link"]).contains("eth0"));
    });
}

#[test]
fn row_9_5_the_second_del_comes_without_a_previous_result() {
    for_every_pod(|world| {
        let runtime = Libcni::new(world).with_witness();
        runtime.list("1.0.0", &[ptp(), ours("witness")]);
        runtime.add();
        runtime.run("del").unwrap();
        runtime.run("del").unwrap();
        let seen: Vec<bool> =
            runtime.witnessed("DEL").iter().map(|stdin| stdin.get("prevResult").is_some()).collect();
        assert_eq!(seen, [true, false]);
    });
}

#[test]
fn row_9_6_a_list_of_0_3_1_has_no_check_and_no_previous_result_on_del() {
    for_every_pod(|world| {
        let runtime = Libcni::new(world).with_witness();
        runtime.list("0.3.1", &[ptp(), ours("witness")]);
        runtime.add();
        assert!(runtime.run("check").unwrap_err().contains("does not support the CHECK command"));
        runtime.run("del").unwrap();
        assert!(runtime.witnessed("CHECK").is_empty());
        assert_eq!(runtime.witnessed("DEL")[0].get("prevResult"), None);
        assert!(world.records().is_empty());
    });
}

/// A list without Egret, and Egret beside it in the folder named after the network.
fn drop_in(runtime: &Libcni<'_>) {
    runtime.list("1.0.0", &[ptp()]);
    fs::create_dir(runtime.lists().join("net")).unwrap();
    fs::write(runtime.lists().join("net/50-egret.conf"), ours("witness").to_string()).unwrap();
}

#[test]
fn row_9_7_a_drop_in_joins_the_chain() {
    for_every_pod(|world| {
        let runtime = Libcni::new(world).with_witness();
        drop_in(&runtime);
        runtime.add();
        let stdin = &runtime.witnessed("ADD")[0];
        assert_eq!((&stdin["name"], &stdin["cniVersion"]), (&"net".into(), &"1.0.0".into()));
        runtime.run("check").unwrap();
        runtime.run("del").unwrap();
        assert!(world.records().is_empty());
    });
}

#[test]
fn row_9_8_an_attachment_whose_del_never_came_is_reclaimed() {
    for_every_pod(|world| {
        let runtime = Libcni::new(world).with_witness();
        let before = world.records();
        drop_in(&runtime);
        runtime.add();
        // CRI-O deletes with the configuration of the cache, which has no drop-ins.
        fs::remove_dir_all(runtime.lists().join("net")).unwrap();
        runtime.run("del").unwrap();
        assert_eq!(world.records().len(), before.len() + 1);
        world.remove_netns("pod");
        world.call("GC").run().succeeds();
        assert_eq!(world.records(), before);
    });
}

/// Copies the plugin by a program of its own: a child that another test is just starting would inherit our descriptor, open for
/// writing, and nobody could execute the file as long as it lives.
fn install(to: &Path) {
    assert!(Command::new("cp").arg(egret()).arg(to).status().unwrap().success());
}

#[test]
fn row_9_9_the_program_is_replaced_while_it_runs() {
    for_every_pod(|world| {
        let runtime = Libcni::new(world);
        let installed = runtime.bin().join("egret");
        fs::remove_file(&installed).unwrap();
        install(&installed);
        let mut running = Command::new(&installed)
            .env("CNI_COMMAND", "GC")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // An installer writes beside it and renames; writing into it would be refused ("text file busy").
        assert!(fs::OpenOptions::new().write(true).open(&installed).is_err());
        let fresh = runtime.bin().join(".egret.new");
        install(&fresh);
        fs::rename(&fresh, &installed).unwrap();
        runtime.list("1.0.0", &[ptp(), ours("egret")]);
        runtime.add();
        use std::io::Write;
        running.stdin.take().unwrap().write_all(entry("1.1.0").to_string().as_bytes()).unwrap();
        assert!(finish(running, AN_END).status.success());
    });
}

#[test]
fn row_9_10_the_caller_reads_our_words() {
    for_every_pod(|world| {
        let runtime = Libcni::new(world);
        let mut wrong = ours("egret");
        wrong["lockTimeout"] = "soon".into();
        runtime.list("1.0.0", &[ptp(), wrong]);
        let error = runtime.run("add").unwrap_err();
        assert!(error.contains(r#"plugin type="egret" failed (add): "#), "{error}");
        assert!(error.contains("lockTimeout") && error.contains("soon"), "{error}");
        runtime.list("1.0.0", &[ptp(), ours("egret")]);
        runtime.run("del").unwrap();
        assert!(world.records().is_empty());
    });
}

#[test]
fn row_9_11_no_child_keeps_standard_output_open() {
    for_every_pod(|world| {
        for verb in ["ADD", "CHECK", "DEL"] {
            let mut child = world.call(verb).start();
            let mut stdout = child.stdout.take().unwrap();
            assert!(child.wait().unwrap().success());
            // Who reads does not wait: there is an end, not only nothing more for now.
            fcntl(&stdout, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
            let ended = stdout.read_to_end(&mut Vec::new());
            assert!(ended.is_ok(), "{verb}: the pipe outlives the plugin: {ended:?}");
        }
    });
}
