//! Pods that come or go at one moment: one change for all of them, and each is answered for itself.

use std::fs;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use egret::testbed::{Pod, RUN_DIR, Topology};
use serde_json::json;

use crate::kernel::{Stop, chatter};
use crate::lab::{Agent, Lab, PATIENCE, SELECTS_RED, eventually, leaves_by, memory, records};

const CROWD: usize = 6;

pub(crate) fn lab() -> Lab {
    let keys = json!({"mode": "cluster"}).as_object().unwrap().clone();
    Lab::with(Topology { nodes: 1, egret_keys: keys, runtime_annotations: true, ..Topology::default() })
}

/// Calls that begin while the node's lock is held, so that they wait for one turn.
pub(crate) fn at_once<P: Send, T: Send>(agent: &Agent, pods: Vec<P>, call: impl Fn(P) -> T + Sync) -> Vec<T> {
    let lock = memory(1).dir().join("lock");
    let guard = egret::store::lock(&lock, "the story", PATIENCE).unwrap();
    let count = pods.len();
    std::thread::scope(|scope| {
        let calls: Vec<_> = pods.into_iter().map(|pod| scope.spawn(|| call(pod))).collect();
        // For a while: a thread that is on its way may sleep for a moment, too.
        eventually("all of them wait", || {
            (0..3).all(|_| {
                std::thread::sleep(Duration::from_millis(10));
                waiting(agent) >= count
            })
        });
        drop(guard);
        calls.into_iter().map(|call| call.join().unwrap()).collect()
    })
}

/// Calls that wait in the agent, for each other or for the lock: asleep in futex(2) or nanosleep(2), not at work.
pub(crate) fn waiting(agent: &Agent) -> usize {
    let threads = fs::read_dir(format!("/proc/{}/task", agent.pid())).into_iter().flatten().flatten();
    let of = |thread: &Path, file: &str| fs::read_to_string(thread.join(file)).unwrap_or_default();
    let asleep =
        [libc::SYS_futex, libc::SYS_nanosleep, libc::SYS_clock_nanosleep].map(|call| call.to_string());
    let waits = |thread: &Path| {
        of(thread, "comm").trim() == "call"
            && of(thread, "syscall").split(' ').next().is_some_and(|call| asleep.iter().any(|a| a == call))
    };
    threads.filter(|thread| waits(&thread.path())).count()
}

fn two_are_left() -> bool {
    records(&Path::new(RUN_DIR).join("node1")) == 2
}

fn objects(lab: &Lab, turn: &str) -> Vec<String> {
    let names: Vec<String> = (0..CROWD).map(|n| format!("shop/{turn}-{n}")).collect();
    names.iter().for_each(|name| lab.pod_object(name, &[], &SELECTS_RED, 1).unwrap());
    names
}

#[test]
fn who_comes_or_goes_with_others_shares_their_change_and_obeys_from_the_first_packet() {
    let lab = lab();
    let trace = std::env::temp_dir().join(format!("egret-crowd-{}", std::process::id()));
    let agent = lab.agent_with(1, &[("EGRET_FAULT_TRACE", &trace.display().to_string())]);
    let changes = || {
        let passed = fs::read_to_string(&trace).unwrap_or_default();
        passed.lines().filter(|point| *point == "update.after-plan").count()
    };
    let gateway = lab.gateway(1, "red");
    // Nobody's binding is there yet: the plan is made anew, once. Then it is there.
    for turn in ["first", "second"] {
        let before = changes();
        let pods = at_once(&agent, objects(&lab, turn), |name| lab.add_pod(1, &name).unwrap());
        pods.iter().for_each(|pod| assert!(leaves_by(&lab, pod, &gateway), "{}", pod.name));
        pods.iter().for_each(|pod| lab.check_pod(pod).unwrap());
        let taken = changes() - before;
        assert!(taken <= CROWD / 2, "{CROWD} ADDs took {taken} changes");
        if turn == "first" {
            let stays = lab.client(1, "stays");
            let before = changes();
            at_once(&agent, pods, |pod: Pod| lab.del_pod(&pod).unwrap());
            let taken = changes() - before;
            assert!(taken <= CROWD / 2, "{CROWD} DELs took {taken} changes");
            assert!(leaves_by(&lab, &stays, &gateway), "who stays is not touched");
            eventually("only the gateway's and that of the one who stays are left", two_are_left);
        }
    }
    eventually("nothing differs", || lab.differs(1).is_empty());
    let _ = fs::remove_file(trace);
}

#[test]
fn an_agent_that_is_killed_in_the_middle_of_a_crowd_leaves_nothing_that_the_next_one_does_not_find() {
    let lab = lab();
    let agent = lab.agent(1);
    let gateway = lab.gateway(1, "red");
    let stays = lab.client(1, "stays");
    drop(agent);
    for point in ["add.after-record", "update.after-kernel"] {
        let agent = lab.agent_with(1, &[("EGRET_FAULT", point)]);
        let came = at_once(&agent, objects(&lab, "never"), |name| lab.add_pod(1, &name).is_ok());
        assert!(came.iter().all(|came| !came), "nobody was told that it came: {point}");
        drop(agent);
        let agent = lab.agent(1);
        eventually("nothing of them is left", || two_are_left() && lab.differs(1).is_empty());
        assert!(leaves_by(&lab, &stays, &gateway), "who runs is not touched: {point}");
        drop(agent);
    }
    let agent = lab.agent(1);
    let pods = at_once(&agent, objects(&lab, "late"), |name| lab.add_pod(1, &name).unwrap());
    drop(agent);
    let agent = lab.agent_with(1, &[("EGRET_FAULT", "del.after-unwiring")]);
    at_once(&agent, pods, |pod: Pod| lab.del_pod(&pod).unwrap());
    drop(agent);
    let _agent = lab.agent(1);
    eventually("nothing of them is left", || two_are_left() && lab.differs(1).is_empty());
}

/// A pod that was told that it came is a client, whenever its agent was killed: before the plan had its name, too.
#[test]
fn a_pod_that_was_answered_just_before_its_agent_was_killed_leaves_by_nobody_else() {
    was_answered_and(|_| {});
}

/// The kernel has it all the same.
#[test]
fn nor_does_it_where_nobody_can_read_what_was_intended() {
    was_answered_and(|intended| fs::write(intended, "{\"inputs\": 1, \"plan\": ").unwrap());
}

fn was_answered_and(then: impl Fn(&Path)) {
    let lab = lab();
    let agent = lab.agent(1);
    let gateway = lab.gateway(1, "red");
    lab.client(1, "stays");
    drop(agent);
    let agent = lab.agent_with(1, &[("EGRET_FAULT", "update.after-answer")]);
    let came = lab.client(1, "came");
    drop(agent);
    assert!(memory(1).is_unfinished());
    then(&memory(1).dir().join("intended.json"));
    let capture = lab.capture().unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _stop = Stop(&stop);
        scope.spawn(|| chatter(&came, &stop));
        // What its successor does takes so long that the pod's packets meet each step of it.
        let _agent = lab.agent_with(1, &[("EGRET_FAULT_PAUSE", "30")]);
        eventually("nothing is left half done", || !memory(1).is_unfinished());
        eventually("the gateway is used", || leaves_by(&lab, &came, &gateway));
    });
    capture.assert_clean(&[&came]);
}
