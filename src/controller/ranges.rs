//! Whether the ranges that count as inside the cluster hold the addresses that pods really have. Pure.
//!
//! In: the world. Out: by node, pods with an address in no range. Several CNIs ignore `spec.podCIDRs`; a pod whose address nobody
//! knows to be inside is reached through a gateway by the clients of a policy for the whole internet, and does not answer.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::conditions::Condition;
use super::world::World;
use crate::addr::Cidr;
use crate::egress::inside::inside;
use crate::egress::model::PodName;

/// Pods with an address that is in no range, by node.
pub type Outside = BTreeMap<String, Vec<(PodName, IpAddr)>>;

/// All of them.
pub fn outside(world: &World) -> Outside {
    let ranges = inside(&world.view);
    let mut found = Outside::new();
    for (name, pod) in world.view.pods.iter().filter(|(_, pod)| !pod.host_network) {
        let Some(node) = &pod.node else { continue };
        for ip in pod.ips.iter().filter(|ip| !holds(&ranges, **ip)) {
            found.entry(node.clone()).or_default().push((name.clone(), *ip));
        }
    }
    found
}

/// `ranges` are sorted and do not overlap.
fn holds(ranges: &[Cidr], ip: IpAddr) -> bool {
    let after = ranges.partition_point(|range| range.first() <= ip);
    after.checked_sub(1).is_some_and(|last| ranges[last].contains(ip))
}

/// What is said of a node about it.
pub fn condition(outside: &Outside, node: &str) -> Condition {
    of(outside.get(node).map(Vec::as_slice).unwrap_or_default())
}

/// What is said of the ranges of the cluster.
pub fn anywhere(outside: &Outside) -> Condition {
    let all: Vec<_> = outside.values().flatten().cloned().collect();
    of(&all)
}

fn of(outside: &[(PodName, IpAddr)]) -> Condition {
    let [(pod, ip), others @ ..] = outside else {
        let says = "every pod has its addresses in a range that counts as inside";
        return Condition::yes("AddressesInside", "InRanges", says);
    };
    let many = if others.is_empty() { String::new() } else { format!(" (and {} more)", others.len()) };
    let message = format!(
        "pod {pod}{many} has {ip}, which is in no range of the cluster: clients may be sent to a gateway for it. {KNOB}"
    );
    Condition::no("AddressesInside", "OutsideRanges", message)
}

const KNOB: &str = "Add the range that the primary CNI gives pods from to an EgressRange (`spec.cidrs`), or to `clusterCIDRs` of the \
                    agents' and the controller's configuration";
