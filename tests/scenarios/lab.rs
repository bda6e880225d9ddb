//! A world with Egret chained, two pools, and the words that stories are told in.
//!
//! In: a topology. Out: gateways, clients, plain pods, and the one judgement all stories share: the address that the
//! outside saw is one that `egret explain` said it would see.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::ops::Deref;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use egret::addr::Family;
use egret::egress::explain::{Explanation, Verdict};
use egret::store::{Dir, endpoints};
use egret::testbed::{
    CnitoolError, Masquerade, Outside, Place, Pod, STATE_DIR, Topology, World, faults, node_address,
};
use serde_json::Value;

/// Worlds that stand at a time: each runs plugins and traffic, and probes wait only so long.
const WORLDS: usize = 2;
static STANDING: (Mutex<usize>, Condvar) = (Mutex::new(0), Condvar::new());

/// Pools of every lab: sixteen addresses each, in the fabric's second subnet. The lowest IPv6 address of the subnet is
/// the routers' anycast address (RFC 4291 §2.6.1), so the pool begins higher.
pub(crate) const POOLS: [(&str, &str); 2] = [("red", "10.10.10.0/28"), ("red6", "fd00:10:10::10/124")];
/// Annotations of a pod that wants to be a gateway of them.
pub(crate) const WANTS_LEASES: [(&str, &str); 2] =
    [("cni.projectcalico.org/ipv4pools", "[\"red\"]"), ("cni.projectcalico.org/ipv6pools", "[\"red6\"]")];
/// Annotations of a client of the gateways in namespace `gw`.
pub(crate) const SELECTS_RED: [(&str, &str); 2] = [
    ("egress.projectcalico.org/selector", "egress-code == 'red'"),
    ("egress.projectcalico.org/namespaceSelector", "projectcalico.org/name == 'gw'"),
];

/// A world with Egret.
pub(crate) struct Lab {
    world: World,
    // Behind the world: the next one waits until this one is gone.
    _turn: Turn,
}

impl Deref for Lab {
    type Target = World;
    fn deref(&self) -> &World {
        &self.world
    }
}

struct Turn;

impl Turn {
    fn take() -> Turn {
        let (standing, freed) = (&STANDING.0, &STANDING.1);
        let guard = standing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut guard = freed.wait_while(guard, |n| *n >= WORLDS).unwrap_or_else(PoisonError::into_inner);
        *guard += 1;
        Turn
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        *STANDING.0.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        STANDING.1.notify_one();
    }
}

/// Ends traffic of other threads also when a story fails: a scope waits for them.
pub(crate) struct Stop<'a>(pub(crate) &'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Where a socket is bound that may use any address and port of this family.
pub(crate) fn anywhere(family: Family) -> SocketAddr {
    let ip: IpAddr = if family == Family::V4 { [0; 4].into() } else { [0u16; 8].into() };
    (ip, 0).into()
}

/// Egret chained behind the default primary, on this many nodes.
pub(crate) fn nodes(nodes: u8) -> Topology {
    Topology { nodes, egret: Some(env!("CARGO_BIN_EXE_egret").into()), ..Topology::default() }
}

impl Lab {
    /// A lab with both pools, whose gateways are in `gw` and serve everybody. Namespace `shop` is selected.
    pub(crate) fn raise(topology: Topology) -> Lab {
        let lab = Lab::bare(topology);
        for (name, cidr) in POOLS {
            lab.pool(name, cidr, "all()");
        }
        lab.namespace("gw", &[], &[]).unwrap();
        lab.namespace("shop", &[], &SELECTS_RED).unwrap();
        lab
    }

    /// A lab without objects.
    pub(crate) fn bare(topology: Topology) -> Lab {
        let turn = Turn::take();
        Lab { world: World::raise(topology).unwrap(), _turn: turn }
    }

    /// Writes a pool for gateways in `gw`.
    pub(crate) fn pool(&self, name: &str, cidr: &str, clients: &str) {
        self.object(&format!(
            "apiVersion: egret.dev/v1alpha1\nkind: EgressPool\nmetadata: {{name: {name}}}\n\
             spec: {{cidr: '{cidr}', gatewayNamespaces: \"projectcalico.org/name == 'gw'\", clientNamespaces: \"{clients}\"}}\n"
        ))
        .unwrap();
    }

    /// Adds a gateway pod `gw/NAME`, labelled `egress-code: red`, with a lease of each family the pods have.
    pub(crate) fn gateway(&self, node: u8, name: &str) -> Pod {
        self.try_gateway(node, name).unwrap()
    }

