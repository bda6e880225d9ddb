//! Tables on their way into the kernel while other steps are carried out.

use egret::kernel::nft::table::{Chain, Hook, Rule, Table};
use egret::kernel::state::{NftFamily, Scope, State};
use egret::kernel::{Place, Saved, Step, begin_from_nothing, observe, steps};

use crate::places::{gateway, ip_in};
use crate::world::*;

fn with_tables() -> Scope {
    Scope { tables: vec![(NftFamily::Netdev, "egret".into())], ..scope() }
}

/// A gateway whose table hooks one of its devices.
fn hooked(rule: &str) -> State {
    let hook =
        Hook { kind: "filter".into(), hook: "egress".into(), priority: 0, device: Some("vxlan0".into()) };
    let chain = Chain { hook: Some(hook), rules: vec![Rule::new("unmarked", rule)] };
    let mut state = gateway();
    let table = Table { chains: [("out".to_owned(), chain)].into(), ..Table::default() };
    state.tables.insert((NftFamily::Netdev, "egret".into()), table);
    state
}

fn from_nothing(desired: &State) -> Vec<Step> {
    steps(&State::default(), desired, &Saved::default())
}

#[test]
fn tables_are_loaded_beside_other_steps_and_in_the_end_all_stands() {
    let (home, pod) = (node(), another());
    let place = Place { here: &pod, home: &home };
    let desired = hooked("meta mark set 0x0");
    let begun = begin_from_nothing(&place, &with_tables(), &from_nothing(&desired)).unwrap();
    let (report, ending) = begun.settle();
    let observed = observe(&place, &with_tables(), desired.sysctls.keys().map(String::as_str)).unwrap();
    assert_eq!(observed, desired, "what settled is in the kernel, whether or not the program has ended");
    drop(ending);
    assert_eq!((report.done.len(), report.failed), (from_nothing(&desired).len(), Vec::new()));
}

#[test]
fn tables_that_are_refused_are_a_failed_step_and_the_others_are_done() {
    let (home, pod) = (node(), another());
    let place = Place { here: &pod, home: &home };
    let desired = hooked("meta mark set nonsense");
    let begun = || begin_from_nothing(&place, &with_tables(), &from_nothing(&desired)).unwrap();
    let (report, ending) = begun().settle();
    assert!(ending.is_none());
    let [(step, why)] = report.failed.as_slice() else { panic!("one step fails: {:?}", report.failed) };
    assert!(matches!(step, Step::Nft(_)) && why.contains("nonsense"), "{why}");
    assert_eq!(report.done.len() + 1, from_nothing(&desired).len());
    // Whoever waits for the end of the program hears the same.
    ip_in(&pod, "ip link del vxlan0; ip link del egress0; ip rule del pref 700; ip -6 rule del pref 700");
    let ended = begun().end();
    assert_eq!(ended.failed.last().map(|(_, why)| why), Some(why));
}

#[test]
fn where_a_device_cannot_be_made_that_is_the_first_sentence_and_the_rest_is_tried() {
    let (home, pod) = (node(), another());
    let place = Place { here: &pod, home: &home };
    ip_in(&pod, "ip link add egress0 type bridge");
    let desired = hooked("meta mark set 0x0");
    let report = begin_from_nothing(&place, &with_tables(), &from_nothing(&desired)).unwrap().end();
    let (step, why) = &report.failed[0];
    assert!(matches!(step, Step::AddLink { name, .. } if name == "egress0"), "{step}: {why}");
    assert!(why.contains("something that is not Egret's is in its place"), "{why}");
    assert!(report.done.iter().any(|step| matches!(step, Step::Nft(_))), "its own device is there");
}
