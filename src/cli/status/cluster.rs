//! How a cluster is: nodes and their agents, gateways, pools, pods that are held.
//!
//! In: a cluster that was looked at. Out: tables or JSON; 0 if every node that Egret serves has a ready agent and no pod is held. Never:
//! asks a kernel: what a node's holds is said by `egret status` on that node.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde::Serialize;

use crate::cli::cluster::Cluster;
use crate::cli::ipam::{self, PoolRow};
use crate::cli::paint::Paint;
use crate::cli::table::Table;
use crate::cli::{API_VERSION, Common, Output, Refused, json};
use crate::egress::explain::{Shown, Verdict};
use crate::egress::list::{Row, list};
use crate::egress::model::{Endpoint, EndpointState, PodName, Role};
use crate::node::embedded::now;
use crate::problem::Problem;

/// One JSON document.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub(in crate::cli) struct ClusterStatus {
    api_version: &'static str,
    kind: &'static str,
    /// Nodes that have a number, an agent, or pods that concern us.
    items: Vec<NodeRow>,
    /// Gateway pods that are wired.
    gateways: Vec<Gateway>,
    /// Pools, with how full they are.
    pools: Vec<PoolRow>,
    problems: Vec<Problem>,
}

/// A node.
#[derive(Debug, Default, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
struct NodeRow {
    /// Its name.
    node: String,
    /// Its number in connection marks; absent until its agent has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    number: Option<u16>,
    /// Whether its agent's pod is ready; absent where no agents are installed as pods.
    #[serde(skip_serializing_if = "Option::is_none")]
    agent_ready: Option<bool>,
    /// How many gateways are wired there.
    gateways: usize,
    /// How many of its pods are selected.
    clients: usize,
    /// How many of those have traffic that is held.
    held: usize,
}

/// A gateway pod.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
struct Gateway {
    /// The pod.
    pod: PodName,
    /// Its node.
    node: String,
    /// Whether it may be used.
    state: EndpointState,
    /// What the outside sees.
    addresses: Vec<IpAddr>,
    /// How many selected pods use it for something.
    clients: usize,
}

/// Says how the cluster is.
///
/// # Errors
/// The blocks cannot be listed, or there is no such node.
pub(super) fn run(common: &Common, cluster: &Cluster) -> Result<(String, bool), Refused> {
    let view = cluster.view();
    let ended = cluster.ended();
    let rows = list(&view, view.pods.keys().filter(|pod| !ended.contains(pod)).cloned().collect::<Vec<_>>());
    let leases = ipam::cluster::show(cluster, None, now())?;
    let endpoints = cluster.looked.mirror.endpoints();
    let mut problems = cluster.problems.clone();
    problems.extend(rows.problems.into_iter().map(|problem| cluster.objects.placed(problem)));
    let mut seen = BTreeSet::new();
    problems.retain(|problem| seen.insert(problem.clone()));
    let mut items = nodes(cluster, &rows.items, &endpoints);
    let mut gateways = gateways(&rows.items, endpoints);
    if let Some(node) = &common.node {
        items.retain(|row| row.node == *node);
        gateways.retain(|gateway| gateway.node == *node);
        if items.is_empty() {
            return Err(Refused::misused(format!("nothing of Egret is on a node `{node}`")));
        }
    }
    let serves = |row: &NodeRow| row.gateways + row.clients > 0;
    let well = items.iter().all(|row| row.held == 0 && (row.agent_ready != Some(false) || !serves(row)));
    let kind = "ClusterStatus";
    let status =
        ClusterStatus { api_version: API_VERSION, kind, items, gateways, pools: leases.pools, problems };
    let text = match common.output {
        Output::Json => json(&status)?,
        Output::Text => status.text(&cluster.client.access().server(), Paint::of_stdout()),
    };
    Ok((text, well))
}

