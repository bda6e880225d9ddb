//! Pods that become clients or stop being ones while they run: held, their entries deleted, let on.
//!
//! In: a [`Change`], and what must happen to flows. Out: the plan that the kernel holds then. Never: lets anybody on whose entries are not
//! deleted; an entry's NAT binding is frozen, and the pod would leave with its own address.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::egress::belts::Belts;
use crate::egress::numbers;
use crate::egress::plan::NodePlan;
use crate::egress::transition::{Transition, bound, going_on, holding};
use crate::fault;
use crate::kernel::netns::Netns;
use crate::kernel::{self, Begun, Place};
use crate::node::change::Change;
use crate::node::embedded::{Embedded, NodeError};
use crate::node::flows;
use crate::node::update::{Outcome, Thoroughness, assumed_steps};

impl Embedded {
    /// Pods that become clients or stop being ones: held, their entries deleted, then let on. A pod that sleeps needs no
    /// holding, only that nothing of its address's past is left.
    pub(super) fn rebind(
        &self,
        change: &Change<'_>,
        flows: &Transition,
        node_ns: &Netns,
        outcome: &mut Outcome,
    ) -> Result<Option<NodePlan>, NodeError> {
        let awake_ones: BTreeSet<_> =
            flows.rebound.iter().copied().filter(|ip| change.is_awake(ip)).collect();
        let released: BTreeMap<_, _> = flows
            .released
            .iter()
            .filter(|(ip, _)| change.is_awake(ip))
            .map(|(ip, c)| (*ip, c.clone()))
            .collect();
        let hold = !(awake_ones.is_empty() && released.is_empty()) && Belts::of_this_build().hold;
        let mut held = hold.then(|| holding(change.before, change.next, &awake_ones, &released));
        if let Some(held) = &held {
            self.node(change.before, held, change.how(), node_ns, outcome)?;
            not_held(outcome)?;
            fault::point("update.while-held");
        }
        // The tables that they need are loaded while their entries are looked for: two processors, and who is held is so in both plans.
        let ways =
            held.as_ref().and_then(|held| self.begin_ways(change, held, (flows, &awake_ones), node_ns));
        let inside: Vec<_> = change.next.inside.iter().chain(&change.before.inside).copied().collect();
        let joins = |ip: &IpAddr| bound(change.next, *ip).is_some() && bound(change.before, *ip).is_none();
        let joining = awake_ones.into_iter().filter(joins).collect();
        let forgotten = flows::forget(flows, &joining, |ip| change.sleeps(ip), &inside)
            .and_then(|()| flows::release(&flows.released, &inside));
        let ways = ways.map(|(plan, begun)| (plan, begun.end()));
        forgotten.map_err(NodeError::Observe)?;
        // What failed there, the next step finds out and puts right.
        if let Some((plan, report)) = ways.filter(|(_, report)| report.failed.is_empty()) {
            outcome.reports.push(("node".to_owned(), report));
            held = Some(plan);
        }
        let on = held.as_ref().and_then(|held| going_on(held, change.next));
        if let (Some(held), Some(on)) = (&held, &on) {
            self.node(held, on, Thoroughness::Quick, node_ns, outcome)?;
        }
        Ok(on.or(held))
    }

    /// Begins to bring the kernel from a plan in which pods are held to the next one, in which they still are: routes, next hops and
    /// tables that nobody uses yet. Where somebody begins or ceases to be a gateway here, or a number that flows may carry gets another
    /// meaning, or who is held can go on without, it is left to who comes after.
    fn begin_ways(
        &self,
        change: &Change<'_>,
        held: &NodePlan,
        (flows, awake): (&Transition, &BTreeSet<IpAddr>),
        node_ns: &Netns,
    ) -> Option<(NodePlan, Begun)> {
        let (before, next) = (change.before, change.next);
        let believed = self.kept.is_some() && change.how() == Thoroughness::Quick && !before.is_idle();
        let nobody_else = flows.begun.is_empty() && flows.exits_begun.is_empty() && flows.released.is_empty();
        let same_gateways = before.locals == next.locals && before.exits == next.exits;
        if !believed || !nobody_else || !same_gateways || going_on(held, next).is_some() {
            return None;
        }
        let next = holding(next, next, awake, &BTreeMap::new());
        let steps = assumed_steps(held, &next, &self.memory.saved_settings());
        if steps.iter().any(kernel::Step::needs_a_look) {
            return None;
        }
        let place = Place::node(node_ns);
        let begun = kernel::begin(&place, &numbers::node_scope(), &steps).ok()?;
        Some((next, begun))
    }
}

/// What goes on after pods could not be held would leak: then everything stays as it is.
fn not_held(outcome: &Outcome) -> Result<(), NodeError> {
    let failed = outcome.reports.iter().flat_map(|(_, report)| &report.failed);
    let tables = failed.filter(|(step, _)| matches!(step, kernel::Step::Nft(_)));
    let tables: Vec<String> =
        tables.map(|(step, why)| format!("pods could not be held: {step}: {why}")).collect();
    if tables.is_empty() { Ok(()) } else { Err(NodeError::Steps(tables)) }
}
