//! A cluster with one real node, and the image that `deploy/` names.
//!
//! In: nothing. Out: kubectl, commands on the node. Ends with its value, however the test ends.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use egret::testbed::{Cluster, Trouble, repository, within};

/// How long anything may take on a machine with other things to do.
const PATIENCE: Duration = Duration::from_secs(240);

pub(crate) struct Lab {
    cluster: Cluster,
    scratch: PathBuf,
}

impl Lab {
    /// A node that is ready and has the image; nothing of ours runs yet.
    pub(crate) fn raise() -> Lab {
        let cluster = Cluster::raise("install", &["--nodes", "1"]).unwrap();
        let scratch = std::env::temp_dir().join(format!("egret-install-{}", std::process::id()));
        std::fs::create_dir_all(&scratch).unwrap();
        let lab = Lab { cluster, scratch };
        lab.image();
        lab
    }

    /// The program under test, as `scripts/image` packs it.
    fn image(&self) {
        let file = self.scratch.join("image.tar");
        let made = Command::new(repository().join("scripts/image"))
            .arg(&file)
            .env("EGRET_BIN", env!("CARGO_BIN_EXE_egret"))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&made.stderr);
        assert!(made.status.success(), "scripts/image: {}: {said}", made.status);
        let socket = self.cluster.folder().join("node1/containerd.sock");
        let (socket, file) = (socket.to_str().unwrap(), file.to_str().unwrap());
        let said = self.on_node(&["ctr", "-a", socket, "-n", "k8s.io", "images", "import", file]);
        assert!(said.contains("docker.io/library/egret:"), "{said}");
    }

    /// What the page says: everything in `deploy/`.
    pub(crate) fn install(&self) {
        self.kubectl(&["apply", "--server-side", "-k", repository().join("deploy").to_str().unwrap()], "");
    }

    /// What the page says: agents away, `deploy/uninstall`, then everything.
    pub(crate) fn uninstall(&self) {
        let away = ["delete", "-n", "egret-system", "daemonset/egret-agent", "deployment/egret-controller"];
        self.kubectl(&away, "");
        self.eventually("no agent runs", || self.pods("egret-agent").is_empty());
        // The node has no way to a registry.
        let overlay = "resources: [base/uninstall]\nimages: [{name: registry.k8s.io/pause, newName: lab.local/busybox, newTag: '1'}]\n";
        std::fs::write(self.scratch.join("kustomization.yaml"), overlay).unwrap();
        let copied = Command::new("cp")
            .arg("-r")
            .arg(repository().join("deploy"))
            .arg(self.scratch.join("base"))
            .status();
        assert!(copied.unwrap().success());
        let overlay = self.scratch.to_str().unwrap();
        self.kubectl(&["apply", "--server-side", "-k", overlay], "");
        self.eventually("the node is clean", || self.ready("egret-uninstall"));
        self.kubectl(&["delete", "-k", overlay], "");
        let deploy = repository().join("deploy");
        self.kubectl(&["delete", "-k", deploy.to_str().unwrap(), "--ignore-not-found", "--wait=false"], "");
    }

    /// What kubectl says; it must go well.
    #[track_caller]
    pub(crate) fn kubectl(&self, arguments: &[&str], input: &str) -> String {
        self.try_kubectl(arguments, input).unwrap()
    }

    pub(crate) fn try_kubectl(&self, arguments: &[&str], input: &str) -> Result<String, Trouble> {
        self.cluster.kubectl(arguments, input)
    }

    /// Runs a command on the node; what it says.
    pub(crate) fn on_node(&self, arguments: &[&str]) -> String {
        self.cluster.on("node1", arguments).unwrap()
    }

    fn get(&self, arguments: &[&str]) -> String {
        self.try_kubectl(&[&["get"][..], arguments].concat(), "").unwrap_or_default()
    }

    pub(crate) fn phase(&self, namespace: &str, pod: &str) -> String {
        self.get(&["pod", "-n", namespace, pod, "-o", "jsonpath={.status.phase}"])
    }

    /// What a pod's annotation tells.
    pub(crate) fn told(&self, namespace: &str, pod: &str) -> String {
        self.get(&[
            "pod",
            "-n",
            namespace,
            pod,
            "-o",
            r"jsonpath={.metadata.annotations.egret\.dev/egress-addresses}",
        ])
    }

    /// Reasons and messages of a pod's events.
    pub(crate) fn events(&self, namespace: &str, pod: &str) -> String {
        let selector = format!("--field-selector=involvedObject.name={pod}");
        self.get(&[
            "events",
            "-n",
            namespace,
            &selector,
            "-o",
            r#"jsonpath={range .items[*]}{.reason} {.message}{"\n"}{end}"#,
        ])
    }

    fn pods(&self, name: &str) -> String {
        let selector = format!("app.kubernetes.io/name={name}");
        self.get(&["pods", "-n", "egret-system", "-l", &selector, "-o", "name"])
    }

    /// Volumes that a container of a DaemonSet's pod has, as the API server took it.
    pub(crate) fn mounts(&self, name: &str, container: &str) -> String {
        let selector = format!("app.kubernetes.io/name={name}");
        let path =
            format!("jsonpath={{.items[*].spec.containers[?(@.name=='{container}')].volumeMounts[*].name}}");
        self.get(&["pods", "-n", "egret-system", "-l", &selector, "-o", &path])
    }

    /// Whether a DaemonSet's pod on the one node is ready.
    pub(crate) fn ready(&self, name: &str) -> bool {
        self.get(&["ds", "-n", "egret-system", name, "-o", "jsonpath={.status.numberReady}"]) == "1"
    }

    /// How often we are in the primary's list.
    pub(crate) fn entries(&self) -> usize {
        let list = self.on_node(&["cat", "/etc/cni/net.d/10-net.conflist"]);
        let list: serde_json::Value = serde_json::from_str(&list).unwrap_or_default();
        list["plugins"]
            .as_array()
            .map_or(0, |plugins| plugins.iter().filter(|p| p["type"] == "egret").count())
    }

    /// As the primary's own installer does it: in one piece.
    pub(crate) fn write_list(&self, list: &str) {
        let file = self.cluster.folder().join("node1/cni-conf/10-net.conflist");
        let draft = file.with_extension("draft");
        std::fs::write(&draft, list).unwrap();
        std::fs::rename(draft, file).unwrap();
    }

    /// Waits until something is so.
    #[track_caller]
    pub(crate) fn eventually(&self, what: &str, so: impl FnMut() -> bool) {
        let Some(time) = within(PATIENCE, Duration::from_millis(200), so) else {
            let pods = self.get(&["pods", "-A", "-o", "wide"]);
            let events = self.get(&["events", "-A"]);
            let logs = self.cluster.folder().join("node1/pods/egret-system_*/*/*.log");
            let logs = self.on_node(&["sh", "-c", &format!("tail -n 20 {}", logs.display())]);
            panic!("not within {PATIENCE:?}: {what}\n{pods}\n{events}\n{logs}");
        };
        println!("{what}: {time:?}");
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.scratch);
    }
}
