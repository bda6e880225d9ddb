//! What is told of a cluster that is followed: numbers, and what cannot be seen.
//!
//! In: the mirror, the client. Out: series, problems. Never: asks the API.

use super::Cluster;
use crate::probes::followed;
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
    #[allow(clippy::cast_precision_loss, reason = "nobody makes 2^53 writes")]
    pub fn count(&self) {
        let metrics = &self.metrics;
        followed::count_objects(metrics, &self.mirror());
        let conflicts = followed::count_requests(metrics, &self.client);
        metrics.set("egret_ipam_conflicts_total", &[], conflicts as f64);
        metrics.set("egret_ipam_owed_releases", &[], self.owed().ended.len() as f64);
    }
}
