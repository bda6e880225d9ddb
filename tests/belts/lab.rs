//! Two nodes, a gateway on the first, a client on each, and a second binary whose seat belts can be left out.
//!
//! In: names of belts to leave out. Out: a world wired by that build. The released build has no such knob: here it is the
//! crate's own `weakened` feature, built by the test into a target directory of its own.

use std::fs;
use std::net::IpAddr;
use std::ops::Deref;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use egret::addr::Family;
use egret::egress::model::Endpoint;
use egret::egress::numbers;
use egret::kernel::state::{Scope, State};
use egret::kernel::{self, Netns, Place};
use egret::store::{Dir, endpoints};
use egret::testbed::{
    Capture, Leak, Outside, Packet, Pod, Primary, STATE_DIR, Topology, World, second_address, within,
};
use serde_json::Value;

use crate::traffic::{Meeting, WAIT};

/// The product as it is.
pub(crate) const EGRET: &str = env!("CARGO_BIN_EXE_egret");

const SELECTS_RED: [(&str, &str); 2] = [
    ("egress.projectcalico.org/selector", "egress-code == 'red'"),
    ("egress.projectcalico.org/namespaceSelector", "projectcalico.org/name == 'gw'"),
];
const WANTS_LEASES: [(&str, &str); 2] =
    [("cni.projectcalico.org/ipv4pools", "[\"red\"]"), ("cni.projectcalico.org/ipv6pools", "[\"red6\"]")];

/// A node says of its own accord, as any router does, that the lease of a gateway whose veth is gone cannot be reached; it says so
/// with its own address and seconds later. And where a leak was wanted, servers go on answering the node, which resets what it
/// no longer knows. Here it keeps silent, so that whatever shows a node's address is a pod's packet.
const SILENT_NODES: &str = "table inet silent { chain output { type filter hook output priority 0; \
    ip daddr 198.51.100.0/23 icmp type { destination-unreachable, time-exceeded, parameter-problem } drop; \
    ip6 daddr 2001:db8:fe::/47 icmpv6 type { destination-unreachable, packet-too-big, time-exceeded, \
    parameter-problem } drop; \
    ip daddr 198.51.100.0/23 tcp flags rst drop; ip6 daddr 2001:db8:fe::/47 tcp flags rst drop; }; }";

/// The world of every story here.
pub(crate) struct Lab {
    world: World,
    /// On node 1.
    pub(crate) gateway: Pod,
    /// On the gateway's node, and on the other.
    pub(crate) clients: Vec<Pod>,
    /// On the other node; nothing selects it.
    pub(crate) thief: Pod,
    /// On the gateway's node; nothing selects it either.
    pub(crate) neighbour: Pod,
    /// The clients leave by node 2 itself, and the pod gateway is gone.
    by_node: bool,
    _wrapper: Option<Wrapper>,
}

/// Folder of the script that starts the weakened build without certain belts; gone with its lab.
struct Wrapper(PathBuf);

impl Drop for Wrapper {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

impl Deref for Lab {
    type Target = World;
    fn deref(&self) -> &World {
        &self.world
    }
}

/// The same crate with the feature `weakened`, built once.
fn weakened() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/weakened");
        let mut build = Command::new(option_env!("CARGO").unwrap_or("cargo"));
        build.current_dir(env!("CARGO_MANIFEST_DIR")).args(["build", "--bin", "egret"]);
        build.args(["--features", "weakened", "--locked", "--target-dir"]).arg(&target);
        let output = build.output().expect("cargo is needed to build the weakened binary");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "the weakened binary does not build:\n{said}");
        target.join("debug/egret")
    })
}

impl Lab {
    /// Raises it. `ptp`: every pod has a device of its own at the node, so that one can tell whose packet it is. Reverse-path
    /// filtering is off: it would hide what the belts are for, and IPv6 has none.
    pub(crate) fn raise() -> Lab {
        Lab::with(EGRET.into(), false)
    }

    /// The same with node 2 as the gateway, which leaves by its second uplink and with addresses that nothing else there takes.
    pub(crate) fn raise_by_node() -> Lab {
        Lab::with(EGRET.into(), true)
    }

