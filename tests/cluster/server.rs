//! The API server of this process.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use egret::testbed::ApiServer;

/// etcd and kube-apiserver, with Egret's definitions applied.
pub(crate) struct Server {
    pub(crate) name: String,
    api: ApiServer,
}

pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The one of this process.
pub(crate) fn server() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(|| {
        let api = ApiServer::raise(&format!("test-{}", std::process::id())).unwrap();
        api.define(Path::new(env!("CARGO_BIN_EXE_egret"))).unwrap();
        let said = api.must(&["get", "crd", "-o", "name"], b"").unwrap();
        assert_eq!(said.lines().count(), 9, "{said}");
        Server { name: api.name().to_owned(), api }
    })
}

impl Server {
    /// Where its files are.
    pub(crate) fn state(&self) -> PathBuf {
        self.api.state()
    }

    /// Moves the calling thread into the network where the server is.
    pub(crate) fn enter(&self) {
        let network = std::fs::File::open(self.api.network().unwrap().path()).unwrap();
        nix::sched::setns(network, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
    }

    /// Runs kubectl; whether it went well, and all it said.
    pub(crate) fn kubectl(&self, arguments: &[&str], input: &[u8]) -> (bool, String) {
        self.api.kubectl(arguments, input).unwrap()
    }
}
