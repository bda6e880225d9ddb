//! Everything that the controller knows at one moment, as one value. Pure.
//!
//! In: the mirror, what was heard of agents. Out: the view that the resolver takes, the books, and our objects with the status that
//! they have now. Never: asks anybody.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use serde_json::Value;

use super::agents::Agent;
use crate::config::Config;
use crate::egress::model::{PodName, View};
use crate::ipam::Block;
use crate::kube::lease::{self, BYPASSED, UNWIRED};
use crate::kube::{HOME, Mirror, Watched, foreign};
use crate::problem::Problem;
use crate::store::objects::Objects;

/// Label of agents' pods, as `deploy/agent.yaml` has it.
pub const AGENT: (&str, &str) = ("app.kubernetes.io/name", "egret-agent");

/// A moment.
#[derive(Debug, Default)]
pub struct World {
    /// As resolvers take it. Pods that have ended are not in it.
    pub view: View,
    /// What is wrong within and between objects.
    pub problems: Vec<Problem>,
    /// Our pools as they are written.
    pub pools: Vec<Written>,
    /// Our policies as they are written.
    pub policies: Vec<Written>,
    /// Ranges as they are written.
    pub ranges: Vec<Written>,
    /// What nodes say of themselves, by object name.
    pub nodes: Vec<(String, Written)>,
    /// Where gateways are, as it is written, and what it says.
    pub endpoints: Vec<(Written, Value)>,
    /// The books.
    pub blocks: Vec<Block>,
    /// Agents, by node; of every Node object.
    pub agents: BTreeMap<String, Agent>,
    /// The same of nodes that are named somewhere and have no Node object.
    pub ghosts: BTreeMap<String, Agent>,
    /// Kinds that cannot be seen just now: what is new of them is not known.
    pub lost: BTreeSet<Watched>,
    /// Nodes that have an agent's pod.
    pub meant: BTreeSet<String>,
    /// Pods whose traffic passes a node by, as its agent says, by node: the pod of this name on another node is another one.
    pub bypassed: BTreeMap<String, BTreeSet<PodName>>,
    /// The same of those that were started without the agent.
    pub unwired: BTreeMap<String, BTreeSet<PodName>>,
    /// Nodes with the taint `node.kubernetes.io/out-of-service`.
    pub out_of_service: BTreeSet<String>,
    /// `spec.taints` of nodes, by node.
    pub taints: BTreeMap<String, Value>,
    /// Ordinals that StatefulSets have, by `namespace/name`.
    pub stateful_sets: BTreeMap<String, Range<u64>>,
    /// UIDs of all pods, also those that have ended, and those that static ones go by.
    pub pod_uids: BTreeSet<String>,
}

/// An object of ours as it is written.
#[derive(Debug, Clone, PartialEq)]
pub struct Written {
    /// Its name.
    pub name: String,
    /// `metadata.generation`.
    pub generation: u64,
    /// Its status; null if it has none.
    pub status: Value,
}

