//! An API server for the tests of this process: etcd and kube-apiserver, with Egret's definitions applied.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use egret::kube::Access;
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

/// A kubeconfig of a service account, with a token of an hour.
pub(crate) fn kubeconfig_of(account: &str, namespace: &str) -> PathBuf {
    let token = kubectl(&["create", "token", account, "-n", namespace, "--duration=1h"], "");
    let admin = Access::from_file(&server().kubeconfig("admin"), None).unwrap();
    let config = format!(
        "{{apiVersion: v1, kind: Config, current-context: x, contexts: [{{name: x, context: {{cluster: c, user: u}}}}],\n\
         clusters: [{{name: c, cluster: {{server: \"{}\", certificate-authority: pki/ca.crt}}}}],\n\
         users: [{{name: u, user: {{token: \"{}\"}}}}]}}\n",
        admin.server(),
        token.trim()
    );
    let file = server().kubeconfig(account);
    fs::write(&file, config).unwrap();
    file
}
