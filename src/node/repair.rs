//! Putting back what somebody else took away, by the plan last applied alone.
//!
//! In: the node's memory. Out: an [`Outcome`] whose steps are what was missing. Never: reads objects, so that a directory which
//! is unreadable stops no repair; decides anything.

use std::collections::BTreeSet;

use crate::kernel::Step;
use crate::node::change::Change;
use crate::node::embedded::{Embedded, NodeError};
use crate::node::gateways::end_gateways;
use crate::node::update::{Outcome, Thoroughness, namespaces};

impl Embedded {
    /// Compares this node's kernel, and its gateways' namespaces, with the plan last applied, and takes the steps between.
    /// Nothing differs: nothing is written.
    ///
    /// # Errors
    /// The lock is not had, or a kernel cannot be read; failed steps are in the outcome.
    pub fn repair(&self) -> Result<Outcome, NodeError> {
        let _guard = self.lock("repair")?;
        let mut outcome = Outcome::default();
        if self.memory.is_unfinished() {
            self.unwire(None)?; // killed half-way: what it meant to do is unknown, what was before is not
        }
        let Some(applied) = self.memory.applied() else { return Ok(outcome) };
        let plan = &applied.plan;
        let attachments = self.listing(None)?.attachments;
        let change = Change {
            before: plan,
            unfinished: None,
            next: plan,
            how: Thoroughness::Whole,
            asleep: &[],
            running: &BTreeSet::new(),
            seen: None,
            ground: None,
            namespaces: &namespaces(&attachments),
        };
        let node_ns = self.netns()?;
        // The node first: its rules are what keeps packets in.
        self.node(plan, plan, Thoroughness::Whole, &node_ns, &mut outcome)?;
        if plan.locals.is_empty() {
            return Ok(outcome);
        }
        let first = outcome.reports.len();
        let _ = end_gateways(self.begin_gateways(&change, &node_ns), &mut outcome);
        let wired = outcome.reports[first..].iter().any(|(_, report)| !report.done.is_empty());
        let failed = outcome.reports[..first].iter().any(|(_, report)| !report.failed.is_empty());
        if wired || failed {
            // A gateway's veth is made from its namespace, and only then the node can use its end.
            for (_, report) in &mut outcome.reports[..first] {
                report.failed.clear();
            }
            self.node(plan, plan, Thoroughness::Whole, &node_ns, &mut outcome)?;
        }
        Ok(outcome)
    }
}

impl Outcome {
    /// Every step that was taken, anywhere.
    pub fn steps(&self) -> impl Iterator<Item = &Step> {
        self.reports.iter().flat_map(|(_, report)| &report.done)
    }

    /// Every step that failed, with its place and the reason.
    pub fn failures(&self) -> Vec<String> {
        let failed = self.reports.iter().flat_map(|(place, report)| {
            report.failed.iter().map(move |(step, why)| format!("{place}: {}: {why}", step.in_short()))
        });
        failed.collect()
    }
}
