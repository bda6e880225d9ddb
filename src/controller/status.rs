//! The status of every object of ours as it should be, written where it is not. Pure.
//!
//! In: the world, the time. Out: writes, one per object whose status says something else. Done twice, the second has none.

use serde_json::{Map, Value, json};

use super::agents::Agent;
use super::conditions::{Condition, is_news, status};
use super::ranges;
use super::tally::{Tallies, Tally, Unserved};
use super::world::{World, Written};
use crate::egress::model::Pool;
use crate::ipam::Summary;
use crate::kube::Watched;

/// A status that is to be written.
#[derive(Debug, Clone, PartialEq)]
pub struct Write {
    /// The object's kind.
    pub kind: Watched,
    /// Its name.
    pub name: String,
    /// The whole status.
    pub status: Value,
    /// Whether an answer is another one, and not only numbers, names and sentences.
    pub is_news: bool,
}

/// How many pods are named; `unprotected` counts them all.
const NAMED: usize = 100;

/// Everything that is to be written. `now` in Unix seconds; `time` is the same as a text.
pub fn writes(world: &World, tallies: &Tallies, now: u64, time: &str) -> Vec<Write> {
    let mut all = Vec::new();
    let mut put = |kind: Watched, name: &str, of: &Written, said: (Map<String, Value>, Vec<Condition>)| {
        let status = status(&of.status, of.generation, said.0, &said.1, time);
        all.extend(status.map(|status| {
            let is_news = is_news(&of.status, &status);
            Write { kind, name: name.to_owned(), status, is_news }
        }));
    };
    for pool in &world.pools {
        put(Watched::Pools, &pool.name, pool, of_pool(world, tallies, pool, now));
    }
    for policy in &world.policies {
        put(Watched::Policies, &policy.name, policy, of_policy(world, tallies, policy));
    }
    let outside = ranges::outside(world);
    for range in &world.ranges {
        let object = format!("EgressRange {}", range.name);
        let accepted = match world.view.broken.contains(&object) {
            true => refused(world, &object).swap_remove(0),
            false => accepted(world, &object),
        };
        let conditions = vec![accepted, ranges::anywhere(&outside)];
        put(Watched::Ranges, &range.name, range, (Map::new(), conditions));
    }
    for (name, node) in &world.nodes {
        let inside = ranges::condition(&outside, &node.name);
        let conditions = agent_at_work(world, &node.name).into_iter().chain([inside]).collect();
        put(Watched::NodeRecords, name, node, (Map::new(), conditions));
    }
    for (endpoint, spec) in &world.endpoints {
        let conditions = serves(world, &endpoint.status, spec).into_iter().collect();
        put(Watched::Endpoints, &endpoint.name, endpoint, (Map::new(), conditions));
    }
    all
}

/// A condition that is not said anew stays as it is.
type Said = (Map<String, Value>, Vec<Condition>);

fn of_pool(world: &World, tallies: &Tallies, pool: &Written, now: u64) -> Said {
    let (name, was) = (pool.name.as_str(), &pool.status);
    let nothing = Tally::default();
    let tally = tallies.pools.get(name).unwrap_or(&nothing);
    let Some(pool) = world.view.pools.get(name) else {
        return (Map::new(), refused(world, &format!("EgressPool {name}")));
    };
    let blocks = world.blocks.iter().filter(|block| block.pool == name);
    let fill = Summary::of(blocks, []).fill(pool.cidr, now, pool.cooldown_seconds);
    let mut fields = fields(json!({
        "size": fill.size.to_string(),
        "free": fill.free().to_string(),
        "leased": fill.leased,
        "cooling": fill.cooling,
        "reserved": fill.reserved,
        "clients": tally.pods.len(),
    }));
    fields.extend(unprotected(tally, was));
    let own = [accepted(world, &format!("EgressPool {name}")), pool_ready(pool, fill.leased, fill.free())];
    (fields, own.into_iter().chain(protected(tally)).collect())
}

fn pool_ready(pool: &Pool, leased: u64, free: u128) -> Condition {
    if pool.disabled {
        let says =
            "it gives no new leases; gateways that have one keep it. Remove spec.disabled to use it again";
        return Condition::no("Ready", "Disabled", says);
    }
    match (leased, free) {
        // A pool with as many addresses as gateways is as it should be.
        (_, 0) => Condition::yes(
            "Ready",
            "Full",
            "every address is leased, cooling or reserved; the next gateway finds none",
        ),
        (0, _) => Condition::yes("Ready", "Unused", "no gateway has an address of it"),
        _ => Condition::yes("Ready", "InUse", "gateways have addresses of it"),
    }
}

fn of_policy(world: &World, tallies: &Tallies, policy: &Written) -> Said {
    let (name, was) = (policy.name.as_str(), &policy.status);
    let nothing = Tally::default();
    let tally = tallies.policies.get(name).unwrap_or(&nothing);
    let object = format!("EgressGatewayPolicy {name}");
    let mut fields = fields(json!({"pods": tally.pods.len(), "held": tally.held.len()}));
    fields.extend(unprotected(tally, was));
    let accepted = match world.view.policies.get(name) {
        None => return (fields, refused(world, &object)),
        Some(policy) => match policy.unfit.first() {
            Some(problem) => Condition::no("Accepted", &problem.reason, problem.sentence()),
            None => accepted(world, &object),
        },
    };
    let ready = if !accepted.holds {
        Condition { kind: "Ready", ..accepted.clone() }
    } else if let Some(pod) = tally.held.first() {
        let many = if tally.held.len() == 1 {
            String::new()
        } else {
            format!(" and {} others", tally.held.len() - 1)
        };
        Condition::no(
            "Ready",
            "NoGateway",
            format!("{pod}{many} reach nothing that it decides: {}", tally.why_held),
        )
    } else if tally.pods.is_empty() {
        let why = "no pod follows it: none names it or is selected by it, or others decide before it wherever those go, \
                   which `egret explain` says";
        Condition::yes("Ready", "Unused", why)
    } else {
        Condition::yes("Ready", "InUse", "every pod that follows it has a gateway where it names one")
    };
    (fields, [accepted, ready].into_iter().chain(protected(tally)).collect())
}

