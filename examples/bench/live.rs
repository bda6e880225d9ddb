//! The agent: from a written file to the address that the outside sees, on a node with 250 pods in a cluster of 10,000; what it
//! takes of the machine meanwhile and when nothing happens.
//!
//! Real: two nodes, two gateways, one client whose datagrams are looked at. The other 249 pods of the node are attachments
//! alone, half of them clients; the other 9,750 are files. Every change is a file that is replaced, and ends with the first datagram
//! that the outside sees as it shall be, so it contains reading, planning, the kernel's steps and a round trip.

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use egret::addr::Family;
use egret::testbed::{Masquerade, Primary, STATE_DIR, Topology, Trouble, World};

use crate::Arguments;
use crate::agent::Agent;
use crate::neighbours::Neighbours;
use crate::paths::selects;
use crate::repairs;
use crate::rows::{Rows, Series, Target};
use crate::watching::{By, Kind, Watching};
use crate::world::{LEASES, pools};

const PODS: usize = 10_000;
const ON_NODE: usize = 250;
const BINDINGS: usize = 10;

/// Raises the world, starts both agents, measures.
pub(crate) fn measure(arguments: &Arguments, rows: &mut Rows) -> Result<(), Trouble> {
    let topology = Topology {
        nodes: 2,
        primary: Primary::Ptp,
        masquerade: Masquerade::IptablesNft,
        egret: Some(arguments.egret.clone()),
        settle: false,
        ..Topology::default()
    };
    let world = World::raise(topology)?;
    objects(&world)?;
    let add = |node, pod: &str| world.add_pod(node, pod).map_err(|e| Trouble::new(e.to_string()));
    let _gateways = [add(1, "gate/near")?, add(2, "gate/far")?];
    let pod = add(1, "shop/watched")?;
    let neighbours = Neighbours::of(&pod)?;
    (1..ON_NODE).try_for_each(|n| neighbours.add(n, None))?;
    let agents = [Agent::start(&world, 1, &[])?, Agent::start(&world, 2, &[])?];
    let watching = Watching { pod, near: lease("gate/near")?, far: lease("gate/far")? };
    changes(&world, &watching, arguments.pairs * 2, rows)?;
    resources(&agents[0], rows)?;
    repairs::measure(&agents[0], &world, arguments.pairs, rows)?;
    agents.iter().try_for_each(Agent::is_well)
}

fn changes(world: &World, watching: &Watching, rounds: usize, rows: &mut Rows) -> Result<(), Trouble> {
    let write = |words: &[(&str, &str)]| world.pod_object("shop/watched", &[], words, 1);
    let labelled = |labels: &[(&str, &str)]| world.pod_object("shop/watched", labels, &[], 1);
    let gateway = |place: &str| world.pod_object("gate/near", &[("place", place)], &LEASES, 1);
    let rule = |place: &str| world.object(&policy(place)).map(drop);
    let policy = [("egress.projectcalico.org/egressGatewayPolicy", "way")];
    rule("near")?;
    world.object(SELECTING)?;
    write(&[])?;
    watching.until(By::Nobody)?;
    let kinds: [Kind<'_>; 10] = [
        ("a pod is annotated", By::Near, &|| write(&selects("place == 'near'"))),
        ("its annotation names another gateway", By::Far, &|| write(&selects("place == 'far'"))),
        ("its annotation names a policy", By::Near, &|| write(&policy)),
        ("the policy's rule changes", By::Far, &|| rule("far")),
        ("a range of the cluster comes", By::Nobody, &|| world.object(INSIDE).map(drop)),
        ("a range of the cluster goes", By::Far, &|| world.remove_object("IPPool", None, "inside")),
        ("a gateway's label changes", By::Near, &|| gateway("far")),
        ("the annotation is taken off", By::Nobody, &|| write(&[])),
        ("a pod's label changes", By::Near, &|| labelled(&[("lane", "own")])),
        ("its label is taken off", By::Nobody, &|| labelled(&[])),
    ];
    let back = || gateway("near").and_then(|()| rule("near"));
    let changes = watching.changes(&kinds, &back, rounds)?;
    for (what, series) in &changes.kinds {
        rows.figure(&format!("file written → seen outside, {what}"), series, "ms", Target::None);
    }
    let all = changes.all();
    rows.figure("file written → seen outside, all of these", &all, "ms", Target::None);
    rows.share("… 99 of 100 within", &all, 0.99, "ms", Target::AtMost(100.0));
    Ok(())
}

