//! `egret status` says how a node is, and which hook of which node takes packets away.

use egret::addr::Family;
use egret::testbed::Outside;
use serde_json::Value;

use crate::lab::{Lab, nodes};

fn status(lab: &Lab, node: u8) -> Value {
    lab.json(node, &["status"])["items"][0].clone()
}

fn text(lab: &Lab, node: u8) -> (String, bool) {
    let list = lab.conflist_path(node).display().to_string();
    let output = lab.egret(node, &["status", "--config", &list]).unwrap();
    (String::from_utf8(output.stdout).unwrap(), output.status.success())
}

#[test]
fn status_tells_gateways_clients_sets_and_what_is_missing() {
    let lab = Lab::raise(nodes(2));
    let idle = status(&lab, 1);
    assert_eq!((&idle["health"], &idle["gateways"]), (&"idle".into(), &serde_json::json!([])), "{idle}");
    let gateway = lab.gateway(1, "g");
    let client = lab.client(2, "c");
    lab.leaves_as_predicted(&client);

    let of_gateway = status(&lab, 1);
    assert_eq!(of_gateway["health"], "well", "{of_gateway}");
    assert_eq!(of_gateway["gateways"][0]["pod"], "gw/g");
    assert_eq!(of_gateway["gateways"][0]["state"], "ready");
    let lease = &of_gateway["gateways"][0]["leases"][0];
    assert_eq!(lease["address"], lab.lease(&gateway, Family::V4).to_string());
    assert_eq!((&lease["pool"], &lease["announced"]), (&"red".into(), &serde_json::json!(["eth0"])));

    let of_client = status(&lab, 2);
    assert_eq!(of_client["clients"][0]["pod"], "shop/c");
    assert_eq!(of_client["bindings"][0]["clients"], 1);
    assert_eq!(of_client["sets"][0]["gateways"][0]["pod"], "gw/g");
    assert_eq!(of_client["sets"][0]["gateways"][0]["node"], "node1");
    assert_eq!(of_client["agent"], Value::Null);
    assert_eq!(of_client["settings"]["hashPolicy"], "0");
    let (said, well) = text(&lab, 2);
    assert!(well && said.starts_with("node node2: well: the kernel holds the plan\n"), "{said}");
    assert!(!said.contains('\x1b') && said.contains("\nCLIENT  ADDRESS"), "{said}");

    // A second gateway: flows are spread, and the host's setting is remembered.
    lab.gateway(1, "g2");
    lab.settle().unwrap();
    let settings = status(&lab, 2)["settings"].clone();
    assert_eq!(settings["hashPolicy"], "1");
    assert_eq!(settings["saved"]["net/ipv4/fib_multipath_hash_policy"], "0", "{settings}");

    // Somebody deletes a rule.
    lab.node(2).sh("ip rule del priority 799; ip -6 rule del priority 799").unwrap();
    let less = status(&lab, 2);
    assert_eq!(
        (&less["health"], less["differences"].as_array().unwrap().len()),
        (&"differs".into(), 2),
        "{less}"
    );
    let (said, well) = text(&lab, 2);
    assert!(!well && said.contains("to do, `egret reconcile` does it:\n  ip rule add"), "{said}");
    lab.json(2, &["reconcile"]);
    assert_eq!(status(&lab, 2)["health"], "well");
}

#[test]
fn status_counts_what_is_held_and_names_the_hook_where_a_firewall_drops() {
    let lab = Lab::raise(nodes(2));
    let held = lab.client(2, "held");
    lab.is_held(&held);
    let drops = status(&lab, 2)["drops"].clone();
    let of = |rule: &str| {
        drops.as_array().unwrap().iter().any(|d| d["rule"] == rule && d["packets"].as_u64() > Some(0))
    };
    assert!(of("held: TCP is told") && of("held"), "{drops}");

    lab.gateway(1, "g");
    lab.leaves_as_predicted(&held);
    let lost = |direction: &str| {
        let firewall = status(&lab, 1)["firewall"].clone();
        let row =
            firewall.as_array().unwrap().iter().find(|row| row["direction"] == direction).unwrap().clone();
        assert!(row["before"].as_u64() > Some(0), "{firewall}");
        row["lost"].as_u64().unwrap()
    };
    assert_eq!((lost("from gateways"), lost("to gateways")), (0, 0));
    assert!(!text(&lab, 1).0.contains("FIREWALL"));
    lab.node(1)
        .sh("nft 'add table inet wall; add chain inet wall f { type filter hook forward priority 0; }; add rule inet wall f udp dport 1-65535 iifgroup 4097 drop'")
        .unwrap();
    held.udp(Outside::Near.address(Family::V4)).unwrap_err();
    assert!(lost("from gateways") > 0 && lost("to gateways") == 0);
    let said = text(&lab, 1).0;
    assert!(
        said.contains(
            "HOOK     PACKETS        WENT IN  CAME OUT  DROPPED BY A FIREWALL HERE\nforward  from gateways"
        ),
        "{said}"
    );
    lab.node(1).sh("nft delete table inet wall").unwrap();
    lab.leaves_as_predicted(&held);
}
