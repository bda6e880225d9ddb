//! The real libcni, by `cnitool`, with real plugins before and after Egret.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::world::{ANNOTATIONS, SCRATCH, World, egret};

/// cnitool in a world, with a namespace `pod` that has no interface yet.
pub(crate) struct Libcni<'w> {
    pub(crate) world: &'w World,
    bin: PathBuf,
    lists: PathBuf,
    capabilities: Value,
}

/// Where `scripts/tools` puts what it builds.
fn tools() -> PathBuf {
    let cache = std::env::var_os("EGRET_CACHE").map(PathBuf::from);
    let home = || PathBuf::from(std::env::var_os("HOME").unwrap_or("/root".into())).join(".cache/egret");
    cache.unwrap_or_else(home).join("bin")
}

impl<'w> Libcni<'w> {
    pub(crate) fn new(world: &'w World) -> Libcni<'w> {
        let (bin, lists) = (Path::new(SCRATCH).join("bin"), Path::new(SCRATCH).join("net.d"));
        fs::create_dir_all(&bin).unwrap();
        fs::create_dir_all(&lists).unwrap();
        for tool in ["cnitool", "bridge", "ptp", "host-local", "portmap", "sbr"] {
            let built = tools().join(tool);
            assert!(built.exists(), "needs {}; `scripts/tools` builds it", built.display());
            symlink(built, bin.join(tool)).unwrap();
        }
        symlink(egret(), bin.join("egret")).unwrap();
        let capabilities = json!({ ANNOTATIONS: world.annotations().unwrap_or(json!({})) });
        let runtime = Libcni { world, bin, lists, capabilities };
        runtime.pod("pod");
        runtime
    }

    /// A namespace for a pod. Duplicate address detection is off: it would cost each story two seconds.
    pub(crate) fn pod(&self, name: &str) {
        let netns = self.world.netns(name);
        let inside = format!("--net={}", netns.display());
        let no_dad = "echo 0 > /proc/sys/net/ipv6/conf/default/accept_dad; echo 0 > /proc/sys/net/ipv6/conf/all/accept_dad";
        crate::world::output(&["nsenter", &inside, "sh", "-c", no_dad]);
        crate::world::output(&["sh", "-c", no_dad]);
    }

    /// Folder of programs; a story may put one of its own there.
    pub(crate) fn bin(&self) -> &Path {
        &self.bin
    }

    /// Folder of lists.
    pub(crate) fn lists(&self) -> &Path {
        &self.lists
    }

    /// One more thing that the runtime hands over, beside the pod's annotations.
    pub(crate) fn capability(mut self, name: &str, value: Value) -> Self {
        self.capabilities[name] = value;
        self
    }

    /// Writes a list named `net`.
    pub(crate) fn list(&self, version: &str, plugins: &[Value]) {
        let list = json!({"cniVersion": version, "name": "net", "plugins": plugins});
        fs::write(self.lists.join("10-net.conflist"), list.to_string()).unwrap();
    }

    fn command(&self, verb: &str, network: &str, pod: &str) -> Command {
        let mut command = Command::new(self.bin.join("cnitool"));
        let path = std::env::var_os("PATH").unwrap_or_default();
        command.args([verb, network, &format!("/run/netns/{pod}")]).env_clear().env("PATH", path);
        command.env("CNI_PATH", &self.bin).env("NETCONFPATH", &self.lists).stdin(Stdio::null());
        command.env("CAP_ARGS", self.capabilities.to_string());
        command.env("CNI_ARGS", "IgnoreUnknown=1;K8S_POD_NAMESPACE=ns1;K8S_POD_NAME=p1;K8S_POD_UID=u1");
        command
    }

    /// `cnitool VERB net /run/netns/pod`: standard output, or standard error as `Err`.
    pub(crate) fn run(&self, verb: &str) -> Result<String, String> {
        self.run_for(verb, "net", "pod")
    }

    /// The same for another list or pod.
    pub(crate) fn run_for(&self, verb: &str, network: &str, pod: &str) -> Result<String, String> {
        let run = self.command(verb, network, pod).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        if run.status.success() { Ok(text(run.stdout)) } else { Err(text(run.stderr)) }
    }

    /// ADD that must succeed; its result.
    pub(crate) fn add(&self) -> Value {
        self.add_for("pod")
    }

    /// The same for another pod.
    pub(crate) fn add_for(&self, pod: &str) -> Value {
        serde_json::from_str(&self.run_for("add", "net", pod).unwrap()).unwrap()
    }

    /// Puts a plugin `witness` in place of Egret: it writes what it gets into files, then lets Egret do it.
    pub(crate) fn with_witness(self) -> Self {
        let witness = self.bin.join("witness");
        let script = format!(
            "#!/bin/sh\nf=$(mktemp {SCRATCH}/witness.$CNI_COMMAND.XXXXXX)\ncat > $f\nenv | grep ^CNI_ > $f.env\n\
             exec {}/egret < $f\n",
            self.bin.display()
        );
        fs::write(&witness, script).unwrap();
        crate::world::output(&["chmod", "755", witness.to_str().unwrap()]);
        self
    }

    /// What the witness got on standard input at a verb, oldest first; forgets it.
    pub(crate) fn witnessed(&self, verb: &str) -> Vec<Value> {
        let prefix = format!("witness.{verb}.");
        let mut files: Vec<_> = fs::read_dir(SCRATCH)
            .unwrap()
            .flatten()
            .filter(|f| f.file_name().to_string_lossy().starts_with(&prefix))
            .map(|f| f.path())
            .filter(|path| path.extension().is_some_and(|e| e != "env"))
            .collect();
        files.sort_by_key(|f| fs::metadata(f).unwrap().modified().unwrap());
        let read = |file: PathBuf| {
            let text = fs::read(&file).unwrap();
            fs::remove_file(&file).unwrap();
            serde_json::from_slice(&text).unwrap()
        };
        files.into_iter().map(read).collect()
    }
}

/// host-local with both families.
fn ipam() -> Value {
    json!({
        "type": "host-local",
        "ranges": [[{"subnet": "10.88.0.0/24"}], [{"subnet": "fd00:88::/64"}]],
        "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]
    })
}

/// The bridge plugin.
pub(crate) fn bridge() -> Value {
    json!({"type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": true, "ipam": ipam()})
}

/// The ptp plugin.
pub(crate) fn ptp() -> Value {
    json!({"type": "ptp", "ipMasq": true, "ipam": ipam()})
}

/// The portmap plugin.
pub(crate) fn portmap() -> Value {
    json!({"type": "portmap", "capabilities": {"portMappings": true}, "snat": true})
}

/// Our entry; `kind` is `egret` or `witness`.
pub(crate) fn ours(kind: &str) -> Value {
    json!({"type": kind, "nodeName": "n1", "capabilities": {ANNOTATIONS: true}})
}
