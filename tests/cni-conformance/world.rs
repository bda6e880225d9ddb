//! A world for one story: its own mounts and namespaces, gone with the thread; and calls of the built plugin in it.
//!
//! Given a [`World`], a [`Call`] yields an [`Outcome`], which already keeps the general rules G1–G5 of every reply.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use serde_json::{Value, json};

/// The program under test: the release that `scripts/test` built, else cargo's.
pub(crate) fn egret() -> PathBuf {
    std::env::var_os("EGRET_BIN").map_or_else(|| env!("CARGO_BIN_EXE_egret").into(), PathBuf::from)
}

/// What a pod is to Egret. Stories that must hold for every pod run once per kind; what a kind needs in the state
/// directory is written by [`World::prepare`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// No policy selects it.
    Unselected,
    /// Its annotation selects gateways. There are none, so its traffic is held, by everything that a client has.
    Client,
    /// It is a gateway with an address of the pool `blue`.
    Gateway,
}

/// Every kind of pod.
pub(crate) const KINDS: [Kind; 3] = [Kind::Unselected, Kind::Client, Kind::Gateway];

/// What the runtime passes of a pod's annotations.
pub(crate) const ANNOTATIONS: &str = "io.kubernetes.cri.pod-annotations";

/// Tells a story in a world of its own, once per kind of pod.
pub(crate) fn for_every_pod(story: impl Fn(&World) + Sync) {
    for kind in KINDS {
        in_a_world(kind, &story);
    }
}

/// Tells a story about a pod without egress.
pub(crate) fn for_an_unselected_pod(story: impl Fn(&World) + Sync) {
    in_a_world(Kind::Unselected, &story);
}

/// Tells a story about a client.
pub(crate) fn for_a_client(story: impl Fn(&World) + Sync) {
    in_a_world(Kind::Client, &story);
}

fn in_a_world(kind: Kind, story: &(impl Fn(&World) + Sync)) {
    let told = std::thread::scope(|threads| threads.spawn(|| story(&World::new(kind))).join());
    if let Err(panic) = told {
        eprintln!("in a world with a pod of kind {kind:?}");
        std::panic::resume_unwind(panic);
    }
}

/// A node of its own: an empty network namespace, private mounts, and one pod namespace named `a` with `eth0` in it.
pub(crate) struct World {
    pub(crate) kind: Kind,
}

/// Where tests put files; on the world's own tmpfs.
pub(crate) const SCRATCH: &str = "/run/story";
/// Where the records of node `n1` lie.
pub(crate) const RECORDS: &str = "/run/egret/n1/attachments";

impl World {
    fn new(kind: Kind) -> World {
        let private = CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET;
        unshare(private).expect("needs root: a story runs in namespaces of its own");
        let none: Option<&str> = None;
        mount(none, "/", none, MsFlags::MS_PRIVATE | MsFlags::MS_REC, none).expect("private mounts");
        for folder in ["/run", "/var/lib/egret", "/var/lib/cni"] {
            fs::create_dir_all(folder).expect(folder);
            mount(Some("tmpfs"), folder, Some("tmpfs"), MsFlags::empty(), none).expect("tmpfs");
        }
        fs::create_dir_all(SCRATCH).unwrap();
        fs::create_dir_all("/run/netns").unwrap();
        ip(&["link", "set", "lo", "up"]);
        let world = World { kind };
        world.netns("a");
        ip(&["link", "add", "vetha", "type", "veth", "peer", "name", "eth0", "netns", "/run/netns/a"]);
        output(&["nsenter", "--net=/run/netns/a", "ip", "addr", "add", "10.1.2.3/24", "dev", "eth0"]);
        world.prepare();
        world
    }

