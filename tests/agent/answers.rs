//! Who is answered before all is done that follows: whoever has the address next finds it done, also where the agent was killed in between.

use std::fs;

use egret::addr::Family;
use egret::testbed::Pod;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use crate::crowds::{lab, waiting};
use crate::lab::{Agent, Lab, eventually, leaves_by, memory, outside};

/// The primary gives the next pod the lowest free address, not the one after the last.
fn forget_the_last(lab: &Lab) {
    lab.node(1).sh("rm -f /var/lib/cni/networks/pods/last_reserved_ip.*").unwrap();
}

/// A client's DEL, which is told that all went well; its namespace and its object go.
fn ends(lab: &Lab, pod: &Pod) {
    let output = lab.cnitool_command("del", pod).unwrap().output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && !said.contains("left to the agent"), "{said}");
    lab.lose_pod(pod).unwrap();
    lab.remove_pod_object(&pod.name.to_string()).unwrap();
    forget_the_last(lab);
}

fn client(lab: &Lab, gateway: &Pod, name: &str) -> Pod {
    forget_the_last(lab);
    let pod = lab.client(1, name);
    assert!(leaves_by(lab, &pod, gateway), "{name}");
    pod
}

/// The next pod has this address and no egress: nothing of the one before is its.
fn has_nothing_of(lab: &Lab, next: &Pod, before: &Pod, gateway: &Pod) {
    assert_eq!(next.addresses, before.addresses, "the world has made the address come again");
    let plan = memory(1).applied().unwrap().plan;
    assert!(next.addresses.iter().all(|ip| !plan.clients.contains_key(ip)), "{:?}", plan.clients);
    for to in outside() {
        assert_ne!(next.udp(to).unwrap(), lab.lease(gateway, Family::of(to)), "to {to}");
    }
}

fn killed_at(lab: &Lab, point: &str) -> Agent {
    lab.agent_with(1, &[("EGRET_FAULT", point)])
}

#[test]
fn an_agent_that_is_killed_after_it_answered_a_del_leaves_an_address_that_has_no_past() {
    let lab = lab();
    let mut agent = lab.agent(1);
    let gateway = lab.gateway(1, "red");
    let _stays = lab.client(1, "stays");
    for point in ["update.after-intention", "update.after-kernel", "del.after-unwiring"] {
        let first = client(&lab, &gateway, "first");
        drop(agent);
        agent = killed_at(&lab, point);
        ends(&lab, &first);
        assert!(!agent.end(), "killed at {point}");
        drop(agent);
        agent = lab.agent(1);
        let next = lab.plain(1, "next");
        has_nothing_of(&lab, &next, &first, &gateway);
        eventually("nothing differs", || lab.differs(1).is_empty());
        ends(&lab, &next);
    }
}

#[test]
fn who_gets_the_address_of_a_pod_whose_end_was_answered_waits_until_it_is_over() {
    let lab = lab();
    // Before the kernel changes, the agent says here how far it is: where that is a pipe, nothing goes on before somebody hears it.
    let dir = memory(1).dir().to_owned();
    let trace = dir.join("trace");
    let agent = lab.agent_with(1, &[("EGRET_FAULT_TRACE", trace.to_str().unwrap())]);
    let gateway = lab.gateway(1, "red");
    let _stays = lab.client(1, "stays");
    let first = client(&lab, &gateway, "first");
    let gate = dir.join("gate");
    mkfifo(&gate, Mode::S_IRWXU).unwrap();
    fs::rename(&gate, &trace).unwrap();
    ends(&lab, &first);
    assert!(memory(1).may_concern(first.addresses[0]).unwrap(), "it is answered, and not over yet");
    let next = std::thread::scope(|scope| {
        let next = scope.spawn(|| lab.plain(1, "next"));
        eventually("the next one waits", || waiting(&agent) > 0);
        assert!(!next.is_finished());
        fs::rename(&trace, &gate).unwrap();
        fs::read(&gate).unwrap();
        fs::remove_file(&gate).unwrap();
        next.join().unwrap()
    });
    has_nothing_of(&lab, &next, &first, &gateway);
    eventually("nothing differs", || lab.differs(1).is_empty());
}
