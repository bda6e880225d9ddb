//! The network list of a node, as its kubelet would have it.
//!
//! In: the topology and a node's number. Out: JSON for `NETCONFPATH`. Never: reads or writes anything.

use std::net::IpAddr;

use serde_json::{Value, json};

use super::topology::{Masquerade, NETWORK, Primary, Topology, node_address, pod_network, pod_networks};
use crate::addr::Family;

/// The list that wires pods on a node: the primary, Egret where the topology has one, portmap where asked.
pub(super) fn conflist(topology: &Topology, node: u8) -> Value {
    let mut plugins = vec![primary(topology, node)];
    let egret = topology.egret.as_ref().map(|_| egret(topology, node));
    let portmap = json!({"type": "portmap", "capabilities": {"portMappings": true}, "snat": true});
    match topology.primary {
        Primary::Bridge | Primary::Ptp => plugins.extend(egret),
        Primary::BridgePortmap => {
            plugins.push(portmap);
            plugins.extend(egret);
        }
        Primary::BridgePortmapLast => {
            plugins.extend(egret);
            plugins.push(portmap);
        }
    }
    json!({"cniVersion": topology.cni_version, "name": NETWORK, "plugins": plugins})
}

fn primary(topology: &Topology, node: u8) -> Value {
    let families = topology.families.list();
    let ranges: Vec<Value> =
        families.iter().map(|f| json!([{"subnet": pod_network(node, *f).to_string()}])).collect();
    let routes: Vec<Value> = families.iter().map(|f| json!({"dst": f.everything().to_string()})).collect();
    let mut plugin = json!({
        "type": "bridge",
        "bridge": "cni0",
        "isGateway": true,
        "isDefaultGateway": true,
        "hairpinMode": true,
        "mtu": topology.pod_mtu,
        "ipMasq": topology.masquerade == Masquerade::IpMasq,
        "ipam": {"type": "host-local", "ranges": ranges},
    });
    if topology.primary == Primary::Ptp {
        plugin = json!({
            "type": "ptp",
            "mtu": topology.pod_mtu,
            "ipMasq": topology.masquerade == Masquerade::IpMasq,
            "ipam": {"type": "host-local", "ranges": ranges, "routes": routes},
        });
    }
    plugin
}

/// Egret's own entry: what a single machine would write, and the node's name because one machine plays many.
fn egret(topology: &Topology, node: u8) -> Value {
    let inside: Vec<String> = Family::BOTH.iter().map(|f| pod_networks(*f).to_string()).collect();
    let underlay: IpAddr = node_address(node, topology.underlay);
    let mut entry = json!({
        "type": "egret",
        "capabilities": {"io.kubernetes.cri.pod-annotations": true},
        "nodeName": format!("node{node}"),
        "stateDir": super::private::STATE_DIR,
        "runDir": super::private::RUN_DIR,
        "clusterCIDRs": inside,
        "underlay": {"address": underlay},
    });
    if let Some(object) = entry.as_object_mut() {
        object.extend(topology.egret_keys.clone());
    }
    entry
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(primary: Primary, egret: bool) -> Vec<String> {
        let topology = Topology { primary, egret: egret.then(|| "/bin/egret".into()), ..Topology::default() };
        let list = conflist(&topology, 1);
        list["plugins"].as_array().unwrap().iter().map(|p| p["type"].as_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn egret_stands_where_the_topology_puts_it() {
        assert_eq!(order(Primary::Bridge, false), ["bridge"]);
        assert_eq!(order(Primary::Ptp, true), ["ptp", "egret"]);
        assert_eq!(order(Primary::BridgePortmap, true), ["bridge", "portmap", "egret"]);
        assert_eq!(order(Primary::BridgePortmapLast, true), ["bridge", "egret", "portmap"]);
    }

    #[test]
    fn keys_of_the_story_lie_over_the_entry() {
        let mut topology = Topology { egret: Some("/bin/egret".into()), ..Topology::default() };
        topology.egret_keys.insert("lockTimeout".into(), 100.into());
        let list = conflist(&topology, 2);
        assert_eq!(list["plugins"][1]["lockTimeout"], 100);
        assert_eq!(list["plugins"][1]["nodeName"], "node2");
    }
}
