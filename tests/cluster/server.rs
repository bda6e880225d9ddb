//! An API server for the tests of this process.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, OnceLock};

/// etcd and kube-apiserver, with Egret's definitions applied.
pub(crate) struct Server {
    pub(crate) name: String,
    /// Its standard input is what keeps it: it ends with this process, however that ends.
    _keeper: Mutex<Child>,
}

pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The one of this process.
pub(crate) fn server() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(|| {
        let server = Server::start();
        for (arguments, count) in [(&["crds"][..], 6), (&["crds", "--foreign"][..], 3)] {
            let crds = Command::new(env!("CARGO_BIN_EXE_egret")).args(arguments).output().unwrap();
            let (well, said) = server.kubectl(&["apply", "--server-side", "-f", "-"], &crds.stdout);
            assert!(well, "{said}");
            assert_eq!(said.matches("serverside-applied").count(), count, "{said}");
        }
        let wait = ["wait", "--for=condition=Established", "crd", "--all", "--timeout=30s"];
        let (well, said) = server.kubectl(&wait, b"");
        assert!(well, "{said}");
        server
    })
}

impl Server {
    fn start() -> Server {
        let name = format!("test-{}", std::process::id());
        let mut keeper = Command::new(root().join("scripts/cluster"))
            .args(["run", &name, "--nodes", "0"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = String::new();
        let mut ready = false;
        for line in BufReader::new(keeper.stdout.take().unwrap()).lines() {
            let line = line.unwrap();
            ready = line == "ready";
            if ready {
                break;
            }
            said += &format!("{line}\n");
        }
        if !ready {
            let _ = keeper.wait();
            panic!("no API server: {said}(`scripts/cluster up x --nodes 0` says more)");
        }
        Server { name, _keeper: Mutex::new(keeper) }
    }

    /// Where its files are.
    pub(crate) fn state(&self) -> PathBuf {
        let all = std::env::var_os("EGRET_CLUSTERS").unwrap_or_else(|| "/run/egret-clusters".into());
        Path::new(&all).join(&self.name)
    }

    /// Moves the calling thread into the network where the server is.
    pub(crate) fn enter(&self) {
        let keeper = std::fs::read_to_string(self.state().join("keeper")).unwrap();
        let keeper = keeper.split(' ').next().unwrap();
        let first = std::fs::read_to_string(format!("/proc/{keeper}/task/{keeper}/children")).unwrap();
        let network = std::fs::File::open(format!("/proc/{}/ns/net", first.trim())).unwrap();
        nix::sched::setns(network, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
    }

    /// Runs kubectl; whether it went well, and all it said.
    pub(crate) fn kubectl(&self, arguments: &[&str], input: &[u8]) -> (bool, String) {
        let mut child = Command::new(root().join("scripts/cluster"))
            .args(["kubectl", &self.name])
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input).unwrap();
        let output = child.wait_with_output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8(said).unwrap())
    }
}
