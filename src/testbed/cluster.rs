//! A Kubernetes cluster, as `scripts/cluster` raises it: an API server, and nodes with kubelets or none.
//!
//! In: how many nodes and on what they stand. Out: kubectl, commands in its places, its files. It ends with its value, and with the process
//! that raised it however that ends: the script keeps a cluster as long as its standard input is open.

use std::fs;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sched::{CloneFlags, setns};

use super::Trouble;
use super::capture::{BUFFER, Capture};
use super::packet::Spot;
use super::patience::within;
use super::place::run_to_end;
use crate::kernel::netns::Netns;

/// Where the API server is, and what lies between nodes and the outside.
pub const ROUTER: &str = "router";

/// Our own definitions, and those that Calico and Cilium would have brought.
const DEFINITIONS: [&[&str]; 2] = [&["crds"], &["crds", "--foreign"]];

/// A cluster of this process.
#[derive(Debug)]
pub struct Cluster {
    name: String,
    /// The folder of all clusters.
    all: PathBuf,
    keeper: Child,
}

/// The folder of this repository.
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

impl Cluster {
    /// Raises a cluster; its nodes are ready then. Its name is what it is for and the number of this process. `options` are those of
    /// `scripts/cluster up`: `--nodes`, `--proxy`, `--primary`.
    pub fn raise(purpose: &str, options: &[&str]) -> Result<Cluster, Trouble> {
        let all = std::env::var_os("EGRET_CLUSTERS").unwrap_or_else(|| "/run/egret-clusters".into());
        Cluster::raise_in(Path::new(&all), purpose, options)
    }

    /// Raises one whose files lie in a folder of the caller's choice: a [`World`](super::World) hides `/run`.
    pub fn raise_in(all: &Path, purpose: &str, options: &[&str]) -> Result<Cluster, Trouble> {
        let name = format!("{purpose}-{}", std::process::id());
        let mut run = script(all, "run", &name);
        let run = run.args(options).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut keeper = run.spawn().map_err(|error| not_started(&error))?;
        let mut said = Vec::new();
        for line in keeper.stdout.take().into_iter().flat_map(|out| BufReader::new(out).lines()) {
            match line {
                Ok(line) if line == "ready" => return Ok(Cluster { name, all: all.to_owned(), keeper }),
                Ok(line) => said.push(line),
                Err(_) => break,
            }
        }
        let _ = keeper.wait();
        let (said, options) = (said.join("\n"), options.join(" "));
        Err(Trouble::new(format!("no cluster: {said}\n(`scripts/cluster up {purpose} {options}` says more)")))
    }

    /// Where its logs, kubeconfigs and nodes' folders are.
    pub fn folder(&self) -> PathBuf {
        self.all.join(&self.name)
    }

    /// The kubeconfig of a user: `admin`, `agent`, or `nobody`, who has no right.
    pub fn kubeconfig(&self, user: &str) -> PathBuf {
        self.folder().join(format!("{user}.conf"))
    }

    /// kubectl as an administrator, where the API server is.
    pub fn kubectl_command(&self) -> Command {
        script(&self.all, "kubectl", &self.name)
    }

    /// What kubectl says with this input; what it complains of is the trouble.
    pub fn kubectl(&self, arguments: &[&str], input: &str) -> Result<String, Trouble> {
        let mut command = self.kubectl_command();
        command.args(arguments);
        let output = run_to_end(command, input.as_bytes()).map_err(|error| not_started(&error))?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let (what, why) = (arguments.join(" "), String::from_utf8_lossy(&output.stderr));
        Err(Trouble::new(format!("kubectl {what}: {}", why.trim())))
    }

