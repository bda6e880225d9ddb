//! The nodes' own tunnel as a configuration names it.

use serde_json::json;

use crate::world::{Kind, for_every_pod, output};

/// Of two devices with one number the kernel refuses the second, so no gateway is given the number that the nodes have.
#[test]
fn general_rule_a_network_number_of_the_nodes_among_those_of_gateways_is_passed_over() {
    for_every_pod(|world| {
        let wired = || world.call("ADD").with("underlay", json!({"vni": 5000})).run().succeeds();
        wired();
        assert!(world.is_wired("10.1.2.3"));
        if world.kind != Kind::Unselected {
            assert!(output(&["ip", "-d", "link", "show", "egress.vxlan"]).contains(" id 5000 "));
        }
        if world.kind == Kind::Gateway {
            let tunnel = ["nsenter", "--net=/run/netns/a", "ip", "-d", "link", "show", "vxlan0"];
            assert!(output(&tunnel).contains(" id 5001 "), "{}", output(&tunnel));
        }
    });
}
