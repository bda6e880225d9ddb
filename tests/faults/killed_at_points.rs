//! kill -9 at every named point of every verb; then a runtime does one of the things that runtimes do.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use egret::fault;
use egret::testbed::{Pod, Topology};

use crate::books::{
    assert_in_order, container, gc, gc_command, reconcile_command, records, said, was_killed,
    without_cooldown,
};
use crate::lab::{Lab, SELECTS_RED, WANTS_LEASES, nodes};

/// What is interrupted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Verb {
    /// The first gateway of an empty store, on a node that has nothing of ours.
    FirstGateway,
    AddGateway,
    /// Its binding is new to the node.
    FirstClient,
    /// Its binding is there: one map element.
    AddClient,
    DelClient,
    DelGateway,
    /// A gateway and a client lost their namespaces.
    Gc,
    /// The same, seen by `egret reconcile`.
    Reconcile,
    /// A running pod becomes a client.
    Rebind,
    /// ADD of a gateway that cannot be wired, because somebody else uses our rule priority.
    FailingGateway,
}

/// What a runtime does after a call of its was killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Then {
    Del,
    Again,
    Gc,
    Reconcile,
}

use Verb::*;
const VERBS: [Verb; 10] = [
    FirstGateway,
    AddGateway,
    FirstClient,
    AddClient,
    DelClient,
    DelGateway,
    Gc,
    Reconcile,
    Rebind,
    FailingGateway,
];

impl Verb {
    fn afterwards(self) -> &'static [Then] {
        match self {
            FirstGateway | AddGateway | FirstClient | AddClient => {
                &[Then::Del, Then::Again, Then::Gc, Then::Reconcile]
            }
            DelClient | DelGateway => &[Then::Again, Then::Gc, Then::Reconcile],
            Gc | Reconcile => &[Then::Again, Then::Reconcile],
            Rebind => &[Then::Again],
            FailingGateway => &[Then::Del, Then::Gc],
        }
    }
}

/// A standing world for one verb after the other: two nodes.
struct Stage {
    lab: Lab,
    /// How often each verb passes each point, when nothing happens.
    passed: BTreeMap<Verb, Vec<String>>,
}

/// One round: the pods of a verb that is to be interrupted, and the command.
struct Scene {
    pods: Vec<Pod>,
    command: Command,
    /// Those that live when the verb was done in the end.
    live: usize,
}

const TRACE: &str = "/run/trace";

impl Stage {
    fn raise() -> Stage {
        let lab = Lab::raise(Topology { settle: false, ..nodes(2) });
        without_cooldown(&lab);
        for (name, labels, annotations) in [
            ("gw/a", &[("egress-code", "red")][..], &WANTS_LEASES[..]),
            ("gw/b", &[("egress-code", "red")], &WANTS_LEASES),
            ("shop/c", &[], &[]),
            ("plain/d", &[], &[]),
        ] {
            lab.pod_object(name, labels, annotations, 1).unwrap();
        }
        Stage { lab, passed: BTreeMap::new() }
    }

    fn wired(&self, name: &str) -> Pod {
        self.lab.add_pod(1, name).unwrap()
    }

    fn sandboxed(&self, name: &str) -> Pod {
        self.lab.sandbox(1, name).unwrap()
    }

