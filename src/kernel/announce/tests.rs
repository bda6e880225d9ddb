//! Real kernels at the other end of a wire: they follow what we announce and answer what we ask.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::wire::Wire;
use super::{Error, Question, announce, ethertype, frame};
use crate::addr::Mac;
use crate::kernel::sandbox::Namespace;

const LEASES: [&str; 2] = ["10.0.0.9", "fd00::9"];

/// Two hosts on one wire; `asker` is 10.0.0.1 and fd00::1, `other` 10.0.0.2 and fd00::2.
struct Pair {
    asker: Namespace,
    other: Namespace,
}

fn pair() -> Pair {
    let (asker, other) = (Namespace::new(), Namespace::new());
    asker.wire("eth0", &other, "eth0");
    for (host, number) in [(&asker, 1), (&other, 2)] {
        host.sh(&format!(
            "ip addr add 10.0.0.{number}/24 dev eth0; ip addr add fd00::{number}/64 dev eth0 nodad"
        ));
        host.can_speak_from(&[&format!("fd00::{number}")]);
    }
    Pair { asker, other }
}

fn mac_of(host: &Namespace) -> Mac {
    let line = host.sh("ip -br link show eth0");
    line.split_whitespace().find_map(|word| word.parse().ok()).unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// What the host believes about an address.
fn believed(host: &Namespace, address: &str) -> Option<Mac> {
    let line = host.sh(&format!("ip neigh show {address} dev eth0"));
    line.split_whitespace().find_map(|word| word.parse().ok())
}

fn make_stale(host: &Namespace, address: &str) {
    host.sh(&format!("ip neigh replace {address} lladdr 02:00:00:00:00:99 dev eth0 nud stale"));
}

fn soon(what: &str, fact: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(3);
    while !fact() {
        assert!(Instant::now() < end, "after three seconds still not: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_host_with_a_stale_entry_follows_every_single_form_of_announcement() {
    let Pair { asker, other } = pair();
    let mac = mac_of(&asker);
    for lease in LEASES {
        for form in frame::announcements(mac, ip(lease)) {
            make_stale(&other, lease);
            let wire =
                asker.run(|| Wire::open("eth0", ethertype(ip(lease)), &frame::filter(ip(lease)))).unwrap();
            wire.send(&form).unwrap();
            soon("the host follows", || believed(&other, lease) == Some(mac));
        }
        make_stale(&other, lease);
        asker.run(|| announce("eth0", ip(lease))).unwrap();
        soon("the host follows", || believed(&other, lease) == Some(mac));
    }
}

#[test]
fn an_advertisement_with_a_wrong_checksum_is_not_followed() {
    let Pair { asker, other } = pair();
    let mac = mac_of(&asker);
    let right = frame::announcements(mac, ip("fd00::9")).remove(0);
    let (checksum_low, last_of_mac) = (57, right.len() - 1);
    for broken in [checksum_low, last_of_mac] {
        make_stale(&other, "fd00::9");
        let mut wrong = right.clone();
        wrong[broken] ^= 1;
        let wire =
            asker.run(|| Wire::open("eth0", frame::ETHERTYPE_IPV6, &frame::filter(ip("fd00::9")))).unwrap();
        wire.send(&wrong).unwrap();
        // A right one for another address behind it: once that is believed, the wrong one was dealt with.
        make_stale(&other, "fd00::8");
        asker.run(|| announce("eth0", ip("fd00::8"))).unwrap();
        soon("the host follows", || believed(&other, "fd00::8") == Some(mac));
        assert_eq!(believed(&other, "fd00::9"), Some("02:00:00:00:00:99".parse().unwrap()));
    }
}

#[test]
fn nobody_answers_for_a_free_address_and_the_caller_sleeps_till_the_deadline() {
    let Pair { asker, other: _there } = pair();
    for (source, lease) in [("10.0.0.1", LEASES[0]), ("fd00::1", LEASES[1])] {
        let start = Instant::now();
        let question = asker.run(|| Question::ask("eth0", ip(source), ip(lease))).unwrap();
        assert!(question.answers(start + Duration::from_millis(60)).unwrap().is_empty());
        assert!(start.elapsed() >= Duration::from_millis(60));
        assert!(question.answers(start).unwrap().is_empty(), "a deadline in the past does not wait");
    }
}

#[test]
fn the_real_owner_answers() {
    let Pair { asker, other } = pair();
    other.sh("ip addr add 10.0.0.9/32 dev eth0; ip addr add fd00::9/128 dev eth0 nodad");
    other.can_speak_from(&["fd00::9"]);
    answered(&asker, mac_of(&other));
}

/// A node that answers for the leases as Egret's nodes do.
const PROXY: &str = "echo 1 > /proc/sys/net/ipv4/ip_forward; echo 1 > /proc/sys/net/ipv6/conf/all/forwarding
    echo 1 > /proc/sys/net/ipv6/conf/eth0/proxy_ndp; echo 0 > /proc/sys/net/ipv4/neigh/eth0/proxy_delay
    echo 0 > /proc/sys/net/ipv6/neigh/eth0/proxy_delay
    ip link add eg1 type veth peer name eg1p; ip link set eg1 up; ip link set eg1p up
    ip route add 10.0.0.9/32 dev eg1; ip route add fd00::9/128 dev eg1
    ip neigh add proxy 10.0.0.9 dev eth0; ip neigh add proxy fd00::9 dev eth0";

#[test]
fn a_node_that_answers_as_a_proxy_is_found_and_one_does_not_find_itself() {
    let Pair { asker, other } = pair();
    other.sh(PROXY);
    answered(&asker, mac_of(&other));
    // Both own it now: each finds the other.
    asker.sh(PROXY);
    answered(&asker, mac_of(&other));
    // The asker alone owns it: nobody answers.
    other.sh("ip neigh del proxy 10.0.0.9 dev eth0; ip neigh del proxy fd00::9 dev eth0");
    for (source, lease) in [("10.0.0.1", LEASES[0]), ("fd00::1", LEASES[1])] {
        let question = asker.run(|| Question::ask("eth0", ip(source), ip(lease))).unwrap();
        assert!(question.answers(Instant::now() + Duration::from_millis(60)).unwrap().is_empty());
    }
}

fn answered(asker: &Namespace, by: Mac) {
    for (source, lease) in [("10.0.0.1", LEASES[0]), ("fd00::1", LEASES[1])] {
        let start = Instant::now();
        let question = asker.run(|| Question::ask("eth0", ip(source), ip(lease))).unwrap();
        let owners = question.answers(start + Duration::from_secs(3)).unwrap();
        assert_eq!(Vec::from_iter(owners), [by], "{lease}");
        assert!(start.elapsed() < Duration::from_secs(2), "an answer ends the waiting");
    }
}

#[test]
fn answers_that_came_while_the_caller_worked_are_not_lost() {
    let Pair { asker, other } = pair();
    other.sh("ip addr add 10.0.0.9/32 dev eth0");
    let question = asker.run(|| Question::ask("eth0", ip("10.0.0.1"), ip("10.0.0.9"))).unwrap();
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(question.answers(Instant::now()).unwrap().len(), 1);
}

#[test]
fn what_cannot_work_is_said_in_a_sentence() {
    let Pair { asker, other: _there } = pair();
    let said = |result: Result<(), Error>| result.unwrap_err().to_string();
    assert_eq!(
        said(asker.run(|| announce("eth7", ip("10.0.0.9")))),
        "there is no device eth7 in this network namespace"
    );
    let mixed = asker.run(|| Question::ask("eth0", ip("10.0.0.1"), ip("fd00::9")).map(drop));
    assert_eq!(said(mixed), "10.0.0.1 cannot ask for fd00::9: they are of different families");
    assert_eq!(
        said(asker.run(|| announce("lo", ip("10.0.0.9")))),
        "lo is no Ethernet device: addresses cannot be announced there, use a device of the hosts' subnet"
    );
    asker.sh("ip link set eth0 down");
    assert_eq!(
        said(asker.run(|| announce("eth0", ip("10.0.0.9")))),
        "could not send on eth0: Network is down (os error 100)"
    );
}
