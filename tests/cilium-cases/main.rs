//! What Cilium's own tests say of its policies, asked of ours: `cilium.json` (how to read it: `README.md` beside it).
//!
//! Each case is a state directory: its objects are written as manifests, its nodes' interfaces as nodes write them, and after each
//! step the directory is read and resolved as a node does. What `egret list` would say is then put into the words of Cilium's map.
//! `EGRET_CILIUM_CASES=FILE` takes another file of the same form beside it.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is a test's report")]

mod case;
#[path = "../golden/directory.rs"]
mod directory;
mod expect;
mod world;

use std::fs;

use case::Case;

const OURS: &str = include_str!("cilium.json");

#[test]
fn the_twenty_cases_have_their_tables() {
    let (cases, tables) = pass(OURS);
    assert_eq!((cases, tables), (20, 53), "cases or tables of the file were left out");
}

#[test]
fn a_file_that_the_environment_names_passes_too() {
    let Some(path) = std::env::var_os("EGRET_CILIUM_CASES") else { return };
    let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("cannot read {}: {e}", path.display()));
    let (cases, tables) = pass(&text);
    assert!(cases > 0 && tables >= cases, "{} has no cases", path.display());
}

#[test]
fn a_table_that_is_wrong_is_seen() {
    let right = r#""egressIP": "192.168.101.1""#;
    let wrong = OURS.replace(right, r#""egressIP": "192.168.101.9""#);
    assert!(OURS.contains(right));
    let cases: Vec<Case> = serde_json::from_str(&wrong).unwrap();
    assert!(cases.iter().flat_map(world::play).count() > 10);
}

/// Plays every case of a file; how many cases and tables it has.
fn pass(text: &str) -> (usize, usize) {
    let cases: Vec<Case> = serde_json::from_str(text).unwrap();
    let wrong: Vec<String> = cases.iter().flat_map(world::play).collect();
    assert!(wrong.is_empty(), "{} tables differ\n{}", wrong.len(), wrong.join("\n"));
    (cases.len(), cases.iter().map(|case| case.steps.len()).sum())
}