    /// What the node and the cluster need so that pods of this kind can be wired.
    fn prepare(&self) {
        if self.kind == Kind::Unselected {
            return;
        }
        ip(&["link", "add", "up0", "type", "veth", "peer", "name", "router0"]);
        ip(&["addr", "add", "192.0.2.11/24", "dev", "up0"]);
        ip(&["addr", "add", "10.10.0.200/24", "dev", "up0"]); // a second subnet, of which the pool is a part
        ip(&["link", "set", "up0", "up"]);
        ip(&["link", "set", "router0", "up"]);
        wait_until("the uplink is up", || output(&["ip", "link", "show", "up0"]).contains("state UP"));
        fs::create_dir_all("/var/lib/egret/objects").unwrap();
        let objects = json!({"apiVersion": "v1", "kind": "List", "items": [
            {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"},
             "status": {"addresses": [{"type": "InternalIP", "address": "192.0.2.11"}]}},
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "ns1"}},
            {"apiVersion": "egret.dev/v1alpha1", "kind": "EgressPool", "metadata": {"name": "blue"},
             "spec": {"cidr": "10.10.0.0/25", "gatewayNamespaces": "all()", "cooldownSeconds": 0}}
        ]});
        fs::write("/var/lib/egret/objects/cluster.json", objects.to_string()).unwrap();
    }

    /// The annotations that make a pod be of this kind.
    pub(crate) fn annotations(&self) -> Option<Value> {
        match self.kind {
            Kind::Unselected => None,
            Kind::Client => Some(json!({"egress.projectcalico.org/selector": "role == 'gateway'"})),
            Kind::Gateway => Some(json!({"cni.projectcalico.org/ipv4pools": "[\"blue\"]"})),
        }
    }

    /// Makes a pod's network namespace, named as a runtime does it.
    pub(crate) fn netns(&self, name: &str) -> PathBuf {
        let path = Path::new("/run/netns").join(name);
        File::create(&path).unwrap();
        std::thread::scope(|threads| {
            threads.spawn(|| {
                unshare(CloneFlags::CLONE_NEWNET).unwrap();
                bind("/proc/thread-self/ns/net", &path);
            });
        });
        path
    }

    /// Removes a namespace as a runtime does it.
    pub(crate) fn remove_netns(&self, name: &str) {
        let path = Path::new("/run/netns").join(name);
        nix::mount::umount2(&path, nix::mount::MntFlags::MNT_DETACH).unwrap();
        fs::remove_file(path).unwrap();
    }

    /// A call with the environment and standard input that scenarios build on.
    pub(crate) fn call(&self, verb: &str) -> Call {
        let env = [
            ("CNI_COMMAND", verb),
            ("CNI_CONTAINERID", "c1"),
            ("CNI_NETNS", "/run/netns/a"),
            ("CNI_IFNAME", "eth0"),
            ("CNI_PATH", "/opt/cni/bin"),
            (
                "CNI_ARGS",
                "IgnoreUnknown=1;K8S_POD_NAMESPACE=ns1;K8S_POD_NAME=p1;K8S_POD_INFRA_CONTAINER_ID=c1;K8S_POD_UID=u1",
            ),
        ];
        Call {
            annotations: self.annotations(),
            env: env.map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
            stdin: Stdin::Json(entry("1.1.0")),
            stdout: Stdout::Pipe,
        }
    }

    /// ADD that must succeed.
    pub(crate) fn add(&self, container_id: &str) -> Value {
        self.call("ADD").container(container_id).run().succeeds()
    }

    /// Whether the node's kernel holds what a pod of this kind with this address must have, so that a story about a pod
    /// with egress is one.
    pub(crate) fn is_wired(&self, address: &str) -> bool {
        match self.kind {
            Kind::Unselected => !output(&["nft", "list", "ruleset"]).contains("egret"),
            Kind::Client => output(&["nft", "list", "ruleset"]).contains(&format!("{address} : ")),
            Kind::Gateway => output(&["ip", "route", "show", "table", "all"]).contains("dev eg"),
        }
    }

    /// The records, as `NETWORK/FILE`, drafts included.
    pub(crate) fn records(&self) -> Vec<String> {
        let mut found = Vec::new();
        for network in fs::read_dir(RECORDS).into_iter().flatten().flatten() {
            for file in fs::read_dir(network.path()).unwrap().flatten() {
                found.push(format!("{}/{}", network.file_name().display(), file.file_name().display()));
            }
        }
        found.sort();
        found
    }

    /// Everything an operator could list and every file that means something, to compare before and after: not folders, not
    /// locks, not what can be deleted at any time, nor the configuration that a call leaves for those who have none.
    pub(crate) fn dump(&self) -> Dump {
        let mut lines = self.kernel().0;
        for folder in ["/run/egret", "/var/lib/egret", "/run/netns", SCRATCH] {
            if Path::new(folder).exists() {
                let passing =
                    ["-not", "-path", "*/cache/*", "-not", "-name", "lock", "-not", "-name", "config.json"];
                let files = [&["-type", "f"][..], &passing].concat();
                let files = output(&[&["find", folder][..], &files, &["-printf", "%p %s %i\\n"]].concat());
                lines.extend(files.lines().map(ToOwned::to_owned));
            }
        }
        Dump(lines)
    }

    /// The kernel's part of a dump: the node's namespace and the pod's.
    pub(crate) fn kernel(&self) -> Dump {
        let pod = Some("/run/netns/a").filter(|path| Path::new(path).exists());
        let pod = pod.map(|path| kernel_of(Some(path))).unwrap_or_default();
        Dump([kernel_of(None), pod].concat())
    }

    /// The node's namespace alone. What a gateway has in its own goes with that namespace, not with DEL.
    pub(crate) fn node_kernel(&self) -> Dump {
        Dump(kernel_of(None))
    }
}

