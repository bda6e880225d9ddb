//! Where worlds are raised: three nodes and fifteen pods that stay while everything written about them changes.
//!
//! In: what is written. Out: what `egret` predicts, what pods were told, what the outside recorded. Never: judges.

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use egret::addr::Family;
use egret::config::Config;
use egret::egress::explain::{Explanation, Item, Verdict, explain};
use egret::egress::list;
use egret::node::embedded::Embedded;
use egret::testbed::{Answer, Capture, Flow, Masquerade, Outside, Pod, STATE_DIR, Topology, node_address};
use serde_json::json;

use crate::judge::{Asked, Expected, Means, Told, Way};
use crate::lab::{Lab, nodes};
use crate::written::{CLIENTS, GATEWAYS, Words, Written};

/// A further address of each place outside, so that prefixes split one network.
const SECOND: [(&str, &str, &str); 2] = [
    ("outside", "198.51.100.200/24", "2001:db8:ff::200/64"),
    ("far", "198.51.101.200/24", "2001:db8:fe::200/64"),
];

/// A running cluster.
pub(crate) struct Stand {
    lab: Lab,
    pods: Vec<Pod>,
    now: Written,
    /// Worlds so far.
    age: usize,
    running: Vec<Running>,
    pub(crate) capture: Capture,
}

/// A flow that began in one world and goes on in the next.
struct Running {
    tcp: bool,
    flow: Flow,
}

/// Echo ids below are ports of pods; each pod has so many of its own above.
const ECHOES: (usize, usize) = (33_000, 2000);
/// How long a running flow is waited for: it may be silent.
const SHORT: Duration = Duration::from_millis(300);

/// One prediction with all that was said about it.
pub(crate) struct Row {
    pub(crate) expected: Expected,
    /// As `explain` says it of the address.
    pub(crate) item: Item,
    /// As `list` says it of the longest prefix around it.
    pub(crate) listed: list::Row,
}

impl Stand {
    /// Raises nodes and pods; nobody is selected yet.
    pub(crate) fn raise(topology: Topology) -> Stand {
        let lab = Lab::bare(Topology { egret: nodes(1).egret, ..topology });
        for node in lab.nodes() {
            let n = node.name().trim_start_matches("node").to_owned();
            node.sh(&format!(
                "ip address add 172.31.{n}.77/24 dev eth1; ip address add fd00:172:31:{n}::77/64 dev eth1 nodad preferred_lft 0"
            ))
            .unwrap();
            // Refusals are counted here, one by one: the kernel shall not spare any.
            node.set(&[("net.ipv4.icmp_ratemask", "0"), ("net.ipv6.icmp.ratelimit", "0")]).unwrap();
        }
        for (at, (_, v4, v6)) in Outside::BOTH.iter().zip(SECOND) {
            let line = format!("ip address add {v4} dev eth0; ip address add {v6} dev eth0 nodad");
            lab.outside(*at).sh(&line).unwrap();
        }
        let capture = lab.capture().unwrap();
        let mut stand =
            Stand { lab, pods: Vec::new(), now: Written::default(), age: 0, running: Vec::new(), capture };
        stand.write(&Written::nothing());
        stand.add_pods();
        // Nodes say their interfaces and gateways at the first, and read the others' at the second.
        stand.settle();
        stand.settle();
        stand
    }

    fn add_pods(&mut self) {
        let lab = &self.lab;
        let all = GATEWAYS.iter().map(|(node, name, _)| (*node, *name)).chain(CLIENTS);
        let mut by_node: BTreeMap<u8, Vec<&str>> = BTreeMap::new();
        all.for_each(|(node, name)| by_node.entry(node).or_default().push(name));
        let add = |(node, names): (u8, Vec<&str>)| {
            names.into_iter().map(|name| lab.add_pod(node, name).unwrap()).collect::<Vec<Pod>>()
        };
        self.pods = std::thread::scope(|scope| {
            let running: Vec<_> = by_node.into_iter().map(|own| scope.spawn(move || add(own))).collect();
            running.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        });
    }

