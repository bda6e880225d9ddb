//! Who takes part: pools, gateways, clients of one, of several and of none, and a pod that nothing selects.
//!
//! In: a world. Out: objects written, pods wired.

use egret::testbed::{Pod, World};

use super::Stopped;

/// Name, range of leases in the fabric's second subnet. The lowest address of an IPv6 subnet is its routers' anycast address
/// (RFC 4291 §2.6.1), so pools begin higher.
const POOLS: [(&str, &str); 4] = [
    ("red", "10.10.10.0/31"),
    ("red6", "fd00:10:10::10/127"),
    ("blue", "10.10.10.2/31"),
    ("blue6", "fd00:10:10::12/127"),
];

/// The gateway that goes.
pub(super) const GOES: &str = "gw/red-2";

/// Gateways: name, node, colour.
const GATEWAYS: [(&str, u8, &str); 3] = [("gw/red-1", 1, "red"), (GOES, 2, "red"), ("gw/blue-1", 3, "blue")];

/// Others: name, node, annotations of its own.
const OTHERS: [(&str, u8, Option<&str>); 6] = [
    // Selected by their namespace; on a red gateway's node, on the other's, on none's.
    ("shop/cart", 1, None),
    ("shop/pay", 2, None),
    ("shop/mail", 3, None),
    ("bank/ledger", 1, Some("egress-code == 'blue'")),
    ("bank/lost", 2, Some("egress-code == 'green'")),
    ("plain/other", 3, None),
];

/// Writes the objects and wires the pods, gateways first.
pub(super) fn furnish(world: &World) -> Result<Vec<Pod>, Stopped> {
    for (name, cidr) in POOLS {
        // No cooling, so that the books are empty as soon as the last pod is gone.
        world.object(&format!(
            "apiVersion: egret.dev/v1alpha1\nkind: EgressPool\nmetadata: {{name: {name}}}\n\
             spec: {{cidr: '{cidr}', gatewayNamespaces: \"projectcalico.org/name == 'gw'\", clientNamespaces: all(), cooldownSeconds: 0}}\n"
        ))?;
    }
    let in_gw = ("egress.projectcalico.org/namespaceSelector", "projectcalico.org/name == 'gw'");
    world.namespace("gw", &[], &[])?;
    world.namespace("shop", &[], &[("egress.projectcalico.org/selector", "egress-code == 'red'"), in_gw])?;
    let mut pods = Vec::new();
    for (name, node, colour) in GATEWAYS {
        let pools = [
            ("cni.projectcalico.org/ipv4pools", format!("[\"{colour}\"]")),
            ("cni.projectcalico.org/ipv6pools", format!("[\"{colour}6\"]")),
        ];
        let pools = pools.each_ref().map(|(key, value)| (*key, value.as_str()));
        world.pod_object(name, &[("egress-code", colour)], &pools, node)?;
        pods.push(world.add_pod(node, name)?);
    }
    for (name, node, selector) in OTHERS {
        let own = selector.map(|text| [("egress.projectcalico.org/selector", text), in_gw]);
        world.pod_object(name, &[], own.as_ref().map_or(&[], |pair| pair.as_slice()), node)?;
        pods.push(world.add_pod(node, name)?);
    }
    Ok(pods)
}

/// Takes a pod out of the cast by its name.
pub(super) fn take(pods: &mut Vec<Pod>, name: &str) -> Result<Pod, Stopped> {
    let at = pods.iter().position(|pod| pod.name.to_string() == name);
    Ok(pods.remove(at.ok_or_else(|| format!("there is no pod {name}"))?))
}