fn nodes(cluster: &Cluster, rows: &[Row], endpoints: &[Endpoint]) -> Vec<NodeRow> {
    let mut nodes: BTreeMap<String, NodeRow> = BTreeMap::new();
    let agents = &cluster.looked.agents;
    let mut clients: BTreeMap<&PodName, (&str, Vec<&Row>)> = BTreeMap::new();
    for row in rows.iter().filter(|row| row.role == Role::Client) {
        let node = row.node.as_deref().unwrap_or_default();
        clients.entry(&row.pod).or_insert((node, Vec::new())).1.push(row);
    }
    for (node, rows) in clients.into_values().filter(|(node, _)| !node.is_empty()) {
        let row = nodes.entry(node.to_owned()).or_default();
        row.clients += 1;
        row.held += usize::from(is_held(&rows));
    }
    for endpoint in endpoints {
        nodes.entry(endpoint.node.clone()).or_default().gateways += 1;
    }
    for (node, said) in cluster.looked.mirror.nodes() {
        nodes.entry(node).or_default().number = Some(said.number);
    }
    for node in agents.keys() {
        nodes.entry(node.clone()).or_default();
    }
    for (name, row) in &mut nodes {
        row.node.clone_from(name);
        row.agent_ready = (!agents.is_empty()).then(|| agents.get(name).copied().unwrap_or_default());
    }
    nodes.into_values().collect()
}

/// Whether anything of a pod is held. One that is about to start has no address yet, and has rows for both families, of which most pods
/// will have one alone.
fn is_held(rows: &[&Row]) -> bool {
    let held = |row: &&Row| row.action == Verdict::Held;
    let everything = rows.iter().all(|row| row.action != Verdict::Gateway);
    rows.iter().any(|row| held(row) && (row.address.is_some() || everything))
}

fn gateways(rows: &[Row], endpoints: Vec<Endpoint>) -> Vec<Gateway> {
    let mut clients: BTreeMap<&PodName, BTreeSet<&PodName>> = BTreeMap::new();
    for row in rows.iter().filter(|row| row.action == Verdict::Gateway) {
        for gateway in row.gateways.iter().filter(|gateway| gateway.usable).filter_map(|g| g.pod.as_ref()) {
            clients.entry(gateway).or_default().insert(&row.pod);
        }
    }
    let gateway = |endpoint: Endpoint| Gateway {
        clients: clients.get(&endpoint.pod).map_or(0, BTreeSet::len),
        addresses: endpoint.addresses.iter().map(|address| address.ip).collect(),
        pod: endpoint.pod,
        node: endpoint.node,
        state: endpoint.state,
    };
    let mut all: Vec<Gateway> = endpoints.into_iter().map(gateway).collect();
    all.sort_by(|a, b| a.pod.cmp(&b.pod));
    all
}

impl ClusterStatus {
    fn text(&self, server: &str, paint: Paint) -> String {
        let mut text = format!("cluster {server}\n");
        let mut nodes = Table::new(&["NODE", "NUMBER", "AGENT", "GATEWAYS", "CLIENTS", "HELD"]);
        for row in &self.items {
            let agent = match row.agent_ready {
                Some(true) => paint.good("ready"),
                Some(false) => paint.bad("not ready"),
                None => String::new(),
            };
            let held = if row.held > 0 { paint.bad(&row.held.to_string()) } else { "0".to_owned() };
            let number = row.number.map(|number| number.to_string()).unwrap_or_default();
            let counts = [row.gateways.to_string(), row.clients.to_string()];
            nodes.row([row.node.clone(), number, agent].into_iter().chain(counts).chain([held]));
        }
        let mut gateways = Table::new(&["GATEWAY", "NODE", "STATE", "ADDRESSES", "CLIENTS"]);
        for gateway in &self.gateways {
            let addresses: Vec<String> = gateway.addresses.iter().map(ToString::to_string).collect();
            gateways.row([
                gateway.pod.to_string(),
                gateway.node.clone(),
                word(gateway.state),
                addresses.join(", "),
                gateway.clients.to_string(),
            ]);
        }
        let mut pools = Table::new(&["POOL", "CIDR", "SIZE", "LEASED", "COOLING", "RESERVED"]);
        for pool in &self.pools {
            let cidr = pool.cidr.map(|cidr| cidr.to_string()).unwrap_or_default();
            let counts = [pool.size, pool.leased, pool.cooling, pool.reserved].map(|n| n.to_string());
            pools.row([pool.name.clone(), cidr].into_iter().chain(counts));
        }
        for table in [nodes, gateways, pools].iter().filter(|table| !table.is_empty()) {
            text += &format!("\n{table}");
        }
        if !self.problems.is_empty() {
            text += "\nproblems:\n";
        }
        for problem in &self.problems {
            text += &Shown(problem).to_string().lines().map(|line| format!("  {line}\n")).collect::<String>();
        }
        text
    }
}

/// As objects have it.
fn word(state: EndpointState) -> String {
    serde_json::to_value(state).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}
