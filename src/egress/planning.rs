//! Decisions → the plan of one node.
//!
//! In: what this node is, the view, the pods wired here, their decisions, the numbers already in use. Out: a [`NodePlan`] and
//! problems. Never: decides who may use what, reads a kernel, a file or a clock.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use crate::addr::{Cidr, Family};
use crate::egress::candidates::node_address;
use crate::egress::exit_planning;
use crate::egress::model::{
    Action, Announce, Decision, EgressAddress, Endpoint, EndpointState, NodeGateway, Pool, PoolSource,
    Resolution, Role, View,
};
use crate::egress::numbering::Numbering;
use crate::egress::numbers::{self, mark};
use crate::egress::own_address::OwnAddresses;
use crate::egress::plan::{
    Binding, Client, Gateway, Here, LocalGateway, LocalPod, NodePlan, Peer, Place, Verdict, binding_chain,
    veth_name,
};
use crate::egress::unservable::unservable;
use crate::problem::Problem;

/// Whether neighbours are to find this address at the node. The primary sees to its own, and nobody outside ever sees a hidden one.
pub fn is_announced(address: &EgressAddress, pool: Option<&Pool>) -> bool {
    let silent = |pool: &Pool| pool.nat_outgoing || pool.announce == Announce::None;
    address.source != PoolSource::PodAddress && !pool.is_some_and(silent)
}

/// What the verb looks at.
pub struct Inputs<'a> {
    /// This node.
    pub here: &'a Here,
    /// The cluster.
    pub view: &'a View,
    /// Pods wired here, in the order of their ADD: where two have one address, the later has it.
    pub locals: &'a [LocalPod],
    /// Decisions for at least those pods.
    pub resolution: &'a Resolution,
    /// Ranges that never go to a gateway, as `inside` found them.
    pub inside: &'a [Cidr],
}

mod again;
mod crowded;

pub use again::Planned;
pub use crowded::frees_sets;

/// The plan of one node. `numbering` keeps what is in use and learns what is new.
pub fn plan(inputs: &Inputs<'_>, numbering: &mut Numbering) -> (NodePlan, Vec<Problem>) {
    let Planned { plan, problems, .. } = Planned::of(inputs, numbering);
    (plan, problems)
}

struct Work<'a> {
    inputs: &'a Inputs<'a>,
    numbering: &'a mut Numbering,
    endpoints: BTreeMap<&'a str, &'a Endpoint>,
    /// Names of chains, by the rules as written: thousands of pods have the same.
    chains: HashMap<&'a str, String>,
    /// What lists of gateways came to, by their place in memory: decisions share them.
    verdicts: HashMap<*const BTreeSet<String>, Verdict>,
    plan: NodePlan,
    problems: Vec<Problem>,
    lacks_sets: bool,
}

impl<'a> Work<'a> {
    fn of(inputs: &'a Inputs<'a>, numbering: &'a mut Numbering, plan: NodePlan) -> Work<'a> {
        let endpoints = inputs.view.endpoints.iter().map(|e| (e.attachment.as_str(), e)).collect();
        let (chains, verdicts) = (HashMap::new(), HashMap::new());
        Work { inputs, numbering, endpoints, chains, verdicts, plan, problems: Vec::new(), lacks_sets: false }
    }

    fn all(mut self) -> Planned {
        self.inside();
        self.peers();
        self.unnamed();
        self.locals();
        self.exits();
        self.forget_gone();
        self.clients();
        self.draining();
        self.plan.hold_what_has_no_gateway();
        self.plan.sweep_sets(); // a binding was made because a client has it
        self.planned()
    }

    fn planned(self) -> Planned {
        Planned { plan: self.plan, problems: self.problems, lacks_sets: self.lacks_sets }
    }

    fn inside(&mut self) {
        self.plan.inside.extend(self.inputs.inside);
        self.plan.inside.extend(self.inputs.locals.iter().flat_map(|pod| &pod.networks));
    }

    fn peers(&mut self) {
        for (name, node) in &self.inputs.view.nodes {
            if let (Some(number), Some(wire)) = (node.number, node.wire) {
                let peer = Peer { number, wire, underlay: node.internal_ips.clone() };
                self.plan.nodes.insert(name.clone(), peer);
            }
        }
    }

    /// Where nodes of gateways are reached that are no peers: no Node object names them (`kubectl delete node` under a kubelet that lives), or none
    /// with an address of the tunnel's family, or they have no number here. Clients send there all the same, so it is heard there; and what is
    /// heard is what is guarded, by every node, whether its own clients use that gateway or not.
    fn unnamed(&mut self) {
        let Inputs { here, view, resolution, .. } = *self.inputs;
        let first = |addresses: &[IpAddr]| first_of(addresses, Family::of(here.underlay));
        let is_peer = |node: &str| self.plan.nodes.get(node).and_then(|peer| first(&peer.underlay)).is_some();
        let pods = view.endpoints.iter().map(|e| (e.node.as_str(), e.underlay.as_slice()));
        let nodes = resolution.node_gateways.values().map(|g| (g.node.as_str(), [].as_slice()));
        let strangers = pods.chain(nodes).filter(|(node, _)| !is_peer(node));
        let reached = strangers.filter_map(|(node, then)| first(self.said_by(node)).or_else(|| first(then)));
        self.plan.unnamed = reached.collect();
    }

    /// The addresses that a node's object has now.
    fn said_by(&self, node: &str) -> &'a [IpAddr] {
        self.inputs.view.nodes.get(node).map_or(&[], |node| &node.internal_ips)
    }