    /// The same, when it may fail.
    pub(crate) fn try_gateway(&self, node: u8, name: &str) -> Result<Pod, CnitoolError> {
        let name = format!("gw/{name}");
        self.pod_object(&name, &[("egress-code", "red")], &WANTS_LEASES, node).unwrap();
        self.add_pod(node, &name)
    }

    /// Adds a pod of the selected namespace `shop`.
    pub(crate) fn client(&self, node: u8, name: &str) -> Pod {
        let name = format!("shop/{name}");
        self.pod_object(&name, &[], &[], node).unwrap();
        self.add_pod(node, &name).unwrap()
    }

    /// Adds a pod that nothing selects.
    pub(crate) fn plain(&self, node: u8, name: &str) -> Pod {
        let name = format!("plain/{name}");
        self.pod_object(&name, &[], &[], node).unwrap();
        self.add_pod(node, &name).unwrap()
    }

    /// Given a pod that runs, it becomes a client, and its node has heard of it.
    pub(crate) fn is_selected(&self, pod: &Pod) {
        self.pod_object(&pod.name.to_string(), &[], &SELECTS_RED, pod.node).unwrap();
        self.settle().unwrap();
    }

    /// What `egret explain` on the pod's node says of a destination.
    pub(crate) fn explain(&self, pod: &Pod, to: IpAddr) -> Explanation {
        let (name, to) = (pod.name.to_string(), to.to_string());
        serde_json::from_value(self.json(pod.node, &["explain", &name, &to])).unwrap()
    }

    /// Sources that `egret explain` predicts; empty when it does not say `gateway`.
    pub(crate) fn predicted(&self, pod: &Pod, to: IpAddr) -> BTreeSet<IpAddr> {
        let explanation = self.explain(pod, to);
        assert_eq!(explanation.items.len(), 1, "{explanation}");
        let item = &explanation.items[0];
        assert_eq!(item.action == Verdict::Gateway, !item.sources.is_empty(), "{explanation}");
        item.sources.iter().copied().collect()
    }

    /// Runs `egret … -o json` on a node.
    pub(crate) fn json(&self, node: u8, arguments: &[&str]) -> Value {
        let list = self.conflist_path(node).display().to_string();
        let mut all = arguments.to_vec();
        all.extend(["--config", &list, "-o", "json"]);
        let output = self.egret(node, &all).unwrap();
        let document = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|e| panic!("egret {all:?}: {e}: {}", String::from_utf8_lossy(&output.stderr)));
        assert_eq!(faults(&document), Vec::<String>::new(), "egret {all:?}");
        document
    }

    /// `reason` of every problem that reconcile on a node names.
    pub(crate) fn reasons(&self, node: u8) -> Vec<String> {
        let report = self.json(node, &["reconcile"]);
        let problems = report["problems"].as_array().cloned().unwrap_or_default();
        problems.iter().filter_map(|p| Some(p["reason"].as_str()?.to_owned())).collect()
    }

    /// The egress address of a gateway, from its endpoint.
    pub(crate) fn lease(&self, gateway: &Pod, family: Family) -> IpAddr {
        let leases = self.leases(gateway);
        leases
            .into_iter()
            .find(|ip| Family::of(*ip) == family)
            .expect("the gateway has a lease of that family")
    }

    /// All egress addresses of a gateway.
    pub(crate) fn leases(&self, gateway: &Pod) -> Vec<IpAddr> {
        let dir = Dir::at(Path::new(STATE_DIR)).unwrap();
        let (endpoints, problems) = endpoints::list(&dir).unwrap();
        assert_eq!(problems, []);
        let own = endpoints.iter().find(|e| e.pod == gateway.name);
        let own = own.unwrap_or_else(|| panic!("{} has no endpoint", gateway.name));
        own.addresses.iter().map(|a| a.ip).collect()
    }

    /// Every family of the world to both outsides.
    pub(crate) fn destinations(&self) -> Vec<IpAddr> {
        let families = self.topology().families.list();
        Outside::BOTH.iter().flat_map(|at| families.iter().map(|f| at.address(*f))).collect()
    }

    /// The judgement: by TCP, UDP, HTTP and ICMP, both families, both outsides, the pod was seen with an address that
    /// explain predicted. Gives the sources.
    #[track_caller]
    pub(crate) fn leaves_as_predicted(&self, pod: &Pod) -> BTreeSet<IpAddr> {
        let mut all = BTreeSet::new();
        for to in self.destinations() {
            let predicted = self.predicted(pod, to);
            assert!(!predicted.is_empty(), "{} is no client for {to}: {}", pod.name, self.explain(pod, to));
            for (means, saw) in everything(pod, to) {
                let saw = saw.unwrap_or_else(|e| panic!("{} {means} to {to}: {e}", pod.name));
                assert!(predicted.contains(&saw), "{} {means} to {to}: {saw}, not {predicted:?}", pod.name);
                all.insert(saw);
            }
        }
        all
    }

    /// A pod without egress leaves as the primary network has it, and explain says so.
    #[track_caller]
    pub(crate) fn leaves_as_before(&self, pod: &Pod) {
        let hides = self.topology().masquerade != Masquerade::None;
        for to in self.destinations() {
            let explanation = self.explain(pod, to);
            assert!(explanation.items.iter().all(|i| i.action == Verdict::Direct), "{explanation}");
            let family = Family::of(to);
            let node = node_address(pod.node, family);
            let expected = if hides { node } else { pod.address(family).unwrap() };
            for (means, saw) in everything(pod, to) {
                let saw = saw.unwrap_or_else(|e| panic!("{} {means} to {to}: {e}", pod.name));
                assert_eq!(saw, expected, "{} {means} to {to}", pod.name);
            }
        }
    }

    /// Selected, and nothing serves it: TCP is reset, the rest prohibited, explain says held.
    #[track_caller]
    pub(crate) fn is_held(&self, pod: &Pod) {
        for to in self.destinations() {
            let explanation = self.explain(pod, to);
            let held = explanation.items.iter().all(|i| i.action == Verdict::Held);
            assert!(held && !explanation.items.is_empty(), "{explanation}");
            // A reset to a SYN reads as "connection refused".
            assert_eq!(kind(pod.tcp(to)), io::ErrorKind::ConnectionRefused, "{} tcp to {to}", pod.name);
            assert_eq!(kind(pod.udp(to)), prohibited(to), "{} udp to {to}", pod.name);
            assert!(pod.ping(to).is_err(), "{} ping to {to}", pod.name);
        }
    }
}