/// Without what the kernel does by itself meanwhile: an address of IPv6 is tentative for its first second or two.
fn kernel_of(netns: Option<&str>) -> Vec<String> {
    let listings: [&[&str]; 6] = [
        &["ip", "-d", "addr"],
        &["ip", "rule"],
        &["ip", "-6", "rule"],
        &["ip", "route", "show", "table", "all"],
        &["ip", "-6", "route", "show", "table", "all"],
        &["nft", "-s", "list", "ruleset"],
    ];
    let inside = netns.map(|netns| format!("--net={netns}"));
    let enter: Vec<&str> = inside.iter().flat_map(|net| ["nsenter", net.as_str()]).collect();
    let mut lines = Vec::new();
    for listing in listings {
        let listed = output(&[&enter[..], listing].concat());
        lines.extend(listed.lines().map(|line| line.replace(" tentative", "")));
    }
    lines
}

/// Waits until something is so; it must come to that within 5 s.
pub(crate) fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < Duration::from_secs(5), "still not so after 5 s: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Lines of listings; compared, it shows what differs and nothing else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Dump(Vec<String>);

impl Dump {
    /// It must be as it was.
    pub(crate) fn is_as(&self, before: &Dump) {
        let gone: Vec<_> = before.0.iter().filter(|line| !self.0.contains(line)).collect();
        let new: Vec<_> = self.0.iter().filter(|line| !before.0.contains(line)).collect();
        assert!(self == before, "gone: {gone:#?}\nnew: {new:#?}");
    }
}

/// Binds a file over another.
pub(crate) fn bind(from: &str, onto: &Path) {
    let none: Option<&str> = None;
    mount(Some(from), onto, none, MsFlags::MS_BIND, none).expect("bind mount");
}

/// Runs `ip` with these arguments.
pub(crate) fn ip(args: &[&str]) {
    output(&[&["ip"], args].concat());
}

/// Runs a command that must succeed, and returns what it printed.
pub(crate) fn output(command: &[&str]) -> String {
    let run = Command::new(command[0]).args(&command[1..]).stdin(Stdio::null()).output();
    let run = run.unwrap_or_else(|e| panic!("needs `{}`: {e}; `scripts/tools` installs it", command[0]));
    assert!(run.status.success(), "{command:?}: {}", String::from_utf8_lossy(&run.stderr));
    String::from_utf8_lossy(&run.stdout).into_owned()
}

/// A result with one interface and one address, as a primary plugin gives it.
pub(crate) fn result(version: &str) -> Value {
    let mut ip = json!({"interface": 1, "address": "10.1.2.3/24", "gateway": "10.1.2.1"});
    if version < "1" {
        ip["version"] = "4".into();
    }
    json!({
        "cniVersion": version,
        "interfaces": [
            {"name": "vetha", "mac": "aa:aa:aa:aa:aa:01"},
            {"name": "eth0", "mac": "aa:aa:aa:aa:aa:02", "sandbox": "/run/netns/a"}
        ],
        "ips": [ip],
        "routes": [{"dst": "0.0.0.0/0"}],
        "dns": {}
    })
}

