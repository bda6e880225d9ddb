//! `--state`: a directory that is not there, one that holds manifests, one that nobody may write.

use std::fs;
use std::process::Command;

use crate::world::{Folder, output};

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
    let others = ["list", "explain shop/cart", "reconcile", "uninstall", "uninstall --dry-run"];
    for command in READERS.into_iter().chain(others) {
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

/// Its folder's name is cut, and says no more whose it is.
#[test]
fn a_block_that_cannot_be_read_is_named_however_long_its_pools_name_is() {
    let pool = format!("p{}z", "a".repeat(251));
    let file = format!("ipam/{}/10-10-10-2-31.json", egret::store::record::file_name(&pool));
    let folder = Folder::with(&[("state/objects/pool.yaml", POOL), (&format!("state/{file}"), "{")]);
    for (words, status) in [("check", 1), ("show", 0), (&*format!("show {pool}"), 0)] {
        let said = folder.egret(&format!("ipam {words} --state state --node n1"));
        assert!(said.out.contains(&file), "{words}: {}{}", said.out, said.err);
        assert_eq!(said.status, status, "{words}");
    }
    let other = folder.egret("ipam show egress --state state --node n1 -o json");
    assert_eq!(other.reasons(), [""; 0], "of another pool");
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
    let output = output(command.args(["--mount", "sh", "-ec", &check]).current_dir(folder.path()));
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "it needs root, for a read-only mount: {said}");
    assert!(said.contains("1 pool, 1 block, 1 lease: nothing wrong"), "{said}");
}

/// Whoever opened it to read would wait for who writes into it.
#[test]
fn a_pipe_among_the_records_is_named_and_nobody_waits_for_it() {
    let folder =
        Folder::with(&[("state/objects/pool.yaml", POOL), ("state/ipam/egress/10-10-10-2-31.json", BLOCK)]);
    folder.write("run.json", &format!("{{\"runDir\": \"{}\"}}", folder.path().join("run").display()));
    let pipes = [
        "state/endpoints/zz.json",
        "state/nodes/zz.json",
        "state/interfaces/n1.json",
        "state/ipam/egress/10-10-10-4-31.json",
        "run/n1/config.json",
        "run/n1/plan.json",
        "run/n1/settings.json",
        "run/n1/announced.json",
    ];
    for pipe in pipes.map(|pipe| folder.path().join(pipe)) {
        fs::create_dir_all(pipe.parent().unwrap()).unwrap();
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    }
    let endless = folder.path().join("state/ipam/egress/10-10-10-6-31.json");
    std::os::unix::fs::symlink("/dev/zero", endless).unwrap();
    for (command, named) in [
        ("list", "interfaces/n1.json"),
        ("explain shop/cart", "endpoints/zz.json"),
        ("ipam show", "10-10-10-4-31.json"),
        ("ipam check", "10-10-10-6-31.json"),
        ("status", "endpoints/zz.json"),
        ("reconcile --dry-run", ""),
    ] {
        let said = folder.egret(&format!("{command} --state state --node n1 --config run.json"));
        let text = format!("{}{}", said.out, said.err);
        assert!(text.contains(named), "{command}: {text}");
        assert!(
            named.is_empty() || text.contains("no file but a pipe, socket or device"),
            "{command}: {text}"
        );
    }
}

#[test]
fn a_file_that_is_not_read_makes_direct_uncertain_and_its_ending_may_be_written_in_any_case() {
    let namespace = "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop, annotations: {egress.projectcalico.org/selector: role == 'gw'}}\n";
    let folder = Folder::with(&[("state/objects/pool.yaml", POOL), ("state/objects/shop.txt", namespace)]);
    let explain = || folder.egret("explain shop/cart --state state --node n1 -o json").json();
    let doubtful = explain();
    assert_eq!(doubtful["items"][0]["action"], "direct");
    let reason = doubtful["items"][0]["reason"].as_str().unwrap();
    assert!(
        reason.ends_with("not certain, because shop.txt is not read to its end and may say otherwise"),
        "{reason}"
    );
    let reasons: Vec<_> = doubtful["problems"].as_array().unwrap().iter().map(|p| &p["reason"]).collect();
    assert!(reasons.contains(&&"PassedOver".into()), "{reasons:?}");
    let said = folder.egret("explain shop/cart --state state --node n1");
    assert!(said.out.contains("that is not certain, because shop.txt"), "{}", said.out);
    let objects = folder.path().join("state/objects");
    fs::rename(objects.join("shop.txt"), objects.join("shop.YAML")).unwrap();
    let read = explain();
    assert_eq!((&read["items"][0]["role"], &read["items"][0]["action"]), (&"client".into(), &"held".into()));
    // Beside manifests lies what is none.
    folder.write("state/objects/README.md", "words");
    let lint = folder.egret("lint -f state/objects");
    assert!(!lint.out.contains("README"), "{}", lint.out);
}
