//! A cluster with two real nodes, Egret in their network lists, an agent on each, and a witness outside.
//!
//! In: nothing. Out: kubectl, commands on nodes, what the outside saw. Ends with its value, however the test ends.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use egret::testbed::{Capture, Cluster, Packet, ROUTER, Trouble, repository, within};
use serde_json::{Value, json};

/// A pod's name, and the address that the outside saw it with.
type Seen = Arc<Mutex<Vec<(String, String)>>>;

pub(crate) const OUTSIDE: &str = "203.0.113.10";
/// What selected pods call outside, and what others do.
pub(crate) const PORTS: [u16; 2] = [8080, 8081];
/// Two clusters that start at once take each other's time; what follows is mostly waiting.
static RAISING: Mutex<()> = Mutex::new(());
/// How long anything may take on a machine with other things to do.
const PATIENCE: Duration = Duration::from_secs(300);
/// The longest time of listening.
const LONGEST: Duration = Duration::from_secs(15);

pub(crate) struct Lab {
    cluster: Cluster,
    seen: Seen,
    capture: Capture,
}

impl Lab {
    /// Two nodes that are ready, with our definitions and role, and nothing of ours running yet. `proxies` and `primaries`: as
    /// `scripts/cluster` takes them. `purpose`: no other test's.
    pub(crate) fn raise(purpose: &str, proxies: &str, primaries: &str) -> Lab {
        Lab::adopting(purpose, proxies, primaries, &[])
    }

    /// The same, where other projects' objects are adopted.
    pub(crate) fn adopting(purpose: &str, proxies: &str, primaries: &str, adopt: &[&str]) -> Lab {
        let _turn = RAISING.lock();
        let options = ["--nodes", "2", "--proxy", proxies, "--primary", primaries];
        let cluster = Cluster::raise(purpose, &options).unwrap();
        let capture = cluster.capture().unwrap();
        let lab = Lab { cluster, seen: Seen::default(), capture };
        lab.kubectl(&["apply", "--server-side", "-f", "-"], &egret(&["crds"]));
        let role = fs::read_to_string(repository().join("deploy/rbac.yaml")).unwrap();
        lab.kubectl(&["apply", "-f", "-"], &role);
        lab.kubectl(
            &["create", "clusterrolebinding", "agent", "--clusterrole=egret-agent", "--user=agent"],
            "",
        );
        lab.witness();
        for node in [1, 2] {
            lab.install(node, adopt);
        }
        lab
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.cluster.folder()
    }

    /// The plugin and its entry, as an installer leaves them.
    fn install(&self, node: u8, adopt: &[&str]) {
        let folder = self.state().join(format!("node{node}"));
        fs::copy(env!("CARGO_BIN_EXE_egret"), folder.join("cni-bin/egret")).unwrap();
        let file = folder.join("cni-conf/10-net.conflist");
        let mut list: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
        list["plugins"].as_array_mut().unwrap().push(json!({
            "type": "egret", "mode": "cluster", "nodeName": format!("node{node}"),
            "clusterCIDRs": ["10.244.0.0/16", "10.96.0.0/16"], "adopt": adopt,
            "capabilities": {"io.kubernetes.cri.pod-annotations": true},
        }));
        in_one_piece(&file, &list.to_string());
    }

    /// Answers every connection outside, and remembers who it was and from where.
    fn witness(&self) {
        for port in PORTS {
            let (seen, listener) =
                (self.seen.clone(), self.as_outsider(|| TcpListener::bind((OUTSIDE, port))));
            std::thread::spawn(move || answer(&listener.unwrap(), &seen));
        }
    }

    /// The same at an address of the other family.
    pub(crate) fn witness_too(&self, address: &str) {
        for port in PORTS {
            let (seen, listener) =
                (self.seen.clone(), self.as_outsider(|| TcpListener::bind((address, port)).unwrap()));
            std::thread::spawn(move || answer(&listener, &seen));
        }
    }

    /// Does something as a host outside the cluster.
    pub(crate) fn as_outsider<T>(&self, work: impl FnOnce() -> T) -> T {
        self.cluster.outside().unwrap().run(work).unwrap()
    }

    /// What kubectl says; it must go well.
    #[track_caller]
    pub(crate) fn kubectl(&self, arguments: &[&str], input: &str) -> String {
        self.try_kubectl(arguments, input).unwrap()
    }

