//! How the agent is, for those who ask from outside: the doctor of its [pages](crate::probes::web).
//!
//! In: whether the loops turn, what the agent says of itself. Out: yes, or why not, and everything counted. Never: waits for a loop.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use crate::addr::Family;
use crate::agent::cluster::Cluster;
use crate::agent::door::Gate;
use crate::agent::state::{AgentState, Health};
use crate::egress::model::EndpointState;
use crate::egress::plan::{Binding, NodePlan, Verdict};
use crate::node::flows;
use crate::probes::metrics::Metrics;
use crate::probes::turns::Turns;
use crate::probes::web::Doctor;

/// What is known of the agent.
pub(super) struct Known {
    pub(super) metrics: Arc<Metrics>,
    cluster: Option<Arc<Cluster>>,
    pub(super) turns: Arc<Turns>,
    ready: Mutex<Result<(), String>>,
}

impl Known {
    pub(super) fn new(metrics: Arc<Metrics>, cluster: Option<Arc<Cluster>>) -> Known {
        let ready = Err("the agent has not compared everything once".to_owned());
        let turns = cluster.as_ref().map(|cluster| cluster.turns()).unwrap_or_default();
        Known { metrics, cluster, turns, ready: Mutex::new(ready) }
    }

    /// What the agent says of itself now.
    pub(super) fn is(&self, state: &AgentState) {
        let why = || state.last_error.as_ref().map_or_else(String::new, |last| last.message.clone());
        let ready = match state.health {
            Health::Well | Health::Degraded => Ok(()),
            Health::Starting => Err("the agent has not compared everything once".to_owned()),
            Health::Failing => Err(format!("the kernel could not be brought to the plan: {}", why())),
            Health::Stopped => Err("the agent ends".to_owned()),
        };
        *self.ready.lock().unwrap_or_else(PoisonError::into_inner) = ready;
        count_state(&self.metrics, state);
    }
}

impl Doctor for Known {
    fn alive(&self) -> Result<(), String> {
        self.turns.alive()
    }

    fn ready(&self) -> Result<String, String> {
        if let Some(cluster) = &self.cluster {
            cluster.ready().map_err(|error| error.to_string())?;
        }
        self.turns.timely()?;
        let ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner).clone();
        ready.map(|()| "ok".to_owned())
    }

    fn counted(&self) -> String {
        if let Some(cluster) = &self.cluster {
            cluster.count();
        }
        #[allow(clippy::cast_precision_loss, reason = "nobody loses 2^53 flows")]
        self.metrics.set("egret_datapath_lost_flows_total", &[], flows::lost() as f64);
        self.metrics.text()
    }
}

/// The plan in numbers.
pub(super) fn count_plan(metrics: &Metrics, plan: Option<&NodePlan>) {
    #[allow(clippy::cast_precision_loss, reason = "nobody has 2^53 pods")]
    let set = |name, labels: &[&str], count: usize| metrics.set(name, labels, count as f64);
    let usable = |plan: &NodePlan| plan.gateways.values().filter(|gateway| gateway.takes_new_flows).count();
    set("egret_datapath_clients", &[], plan.map_or(0, |plan| plan.clients.len()));
    set("egret_datapath_bindings", &[], plan.map_or(0, |plan| plan.bindings.len()));
    set("egret_datapath_held_clients", &[], plan.map_or(0, held));
    set("egret_datapath_gateways", &["usable"], plan.map_or(0, usable));
    set("egret_datapath_gateways", &["draining"], plan.map_or(0, |plan| plan.gateways.len() - usable(plan)));
}

/// Addresses of clients of which something is held. A binding speaks of both families, an address is of one: what is held in the other
/// is nothing that its pod could send.
fn held(plan: &NodePlan) -> usize {
    let holds = |address: IpAddr, binding: &Binding| {
        let mut rules = binding.rules.iter().filter(|(to, _)| to.family() == Family::of(address));
        rules.any(|(_, verdict)| *verdict == Verdict::Held)
    };
    let clients = plan
        .clients
        .iter()
        .filter_map(|(address, client)| Some((*address, plan.bindings.get(&client.binding)?)));
    clients.filter(|(address, binding)| holds(*address, binding)).count()
}

/// What this node tells of its gateways, and the leases that they have; each with its block, if its pool is known.
pub(super) fn count_gateways(
    metrics: &Metrics,
    states: impl Iterator<Item = EndpointState>,
    leases: &BTreeMap<String, (usize, usize)>,
) {
    let mut counts =
        [EndpointState::Starting, EndpointState::Ready, EndpointState::Draining, EndpointState::Failed]
            .map(|state| (state, 0.0));
    for state in states {
        counts.iter_mut().filter(|(known, _)| *known == state).for_each(|(_, count)| *count += 1.0);
    }
    for (state, count) in counts {
        metrics.set("egret_datapath_local_gateways", &[state.word()], count);
    }
    #[allow(clippy::cast_precision_loss, reason = "nobody has 2^53 leases")]
    let rows = |of: fn(&(usize, usize)) -> usize| {
        let row = move |(pool, counts): (&String, &(usize, usize))| (vec![pool.clone()], of(counts) as f64);
        leases.iter().map(row).collect::<Vec<_>>()
    };
    for (name, rows) in [("egret_ipam_leases", rows(|c| c.0)), ("egret_ipam_blocks", rows(|c| c.1))] {
        metrics.set_all(name, rows);
    }
}

fn count_state(metrics: &Metrics, state: &AgentState) {
    #[allow(clippy::cast_precision_loss, reason = "counts and Unix times are far below 2^53")]
    let number = |count: u64| count as f64;
    metrics.set_all("egret_build_info", [(vec![state.version.clone()], 1.0)]);
    metrics.set("egret_agent_start_time_seconds", &[], number(state.started));
    let health = format!("{:?}", state.health).to_lowercase();
    metrics.set_all("egret_agent_health", [(vec![health], 1.0)]);
    let mut problems: BTreeMap<&str, f64> = BTreeMap::new();
    for problem in &state.problems {
        *problems.entry(problem.reason.as_str()).or_default() += 1.0;
    }
    metrics.set_all(
        "egret_agent_problems",
        problems.into_iter().map(|(reason, n)| (vec![reason.to_owned()], n)),
    );
    for (kind, repairs) in &state.repairs {
        metrics.set("egret_datapath_repairs_total", &[kind], number(repairs.objects));
    }
    let (flushes, unguarded) = (&state.ruleset_flushes, &state.unguarded);
    metrics.set("egret_datapath_ruleset_flushes_total", &[], number(flushes.times));
    metrics.set("egret_datapath_brakes_total", &[], number(unguarded.times));
    metrics.set("egret_datapath_unruled_seconds_total", &[], number(flushes.total_micros) / 1e6);
    metrics.set("egret_datapath_unguarded_seconds_total", &[], number(unguarded.total_micros) / 1e6);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::egress::tests::worlds::World;

    #[test]
    fn an_address_is_held_by_what_is_held_in_its_own_family_alone() {
        let mut plan = World::new().gateway(2, 0).client(10, &[0]).plan();
        assert_eq!(held(&plan), 0);
        for rules in plan.bindings.values_mut().map(|binding| &mut binding.rules) {
            rules.insert(Family::V6.everything(), Verdict::Held);
        }
        assert_eq!((plan.clients.len(), held(&plan)), (2, 1), "its other address leaves by the gateway");
        plan.clients.retain(|address, _| address.is_ipv4());
        assert_eq!(held(&plan), 0, "a pod without IPv6 lacks nothing where the gateway has none");
    }
}
