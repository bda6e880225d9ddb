//! G: the first packet, and many at once.

use std::time::Instant;

use egret::addr::Family;
use egret::testbed::Outside;

use crate::lab::{Lab, nodes};

/// Pods that start at once.
const MANY: usize = 50;

/// A17 G1 G5: fifty ADDs at once on one node; each pod's first packet, sent the moment it is wired, carries the lease.
#[test]
fn a17_g1_g5_fifty_pods_at_once_and_their_first_packets_carry_the_lease() {
    let mut topology = nodes(2);
    topology.settle = false;
    // Fifty wait in line for one node's lock, on two busy cores.
    topology.egret_keys.insert("lockTimeout".to_owned(), 120_000.into());
    let lab = Lab::raise(topology);
    let gateway = lab.gateway(1, "g1");
    lab.settle().unwrap();
    let to = Family::BOTH.map(|family| Outside::Near.address(family));
    let capture = lab.capture().unwrap();
    let start = Instant::now();
    let pods: Vec<_> = std::thread::scope(|scope| {
        let lab = &lab;
        let adds = (0..MANY).map(|i| {
            scope.spawn(move || {
                let name = format!("shop/p{i}");
                lab.pod_object(&name, &[], &[], 2).unwrap();
                let begun = Instant::now();
                let pod = lab.add_pod(2, &name).unwrap();
                let took = begun.elapsed();
                let first = pod.udp(to[i % 2]);
                (pod, first, took)
            })
        });
        let adds: Vec<_> = adds.collect();
        adds.into_iter().map(|add| add.join().unwrap()).collect()
    });
    let worst = pods.iter().map(|(_, _, took)| *took).max().unwrap();
    println!("{MANY} ADDs at once: {:?} in all, slowest {worst:?}", start.elapsed());
    let leases = lab.leases(&gateway);
    for (pod, first, _) in &pods {
        assert!(leases.contains(first.as_ref().unwrap()), "{}: {first:?}", pod.name);
    }
    capture.assert_clean(&pods.iter().map(|(pod, _, _)| pod).collect::<Vec<_>>());
}

/// C12: pods come and go, addresses are used again at once, and every live one shows the lease.
#[test]
fn c12_c11_pods_that_come_and_go_always_show_the_lease() {
    let lab = Lab::raise(nodes(1));
    let gateway = lab.gateway(1, "g1");
    let capture = lab.capture().unwrap();
    let leases = lab.leases(&gateway);
    let mut all = Vec::new();
    for round in 0..6 {
        let pod = lab.client(1, &format!("r{round}"));
        for family in Family::BOTH {
            for saw in [pod.udp(Outside::Near.address(family)), pod.tcp(Outside::Far.address(family))] {
                assert!(leases.contains(&saw.unwrap()), "round {round}");
            }
        }
        if round % 2 == 0 {
            lab.del_pod(&pod).unwrap();
        }
        all.push(pod);
    }
    capture.assert_clean(&all.iter().collect::<Vec<_>>());
}
