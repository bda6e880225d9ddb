//! Records replaced whole, and what is said of those that are torn or foreign.

use super::*;
use crate::store::dir::tests::scratch;

const KIND: (&str, &str) = ("Thing", "a");

fn put(path: &Path, spec: u32) {
    replace(path, KIND, Version(7), &spec, false).unwrap();
}

#[test]
fn what_was_written_is_read_and_nothing_is_none() {
    let (root, _clean) = scratch();
    let path = root.join("a.json");
    assert_eq!(read::<u32>(&path, "Thing", "a").unwrap(), None);
    put(&path, 5);
    assert_eq!(read::<u32>(&path, "Thing", "a").unwrap(), Some((5, Version(7))));
    assert!(remove(&path, true).unwrap());
    assert!(!remove(&path, true).unwrap());
}

#[test]
fn a_swap_wants_the_version_it_saw() {
    let (root, _clean) = scratch();
    let guard = super::super::lock(&root.join("lock"), "test", std::time::Duration::ZERO).unwrap();
    let path = root.join("a.json");
    let write = |seen, spec: u32| swap(&guard, &path, KIND, seen, &spec, true).unwrap();
    assert_eq!(write(Some(Version(1)), 1), Swap::Raced(None));
    assert_eq!(write(None, 1), Swap::Stored(Version(1)));
    assert_eq!(write(None, 2), Swap::Raced(Some(Version(1))));
    assert_eq!(write(Some(Version(1)), 2), Swap::Stored(Version(2)));
    assert_eq!(read::<u32>(&path, "Thing", "a").unwrap(), Some((2, Version(2))));
}

#[test]
fn damaged_foreign_and_misplaced_files_are_named_and_the_rest_is_read() {
    let (root, _clean) = scratch();
    put(&root.join("a.json"), 5);
    let whole = fs::read(root.join("a.json")).unwrap();
    fs::write(root.join("cut.json"), &whole[..whole.len() / 2]).unwrap();
    fs::write(root.join("copy.json"), &whole).unwrap();
    fs::write(root.join("empty.json"), "").unwrap();
    fs::write(root.join("notes.txt"), "hello").unwrap();
    fs::write(root.join("pod.json"), r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"x"}}"#).unwrap();
    fs::write(root.join(".a.json.tmp"), "half").unwrap();
    fs::create_dir(root.join("dir.json")).unwrap();

    let (records, problems) = list::<u32>(&root, &root, "Thing").unwrap();

    assert_eq!(records.len(), 1);
    let said: Vec<(&str, &str)> = problems.iter().map(|p| (p.file.as_str(), p.reason.as_str())).collect();
    assert_eq!(
        said,
        [
            ("copy.json", "Foreign"),
            ("cut.json", "Damaged"),
            ("dir.json", "Unreadable"),
            ("empty.json", "Damaged"),
            ("notes.txt", "Foreign"),
            ("pod.json", "Foreign"),
        ]
    );
    assert_eq!(
        problems[5].message,
        "this file holds v1 Pod, not egret.dev/v1alpha1 Thing. It does not belong there: move it away"
    );
    let guard = super::super::lock(&root.join("lock"), "test", std::time::Duration::ZERO).unwrap();
    let over = swap(&guard, &root.join("cut.json"), ("Thing", "cut"), None, &1, true);
    assert!(over.is_err(), "a damaged file is never written over");
    assert_eq!(sweep(&root).unwrap(), 1);
}

#[test]
fn names_become_safe_and_stay_different() {
    assert_eq!(file_name("net/0a1b/eth0"), "net+0a1b+eth0");
    assert_eq!(file_name("../../etc"), "%2E.+..+etc");
    assert_eq!(file_name("a b%"), "a%20b%25");
    let (long, longer) = ("x".repeat(300), "x".repeat(301));
    assert!(file_name(&long).len() < 240);
    assert_ne!(file_name(&long), file_name(&longer));
}
