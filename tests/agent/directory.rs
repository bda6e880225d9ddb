//! Never empty by mistake.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::Path;
use std::time::Duration;

use egret::addr::Family;
use egret::agent::state::{DIRECTORY_EMPTIED, DIRECTORY_UNREADABLE, Health};
use egret::testbed::STATE_DIR;
use nix::sys::signal::Signal;

use crate::lab::{Agent, Lab, eventually, leaves_by, records, within};

const A_WHILE: Duration = Duration::from_millis(400);

fn stays(lab: &Lab, client: &egret::testbed::Pod, gateway: &egret::testbed::Pod) {
    assert!(leaves_by(lab, client, gateway));
    std::thread::sleep(A_WHILE);
    assert!(leaves_by(lab, client, gateway), "what was last read stays in force");
}

fn well(agent: &Agent) -> bool {
    agent.state().is_some_and(|state| state.health == Health::Well && state.problems.is_empty())
}

#[test]
fn a_directory_that_is_away_empties_nothing_and_is_watched_again_when_it_is_back() {
    let lab = Lab::raise(1);
    let agents = lab.agents();
    let gateway = lab.gateway(1, "red");
    let client = lab.client(1, "cart");
    let pod = lab.plain(1, "later");
    eventually("all is well", || well(&agents[0]));
    let objects = Path::new(STATE_DIR).join("objects");
    let away = Path::new(STATE_DIR).join("away");
    fs::rename(&objects, &away).unwrap();
    eventually("the agent says so", || agents[0].reasons().iter().any(|r| r == DIRECTORY_UNREADABLE));
    stays(&lab, &client, &gateway);
    // Repairs go on meanwhile.
    lab.node(1).sh("ip rule del pref 799").unwrap();
    eventually("the rule is back", || lab.node(1).sh("ip rule").unwrap().contains("799:"));

    // An empty one in its place, as below a mount point.
    fs::create_dir(&objects).unwrap();
    eventually("the agent says so", || agents[0].reasons().iter().any(|r| r == DIRECTORY_EMPTIED));
    stays(&lab, &client, &gateway);

    fs::remove_dir(&objects).unwrap();
    fs::rename(&away, &objects).unwrap();
    eventually("all is well again", || well(&agents[0]));
    lab.select(&pod, true);
    eventually("and watched", || leaves_by(&lab, &pod, &gateway));
}

#[test]
fn objects_that_are_really_removed_are_gone() {
    let lab = Lab::raise(1);
    let agents = lab.agents();
    let gateway = lab.gateway(1, "red");
    let client = lab.client(1, "cart");
    assert!(leaves_by(&lab, &client, &gateway));
    for file in fs::read_dir(Path::new(STATE_DIR).join("objects")).unwrap().flatten() {
        fs::remove_file(file.path()).unwrap();
    }
    eventually("nobody selects it", || !leaves_by(&lab, &client, &gateway));
    assert!(!agents[0].reasons().iter().any(|r| r == DIRECTORY_EMPTIED), "{:?}", agents[0].reasons());
}

#[test]
fn objects_that_are_removed_before_the_agent_looks_are_gone() {
    let lab = Lab::raise(1);
    let agents = lab.agents();
    agents[0].signal(Signal::SIGSTOP);
    let gateway = lab.gateway(1, "red");
    let client = lab.client(1, "cart");
    assert!(leaves_by(&lab, &client, &gateway));
    for file in fs::read_dir(Path::new(STATE_DIR).join("objects")).unwrap().flatten() {
        fs::remove_file(file.path()).unwrap();
    }
    agents[0].signal(Signal::SIGCONT);
    eventually("nobody selects it", || !leaves_by(&lab, &client, &gateway));
}

#[test]
fn a_half_written_file_changes_nothing_until_it_is_whole() {
    let lab = Lab::raise(1);
    let agents = lab.agents();
    let gateway = lab.gateway(1, "red");
    let client = lab.client(1, "cart");
    let other = lab.plain(1, "other");
    let path = Path::new(STATE_DIR).join("objects/pod-shop-cart.yaml");
    let text = fs::read_to_string(&path).unwrap();
    // Truncated, and written slowly: at no time before its end does it say that nothing selects the pod.
    let mut file = File::create(&path).unwrap();
    lab.select(&other, true); // so that the agent reads the directory
    eventually("the other pod is bound", || leaves_by(&lab, &other, &gateway));
    stays(&lab, &client, &gateway);
    let (head, tail) = text.split_at(text.len() / 3);
    file.write_all(head.as_bytes()).unwrap();
    lab.select(&other, false);
    eventually("the other pod is let go", || !leaves_by(&lab, &other, &gateway));
    stays(&lab, &client, &gateway);
    file.write_all(tail.as_bytes()).unwrap();
    drop(file);
    stays(&lab, &client, &gateway);

    // Broken for good: the last good one stays in force, and a problem says so.
    fs::write(&path, "kind: Pod\nmetadata: {name: [").unwrap();
    eventually("a problem says so", || !agents[0].reasons().is_empty());
    stays(&lab, &client, &gateway);
    fs::write(&path, text).unwrap();
    eventually("all is well", || well(&agents[0]));
}

