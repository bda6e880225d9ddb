//! A node's life at random: pods come, go and vanish, objects change, machines start anew, in any order. After every step the
//! same judgement; at the end everything is deleted and uninstalled, and the nodes are as they were.

mod judgement;

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;

use egret::testbed::{Pod, RUN_DIR, Topology};
use judgement::bare;

use crate::books::{gc, said};
use crate::killed_anywhere::{Dice, number};
use crate::lab::{Lab, SELECTS_RED, WANTS_LEASES, nodes};

const NODES: u8 = 2;
/// Names that pods take again and again: fewer gateways than the pool has addresses.
const GATEWAYS: u64 = 5;
const OTHERS: u64 = 4;
/// How long a world lives.
const EVENTS: u64 = 24;

/// What happens, as the story tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Event {
    Add,
    Delete,
    /// The namespace goes, and nobody calls DEL.
    Lose,
    /// DEL of something that went long ago.
    LateDelete,
    Gc,
    Annotate,
    /// A gateway's label no longer matches, or does again.
    Relabel,
    /// The namespace of the clients is selected, or no longer.
    Select,
    /// The pools serve everybody, or the namespace `shop` alone.
    ChangePool,
    /// The pools give no new leases, or do again.
    DisablePool,
    Reboot,
    /// Somebody takes something of ours out of the kernel.
    Spoil,
    /// The plan last applied is lost.
    Forget,
}

use Event::*;
const DECK: [Event; 24] = [
    Add,
    Add,
    Add,
    Add,
    Add,
    Add,
    Delete,
    Delete,
    Delete,
    Lose,
    Lose,
    LateDelete,
    Gc,
    Annotate,
    Annotate,
    Annotate,
    Relabel,
    Select,
    ChangePool,
    DisablePool,
    Reboot,
    Spoil,
    Spoil,
    Forget,
];

/// What somebody else does to a node's kernel; a line of it may find nothing there.
const SPOILS: [&str; 6] = [
    "ip nexthop flush",
    "ip link del egress.vxlan",
    "nft delete table inet egret",
    "nft delete table netdev egret",
    "for f in -4 -6; do while ip $f rule del priority 720; do :; done; ip $f rule del priority 799; done",
    "nft flush map inet egret binding4; nft flush map inet egret pinned",
];

/// All that the kernel has of ours, whatever else is there.
const POWER: &str = "nft delete table inet egret; nft delete table netdev egret; ip link del egress.vxlan; \
    for f in -4 -6; do for p in 700 710 719 720 721 799; do while ip $f rule del priority $p; do :; done; done; done; \
    ip nexthop flush; conntrack -F; for f in -4 -6; do ip $f neigh show proxy | while read a x d r; do ip $f neigh del proxy $a dev $d; done; done; \
    for f in -4 -6; do ip $f route show table all proto 65 | while read -r r; do ip $f route del $r; done; done; \
    sysctl -w net.ipv4.fib_multipath_hash_policy=0 net.ipv6.fib_multipath_hash_policy=0 net.ipv4.neigh.eth0.proxy_delay=80 \
    net.ipv6.neigh.eth0.proxy_delay=80 net.ipv6.conf.eth0.proxy_ndp=0; rm -rf /var/lib/cni/*; true";

struct Life {
    lab: Lab,
    dice: Dice,
    live: Vec<Pod>,
    /// Gone without DEL.
    lost: Vec<Pod>,
    annotated: BTreeSet<String>,
    /// Gateways whose label matches no more.
    blue: BTreeSet<String>,
    selected: bool,
    serves_all: bool,
    disabled: bool,
    story: Vec<String>,
    /// What pods were seen with: their node's address, a lease, nothing.
    seen: [usize; 3],
}

impl Life {
    fn begin(seed: u64) -> Life {
        let lab = Lab::raise(Topology { settle: false, ..nodes(NODES) });
        let live = Vec::new();
        let story = vec![format!("seed {seed}")];
        let (annotated, blue) = (BTreeSet::new(), BTreeSet::new());
        let life = Life {
            lab,
            dice: Dice(seed),
            live,
            lost: Vec::new(),
            annotated,
            blue,
            selected: true,
            serves_all: true,
            disabled: false,
            story,
            seen: [0; 3],
        };
        life.pools();
        life
    }

    fn pools(&self) {
        let clients = if self.serves_all { "all()" } else { "projectcalico.org/name == 'shop'" };
        let disabled = self.disabled;
        for (name, cidr) in crate::lab::POOLS {
            let yaml = format!(
                "apiVersion: egret.dev/v1alpha1\nkind: EgressPool\nmetadata: {{name: {name}}}\n\
                 spec: {{cidr: '{cidr}', gatewayNamespaces: all(), clientNamespaces: \"{clients}\", cooldownSeconds: 0, disabled: {disabled}}}\n"
            );
            self.lab.object(&yaml).unwrap();
        }
    }