/// Egret's part of a list, as libcni passes it.
pub(crate) fn entry(version: &str) -> Value {
    json!({"cniVersion": version, "name": "net", "type": "egret", "nodeName": "n1", "prevResult": result(version)})
}

/// What comes on standard input.
enum Stdin {
    Json(Value),
    Bytes(Vec<u8>),
    /// Nothing, and it stays open.
    Open,
}

#[derive(PartialEq)]
enum Stdout {
    Pipe,
    /// A pipe that nobody reads.
    Broken,
    /// Descriptor 1 does not exist.
    Closed,
}

/// One call of the plugin.
pub(crate) struct Call {
    /// Added to a JSON standard input that says nothing of annotations.
    annotations: Option<Value>,
    env: BTreeMap<String, String>,
    stdin: Stdin,
    stdout: Stdout,
}

impl Call {
    pub(crate) fn env(mut self, name: &str, value: &str) -> Call {
        self.env.insert(name.to_owned(), value.to_owned());
        self
    }

    pub(crate) fn without(mut self, name: &str) -> Call {
        self.env.remove(name);
        self
    }

    /// Another container, of another pod.
    pub(crate) fn container(self, id: &str) -> Call {
        let args = format!("K8S_POD_NAMESPACE=ns1;K8S_POD_NAME=p-{id};K8S_POD_UID=u-{id}");
        self.env("CNI_CONTAINERID", id).env("CNI_ARGS", &args)
    }

    /// Standard input as a whole.
    pub(crate) fn json(mut self, value: Value) -> Call {
        self.stdin = Stdin::Json(value);
        self
    }

    /// The usual standard input in another version.
    pub(crate) fn version(self, version: &str) -> Call {
        self.json(entry(version))
    }

    /// The usual standard input with a key laid over it.
    pub(crate) fn with(mut self, key: &str, value: impl Into<Value>) -> Call {
        if let Stdin::Json(entry) = &mut self.stdin {
            entry[key] = value.into();
        }
        self
    }

    /// The usual standard input without a key.
    pub(crate) fn lacking(mut self, key: &str) -> Call {
        if let Stdin::Json(entry) = &mut self.stdin {
            entry.as_object_mut().unwrap().shift_remove(key);
        }
        self
    }

    pub(crate) fn bytes(mut self, bytes: impl Into<Vec<u8>>) -> Call {
        self.stdin = Stdin::Bytes(bytes.into());
        self
    }

    pub(crate) fn stdin_stays_open(mut self) -> Call {
        self.stdin = Stdin::Open;
        self
    }

    pub(crate) fn nobody_reads_stdout(mut self) -> Call {
        self.stdout = Stdout::Broken;
        self
    }

    pub(crate) fn stdout_closed(mut self) -> Call {
        self.stdout = Stdout::Closed;
        self
    }

    /// Starts it and gives it its input.
    pub(crate) fn start(&self) -> Child {
        let program = egret();
        let mut command = Command::new("/bin/sh");
        if self.stdout == Stdout::Closed {
            command.args(["-c", "exec \"$0\" >&-"]).arg(&program);
        } else {
            command = Command::new(&program);
        }
        let command = command.env_clear().envs(&self.env);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|e| panic!("cannot start {}: {e}", program.display()));
        if self.stdout == Stdout::Broken {
            drop(child.stdout.take());
        }
        let bytes = match &self.stdin {
            Stdin::Json(value) => {
                let mut value = value.clone();
                if let (Some(annotations), None) = (&self.annotations, value.get("runtimeConfig")) {
                    value["runtimeConfig"] = json!({ ANNOTATIONS: annotations });
                }
                value.to_string().into_bytes()
            }
            Stdin::Bytes(bytes) => bytes.clone(),
            Stdin::Open => return child,
        };
        // A plugin may end without reading; that is no fault of the caller.
        let _ = child.stdin.take().unwrap().write_all(&bytes);
        child
    }

    /// Runs it to its end, which must come within 20 s, and checks G1–G5.
    pub(crate) fn run(self) -> Outcome {
        let child = self.start();
        let output = finish(child, Duration::from_secs(20));
        let verb = self.env.get("CNI_COMMAND").cloned().unwrap_or_default();
        let version = match &self.stdin {
            Stdin::Json(value) => value["cniVersion"].as_str().map(ToOwned::to_owned),
            _ => None,
        };
        let outcome = Outcome {
            exit: output.status.code().unwrap_or_else(|| panic!("{verb}: ended by {}", output.status)),
            stdout: String::from_utf8(output.stdout).expect("standard output is UTF-8"),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        };
        if self.stdout == Stdout::Pipe {
            outcome.keeps_the_general_rules(&verb, version.as_deref());
        }
        outcome
    }
}

