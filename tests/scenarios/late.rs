//! A pod that is selected while it runs is bound by every address that its interface has then, as at an ADD.

use std::process::Command;

use egret::addr::Family;
use egret::testbed::{Pod, pod_network};
use serde_json::Value;

use crate::lab::{Lab, nodes};

/// An address of the pods' network of node 2 that its primary has not given to anybody.
fn free(family: Family, last: &str) -> String {
    let network = pod_network(2, family).to_string();
    let stem = network.split_once(if family == Family::V4 { "0/" } else { "/" }).unwrap().0;
    format!("{stem}{last}")
}

/// Gives a pod's interface an address, as a router's advertisement or a process in it does.
fn gives(pod: &Pod, ip: &str) {
    let length = if ip.contains(':') { 128 } else { 32 };
    pod.place().sh(&format!("ip addr add {ip}/{length} dev eth0 nodad")).unwrap();
}

/// What the pod sends leaves from these addresses.
fn sends_from(pod: &Pod, sources: &[String]) {
    for source in sources {
        let family = if source.contains(':') { "-6" } else { "-4" };
        let place = pod.place();
        let way = place.sh(&format!("ip {family} route show default")).unwrap();
        let via = way.split_whitespace().skip_while(|word| *word != "via").nth(1).unwrap().to_owned();
        place.sh(&format!("ip {family} route replace default via {via} dev eth0 src {source}")).unwrap();
    }
}

/// What reconcile says of traffic that passes by.
fn passing_by(lab: &Lab, node: u8) -> Vec<String> {
    let report = lab.json(node, &["reconcile"]);
    let problems = report["problems"].as_array().cloned().unwrap_or_default();
    let passing = problems.iter().filter(|problem| problem["reason"] == "TrafficBypassesNode");
    passing.map(|problem| problem["message"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_pod_that_is_selected_while_it_runs_is_bound_by_every_address_that_it_has_then() {
    let lab = Lab::raise(nodes(2));
    let gateway = lab.gateway(1, "g1");
    let leases = lab.leases(&gateway).into_iter().collect();
    let pod = lab.plain(2, "late");
    let given = Family::BOTH.map(|family| free(family, "200"));
    given.iter().for_each(|ip| gives(&pod, ip));
    sends_from(&pod, &given);
    lab.leaves_as_before(&pod);

    lab.is_selected(&pod);
    assert_eq!(lab.leaves_as_predicted(&pod), leases);
    assert_eq!(passing_by(&lab, 2), [""; 0]);

    // Let go and selected again: what came meanwhile is bound too.
    lab.pod_object(&pod.name.to_string(), &[], &[], 2).unwrap();
    lab.settle().unwrap();
    let more = Family::BOTH.map(|family| free(family, "201"));
    more.iter().for_each(|ip| gives(&pod, ip));
    sends_from(&pod, &more);
    lab.leaves_as_before(&pod);
    lab.is_selected(&pod);
    assert_eq!(lab.leaves_as_predicted(&pod), leases);
    assert_eq!(passing_by(&lab, 2), [""; 0]);

    lab.del_pod(&pod).unwrap();
    lab.settle().unwrap();
    let rules = lab.node(2).sh("nft list ruleset").unwrap();
    let left: Vec<_> = given.iter().chain(&more).filter(|ip| rules.contains(ip.as_str())).collect();
    assert_eq!(left, [""; 0], "they are nobody's");
}

/// A pod that may change its interface writes addresses there that are not its own before it has itself selected: a neighbour's, a
/// gateway's, its node's. Were they bound, what those send would go where this pod's goes.
#[test]
fn nobody_is_bound_by_an_address_of_somebody_else() {
    let lab = Lab::raise(nodes(2));
    let gateway = lab.gateway(1, "g1");
    let leases = lab.leases(&gateway);
    // Of two pods with one address the later has it: this one came first.
    let (next, pod) = (lab.plain(2, "next"), lab.plain(2, "late"));
    let link = next.place().sh("ip -o link show eth0").unwrap();
    let mac = link.split_whitespace().skip_while(|word| *word != "link/ether").nth(1).unwrap();
    for ip in &next.addresses {
        // The node goes on knowing which of the two it was.
        let way = lab.node(2).sh(&format!("ip -o route get {ip}")).unwrap();
        let dev = way.split_whitespace().skip_while(|word| *word != "dev").nth(1).unwrap();
        lab.node(2).sh(&format!("ip neigh replace {ip} lladdr {mac} dev {dev} nud permanent")).unwrap();
    }
    let taken: Vec<String> =
        next.addresses.iter().chain(&leases).map(ToString::to_string).chain(["203.0.113.9".into()]).collect();
    taken.iter().for_each(|ip| gives(&pod, ip));
    let own = pod.addresses.iter().map(ToString::to_string).collect::<Vec<_>>();
    sends_from(&pod, &own);

    lab.is_selected(&pod);
    assert_eq!(lab.leaves_as_predicted(&pod), leases.iter().copied().collect());
    lab.leaves_as_before(&next);
    let said = passing_by(&lab, 2);
    assert!(said.len() == 1 && taken.iter().all(|ip| said[0].contains(ip.as_str())), "{said:?}");
    let bound = lab.node(2).sh("nft -j list ruleset").unwrap();
    let bound: Value = serde_json::from_str(&bound).unwrap();
    let maps = bound["nftables"].as_array().unwrap().iter().map(|entry| entry["map"].clone());
    let bindings = maps.filter(|map| map["name"].as_str().is_some_and(|name| name.starts_with("binding")));
    let bindings = bindings.map(|map| map["elem"].to_string()).collect::<String>();
    assert!(own.iter().all(|ip| bindings.contains(ip.as_str())), "{bindings}");
    assert!(!taken.iter().any(|ip| bindings.contains(&format!("\"{ip}\""))), "{bindings}");
}

/// A namespace that cannot be entered, as where it is not mounted for whoever looks: the pod is bound by what is on record.
#[test]
fn a_pod_whose_namespace_cannot_be_entered_is_bound_by_the_addresses_of_its_add() {
    let lab = Lab::raise(nodes(2));
    let gateway = lab.gateway(1, "g1");
    let pod = lab.plain(2, "late");
    let path = pod.place().path().display().to_string();
    // In this thread's own mount namespace, which is that of egret too; a node's shell has one of its own.
    let shell = |line: &str| Command::new("sh").args(["-c", line]).status().unwrap().success();
    assert!(shell(&format!("mount --bind /dev/null {path}")));
    assert!(!shell(&format!("nsenter --net={path} true")), "it can still be entered");
    lab.is_selected(&pod);
    assert!(shell(&format!("umount {path}")));
    assert_eq!(lab.leaves_as_predicted(&pod), lab.leases(&gateway).into_iter().collect());
}