    /// Writes what differs from what is written.
    pub(crate) fn write(&mut self, next: &Written) {
        let now = std::mem::replace(&mut self.now, next.clone());
        self.age += 1;
        let lab = &self.lab;
        for (name, (labels, annotations)) in changed(&now.namespaces, &next.namespaces) {
            lab.namespace(name, &pairs(labels), &pairs(annotations)).unwrap();
        }
        for (name, (labels, annotations)) in changed(&now.pods, &next.pods) {
            let node = node_of(name);
            lab.pod_object(name, &pairs(labels), &pairs(annotations), node).unwrap();
        }
        for (node, labels) in changed(&now.nodes, &next.nodes) {
            let name = format!("node-none-node{node}.yaml");
            let text = fs::read_to_string(objects().join(&name)).unwrap();
            let mut object: serde_json::Value = serde_yaml_ng::from_str(&text).unwrap();
            let mut all = json!({"kubernetes.io/hostname": format!("node{node}")});
            labels.iter().for_each(|(key, value)| all[key] = json!(value));
            object["metadata"]["labels"] = all;
            lab.object_file(&name, &serde_yaml_ng::to_string(&object).unwrap()).unwrap();
        }
        for gone in now.files.keys().filter(|name| !next.files.contains_key(*name)) {
            fs::remove_file(objects().join(gone)).unwrap();
        }
        for (name, text) in changed(&now.files, &next.files) {
            lab.object_file(name, text).unwrap();
        }
    }

    /// Every node reconciles, side by side.
    pub(crate) fn settle(&self) {
        let lab = &self.lab;
        std::thread::scope(|scope| {
            for node in lab.topology().node_numbers() {
                scope.spawn(move || {
                    let list = lab.conflist_path(node).display().to_string();
                    let output = lab.egret(node, &["reconcile", "--config", &list]).unwrap();
                    let said = [output.stdout, output.stderr].concat();
                    assert!(output.status.success(), "node{node}: {}", String::from_utf8_lossy(&said));
                });
            }
        });
    }

    /// Steps that a node would still take.
    pub(crate) fn pending(&self, node: u8) -> Vec<String> {
        let report = self.lab.json(node, &["reconcile", "--dry-run"]);
        let items = report["items"].as_array().cloned().unwrap_or_default();
        let steps = items.iter().flat_map(|item| item["pending"].as_array().cloned().unwrap_or_default());
        steps.map(|step| format!("node{node} would still: {step}")).collect()
    }

    /// What each node says of its pods and of every place outside.
    pub(crate) fn predict(&self) -> Vec<Row> {
        let to = self.places();
        let mut rows = Vec::new();
        for node in self.lab.topology().node_numbers() {
            let config = Config::from_file(&self.lab.conflist_path(node)).unwrap();
            let (view, _, _) = Embedded::look(&config).unwrap().whole_view().unwrap();
            for pod in self.pods.iter().filter(|pod| pod.node == node) {
                let listed = list::list(&view, [pod.name.clone()]).items;
                for to in &to {
                    let said = explain(&view, &pod.name, Some(*to));
                    let around = listed.iter().filter(|row| row.destination.contains(*to));
                    let listed = around.max_by_key(|row| row.destination.prefix()).unwrap().clone();
                    rows.push(self.row(pod, *to, said, listed));
                }
            }
        }
        rows
    }

    /// The same from the program itself, for one row.
    pub(crate) fn ask_program(&self, row: &Row) -> Item {
        let node = node_of(&row.expected.pod);
        let said = self.lab.json(node, &["explain", &row.expected.pod, &row.expected.to.to_string()]);
        serde_json::from_value::<Explanation>(said).unwrap().items.remove(0)
    }

    fn row(&self, pod: &Pod, to: IpAddr, mut said: Explanation, listed: list::Row) -> Row {
        assert_eq!(said.items.len(), 1, "{said}");
        let item = said.items.remove(0);
        let family = Family::of(to);
        let way = match listed.action {
            Verdict::Gateway => {
                Way::Through(listed.gateways.iter().filter_map(|row| row.egress_address).collect())
            }
            Verdict::Direct if self.lab.topology().masquerade == Masquerade::None => {
                Way::Direct(pod.address(family).unwrap())
            }
            Verdict::Direct => Way::Direct(node_address(pod.node, family)),
            Verdict::Held => Way::Held,
        };
        let echoes = self.echoes(pod);
        Row {
            expected: Expected { pod: pod.name.to_string(), port: pod.port(), echoes, to, way },
            item,
            listed,
        }
    }

    /// Every pod asks every place by every means.
    pub(crate) fn ask(&self) -> Vec<Asked> {
        let to = self.places();
        let asks = |pod: &Pod| -> Vec<Asked> {
            let [fresh, _] = self.echoes(pod);
            let each = to.iter().flat_map(|to| Means::ALL.map(|means| (*to, means)));
            each.map(|(to, means)| Asked { port: pod.port(), to, means, told: told(pod, to, means, fresh) })
                .collect()
        };
        std::thread::scope(|scope| {
            let running: Vec<_> = self.pods.iter().map(|pod| scope.spawn(|| asks(pod))).collect();
            running.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        })
    }

