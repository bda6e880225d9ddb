//! The background process: a world, and something in it to look at.

use std::path::PathBuf;

use egret::testbed::{Topology, Trouble, World};

use super::Up;

/// Raises the world, says so, and holds it.
pub(super) fn serve(up: &Up) -> Result<(), Trouble> {
    let egret = if up.bare { None } else { Some(egret_binary(up)?) };
    let (nodes, primary, masquerade) = (up.nodes, up.primary, up.masquerade);
    let world = World::raise(Topology { nodes, primary, masquerade, egret, ..Topology::default() })?;
    furnish(&world).map_err(|e| Trouble::new(e.to_string()))?;
    println!("ready");
    loop {
        nix::unistd::pause();
    }
}

fn egret_binary(up: &Up) -> Result<PathBuf, Trouble> {
    let beside = || std::env::current_exe().ok()?.parent()?.parent().map(|dir| dir.join("egret"));
    let path = up.egret.clone().or_else(beside).unwrap_or_default();
    let path = path.canonicalize().map_err(|e| {
        Trouble::new(format!(
            "no egret binary at {} ({e}): build it, name it with --egret, or take --bare",
            path.display()
        ))
    })?;
    match path.file_name() {
        Some(name) if name == "egret" => Ok(path),
        _ => Err(Trouble::new(format!(
            "{}: a plugin is found by its name, so the file must be called `egret`",
            path.display()
        ))),
    }
}

/// Something to look at: a plain pod; with Egret a gateway and two clients.
fn furnish(world: &World) -> Result<(), Box<dyn std::error::Error>> {
    let last = world.topology().nodes;
    world.namespace("demo", &[], &[])?;
    world.pod_object("demo/plain", &[], &[], 1)?;
    world.add_pod(1, "demo/plain")?;
    if world.topology().egret.is_none() {
        return Ok(());
    }
    for (name, cidr) in [("blue", "10.10.10.0/29"), ("blue6", "'fd00:10:10::8/125'")] {
        let spec = format!("{{cidr: {cidr}, gatewayNamespaces: all(), clientNamespaces: all()}}");
        let head = "apiVersion: egret.dev/v1alpha1, kind: EgressPool";
        world.object(&format!("{{{head}, metadata: {{name: {name}}}, spec: {spec}}}\n"))?;
    }
    let pools = [
        ("cni.projectcalico.org/ipv4pools", "[\"blue\"]"),
        ("cni.projectcalico.org/ipv6pools", "[\"blue6\"]"),
    ];
    world.pod_object("demo/gateway", &[("app", "gateway")], &pools, last)?;
    world.add_pod(last, "demo/gateway")?;
    let mut nodes = vec![1, last];
    nodes.dedup();
    for node in nodes {
        let name = format!("demo/client{node}");
        world.pod_object(&name, &[], &[("egress.projectcalico.org/selector", "app == 'gateway'")], node)?;
        world.add_pod(node, &name)?;
    }
    Ok(())
}
