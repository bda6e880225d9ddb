//! The agent's own life: two of them, its end, its death, its start on a node in any state.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use egret::agent::state::Health;
use egret::egress::numbers::TRACKING_TABLE;
use egret::testbed::{Answer, faults};
use nix::sys::signal::Signal;

use crate::lab::{Lab, eventually, leaves_by, outside};

#[test]
fn a_second_agent_refuses_and_names_the_first_and_so_does_uninstall() {
    let lab = Lab::raise(1);
    let agents = lab.agents();
    let mut second = lab.start(1);
    assert!(!second.end());
    let (said, pid) = (second.log(), agents[0].pid());
    assert!(
        said.contains("an agent runs on this node already") && said.contains(&format!("(process {pid})")),
        "{said}"
    );
    let list = lab.conflist_path(1).display().to_string();
    let output = lab.egret(1, &["uninstall", "--config", &list]).unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains(&pid.to_string()), "{said}");
}

/// A program that the one before was starting when it was killed has its files open for a moment longer.
#[test]
fn whoever_comes_next_waits_a_moment_for_the_place_of_the_one_before() {
    let lab = Lab::raise(1);
    drop(lab.agent(1));
    let lock = std::fs::File::open(crate::lab::memory(1).dir().join("agent.lock")).unwrap();
    lock.lock().unwrap();
    let next = lab.start(1);
    std::thread::sleep(Duration::from_millis(500));
    drop(lock);
    eventually("it has its place", || next.state().is_some_and(|state| state.pid == next.pid()));
}

#[test]
fn status_tells_whether_it_lives_and_how_long_the_node_was_without_rules() {
    let lab = Lab::raise(1);
    let mut agents = lab.agents();
    lab.gateway(1, "red");
    eventually("it is well", || agents[0].state().is_some_and(|state| state.health == Health::Well));
    let list = lab.conflist_path(1).display().to_string();
    let status = |format: &str| {
        let output = lab.egret(1, &["status", "--config", &list, "-o", format]).unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let flushes = || agents[0].state().unwrap().ruleset_flushes.times;
    lab.node(1).sh("nft flush ruleset").unwrap();
    eventually("the rules are back", || flushes() == 1);
    let said: serde_json::Value = serde_json::from_str(&status("json")).unwrap();
    assert_eq!(faults(&said), Vec::<String>::new());
    let node = &said["items"][0];
    assert_eq!((&node["agentRuns"], &node["agent"]["rulesetFlushes"]["times"]), (&true.into(), &1.into()));
    eventually("status says both", || {
        let said = status("text");
        said.contains("  agent     well since ") && said.contains("  flushes   1 by others, ")
    });

    agents[0].signal(Signal::SIGKILL);
    agents[0].end();
    let said = status("text");
    assert!(said.contains("  agent     gone: it ended without a word"), "{said}");
    let said: serde_json::Value = serde_json::from_str(&status("json")).unwrap();
    assert_eq!(said["items"][0]["agentRuns"], false);
}

#[test]
fn when_it_is_killed_and_started_again_flows_live_and_nothing_is_touched() {
    let lab = Lab::raise(2);
    let mut agents = lab.agents();
    let gateway = lab.gateway(1, "red");
    let client = lab.client(2, "cart");
    eventually("the gateway is used", || leaves_by(&lab, &client, &gateway));
    let capture = lab.capture().unwrap();
    let mut flows: Vec<_> = outside().iter().map(|to| client.tcp_flow(*to).unwrap()).collect();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                for flow in &mut flows {
                    assert!(matches!(flow.ask(), Answer::From(_)));
                }
            }
        });
        let _stop = crate::kernel::Stop(&stop);
        // But for the table that is each agent's own.
        let rules = || {
            let own = format!("sed '/^table inet {TRACKING_TABLE} /,/^}}/d'");
            let tables = format!("nft -a list ruleset | grep -v packets | {own}");
            lab.node(2).sh(&format!("ip rule; ip route show table all; ip nexthop; {tables}")).unwrap()
        };
        let before = rules();
        for signal in [Signal::SIGKILL, Signal::SIGTERM] {
            agents[1].signal(signal);
            assert_eq!(agents[1].end(), signal == Signal::SIGTERM, "{}", agents[1].log());
            if signal == Signal::SIGTERM {
                assert_eq!(agents[1].state().unwrap().health, Health::Stopped);
            }
            std::thread::sleep(Duration::from_millis(100));
            agents[1] = lab.agent(2);
            let state = agents[1].state().unwrap();
            assert!(state.repairs.is_empty() && state.updates.changed == 0, "{state:?}");
        }
        assert_eq!(rules(), before);
    });
    capture.assert_clean(&[&client]);
}

#[test]
fn what_changed_while_there_was_no_agent_is_done_at_its_start() {
    let lab = Lab::raise(2);
    let gateway = lab.gateway(1, "red");
    let pod = lab.plain(2, "cart");
    lab.select(&pod, true);
    lab.node(1).sh("ip rule del pref 799; ip nexthop flush proto 65; nft delete table inet egret").unwrap();
    let _agents = lab.agents();
    eventually("the gateway is used", || leaves_by(&lab, &pod, &gateway));
    eventually("nothing differs", || lab.differs(1).is_empty() && lab.differs(2).is_empty());
}

#[test]
fn killed_anywhere_in_a_change_it_goes_on_where_it_was_and_nothing_leaks() {
    const TIMES: u64 = 5;
    let lab = Lab::raise(2);
    let mut agents = lab.agents();
    let gateway = lab.gateway(1, "red");
    let client = lab.client(2, "cart");
    let others: Vec<_> = (0..4).map(|n| lab.plain(2, &format!("p{n}"))).collect();
    eventually("the gateway is used", || leaves_by(&lab, &client, &gateway));
    let mut flows: Vec<_> = outside().iter().map(|to| client.tcp_flow(*to).unwrap()).collect();
    let capture = lab.capture().unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _stop = crate::kernel::Stop(&stop);
        scope.spawn(|| crate::kernel::chatter(&client, &stop));
        for n in 0..TIMES {
            others.iter().for_each(|pod| lab.select(pod, n % 2 == 0));
            // Somewhere between hearing of it and being done.
            std::thread::sleep(Duration::from_millis(4 + 14 * n));
            agents[1].signal(Signal::SIGKILL);
            agents[1].end();
            agents[1] = lab.agent(2);
            for pod in &others {
                eventually("the change is in force", || leaves_by(&lab, pod, &gateway) == (n % 2 == 0));
            }
            assert!(flows.iter_mut().all(|flow| matches!(flow.ask(), Answer::From(_))), "flows live on");
        }
    });
    capture.assert_clean(&[&client]);
    eventually("nothing differs", || lab.differs(2).is_empty());
}
