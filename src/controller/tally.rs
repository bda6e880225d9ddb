//! Which pods follow which policy and leave with which pool's addresses, and whom nobody serves. Pure.
//!
//! In: the world, its resolution: the same that every agent makes for its own pods. Out: sets of pods, by policy and by pool.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use super::agents::Agent;
use super::world::World;
use crate::addr::Family;
use crate::egress::model::{Action, Decision, PodName, Resolution, Role};
use crate::egress::resolve::resolve;

/// Why a selected pod's traffic does not do what was decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unserved {
    /// Its node's agent is silent. What is wired stays; what changes is not obeyed.
    AgentAway,
    /// Its node never had an agent.
    NoAgent,
    /// It shares its node's network.
    HostNetwork,
    /// Something takes its packets past the node's forwarding.
    Bypassed,
    /// It was started before Egret was in its node's network list.
    NotWired,
    /// Perhaps: nobody can say yet whether its node has an agent.
    Unheard,
}

impl Unserved {
    /// All that it may be.
    pub const ALL: [Unserved; 6] = [
        Unserved::AgentAway,
        Unserved::NoAgent,
        Unserved::HostNetwork,
        Unserved::Bypassed,
        Unserved::NotWired,
        Unserved::Unheard,
    ];

    /// As a condition's reason says it.
    pub fn word(self) -> &'static str {
        match self {
            Unserved::AgentAway => "AgentAway",
            Unserved::NoAgent => "NoAgent",
            Unserved::HostNetwork => "HostNetwork",
            Unserved::Bypassed => "Bypassed",
            Unserved::NotWired => "NotWired",
            Unserved::Unheard => "Unheard",
        }
    }
}

/// Pods of one policy or pool. Only pods that have a node count.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    /// All.
    pub pods: BTreeSet<PodName>,
    /// Those of them that are refused somewhere, for want of a gateway or because of a fault; of a policy only.
    pub held: BTreeSet<PodName>,
    /// Why the first of those is.
    pub why_held: String,
    /// Selected pods that nobody serves.
    pub unserved: BTreeMap<PodName, Unserved>,
}

/// All of them, by name.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Tallies {
    /// Of `EgressGatewayPolicy` objects.
    pub policies: BTreeMap<String, Tally>,
    /// Of pools.
    pub pools: BTreeMap<String, Tally>,
    /// Of the cluster.
    pub sum: Sum,
}

/// How many pods there are of each sort, whoever decided.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sum {
    /// Whose traffic is decided.
    pub clients: usize,
    /// Those of them that are refused somewhere.
    pub held: usize,
    /// Selected pods that nobody serves.
    pub unserved: BTreeMap<Unserved, usize>,
}

/// What one set of rules comes to.
#[derive(Debug, Default)]
struct Led {
    policies: BTreeMap<String, Held>,
    pools: BTreeSet<String>,
    /// Whoever decided.
    held: Held,
}

/// What a policy's rules hold.
#[derive(Debug, Default)]
struct Held {
    /// Why, by family.
    by_family: BTreeMap<Family, String>,
    /// Whether others of them do not.
    beside: bool,
}

impl Held {
    /// One of them.
    fn rule(&mut self, family: Family, action: &Action) {
        match action {
            Action::Held(why) => _ = self.by_family.insert(family, why.clone()),
            Action::Direct | Action::Through(_) => self.beside = true,
        }
    }

    /// Why a pod with these addresses is held. A family that it has no address of is none of its concern: most pods have IPv4 only,
    /// and most rules are for both.
    fn concerns(&self, addresses: &[IpAddr]) -> Option<&String> {
        if addresses.is_empty() {
            return self.by_family.values().next().filter(|_| !self.beside);
        }
        addresses.iter().find_map(|ip| self.by_family.get(&Family::of(*ip)))
    }
}

const POLICY: &str = "EgressGatewayPolicy ";

/// Counts every pod that runs somewhere.
pub fn tally(world: &World) -> Tallies {
    let running = world.view.pods.iter().filter(|(_, pod)| pod.node.is_some());
    let resolution = resolve(&world.view, running.map(|(name, _)| name.clone()));
    count(world, &resolution)
}