    /// An object as the story has it now.
    fn write(&self, name: &str, node: u8) {
        let labels = [("egress-code", if self.blue.contains(name) { "blue" } else { "red" })];
        let (labels, annotations) = match name.split('/').next() {
            Some("gw") => (&labels[..], &WANTS_LEASES[..]),
            _ if self.annotated.contains(name) => (&[][..], &SELECTS_RED[..]),
            _ => (&[][..], &[][..]),
        };
        self.lab.pod_object(name, labels, annotations, node).unwrap();
    }

    fn tell(&mut self, event: impl fmt::Display) {
        eprintln!("  {event}");
        self.story.push(event.to_string());
    }

    fn pick(&mut self) -> Option<usize> {
        let live = self.live.len() as u64;
        (live > 0).then(|| usize::try_from(self.dice.below(live)).unwrap())
    }

    fn node(&mut self) -> u8 {
        1 + u8::try_from(self.dice.below(u64::from(NODES))).unwrap()
    }

    fn happens(&mut self, event: Event) {
        match event {
            Add => self.add(),
            Delete | Lose => {
                let Some(index) = self.pick() else { return };
                let pod = self.live.remove(index);
                self.tell(format!("{event:?} {} on node{}", pod.name, pod.node));
                if event == Delete {
                    self.lab.cnitool("del", &pod).unwrap();
                }
                self.lab.lose_pod(&pod).unwrap();
                // A StatefulSet's pod comes again with its object and UID, another one does not.
                if self.dice.below(2) == 0 {
                    self.lab.remove_pod_object(&pod.name.to_string()).unwrap();
                }
                if event == Lose {
                    self.lost.push(pod);
                }
            }
            LateDelete => {
                let Some(pod) = self.lost.pop() else { return };
                if self.live.iter().all(|other| other.place().name() != pod.place().name()) {
                    self.tell(format!("LateDelete {}", pod.name));
                    self.lab.cnitool("del", &pod).unwrap();
                }
            }
            Gc => {
                let node = self.node();
                let here: Vec<&Pod> = self.live.iter().filter(|pod| pod.node == node).collect();
                gc(&self.lab, node, Some(&here));
                self.tell(format!("Gc on node{node}"));
            }
            Annotate | Relabel => {
                let Some(index) = self.pick() else { return };
                let (name, node) = (self.live[index].name.to_string(), self.live[index].node);
                let is_gateway = name.starts_with("gw/");
                if is_gateway != (event == Relabel) {
                    return;
                }
                let words = if is_gateway { &mut self.blue } else { &mut self.annotated };
                let now = if words.remove(&name) { false } else { words.insert(name.clone()) };
                self.write(&name, node);
                self.tell(format!("{event:?} {name}: {now}"));
            }
            Select => {
                self.selected = !self.selected;
                self.lab.namespace("shop", &[], if self.selected { &SELECTS_RED } else { &[] }).unwrap();
                self.tell(format!("Select {}", self.selected));
            }
            ChangePool | DisablePool => {
                let which = if event == ChangePool { &mut self.serves_all } else { &mut self.disabled };
                *which = !*which;
                let now = *which;
                self.pools();
                self.tell(format!("{event:?} {now}"));
            }
            Reboot => {
                let node = self.node();
                self.tell(format!("Reboot node{node}"));
                let (gone, stay) =
                    std::mem::take(&mut self.live).into_iter().partition(|pod| pod.node == node);
                self.live = stay;
                for pod in &gone as &Vec<Pod> {
                    self.lab.lose_pod(pod).unwrap();
                }
                self.lost.extend(gone);
                self.lab.node(node).sh(&format!("set +e; {{ {POWER}; }} >/dev/null 2>&1")).unwrap();
                let _ = std::fs::remove_dir_all(Path::new(RUN_DIR).join(format!("node{node}")));
            }
            Spoil => {
                let node = self.node();
                let spoil = SPOILS[usize::try_from(self.dice.below(SPOILS.len() as u64)).unwrap()];
                self.tell(format!("Spoil node{node}: {spoil}"));
                self.lab.node(node).sh(&format!("set +e; {{ {spoil}; true; }} >/dev/null 2>&1")).unwrap();
            }
            Forget => {
                let node = self.node();
                self.tell(format!("Forget the plan of node{node}"));
                let _ = std::fs::remove_file(Path::new(RUN_DIR).join(format!("node{node}/plan.json")));
            }
        }
    }

