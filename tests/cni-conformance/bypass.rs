//! Pods whose packets do not pass the node's forwarding: a selected one is refused or named, never silently unprotected.

use serde_json::json;

use crate::world::{Kind, egret, for_a_client, for_every_pod, ip, output};

fn inside(args: &[&str]) -> String {
    output(&[&["nsenter", "--net=/run/netns/a", "ip"], args].concat())
}

fn tc(arguments: &str) {
    output(&[&["tc"], arguments.split(' ').collect::<Vec<_>>().as_slice()].concat());
}

fn redirect_away() {
    ip(&["link", "add", "nic", "type", "veth", "peer", "name", "nic1"]);
    tc("qdisc add dev vetha clsact");
    tc("filter add dev vetha ingress protocol all u32 match u32 0 0 action mirred egress redirect dev nic");
}

fn on_macvlan() {
    inside(&["link", "del", "eth0"]);
    ip(&["link", "add", "trunk", "type", "veth", "peer", "name", "switch"]);
    ip(&["link", "set", "trunk", "up"]);
    ip(&["link", "add", "mac0", "link", "trunk", "type", "macvlan", "mode", "bridge"]);
    ip(&["link", "set", "mac0", "netns", "/run/netns/a", "name", "eth0"]);
    inside(&["addr", "add", "10.1.2.3/24", "dev", "eth0"]);
}

/// What `egret reconcile` and `egret status` say.
fn told() -> [String; 2] {
    ["reconcile", "status"].map(|verb| {
        let said = std::process::Command::new(egret()).args([verb, "--node", "n1", "-o", "json"]).output();
        String::from_utf8(said.unwrap().stdout).unwrap()
    })
}

#[test]
fn a_selected_pod_on_macvlan_is_refused_and_any_other_starts() {
    for_every_pod(|world| {
        on_macvlan();
        let added = world.call("ADD").run();
        if world.kind == Kind::Unselected {
            added.succeeds();
        } else {
            added.fails(104, &["no other end on the node", "macvlan", "take the egress annotations off"]);
            assert!(world.records().is_empty(), "nothing of it is left");
        }
    });
}

#[test]
fn a_filter_that_redirects_a_clients_packets_is_found_at_add_at_check_and_at_reconcile() {
    for_a_client(|world| {
        redirect_away();
        let why = ["does not pass the node's forwarding", "at vetha, a tc filter redirects to nic"];
        world.call("ADD").run().fails(104, &why);
        assert!(world.records().is_empty(), "nothing of it is left");
        tc("qdisc del dev vetha clsact");
        world.add("c1");
        world.call("CHECK").run().succeeds();
        // Somebody attaches it to the running pod.
        ip(&["link", "del", "nic"]);
        redirect_away();
        world.call("CHECK").run().fails(104, &why);
        for said in told() {
            assert!(said.contains("TrafficBypassesNode") && said.contains(why[1]), "{said}");
        }
        tc("qdisc del dev vetha clsact");
        world.call("CHECK").run().succeeds();
        world.call("DEL").run().succeeds();
    });
}

#[test]
fn whom_nothing_selects_may_be_redirected_anywhere() {
    crate::world::for_an_unselected_pod(|world| {
        redirect_away();
        world.add("c1");
        world.call("CHECK").run().succeeds();
    });
}

#[test]
fn a_client_that_was_let_go_may_be_redirected_anywhere_and_have_any_address() {
    for_a_client(|world| {
        world.add("c1");
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "spec": {"nodeName": "n1"},
            "metadata": {"name": "p-c1", "namespace": "ns1"}});
        std::fs::write("/var/lib/egret/objects/pod.json", pod.to_string()).unwrap();
        told(); // reconciles
        let bindings = output(&["nft", "list", "map", "inet", "egret", "binding4"]);
        assert!(bindings.contains("10.1.2.3"), "it keeps an element, as one that was let go: {bindings}");
        redirect_away();
        inside(&["addr", "add", "10.1.2.77/24", "dev", "eth0"]);
        for said in told() {
            assert!(!said.contains("TrafficBypassesNode"), "nothing selects it: {said}");
        }
        world.call("CHECK").run().succeeds();
        world.call("DEL").run().succeeds();
    });
}

#[test]
fn a_running_pod_that_is_selected_later_is_named() {
    for_a_client(|world| {
        on_macvlan();
        world.call("ADD").with("runtimeConfig", json!({})).run().succeeds();
        for said in told() {
            assert!(!said.contains("TrafficBypassesNode"), "nothing selects it: {said}");
        }
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "spec": {"nodeName": "n1"},
            "metadata": {"name": "p1", "namespace": "ns1", "annotations": world.annotations()}});
        std::fs::write("/var/lib/egret/objects/pod.json", pod.to_string()).unwrap();
        for said in told() {
            assert!(
                said.contains("TrafficBypassesNode") && said.contains("no other end on the node"),
                "{said}"
            );
        }
        world.call("CHECK").with("runtimeConfig", json!({})).run().fails(104, &["no other end on the node"]);
    });
}

/// A primary plugin that gives an address and does not tell it, and somebody who gives a running pod another one.
#[test]
fn an_address_that_no_result_names_is_bound_at_add_and_one_that_comes_later_is_named() {
    for_a_client(|world| {
        inside(&["addr", "add", "fd60:1::10/128", "dev", "eth0", "nodad"]);
        let bound = || output(&["nft", "list", "ruleset"]).contains("fd60:1::10");
        world.add("c1");
        assert!(bound(), "the address is the client's");
        world.call("CHECK").run().succeeds();
        inside(&["addr", "add", "10.1.2.77/24", "dev", "eth0"]);
        let why = "eth0 of this pod has 10.1.2.77 beside what it is bound by";
        world.call("CHECK").run().fails(104, &[why, "take that off the interface"]);
        for said in told() {
            assert!(said.contains("TrafficBypassesNode") && said.contains(why), "{said}");
        }
        inside(&["addr", "del", "10.1.2.77/24", "dev", "eth0"]);
        world.call("CHECK").run().succeeds();
        world.call("DEL").run().succeeds();
        assert!(!bound(), "it is nobody's");
    });
}
