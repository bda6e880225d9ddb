//! Section 1: what the CNI_* variables may be.

use std::process::Command;

use crate::world::{egret, for_an_unselected_pod, for_every_pod};

#[test]
fn row_1_1_without_a_command_it_says_what_it_is() {
    let run = Command::new(egret()).env_remove("CNI_COMMAND").output().unwrap();
    let stderr = String::from_utf8(run.stderr).unwrap();
    assert!(run.status.success() && run.stdout.is_empty(), "{stderr}");
    assert!(
        stderr.contains("CNI protocol versions supported: 0.3.0, 0.3.1, 0.4.0, 1.0.0, 1.1.0"),
        "{stderr}"
    );

    let on_a_terminal = Command::new("script").args(["-qec"]).arg(egret()).arg("/dev/null").output();
    let on_a_terminal = on_a_terminal.expect("needs `script` (Debian: bsdutils)");
    assert!(on_a_terminal.status.success());
    assert!(String::from_utf8_lossy(&on_a_terminal.stdout).contains("CNI protocol versions supported"));
}

#[test]
fn row_1_2_an_unknown_command_is_named() {
    for_an_unselected_pod(|world| world.call("FOO").run().fails(4, &["unknown CNI_COMMAND: FOO"]));
}

#[test]
fn row_1_3_every_missing_variable_is_named() {
    for_an_unselected_pod(|world| {
        let call = || world.call("ADD").without("CNI_CONTAINERID").without("CNI_NETNS").without("CNI_IFNAME");
        call().run().fails(4, &["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"]);
        call().env("CNI_COMMAND", "CHECK").run().fails(4, &["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"]);
        call().env("CNI_COMMAND", "DEL").run().fails(4, &["CNI_CONTAINERID", "CNI_IFNAME"]);
        call().env("CNI_NETNS", "/run/netns/a").run().fails(4, &["[CNI_CONTAINERID,CNI_IFNAME]"]);
        call().stdin_stays_open().run().fails(4, &["CNI_NETNS"]);
        assert!(world.records().is_empty());
    });
}

#[test]
fn row_1_4_a_path_is_not_needed() {
    for_every_pod(|world| {
        world.call("ADD").without("CNI_PATH").run().succeeds();
    });
}

#[test]
fn row_1_5_an_empty_variable_is_a_missing_one() {
    for_an_unselected_pod(|world| {
        for name in ["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"] {
            world.call("ADD").env(name, "").run().fails(4, &[name]);
        }
        for verb in ["GC", "STATUS"] {
            let call = world.call(verb).env("CNI_CONTAINERID", "").env("CNI_NETNS", "");
            call.env("CNI_IFNAME", "").env("CNI_ARGS", "").run().succeeds();
        }
    });
}

#[test]
fn row_1_6_a_malformed_container_id_is_refused() {
    for_an_unselected_pod(|world| {
        for id in ["a/b", "../x", ".x", "-x", "_x", "a b", "a:b", "é"] {
            for verb in ["ADD", "CHECK", "DEL"] {
                world.call(verb).env("CNI_CONTAINERID", id).run().fails(4, &["CNI_CONTAINERID", id]);
            }
        }
        world.call("ADD").env("CNI_CONTAINERID", "0a_.-Z").run().succeeds();
        world.call("ADD").env("CNI_CONTAINERID", &"c".repeat(200)).run().succeeds();
        world.call("ADD").env("CNI_CONTAINERID", &"c".repeat(300)).run().fails(4, &["longer"]);
    });
}

#[test]
fn row_1_7_a_malformed_interface_name_is_refused() {
    for_an_unselected_pod(|world| {
        for name in ["sixteen_bytes_xx", ".", "..", "a/b", "a:b", "a b", "a\tb", "a\n"] {
            for verb in ["ADD", "CHECK", "DEL"] {
                world.call(verb).env("CNI_IFNAME", name).run().fails(4, &["CNI_IFNAME", name]);
            }
        }
        world.call("DEL").env("CNI_IFNAME", "exactly15bytes_").run().succeeds();
    });
}

#[test]
fn row_1_8_del_needs_no_namespace() {
    for_every_pod(|world| {
        let before = world.records();
        world.add("c1");
        world.call("DEL").without("CNI_NETNS").run().succeeds();
        assert_eq!(world.records(), before);
    });
}

#[test]
fn row_1_9_gc_and_status_need_a_command_only() {
    for_an_unselected_pod(|world| {
        for verb in ["GC", "STATUS"] {
            let call = world.call(verb).without("CNI_CONTAINERID").without("CNI_NETNS");
            call.without("CNI_IFNAME").without("CNI_ARGS").run().succeeds();
        }
    });
}

#[test]
fn row_1_10_version_does_not_read_standard_input() {
    for_an_unselected_pod(|world| {
        let names = ["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_PATH", "CNI_ARGS"];
        let bare = || names.iter().fold(world.call("VERSION"), |call, name| call.without(name));
        let open = bare().stdin_stays_open().run().succeeds();
        assert_eq!(open, bare().bytes("").run().succeeds());
        assert_eq!(open["supportedVersions"].as_array().unwrap().len(), 5);
    });
}

#[test]
fn row_1_11_variables_of_others_are_ignored() {
    for_every_pod(|world| {
        let call = world.call("ADD").env("TRACEPARENT", "00-x").env("TRACESTATE", "?").env("BAGGAGE", "a=b");
        call.env("RUST_LOG", "trace").env("RUST_BACKTRACE", "1").run().succeeds();
    });
}
