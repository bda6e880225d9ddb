//! What the nodes must look like whenever anybody looks. It knows nothing of the product's planner: what a pod's packets must
//! show outside follows from the story alone.

use std::collections::BTreeMap;
use std::net::IpAddr;

use egret::addr::Family;
use egret::testbed::{Outside, Pod, node_address};

use super::{Life, NODES};
use crate::books::{assert_in_order, reconcile_command, said};
use crate::lab::{Lab, listing};

impl Life {
    /// A pod's outside sources in a family: `None` where nothing may leave.
    fn expected(
        &self,
        pod: &Pod,
        leases: &BTreeMap<String, Vec<IpAddr>>,
        family: Family,
    ) -> Option<Vec<IpAddr>> {
        let (name, namespace) = (pod.name.to_string(), pod.name.namespace.as_str());
        let selected = self.annotated.contains(&name) || (namespace == "shop" && self.selected);
        if !selected {
            return Some(vec![node_address(pod.node, family)]);
        }
        let serves = self.serves_all || namespace == "shop";
        let usable = leases.iter().filter(|(name, _)| serves && !self.blue.contains(*name));
        let sources: Vec<IpAddr> =
            usable.flat_map(|(_, ips)| ips).copied().filter(|ip| Family::of(*ip) == family).collect();
        (!sources.is_empty()).then_some(sources)
    }

    /// The judgement after every step.
    pub(super) fn judge(&mut self) {
        let story = self.story.join("\n  ");
        // The second call sees what the other node's first has changed; the third has nothing left to do.
        for round in 0..3 {
            for node in 1..=NODES {
                if round < 2 {
                    let output = reconcile_command(&self.lab, node).output().unwrap();
                    assert!(output.status.success(), "{story}: {}", said(&output));
                    continue;
                }
                let report = self.lab.json(node, &["reconcile"]);
                for item in report["items"].as_array().unwrap() {
                    assert_eq!(
                        item["done"],
                        serde_json::json!([]),
                        "{story}\nnode{node} was not yet as planned"
                    );
                }
            }
        }
        assert_in_order(&self.lab, &self.live.iter().collect::<Vec<_>>(), &story);
        let gateways = self.live.iter().filter(|pod| pod.name.namespace == "gw");
        let leases: BTreeMap<String, Vec<IpAddr>> =
            gateways.map(|pod| (pod.name.to_string(), self.lab.leases(pod))).collect();
        for pod in &self.live {
            for family in Family::BOTH {
                let saw = pod.udp(Outside::Near.address(family));
                match (self.expected(pod, &leases, family), &saw) {
                    (None, Err(_)) => self.seen[2] += 1,
                    (Some(sources), Ok(ip)) if sources.contains(ip) => {
                        let leased = leases.values().flatten().any(|lease| lease == ip);
                        self.seen[usize::from(leased)] += 1;
                    }
                    (expected, _) => panic!("{story}\n{} {family}: {saw:?}, not {expected:?}", pod.name),
                }
            }
        }
    }
}

/// The nodes' kernels without pods. A namespace ends asynchronously, its veths a little later, and the bridge notices later still; a
/// bridge without ports keeps the address of whoever was the last.
pub(super) fn bare(lab: &Lab) -> Vec<String> {
    let begun = std::time::Instant::now();
    let settled = |links: &str| !links.contains("veth") && links.contains("NO-CARRIER");
    while !lab.nodes().all(|node| settled(&node.sh("ip -br link | grep 'cni0\\|veth'").unwrap())) {
        assert!(begun.elapsed().as_secs() < 120, "pods' devices are still there");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let bare = |node: egret::testbed::Place| {
        let mac = node.sh("cat /sys/class/net/cni0/address").unwrap();
        listing(&node).replace(mac.trim(), "BRIDGE")
    };
    lab.nodes().map(bare).collect()
}