    fn scene(&self, verb: Verb) -> Scene {
        let lab = &self.lab;
        let call = |what: &str, pod: &Pod| lab.cnitool_command(what, pod).unwrap();
        match verb {
            FirstGateway => {
                let list = lab.conflist_path(1).display().to_string();
                assert!(lab.egret(1, &["uninstall", "--config", &list]).unwrap().status.success());
                let pod = self.sandboxed("gw/a");
                Scene { command: call("add", &pod), pods: vec![pod], live: 1 }
            }
            FailingGateway => {
                let pod = self.sandboxed("gw/a");
                lab.node(1).sh("ip rule add fwmark 0x1000000/0x1000000 priority 720 table 99").unwrap();
                Scene { command: call("add", &pod), pods: vec![pod], live: 0 }
            }
            AddGateway | FirstClient => {
                let first = self.wired("gw/b");
                let pod = self.sandboxed(if verb == AddGateway { "gw/a" } else { "shop/c" });
                Scene { command: call("add", &pod), pods: vec![pod, first], live: 2 }
            }
            AddClient => {
                let (gateway, first) = (self.wired("gw/b"), self.wired("shop/e"));
                let pod = self.sandboxed("shop/c");
                Scene { command: call("add", &pod), pods: vec![pod, gateway, first], live: 3 }
            }
            DelClient | DelGateway => {
                let (gateway, client) = (self.wired("gw/a"), self.wired("shop/c"));
                let (pod, other) = if verb == DelClient { (client, gateway) } else { (gateway, client) };
                Scene { command: call("del", &pod), pods: vec![other, pod], live: 1 }
            }
            Gc | Reconcile => {
                let (stays, gateway, client) = (self.wired("gw/b"), self.wired("gw/a"), self.wired("shop/c"));
                lab.lose_pod(&gateway).unwrap();
                lab.lose_pod(&client).unwrap();
                let command = if verb == Gc {
                    gc_command(lab, 1, Some(&[&stays])).0
                } else {
                    reconcile_command(lab, 1)
                };
                Scene { pods: vec![stays, gateway, client], command, live: 1 }
            }
            Rebind => {
                let (gateway, pod) = (self.wired("gw/a"), self.wired("plain/d"));
                lab.pod_object("plain/d", &[], &SELECTS_RED, 1).unwrap();
                Scene { pods: vec![gateway, pod], command: reconcile_command(lab, 1), live: 2 }
            }
        }
    }

    /// Plays a verb undisturbed and remembers the points that it passes.
    fn rehearse(&mut self, verb: Verb) {
        let _ = std::fs::remove_file(TRACE);
        let mut scene = self.scene(verb);
        let output = scene.command.env("EGRET_FAULT_TRACE", TRACE).output().unwrap();
        assert_eq!(output.status.success(), verb != FailingGateway, "{verb:?}: {}", said(&output));
        let trace = std::fs::read_to_string(TRACE).unwrap_or_default();
        self.passed.insert(verb, trace.lines().map(str::to_owned).collect());
        self.clear(scene, &format!("{verb:?} undisturbed"));
    }

    /// Plays a verb, kills it at a point, does what a runtime does, and judges.
    /// Says whether the point was passed: a summary's clock decides how often it is written.
    fn kill(&self, verb: Verb, fault: &str, then: Then) -> bool {
        let story = format!("{verb:?} killed at {fault}, then {then:?}");
        let mut scene = self.scene(verb);
        let output = scene.command.env("EGRET_FAULT", fault).output().unwrap();
        if !was_killed(&output) {
            assert_eq!(output.status.success(), verb != FailingGateway, "{story}: {}", said(&output));
            self.clear(scene, &story);
            return false;
        }
        if verb == FailingGateway {
            self.free_priority();
        }
        let live = self.afterwards(verb, then, &scene, &story);
        self.settle(&story);
        assert_in_order(&self.lab, &live.iter().collect::<Vec<_>>(), &story);
        scene.pods.extend(live);
        self.clear(scene, &story);
        true
    }

