//! Nodes with an agent each, two pools, and the words that stories are told in.
//!
//! In: how many nodes. Out: gateways, clients, agents that end with their lab. Nobody calls `egret reconcile` here: what a node
//! learns of others, it learns from its agent.

use std::fs::{self, File};
use std::net::IpAddr;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use egret::addr::Family;
use egret::agent::state::{AgentState, FILE, Health};
use egret::node::memory::Memory;
use egret::store::{Dir, endpoints};
use egret::testbed::{Outside, Pod, RUN_DIR, STATE_DIR, Topology, World, faults};

const EGRET: &str = env!("CARGO_BIN_EXE_egret");
/// How long a story waits for what the agent does within 100 ms on a machine with nothing else to do.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// What makes a pod a client of the gateways in namespace `gw`.
pub(crate) const SELECTS_RED: [(&str, &str); 2] = [
    ("egress.projectcalico.org/selector", "egress-code == 'red'"),
    ("egress.projectcalico.org/namespaceSelector", "projectcalico.org/name == 'gw'"),
];
/// What makes a pod ask the policy `way`.
pub(crate) const POLICY: (&str, &str) = ("egress.projectcalico.org/egressGatewayPolicy", "way");
pub(crate) const WANTS_LEASES: [(&str, &str); 2] =
    [("cni.projectcalico.org/ipv4pools", "[\"red\"]"), ("cni.projectcalico.org/ipv6pools", "[\"red6\"]")];

/// One world at a time: stories here are about milliseconds.
static TURN: Mutex<()> = Mutex::new(());

pub(crate) struct Lab {
    world: World,
    _turn: MutexGuard<'static, ()>,
}

impl Deref for Lab {
    type Target = World;
    fn deref(&self) -> &World {
        &self.world
    }
}

impl Lab {
    /// Nodes without agents yet.
    pub(crate) fn raise(nodes: u8) -> Lab {
        Lab::with(Topology { nodes, ..Topology::default() })
    }

    pub(crate) fn with(topology: Topology) -> Lab {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let world = World::raise(Topology { egret: Some(EGRET.into()), settle: false, ..topology }).unwrap();
        let lab = Lab { world, _turn: turn };
        lab.pools("all()");
        for namespace in ["gw", "shop"] {
            lab.namespace(namespace, &[], &[]).unwrap();
        }
        lab
    }

    /// Writes both pools. `clients`: whose pods may use their gateways.
    pub(crate) fn pools(&self, clients: &str) {
        for (name, cidr) in [("red", "10.10.10.0/28"), ("red6", "fd00:10:10::10/124")] {
            self.object(&format!(
                "apiVersion: egret.dev/v1alpha1\nkind: EgressPool\nmetadata: {{name: {name}}}\n\
                 spec: {{cidr: '{cidr}', gatewayNamespaces: \"projectcalico.org/name == 'gw'\", clientNamespaces: \"{clients}\"}}\n"
            ))
            .unwrap();
        }
    }

    /// An agent on each node.
    pub(crate) fn agents(&self) -> Vec<Agent> {
        let nodes: Vec<u8> = self.topology().node_numbers().collect();
        nodes.into_iter().map(|node| self.agent(node)).collect()
    }

    /// Starts an agent and waits until it has looked at everything once.
    pub(crate) fn agent(&self, node: u8) -> Agent {
        self.agent_with(node, &[])
    }

    /// The same in another environment.
    pub(crate) fn agent_with(&self, node: u8, environment: &[(&str, &str)]) -> Agent {
        let agent = self.start_with(node, environment);
        eventually("the agent is well", || {
            agent.state().is_some_and(|s| s.pid == agent.pid() && s.health == Health::Well)
        });
        agent
    }

    /// Starts an agent.
    pub(crate) fn start(&self, node: u8) -> Agent {
        self.start_with(node, &[])
    }

    /// The same in another environment.
    pub(crate) fn start_with(&self, node: u8, environment: &[(&str, &str)]) -> Agent {
        static LOGS: AtomicU32 = AtomicU32::new(0);
        let number = LOGS.fetch_add(1, Ordering::Relaxed);
        let log = std::env::temp_dir().join(format!("egret-agent-{}-{number}.log", std::process::id()));
        let mut command = self.command(node);
        let child =
            command.envs(environment.iter().copied()).stderr(File::create(&log).unwrap()).spawn().unwrap();
        Agent { child, node, log }
    }

    /// In the node's network, and with the world's mounts: a namespace that is made later must be seen.
    pub(crate) fn command(&self, node: u8) -> Command {
        let mut command = self.node(node).daemon(EGRET).unwrap();
        command.arg("agent").arg("--config").arg(self.conflist_path(node)).arg("--state").arg(STATE_DIR);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command
    }

