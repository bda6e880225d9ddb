//! A node of a world beside the API server: real plugins in its network list, an agent that follows the server through a proxy.
//!
//! In: the proxy. Out: pods that cnitool wires. Its network reaches nothing of the cluster but the bridge where the server is.

use std::fs::{self, File};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use egret::addr::Family;
use egret::agent::state::{AgentState, FILE, Health};
use egret::kernel::netns::Netns;
use egret::node::memory::Memory;
use egret::problem::Problem;
use egret::store::{Dir, endpoints};
use egret::testbed::{CnitoolError, Families, Pod, Primary, RUN_DIR, Topology, World, within};
use serde_json::{Value, json};

use crate::proxy::Proxy;
use crate::server::server;

const EGRET: &str = env!("CARGO_BIN_EXE_egret");
/// The node; a world's first is called so.
pub(crate) const NODE: &str = "node1";
/// Its address on the bridge of the API server.
const ADDRESS: &str = "172.31.0.10/24";
/// The link between them, at either end.
const LINK: [&str; 2] = ["api", "api-node"];

/// The bridge of the API server, as a world finds it, which hides everything else of the machine.
pub(crate) struct Bridge {
    process: u32,
    network: Netns,
}

impl Bridge {
    pub(crate) fn find() -> Bridge {
        Bridge { process: server().first_process().unwrap(), network: server().network().unwrap() }
    }

    /// Does something in the network of the server.
    pub(crate) fn run<T>(&self, work: impl FnOnce() -> T) -> T {
        self.network.run(work).unwrap()
    }
}

/// The node with its agent, which ends first.
pub(crate) struct Wired {
    agent: Child,
    pub(crate) world: World,
    scratch: PathBuf,
}

impl Wired {
    /// Around the calling thread, which leaves the machine's network and mounts for it.
    pub(crate) fn raise(bridge: &Bridge, proxy: &Proxy) -> Wired {
        let scratch = std::env::temp_dir().join(format!("egret-wired-{}", std::process::id()));
        fs::create_dir_all(&scratch).unwrap();
        let keys = json!({"mode": "cluster", "stateDir": scratch.join("state")});
        let world = World::raise(Topology {
            nodes: 1,
            primary: Primary::Ptp,
            families: Families::V4,
            egret: Some(EGRET.into()),
            egret_keys: keys.as_object().unwrap().clone(),
            settle: false,
            ..Topology::default()
        })
        .unwrap();
        let [here, there] = LINK;
        let node = world.node(1);
        let link = format!(
            "ip link add {here} type veth peer name {there} netns {}; ip address add {ADDRESS} dev {here}; ip link set {here} up",
            bridge.process
        );
        node.sh(&link).unwrap();
        let plug = ["link", "set", there, "master", "underlay", "up"];
        let plugged = bridge.run(|| Command::new("ip").args(plug).status()).unwrap();
        assert!(plugged.success(), "ip {}", plug.join(" "));
        let agent = agent(&world, proxy, &scratch);
        let wired = Wired { agent, world, scratch };
        wired.eventually("the agent is well", || wired.is_well());
        wired
    }

    /// Its agent is killed, and the next one begins after something was done to the state directory.
    pub(crate) fn again(&mut self, proxy: &Proxy, deed: impl FnOnce(&Path)) {
        let _ = self.agent.kill();
        let _ = self.agent.wait();
        deed(&self.state());
        self.agent = agent(&self.world, proxy, &self.scratch);
        let listens = || self.log().contains("the agent begins");
        self.eventually("the next agent begins", listens);
    }

    /// What the agent has logged.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.scratch.join("log")).unwrap_or_default()
    }

    /// What the runtime's STATUS gets.
    pub(crate) fn status(&self) -> Result<(), String> {
        let list: Value = serde_json::from_slice(&fs::read(self.world.conflist_path(1)).unwrap()).unwrap();
        let entry = list["plugins"].as_array().unwrap().iter().find(|p| p["type"] == "egret").unwrap();
        let mut entry = entry.clone();
        entry["name"] = "pods".into();
        entry["cniVersion"] = "1.1.0".into();
        let line = format!("CNI_COMMAND=STATUS {EGRET} >&2");
        let said = self.world.node(1).feed("sh", &["-c", &line], &entry.to_string());
        said.map(drop).map_err(|e| e.to_string())
    }

    fn says(&self) -> Option<AgentState> {
        let path = Memory::new(Path::new(RUN_DIR), NODE).dir().join(FILE);
        let said = fs::read(path).ok().and_then(|said| serde_json::from_slice::<AgentState>(&said).ok());
        said.filter(|state| state.pid == self.agent.id())
    }

    pub(crate) fn is_well(&self) -> bool {
        self.says().is_some_and(|state| state.health == Health::Well)
    }

    /// What the agent says is wrong.
    pub(crate) fn problems(&self) -> Vec<Problem> {
        self.says().map(|state| state.problems).unwrap_or_default()
    }

    /// Where the agent keeps its copy of the cluster.
    pub(crate) fn state(&self) -> PathBuf {
        self.scratch.join("state")
    }

    /// A whole ADD, as the runtime makes it of a pod that the API server knows by this UID. One that fails is followed by DEL.
    pub(crate) fn add(&self, pod: &str, uid: &str) -> Result<Pod, CnitoolError> {
        self.add_annotated(pod, uid, None)
    }

    /// The same; the runtime passes these annotations, if any.
    pub(crate) fn add_annotated(
        &self,
        pod: &str,
        uid: &str,
        annotations: Option<Value>,
    ) -> Result<Pod, CnitoolError> {
        let mut pod = self.world.sandbox(1, pod).unwrap();
        pod.uid = uid.to_owned();
        let passed = annotations.map(|all| ("io.kubernetes.cri.pod-annotations".to_owned(), all));
        pod.capabilities.extend(passed);
        match self.world.wire(&mut pod) {
            Ok(()) => Ok(pod),
            Err(error) => {
                self.world.stop_sandbox(&pod).unwrap();
                Err(error)
            }
        }
    }

    /// The egress address of a gateway.
    pub(crate) fn lease(&self, gateway: &Pod) -> IpAddr {
        let (all, _) = endpoints::list(&Dir::at(self.state()).unwrap()).unwrap();
        all.iter().find(|e| e.pod == gateway.name).unwrap().address(Family::V4).unwrap()
    }

    #[track_caller]
    pub(crate) fn eventually(&self, what: &str, so: impl FnMut() -> bool) {
        let patience = Duration::from_secs(120);
        assert!(within(patience, Duration::from_millis(20), so).is_some(), "not within {patience:?}: {what}");
    }
}

impl Drop for Wired {
    fn drop(&mut self) {
        let _ = self.agent.kill();
        let _ = self.agent.wait();
        if std::thread::panicking() {
            println!("--- the agent\n{}", self.log());
        }
        let _ = fs::remove_dir_all(&self.scratch);
    }
}

/// One that begins, with a log of its own.
fn agent(world: &World, proxy: &Proxy, scratch: &Path) -> Child {
    let mut command = world.node(1).daemon(EGRET).unwrap();
    command.args(["agent", "--log", "egret=debug,info", "--config"]).arg(world.conflist_path(1));
    command.arg("--kubeconfig").arg(proxy.kubeconfig());
    let log = File::create(scratch.join("log")).unwrap();
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap()
}

/// Tells a story on a thread of its own: whoever enters a world leaves the server's network.
pub(crate) fn aside(story: impl FnOnce() + Send) {
    std::thread::scope(|scope| {
        if let Err(panic) = scope.spawn(story).join() {
            std::panic::resume_unwind(panic);
        }
    });
}
