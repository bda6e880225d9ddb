//! A world for one story: its own mounts and namespaces, gone with the thread. What is called in it: [`Call`].

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use serde_json::{Value, json};

use crate::call::{AN_END, Call};

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
        // Else the kernel goes on for a second or two with addresses of IPv6 that it makes by itself, between two listings.
        fs::write("/proc/sys/net/ipv6/conf/default/accept_dad", "0").unwrap();
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
        // A call without a Node object takes the machine's way out for its underlay.
        ip(&["route", "add", "default", "via", "192.0.2.1", "dev", "up0"]);
        ip(&["link", "set", "router0", "up"]);
        wait_until("the uplink is up", || output(&["ip", "link", "show", "up0"]).contains("state UP"));
        // Both ends have their routes: `local` comes with the address, the multicast one when the carrier is there.
        wait_until("the kernel made its routes of IPv6", || {
            let routes = output(&["ip", "-6", "route", "show", "table", "local"]);
            ["up0", "router0"].iter().all(|dev| {
                routes.contains(&format!("dev {dev} "))
                    && routes.lines().any(|line| line.starts_with("local fe80") && line.contains(dev))
            })
        });
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
        Call::of(verb, self.annotations())
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
            // A lease's route leads to a device of its own, `eg` and digits; `egress.vxlan`, which stays, has routes of the kernel's.
            Kind::Gateway => {
                let routes = output(&["ip", "route", "show", "table", "main"]);
                routes.lines().any(|route| {
                    let dev =
                        route.split_whitespace().skip_while(|word| *word != "dev").nth(1).unwrap_or_default();
                    dev.starts_with("eg") && !dev.starts_with("egress")
                })
            }
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

/// Waits until something is so; it must come to that within two minutes.
pub(crate) fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < AN_END, "still not so after {AN_END:?}: {what}");
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

/// (device, inode) of a file.
pub(crate) fn identity(path: impl AsRef<Path>) -> (u64, u64) {
    let meta = fs::metadata(path).unwrap();
    (meta.dev(), meta.ino())
}
