//! An API server for the tests of this process: etcd and kube-apiserver, with Egret's definitions applied.

use std::process::Command;
use std::sync::OnceLock;

use egret::testbed::Cluster;

/// The one of this process; it ends with it.
pub(crate) fn server() -> &'static Cluster {
    static SERVER: OnceLock<Cluster> = OnceLock::new();
    SERVER.get_or_init(|| {
        let server = Cluster::raise("test", &["--nodes", "0"]).unwrap();
        for (arguments, count) in [(&["crds"][..], 6), (&["crds", "--foreign"][..], 3)] {
            let crds = Command::new(env!("CARGO_BIN_EXE_egret")).args(arguments).output().unwrap();
            let crds = String::from_utf8(crds.stdout).unwrap();
            let said = server.kubectl(&["apply", "--server-side", "-f", "-"], &crds).unwrap();
            assert_eq!(said.matches("serverside-applied").count(), count, "{said}");
        }
        let wait = ["wait", "--for=condition=Established", "crd", "--all", "--timeout=30s"];
        server.kubectl(&wait, "").unwrap();
        server
    })
}

/// What kubectl says; it must go well.
#[track_caller]
pub(crate) fn kubectl(arguments: &[&str], input: &str) -> String {
    server().kubectl(arguments, input).unwrap()
}
