//! The host's settings are given back; those of our devices go with them.

use egret::kernel::state::State;
use egret::kernel::{Place, Saved, reconcile};

use crate::world::*;

const HASH: &str = "net/ipv4/fib_multipath_hash_policy";

fn read(path: &str) -> String {
    sh(&format!("cat /proc/sys/{path}")).trim().to_owned()
}

fn wanting(settings: &[(&str, &str)]) -> State {
    let mut state = State::default();
    state.links.insert("egress.vxlan".into(), vxlan(4097, "172.30.0.1"));
    state.sysctls = settings.iter().map(|(path, value)| ((*path).into(), (*value).into())).collect();
    state
}

#[test]
fn the_hosts_value_comes_back_when_ours_is_no_longer_wanted() {
    let node = node();
    let place = Place::node(&node);
    sh(&format!("echo 2 > /proc/sys/{HASH}"));
    let mut saved = Saved::new();
    let own = "net/ipv4/conf/egress.vxlan/rp_filter";
    settle(&place, &wanting(&[(HASH, "1"), (own, "2")]), &mut saved);
    assert_eq!((read(HASH).as_str(), read(own).as_str()), ("1", "2"));
    assert_eq!(
        saved,
        Saved::from([(HASH.to_owned(), "2".to_owned())]),
        "our device's own setting is not kept"
    );

    // A second change keeps the first original.
    settle(&place, &wanting(&[(HASH, "3"), (own, "2")]), &mut saved);
    assert_eq!(saved[HASH], "2");

    settle(&place, &wanting(&[(own, "2")]), &mut saved);
    assert_eq!(read(HASH), "2");
    assert!(saved.is_empty());
}

#[test]
fn a_value_that_is_right_already_is_neither_written_nor_kept() {
    let node = node();
    let place = Place::node(&node);
    sh(&format!("echo 1 > /proc/sys/{HASH}"));
    let mut saved = Saved::new();
    settle(&place, &wanting(&[(HASH, "1")]), &mut saved);
    assert!(saved.is_empty());
    settle(&place, &State::default(), &mut saved);
    assert_eq!(read(HASH), "1");
}

#[test]
fn uninstalling_gives_back_settings_of_the_uplink() {
    let node = node();
    let place = Place::node(&node);
    let proxy = "net/ipv6/conf/up0/proxy_ndp";
    let mut saved = Saved::new();
    settle(&place, &wanting(&[(proxy, "1")]), &mut saved);
    assert_eq!(read(proxy), "1");
    settle(&place, &State::default(), &mut saved);
    assert_eq!(read(proxy), "0");
    assert!(saved.is_empty());
}

#[test]
fn a_setting_that_does_not_exist_is_named() {
    let node = node();
    let place = Place::node(&node);
    let wanted = wanting(&[("net/ipv4/no_such_setting", "1"), ("net/ipv4/conf/up0/rp_felter", "2")]);
    let report = reconcile(&place, &scope(), &wanted, &mut Saved::new(), false).unwrap();
    let why: Vec<&str> = report.failed.iter().map(|(_, why)| why.as_str()).collect();
    assert_eq!(
        why,
        [
            "this kernel has no setting net/ipv4/conf/up0/rp_felter (or there is no device up0)",
            "this kernel has no setting net/ipv4/no_such_setting; is its module loaded?",
        ]
    );
}

/// Given settings of an uplink with the host's values on file, the uplink goes: its settings went with it, and nothing is left to give back.
#[test]
fn settings_of_a_device_that_went_away_are_given_back_already() {
    for goes in ["ip link delete wan0", "ip link set wan0 down; ip link set wan0 name wan1"] {
        let node = node();
        let place = Place::node(&node);
        sh("ip link add wan0 type veth peer name wan0b; ip link set wan0 up");
        let (filter, delay) = ("net/ipv4/conf/wan0/rp_filter", "net/ipv4/neigh/wan0/proxy_delay");
        let mut saved = Saved::new();
        settle(&place, &wanting(&[(filter, "2"), (delay, "0")]), &mut saved);
        assert_eq!(saved.len(), 2, "{saved:?}");
        sh(goes);
        settle(&place, &wanting(&[]), &mut saved);
        assert_eq!(saved, Saved::new(), "{goes}");
        settle(&place, &State::default(), &mut saved);
    }
}

/// Who works from a plan of before asks for what is the device's; one of ours that is missing is a failure still.
#[test]
fn what_was_meant_for_a_device_of_the_host_that_is_gone_is_no_failure() {
    let node = node();
    let place = Place::node(&node);
    let mut wanted = wanting(&[("net/ipv4/conf/wan0/rp_filter", "2")]);
    wanted.proxies.insert(("wan0".into(), [10, 9, 9, 9].into()));
    let report = reconcile(&place, &scope(), &wanted, &mut Saved::new(), false).unwrap();
    assert_eq!(report.failed, []);
    assert!(!report.done.iter().any(|step| step.to_string().contains("wan0")), "{:?}", report.done);
}
