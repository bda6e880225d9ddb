//! What worlds of several measurements have in common.
//!
//! In: how many nodes; names and prefixes. Out: a world with its servers outside, objects in its directory. Never: measures.

use egret::addr::Family;
use egret::testbed::{Masquerade, Outside, Primary, Topology, Trouble, World};

use crate::{Arguments, traffic};

/// What makes a pod a gateway of [`pools`].
pub(crate) const LEASES: [(&str, &str); 2] =
    [("cni.projectcalico.org/ipv4pools", "[\"red\"]"), ("cni.projectcalico.org/ipv6pools", "[\"red6\"]")];

/// Nodes with the plainest of primaries (`ptp`, no `br_netfilter`), and the servers outside.
pub(crate) fn raise(arguments: &Arguments, nodes: u8) -> Result<World, Trouble> {
    let topology = Topology {
        nodes,
        primary: Primary::Ptp,
        masquerade: Masquerade::IptablesNft,
        br_netfilter: false,
        egret: Some(arguments.egret.clone()),
        settle: false,
        ..Topology::default()
    };
    let world = World::raise(topology)?;
    let to = Outside::Near.address(Family::V4);
    traffic::serve(&world.outside(Outside::Near).netns()?, to).map_err(|e| Trouble::new(e.to_string()))?;
    Ok(world)
}

/// Pools `red` and `red6` for gateways and clients of all namespaces.
pub(crate) fn pools(world: &World) -> Result<(), Trouble> {
    pool(world, "red", "10.10.10.0/28")?;
    pool(world, "red6", "fd00:10:10::/124")
}

/// A pool for gateways and clients of all namespaces.
pub(crate) fn pool(world: &World, name: &str, cidr: &str) -> Result<(), Trouble> {
    world.object(&format!(
        "apiVersion: egret.dev/v1alpha1\nkind: EgressPool\nmetadata: {{name: {name}}}\n\
         spec: {{cidr: \"{cidr}\", gatewayNamespaces: all(), clientNamespaces: all()}}\n"
    ))?;
    Ok(())
}