fn count(world: &World, resolution: &Resolution) -> Tallies {
    let endpoints = world.view.endpoints.iter();
    let pools: HashMap<&str, Vec<&str>> = endpoints
        .map(|e| (e.attachment.as_str(), e.addresses.iter().map(|a| a.pool.as_str()).collect()))
        .collect();
    // Thousands of pods have the same rules.
    let mut known: HashMap<(usize, Option<&str>), Led> = HashMap::new();
    let mut tallies = Tallies::default();
    for (pod, decision) in &resolution.decisions {
        let by = decision.decided_by.as_ref().map(|source| source.object.as_str());
        let key = (Arc::as_ptr(&decision.rules).addr(), by);
        let led = known.entry(key).or_insert_with(|| led(decision, by, &pools));
        let unserved = unserved(world, decision);
        let addresses = world.view.pods.get(pod).map(|pod| pod.ips.as_slice()).unwrap_or_default();
        if decision.role == Role::Client {
            tallies.sum.clients += 1;
            tallies.sum.held += usize::from(led.held.concerns(addresses).is_some());
        }
        if let Some(why) = unserved {
            *tallies.sum.unserved.entry(why).or_default() += 1;
        }
        for (policy, held) in &led.policies {
            let tally = tallies.policies.entry(policy.clone()).or_default();
            if decision.role == Role::Client {
                tally.pods.insert(pod.clone());
                if let Some(why) = held.concerns(addresses) {
                    // They come in the order of their names: the first of the set is the one that this is said of.
                    if tally.held.is_empty() {
                        tally.why_held.clone_from(why);
                    }
                    tally.held.insert(pod.clone());
                }
            }
            tally.unserved.extend(unserved.map(|why| (pod.clone(), why)));
        }
        for pool in &led.pools {
            let tally = tallies.pools.entry(pool.clone()).or_default();
            tally.pods.insert(pod.clone());
            tally.unserved.extend(unserved.map(|why| (pod.clone(), why)));
        }
    }
    tallies
}

fn led(decision: &Decision, by: Option<&str>, pools: &HashMap<&str, Vec<&str>>) -> Led {
    let mut led = Led::default();
    let policy = |object: &str| object.strip_prefix(POLICY).map(str::to_owned);
    if let Some(name) = by.and_then(policy) {
        led.policies.entry(name).or_default();
    }
    for (cidr, outcome) in decision.rules.iter() {
        led.held.rule(cidr.family(), &outcome.action);
        let object = outcome.decided_by.as_ref().map(|source| source.object.as_str()).or(by);
        if let Some(name) = object.and_then(policy) {
            led.policies.entry(name).or_default().rule(cidr.family(), &outcome.action);
        }
        if let Action::Through(gateways) = &outcome.action {
            let of = gateways.iter().filter_map(|key| pools.get(key.as_str())).flatten();
            led.pools.extend(of.map(|pool| (*pool).to_owned()));
        }
    }
    led
}

fn unserved(world: &World, decision: &Decision) -> Option<Unserved> {
    match decision.role {
        Role::HostNetwork => return decision.decided_by.as_ref().map(|_| Unserved::HostNetwork),
        Role::Client => {}
        Role::Unselected | Role::Gateway => return None,
    }
    let node = world.view.pods.get(&decision.pod)?.node.as_deref()?;
    let is_in = |noted: &BTreeMap<String, BTreeSet<PodName>>| {
        noted.get(node).is_some_and(|pods| pods.contains(&decision.pod))
    };
    match world.agent(node) {
        Agent::Here if is_in(&world.bypassed) => Some(Unserved::Bypassed),
        Agent::Here => is_in(&world.unwired).then_some(Unserved::NotWired),
        Agent::Away => Some(Unserved::AgentAway),
        Agent::Never => Some(Unserved::NoAgent),
        Agent::Unknown => Some(Unserved::Unheard),
    }
}
