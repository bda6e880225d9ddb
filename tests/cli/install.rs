//! `egret install` on folders of their own: it looks before it writes.

use std::process::Command;
use std::time::Duration;

use egret::testbed::within;
use serde_json::{Value, json};

use crate::world::{Folder, Said, output};

const LIST: &str = r#"{"cniVersion": "1.0.0", "name": "n", "plugins": [{"type": "bridge"}]}"#;
const AT: &str = "--cni-bin bin --cni-conf conf";

#[test]
fn without_a_list_to_stand_in_nothing_is_written() {
    let empty = r#"{"cniVersion": "1.0.0", "name": "n", "plugins": []}"#;
    let alone = r#"{"cniVersion": "1.0.0", "name": "n", "type": "bridge"}"#;
    let multus = r#"{"cniVersion": "0.3.1", "name": "m", "type": "multus"}"#;
    for (files, words, why) in [
        (vec![("conf/10-n.conflist", LIST)], "--list nope", "cannot read conf/nope"),
        (vec![("conf/note", "")], "", "there is no network list"),
        (vec![("conf/10-n.conflist", empty)], "", "has no plugin before Egret's"),
        (vec![("conf/10-n.conf", alone), ("conf/00-multus.conf", multus)], "", "is one plugin alone"),
    ] {
        let folder = Folder::with(&files);
        let said = folder.egret(&format!("install {AT} {words}"));
        assert!(said.err.contains(why), "{}", said.err);
        assert_eq!((said.status, said.out.as_str()), (1, ""));
        assert!(!folder.path().join("bin").exists(), "{words}: the program was copied");
        let text = std::fs::read_to_string(folder.path().join(files[0].0)).unwrap();
        assert_eq!(text, files[0].1);
    }
}

/// A list that a runtime passes over is passed over.
#[test]
fn a_list_without_plugins_is_no_primary() {
    let empty = r#"{"cniVersion": "1.0.0", "name": "e", "plugins": []}"#;
    let folder = Folder::with(&[("conf/00-e.conflist", empty), ("conf/10-n.conflist", LIST)]);
    let said = folder.egret(&format!("install {AT}"));
    assert!(said.out.contains("conf/10-n.conflist: entered"), "{}{}", said.out, said.err);
}