/// How an `icmpx admin-prohibited` reads on a connected UDP socket: EHOSTUNREACH in IPv4 (icmp(7)), EACCES in IPv6.
pub(crate) fn prohibited(to: IpAddr) -> io::ErrorKind {
    if to.is_ipv4() { io::ErrorKind::HostUnreachable } else { io::ErrorKind::PermissionDenied }
}

/// The kind of an expected failure.
#[track_caller]
pub(crate) fn kind<T: Debug>(result: io::Result<T>) -> io::ErrorKind {
    result.unwrap_err().kind()
}

/// Answers that must come. The kernel says a SYN or a neighbour solicitation again after a second, which is all that a
/// pod waits by itself.
fn everything(pod: &Pod, to: IpAddr) -> [(&'static str, io::Result<IpAddr>); 4] {
    let mut pod = pod.clone();
    pod.patience = Duration::from_secs(5);
    [("tcp", pod.tcp(to)), ("udp", pod.udp(to)), ("http", pod.http(to)), ("ping", pod.ping(to))]
}

/// Given a node that is to be emptied, it is, and says so.
#[track_caller]
pub(crate) fn is_emptied(lab: &Lab, node: u8) {
    let list = lab.conflist_path(node).display().to_string();
    let output = lab.egret(node, &["uninstall", "--config", &list]).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Everything a person could list. Counters, ages and learned neighbours are left out.
pub(crate) fn listing(node: &Place) -> String {
    node.sh(
        "ip -d link | sed -E 's/ (gc_timer|tcn_timer|hello_timer|topology_change_timer|hold_timer|message_age_timer|forward_delay_timer) +[0-9.]+//g'; ip addr | sed -E 's/[0-9]+sec/sec/g'
         for f in -4 -6; do ip $f route show table all | sed -E 's/ expires [0-9]+sec//' | sort; ip $f rule; ip $f neigh show nud permanent; ip $f neigh show proxy; done
         ip nexthop; bridge fdb show br dum0; nft -s list ruleset | sed -E 's/counter packets [0-9]+ bytes [0-9]+/counter/; s/(# handle|handle) [0-9]+//'
         iptables-save | grep -v '^[#:]' | sort; ip6tables-save | grep -v '^[#:]' | sort
         sysctl -a 2>/dev/null | grep '^net\\.' | grep -v 'nf_conntrack_count\\|stable_secret\\|route.flush\\|\\.stat\\.' | sort",
    )
    .unwrap()
}
