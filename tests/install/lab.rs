//! A cluster with one real node, and the image that `deploy/` names.
//!
//! In: nothing. Out: kubectl, commands on the node. Ends with its value, however the test ends.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long anything may take on a machine with other things to do.
const PATIENCE: Duration = Duration::from_secs(90);

pub(crate) struct Lab {
    name: String,
    keeper: Child,
    scratch: PathBuf,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

impl Lab {
    /// A node that is ready and has the image; nothing of ours runs yet.
    pub(crate) fn raise() -> Lab {
        let name = format!("install-{}", std::process::id());
        let scratch = std::env::temp_dir().join(format!("egret-{name}"));
        std::fs::create_dir_all(&scratch).unwrap();
        let mut keeper = Command::new(root().join("scripts/cluster"))
            .args(["run", &name, "--nodes", "1"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(keeper.stdout.take().unwrap()).lines();
        let said: Vec<String> = lines.map_while(Result::ok).take_while(|line| line != "ready").collect();
        assert!(keeper.try_wait().unwrap().is_none(), "no cluster: {}", said.join("\n"));
        let lab = Lab { name, keeper, scratch };
        lab.image();
        lab
    }

    fn state(&self) -> PathBuf {
        let all = std::env::var_os("EGRET_CLUSTERS").unwrap_or_else(|| "/run/egret-clusters".into());
        Path::new(&all).join(&self.name)
    }

    /// The program under test, as `scripts/image` packs it.
    fn image(&self) {
        let file = self.scratch.join("image.tar");
        let made = Command::new(root().join("scripts/image"))
            .arg(&file)
            .env("EGRET_BIN", env!("CARGO_BIN_EXE_egret"))
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let socket = self.state().join("node1/containerd.sock");
        let (socket, file) = (socket.to_str().unwrap(), file.to_str().unwrap());
        let said = self.on_node(&["ctr", "-a", socket, "-n", "k8s.io", "images", "import", file]);
        assert!(said.contains("docker.io/library/egret:"), "{said}");
    }

    /// What the page says: everything in `deploy/`.
    pub(crate) fn install(&self) {
        self.kubectl(&["apply", "--server-side", "-k", root().join("deploy").to_str().unwrap()], "");
    }

    /// What the page says: agents away, `deploy/uninstall`, then everything.
    pub(crate) fn uninstall(&self) {
        let away = ["delete", "-n", "egret-system", "daemonset/egret-agent", "deployment/egret-controller"];
        self.kubectl(&away, "");
        self.eventually("no agent runs", || self.pods("egret-agent").is_empty());
        // The node has no way to a registry.
        let overlay = "resources: [base]\nimages: [{name: registry.k8s.io/pause, newName: lab.local/busybox, newTag: '1'}]\n";
        std::fs::write(self.scratch.join("kustomization.yaml"), overlay).unwrap();
        let copied = Command::new("cp")
            .arg("-r")
            .arg(root().join("deploy/uninstall"))
            .arg(self.scratch.join("base"))
            .status();
        assert!(copied.unwrap().success());
        let overlay = self.scratch.to_str().unwrap();
        self.kubectl(&["apply", "--server-side", "-k", overlay], "");
        self.eventually("the node is clean", || self.ready("egret-uninstall"));
        self.kubectl(&["delete", "-k", overlay], "");
        let deploy = root().join("deploy");
        self.kubectl(&["delete", "-k", deploy.to_str().unwrap(), "--ignore-not-found", "--wait=false"], "");
    }

    fn script(&self, verb: &str) -> Command {
        let mut command = Command::new(root().join("scripts/cluster"));
        command.args([verb, &self.name]);
        command
    }

    /// What kubectl says; it must go well.
    #[track_caller]
    pub(crate) fn kubectl(&self, arguments: &[&str], input: &str) -> String {
        let (well, said) = self.try_kubectl(arguments, input);
        assert!(well, "{arguments:?}: {said}");
        said
    }

    pub(crate) fn try_kubectl(&self, arguments: &[&str], input: &str) -> (bool, String) {
        let mut child = self
            .script("kubectl")
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let said = if output.status.success() { output.stdout } else { output.stderr };
        (output.status.success(), String::from_utf8(said).unwrap())
    }

    /// Runs a command on the node; what it says.
    pub(crate) fn on_node(&self, arguments: &[&str]) -> String {
        let output =
            self.script("exec").args(["-n", "node1"]).args(arguments).stdin(Stdio::null()).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn get(&self, arguments: &[&str]) -> String {
        let (_, said) = self.try_kubectl(&[&["get"][..], arguments].concat(), "");
        said
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
        let file = self.state().join("node1/cni-conf/10-net.conflist");
        let draft = file.with_extension("draft");
        std::fs::write(&draft, list).unwrap();
        std::fs::rename(draft, file).unwrap();
    }

    /// Waits until something is so.
    #[track_caller]
    pub(crate) fn eventually(&self, what: &str, mut so: impl FnMut() -> bool) {
        let began = Instant::now();
        while !so() {
            if began.elapsed() > PATIENCE {
                let pods = self.get(&["pods", "-A", "-o", "wide"]);
                let events = self.get(&["events", "-A"]);
                let logs = format!("tail -n 20 {}/node1/pods/egret-system_*/*/*.log", self.state().display());
                let logs = self.on_node(&["sh", "-c", &logs]);
                panic!("not within {PATIENCE:?}: {what}\n{pods}\n{events}\n{logs}");
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        println!("{what}: {:?}", began.elapsed());
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let _ = self.script("down").status();
        let _ = self.keeper.wait();
        let _ = std::fs::remove_dir_all(&self.scratch);
    }
}