    fn add(&mut self) {
        let node = self.node();
        // A life without gateways is told quickly.
        let served = self.live.iter().any(|pod| pod.name.namespace == "gw");
        let name = match self.dice.below(if served { 5 } else { 3 }) {
            0 | 1 => format!("gw/g{}", self.dice.below(GATEWAYS)),
            2 | 3 => format!("shop/c{}", self.dice.below(OTHERS)),
            _ => format!("plain/p{}", self.dice.below(OTHERS)),
        };
        if self.live.iter().all(|pod| pod.name.to_string() != name) {
            self.add_on(node, &name);
        }
    }

    fn add_on(&mut self, node: u8, name: &str) {
        // Nobody makes a second sandbox of a pod before the end of the first was said: the primary would refuse it.
        if let Some(index) = self.lost.iter().position(|pod| pod.name.to_string() == name) {
            let old = self.lost.remove(index);
            self.tell(format!("LateDelete {name}"));
            self.lab.cnitool("del", &old).unwrap();
        }
        self.write(name, node);
        match self.lab.add_pod(node, name) {
            Ok(pod) => {
                self.tell(format!("Add {name} on node{node}"));
                self.live.push(pod);
            }
            Err(error) => {
                self.tell(format!("Add {name} on node{node} is refused"));
                assert!(self.disabled && name.starts_with("gw/"), "{error}");
                self.lab.remove_pod_object(name).unwrap();
            }
        }
    }

    /// Everything is deleted and uninstalled; the nodes are as `before`.
    fn end(mut self, before: &[String]) -> [usize; 3] {
        while let Some(index) = self.pick() {
            let pod = self.live.remove(index);
            self.lab.cnitool("del", &pod).unwrap();
            self.lab.lose_pod(&pod).unwrap();
        }
        self.tell("everything is deleted");
        self.judge();
        for node in 1..=NODES {
            let list = self.lab.conflist_path(node).display().to_string();
            let output = self.lab.egret(node, &["uninstall", "--config", &list]).unwrap();
            assert!(output.status.success(), "{}", said(&output));
        }
        let story = self.story.join("\n  ");
        for (before, after) in before.iter().zip(bare(&self.lab)) {
            let gone: Vec<_> = before.lines().filter(|line| !after.lines().any(|l| l == *line)).collect();
            let left: Vec<_> = after.lines().filter(|line| !before.lines().any(|l| l == *line)).collect();
            assert!(
                gone.is_empty() && left.is_empty(),
                "{story}\nafter uninstall: gone {gone:#?}, left {left:#?}"
            );
        }
        self.seen
    }
}

/// `EGRET_SEQUENCE_EVENTS`: how many (72; 2,000 in `scripts/soak`), in worlds of twenty-four. `EGRET_SEQUENCE_SEED`: the first
/// world's; each further one has the next. A failure names its own: with that and 24 events the story is the same again.
#[test]
fn whatever_happens_in_whatever_order_every_node_is_as_its_story_says() {
    let events = number("EGRET_SEQUENCE_EVENTS", 3 * EVENTS);
    let seed = number("EGRET_SEQUENCE_SEED", 1 + u64::from(std::process::id()));
    let worlds = events.div_ceil(EVENTS);
    let mut seen = [0; 3];
    for seed in seed..seed + worlds {
        println!("EGRET_SEQUENCE_SEED={seed} EGRET_SEQUENCE_EVENTS={EVENTS}");
        let mut life = Life::begin(seed);
        for node in 1..=NODES {
            let first = life.lab.plain(node, "first");
            life.lab.del_pod(&first).unwrap();
        }
        let before = bare(&life.lab);
        // Each life has seen everything once: held, direct, and with a lease.
        for name in ["shop/c0", "plain/p0", "gw/g0"] {
            life.add_on(1, name);
            life.judge();
        }
        for _ in 0..EVENTS {
            // Up to three things happen before anybody looks.
            for _ in 0..=life.dice.below(3) {
                let event = DECK[usize::try_from(life.dice.below(DECK.len() as u64)).unwrap()];
                life.happens(event);
            }
            life.judge();
        }
        for (all, own) in seen.iter_mut().zip(life.end(&before)) {
            *all += own;
        }
    }
    let [direct, leased, held] = seen;
    println!(
        "soak: {worlds} worlds; at {} looks pods were seen {leased} times with a lease, {held} times held, {direct} times direct",
        worlds * EVENTS
    );
    assert!(seen.iter().all(|n| *n > 0), "{seen:?}");
}
