//! The agent's jobs in numbers.
//!
//! In: a job that ended, the plan and the endpoints as they are. Out: series. Never: changes anything.

use std::collections::{BTreeMap, BTreeSet};

use super::Agent;
use crate::addr::Cidr;
use crate::agent::health;
use crate::node::embedded::now;
use crate::store::endpoints;

impl Agent<'_> {
    /// Counts a job that ended.
    pub(in crate::agent) fn count(&mut self, job: &str, seconds: f64, failed: bool) {
        let metrics = &self.known.metrics;
        metrics.add("egret_reconcile_runs_total", &[job], 1);
        metrics.add("egret_reconcile_failures_total", &[job], u64::from(failed));
        metrics.add("egret_reconcile_steps_total", &[job], std::mem::take(&mut self.steps) as u64);
        metrics.took("egret_reconcile_duration_seconds", &[job], seconds);
        if !failed && matches!(job, "check" | "update") {
            #[allow(clippy::cast_precision_loss, reason = "Unix times are far below 2^53")]
            metrics.set("egret_reconcile_last_success_timestamp_seconds", &[], now() as f64);
        }
        if matches!(job, "update" | "recall") {
            self.count_node();
        }
    }

    /// The plan and this node's gateways in numbers.
    fn count_node(&self) {
        health::count_plan(&self.known.metrics, self.applied.as_ref().map(|applied| &applied.plan));
        let Ok((endpoints, _)) = endpoints::list(&self.node.dir) else { return };
        let ours: Vec<_> = endpoints.into_iter().filter(|e| e.node == self.node.name).collect();
        let mut leases: BTreeMap<String, BTreeSet<Cidr>> = BTreeMap::new();
        let mut counts: BTreeMap<String, (usize, usize)> = BTreeMap::new();
        for address in ours.iter().flat_map(|endpoint| &endpoint.addresses) {
            let size = self.block_sizes.get(&address.pool).copied();
            let size = size.unwrap_or(if address.ip.is_ipv4() { 31 } else { 127 });
            leases.entry(address.pool.clone()).or_default().insert(Cidr::covering(address.ip, size));
            counts.entry(address.pool.clone()).or_default().0 += 1;
        }
        for (pool, blocks) in leases {
            counts.entry(pool).or_default().1 = blocks.len();
        }
        health::count_gateways(&self.known.metrics, ours.iter().map(|e| e.state), &counts);
    }
}