/// A range of the cluster that contains the far end, so that everything to it is direct.
const INSIDE: &str = "apiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata: {name: inside}\nspec: {cidr: 198.51.100.0/24}\n";

/// A policy that selects pods by a label.
const SELECTING: &str = "apiVersion: egret.dev/v1alpha1\nkind: EgressGatewayPolicy\nmetadata: {name: lane}\nspec:\n  selectors:\n  \
     - {namespaceSelector: \"projectcalico.org/name == 'shop'\", selector: \"lane == 'own'\"}\n  rules:\n  - gateway: {selector: \
     \"has(place) && place != 'none'\", namespaceSelector: \"projectcalico.org/name == 'gate'\"}\n";

fn lease(gateway: &str) -> Result<IpAddr, Trouble> {
    let dir = egret::store::Dir::at(Path::new(STATE_DIR)).map_err(|e| Trouble::new(e.to_string()))?;
    let (all, _) = egret::store::endpoints::list(&dir).map_err(|e| Trouble::new(e.to_string()))?;
    let own = all.iter().find(|e| e.pod.to_string() == gateway);
    let lease = own.and_then(|e| e.address(Family::V4));
    lease.ok_or_else(|| Trouble::new(format!("{gateway} has no lease")))
}

fn policy(place: &str) -> String {
    format!(
        "apiVersion: egret.dev/v1alpha1\nkind: EgressGatewayPolicy\nmetadata: {{name: way}}\nspec:\n  rules:\n  - gateway: \
         {{selector: \"place == '{place}'\", namespaceSelector: \"projectcalico.org/name == 'gate'\"}}\n"
    )
}

/// Two pools, namespaces, two gateways, and a file for each of ten thousand pods.
fn objects(world: &World) -> Result<(), Trouble> {
    pools(world)?;
    for namespace in ["gate", "shop"] {
        world.namespace(namespace, &[], &[])?;
    }
    world.pod_object("gate/near", &[("place", "near")], &LEASES, 1)?;
    world.pod_object("gate/far", &[("place", "far")], &LEASES, 2)?;
    world.pod_object("shop/watched", &[], &[], 1)?;
    for n in 0..BINDINGS {
        world.object(
            &policy("far")
                .replace("{name: way}", &format!("{{name: way-{n}}}"))
                .replace("rules:\n", &format!("rules:\n  - destination: {{cidr: 203.0.113.{n}/32}}\n")),
        )?;
    }
    for n in 1..PODS {
        let way = format!("way-{}", n % BINDINGS);
        let words = [("egress.projectcalico.org/egressGatewayPolicy", way.as_str())];
        let words: &[_] = if n < ON_NODE / 2 { &words } else { &[] };
        let node = if n < ON_NODE { 1 } else { 2 };
        let labels = [("app", "shop"), ("pod-template-hash", "7d4b9c6f5")];
        world.pod_object(&format!("shop/other-{n}"), &labels, words, node)?;
    }
    Ok(())
}

/// Resident memory, and the share of one processor that it takes when nothing happens.
fn resources(agent: &Agent, rows: &mut Rows) -> Result<(), Trouble> {
    let what = format!("memory of the agent, {PODS} pods in the directory");
    let (highest, now) = (Series(vec![agent.memory("VmHWM")?]), Series(vec![agent.memory("VmRSS")?]));
    rows.figure(&format!("{what}, at its highest"), &highest, "MB", Target::AtMost(20.0));
    rows.figure(&format!("{what}, resident"), &now, "MB", Target::None);
    let share = agent.processor(Duration::from_secs(20), || Ok(()))?;
    rows.figure("processor of the agent when nothing happens", &Series(vec![share]), "%", Target::None);
    Ok(())
}