    /// A pod's echo ids: this world's, and that of the ping that never ends.
    fn echoes(&self, pod: &Pod) -> [u16; 2] {
        let position = self.pods.iter().position(|other| other.name == pod.name).unwrap();
        let first = ECHOES.0 + position * ECHOES.1;
        [first + 1 + self.age % (ECHOES.1 - 1), first].map(|id| u16::try_from(id).unwrap())
    }

    /// Flows that the next world finds running: TCP and UDP, and pings of one id.
    pub(crate) fn begin_flows(&mut self) {
        let families = self.lab.topology().families.list();
        let begin = |pod: &Pod| -> Vec<Running> {
            let each = families
                .iter()
                .flat_map(|f| [(Outside::Near.address(*f), true), (Outside::Far.address(*f), false)]);
            let begin = |(to, tcp): (IpAddr, bool)| {
                let mut flow = if tcp { pod.tcp_flow(to) } else { pod.udp_flow(to) }.ok()?;
                flow.set_patience(SHORT);
                (flow.ask() != Answer::Silent).then(|| Running { tcp, flow })
            };
            each.filter_map(begin).collect()
        };
        self.running = std::thread::scope(|scope| {
            let running: Vec<_> = self.pods.iter().map(|pod| scope.spawn(|| begin(pod))).collect();
            running.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        });
    }

    /// What became of flows that began in the world before: each is asked once, and ended. What they may show, the capture says.
    pub(crate) fn end_flows(&mut self) -> BTreeMap<String, usize> {
        let flows = std::mem::take(&mut self.running);
        let ends: Vec<String> = std::thread::scope(|scope| {
            let ask = |mut running: Running| {
                let Running { tcp, flow, .. } = &mut running;
                let answer = match flow.ask() {
                    Answer::From(_) => "go on",
                    Answer::Reset => "are reset",
                    Answer::Refused(_) => "are refused",
                    Answer::Closed | Answer::Silent => "are silent",
                };
                format!("{} {answer}", if *tcp { "TCP flows" } else { "UDP flows" })
            };
            let asked: Vec<_> = flows.into_iter().map(|running| scope.spawn(move || ask(running))).collect();
            asked.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let mut counts = BTreeMap::new();
        ends.into_iter().for_each(|end| *counts.entry(end).or_default() += 1);
        for pod in &self.pods {
            let [_, always] = self.echoes(pod);
            let mut pod = pod.clone();
            pod.patience = SHORT;
            for to in self.places() {
                let end = if pod.reaches_as(to, always).is_ok() {
                    "pings go on"
                } else {
                    "pings are refused or silent"
                };
                *counts.entry(end.to_owned()).or_default() += 1;
            }
        }
        counts
    }

    /// Places outside, in the families that pods have.
    fn places(&self) -> Vec<IpAddr> {
        let families = self.lab.topology().families.list();
        let firsts = Outside::BOTH.into_iter().flat_map(|at| families.iter().map(move |f| at.address(*f)));
        let bare = |text: &str| text.split('/').next().unwrap().parse().unwrap();
        let second: [IpAddr; 2] = [bare(SECOND[0].1), bare(SECOND[0].2)];
        firsts.chain(second.into_iter().filter(|ip| families.contains(&Family::of(*ip)))).collect()
    }

    /// A node.
    pub(crate) fn node(&self, number: u8) -> egret::testbed::Place {
        self.lab.node(number)
    }

    /// The prefixes whose addresses are to stay inside unless predicted.
    pub(crate) fn hidden(&self) -> Vec<egret::addr::Cidr> {
        self.lab.topology().forbidden()
    }

    /// Its topology.
    pub(crate) fn topology(&self) -> &Topology {
        self.lab.topology()
    }
}

fn told(pod: &Pod, to: IpAddr, means: Means, id: u16) -> Told {
    let told = match means {
        Means::Tcp => pod.tcp(to).map(Some),
        Means::Udp => pod.udp(to).map(Some),
        Means::Ping => pod.reaches_as(to, id).map(|()| None),
    };
    told.map_err(|error| error.kind())
}

/// Where objects lie.
pub(crate) fn objects() -> PathBuf {
    Path::new(STATE_DIR).join("objects")
}

fn node_of(pod: &str) -> u8 {
    let all = GATEWAYS.iter().map(|(node, name, _)| (*node, *name)).chain(CLIENTS);
    all.filter(|(_, name)| *name == pod).map(|(node, _)| node).next().unwrap()
}

fn pairs(words: &Words) -> Vec<(&str, &str)> {
    words.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect()
}

fn changed<'a, K: Ord, V: PartialEq>(
    now: &'a BTreeMap<K, V>,
    next: &'a BTreeMap<K, V>,
) -> impl Iterator<Item = (&'a K, &'a V)> {
    next.iter().filter(|(key, value)| now.get(*key) != Some(*value))
}