    /// Gateways of this node: those with an endpoint *and* an attachment here, else a lost namespace would be wired again.
    fn locals(&mut self) {
        for pod in self.inputs.locals {
            let Some(endpoint) = self.endpoints.get(pod.attachment.as_str()) else { continue };
            if endpoint.state == EndpointState::Failed {
                continue;
            }
            let mut gateway = LocalGateway {
                veth: veth_name(&endpoint.attachment),
                vni: endpoint.vni,
                mac: endpoint.mac,
                addresses: endpoint.addresses.iter().map(|a| a.ip).collect(),
                announced: BTreeSet::new(),
                hidden: BTreeMap::new(),
                own: OwnAddresses::of(endpoint),
            };
            for address in &endpoint.addresses {
                let pool = self.inputs.view.pools.get(&address.pool);
                if pool.is_some_and(|pool| pool.nat_outgoing) {
                    // Nobody outside ever sees it, so nobody need find it.
                    let seen = node_address(self.inputs.view, endpoint, Family::of(address.ip));
                    gateway.hidden.insert(address.ip, seen);
                    continue;
                }
                if !is_announced(address, pool) {
                    continue;
                }
                let uplinks = self.inputs.here.uplinks_for(address.ip);
                self.problems.extend(cannot_serve(endpoint, address.ip, self.inputs));
                if uplinks.is_empty() {
                    self.problems.push(nothing_announces(endpoint, address.ip, &self.inputs.here.node));
                }
                gateway.announced.extend(uplinks.into_iter().map(|dev| (dev, address.ip)));
            }
            self.plan.locals.insert(endpoint.attachment.clone(), gateway);
        }
    }

    /// A gateway that no longer exists leaves every set it was in; the set keeps its number, because everything that points
    /// to it loses the same member.
    fn forget_gone(&mut self) {
        let alive: BTreeSet<IpAddr> = self
            .inputs
            .view
            .endpoints
            .iter()
            .filter(|e| matches!(e.state, EndpointState::Ready | EndpointState::Draining))
            .flat_map(next_hops)
            .chain(self.inputs.resolution.node_gateways.values().flat_map(exit_next_hops))
            .collect();
        self.numbering.retain(&alive);
    }

    fn clients(&mut self) {
        let owners = self.owners();
        let mut owns = vec![false; self.inputs.locals.len()];
        owners.iter().for_each(|(_, pod)| owns[*pod] = true);
        // In the order of their ADD, because numbers are given in it. Who has no address gets no binding, or its sets would take
        // numbers before those in use.
        let mut bindings = Vec::with_capacity(owns.len());
        for (pod, owns) in self.inputs.locals.iter().zip(owns) {
            let decision = pod.pod.as_ref().filter(|_| owns);
            let decision = decision.and_then(|name| self.inputs.resolution.decisions.get(name));
            let client = decision.filter(|decision| decision.role == Role::Client);
            bindings.push(client.map(|decision| self.binding(decision)));
        }
        let client = |(ip, pod): (IpAddr, usize)| {
            let (attachment, binding) = (self.inputs.locals[pod].attachment.clone(), bindings[pod].clone()?);
            Some((ip, Client { attachment, binding }))
        };
        self.plan.clients = owners.into_iter().filter_map(client).collect();
    }