/// Waits for a child and everything it printed; ends it when that takes too long.
pub(crate) fn finish(mut child: Child, limit: Duration) -> Output {
    let read = |pipe: Option<Box<dyn Read + Send>>| {
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            if let Some(mut pipe) = pipe {
                pipe.read_to_end(&mut bytes).unwrap();
            }
            bytes
        })
    };
    let stdout = read(child.stdout.take().map(|p| Box::new(p) as _));
    let stderr = read(child.stderr.take().map(|p| Box::new(p) as _));
    let start = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if start.elapsed() > limit {
            child.kill().unwrap();
            panic!(
                "no end after {limit:?}; standard error so far: {}",
                String::from_utf8_lossy(&stderr.join().unwrap())
            );
        }
        std::thread::sleep(Duration::from_micros(200));
    };
    Output { status, stdout: stdout.join().unwrap(), stderr: stderr.join().unwrap() }
}

/// What a call came to.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) exit: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Outcome {
    /// G1 one JSON error on standard output and exit status 1; G2 on success a result from ADD and nothing from the
    /// others; G3 in the caller's version; G4 no panic; G5 a code of the specification or of our own.
    fn keeps_the_general_rules(&self, verb: &str, version: Option<&str>) {
        assert!(!self.stderr.contains("panicked"), "{self:?}");
        let silent = matches!(verb, "DEL" | "CHECK" | "GC" | "STATUS");
        match (self.exit, silent) {
            (0, true) => assert_eq!(self.stdout, "", "{verb} prints nothing"),
            (0, false) if verb == "ADD" => assert_eq!(self.json()["cniVersion"].as_str(), version),
            (0, false) => {}
            (1, _) => {
                let error = self.json();
                let code = error["code"].as_u64().expect("`code` is a number");
                assert!(matches!(code, 1..=11 | 50 | 51 | 100..=199), "{error}");
                assert_ne!(code, 3, "3 tells the runtime that no DEL is needed");
                assert!(error["msg"].as_str().is_some_and(|msg| !msg.is_empty()), "{error}");
                let known = version.filter(|v| ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"].contains(v));
                if let (Some(version), false) = (known, code == 4) {
                    assert_eq!(error["cniVersion"], version);
                }
                if verb == "DEL" {
                    let text = self.stdout.to_lowercase();
                    assert!(
                        !text.contains("not found") && !text.contains("no such file or directory"),
                        "{text}"
                    );
                }
            }
            (exit, _) => panic!("exit status {exit}: {self:?}"),
        }
    }

    /// Standard output, which must be one JSON document.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("not one JSON document: {e}: {self:?}"))
    }

    /// It must have succeeded; what it printed.
    pub(crate) fn succeeds(&self) -> Value {
        assert_eq!(self.exit, 0, "{self:?}");
        if self.stdout.is_empty() { Value::Null } else { self.json() }
    }

    /// It must have failed with this code, and its text must hold these words.
    pub(crate) fn fails(&self, code: u64, words: &[&str]) {
        assert_eq!(self.exit, 1, "{self:?}");
        let error = self.json();
        assert_eq!(error["code"], code, "{error}");
        let text =
            format!("{} {}", error["msg"].as_str().unwrap_or(""), error["details"].as_str().unwrap_or(""));
        for word in words {
            assert!(text.contains(word), "`{word}` is missing in: {text}");
        }
    }
}

/// (device, inode) of a file.
pub(crate) fn identity(path: impl AsRef<Path>) -> (u64, u64) {
    let meta = fs::metadata(path).unwrap();
    (meta.dev(), meta.ino())
}