    /// The same, wired by the weakened build with all belts on; see [`Lab::without`].
    pub(crate) fn weakened() -> Lab {
        Lab::weakened_with(false)
    }

    /// [`Lab::raise_by_node`], wired by the weakened build.
    pub(crate) fn weakened_by_node() -> Lab {
        Lab::weakened_with(true)
    }

    fn weakened_with(by_node: bool) -> Lab {
        weakened();
        static LABS: AtomicUsize = AtomicUsize::new(0);
        let number = LABS.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("egret-belts-{}-{number}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        write_wrapper(&folder.join("egret"), &[]);
        let lab = Lab::with(folder.join("egret"), by_node);
        Lab { _wrapper: Some(Wrapper(folder)), ..lab }
    }

    fn with(egret: PathBuf, by_node: bool) -> Lab {
        let topology = Topology {
            nodes: 2,
            primary: Primary::Ptp,
            strict_rp_filter: false,
            second_uplink: by_node,
            egret: Some(egret),
            ..Topology::default()
        };
        let world = World::raise(topology).unwrap();
        for node in world.nodes() {
            node.feed("nft", &["-f", "-"], SILENT_NODES).unwrap();
        }
        for (name, cidr) in [("red", "10.10.10.0/28"), ("red6", "fd00:10:10::10/124")] {
            let yaml = format!(
                "apiVersion: egret.dev/v1alpha1\nkind: EgressPool\nmetadata: {{name: {name}}}\n\
                 spec: {{cidr: '{cidr}', gatewayNamespaces: all(), clientNamespaces: all()}}\n"
            );
            world.object(&yaml).unwrap();
        }
        world.namespace("gw", &[], &[]).unwrap();
        world.namespace("shop", &[], if by_node { &[] } else { &SELECTS_RED }).unwrap();
        let gateway = add_gateway(&world, 1, "g1");
        if by_node {
            world.del_pod(&gateway).unwrap();
            let add =
                Family::BOTH.map(|family| format!("ip address add {} dev eth1", exit_address(family, true)));
            world.node(2).sh(&add.join("; ")).unwrap();
            world.node(2).feed("nft", &["-f", "-"], &strays()).unwrap();
            world.object(&exit_policy()).unwrap();
            // Nodes say their interfaces at the first, and read the others' at the second.
            world.settle().unwrap();
            world.settle().unwrap();
        }
        let clients = [1, 2].map(|node| world.add_pod(node, &format!("shop/c{node}")).unwrap()).into();
        let [thief, neighbour] = [(2, "plain/thief"), (1, "plain/neighbour")]
            .map(|(node, name)| world.add_pod(node, name).unwrap());
        Lab { world, gateway, clients, thief, neighbour, by_node, _wrapper: None }
    }

    /// One more gateway of the clients.
    pub(crate) fn add_gateway(&self, node: u8, name: &str) -> Pod {
        add_gateway(&self.world, node, name)
    }

    /// Binds or unbinds both clients: their namespace's annotations come or go, and both nodes reconcile.
    pub(crate) fn bind(&self, bound: bool) {
        if self.by_node {
            match bound {
                true => drop(self.object(&exit_policy()).unwrap()),
                false => self.remove_object("EgressGatewayPolicy", None, "by-node").unwrap(),
            }
            return self.settle().unwrap();
        }
        self.namespace("shop", &[], if bound { &SELECTS_RED } else { &[] }).unwrap();
        self.settle().unwrap();
    }

    /// From now on both nodes and the gateway lack these belts.
    pub(crate) fn without(&self, belts: &[&str]) {
        write_wrapper(self.topology().egret.as_ref().unwrap(), belts);
        self.settle().unwrap();
    }

    /// The clients, as the capture wants them.
    pub(crate) fn selected(&self) -> Vec<&Pod> {
        self.clients.iter().collect()
    }

    /// Where the gateway is.
    pub(crate) fn endpoint(&self) -> Endpoint {
        let (endpoints, _) = endpoints::list(&Dir::at(Path::new(STATE_DIR)).unwrap()).unwrap();
        endpoints.into_iter().find(|e| e.pod == self.gateway.name).unwrap()
    }

    /// The gateway's lease, or the address that the node gateway leaves with.
    pub(crate) fn lease(&self, family: Family) -> IpAddr {
        if self.by_node {
            return exit_address(family, false).parse().unwrap();
        }
        self.endpoint().addresses.iter().map(|a| a.ip).find(|ip| Family::of(*ip) == family).unwrap()
    }

    /// Steps that the product would take on a node now, by place, as text. It takes none.
    pub(crate) fn missing(&self, node: u8) -> Vec<String> {
        let list = self.conflist_path(node).display().to_string();
        let mut command = self.node(node).command(EGRET).unwrap();
        let output =
            command.args(["reconcile", "--dry-run", "--config", &list, "-o", "json"]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        let report: Value =
            serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("dry run: {e}: {said}"));
        let items = report["items"].as_array().unwrap();
        assert!(!items.is_empty(), "a dry run that looked at nothing proves nothing");
        let steps = items.iter().flat_map(|item| item["pending"].as_array().unwrap());
        steps.map(|step| step.as_str().map_or_else(|| step.to_string(), str::to_owned)).collect()
    }

    /// Every namespace that holds something of ours.
    pub(crate) fn holders(&self) -> Vec<Holder> {
        let node = |n: u8| {
            Holder::new(&format!("node {n}"), self.node(n).path(), self.node(n).path(), numbers::node_scope())
        };
        let mut all = vec![node(1), node(2)];
        if !self.by_node {
            let inside = self.gateway.place().path();
            all.push(Holder::new("gateway", inside, self.node(1).path(), numbers::gateway_scope()));
        }
        all
    }

    /// Forgets every connection, in the gateway and on both nodes. The gateway is first: what a busy machine's servers answer late
    /// ends there. Were a client's node first, a late answer would open its flow there from outside inwards, which is a fault of its own.
    pub(crate) fn forget_all(&self) {
        if !self.by_node {
            forget(self.gateway.place());
        }
        self.nodes().for_each(|node| forget(&node));
    }

    /// Packets of the window that show what no selected pod may show; `None` when one of them was never heard, though there was time.
    pub(crate) fn leaked(&self, capture: &Capture) -> Option<Vec<Packet>> {
        let is_heard = || !matches!(capture.verdict(&self.selected()), Err(Leak::Unheard(_)));
        within(WAIT, Duration::from_millis(10), is_heard);
        match capture.verdict(&self.selected()) {
            Ok(_) if self.by_node => Some(self.undeclared(capture)),
            Ok(_) => Some(Vec::new()),
            Err(Leak::Forbidden(packets, _)) => Some(packets),
            Err(Leak::Unheard(_)) => None,
            Err(leak @ Leak::Dropped(_)) => panic!("{leak}"),
        }
    }

    /// Packets with the address that the node gateway's interface has, and that no policy names.
    fn undeclared(&self, capture: &Capture) -> Vec<Packet> {
        let own = Family::BOTH.map(|family| second_address(2, family));
        capture.packets().into_iter().filter(|packet| own.contains(&packet.source)).collect()
    }

    /// Packets since the last time that left node 2 by its first uplink with an address of the second.
    pub(crate) fn strays(&self) -> usize {
        if !self.by_node {
            return 0;
        }
        let said = self.node(2).sh("nft reset counter inet strays seen").unwrap();
        let mut words = said.split_whitespace().skip_while(|word| *word != "packets");
        words.nth(1).unwrap().parse().unwrap()
    }

    /// Nothing leaked, and both clients were heard.
    #[track_caller]
    pub(crate) fn assert_clean(&self, capture: &Capture, after: &str) {
        let leaked = self.leaked(capture);
        let leaked = leaked.unwrap_or_else(|| panic!("after {after}: a client was never heard"));
        let lines: Vec<String> = leaked.iter().take(12).map(ToString::to_string).collect();
        assert_eq!(self.strays(), 0, "after {after}: they left by another interface");
        assert!(leaked.is_empty(), "after {after}: {} packets leaked:\n{}", leaked.len(), lines.join("\n"));
    }

    /// Long connections of both clients, used once.
    pub(crate) fn meetings(&self) -> Vec<Meeting> {
        let outside = Netns::open(self.outside(Outside::Near).path()).unwrap();
        self.clients.iter().map(|pod| Meeting::arrange(pod, &outside)).collect()
    }

    /// Whether an address is a client's own.
    pub(crate) fn is_clients(&self, ip: IpAddr) -> bool {
        self.clients.iter().any(|pod| pod.addresses.contains(&ip))
    }

    /// An address outside.
    pub(crate) fn outside_address(family: Family) -> IpAddr {
        Outside::Near.address(family)
    }
}

/// `conntrack -F` in a place.
pub(crate) fn forget(place: &egret::testbed::Place) {
    place.sh("conntrack -F 2>/dev/null").unwrap();
}

/// Addresses of node 2's second uplink beside those that it has anyway, and that a masquerade would take.
fn exit_address(family: Family, with_prefix: bool) -> &'static str {
    match (family, with_prefix) {
        (Family::V4, false) => "172.31.2.77",
        (Family::V4, true) => "172.31.2.77/24",
        (Family::V6, false) => "fd00:172:31:2::77",
        // Deprecated, or the kernel would prefer it to the other.
        (Family::V6, true) => "fd00:172:31:2::77/64 nodad preferred_lft 0",
    }
}

