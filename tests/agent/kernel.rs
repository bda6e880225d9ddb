//! What somebody else takes away is put back.
use egret::testbed::Pod;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::lab::{Lab, eventually, leaves_by, outside};

/// What somebody does to the node of the gateway, to the other one, or in the gateway's namespace; and which kinds are put back.
const HARM: [(&str, &str); 13] = [
    ("ip rule flush; ip rule add pref 32766 lookup main; ip rule add pref 32767 lookup default", "rule"),
    ("ip -6 rule flush; ip -6 rule add pref 32766 lookup main", "rule"),
    ("for t in $(seq 479001 479127); do ip route flush table $t 2>/dev/null || true; done", "route"),
    ("for t in $(seq 479001 479127); do ip -6 route flush table $t 2>/dev/null || true; done", "route"),
    ("ip nexthop flush proto 65", "nexthop"),
    ("ip link del egress.vxlan", "device"),
    ("ip link set egress.vxlan down", "device"),
    ("ip addr flush dev egress.vxlan", "address"),
    (
        "for m in $(/sbin/bridge fdb show dev egress.vxlan | cut -d' ' -f1); do /sbin/bridge fdb del $m dev egress.vxlan; done",
        "forwarding entry",
    ),
    ("nft delete table inet egret", "nftables"),
    ("nft delete table netdev egret", "nftables"),
    ("nft flush ruleset", "nftables"),
    ("nft flush chain inet egret prerouting", "nftables"),
];

/// The same on the gateway's node.
const HARM_TO_GATEWAYS: [(&str, &str); 2] = [
    ("for d in $(ls /sys/class/net | grep ^eg[0-9a-f]); do ip link del $d; done", "device"),
    ("ip neigh flush proxy", "proxy neighbour"),
];

/// What the kernel says nothing of, so that the agent finds it at its look of each second.
const UNSAID: &str = "proxy neighbour";

/// Mended every time, and twice in a few sooner than the agent would have found it without the kernel's notice. How much sooner is for
/// `scripts/bench live` to say: a busy machine keeps everybody waiting.
fn harm(lab: &Lab, agent: &crate::lab::Agent, node: u8, what: &str, kind: &str) {
    const TRIES: usize = 6;
    // Without a notice it would be found ten seconds after the last look, and each mending is one. Only the first may have luck.
    const BY_ITSELF: Duration = Duration::from_secs(3);
    let count = || agent.state().unwrap().repairs.get(kind).map_or(0, |r| r.times);
    let mut all = Vec::new();
    for _ in 0..TRIES {
        let before = count();
        lab.node(node).sh(what).unwrap();
        let took = eventually(&format!("`{what}` on node {node} is mended"), || count() > before);
        println!("node {node}: `{what}`: mended within {took:?}");
        eventually("nothing differs", || lab.differs(node).is_empty());
        all.push(took);
        if all.iter().filter(|took| **took < BY_ITSELF).count() == 2 || kind == UNSAID {
            return;
        }
    }
    panic!("`{what}` on node {node} is mended, but not by the kernel's notice: {all:?}");
}

#[test]
fn whatever_is_deleted_on_a_node_comes_back_by_itself() {
    let lab = Lab::raise(2);
    let agents = lab.agents();
    let gateway = lab.gateway(1, "red");
    let client = lab.client(2, "cart");
    eventually("the gateway is used", || leaves_by(&lab, &client, &gateway));
    for (what, kind) in HARM {
        for node in [1, 2] {
            if node == 1 && ["nexthop", "forwarding entry"].contains(&kind) {
                continue; // no client is there, so no gateway's next hop
            }
            harm(&lab, &agents[usize::from(node) - 1], node, what, kind);
        }
        eventually(&format!("the gateway is used after `{what}`"), || leaves_by(&lab, &client, &gateway));
    }
    for (what, kind) in HARM_TO_GATEWAYS {
        harm(&lab, &agents[0], 1, what, kind);
        eventually("the gateway is used again", || leaves_by(&lab, &client, &gateway));
    }
    let flushes = agents[1].state().unwrap().ruleset_flushes;
    assert!(flushes.times >= 2 && flushes.longest_micros > 0, "{flushes:?}");
    println!("without rules: {flushes:?}");
    // Its tables are pages long, and were put back several times.
    let longest = agents[1].log().lines().map(str::len).max();
    assert!(longest.is_some_and(|bytes| bytes < 2500), "a line of the log has {longest:?} bytes");
}

