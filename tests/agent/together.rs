//! Plugin calls and agents at one time: they take turns at the node's lock, and neither undoes or repeats the other's work.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use egret::testbed::Pod;

use crate::kernel::Stop;
use crate::lab::{Lab, SELECTS_RED, eventually, leaves_by};

#[test]
fn pods_come_and_go_while_agents_follow_a_storm_of_files_and_somebody_deletes_rules() {
    const ROUNDS: u32 = 6;
    let lab = Lab::raise(2);
    let agents = lab.agents();
    let gateway = lab.gateway(1, "red");
    let stays = lab.client(2, "stays");
    eventually("the gateway is used", || leaves_by(&lab, &stays, &gateway));
    let stop = AtomicBool::new(false);
    let began = Instant::now();
    let last: Vec<Pod> = std::thread::scope(|scope| {
        let _stop = Stop(&stop);
        scope.spawn(|| {
            let mut n = 0u32;
            while !stop.load(Ordering::Relaxed) {
                n += 1;
                let label = n.to_string();
                lab.pod_object("shop/stays", &[("turn", &label)], &SELECTS_RED, 2).unwrap();
                std::thread::sleep(Duration::from_millis(3));
                if n.is_multiple_of(20) {
                    lab.node(2)
                        .sh("ip rule del pref 799 || true; nft delete table inet egret || true")
                        .unwrap();
                }
            }
        });
        let comings = [1u8, 2].map(|node| {
            let lab = &lab;
            scope.spawn(move || {
                let mut pod = None;
                for n in 0..ROUNDS {
                    if let Some(pod) = pod.take() {
                        lab.del_pod(&pod).unwrap();
                    }
                    pod = Some(lab.client(node, &format!("c{node}-{n}")));
                }
                pod.unwrap()
            })
        });
        comings.map(|thread| thread.join().unwrap()).into()
    });
    println!("{} ADDs and DELs beside a storm took {:?}", 2 * (2 * ROUNDS - 1), began.elapsed());
    for pod in last.iter().chain([&stays]) {
        eventually("every client leaves by the gateway", || leaves_by(&lab, pod, &gateway));
        lab.check_pod(pod).unwrap();
    }
    for (agent, node) in agents.iter().zip([1, 2]) {
        eventually("nothing differs", || lab.differs(node).is_empty());
        eventually("the agent is well", || {
            agent
                .state()
                .is_some_and(|s| s.health == egret::agent::state::Health::Well && s.problems.is_empty())
        });
    }
}

#[test]
fn what_the_plugin_has_done_the_agent_does_not_do_again() {
    let lab = Lab::raise(1);
    let agents = lab.agents();
    let gateway = lab.gateway(1, "red");
    let client = lab.client(1, "cart");
    assert!(leaves_by(&lab, &client, &gateway));
    lab.del_pod(&client).unwrap();
    // Its looks at what it heard of these calls are over.
    std::thread::sleep(Duration::from_millis(500));
    let state = agents[0].state().unwrap();
    assert!(state.repairs.is_empty() && state.updates.changed == 0, "{state:?}");
}