    /// A gateway pod `gw/NAME` with a lease of each family.
    pub(crate) fn gateway(&self, node: u8, name: &str) -> Pod {
        self.gateway_of(node, name, "red")
    }

    /// The same with another code than `red`.
    pub(crate) fn gateway_of(&self, node: u8, name: &str, code: &str) -> Pod {
        let name = format!("gw/{name}");
        self.pod_object(&name, &[("egress-code", code)], &WANTS_LEASES, node).unwrap();
        self.add_pod(node, &name).unwrap()
    }

    /// A pod that nothing selects.
    pub(crate) fn plain(&self, node: u8, name: &str) -> Pod {
        let name = format!("shop/{name}");
        self.pod_object(&name, &[], &[], node).unwrap();
        self.add_pod(node, &name).unwrap()
    }

    /// A client.
    pub(crate) fn client(&self, node: u8, name: &str) -> Pod {
        let name = format!("shop/{name}");
        self.pod_object(&name, &[], &SELECTS_RED, node).unwrap();
        self.add_pod(node, &name).unwrap()
    }

    /// Annotates a running pod, or takes the annotations off.
    pub(crate) fn select(&self, pod: &Pod, selected: bool) {
        let annotations: &[_] = if selected { &SELECTS_RED } else { &[] };
        self.pod_object(&pod.name.to_string(), &[], annotations, pod.node).unwrap();
    }

    /// The egress address of a gateway.
    pub(crate) fn lease(&self, gateway: &Pod, family: Family) -> IpAddr {
        let (all, _) = endpoints::list(&Dir::at(Path::new(STATE_DIR)).unwrap()).unwrap();
        let own = all.iter().find(|e| e.pod == gateway.name).expect("the gateway has an endpoint");
        own.address(family).unwrap()
    }

    /// What `egret reconcile --dry-run` would still do.
    pub(crate) fn differs(&self, node: u8) -> String {
        let list = self.conflist_path(node).display().to_string();
        let output = self.egret(node, &["reconcile", "--dry-run", "--config", &list]).unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        said.lines().filter(|line| line.trim_start().starts_with('~')).collect::<Vec<_>>().join("\n")
    }
}

/// The outside, in each family.
pub(crate) fn outside() -> [IpAddr; 2] {
    Family::BOTH.map(|family| Outside::Near.address(family))
}

/// An agent of a node. Ends with its value.
pub(crate) struct Agent {
    child: Child,
    node: u8,
    log: PathBuf,
}

impl Agent {
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The node's own directory.
    pub(crate) fn directory(&self) -> PathBuf {
        memory(self.node).dir().to_owned()
    }

    pub(crate) fn state(&self) -> Option<AgentState> {
        let said = serde_json::from_slice(&fs::read(self.directory().join(FILE)).ok()?).ok()?;
        assert_eq!(faults(&said), Vec::<String>::new());
        serde_json::from_value(said).ok()
    }

    pub(crate) fn reasons(&self) -> Vec<String> {
        self.state().map(|s| s.problems.into_iter().map(|p| p.reason).collect()).unwrap_or_default()
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    pub(crate) fn signal(&self, signal: nix::sys::signal::Signal) {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.child.id() as i32), signal).unwrap();
    }

    /// Waits for its end; whether it ended well.
    pub(crate) fn end(&mut self) -> bool {
        self.child.wait().unwrap().success()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- agent of node {}\n{}", self.node, self.log());
            eprintln!("{:#?}", self.state());
        }
        let _ = fs::remove_file(&self.log);
    }
}

pub(crate) fn memory(node: u8) -> Memory {
    Memory::new(Path::new(RUN_DIR), &format!("node{node}"))
}

/// Waits until something is so.
#[track_caller]
pub(crate) fn eventually(what: &str, so: impl FnMut() -> bool) -> Duration {
    let began = Instant::now();
    assert!(within(PATIENCE, so), "not within {PATIENCE:?}: {what}");
    began.elapsed()
}

pub(crate) fn within(patience: Duration, so: impl FnMut() -> bool) -> bool {
    egret::testbed::within(patience, Duration::from_millis(5), so).is_some()
}

/// Whether every family's new flows of a pod come from this gateway.
pub(crate) fn leaves_by(lab: &Lab, pod: &Pod, gateway: &Pod) -> bool {
    let mut pod = pod.clone();
    pod.patience = Duration::from_millis(300);
    outside().iter().all(|to| {
        let lease = lab.lease(gateway, Family::of(*to));
        pod.udp(*to).is_ok_and(|ip| ip == lease) && pod.tcp(*to).is_ok_and(|ip| ip == lease)
    })
}

/// How many records of attachments lie in a node's own directory, on the network of all pods here, and drafts of them: all but the draft
/// that is nobody's yet.
pub(crate) fn records(node: &Path) -> usize {
    let entries = fs::read_dir(node.join("attachments/pods")).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_name() != ".spare").count()
}