    /// Every address that pods have here, in order, with the position of the pod that was wired last with it: that one has it.
    fn owners(&self) -> Vec<(IpAddr, usize)> {
        let pods = self.inputs.locals.iter().enumerate();
        let mut owners: Vec<(IpAddr, usize)> =
            pods.flat_map(|(i, pod)| pod.addresses.iter().map(move |ip| (*ip, i))).collect();
        owners.sort_unstable_by_key(|(ip, pod)| (*ip, Reverse(*pod)));
        owners.dedup_by_key(|(ip, _)| *ip);
        owners
    }

    fn binding(&mut self, decision: &'a Decision) -> String {
        if let Some(known) = self.chains.get(decision.binding.as_str()) {
            return known.clone();
        }
        let chain = binding_chain(&decision.binding);
        if !self.plan.bindings.contains_key(&chain) {
            let rules =
                decision.rules.iter().map(|(prefix, outcome)| (*prefix, self.verdict(&outcome.action)));
            let rules: BTreeMap<Cidr, Verdict> = rules.collect();
            self.plan.bindings.insert(chain.clone(), Binding { key: decision.binding.clone(), rules });
        }
        self.chains.insert(&decision.binding, chain.clone());
        chain
    }

    fn verdict(&mut self, action: &Action) -> Verdict {
        let attachments = match action {
            Action::Direct => return Verdict::Direct,
            Action::Held(_) => return Verdict::Held,
            Action::Through(attachments) => attachments,
        };
        if let Some(known) = self.verdicts.get(&Arc::as_ptr(attachments)) {
            return *known;
        }
        let met = self.problems.len();
        let verdict = self.through(attachments);
        // What is wrong with it is said of each rule.
        if self.problems.len() == met {
            self.verdicts.insert(Arc::as_ptr(attachments), verdict);
        }
        verdict
    }

    fn through(&mut self, attachments: &BTreeSet<String>) -> Verdict {
        let members: BTreeSet<u32> =
            attachments.iter().filter_map(|attachment| self.gateway(attachment)).collect();
        if members.is_empty() {
            return Verdict::Held;
        }
        self.set(members)
    }

    /// This node's own gateways.
    fn exits(&mut self) {
        let asked = &self.inputs.resolution.node_gateways;
        let (exits, problems) = exit_planning::exits(self.inputs.here, asked, self.numbering);
        self.plan.exits = exits;
        self.problems.extend(problems);
    }

    /// A node gateway as its clients here see it.
    fn node_gateway(&mut self, gateway: &NodeGateway) -> Option<u32> {
        let (key, mac) = (gateway.key(), numbers::exit_mac(&gateway.key()));
        let (place, addresses) = if gateway.node == self.inputs.here.node {
            let (index, exit) = self.plan.exits.iter().find(|(_, exit)| exit.key == key)?;
            (Place::Exit { index: *index }, exit.addresses.clone())
        } else {
            let underlay = self.underlay_of(&gateway.node, self.said_by(&gateway.node), &key)?;
            (Place::Remote { underlay, vni: self.inputs.here.vni }, gateway.addresses.clone())
        };
        let number = self.numbering.gateway(&exit_next_hops(gateway).collect::<Vec<_>>())?;
        let gateway = Gateway { attachment: key, mac, addresses, place, takes_new_flows: true };
        self.plan.gateways.entry(number).or_insert(gateway);
        Some(number)
    }

    fn gateway(&mut self, attachment: &str) -> Option<u32> {
        if let Some(gateway) = self.inputs.resolution.node_gateways.get(attachment) {
            return self.node_gateway(gateway);
        }
        let endpoint = *self.endpoints.get(attachment)?;
        // Its endpoint says it is here, but no attachment is: a lost namespace. Never tunnel to ourselves, nor spend a number on it.
        if endpoint.node == self.inputs.here.node && !self.plan.locals.contains_key(attachment) {
            return None;
        }
        let addresses: Vec<IpAddr> = endpoint.addresses.iter().map(|a| a.ip).collect();
        let number = self.numbering.gateway(&next_hops(endpoint).collect::<Vec<_>>())?;
        if !self.plan.gateways.contains_key(&number) {
            let place = self.place(endpoint, number)?;
            let takes_new_flows = endpoint.state == EndpointState::Ready;
            let attachment = endpoint.attachment.clone();
            let gateway = Gateway { attachment, mac: endpoint.mac, addresses, place, takes_new_flows };
            self.plan.gateways.insert(number, gateway);
        }
        Some(number)
    }

