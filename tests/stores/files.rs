//! What the directory store makes of damaged, foreign and hand-made files, and of a cache that is wrong.

use std::fs;
use std::path::PathBuf;

use egret::ipam::{DirStore, Store, Summary, blocks_in, release_owner};

use crate::world::*;

fn file(scratch: &Scratch, block: &str) -> PathBuf {
    scratch.dir.ipam().join("p").join(format!("{block}.json"))
}

fn is_right(store: &dyn Store, scratch: &Scratch) {
    let (blocks, _) = blocks_in(&scratch.dir, "p").unwrap();
    assert_eq!(*store.summary("p").unwrap(), Summary::of(&blocks, []));
}

#[test]
fn a_damaged_block_is_named_and_gives_nothing_while_the_others_serve() {
    let scratch = Scratch::new();
    let store = scratch.store();
    let pool = pool("p", "10.10.10.0/30", 31);
    let leased = ask_for(&store, &[&pool], tenant("pod:a", "one", "c1"), "10.10.10.0", 0).unwrap();
    let whole = fs::read(file(&scratch, "10-10-10-0-31")).unwrap();
    for damaged in [&whole[..whole.len() / 2], b"", b"{}", b"\xff\xfe"] {
        fs::write(scratch.path.join("new"), damaged).unwrap();
        fs::rename(scratch.path.join("new"), file(&scratch, "10-10-10-0-31")).unwrap();
        for n in 0..2 {
            let address = given(&store, &[&pool], tenant(&format!("pod:b{n}"), "one", &format!("d{n}")), 0);
            assert!(["10.10.10.2", "10.10.10.3"].contains(&address.as_str()), "{address}");
        }
        let full = ask(&store, &[&pool], tenant("pod:c", "one", "e"), 0).unwrap_err().to_string();
        assert!(full.contains("1 blocks cannot be read: see `egret ipam check`"), "{full}");
        let (_, problems) = blocks_in(&scratch.dir, "p").unwrap();
        assert_eq!(problems[0].file, "ipam/p/10-10-10-0-31.json");
        assert_eq!(fs::read(file(&scratch, "10-10-10-0-31")).unwrap(), damaged, "never written over");
    }
    fs::write(scratch.path.join("new"), whole).unwrap();
    fs::rename(scratch.path.join("new"), file(&scratch, "10-10-10-0-31")).unwrap();
    assert_eq!(given(&store, &[&pool], tenant("pod:a", "one", "c2"), 0), leased.lease.ip.to_string());
}

#[test]
fn a_block_copied_to_another_name_or_pool_is_named_and_not_used() {
    let scratch = Scratch::new();
    let store = scratch.store();
    let pool = pool("p", "10.10.10.0/30", 31);
    ask_for(&store, &[&pool], tenant("pod:a", "one", "c1"), "10.10.10.0", 0).unwrap();
    fs::copy(file(&scratch, "10-10-10-0-31"), file(&scratch, "10-10-10-2-31")).unwrap();
    fs::create_dir(scratch.dir.ipam().join("q")).unwrap();
    fs::copy(file(&scratch, "10-10-10-0-31"), scratch.dir.ipam().join("q/10-10-10-0-31.json")).unwrap();
    for pool in ["p", "q"] {
        let (_, problems) = blocks_in(&scratch.dir, pool).unwrap();
        assert_eq!(problems.len(), 1, "{problems:?}");
    }
    assert_eq!(given(&store, &[&pool], tenant("pod:b", "one", "c2"), 0), "10.10.10.1");
    assert!(ask(&store, &[&pool], tenant("pod:c", "one", "c3"), 0).is_err());
}

#[test]
fn a_cache_that_is_missing_cut_or_of_another_time_costs_nothing_but_time() {
    let scratch = Scratch::new();
    let store = scratch.store();
    let pool = pool("p", "10.10.10.0/28", 31);
    let cache = scratch.dir.cache().join("ipam-p.summary");
    let first = given(&store, &[&pool], tenant("ordinal:a/b/0", "one", "c0"), 0);
    let old = fs::read(&cache).unwrap();
    let mut seen = std::collections::BTreeSet::from([first.clone()]);
    for n in 1..=6 {
        match n {
            1 => fs::remove_file(&cache).unwrap(),
            2 => fs::write(&cache, &old[..40]).unwrap(),
            3 => fs::write(&cache, &old).unwrap(),
            4 => fs::write(&cache, "").unwrap(),
            5 => fs::remove_dir_all(scratch.dir.cache())
                .and_then(|()| fs::create_dir(scratch.dir.cache()))
                .unwrap(),
            _ => {}
        }
        assert!(seen.insert(given(
            &store,
            &[&pool],
            tenant(&format!("pod:{n}"), "one", &format!("c{n}")),
            0
        )));
        assert_eq!(given(&store, &[&pool], tenant("ordinal:a/b/0", "one", "c0"), 0), first);
        is_right(&store, &scratch);
    }
}