    fn afterwards(&self, verb: Verb, then: Then, scene: &Scene, story: &str) -> Vec<Pod> {
        let lab = &self.lab;
        let adds = matches!(verb, FirstGateway | AddGateway | FirstClient | AddClient | FailingGateway);
        let (rest, done) = (scene.pods[usize::from(adds)..].to_vec(), scene.pods[..scene.live].to_vec());
        let pod = if adds { &scene.pods[0] } else { scene.pods.last().unwrap() };
        let or_panic = |result: Result<String, egret::testbed::CnitoolError>| {
            result.unwrap_or_else(|e| panic!("{story}: {e}"));
        };
        match (verb, then) {
            (Gc, Then::Again) => gc(lab, 1, Some(&[&scene.pods[0]])),
            (Gc | Reconcile | Rebind, _) => self.settle(story),
            // A runtime never calls ADD twice for one sandbox: it makes another, and the first one's DEL comes late.
            (_, Then::Again) if adds => {
                let again = lab.add_pod(1, &pod.name.to_string()).unwrap_or_else(|e| panic!("{story}: {e}"));
                or_panic(lab.cnitool("del", pod));
                lab.lose_pod(pod).unwrap();
                return rest.into_iter().chain([again]).collect();
            }
            (_, Then::Again) => or_panic(lab.cnitool("del", pod)),
            (_, Then::Del) => or_panic(lab.cnitool("del", pod)),
            // The namespace goes, and nobody calls DEL any more.
            (_, Then::Gc | Then::Reconcile) => {
                lab.lose_pod(pod).unwrap();
                let live = if adds { rest.clone() } else { done.clone() };
                if then == Then::Gc {
                    gc(lab, 1, Some(&live.iter().collect::<Vec<_>>()));
                } else {
                    self.settle(story);
                }
            }
        }
        if adds { rest } else { done }
    }

    fn settle(&self, story: &str) {
        for node in self.lab.topology().node_numbers() {
            let output = reconcile_command(&self.lab, node).output().unwrap();
            assert!(output.status.success(), "{story}: reconcile on node{node}: {}", said(&output));
        }
    }

    fn free_priority(&self) {
        self.lab.node(1).sh("ip rule del priority 720 || true").unwrap();
    }

    /// All pods of a scene go, in the way that leaves most to chance: whatever DEL says.
    fn clear(&self, scene: Scene, story: &str) {
        self.free_priority();
        for pod in &scene.pods {
            let _ = self.lab.cnitool("del", pod);
            let _ = self.lab.lose_pod(pod);
        }
        self.lab.pod_object("plain/d", &[], &[], 1).unwrap();
        gc(&self.lab, 1, Some(&[]));
        for pod in &scene.pods {
            assert!(!records(1).contains(&container(&self.lab, pod)), "{story}");
        }
    }
}

/// Every point that a verb passes is a place to die; each time another of the things that runtimes do comes after. With
/// `EGRET_FAULT_ALL=1`: each time all of them, and at every time that a verb passes the point.
#[test]
fn killed_at_every_point_of_every_verb_nothing_is_lost_doubled_or_leaked() {
    let all = std::env::var_os("EGRET_FAULT_ALL").is_some();
    let mut stage = Stage::raise();
    VERBS.iter().for_each(|verb| stage.rehearse(*verb));
    let (mut turn, mut kills) = (0, 0);
    let mut died: BTreeSet<String> = BTreeSet::new();
    for (verb, passed) in &stage.passed {
        let mut times: BTreeMap<&str, usize> = BTreeMap::new();
        passed.iter().for_each(|point| *times.entry(point).or_default() += 1);
        for (point, times) in times {
            // Stores are killed at every write in a test of their own; here once per verb is enough.
            for nth in 1..=if all { times } else { 1 } {
                let afterwards = verb.afterwards();
                let chosen = if all { afterwards } else { &afterwards[turn % afterwards.len()..][..1] };
                for then in chosen {
                    if stage.kill(*verb, &format!("{point}:{nth}"), *then) {
                        died.insert(point.to_owned());
                        kills += 1;
                    }
                }
                turn += 1;
            }
        }
    }
    let known: BTreeSet<String> = fault::POINTS.iter().map(|(name, _)| (*name).to_owned()).collect();
    let never: Vec<_> = known.difference(&died).collect();
    assert!(never.is_empty(), "no verb passes {never:?}");
    assert!(Path::new(TRACE).exists());
    println!("soak: {kills} kills at {} points, nothing lost, doubled or leaked", died.len());
}
