//! An API server full of objects, and three nodes of a world that reach it.

use std::fmt::Display;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use egret::kube::{Access, Client};
use egret::testbed::{
    Cluster, Families, Masquerade, Place, Pod, Primary, Topology, Trouble, World, repository,
};
use serde_json::{Value, json};

use super::objects;
use crate::Arguments;
use crate::agent::Agent;

/// Where the cluster's files are: memory, and a place that a world does not hide.
const MEMORY: &str = "/dev/shm/egret-bench";
/// What the nodes' and the bench's links to the API server are called.
pub(super) const LINK: &str = "api";
/// Our own number on that link; the nodes have theirs.
const OURS: u8 = 100;

pub(super) struct Ground {
    pub(super) client: Arc<Client>,
    pub(super) world: World,
    pub(super) egret: PathBuf,
    pub(super) scratch: PathBuf,
    server: Cluster,
}

impl Ground {
    pub(super) fn raise(arguments: &Arguments) -> Result<Ground, Trouble> {
        let server = Cluster::raise_in(Path::new(MEMORY), "bench", &["--nodes", "0"])?;
        server.define(&arguments.egret)?;
        let role = repository().join("deploy/rbac.yaml");
        server.kubectl(&["apply", "-f", "-"], &fs::read_to_string(role).map_err(trouble)?)?;
        let grant = ["create", "clusterrolebinding", "agent", "--clusterrole=egret-agent", "--user=agent"];
        server.kubectl(&grant, "")?;
        let role = "--role=egret-agent-sign-of-life";
        server
            .kubectl(&["create", "rolebinding", "agent", "-n", "egret-system", role, "--user=agent"], "")?;
        let world = World::raise(Topology {
            nodes: 3,
            primary: Primary::Ptp,
            masquerade: Masquerade::IptablesNft,
            br_netfilter: false,
            // `sbr` 1.9.0 fails on a pod with both families.
            families: Families::V4,
            egret: Some(arguments.egret.clone()),
            settle: false,
            ..Topology::default()
        })?;
        let access = Access::from_file(&server.kubeconfig("admin"), None).map_err(trouble)?;
        let client = Arc::new(Client::new(access).map_err(trouble)?);
        let (egret, scratch) = (arguments.egret.clone(), arguments.scratch.clone());
        let ground = Ground { client, world, egret, scratch, server };
        ground.connect(None, OURS)?;
        for node in ground.world.topology().node_numbers() {
            ground.connect(Some(&ground.world.node(node)), node)?;
            ground.list(node, false)?;
        }
        objects::write(&ground.client)?;
        Ok(ground)
    }

    /// A link from a node, or from here, to the bridge where the API server answers. Without IPv6, whose chatter nobody asked for.
    fn connect(&self, place: Option<&Place>, number: u8) -> Result<(), Trouble> {
        let (process, there) = (self.server.first_process()?, format!("{LINK}-{number}"));
        let here = format!(
            "ip link add {LINK} type veth peer name {there} netns {process}; \
             echo 1 > /proc/sys/net/ipv6/conf/{LINK}/disable_ipv6; \
             ip address add 172.31.0.{number}/24 dev {LINK}; ip link set {LINK} up"
        );
        match place {
            Some(place) => drop(place.sh(&here)?),
            None => shell(&here)?,
        }
        let plug = format!(
            "echo 1 > /proc/sys/net/ipv6/conf/{there}/disable_ipv6; ip link set {there} master underlay up"
        );
        self.server.network()?.run(|| shell(&plug)).map_err(trouble)?
    }

    /// Our entry in a node's network list: the thin plugin's, with a state directory that is this node's alone.
    pub(super) fn entry(&self, node: u8) -> Result<Value, Trouble> {
        let mut entry: Value = read(&self.world.conflist_path(node).with_extension("entry"))?;
        entry["mode"] = "cluster".into();
        entry["stateDir"] = json!(self.state(node));
        Ok(entry)
    }

    /// Writes a node's network list, with our entry or without.
    pub(super) fn list(&self, node: u8, chained: bool) -> Result<(), Trouble> {
        let path = self.world.conflist_path(node);
        let mut list: Value = read(&path)?;
        if let Some(plugins) = list["plugins"].as_array_mut() {
            if let Some(at) = plugins.iter().position(|plugin| plugin["type"] == "egret") {
                write(&path.with_extension("entry"), &plugins.remove(at))?;
            }
            if chained {
                plugins.push(self.entry(node)?);
            }
        }
        write(&path, &list)
    }

    /// Where the agent of a node keeps its copy of the cluster: on a disk.
    pub(super) fn state(&self, node: u8) -> PathBuf {
        self.scratch.join(format!("node{node}"))
    }

    /// Starts the agent of a node.
    pub(super) fn agent(&self, node: u8) -> Result<Agent, Trouble> {
        self.list(node, true)?;
        let kubeconfig = self.server.kubeconfig("agent").display().to_string();
        Agent::spawn(&self.world, node, &["--kubeconfig", &kubeconfig])
    }

    /// A namespace that the primary plugin wires, as the pod that the API server knows by this UID.
    pub(super) fn pod(&self, node: u8, name: &str, uid: &str) -> Result<Pod, Trouble> {
        let mut pod = self.world.sandbox(node, name)?;
        pod.uid = uid.to_owned();
        self.world.wire(&mut pod).map_err(trouble)?;
        Ok(pod)
    }

    pub(super) fn get(&self, path: &str) -> Result<Value, Trouble> {
        self.client.get(path).map_err(trouble)
    }
}

pub(super) fn trouble(what: impl Display) -> Trouble {
    Trouble::new(what.to_string())
}

fn shell(script: &str) -> Result<(), Trouble> {
    let output = Command::new("sh").args(["-ec", script]).output().map_err(trouble)?;
    if output.status.success() {
        return Ok(());
    }
    Err(Trouble::new(format!("`{script}` failed: {}", String::from_utf8_lossy(&output.stderr).trim())))
}

fn read(path: &Path) -> Result<Value, Trouble> {
    let no = |e: &dyn Display| Trouble::new(format!("{}: {e}", path.display()));
    serde_json::from_slice(&fs::read(path).map_err(|e| no(&e))?).map_err(|e| no(&e))
}

fn write(path: &Path, value: &Value) -> Result<(), Trouble> {
    fs::write(path, value.to_string()).map_err(|e| Trouble::new(format!("{}: {e}", path.display())))
}