#[test]
fn what_is_deleted_in_a_gateways_namespace_comes_back_too() {
    let lab = Lab::raise(1);
    let agents = lab.agents();
    let gateway = lab.gateway(1, "red");
    let client = lab.client(1, "cart");
    for what in
        ["ip route flush table all proto 65", "nft flush ruleset", "ip rule del pref 799 || ip rule flush"]
    {
        gateway.place().sh(what).unwrap();
        eventually(what, || lab.differs(1).is_empty());
        eventually("the gateway is used again", || leaves_by(&lab, &client, &gateway));
    }
    drop(agents);
}

/// Tells a thread to stop, also when the story fails.
pub(crate) struct Stop<'a>(pub(crate) &'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// New flows all the time.
pub(crate) fn chatter(pod: &Pod, stop: &AtomicBool) {
    let mut pod = pod.clone();
    pod.patience = Duration::from_millis(50);
    while !stop.load(Ordering::Relaxed) {
        for to in outside() {
            let _ = (pod.udp(to), pod.tcp(to));
        }
    }
}

#[test]
fn routing_taken_away_under_traffic_leaks_nothing_and_a_flushed_ruleset_only_within_its_window() {
    let lab = Lab::raise(2);
    let agents = lab.agents();
    let gateway = lab.gateway(1, "red");
    let client = lab.client(2, "cart");
    eventually("the gateway is used", || leaves_by(&lab, &client, &gateway));
    let capture = lab.capture().unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _stop = Stop(&stop);
        scope.spawn(|| chatter(&client, &stop));
        for (what, kind) in HARM.iter().filter(|(_, kind)| *kind != "nftables") {
            harm(&lab, &agents[1], 2, what, kind);
        }
    });
    capture.assert_clean(&[&client]);

    // The ruleset is the decision itself: policy rules stop the client some microseconds after it is gone, until it is back. What
    // leaves in those few is counted here, and their time by the agent.
    let capture = lab.capture().unwrap();
    let mut leaked = Vec::new();
    stop.store(false, Ordering::Relaxed);
    let leases = outside().map(|to| lab.lease(&gateway, egret::addr::Family::of(to)));
    let before = agents[1].state().unwrap().ruleset_flushes.times;
    std::thread::scope(|scope| {
        let _stop = Stop(&stop);
        scope.spawn(|| chatter(&client, &stop));
        for n in 1..=5 {
            lab.node(2).sh("nft flush ruleset").unwrap();
            eventually("the window is over and counted", || {
                agents[1].state().unwrap().ruleset_flushes.times >= before + n
            });
            leaked.push(
                capture
                    .sources_of(&client)
                    .iter()
                    .filter(|(ip, _)| !leases.contains(ip))
                    .map(|(_, n)| n)
                    .sum::<usize>(),
            );
            capture.restart();
            eventually("and clients are let go", || {
                !lab.node(2).sh("ip rule; ip -6 rule").unwrap().contains("790:")
            });
        }
        std::thread::sleep(Duration::from_millis(100));
        capture.restart();
        std::thread::sleep(Duration::from_millis(300));
        eventually("the client is seen", || !capture.sources_of(&client).is_empty());
    });
    let state = agents[1].state().unwrap();
    println!(
        "five flushes: {:?}, unguarded {:?}, packets {leaked:?}",
        state.ruleset_flushes, state.unguarded
    );
    assert!(state.unguarded.times >= 5 && state.unguarded.total_micros < state.ruleset_flushes.total_micros);
    capture.assert_clean(&[&client]);
}

#[test]
fn a_running_client_whose_packets_are_taken_away_is_named_until_they_come_back() {
    let lab = Lab::raise(1);
    let agents = lab.agents();
    let _client = lab.client(1, "cart");
    let of_pods = "for d in $(ip -o link show type veth | grep -o 'veth[0-9a-f]\\{8\\}'); do tc";
    let filter = "ingress protocol all u32 match u32 0 0 action mirred egress redirect dev nic";
    lab.node(1)
        .sh(&format!("ip link add nic type veth peer name nic1; {of_pods} qdisc add dev $d clsact; tc filter add dev $d {filter}; done"))
        .unwrap();
    let named = || agents[0].reasons().contains(&"TrafficBypassesNode".to_owned());
    eventually("the agent names it", named);
    lab.node(1).sh(&format!("{of_pods} qdisc del dev $d clsact; done")).unwrap();
    eventually("and says so no more", || !named());
}
