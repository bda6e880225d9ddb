//! Manifests and what `egret list` makes of them: one file per case, readable by whoever knows Kubernetes and networks.
//!
//! `README.md` beside this says which rule each file shows; a file that it does not name fails, and so does a name without a file.
//! `EGRET_BLESS=1` writes what is seen into the files' expected parts: read the difference before you commit it.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is a test's report")]

mod archive;
mod case;
mod directory;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use archive::Archive;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

fn files() -> BTreeSet<String> {
    let entries = fs::read_dir(folder().join("cases")).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn every_case_lists_what_it_says() {
    let bless = std::env::var_os("EGRET_BLESS").is_some();
    let common = Archive::parse(&fs::read_to_string(folder().join("common.txt")).unwrap());
    let mut wrong = Vec::new();
    for name in files() {
        let path = folder().join("cases").join(&name);
        let written = fs::read_to_string(&path).unwrap();
        let seen = case::play(&common, Archive::parse(&written)).print();
        if seen == written {
            continue;
        }
        if bless {
            fs::write(&path, &seen).unwrap();
        }
        wrong.push(format!("── {name}\n{}", difference(&written, &seen)));
    }
    let next = "EGRET_BLESS=1 writes what is seen into the files";
    assert!(bless || wrong.is_empty(), "{} cases differ; {next}\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn the_readme_names_every_case_and_no_other() {
    let readme = fs::read_to_string(folder().join("README.md")).unwrap();
    let quoted = readme.split('`').skip(1).step_by(2).filter(|word| word.ends_with(".txt"));
    let mut named: BTreeSet<String> = quoted.map(ToOwned::to_owned).collect();
    named.remove("common.txt");
    let files = files();
    let missing: Vec<&String> = named.difference(&files).collect();
    let additional: Vec<&String> = files.difference(&named).collect();
    assert!(
        missing.is_empty() && additional.is_empty(),
        "missing: {missing:?}; not in README.md: {additional:?}"
    );
}

#[test]
fn a_case_whose_table_is_wrong_is_seen() {
    let common = Archive::parse(&fs::read_to_string(folder().join("common.txt")).unwrap());
    let mut case = Archive::parse(&fs::read_to_string(folder().join("cases/calico-namespace.txt")).unwrap());
    let right = case.file("list").unwrap().to_owned();
    case.put("list", right.replace("10.10.0.1", "10.10.0.9"));
    let spoilt = case.print();
    assert_ne!(case::play(&common, case).print(), spoilt);
}

fn difference(written: &str, seen: &str) -> String {
    let (written, seen): (Vec<&str>, Vec<&str>) = (written.lines().collect(), seen.lines().collect());
    let gone = written.iter().filter(|line| !seen.contains(line)).map(|line| format!("- {line}"));
    let come = seen.iter().filter(|line| !written.contains(line)).map(|line| format!("+ {line}"));
    gone.chain(come).collect::<Vec<_>>().join("\n")
}
