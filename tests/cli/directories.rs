//! `--state`: a directory that is not there, one that holds manifests, one that nobody may write.

use std::fs;
use std::process::Command;

use crate::world::Folder;

const POOL: &str = "apiVersion: egret.dev/v1alpha1\nkind: EgressPool\nmetadata: {name: egress}\nspec: {cidr: 10.10.10.0/28}\n";
const BLOCK: &str = r#"{"apiVersion": "egret.dev/v1alpha1", "kind": "EgressBlock", "metadata": {"name": "10-10-10-2-31"}, "version": 1,
  "spec": {"cidr": "10.10.10.2/31", "pool": "egress", "affinity": "n1", "sequence": 1, "allocations": {
    "10.10.10.2": {"owner": "ordinal:shop/gw/0", "pod": "shop/gw-0", "since": 1, "sequence": 1}}}}"#;

/// Commands about a node that only read.
const READERS: [&str; 5] =
    ["status", "ipam show", "ipam check", "ipam release 10.10.10.2", "reconcile --dry-run"];

#[test]
fn a_directory_that_is_not_there_is_a_wrong_argument_of_every_command() {
    let folder = Folder::with(&[]);
    for command in READERS.into_iter().chain(["list", "explain shop/cart"]) {
        let said = folder.egret(&format!("{command} --state away --node n1"));
        assert_eq!((said.status, said.out.as_str()), (2, ""), "{command}: {}", said.err);
        assert!(said.err.contains("away") && said.err.contains("--state"), "{command}: {}", said.err);
    }
    for command in ["lint -f away", "convert -f away"] {
        assert_eq!(folder.egret(command).status, 2, "{command}");
    }
    assert!(!folder.path().join("away").exists());
}

#[test]
fn a_folder_of_manifests_is_no_node_and_is_not_made_one() {
    let folder = Folder::with(&[("manifests/pool.yaml", POOL)]);
    for command in READERS.into_iter().chain(["reconcile", "uninstall", "agent --listen off"]) {
        let said = folder.egret(&format!("{command} --state manifests --node n1"));
        assert_eq!((said.status, said.out.as_str()), (2, ""), "{command}: {}", said.err);
        let next = "manifests is a folder of manifests, and they do not say how a node is or what is leased. `egret list --state manifests`";
        assert!(said.err.contains(next), "{command}: {}", said.err);
    }
    let left: Vec<_> = fs::read_dir(folder.path().join("manifests")).unwrap().collect();
    assert_eq!(left.len(), 1, "{left:?}");
    for command in ["list --state manifests", "lint -f manifests"] {
        assert_eq!(folder.egret(command).status, 0, "{command}");
    }
}

#[test]
fn the_books_of_a_directory_that_nobody_may_write_are_checked_all_the_same() {
    let folder = Folder::with(&[
        ("state/objects/pool.yaml", POOL),
        ("state/ipam/egress/10-10-10-2-31.json", BLOCK),
        ("state/lock", ""),
    ]);
    let check = format!(
        "mount --bind state state && mount -o remount,bind,ro state && ! touch state/x 2>/dev/null && \
         exec {} ipam check --state state --node n1",
        env!("CARGO_BIN_EXE_egret")
    );
    let mut command = Command::new("unshare");
    let output = command.args(["--mount", "sh", "-ec", &check]).current_dir(folder.path()).output().unwrap();
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "it needs root, for a read-only mount: {said}");
    assert!(said.contains("1 pool, 1 block, 1 lease: nothing wrong"), "{said}");
}