#[test]
fn keys_without_effect_are_named() {
    let keys = ("egret.json", r#"{"stateDIR": "/var/lib/egret"}"#);
    let folder = Folder::with(&[("conf/10-n.conflist", LIST), keys]);
    let words = format!("install {AT} --config egret.json");
    let said = folder.egret(&words);
    assert!(said.out.contains("did you mean `stateDir`?"), "{}", said.out);
    let again = folder.egret(&format!("{words} -o json"));
    assert_eq!(again.reasons(), ["UnknownKey"]);
}

/// By such an entry the plugin would fail every pod of the node.
#[test]
fn what_the_plugin_would_refuse_is_not_entered_also_when_a_flag_says_it() {
    let folder = Folder::with(&[("conf/10-n.conflist", LIST)]);
    let said = folder.egret(&format!("install {AT} --state state"));
    assert!(said.err.contains("with --state") && said.err.contains("stateDir"), "{}{}", said.out, said.err);
    assert_eq!(said.status, 2);
    assert_eq!(std::fs::read_to_string(folder.path().join("conf/10-n.conflist")).unwrap(), LIST);
    assert!(!folder.path().join("bin").exists(), "the program was copied");
}

/// Whoever installs a newer program says no more than that.
#[test]
fn keys_of_an_entry_that_stands_stay_where_no_file_has_others() {
    let keys = ("egret.json", r#"{"clusterCIDRs": ["10.9.0.0/16"], "markMask": "0x7f0000"}"#);
    let other = ("other.json", r#"{"clusterCIDRs": ["10.8.0.0/16"]}"#);
    let folder = Folder::with(&[("conf/10-n.conflist", LIST), keys, other]);
    let list = || std::fs::read_to_string(folder.path().join("conf/10-n.conflist")).unwrap();
    let install = |words: &str| folder.egret(&format!("install {AT} {words}"));
    assert!(install("--config egret.json").out.contains("entered"));
    let entered = list();
    assert!(install("").out.contains("conf/10-n.conflist: unchanged"), "{}", list());
    assert_eq!(list(), entered);
    install("--node one");
    assert!(list().contains("10.9.0.0/16") && list().contains(r#""nodeName": "one""#), "{}", list());
    install("--config other.json");
    assert!(
        list().contains("10.8.0.0/16") && !list().contains("markMask"),
        "a file is the whole of it: {}",
        list()
    );
    folder.write("conf/10-n.conflist", &list().replace("10.8.0.0/16", "10.8.0.0/99"));
    let said = install("");
    assert!(
        said.err.contains("the entry that stands: ") && said.err.contains("--config FILE"),
        "{}",
        said.err
    );
    assert_eq!(said.status, 2);
    assert!(install("--config other.json").out.contains("entered"));
}

/// `--follow` puts nothing into a list by which no pod could start yet.
#[test]
fn an_entry_that_stands_for_a_cluster_waits_for_its_agent_as_that_of_a_file_does() {
    let folder = Folder::with(&[("state/note", "")]);
    let entry = json!({"type": "egret", "mode": "cluster", "stateDir": folder.path().join("state")});
    let list = json!({"cniVersion": "1.0.0", "name": "n", "plugins": [{"type": "bridge"}, entry]});
    folder.write("conf/10-n.conflist", &list.to_string());
    let mut follows = folder.stays(&format!("install {AT} --follow"));
    let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
    let soon = |so: &dyn Fn() -> bool| {
        let so = within(Duration::from_secs(30), Duration::from_millis(20), so);
        assert!(so.is_some(), "{}{}", read("conf/10-n.conflist"), read("log"));
    };
    soon(&|| read("log").contains("waits for this node's agent"));
    // The primary writes its list anew, without our entry.
    folder.write("conf/10-n.conflist", LIST);
    folder.write("state/synced", "");
    soon(&|| read("conf/10-n.conflist").contains(r#""mode": "cluster""#));
    follows.kill().unwrap();
    follows.wait().unwrap();
}

#[test]
fn a_configuration_that_is_not_there_is_told_with_the_next_step() {
    let folder = Folder::with(&[("conf/10-n.conflist", LIST)]);
    let said = folder.egret(&format!("install {AT} --config no.json"));
    assert!(said.err.contains("--config names a file with Egret's keys"), "{}", said.err);
    assert_eq!(said.status, 2);
}

/// In a network of its own: this machine's is not ours to clear.
fn uninstall(folder: &Folder, words: &str) -> Said {
    let run = folder.path().join("run");
    folder.write("egret.json", &json!({"runDir": run, "nodeName": "n1"}).to_string());
    std::fs::create_dir_all(folder.path().join("state/objects")).unwrap();
    let words = format!("uninstall --cni {AT} --config egret.json --state state {words}");
    let mut command = Command::new("unshare");
    command.args(["--net", env!("CARGO_BIN_EXE_egret")]).args(words.split_whitespace());
    Said::of(&output(command.current_dir(folder.path())))
}

#[test]
fn what_was_taken_away_before_something_failed_is_said_beside_it() {
    let ours = r#"{"cniVersion": "1.0.0", "name": "n", "plugins": [{"type": "bridge"}, {"type": "egret"}]}"#;
    let removed = json!([{"file": "conf/10-n.conflist", "what": "entry removed"}]);
    // A folder in the program's place, and a list that the kernel lets nobody read.
    let program = Folder::with(&[("conf/10-n.conflist", ours), ("bin/egret/file", "")]);
    let list = Folder::with(&[("conf/10-n.conflist", ours), ("bin/egret", "")]);
    std::os::unix::fs::symlink("/sys/bus/platform/uevent", list.path().join("conf/20-far.conflist")).unwrap();
    for (folder, why, cleared) in
        [(program, "cannot remove bin/egret", true), (list, "cannot read conf/20-far.conflist", false)]
    {
        let said = uninstall(&folder, "-o json");
        assert_eq!((said.status, said.err.as_str()), (1, ""), "{}", said.out);
        let document = said.json();
        assert_eq!(document["files"], removed, "{why}");
        assert_eq!(said.reasons(), ["NotFinished"], "{why}");
        assert!(document["problems"][0]["message"].as_str().unwrap().starts_with(why), "{document}");
        assert_eq!(document["items"] != json!([]), cleared, "{document}");
        let left = std::fs::read_to_string(folder.path().join("conf/10-n.conflist")).unwrap();
        assert_eq!(serde_json::from_str::<Value>(&left).unwrap()["plugins"], json!([{"type": "bridge"}]));

        // The next one has nothing to say but the failure.
        let again = uninstall(&folder, "");
        assert_eq!(again.status, 1);
        assert!(format!("{}{}", again.out, again.err).contains(why), "{}{}", again.out, again.err);
        assert!(!again.out.contains("10-n.conflist"), "{}", again.out);
    }
}
