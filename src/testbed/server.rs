//! A real API server, without nodes: etcd and kube-apiserver in a network of their own, by `scripts/cluster`.
//!
//! In: a name. Out: kubectl, kubeconfigs, the network where it answers. It ends with its value, and with this process however that
//! ends: its standard input is what keeps it. Getting the programs takes about 6 minutes, once.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::Trouble;
use crate::kernel::netns::Netns;

/// The folder of clusters, where nothing else is said.
const CLUSTERS: &str = "/run/egret-clusters";
/// Our own definitions, and those that Calico and Cilium would have brought.
const DEFINITIONS: [&[&str]; 2] = [&["crds"], &["crds", "--foreign"]];

/// etcd and kube-apiserver.
#[derive(Debug)]
pub struct ApiServer {
    name: String,
    clusters: PathBuf,
    keeper: Child,
}

impl ApiServer {
    /// Raises one, in the folder that `EGRET_CLUSTERS` names.
    pub fn raise(name: &str) -> Result<ApiServer, Trouble> {
        let clusters = std::env::var_os("EGRET_CLUSTERS").map_or_else(|| CLUSTERS.into(), PathBuf::from);
        ApiServer::raise_in(&clusters, name)
    }

    /// Raises one in a folder of the caller's choice: a [`World`](super::World) hides `/run`.
    pub fn raise_in(clusters: &Path, name: &str) -> Result<ApiServer, Trouble> {
        let mut keeper = script(clusters)
            .args(["run", name, "--nodes", "0"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|e| Trouble::new(format!("cannot run scripts/cluster: {e}")))?;
        let lines = keeper.stdout.take().map(BufReader::new).into_iter().flat_map(BufRead::lines);
        let mut ready = false;
        let mut said = String::new();
        for line in lines.map_while(Result::ok) {
            ready = line == "ready";
            if ready {
                break;
            }
            said += &format!("{line}\n");
        }
        let server = ApiServer { name: name.to_owned(), clusters: clusters.to_owned(), keeper };
        if ready {
            return Ok(server);
        }
        Err(Trouble::new(format!("no API server: {said}(`scripts/cluster up x --nodes 0` says more)")))
    }

    /// Makes Egret's definitions and those of others, as this program prints them, and waits until they serve.
    pub fn define(&self, egret: &Path) -> Result<(), Trouble> {
        for arguments in DEFINITIONS {
            let crds = Command::new(egret).args(arguments).output();
            let crds = crds.map_err(|e| Trouble::new(format!("cannot run {}: {e}", egret.display())))?;
            self.must(&["apply", "--server-side", "-f", "-"], &crds.stdout)?;
        }
        self.must(&["wait", "--for=condition=Established", "crd", "--all", "--timeout=30s"], b"").map(drop)
    }

    /// What it is called.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where its files are: `admin.conf`, `agent.conf` and `nobody.conf`, `pki/`, `log/`.
    pub fn state(&self) -> PathBuf {
        self.clusters.join(&self.name)
    }

    /// Its first process, as this machine counts.
    pub fn process(&self) -> Result<u32, Trouble> {
        let trouble = |what: &dyn std::fmt::Display| Trouble::new(format!("cluster {}: {what}", self.name));
        let keeper = fs::read_to_string(self.state().join("keeper")).map_err(|e| trouble(&e))?;
        let keeper = keeper.split(' ').next().unwrap_or_default();
        let first =
            fs::read_to_string(format!("/proc/{keeper}/task/{keeper}/children")).map_err(|e| trouble(&e))?;
        first.trim().parse().map_err(|_| trouble(&"it has no first process"))
    }

    /// The network where it answers, as 172.31.0.254 on the bridge `underlay`.
    pub fn network(&self) -> Result<Netns, Trouble> {
        let path = format!("/proc/{}/ns/net", self.process()?);
        Netns::open(path).map_err(|e| Trouble::new(e.to_string()))
    }

    /// Runs kubectl; whether it went well, and all it said.
    pub fn kubectl(&self, arguments: &[&str], input: &[u8]) -> Result<(bool, String), Trouble> {
        let trouble = |e: std::io::Error| Trouble::new(format!("cannot run kubectl: {e}"));
        let mut child = script(&self.clusters)
            .args(["kubectl", &self.name])
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(trouble)?;
        if let Some(mut stdin) = child.stdin.take() {
            // One that does not read its input says why itself.
            let _ = stdin.write_all(input);
        }
        let output = child.wait_with_output().map_err(trouble)?;
        let said = [output.stdout, output.stderr].concat();
        Ok((output.status.success(), String::from_utf8_lossy(&said).into_owned()))
    }

    /// The same where it must go well.
    pub fn must(&self, arguments: &[&str], input: &[u8]) -> Result<String, Trouble> {
        let (well, said) = self.kubectl(arguments, input)?;
        if well { Ok(said) } else { Err(Trouble::new(format!("kubectl {}: {said}", arguments.join(" ")))) }
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        let _ = self.keeper.wait();
        // Empty where this was the only one; others stay where they are.
        let _ = fs::remove_dir(&self.clusters);
    }
}

fn script(clusters: &Path) -> Command {
    let mut command = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/cluster"));
    command.env("EGRET_CLUSTERS", clusters);
    command
}