#[test]
fn the_nodes_own_directory_is_written_again_when_it_is_deleted_under_running_pods() {
    let lab = Lab::raise(1);
    let agents = lab.agents();
    let gateway = lab.gateway(1, "red");
    let client = lab.client(1, "cart");
    let lease = lab.lease(&gateway, Family::V4);
    let capture = lab.capture().unwrap();
    let own = agents[0].directory();
    // It reads records before objects, and the first update of two may have begun before the records were there.
    for turn in ["one", "two"] {
        let times = || agents[0].state().unwrap().updates.times;
        let before = times();
        lab.pod_object("shop/none", &[("turn", turn)], &[], 1).unwrap();
        eventually("the agent knows all records", || times() > before);
    }
    remove(&own);
    eventually("it is back", || own.join("plan.json").exists() && records(&own) == 2);
    assert!(leaves_by(&lab, &client, &gateway));
    // So are the books of leases.
    let list = lab.conflist_path(1).display().to_string();
    let in_order = || {
        let output = lab.egret(1, &["ipam", "check", "--config", &list]).unwrap();
        String::from_utf8_lossy(&output.stdout).contains("nothing wrong")
    };
    assert!(in_order());
    remove(&Path::new(STATE_DIR).join("ipam"));
    eventually("the leases are back", in_order);
    assert_eq!(lab.lease(&gateway, Family::V4), lease, "the same");
    lab.del_pod(&client).unwrap();
    assert!(!within(A_WHILE, || records(&own) == 2));
    eventually("nothing differs", || lab.differs(1).is_empty());
    let again = lab.client(1, "again");
    assert!(leaves_by(&lab, &again, &gateway));
    capture.assert_clean(&[&client, &again]);
}

#[test]
fn what_is_mounted_over_the_directory_by_mistake_empties_nothing_and_is_over_when_it_is_unmounted() {
    let lab = Lab::raise(1);
    let agents = lab.agents();
    let gateway = lab.gateway(1, "red");
    let client = lab.client(1, "cart");
    let pod = lab.plain(1, "later");
    eventually("all is well", || well(&agents[0]));
    let objects = format!("{STATE_DIR}/objects");
    for (at, reason) in [(objects.as_str(), DIRECTORY_EMPTIED), (STATE_DIR, DIRECTORY_UNREADABLE)] {
        mount(&["-t", "tmpfs", "none", at]);
        eventually("the agent says so", || agents[0].reasons().iter().any(|r| r == reason));
        // The lab reads leases from that directory too, so what the outside sees is asked by address.
        let seen = || crate::lab::outside().map(|to| client.udp(to).unwrap().to_string());
        let before = seen();
        std::thread::sleep(A_WHILE);
        assert_eq!(seen(), before, "what was last read stays in force");
        assert!(before[0].starts_with("10.10.10.") && before[1].starts_with("fd00:10:10:"), "{before:?}");
        umount(at);
        eventually("all is well again", || well(&agents[0]));
    }
    lab.select(&pod, true);
    eventually("and watched", || leaves_by(&lab, &pod, &gateway));
}

/// Removes a folder with all that is in it, whatever somebody writes there meanwhile.
fn remove(folder: &Path) {
    eventually("it is removed", || match fs::remove_dir_all(folder) {
        Err(error) if error.kind() == ErrorKind::DirectoryNotEmpty => false,
        outcome => outcome.is_ok(),
    });
}

fn mount(arguments: &[&str]) {
    assert!(std::process::Command::new("mount").args(arguments).status().unwrap().success());
}

/// With patience: whoever reads there just then keeps it.
fn umount(at: &str) {
    eventually("it is unmounted", || {
        std::process::Command::new("umount").arg(at).status().unwrap().success()
    });
}