    /// Makes Egret's definitions and those of others, as this program prints them, and waits until they serve.
    pub fn define(&self, egret: &Path) -> Result<(), Trouble> {
        for arguments in DEFINITIONS {
            let crds = Command::new(egret).args(arguments).output();
            let crds =
                crds.map_err(|error| Trouble::new(format!("cannot start {}: {error}", egret.display())))?;
            self.kubectl(&["apply", "--server-side", "-f", "-"], &String::from_utf8_lossy(&crds.stdout))?;
        }
        self.kubectl(&["wait", "--for=condition=Established", "crd", "--all", "--timeout=120s"], "")?;
        let all = self.kubectl(&["get", "crd", "-o", "name"], "")?;
        let kinds: Vec<&str> = all.lines().filter_map(|line| line.rsplit('/').next()).collect();
        let kinds = kinds.join(",");
        // The server that has accepted a definition serves it, and lists it for kubectl, a moment later.
        let served = || self.kubectl(&["get", &kinds, "-A"], "").is_ok();
        match within(Duration::from_secs(120), Duration::from_millis(100), served) {
            Some(_) => Ok(()),
            None => Err(Trouble::new(format!("the API server does not serve {kinds}"))),
        }
    }

    /// A command that will run in a place: `node1` and so on, `outside`, or the [`ROUTER`].
    pub fn command(&self, place: &str) -> Command {
        let mut command = script(&self.all, "exec", &self.name);
        command.args(["-n", place]);
        command
    }

    /// What a command in a place says, however it ends.
    pub fn on(&self, place: &str, arguments: &[&str]) -> Result<String, Trouble> {
        let mut command = self.command(place);
        let output = command.args(arguments).stdin(Stdio::null()).output();
        let output = output.map_err(|error| not_started(&error))?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// A node loses its power and comes back: its processes, sandboxes and kernel are gone, its disk is as it was.
    pub fn reboot(&self, node: &str) -> Result<(), Trouble> {
        let output = script(&self.all, "reboot", &self.name).arg(node).stdin(Stdio::null()).output();
        let output = output.map_err(|error| not_started(&error))?;
        if output.status.success() {
            return Ok(());
        }
        let why = String::from_utf8_lossy(&output.stderr);
        Err(Trouble::new(format!("{node} does not come back: {}", why.trim())))
    }

    /// The router's network, where the API server answers as 172.31.0.254 on the bridge `underlay`.
    pub fn network(&self) -> Result<Netns, Trouble> {
        self.netns("ns/net")
    }

    /// The network outside of the nodes.
    pub fn outside(&self) -> Result<Netns, Trouble> {
        self.netns("root/run/netns/outside")
    }

    /// Starts recording what arrives there.
    pub fn capture(&self) -> Result<Capture, Trouble> {
        Capture::start(vec![(Spot::Outside, self.outside()?)], Vec::new(), Vec::new(), BUFFER)
    }

    /// Moves the calling thread into the router's network, for good.
    pub fn enter(&self) -> Result<(), Trouble> {
        setns(self.network()?, CloneFlags::CLONE_NEWNET).map_err(|error| {
            Trouble::new(format!("cannot enter the cluster {}: {error}; is this root?", self.name))
        })
    }

    /// One that its first process has, or has pinned.
    fn netns(&self, path: &str) -> Result<Netns, Trouble> {
        let path = format!("/proc/{}/{path}", self.first_process()?);
        Netns::open(path).map_err(|error| Trouble::new(error.to_string()))
    }

    /// The first process of the cluster, as this machine counts.
    pub fn first_process(&self) -> Result<u32, Trouble> {
        let read = || {
            let keeper = fs::read_to_string(self.folder().join("keeper"))?;
            let keeper = keeper.split(' ').next().unwrap_or_default();
            let first = fs::read_to_string(format!("/proc/{keeper}/task/{keeper}/children"))?;
            first.trim().parse().map_err(io::Error::other)
        };
        read().map_err(|error| {
            Trouble::new(format!(
                "cannot find the first process of the cluster {}: {error}; does it still run?",
                self.name
            ))
        })
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let _ = script(&self.all, "down", &self.name).status();
        let _ = self.keeper.wait();
        let _ = fs::remove_dir(&self.all); // empty where this was the only one; others stay where they are
    }
}

fn script(all: &Path, verb: &str, name: &str) -> Command {
    let mut command = Command::new(repository().join("scripts/cluster"));
    command.env("EGRET_CLUSTERS", all).args([verb, name]);
    command
}

fn not_started(error: &io::Error) -> Trouble {
    Trouble::new(format!(
        "cannot start scripts/cluster: {error}; is {} still the repository?",
        repository().display()
    ))
}
