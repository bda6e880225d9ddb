//! Who only asks writes nothing: no record, no cache, no lock's text, no rule.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use egret::testbed::{RUN_DIR, STATE_DIR};

use crate::lab::{Lab, nodes};

/// Every file and folder: inode, time of the last change, content.
fn tree(root: &Path, all: &mut BTreeMap<PathBuf, (u64, i64, Vec<u8>)>) {
    for entry in std::fs::read_dir(root).unwrap() {
        let path = entry.unwrap().path();
        let meta = std::fs::symlink_metadata(&path).unwrap();
        let content = if meta.is_file() { std::fs::read(&path).unwrap() } else { Vec::new() };
        let changed = meta.ctime() * 1_000_000_000 + meta.ctime_nsec();
        all.insert(path.clone(), (meta.ino(), changed, content));
        if meta.is_dir() {
            tree(&path, all);
        }
    }
}

fn files() -> BTreeMap<PathBuf, (u64, i64, Vec<u8>)> {
    let mut all = BTreeMap::new();
    for root in [STATE_DIR, RUN_DIR] {
        tree(Path::new(root), &mut all);
    }
    all
}

/// A node with a gateway and clients, one that was never wired, and objects that nobody has taken up yet: a pool, a client's
/// change of mind, and a node without a number.
#[test]
fn who_only_asks_writes_nothing() {
    let lab = Lab::raise(nodes(2));
    lab.gateway(1, "g");
    let client = lab.client(1, "c");
    lab.leaves_as_predicted(&client);
    lab.pool("late", "10.10.10.32/28", "all()");
    lab.namespace("shop", &[], &[("egret.dev/selector", "egress-code == 'blue'")]).unwrap();
    lab.object(
        "apiVersion: v1\nkind: Node\nmetadata: {name: node9}\n\
         status: {addresses: [{type: InternalIP, address: 172.30.0.99}]}\n",
    )
    .unwrap();
    let kernel = |n: u8| lab.node(n).sh("nft -s list ruleset; ip rule; ip route show table all").unwrap();
    let (before, rules) = (files(), [1, 2].map(kernel));
    let asked: [(u8, &[&str]); 9] = [
        (1, &["reconcile", "--dry-run"]),
        (2, &["reconcile", "--dry-run"]),
        (1, &["uninstall", "--dry-run"]),
        (2, &["uninstall", "--dry-run"]),
        (1, &["explain", "shop/c"]),
        (2, &["explain", "shop/c"]),
        (1, &["ipam", "show"]),
        (1, &["status"]),
        (2, &["status"]),
    ];
    for (node, arguments) in asked {
        let answer = lab.json(node, arguments);
        assert!(answer["kind"].is_string(), "{arguments:?}: {answer}");
        let after = files();
        let touched = before.iter().filter(|(path, was)| after.get(*path) != Some(was));
        let touched: Vec<_> = touched.map(|(path, _)| path).collect();
        let made: Vec<_> = after.keys().filter(|path| !before.contains_key(*path)).collect();
        assert!(touched.is_empty() && made.is_empty(), "{arguments:?} on node{node}: {touched:?}, {made:?}");
    }
    assert_eq!(rules, [1, 2].map(kernel));
    let pending = |n| lab.json(n, &["reconcile", "--dry-run"])["items"].to_string();
    assert!(pending(1).contains("binding_"), "the change of mind was not seen: {}", pending(1));
    let list = lab.conflist_path(1).display().to_string();
    let said = lab.egret(1, &["reconcile", "--dry-run", "--config", &list]).unwrap();
    let said = String::from_utf8(said.stdout).unwrap();
    let longest = said.lines().filter(|line| line.starts_with("  ~")).map(|line| line.chars().count()).max();
    assert!(longest < Some(200), "people get long steps in short: {said}");
    assert!(
        said.contains(" …\n") && said.contains("\n(… was cut: `-o json` has every step whole)\n"),
        "{said}"
    );
    // The same world, asked in earnest, does write: the comparison can fail.
    lab.json(1, &["reconcile"]);
    assert_ne!(before, files());
}
