//! Killed at every point where something is half done; then the next process carries on as if nothing had been.

use std::fs::{File, FileTimes};
use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, UNIX_EPOCH};

use egret::addr::Mac;
use egret::egress::model::{EgressAddress, Endpoint, EndpointState, PodName};
use egret::fault;
use egret::ipam::{After, DirStore, State, Store, Summary, blocks_in, release, retain};
use egret::store::{Dir, endpoints, nodes};

use crate::races::{parents_dir, process};
use crate::world::*;

/// How long a lock is waited for.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a gateway's ADD and DEL write, one after the other.
fn life(dir: &Dir) {
    let pool = pool("p", "10.10.10.0/30", 31);
    let guard = dir.lock("ADD of pod shop/gw", PATIENCE).unwrap();
    let store = DirStore::under(dir, &guard);
    nodes::ensure(dir, &guard, "one", None).unwrap();
    let vni = nodes::take_vni(dir, &guard, "one", &Default::default()).unwrap();
    for n in 0..3 {
        ask(&store, &[&pool], tenant(&format!("pod:{n}"), "one", &format!("c{n}")), 0).unwrap();
    }
    let lease = ask(&store, &[&pool], tenant("ordinal:shop/gw/0", "one", "g"), 0).unwrap().lease;
    let endpoint = Endpoint {
        pod: PodName::new("shop", "gw"),
        uid: None,
        attachment: lease.tenant.holder.attachment(),
        node: "one".to_owned(),
        underlay: Vec::new(),
        vni,
        mac: Mac::default(),
        addresses: vec![EgressAddress::leased(lease.ip, lease.pool)],
        state: EndpointState::Ready,
        generation: 0,
        problems: Vec::new(),
    };
    endpoints::put(dir, &guard, &endpoint).unwrap();
    endpoints::remove(dir, &guard, &endpoint.attachment).unwrap();
    release(&store, &lease.tenant.holder, After::Owner, 10).unwrap();
}

#[test]
#[ignore = "a process of `killed_at_every_point_nothing_is_lost_doubled_or_leaked`"]
fn a_life() {
    life(&parents_dir());
}

#[test]
fn killed_at_every_point_nothing_is_lost_doubled_or_leaked() {
    let ours = |name: &str| ["record.", "ipam.", "endpoint.", "node."].iter().any(|p| name.starts_with(p));
    for (point, _) in fault::POINTS.iter().filter(|(name, _)| ours(name)) {
        let mut nth = 1;
        loop {
            let scratch = Scratch::new();
            let fault = format!("{point}:{nth}");
            let mut child = process("crashes::a_life", &scratch, &[("EGRET_FAULT", fault.clone())]);
            let status = child.wait().unwrap();
            if status.success() {
                assert!(nth > 1, "no write passes {point}");
                break;
            }
            assert_eq!(status.signal(), Some(9), "{fault}: it died of something else");
            carries_on(&scratch, &fault);
            nth += 1;
        }
    }
}

/// The directory after a crash serves as before.
fn carries_on(scratch: &Scratch, fault: &str) {
    let dir = &scratch.dir;
    coarse_clock(dir);
    let (blocks, problems) = blocks_in(dir, "p").unwrap();
    assert_eq!(problems, [], "{fault}");
    assert!(endpoints::list(dir).unwrap().1.is_empty() && nodes::list(dir).unwrap().1.is_empty(), "{fault}");
    // The lock of a dead process is free at once, but for a child that another test is just starting: until it executes, it holds every
    // lock of this process.
    let guard = dir.lock("the next one", PATIENCE).unwrap();
    let store = DirStore::under(dir, &guard);
    assert_eq!(*store.summary("p").unwrap(), Summary::of(&blocks, []), "{fault}: the summary is wrong");
    drop(guard);

    let before: Vec<_> = blocks.iter().flat_map(|b| b.allocations.clone()).collect();
    life(dir);
    let (blocks, _) = blocks_in(dir, "p").unwrap();
    let after: std::collections::BTreeMap<_, _> = blocks.iter().flat_map(|b| b.allocations.clone()).collect();
    for (ip, a) in before {
        assert_eq!(after[&ip].owner, a.owner, "{fault}: {ip} changed hands");
    }
    assert_eq!(after.len(), 4, "{fault}: four owners, four addresses");

    // Clean-up: nobody lives. What is held goes, the ordinal's stays for it, and all the rest can be given again.
    let guard = dir.lock("GC", PATIENCE).unwrap();
    let store = DirStore::under(dir, &guard);
    retain(&store, Some("net"), "one", 100, &|_, _| Some(After::Owner)).unwrap();
    let (blocks, _) = blocks_in(dir, "p").unwrap();
    let states = |now| {
        let mut states: Vec<State> =
            blocks.iter().flat_map(|b| b.allocations.values()).map(|a| a.state(now, 60)).collect();
        states.sort();
        states
    };
    use State::{Cooling, Free, Reserved};
    assert_eq!(states(100), [Cooling, Cooling, Cooling, Reserved], "{fault}");
    assert_eq!(states(160), [Free, Free, Free, Reserved], "{fault}");
    dir.sweep(&guard).unwrap();
    let hidden = |folder: &std::path::Path| {
        std::fs::read_dir(folder).unwrap().flatten().any(|e| e.file_name().to_string_lossy().starts_with('.'))
    };
    assert!(![dir.ipam().join("p"), dir.endpoints(), dir.nodes()].iter().any(|f| hidden(f)), "{fault}");
}

/// Gives the pool's folder the time that its summary knows, as if the file system's clock had not moved on since (it moves in
/// steps of 4 or 10 ms before kernel 6.13). Then only what the dead process said in the summary tells that it is old.
fn coarse_clock(dir: &Dir) {
    let (cache, folder) = (dir.cache().join("ipam-p.summary"), dir.ipam().join("p"));
    let Ok(bytes) = std::fs::read(cache) else { return };
    let number = |at: usize| i64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
    let (seconds, nanoseconds) = (number(24), number(32));
    if seconds > 0 {
        let time = UNIX_EPOCH + Duration::new(seconds.cast_unsigned(), u32::try_from(nanoseconds).unwrap());
        File::open(folder).unwrap().set_times(FileTimes::new().set_modified(time)).unwrap();
    }
}