    fn place(&mut self, endpoint: &Endpoint, number: u32) -> Option<Place> {
        let here = self.inputs.here;
        if let Some(local) = self.plan.locals.get(&endpoint.attachment) {
            let veth = local.veth.clone();
            let slot = self.numbering.slot(number);
            if slot.is_none() {
                self.problems.push(Problem::new(
                    format!("Pod {}", endpoint.pod),
                    "TooManyLocalGateways",
                    format!(
                        "node {} already serves {} of its own pods' gateways, one per mark number; its clients do not use gateway \
                         {}: run some of the gateways on other nodes",
                        here.node,
                        mark::LOCALS.count(),
                        endpoint.pod
                    ),
                ));
            }
            return slot.map(|slot| Place::Local { veth, slot });
        }
        // As its Node says now: the endpoint has what it said when the gateway started.
        let now = self.said_by(&endpoint.node).iter();
        let addresses: Vec<IpAddr> = now.chain(&endpoint.underlay).copied().collect();
        let underlay = self.underlay_of(&endpoint.node, &addresses, &endpoint.pod.to_string());
        underlay.map(|underlay| Place::Remote { underlay, vni: endpoint.vni })
    }

    /// Where a gateway's node is reached: its first address of the tunnel's family.
    fn underlay_of(&mut self, node: &str, addresses: &[IpAddr], gateway: &str) -> Option<IpAddr> {
        let here = self.inputs.here;
        let family = Family::of(here.underlay);
        let underlay = first_of(addresses, family);
        if underlay.is_none() {
            self.problems.push(Problem::new(
                format!("Node {node}"),
                "NoUnderlay",
                format!(
                    "node {node} of gateway {gateway} has no {family} underlay address, and the tunnel of node {} runs over {family}: \
                     add an InternalIP of that family to the Node, or set underlay.address alike on all nodes",
                    here.node
                ),
            ));
        }
        underlay
    }

    /// Gateways that drain keep the flows they have, as long as this node knew them.
    fn draining(&mut self) {
        for endpoint in &self.inputs.view.endpoints {
            let known = next_hops(endpoint).any(|ip| self.numbering.gateways.contains_key(&ip));
            if endpoint.state == EndpointState::Draining && known {
                self.gateway(&endpoint.attachment);
            }
        }
    }
}

fn first_of(addresses: &[IpAddr], family: Family) -> Option<IpAddr> {
    addresses.iter().copied().find(|ip| Family::of(*ip) == family)
}

/// The next hops that stand for a node gateway, one per address.
fn exit_next_hops(gateway: &NodeGateway) -> impl Iterator<Item = IpAddr> {
    let mac = numbers::exit_mac(&gateway.key());
    gateway.addresses.iter().map(move |ip| numbers::gateway_next_hop(mac, *ip))
}

/// The next hops that stand for an endpoint, one per address.
fn next_hops(endpoint: &Endpoint) -> impl Iterator<Item = IpAddr> {
    endpoint.addresses.iter().map(|a| numbers::gateway_next_hop(endpoint.mac, a.ip))
}

/// A lease that was given before its address became one that serves nobody, or on a node that did not know.
fn cannot_serve(endpoint: &Endpoint, ip: IpAddr, inputs: &Inputs<'_>) -> Option<Problem> {
    let own: Vec<(IpAddr, Cidr)> = inputs.here.uplinks.iter().flat_map(|u| u.addresses.clone()).collect();
    let (_, why) = unservable(&inputs.here.node, &own, &inputs.view.nodes).find(|(bad, _)| *bad == ip)?;
    let message = format!(
        "{ip}, leased from pool `{}`, {why}: replies to it do not come back. Start the pod anew: it gets another address",
        endpoint.addresses.iter().find(|a| a.ip == ip).map(|a| a.pool.as_str()).unwrap_or_default()
    );
    Some(Problem::new(format!("Pod {}", endpoint.pod), "UnservableAddress", message))
}

fn nothing_announces(endpoint: &Endpoint, ip: IpAddr, node: &str) -> Problem {
    Problem::new(
        format!("Pod {}", endpoint.pod),
        "NotAnnounced",
        format!(
            "no uplink of node {node} has a subnet that holds {ip}, so nothing tells the outside the way to it: give an uplink an \
             address in that subnet, or say `announce: None` in the pool and route it to the node yourself"
        ),
    )
}
