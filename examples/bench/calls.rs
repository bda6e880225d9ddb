//! Whole-process ADD + DEL beside the reference `sbr`: same network namespace, same prevResult, in turn.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use egret::addr::Family;
use egret::egress::model::PodName;
use egret::testbed::{
    Families, Masquerade, Pod, Primary, RUN_DIR, Topology, Trouble, World, node_address, pod_networks,
};
use serde_json::json;

use crate::rows::{Pairs, Rows, Series, Target};
use crate::turns::{As, Turns};
use crate::{Arguments, cluster};

/// Raises a world of two nodes: on the first a client stays, the second has nothing of ours between two calls.
pub(crate) fn measure(arguments: &Arguments, rows: &mut Rows) -> Result<(), Trouble> {
    let bench = Bench::raise(arguments)?;
    bench.binary(rows)?;
    let turns = &bench.turns;
    let bare = bench.pod(2, "bare")?;
    let unselected = known(cluster::pod(1, 1));
    let pairs = turns.pairs(&bare, &unselected, arguments.pairs)?;
    rows.ratio(
        "ADD + DEL, pod without egress, node without egress",
        &pairs,
        "ms",
        "sbr",
        Target::AtMost(0.3),
    );
    let gateway = known(cluster::gateway(cluster::GATEWAYS - 1));
    let pairs = bench.first_gateways(&gateway, arguments.pairs)?;
    rows.ratio("ADD + DEL, first gateway pod of a node", &pairs, "ms", "sbr", Target::AtMost(4.0));
    let peak = turns.peak(&bare, &gateway)?;
    rows.figure("peak memory, first gateway pod of a node", &peak, "MB", Target::AtMost(6.0));

    let (stays, first) = (bench.pod(1, "stays")?, known(cluster::pod(0, 0)));
    turns.ours("ADD", &stays, &first).time()?;
    let comes = bench.pod(1, "comes")?;
    // Most pods come to a directory at rest. What was written two seconds ago or less is looked at more closely (`store::looks`); the
    // first call after that takes its new look for a change.
    std::thread::sleep(Duration::from_millis(2_500));
    turns.ours("ADD", &comes, &unselected).time()?;
    turns.ours("DEL", &comes, &unselected).time()?;
    let pairs = turns.pairs(&comes, &unselected, arguments.pairs)?;
    rows.ratio("ADD + DEL, pod without egress, node with clients", &pairs, "ms", "sbr", Target::AtMost(0.3));
    // Of the namespace of the client that stays: bindings are per namespace.
    let client = known(cluster::pod(0, cluster::NAMESPACES - 1));
    let pairs = turns.pairs(&comes, &client, arguments.pairs)?;
    rows.ratio("ADD + DEL, client pod whose binding exists", &pairs, "ms", "sbr", Target::AtMost(0.6));
    let peak = turns.peak(&comes, &client)?;
    rows.figure("peak memory, client pod", &peak, "MB", Target::AtMost(6.0));
    turns.ours("DEL", &stays, &first).time().map(drop)
}

struct Bench {
    world: World,
    state: PathBuf,
    turns: Turns,
}

fn known(pod: PodName) -> As {
    As { uid: cluster::uid(&pod), pod }
}

impl Bench {
    fn raise(arguments: &Arguments) -> Result<Bench, Trouble> {
        // On a disk, because the fsyncs of a gateway's ADD are part of what it costs.
        let state = arguments.scratch.join("state");
        let _ = fs::remove_dir_all(&state);
        let own = [("node1", node_address(1, Family::V4)), ("node2", node_address(2, Family::V4))];
        cluster::write(&state, &own)?;
        // Younger files than 20 ms are read again at every call, whatever the cache says.
        std::thread::sleep(Duration::from_millis(50));
        let topology = Topology {
            nodes: 2,
            primary: Primary::Ptp,
            masquerade: Masquerade::IptablesNft,
            br_netfilter: false,
            // `sbr` 1.9.0 fails on a pod with both families ("Failed to add default route": file exists).
            families: Families::V4,
            ..Topology::default()
        };
        let world = World::raise(topology)?;
        let turns = Turns::on(&world, &arguments.egret, &arguments.scratch)?;
        Ok(Bench { world, state, turns })
    }

    /// What the binary is: its size, and the time of the shortest call there is.
    fn binary(&self, rows: &mut Rows) -> Result<(), Trouble> {
        let size = fs::metadata(&self.turns.egret).map_err(|e| Trouble::new(e.to_string()))?.len();
        rows.figure("size of the static binary", &Series(vec![size as f64 / 1e6]), "MB", Target::None);
        let pairs = self.turns.versions(45)?;
        rows.ratio("start-up (VERSION)", &pairs, "ms", "sbr", Target::None);
        Ok(())
    }

    /// A namespace that the primary plugin wired, with what each plugin is told about it.
    fn pod(&self, node: u8, name: &str) -> Result<Pod, Trouble> {
        let pod = self.world.add_pod(node, name).map_err(|e| Trouble::new(e.to_string()))?;
        let inside: Vec<String> = Family::BOTH.iter().map(|f| pod_networks(*f).to_string()).collect();
        let entry = json!({
            "type": "egret", "nodeName": format!("node{node}"), "stateDir": self.state, "runDir": RUN_DIR,
            "clusterCIDRs": inside,
        });
        self.turns.tell(&pod, entry)?;
        Ok(pod)
    }

    /// Each time on a node that has nothing of ours, with a pod that was never a gateway: what DEL leaves in its namespace
    /// goes with it.
    fn first_gateways(&self, who: &As, count: usize) -> Result<Pairs, Trouble> {
        let (mut pairs, turns) = (Pairs::default(), &self.turns);
        for round in 0..=count {
            let pod = self.pod(2, &format!("first-{round}"))?;
            std::thread::sleep(Duration::from_millis(50));
            let (add, del) = (turns.ours("ADD", &pod, who).time()?, turns.ours("DEL", &pod, who).time()?);
            println!("  first gateway: ADD {add:.2} ms, DEL {del:.2} ms");
            let theirs = turns.theirs("ADD", &pod, who).time()? + turns.theirs("DEL", &pod, who).time()?;
            if round > 0 {
                pairs.push(add + del, theirs);
            }
            let config = turns.told(&pod).display().to_string();
            self.world
                .node(2)
                .run(&turns.egret.display().to_string(), &["uninstall", "--config", &config])?;
            self.world.stop_sandbox(&pod).map_err(|e| Trouble::new(e.to_string()))?;
        }
        Ok(pairs)
    }
}