/// Read, and in force; what is odd about it all the same is said.
fn accepted(world: &World, object: &str) -> Condition {
    match world.problems.iter().find(|problem| problem.object == object) {
        Some(problem) => Condition::yes("Accepted", &problem.reason, problem.sentence()),
        None => Condition::yes("Accepted", "Read", "it is read and in force"),
    }
}

/// Not in force, because.
fn refused(world: &World, object: &str) -> Vec<Condition> {
    let of = world.problems.iter().find(|problem| problem.object == object);
    let (reason, message) = match of {
        Some(problem) => (problem.reason.as_str(), problem.sentence()),
        None => ("Unread", "it cannot be read; `egret lint` says why".to_owned()),
    };
    vec![Condition::no("Accepted", reason, message.as_str()), Condition::no("Ready", reason, message)]
}

/// Whether nobody can say yet who is served: then what was said of it stays, all of it. It is a matter of seconds, but for nodes that
/// are dead.
fn is_unheard(tally: &Tally) -> bool {
    tally.unserved.values().any(|why| *why == Unserved::Unheard)
}

fn unprotected(tally: &Tally, was: &Value) -> Map<String, Value> {
    if is_unheard(tally) {
        let kept = ["unprotected", "unprotectedPods"].into_iter();
        return kept.filter_map(|key| Some((key.to_owned(), was.get(key)?.clone()))).collect();
    }
    let names: Vec<String> = tally.unserved.keys().take(NAMED).map(ToString::to_string).collect();
    fields(json!({"unprotected": tally.unserved.len(), "unprotectedPods": names}))
}

fn protected(tally: &Tally) -> Option<Condition> {
    if is_unheard(tally) {
        return None;
    }
    let Some((pod, why)) = tally.unserved.iter().next() else {
        return Some(Condition::yes("Protected", "Served", "an agent serves every pod that it concerns"));
    };
    let says = match why {
        Unserved::Unheard => return None,
        Unserved::AgentAway => {
            "nothing was heard of its node's agent for 30 s: what is wired stays, what changes is not obeyed"
        }
        Unserved::NoAgent => {
            "its node never had an agent, so it leaves as the node does; let the DaemonSet run there, or keep such pods away"
        }
        Unserved::Bypassed => {
            "its traffic does not pass its node's forwarding; the agent's log on its node says what takes it away"
        }
        Unserved::NotWired => {
            "it was started without Egret and leaves with its node's address; delete it, so that it starts again"
        }
        Unserved::HostNetwork => {
            "it shares its node's network and leaves as the node; leave it out, or remove spec.hostNetwork"
        }
    };
    Some(Condition::no("Protected", why.word(), format!("pod {pod} is not served: {says}")))
}

fn agent_at_work(world: &World, node: &str) -> Option<Condition> {
    Some(match world.agents.get(node) {
        Some(Agent::Unknown) => return None,
        None => Condition::no("AgentReady", "NodeGone", format!("there is no Node {node}")),
        Some(Agent::Here) => Condition::yes("AgentReady", "Heard", "its agent gives signs of life"),
        Some(Agent::Away) => {
            Condition::no("AgentReady", "AgentAway", "nothing was heard of its agent for 30 s")
        }
        Some(Agent::Never) => {
            Condition::no("AgentReady", "NoAgent", "its agent has given no sign of life yet")
        }
    })
}

/// What a gateway's endpoint says, in the words of everything else.
fn serves(world: &World, was: &Value, spec: &Value) -> Option<Condition> {
    let node = spec["node"].as_str().unwrap_or_default();
    let known = was["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
    let is_said = known.iter().any(|c| c["type"] == "Ready" && c["status"] == "True");
    Some(match (spec["state"].as_str(), world.agent(node)) {
        (Some("ready"), Agent::Unknown) if is_said => return None,
        (Some("ready"), Agent::Here | Agent::Unknown) => Condition::yes("Ready", "Serving", "it takes flows"),
        (Some("ready"), _) => {
            let says =
                format!("it took flows when the agent of node {node} was last heard, and may still do so");
            Condition::yes("Ready", "AgentAway", says)
        }
        (Some("starting"), _) => {
            let says = "its pod is not Ready yet, or its node has not wired the way back; `egret status` there says more";
            Condition::no("Ready", "Starting", says)
        }
        (Some("draining"), _) => {
            let says = "its pod is not Ready, or ends: the flows that it has stay, new ones go elsewhere";
            Condition::no("Ready", "Draining", says)
        }
        _ => Condition::no("Ready", "Failed", "its pod has ended; it takes nothing any more"),
    })
}

fn fields(value: Value) -> Map<String, Value> {
    if let Value::Object(fields) = value { fields } else { Map::new() }
}