/// Counts behind everybody's rules.
fn strays() -> String {
    let [v4, v6] = Family::BOTH.map(|family| exit_address(family, false));
    format!(
        "table inet strays {{ counter seen {{}}; chain post {{ type filter hook postrouting priority 400;\n\
         oifname eth0 ip saddr {v4} counter name seen;\noifname eth0 ip6 saddr {v6} counter name seen;\n}}; }}"
    )
}

fn exit_policy() -> String {
    let rule = |family: Family| {
        format!(
            "\n  - destination: {{cidr: '{}'}}\n    gateway: {{nodes: [{{nodeSelector: \"kubernetes.io/hostname == 'node2'\", egressIP: '{}'}}]}}",
            family.everything(),
            exit_address(family, false)
        )
    };
    format!(
        "apiVersion: egret.dev/v1alpha1\nkind: EgressGatewayPolicy\nmetadata: {{name: by-node}}\nspec:\n  \
         selectors: [{{namespaceSelector: \"projectcalico.org/name == 'shop'\"}}]\n  rules:{}\n",
        Family::BOTH.map(rule).concat()
    )
}

fn add_gateway(world: &World, node: u8, name: &str) -> Pod {
    let name = format!("gw/{name}");
    world.pod_object(&name, &[("egress-code", "red")], &WANTS_LEASES, node).unwrap();
    world.add_pod(node, &name).unwrap()
}

