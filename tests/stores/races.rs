//! Many writers at once: threads on one memory store, processes on one directory, some of them killed.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use egret::ipam::{After, DirStore, IpamError, Store, Summary, blocks_in, release, retain};
use egret::store::Dir;
use egret::testbed::MemoryStore;

use crate::world::*;

/// Each thread claims for its owners; together they want exactly what there is.
fn threads_share(
    claims: usize,
    make: &(dyn Fn(usize) -> Box<dyn FnMut(usize) -> String + Send> + Sync),
) -> BTreeSet<String> {
    let threads = 8;
    let given: Vec<String> = std::thread::scope(|scope| {
        let work = |thread: usize| {
            let claim = make(thread);
            (0..claims / threads).map(claim).collect::<Vec<_>>()
        };
        let running: Vec<_> = (0..threads).map(|thread| scope.spawn(move || work(thread))).collect();
        running.into_iter().flat_map(|t| t.join().unwrap()).collect()
    });
    let distinct: BTreeSet<String> = given.iter().cloned().collect();
    assert_eq!(distinct.len(), given.len(), "an address was given twice");
    distinct
}

#[test]
fn eight_threads_in_one_memory_get_every_address_once() {
    let store = std::sync::Arc::new(MemoryStore::new());
    let all = threads_share(512, &|thread| {
        let store = store.clone();
        Box::new(move |n| {
            let pool = pool("p", "10.0.0.0/23", 30);
            given(
                &*store,
                &[&pool],
                tenant(&format!("pod:{thread}-{n}"), &format!("node{}", thread % 4), "c"),
                0,
            )
        })
    });
    assert_eq!(all.len(), 512);
}

#[test]
fn eight_threads_in_one_directory_get_every_address_once() {
    let scratch = Scratch::new();
    let all = threads_share(64, &|thread| {
        let path = scratch.path.clone();
        Box::new(move |n| {
            let dir = Dir::open(&path).unwrap();
            let store = ByTheCall { dir: &dir, who: format!("thread {thread}") };
            let pool = pool("p", "10.0.0.0/26", 31);
            given(
                &store,
                &[&pool],
                tenant(&format!("pod:{thread}-{n}"), &format!("node{}", thread % 4), "c"),
                0,
            )
        })
    });
    assert_eq!(all.len(), 64);
}

/// Starts this very program again, to run one test that is a process of a story.
pub(crate) fn process(story: &str, scratch: &Scratch, environment: &[(&str, String)]) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", story, "--ignored", "--nocapture", "--test-threads=1"]);
    command.env("EGRET_TEST_STATE", &scratch.path).envs(environment.iter().map(|(k, v)| (*k, v)));
    command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap()
}

/// The state directory that the parent gave.
pub(crate) fn parents_dir() -> Dir {
    let path = std::env::var_os("EGRET_TEST_STATE");
    Dir::open(path.expect("this is a process of another test, which starts it; it cannot run by itself"))
        .unwrap()
}

/// A process of the story below: claims and releases until it is told to stop by its number of rounds, and says on standard
/// output what it has been given, and, before it lets go, what it lets go.
#[test]
#[ignore = "a process of `processes_that_are_killed_lose_and_double_nothing`"]
fn one_node_of_many() {
    let dir = parents_dir();
    let me: u64 = std::env::var("EGRET_TEST_ME").unwrap().parse().unwrap();
    let node = format!("node{}", me % 4);
    let pool = pool("p", "10.0.0.0/26", 31);
    for n in 0..40 {
        let (owner, container) = (format!("pod:{me}-{}", n % 5), format!("c{me}-{n}"));
        let who = format!("ADD {owner}");
        let result = if me.is_multiple_of(2) {
            let guard = dir.lock(&who, Duration::from_secs(120)).unwrap();
            ask(&DirStore::under(&dir, &guard), &[&pool], tenant(&owner, &node, &container), n)
        } else {
            let store = ByTheCall { dir: &dir, who };
            ask(&store, &[&pool], tenant(&owner, &node, &container), n)
        };
        match result {
            Ok(claimed) => println!("\ngot {owner} {container} {}", claimed.lease.ip),
            Err(IpamError::Full { .. }) => println!("\nfull"),
            Err(error) => panic!("{error}"),
        }
        if n % 3 == 2 {
            println!("\nreleasing {owner}");
            let store = ByTheCall { dir: &dir, who: "DEL".to_owned() };
            release(&store, &holder(&node, &container), After::Owner, n).unwrap();
            println!("\nreleased {owner}");
        }
    }
    println!("\ndone");
}

#[test]
fn processes_that_are_killed_lose_and_double_nothing() {
    let scratch = Scratch::new();
    let mut children: Vec<Child> = (0..10)
        .map(|me| process("races::one_node_of_many", &scratch, &[("EGRET_TEST_ME", me.to_string())]))
        .collect();
    let said: Vec<(usize, Vec<String>)> = std::thread::scope(|scope| {
        let readers: Vec<_> = children
            .iter_mut()
            .enumerate()
            .map(|(me, child)| {
                let out = BufReader::new(child.stdout.take().unwrap());
                scope.spawn(move || {
                    let mut lines = Vec::new();
                    for line in out.lines() {
                        lines.push(line.unwrap());
                        // Half of them die wherever they are just then.
                        if me % 2 == 1 && lines.iter().filter(|l| l.starts_with("got")).count() == 4 + me {
                            child.kill().unwrap();
                        }
                    }
                    child.wait().unwrap();
                    (me, lines)
                })
            })
            .collect();
        readers.into_iter().map(|r| r.join().unwrap()).collect()
    });
    for (me, lines) in said.iter().filter(|(me, _)| me % 2 == 0) {
        assert!(lines.iter().any(|l| l == "done"), "process {me} did not end by itself: {lines:?}");
    }

    let store = scratch.store();
    let pool = pool("p", "10.0.0.0/26", 31);
    let books = books(&store, &[&pool]);
    let (blocks, problems) = blocks_in(&scratch.dir, "p").unwrap();
    assert_eq!(problems, []);
    assert_eq!(*store.summary("p").unwrap(), Summary::of(&blocks, []));

    // No owner has two addresses in use.
    let mut held = BTreeMap::new();
    for ((_, ip), a) in books.iter().filter(|(_, a)| a.holder.is_some()) {
        assert_eq!(held.insert(a.owner.to_string(), ip.to_string()), None, "{} has two", a.owner);
    }
    // What a process was given last and never began to let go is still its own.
    for (_, lines) in &said {
        let mut mine: BTreeMap<&str, &str> = BTreeMap::new();
        for line in lines {
            match line.split(' ').collect::<Vec<_>>()[..] {
                ["got", owner, _, ip] => _ = mine.insert(owner, ip),
                ["releasing", owner] => _ = mine.remove(owner),
                _ => {}
            }
        }
        for (owner, ip) in mine {
            assert_eq!(held.get(owner).map(String::as_str), Some(ip), "{owner} lost its address");
        }
    }
    // Clean-up with nobody alive leaves no holder.
    for n in 0..4 {
        retain(&store, Some("net"), &format!("node{n}"), 1000, &|_, _| Some(After::Owner)).unwrap();
    }
    assert!(crate::world::books(&store, &[&pool]).values().all(|a| a.holder.is_none()));
}