impl World {
    /// Of all that the mirror has; `agent` says of a node whether one is at work there.
    ///
    /// # Errors
    /// There are more objects than fit into memory's 4 GiB.
    pub fn of(mirror: &Mirror, config: &Config, agent: impl Fn(&str) -> Agent) -> Result<World, String> {
        let objects = Objects::of(foreign::readings(mirror, &config.adopt)).map_err(|e| e.to_string())?;
        let mut view = objects.view(config, mirror.endpoints());
        for (name, pod) in mirror.objects(Watched::Pods) {
            if matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"))
                && let Some((namespace, name)) = name.split_once('/')
            {
                view.pods.remove(&PodName::new(namespace, name));
            }
        }
        for (name, said) in mirror.nodes() {
            if let Some(node) = view.nodes.get_mut(&name) {
                (node.number, node.wire) = (Some(said.number), Some(said.wire));
            }
            view.interfaces.extend(said.interfaces.map(|interfaces| (name, interfaces)));
        }
        let block = |(_, object): (&str, &Value)| serde_json::from_value(object["spec"].clone()).ok();
        let blocks: Vec<Block> = mirror.objects(Watched::Blocks).filter_map(block).collect();
        let named = blocks.iter().flat_map(|block| {
            let holders = block.allocations.values().filter_map(|a| a.holder.as_ref());
            holders.map(|holder| &holder.node).chain(&block.affinity)
        });
        let recorded = mirror.nodes();
        let named = named.chain(recorded.keys()).chain(view.endpoints.iter().map(|e| &e.node));
        let ghosts = named.filter(|node| mirror.object(Watched::Nodes, node).is_none());
        let ghosts = ghosts.map(|node| (node.clone(), agent(node))).collect();
        let written = |kind: Watched| mirror.objects(kind).map(|(name, object)| Written::of(name, object));
        let record = |(name, object): (&str, &Value)| {
            let node = object["spec"]["node"].as_str().unwrap_or_default();
            (name.to_owned(), Written::of(node, object))
        };
        Ok(World {
            agents: mirror.objects(Watched::Nodes).map(|(name, _)| (name.to_owned(), agent(name))).collect(),
            out_of_service: taints(mirror)
                .filter(|(_, taints)| is_out_of_service(taints))
                .map(|(name, _)| name.to_owned())
                .collect(),
            taints: taints(mirror).map(|(name, taints)| (name.to_owned(), taints.clone())).collect(),
            stateful_sets: mirror
                .objects(Watched::StatefulSets)
                .map(|(name, set)| (name.to_owned(), ordinals(set)))
                .collect(),
            pod_uids: mirror
                .objects(Watched::Pods)
                .filter_map(|(name, _)| mirror.life(name))
                .flat_map(|(ids, _)| ids.iter().cloned())
                .collect(),
            ghosts,
            lost: mirror.lost().into_iter().map(|(kind, _)| kind).collect(),
            meant: agents_pods(mirror).map(str::to_owned).collect(),
            bypassed: noted(mirror, BYPASSED),
            unwired: noted(mirror, UNWIRED),
            problems: objects.problems(),
            pools: written(Watched::Pools).collect(),
            policies: written(Watched::Policies).collect(),
            ranges: written(Watched::Ranges).collect(),
            nodes: mirror.objects(Watched::NodeRecords).map(record).collect(),
            endpoints: mirror
                .objects(Watched::Endpoints)
                .map(|(name, object)| (Written::of(name, object), object["spec"].clone()))
                .collect(),
            blocks,
            view,
        })
    }

    /// Whether an agent is at work on a node.
    pub fn agent(&self, node: &str) -> Agent {
        self.agents.get(node).copied().unwrap_or(Agent::Never)
    }
}

impl Written {
    fn of(name: &str, object: &Value) -> Written {
        let generation = object["metadata"]["generation"].as_u64().unwrap_or_default();
        Written { name: name.to_owned(), generation, status: object["status"].clone() }
    }
}

/// Nodes that have an agent's pod, well or not.
pub fn agents_pods(mirror: &Mirror) -> impl Iterator<Item = &str> {
    let ours = mirror.objects(Watched::Pods).filter(|(name, pod)| {
        name.strip_prefix(HOME).is_some_and(|rest| rest.starts_with('/'))
            && pod["metadata"]["labels"][AGENT.0] == AGENT.1
            && !matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"))
    });
    ours.filter_map(|(_, pod)| pod["spec"]["nodeName"].as_str())
}

fn taints(mirror: &Mirror) -> impl Iterator<Item = (&str, &Value)> {
    mirror.objects(Watched::Nodes).map(|(name, node)| (name, &node["spec"]["taints"]))
}

/// Somebody says that the node is off, and that what ran there may run elsewhere.
pub fn is_out_of_service(taints: &Value) -> bool {
    let all = taints.as_array().map(Vec::as_slice).unwrap_or_default();
    all.iter().any(|taint| taint["key"] == "node.kubernetes.io/out-of-service")
}

/// The pods that agents' signs of life name under a key, by node.
fn noted(mirror: &Mirror, key: &str) -> BTreeMap<String, BTreeSet<PodName>> {
    let of_agent = |(name, beat): (&str, &Value)| {
        let said = beat["metadata"]["annotations"][key].as_str()?;
        let pods = said.split(',').filter_map(|pod| pod.split_once('/'));
        let pods = pods.map(|(namespace, name)| PodName::new(namespace, name)).collect();
        Some((lease::node_of(name)?.to_owned(), pods))
    };
    mirror.objects(Watched::Beats).filter_map(of_agent).collect()
}

/// The numbers of a StatefulSet's pods.
pub fn ordinals(set: &Value) -> Range<u64> {
    let start = set["spec"]["ordinals"]["start"].as_u64().unwrap_or_default();
    start..start.saturating_add(set["spec"]["replicas"].as_u64().unwrap_or(1))
}