fn write_wrapper(path: &Path, without: &[&str]) {
    let (belts, egret) = (without.join(","), weakened().display());
    let text = format!("#!/bin/sh\nEGRET_WITHOUT_BELTS={belts} exec {egret} \"$@\"\n");
    let fresh = path.with_extension("new");
    fs::write(&fresh, text).unwrap();
    fs::set_permissions(&fresh, fs::Permissions::from_mode(0o755)).unwrap();
    fs::rename(&fresh, path).unwrap();
}

/// A namespace with something of ours in it.
pub(crate) struct Holder {
    /// What people call it.
    pub(crate) name: String,
    here: Netns,
    home: Netns,
    scope: Scope,
}

impl Holder {
    fn new(name: &str, here: PathBuf, home: PathBuf, scope: Scope) -> Holder {
        let (here, home) = (Netns::open(here).unwrap(), Netns::open(home).unwrap());
        Holder { name: name.to_owned(), here, home, scope }
    }

    /// What it holds.
    pub(crate) fn state(&self) -> State {
        let place = Place { here: &self.here, home: &self.home };
        kernel::observe(&place, &self.scope, std::iter::empty()).unwrap()
    }

    /// Takes one thing away behind the product's back.
    pub(crate) fn take(&self, step: &kernel::Step) {
        let place = Place { here: &self.here, home: &self.home };
        let report = kernel::apply(&place, &self.scope, std::slice::from_ref(step)).unwrap();
        assert_eq!(report.failed, [], "{}: {step}", self.name);
    }
}
