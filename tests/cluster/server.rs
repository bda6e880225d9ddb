//! An API server for the tests of this process: etcd and kube-apiserver, with Egret's definitions applied.

use std::path::Path;
use std::sync::OnceLock;

use egret::testbed::Cluster;

/// The one of this process; it ends with it.
pub(crate) fn server() -> &'static Cluster {
    static SERVER: OnceLock<Cluster> = OnceLock::new();
    SERVER.get_or_init(|| {
        let server = Cluster::raise("test", &["--nodes", "0"]).unwrap();
        server.define(Path::new(env!("CARGO_BIN_EXE_egret"))).unwrap();
        let defined = server.kubectl(&["get", "crd", "-o", "name"], "").unwrap();
        assert_eq!(defined.lines().count(), 9, "{defined}");
        server
    })
}

/// What kubectl says; it must go well.
#[track_caller]
pub(crate) fn kubectl(arguments: &[&str], input: &str) -> String {
    server().kubectl(arguments, input).unwrap()
}