#[test]
fn a_block_moved_into_place_by_hand_is_seen_at_once_also_under_a_held_lock() {
    let scratch = Scratch::new();
    let guard = scratch.dir.lock("test", std::time::Duration::ZERO).unwrap();
    let store = DirStore::under(&scratch.dir, &guard);
    let pool = pool("p", "10.10.10.0/31", 31);
    given(&store, &[&pool], tenant("pod:a", "one", "c1"), 0);
    let text = fs::read_to_string(file(&scratch, "10-10-10-0-31")).unwrap();
    fs::write(scratch.path.join("new"), text.replace("pod:a", "pod:z")).unwrap();
    fs::rename(scratch.path.join("new"), file(&scratch, "10-10-10-0-31")).unwrap();
    assert_eq!(given(&store, &[&pool], tenant("pod:z", "one", "c2"), 0), "10.10.10.0");
    is_right(&store, &scratch);
}

#[test]
fn a_block_changed_in_place_is_noticed_when_it_is_used() {
    let scratch = Scratch::new();
    let store = scratch.store();
    let pool = pool("p", "10.10.10.0/31", 31);
    given(&store, &[&pool], tenant("pod:a", "one", "c1"), 0);
    let path = file(&scratch, "10-10-10-0-31");
    let text = fs::read_to_string(&path).unwrap();
    // Somebody writes that both addresses are leased; the cache knows of one.
    let two = text.replace(
        "\"10.10.10.0\": {",
        "\"10.10.10.1\": {\"owner\":\"pod:x\",\"sequence\":1,\"since\":1},\n\"10.10.10.0\": {",
    );
    fs::write(&path, two).unwrap();
    let full = ask(&store, &[&pool], tenant("pod:b", "one", "c2"), 0).unwrap_err().to_string();
    assert!(full.contains("1 of 2 leased, 0 cooling, 1 reserved"), "{full}");
    // And that one's owner is somebody else; the old one is a newcomer then, and finds the pool full.
    fs::write(&path, fs::read_to_string(&path).unwrap().replace("pod:a", "pod:y")).unwrap();
    assert!(ask(&store, &[&pool], tenant("pod:a", "one", "c3"), 0).is_err());
    is_right(&store, &scratch);
}

#[test]
fn left_over_temporary_files_are_not_read_and_go() {
    let scratch = Scratch::new();
    let store = scratch.store();
    let pool = pool("p", "10.10.10.0/31", 31);
    given(&store, &[&pool], tenant("pod:a", "one", "c1"), 0);
    let left = scratch.dir.ipam().join("p/.10-10-10-0-31.json.tmp");
    fs::write(&left, "half").unwrap();
    let (blocks, problems) = blocks_in(&scratch.dir, "p").unwrap();
    assert_eq!((blocks.len(), problems.len()), (1, 0));
    given(&store, &[&pool], tenant("pod:b", "one", "c2"), 0);
    assert!(!left.exists());
}

/// A name may have 253 characters, and the name of its folder is cut.
#[test]
fn a_pool_with_a_very_long_name_is_found_among_the_pools_and_gives_back() {
    let scratch = Scratch::new();
    let store = scratch.store();
    let name = format!("p{}z", "a".repeat(251));
    let pool = pool(&name, "10.10.10.0/30", 31);
    let leased = ask_for(&store, &[&pool], tenant("pod:a", "one", "c1"), "10.10.10.0", 0).unwrap();
    assert_eq!(store.pools().unwrap().join(" "), name);
    assert_eq!(blocks_in(&scratch.dir, &name).unwrap().0.len(), 1);
    let freed = release_owner(&store, &leased.lease.tenant.owner, true, 0).unwrap();
    assert_eq!(freed.len(), 1);
}
