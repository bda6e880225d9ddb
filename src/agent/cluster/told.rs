//! What is told of a cluster that is followed: numbers, and what cannot be seen.
//!
//! In: the mirror, the client. Out: series, problems. Never: asks the API.

use super::Cluster;
use crate::kube::Watched;
use crate::problem::Problem;

/// A kind cannot be seen: forbidden, or its definition is gone. What was last heard of it stays in force.
pub const NOT_SEEN: &str = "KindNotSeen";

impl Cluster {
    /// Kinds that cannot be seen, each with the line of a role or the command that mends it; addresses that are leased to others; what the
    /// server does not take.
    pub fn problems(&self) -> Vec<Problem> {
        let lost = self.mirror().lost();
        let lost = lost.into_iter().map(|(kind, why)| Problem::new(kind.typed().1, NOT_SEEN, why));
        lost.chain(self.unheld()).chain(self.unsaid().refused.clone()).collect()
    }

    /// What is no fault of this node, and worth knowing: labels that nobody elsewhere sees.
    pub fn remarks(&self) -> Vec<Problem> {
        self.unsaid().left_out.clone()
    }

    /// Brings the numbers of the cluster up to date.
    #[allow(clippy::cast_precision_loss, reason = "nobody has 2^53 objects")]
    pub fn count(&self) {
        let metrics = &self.metrics;
        {
            let mirror = self.mirror();
            let lost = mirror.lost();
            for kind in Watched::of_a_node() {
                let name = format!("{kind:?}");
                let name = name.as_str();
                let (lists, watches) = mirror.begun(kind);
                metrics.set("egret_watch_objects", &[name], mirror.objects(kind).count() as f64);
                metrics.set("egret_watch_lists_total", &[name], lists as f64);
                metrics.set("egret_watch_restarts_total", &[name], watches.saturating_sub(1) as f64);
                let is_lost = lost.iter().any(|(of, _)| *of == kind);
                metrics.set("egret_watch_lost", &[name], f64::from(u8::from(is_lost)));
            }
        }
        let mut conflicts = 0;
        for ((verb, status), count) in self.client.requests() {
            metrics.set("egret_kube_requests_total", &[verb, &status.to_string()], count as f64);
            conflicts += if verb == "PUT" && status == 409 { count } else { 0 };
        }
        metrics.set("egret_ipam_conflicts_total", &[], conflicts as f64);
        metrics.set("egret_ipam_owed_releases", &[], self.owed().ended.len() as f64);
    }
}
