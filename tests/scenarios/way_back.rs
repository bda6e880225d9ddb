//! How the outside finds a lease: who answers for it, and what is said when it moves.

use std::io::{BufRead, BufReader, Read};
use std::net::IpAddr;
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use egret::testbed::{Place, Pod, Topology, within};

use crate::lab::{Lab, nodes};

/// ARP, and neighbour advertisements with the override flag (RFC 4861 §4.4): without it a stale host does not follow.
const OVERRIDING: &str = "arp or (icmp6 and ip6[40] = 136 and ip6[44] & 0x20 != 0)";

/// How long anything may take on a machine with other things to do.
const PATIENCE: Duration = Duration::from_secs(120);

/// A pod of StatefulSet `gw`, a gateway.
fn stateful_gateway(lab: &Lab, node: u8) -> Pod {
    lab.object(&format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{namespace: gw, name: gw-0, labels: {{egress-code: red}},
          ownerReferences: [{{apiVersion: apps/v1, kind: StatefulSet, name: gw, uid: s, controller: true}}],
          annotations: {{cni.projectcalico.org/ipv4pools: '[\"red\"]', cni.projectcalico.org/ipv6pools: '[\"red6\"]'}}}},
          spec: {{nodeName: node{node}}}}}"
    ))
    .unwrap();
    lab.add_pod(node, "gw/gw-0").unwrap()
}

/// Who has this address, as the router's neighbour table says; asked by a ping where it knows nothing.
fn owner(lab: &Lab, ip: IpAddr) -> String {
    let said = lab.router().sh(&format!("ip neigh show to {ip} dev eth0")).unwrap();
    said.split_whitespace().skip_while(|w| *w != "lladdr").nth(1).unwrap_or_default().to_owned()
}

fn mac(place: &Place) -> String {
    place.sh("cat /sys/class/net/eth0/address").unwrap().trim().to_owned()
}

/// tcpdump at a place, listening when this returns.
struct Watch(Child, Place);

impl Watch {
    fn at(place: &Place, filter: &str) -> Watch {
        let mut command = place.command("tcpdump").unwrap();
        command
            .args(["-l", "-e", "-n", "-U", "--immediate-mode", "-i", "eth0", filter])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut said = Vec::new();
        let errors = child.stderr.as_mut().unwrap();
        while !String::from_utf8_lossy(&said).contains("listening on") {
            let mut byte = [0];
            assert_eq!(errors.read(&mut byte).unwrap(), 1, "{}", String::from_utf8_lossy(&said));
            said.push(byte[0]);
        }
        Watch(child, place.clone())
    }

    /// What it has seen until now, which is over when it has seen somebody ask for an address that nobody has.
    fn end(mut self) -> String {
        std::thread::sleep(Duration::from_millis(100));
        // Another one each time: the kernel does not ask at once for an address that it has just asked for.
        static NOBODY: AtomicU8 = AtomicU8::new(130);
        let nobody = format!("172.30.0.{}", NOBODY.fetch_add(1, Ordering::Relaxed));
        self.1.run("bash", &["-c", &format!("echo over > /dev/udp/{nobody}/9")]).unwrap();
        let mut out = BufReader::new(self.0.stdout.take().unwrap());
        let mut said = String::new();
        while !said.contains(&format!("who-has {nobody}")) {
            assert_ne!(out.read_line(&mut said).unwrap(), 0, "{said}");
        }
        nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(self.0.id() as i32),
            nix::sys::signal::Signal::SIGINT,
        )
        .unwrap();
        out.read_to_string(&mut said).unwrap();
        self.0.wait().unwrap();
        said
    }
}

/// C11 F4 I9: a StatefulSet's pod comes up on another node: same lease, announced in both forms of gratuitous ARP and as an
/// overriding neighbour advertisement, and the router's neighbour entry moves at once.
#[test]
fn c11_f4_i9_a_lease_that_moves_is_announced_and_the_router_follows() {
    let lab = Lab::raise(nodes(3));
    let first = stateful_gateway(&lab, 1);
    let client = lab.client(3, "c");
    let capture = lab.capture().unwrap();
    let leases = lab.leases(&first);
    lab.leaves_as_predicted(&client);
    leases.iter().for_each(|ip| assert_eq!(owner(&lab, *ip), mac(&lab.node(1))));
    let watch = Watch::at(&lab.router(), OVERRIDING);
    lab.stop_sandbox(&first).unwrap();
    lab.settle().unwrap();
    let second = stateful_gateway(&lab, 2);
    assert_eq!(lab.leases(&second), leases, "the ordinal keeps its addresses");
    let seen = watch.end();
    let new = mac(&lab.node(2));
    let moved = || leases.iter().all(|ip| owner(&lab, *ip) == new);
    let owners = || leases.iter().map(|ip| owner(&lab, *ip)).collect::<Vec<_>>();
    assert!(within(PATIENCE, Duration::from_millis(10), moved).is_some(), "{:?}, not {new}", owners());
    let said =
        |words: &[&str]| seen.lines().any(|l| l.starts_with_mac(&new) && words.iter().all(|w| l.contains(w)));
    let (v4, v6) = (leases[0].to_string(), leases[1].to_string());
    assert!(said(&[&format!("Request who-has {v4}"), &format!("tell {v4}")]), "{seen}");
    assert!(said(&[&format!("Reply {v4} is-at {new}")]), "{seen}");
    assert!(said(&["neighbor advertisement", &format!("tgt is {v6}")]), "{seen}");
    assert_eq!(lab.leaves_as_predicted(&client), leases.into_iter().collect());
    capture.assert_clean(&[&client]);
}