    /// What kubectl says, or why not.
    pub(crate) fn try_kubectl(&self, arguments: &[&str], input: &str) -> Result<String, Trouble> {
        self.cluster.kubectl(arguments, input)
    }

    /// Begins a command of kubectl; what it says is nobody's affair.
    pub(crate) fn kubectl_begun(&self, arguments: &[&str]) -> Child {
        let mut command = self.cluster.kubectl_command();
        let command = command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null());
        command.stderr(Stdio::null()).spawn().unwrap()
    }

    /// Runs a command on `node1`, `node2`, or (`""`) where the API server is; what it says.
    pub(crate) fn on(&self, place: &str, arguments: &[&str]) -> String {
        let place = if place.is_empty() { ROUTER } else { place };
        self.cluster.on(place, arguments).unwrap()
    }

    /// Starts the agent of a node. It ends with the cluster.
    pub(crate) fn agent(&self, node: u8) -> Child {
        let log = File::create(self.state().join(format!("log/agent{node}"))).unwrap();
        let mut command = self.cluster.command(&format!("node{node}"));
        command.args([
            "/opt/cni/bin/egret",
            "agent",
            "--config",
            "/etc/cni/net.d/10-net.conflist",
            "--log",
            "egret=debug,info",
            "--kubeconfig",
        ]);
        command.arg(self.cluster.kubeconfig("agent")).stdin(Stdio::null()).stderr(log).spawn().unwrap()
    }

    /// Starts a controller with the nodes' configuration, and lets agents tell it that they live. It ends with the cluster.
    pub(crate) fn controller(&self) -> Child {
        let roles = fs::read_to_string(repository().join("deploy/controller-rbac.yaml")).unwrap();
        self.kubectl(&["apply", "-f", "-"], &roles);
        let life =
            ["create", "rolebinding", "lives", "-n", "egret-system", "--role=egret-agent-sign-of-life"];
        self.kubectl(&[&life[..], &["--user=agent"]].concat(), "");
        let config = self.state().join("node1/cni-conf/10-net.conflist");
        let log = File::create(self.state().join("log/controller")).unwrap();
        let mut command = self.cluster.command(ROUTER);
        command.arg(env!("CARGO_BIN_EXE_egret")).arg("controller").arg("--config").arg(config);
        command.arg("--kubeconfig").arg(self.cluster.kubeconfig("admin"));
        command.stdin(Stdio::null()).stderr(log).spawn().unwrap()
    }

    /// What `kubectl egret …` says, as a person's machine has it.
    #[track_caller]
    pub(crate) fn kubectl_egret(&self, arguments: &[&str]) -> String {
        let folder = self.state().join("plugins");
        let plugin = folder.join("kubectl-egret");
        if !plugin.exists() {
            fs::create_dir_all(&folder).unwrap();
            std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_egret"), plugin).unwrap();
        }
        let path = format!("{}:{}", folder.display(), std::env::var("PATH").unwrap());
        let mut command = self.cluster.kubectl_command();
        let output = command.arg("egret").args(arguments).env("PATH", path).output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{arguments:?}: {said}{}", String::from_utf8_lossy(&output.stderr));
        said
    }

    /// Kills the agent of a node, as the kernel does when memory is short.
    pub(crate) fn kill_agent(&self, node: u8, mut agent: Child) {
        let state = self.state_of_agent(node);
        self.on(&format!("node{node}"), &["kill", "-9", &state["pid"].to_string()]);
        agent.wait().unwrap();
    }

    /// A node loses its power and comes back, without its agent.
    pub(crate) fn reboot(&self, node: u8, mut agent: Child) {
        self.cluster.reboot(&format!("node{node}")).unwrap();
        agent.wait().unwrap();
    }

    /// What an agent says of itself.
    pub(crate) fn state_of_agent(&self, node: u8) -> Value {
        let said = self.on(&format!("node{node}"), &["cat", &format!("/run/egret/node{node}/agent.json")]);
        serde_json::from_str(&said).unwrap_or_default()
    }

    /// What an agent answers over HTTP; nothing while it does not.
    pub(crate) fn page(&self, node: u8, path: &str) -> String {
        let ask = format!(
            "exec 3<>/dev/tcp/127.0.0.1/9790 && printf 'GET {path} HTTP/1.1\\r\\n\\r\\n' >&3 && cat <&3"
        );
        self.on(&format!("node{node}"), &["bash", "-c", &ask])
    }

    /// All series of a family that have this in their labels, added up.
    pub(crate) fn counted(&self, node: u8, family: &str, label: &str) -> f64 {
        let page = self.page(node, "/metrics");
        let rows = page.lines().filter(|line| line.starts_with(family) && line.contains(label));
        rows.filter_map(|row| row.rsplit(' ').next()?.parse::<f64>().ok()).fold(0.0, |sum, one| sum + one)
    }

    pub(crate) fn log_of_agent(&self, node: u8) -> String {
        fs::read_to_string(self.state().join(format!("log/agent{node}"))).unwrap_or_default()
    }

    /// The API server answers nobody outside its own machine, or does again.
    pub(crate) fn api_server(&self, away: bool) {
        let rules = if away {
            "add table inet away\nadd chain inet away in { type filter hook input priority -300; }\n\
             add rule inet away in iifname underlay tcp dport 6443 reject with tcp reset"
        } else {
            "delete table inet away"
        };
        let script = format!("printf '%s' '{rules}' | nft -f -");
        self.on("", &["sh", "-c", &script]);
    }

    /// Whether a node runs this, and runs it again when it ends.
    pub(crate) fn keeps(&self, place: &str, program: &str) -> bool {
        self.state().join(place).join(format!("{program}.pid")).exists()
    }

    /// Kills a program of a node (`kubelet`, `containerd`) or, with `""`, of the control plane, as the kernel does when memory is
    /// short. It is started again as an init would.
    pub(crate) fn kill(&self, place: &str, program: &str) {
        let id = || fs::read_to_string(self.state().join(place).join(format!("{program}.pid"))).unwrap();
        let was = id();
        self.on(place, &["kill", "-9", was.trim()]);
        self.eventually(&format!("{program} is started again"), || id() != was);
    }

    /// Since it was last forgotten, packets of selected pods arrived outside with this address alone.
    #[track_caller]
    pub(crate) fn shows_only(&self, address: &str) {
        let only = BTreeSet::from([address.to_owned()]);
        self.shows_only_pool(&only);
        assert_eq!(self.seen("cart"), only);
    }

    /// The same with any of these addresses.
    #[track_caller]
    pub(crate) fn shows_only_pool(&self, addresses: &BTreeSet<String>) {
        let (arrived, sources) = (self.arrived(), self.sources());
        let others: Vec<_> = arrived.iter().filter(|p| !addresses.contains(&p.source.to_string())).collect();
        assert!(!arrived.is_empty() && others.is_empty(), "{sources:?}, {others:?}");
    }

    /// Addresses that packets of selected pods arrived outside with since it was last forgotten.
    pub(crate) fn sources(&self) -> BTreeSet<String> {
        self.arrived().iter().map(|packet| packet.source.to_string()).collect()
    }

    /// Since it was last forgotten, every packet to the port that selected pods call, whoever sent it, but for what nodes said for themselves.
    fn arrived(&self) -> Vec<Packet> {
        let mut packets = self.capture.packets();
        assert_eq!(self.capture.dropped(), 0, "the capture lost packets");
        let is_called = |packet: &Packet| (packet.protocol, packet.service) == (6, Some(PORTS[0]));
        packets.retain(|packet| is_called(packet) && !packet.is_nodes_own_reset());
        packets
    }

    /// So many clients are heard, and since it was last forgotten nobody with another address; then it is forgotten, and so again: from
    /// here on, too.
    #[track_caller]
    pub(crate) fn shows_only_after(&self, address: &str, count: usize, what: &str) {
        // The API server may be what was killed.
        let names = || -> BTreeSet<String> {
            self.try_running("shop")
                .into_iter()
                .flatten()
                .map(|(pod, _)| pod)
                .filter(|pod| pod.starts_with("cart"))
                .collect()
        };
        for what in [what, "and on"] {
            self.eventually(what, || {
                let living = names();
                living.len() == count && self.who("cart").is_superset(&living)
            });
            self.shows_only(address);
            self.forget();
        }
    }

    /// Packets of selected pods that arrived outside since it was last forgotten.
    pub(crate) fn packets(&self) -> usize {
        self.arrived().len()
    }

    /// Forgets what was seen.
    pub(crate) fn forget(&self) {
        self.capture.restart();
        self.seen.lock().unwrap().clear();
    }

    /// Addresses that pods whose name begins so were seen with.
    pub(crate) fn seen(&self, prefix: &str) -> BTreeSet<String> {
        let seen = self.seen.lock().unwrap();
        seen.iter().filter(|(name, _)| name.starts_with(prefix)).map(|(_, from)| from.clone()).collect()
    }

    /// Names of pods that were seen.
    pub(crate) fn who(&self, prefix: &str) -> BTreeSet<String> {
        let seen = self.seen.lock().unwrap();
        seen.iter().filter(|(name, _)| name.starts_with(prefix)).map(|(name, _)| name.clone()).collect()
    }

    /// Running pods of a namespace: name and node.
    #[track_caller]
    pub(crate) fn running(&self, namespace: &str) -> Vec<(String, String)> {
        self.try_running(namespace).unwrap()
    }

    /// The same, or why the API server does not say it.
    fn try_running(&self, namespace: &str) -> Result<Vec<(String, String)>, Trouble> {
        let said = self.try_kubectl(&["get", "pods", "-n", namespace, "-o", "json"], "")?;
        let list: Value = serde_json::from_str(&said).unwrap();
        let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let pods = list["items"].as_array().unwrap().iter();
        let pods = pods.filter(|pod| pod["status"]["containerStatuses"][0]["ready"] == true);
        let pods = pods.filter(|pod| pod["metadata"]["deletionTimestamp"].is_null());
        Ok(pods.map(|pod| (word(&pod["metadata"]["name"]), word(&pod["spec"]["nodeName"]))).collect())
    }

    /// Sends a signal to a program of a node.
    pub(crate) fn signal(&self, place: &str, program: &str, signal: &str) {
        let id = fs::read_to_string(self.state().join(place).join(format!("{program}.pid"))).unwrap();
        self.on(place, &["kill", signal, id.trim()]);
    }

    /// Forgets, listens for so long, and looks whether it is so; again and again, and longer each time, because on a busy machine pods call
    /// rarely.
    #[track_caller]
    pub(crate) fn hears(&self, shortest: Duration, what: &str, mut so: impl FnMut() -> bool) {
        let mut time = shortest;
        self.eventually(what, || {
            self.forget();
            std::thread::sleep(time);
            time = (time * 5 / 4).min(LONGEST);
            so()
        });
    }

    /// Waits until something is so.
    #[track_caller]
    pub(crate) fn eventually(&self, what: &str, so: impl FnMut() -> bool) {
        let Some(time) = within(PATIENCE, Duration::from_millis(100), so) else {
            let pods = self.kubectl(&["get", "pods", "-A", "-o", "wide"], "");
            let logs = [1, 2].map(|node| self.log_of_agent(node)).join("\n---\n");
            let mut seen = self.seen.lock().unwrap().clone();
            let last = seen.split_off(seen.len().saturating_sub(10));
            panic!("not within {PATIENCE:?}: {what}\n{last:?}\n{pods}\n{logs}");
        };
        println!("{what}: {time:?}");
    }
}

/// Remembers who called and from where, and answers.
fn answer(listener: &TcpListener, seen: &Seen) {
    while let Ok((mut stream, from)) = listener.accept() {
        let seen = seen.clone();
        std::thread::spawn(move || {
            let _ = stream.set_read_timeout(Some(Duration::from_secs(30)));
            let mut name = [0; 100];
            let length = stream.read(&mut name).unwrap_or_default();
            let name = String::from_utf8_lossy(&name[..length]).trim().to_owned();
            seen.lock().unwrap().push((name, from.ip().to_string()));
            let _ = stream.write_all(b"seen\n");
        });
    }
}

/// containerd reads its lists when they change.
pub(crate) fn in_one_piece(file: &Path, text: &str) {
    let draft = file.with_extension("draft");
    fs::write(&draft, text).unwrap();
    fs::rename(draft, file).unwrap();
}

pub(crate) fn egret(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_egret")).args(arguments).output().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap()
}
