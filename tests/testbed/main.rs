//! The testbed itself: what it raises is what it says, and its checks can fail.
#![allow(clippy::unwrap_used, reason = "a panic is a test's report")]

mod capture;
mod end;
mod lab;
mod paths;
mod variants;
mod whole;

use std::net::IpAddr;

use egret::addr::Family;
use egret::testbed::{Outside, Pod, World};

/// One pod per node, named `shop/pod1` …
fn one_pod_per_node(world: &World) -> Vec<Pod> {
    world.topology().node_numbers().map(|n| world.add_pod(n, &format!("shop/pod{n}")).unwrap()).collect()
}

/// Asks both outsides by all four means and says who was seen; fails when the answers differ.
fn seen_outside(pod: &Pod, family: Family) -> IpAddr {
    let mut seen = Vec::new();
    for at in Outside::BOTH {
        let to = at.address(family);
        for answer in [pod.tcp(to), pod.udp(to), pod.http(to), pod.ping(to)] {
            seen.push(answer.unwrap_or_else(|e| panic!("{} to {to}, after {seen:?}: {e}", pod.name)));
        }
    }
    seen.dedup();
    assert_eq!(seen.len(), 1, "{} was seen as {seen:?}", pod.name);
    seen[0]
}