trait FromMac {
    fn starts_with_mac(&self, mac: &str) -> bool;
}

impl FromMac for str {
    /// `tcpdump -e` writes the sender's MAC after the time.
    fn starts_with_mac(&self, mac: &str) -> bool {
        self.split_whitespace().nth(1) == Some(mac)
    }
}

/// I9: another machine on the fabric has the address too: reconcile names it, in both families, and no longer when it is gone.
#[test]
fn i9_another_owner_of_a_lease_is_named() {
    let lab = Lab::raise(nodes(2));
    let gateway = lab.gateway(1, "g1");
    assert!(!lab.reasons(1).contains(&"AnotherOwner".to_owned()));
    let thief = lab.node(2);
    for ip in lab.leases(&gateway) {
        thief.sh(&format!("ip addr add {ip} dev eth0 nodad")).unwrap();
        // Each asks anew, and waits no longer for an answer than a call may.
        let named = || {
            let report = lab.json(1, &["reconcile"])["problems"].to_string();
            report.contains("AnotherOwner") && report.contains(&mac(&thief))
        };
        assert!(within(PATIENCE, Duration::ZERO, named).is_some(), "{ip}: {:?} is not named", mac(&thief));
        thief.sh(&format!("ip addr del {ip} dev eth0")).unwrap();
    }
    let unnamed = || !lab.reasons(1).contains(&"AnotherOwner".to_owned());
    assert!(within(PATIENCE, Duration::ZERO, unnamed).is_some(), "it is gone, yet named");
}

/// The lines of one address that a node's MAC sent: whether each asks for an owner, or announces.
fn said_of(seen: &str, mac: &str, ip: IpAddr) -> Vec<&'static str> {
    let (who_has, is_at, target) =
        (format!("who-has {ip} "), format!("Reply {ip} is-at"), format!("tgt is {ip}"));
    let own = format!("tell {ip},");
    let asks = format!("neighbor solicitation, who has {ip},");
    let line = |line: &str| match line {
        _ if !line.starts_with_mac(mac) => None,
        _ if line.contains(&who_has) && !line.contains(&own) || line.contains(&asks) => Some("asks"),
        _ if line.contains(&who_has) || line.contains(&is_at) || line.contains(&target) => Some("announces"),
        _ => None,
    };
    seen.lines().filter_map(line).collect()
}

/// Without an agent: who takes an address over asks once whose it is, and announces it; every later call of the next minute announces
/// it again, a reconcile asks again as well, and after that minute calls are silent.
#[test]
fn who_takes_over_asks_first_and_later_calls_announce_again_for_a_minute() {
    let lab = Lab::raise(Topology { settle: false, ..nodes(1) });
    lab.plain(1, "p");
    let node = mac(&lab.node(1));
    let seen_during = |call: &dyn Fn()| {
        let watch = Watch::at(&lab.router(), "arp or icmp6");
        call();
        watch.end()
    };
    let watch = Watch::at(&lab.router(), "arp or icmp6");
    let leases = lab.leases(&lab.gateway(1, "g"));
    let seen = watch.end();
    for ip in &leases {
        let said = said_of(&seen, &node, *ip);
        assert_eq!(said.iter().filter(|w| **w == "asks").count(), 1, "{ip}: {said:?}\n{seen}");
        assert_eq!(said.first(), Some(&"asks"), "{ip}: {said:?}");
        assert_eq!(said.len() - 1, if ip.is_ipv4() { 2 } else { 1 }, "in each form once: {ip}: {said:?}");
    }
    let seen = seen_during(&|| drop(lab.client(1, "c1")));
    for ip in &leases {
        let forms = if ip.is_ipv4() { 2 } else { 1 };
        assert_eq!(said_of(&seen, &node, *ip), vec!["announces"; forms], "{ip}\n{seen}");
    }
    let seen = seen_during(&|| drop(lab.json(1, &["reconcile"])));
    for ip in &leases {
        let said = said_of(&seen, &node, *ip);
        assert!(said.contains(&"asks") && said.contains(&"announces"), "{ip}: {said:?}\n{seen}");
    }
    // A minute later, as far as the node can know.
    let memory = std::path::Path::new(egret::testbed::RUN_DIR).join("node1/announced.json");
    let mut announced: serde_json::Value = serde_json::from_slice(&std::fs::read(&memory).unwrap()).unwrap();
    for one in announced.as_array_mut().unwrap() {
        one["since"] = (one["since"].as_u64().unwrap() - 61).into();
    }
    std::fs::write(&memory, announced.to_string()).unwrap();
    let seen = seen_during(&|| drop(lab.client(1, "c2")));
    leases.iter().for_each(|ip| assert!(said_of(&seen, &node, *ip).is_empty(), "{ip}\n{seen}"));
}
