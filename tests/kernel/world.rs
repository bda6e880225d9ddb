//! Throw-away namespaces, and a small universe of things of ours to put into them.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::process::Command;

use egret::addr::Mac;
use egret::kernel::state::{Address, Link, LinkKind, Remote, Scope, State};
use egret::kernel::{Netns, Place, Report, Saved, reconcile};
use nix::sched::{CloneFlags, unshare};

pub fn scope() -> Scope {
    Scope {
        link_group: 4097,
        protocol: 179,
        rule_priorities: vec![700, 710, 719, 720, 721, 799],
        nexthop_ids: 479_000..=479_999,
        tables: Vec::new(),
    }
}

/// Moves this test's thread into a fresh namespace with loopback and a foreign uplink `up0`.
pub fn node() -> Netns {
    enter_fresh();
    ip("link set lo up");
    ip("link add up0 type veth peer name up1");
    for end in ["up0", "up1"] {
        ip(&format!("link set {end} addrgenmode none"));
        ip(&format!("link set {end} up"));
    }
    ip("addr add 172.30.0.1/24 dev up0");
    ip("addr add fd00:172:30::1/64 dev up0 nodad");
    Netns::current().unwrap()
}

/// A second, empty namespace; the thread stays where it is.
pub fn another() -> Netns {
    std::thread::spawn(|| {
        enter_fresh();
        ip("link set lo up");
        Netns::current().unwrap()
    })
    .join()
    .unwrap()
}

fn enter_fresh() {
    unshare(CloneFlags::CLONE_NEWNET)
        .expect("this test makes network namespaces: run it as root (CAP_SYS_ADMIN and CAP_NET_ADMIN)");
}

/// Runs a command in this thread's namespace; it must succeed.
pub fn sh(command: &str) -> String {
    let output = Command::new("sh").args(["-c", command]).output().expect("sh runs");
    assert!(output.status.success(), "`{command}`: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Runs `ip` (iproute2 must be installed) in this thread's namespace.
pub fn ip(arguments: &str) -> String {
    sh(&format!("ip {arguments}"))
}

pub fn addr(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub fn mac(last: u8) -> Mac {
    Mac([0x02, 0x67, 0, 0, 0, last])
}

pub fn vxlan(vni: u32, local: &str) -> Link {
    let kind = LinkKind::Vxlan { vni, port: 4790, local: addr(local) };
    Link { kind, mac: mac(200), mtu: 1450, arp: false }
}

pub fn veth(peer: &str) -> Link {
    let kind = LinkKind::Veth { peer: peer.to_owned(), peer_mac: mac(202) };
    Link { kind, mac: mac(201), mtu: 1500, arp: true }
}

pub fn address(dev: &str, ip: &str, link_scope: bool) -> Address {
    Address { dev: dev.to_owned(), ip: addr(ip), link_scope }
}

pub fn remote(node: &str, vni: u32) -> Remote {
    Remote { node: addr(node), vni }
}

/// Reconciles for real and demands that every step succeeds and that nothing is left to do.
pub fn settle(place: &Place<'_>, desired: &State, saved: &mut Saved) -> Report {
    let report = reconcile(place, &scope(), desired, saved, false).unwrap();
    let failed: Vec<String> = report.failed.iter().map(|(step, why)| format!("{step}: {why}")).collect();
    assert!(failed.is_empty(), "failed: {failed:#?}\ndone: {}", lines(&report.done));
    assert_settled(place, desired, saved, &lines(&report.done));
    report
}

/// Demands that nothing is to be done.
pub fn assert_settled(place: &Place<'_>, desired: &State, saved: &mut Saved, context: &str) {
    let again = reconcile(place, &scope(), desired, saved, true).unwrap();
    assert!(again.pending.is_empty(), "not settled, left:\n{}\nafter:\n{context}", lines(&again.pending));
}

pub fn lines<T: ToString>(steps: &[T]) -> String {
    steps.iter().map(|step| format!("  {}\n", step.to_string())).collect()
}

/// What anybody can see of the namespace, without counters and ages that change by themselves.
pub fn listing() -> BTreeSet<String> {
    let commands = [
        "ip -d link",
        "ip -o addr",
        "ip -4 route show table all",
        "ip -6 route show table all",
        "ip -4 rule",
        "ip -6 rule",
        "ip nexthop",
        "ip neigh show nud permanent",
        "ip neigh show proxy",
        "bridge fdb",
    ];
    let mut seen = BTreeSet::new();
    for command in commands {
        for line in sh(command).lines() {
            // A device that was made again has another index.
            let line = line.trim_start_matches(|c: char| c.is_ascii_digit());
            // The kernel says these two a moment late, and of its own accord.
            let line = line.replace(" tentative", "").replace("state UNKNOWN", "state UP");
            if line.contains("fe80::") && !line.contains("proto") || line.starts_with("local fe80::") {
                continue;
            }
            seen.insert(format!("{command}: {line}"));
        }
    }
    seen
}

/// The listing of a place where every device is up at both ends, once the kernel says so: it tells of a carrier, and makes what
/// depends on it, up to a second late and of its own accord (`linkwatch`).
pub fn calm() -> BTreeSet<String> {
    for _ in 0..LOOKS {
        let now = listing();
        if !now.iter().any(|line| line.contains("NO-CARRIER")) && now == listing() {
            return now;
        }
        std::thread::sleep(BETWEEN_LOOKS);
    }
    panic!("some device has no carrier after three seconds: {:#?}", listing())
}

const LOOKS: u32 = 60;
const BETWEEN_LOOKS: std::time::Duration = std::time::Duration::from_millis(50);

/// Demands that a listing becomes what it was, in the time that [`calm`] gives, and shows only what differs.
pub fn assert_same(look: impl Fn() -> BTreeSet<String>, before: &BTreeSet<String>) {
    let mut now = look();
    for _ in 0..LOOKS {
        if now == *before {
            return;
        }
        std::thread::sleep(BETWEEN_LOOKS);
        now = look();
    }
    let gone: Vec<_> = before.difference(&now).collect();
    let new: Vec<_> = now.difference(before).collect();
    assert!(gone.is_empty() && new.is_empty(), "gone: {gone:#?}\nnew: {new:#?}");
}
