//! Nothing stays: not after a drop, not after SIGKILL.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use egret::addr::Family;
use egret::kernel::Netns;
use egret::testbed::{Outside, Topology, World};

/// Set in the process that is to be killed.
const VICTIM: &str = "EGRET_TESTBED_VICTIM";

/// `net:[INODE]` of every namespace of a world.
fn namespaces() -> Vec<String> {
    let entries = fs::read_dir("/run/netns").unwrap().flatten();
    let inode = |e: fs::DirEntry| Netns::open(e.path()).unwrap().id().1;
    entries.map(|e| format!("net:[{}]", inode(e))).collect()
}

/// Which of these namespaces something on this machine still holds: a process, an open file, a mount.
fn held(namespaces: &BTreeSet<String>) -> Vec<String> {
    let mut holders = Vec::new();
    for process in fs::read_dir("/proc").unwrap().flatten() {
        let task = process.path();
        if !process.file_name().to_string_lossy().bytes().all(|b| b.is_ascii_digit()) {
            continue;
        }
        let threads = fs::read_dir(task.join("task")).into_iter().flatten().flatten();
        for thread in threads {
            let link = fs::read_link(thread.path().join("ns/net")).unwrap_or_default();
            holders.extend(namespaces.get(link.to_string_lossy().as_ref()).cloned());
        }
        for file in fs::read_dir(task.join("fd")).into_iter().flatten().flatten() {
            let link = fs::read_link(file.path()).unwrap_or_default();
            holders.extend(namespaces.get(link.to_string_lossy().as_ref()).cloned());
        }
        let mounts = fs::read_to_string(task.join("mountinfo")).unwrap_or_default();
        holders.extend(namespaces.iter().filter(|ns| mounts.contains(ns.as_str())).cloned());
    }
    holders
}

fn wait_until_free(namespaces: &BTreeSet<String>) {
    let start = Instant::now();
    while !held(namespaces).is_empty() {
        assert!(start.elapsed() < Duration::from_secs(120), "still held: {:?}", held(namespaces));
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_killed_process_leaves_nothing() {
    if std::env::var_os(VICTIM).is_some() {
        let world = World::raise(Topology { nodes: 2, ..Topology::default() }).unwrap();
        let pod = world.add_pod(1, "shop/cart").unwrap();
        pod.tcp(Outside::Near.address(Family::V4)).unwrap();
        let mut sleeper = world.node(1).command("sleep").unwrap().arg("1000").spawn().unwrap();
        println!("\nNAMESPACES {} {}", sleeper.id(), namespaces().join(" "));
        sleeper.wait().unwrap();
    }
    let (mounts, links) = (mounts(), links());
    let mut victim = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "end::a_killed_process_leaves_nothing", "--nocapture"])
        .env(VICTIM, "1")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(victim.stdout.take().unwrap()).lines().map_while(Result::ok);
    let line = lines.into_iter().find(|l| l.starts_with("NAMESPACES")).expect("the victim raised its world");
    let mut words = line.split(' ').skip(1).map(str::to_owned);
    let sleeper = words.next().unwrap();
    let namespaces: BTreeSet<String> = words.collect();
    assert_eq!(namespaces.len(), 7, "2 nodes, fabric, router, outside, far, 1 pod");
    assert!(!held(&namespaces).is_empty(), "else the search below proves nothing");
    victim.kill().unwrap();
    victim.wait().unwrap();
    wait_until_free(&namespaces);
    let left = fs::read_to_string(format!("/proc/{sleeper}/cmdline")).unwrap_or_default();
    assert!(!left.contains("sleep"), "its child lives on");
    assert_eq!((self::mounts(), self::links()), (mounts, links), "the machine is as before");
}

#[test]
fn a_dropped_world_leaves_nothing_and_its_thread_is_home() {
    let home = Netns::current().unwrap().id();
    let (mounts, directory) = (mounts(), std::env::current_dir().unwrap());
    for _ in 0..2 {
        let world = World::raise(Topology { nodes: 2, ..Topology::default() }).unwrap();
        let pod = world.add_pod(1, "shop/cart").unwrap();
        let capture = world.capture().unwrap();
        pod.tcp(Outside::Near.address(Family::V4)).unwrap();
        let namespaces: BTreeSet<String> = namespaces().into_iter().collect();
        assert_eq!(namespaces.len(), 7);
        drop(capture);
        drop(world);
        wait_until_free(&namespaces);
        assert_eq!(Netns::current().unwrap().id(), home);
        assert_eq!((self::mounts(), std::env::current_dir().unwrap()), (mounts.clone(), directory.clone()));
    }
}

/// Mount points of this thread. Other users of the machine may come and go under `/run/netns`.
fn mounts() -> Vec<String> {
    let all = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
    let points = all.lines().filter_map(|l| l.split(' ').nth(4)).filter(|p| !p.starts_with("/run/netns/"));
    points.map(str::to_owned).collect()
}

/// Devices of this thread's namespace.
fn links() -> String {
    fs::read_to_string("/proc/thread-self/net/dev")
        .unwrap()
        .lines()
        .map(|l| l.split(':').next().unwrap_or(""))
        .collect()
}
