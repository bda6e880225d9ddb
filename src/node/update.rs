//! Bringing this node's kernel to its plan: the one path that ADD, DEL, GC, reconcile and uninstall share.
//!
//! In: the plan last applied and the next one. Out: an [`Outcome`]: steps done, problems, and an error if a step failed.
//! Never: decides anything; the caller holds the node's lock.

use std::collections::{BTreeMap, BTreeSet};

use crate::egress::lower::{Belts, node_state};
use crate::egress::lower_clients::client_states;
use crate::egress::numbering::Numbering;
use crate::egress::numbers;
use crate::egress::plan::{Here, NodePlan};
use crate::egress::planning::{Inputs, Planned, frees_sets};
use crate::egress::transition::{UNKNOWN, believed, keep_hidden, keep_unread, let_go};
use crate::fault;
use crate::kernel::devices;
use crate::kernel::netns::Netns;
use crate::kernel::state::State;
use crate::kernel::{self, Begun, Place, Report};
use crate::node::attachment::Attachment;
use crate::node::change::Change;
use crate::node::closing::close_going;
use crate::node::embedded::{Embedded, NodeError};
use crate::node::facts::{self, Machine};
use crate::node::first::{able, start_ahead, track_ahead};
use crate::node::gateways::end_gateways;
use crate::node::ground::{Ground, lay_ground};
use crate::node::situation::Situation;
use crate::node::{announce, flows};
use crate::problem::Problem;

/// How thorough an update is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Thoroughness {
    /// Trust that the kernel holds the plan last applied; look only when the new one differs by more than map elements.
    Quick,
    /// Read the kernel back whatever the plans say.
    Whole,
}

/// What an update did.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Per namespace (`node`, or a gateway's pod): what was done.
    pub reports: Vec<(String, Report)>,
    /// What is wrong in objects, records and around announced addresses.
    pub problems: Vec<Problem>,
    /// What was taken over within the last minute has been announced again.
    pub announced: bool,
}

impl Outcome {
    /// Whether every step was done.
    pub fn is_well(&self) -> bool {
        self.reports.iter().all(|(_, report)| report.failed.is_empty())
    }

    /// The error of an outcome with failed steps.
    ///
    /// # Errors
    /// Each failed step, with the namespace and the kernel's reason.
    pub fn check(self) -> Result<Outcome, NodeError> {
        let failed = self.reports.iter().flat_map(|(place, report)| {
            report.failed.iter().map(move |(step, why)| format!("{place}: {why} ({})", step.in_short()))
        });
        let failed: Vec<String> = failed.collect();
        if failed.is_empty() { Ok(self) } else { Err(NodeError::Steps(failed)) }
    }
}

impl Embedded {
    /// What this machine is.
    ///
    /// # Errors
    /// Nothing says which address carries the tunnel.
    pub fn here(&self, situation: &Situation, node_ns: &Netns) -> Result<Here, NodeError> {
        let found = devices::list(node_ns).map_err(|e| NodeError::Observe(e.to_string()))?;
        let source = |family| devices::default_route_source(node_ns, family).ok().flatten();
        let ipv6 = std::path::Path::new("/proc/sys/net/ipv6").exists();
        let machine = Machine { devices: &found, default_source: &source, ipv6 };
        let mut here = facts::here(&self.config, &self.name, situation.view.nodes.get(&self.name), &machine)?;
        here.doors.clone_from(&situation.doors);
        Ok(here)
    }

    /// Reads everything, plans, and brings the kernel there. `asleep` are attachments whose pod has not started or has ended.
    ///
    /// # Errors
    /// Something could not be read at all; failed steps are in the outcome.
    pub fn update(&self, how: Thoroughness, asleep: &[String]) -> Result<Outcome, NodeError> {
        let situation = self.situation()?;
        self.update_from(&situation, how, asleep)
    }

    /// The same, from what was read already.
    ///
    /// # Errors
    /// As [`Embedded::update`].
    pub fn update_from(
        &self,
        situation: &Situation,
        how: Thoroughness,
        asleep: &[String],
    ) -> Result<Outcome, NodeError> {
        self.update_upon(None, situation, how, asleep)
    }

    /// The same, upon a ground that this call has begun: what it knew of machine and kernel before that is not asked again.
    ///
    /// # Errors
    /// As [`Embedded::update`].
    pub(super) fn update_upon(
        &self,
        ground: Option<&Ground>,
        situation: &Situation,
        how: Thoroughness,
        asleep: &[String],
    ) -> Result<Outcome, NodeError> {
        let node_ns = self.netns()?;
        let here = match ground {
            Some(ground) => ground.here.clone(),
            None => self.here(situation, &node_ns)?,
        };
        // What stands there of the ground is this call's own.
        let (unfinished, torn) = if ground.is_some() { (None, false) } else { self.memory.left_half_done() };
        // Torn: somebody changed the kernel since, and nobody knows to what.
        let before = self.memory.applied().filter(|_| !torn).map(|applied| applied.plan);
        // Without a memory of the last plan the kernel says what it holds.
        let observed = match ground {
            Some(_) => Some(State::default()),
            None if before.is_none() => Some(self.observed(&node_ns)?),
            None => None,
        };
        let mut numbering = match (&before, &observed) {
            (Some(plan), _) => Numbering::of(plan),
            (None, observed) => observed.as_ref().map(Numbering::read).unwrap_or_default(),
        };
        if let Some(kept) = &self.kept {
            kept.unborne.lend(&mut numbering);
        }
        let numbered = numbering.clone();
        let met = self.meet_late(situation, before.as_ref(), asleep);
        let situation = met.as_ref();
        let locals = situation.locals();
        let inputs = Inputs {
            here: &here,
            view: &situation.view,
            locals: &locals,
            resolution: &situation.resolution,
            inside: &situation.inside,
        };
        let planned = match &self.kept {
            Some(kept) => {
                let planned = kept.plan(before.as_ref(), &inputs, &mut numbering);
                kept.unborne.take_back(&numbering);
                planned
            }
            None => Planned::of(&inputs, &mut numbering),
        };
        let Planned { plan: mut next, problems, lacks_sets } = planned;
        let mut outcome = Outcome { problems: situation.problems.clone(), ..Outcome::default() };
        outcome.problems.extend(problems);
        // A node without a single pod was emptied, or its memory deleted with its pods.
        let deserted =
            situation.attachments.is_empty() && situation.unread.is_empty() && next.exits.is_empty();
        let unread = torn || before.is_none() && self.memory.was_applied();
        if before.is_none() && unfinished.is_none() && deserted {
            if how == Thoroughness::Whole || unread {
                self.take_out_remnants(&node_ns, &mut outcome)?;
            }
            return self.forget_unread(unread, outcome);
        }
        if next.is_idle() && unfinished.is_none() && observed.as_ref() == Some(&State::default()) {
            return self.forget_unread(unread, outcome);
        }
        let how = if before.is_none() { Thoroughness::Whole } else { how };
        let before = match (before, &observed) {
            (Some(plan), _) => plan,
            // A first wiring was cut short: the records know everybody.
            (None, _) if unfinished.is_some() => NodePlan::empty(here.clone()),
            (None, observed) => {
                believed(observed.as_ref().unwrap_or(&State::default()), &numbered, &next, &locals)
            }
        };
        keep_unread(&before, &mut next, &locals, |attachment| {
            attachment == UNKNOWN
                || [&situation.unread, &situation.outlived].iter().any(|all| all.contains(attachment))
        });
        let_go(&before, &mut next, |attachment| {
            situation.unread.contains(attachment)
                || situation.attachments.iter().any(|known| known.is_named(attachment))
        });
        keep_hidden(&before, &mut next, |attachment, ip| situation.has_no_pool(attachment, ip));
        if !self.dry_run {
            self.cut_off_going(&before, &next);
        }
        let namespaces = namespaces(&situation.attachments);
        let running = if before.is_idle() { situation.running(asleep) } else { BTreeSet::new() };
        let change = Change {
            before: &before,
            unfinished: unfinished.as_ref(),
            next: &next,
            how,
            asleep,
            running: &running,
            seen: observed.as_ref(),
            ground,
            namespaces: &namespaces,
        };
        let carried_out = self.carry_out(&change, situation.inputs, &node_ns, &mut outcome);
        if let Some(kept) = &self.kept {
            kept.unborne.settle();
        }
        carried_out?;
        if outcome.is_well() && !self.dry_run && lacks_sets && frees_sets(&before, &next) {
            let mut again = self.update_upon(None, situation, how, asleep)?;
            again.reports.splice(0..0, outcome.reports);
            return Ok(again);
        }
        Ok(outcome)
    }

    /// The kernel holds nothing of ours: whatever nobody can read is past.
    fn forget_unread(&self, unread: bool, outcome: Outcome) -> Result<Outcome, NodeError> {
        if unread && outcome.is_well() && !self.dry_run {
            self.memory.nothing_stands().map_err(|e| self.unwritable(e))?;
        }
        Ok(outcome)
    }

    /// Brings the kernel from one plan to the next. Returns the plan that it holds then where that is another: without the
    /// gateways that could not be wired.
    ///
    /// # Errors
    /// A kernel cannot be read, or lacks something; failed steps are in the outcome.
    pub fn bring(
        &self,
        change: &Change<'_>,
        node_ns: &Netns,
        outcome: &mut Outcome,
    ) -> Result<Option<NodePlan>, NodeError> {
        if change.is_nothing() {
            return Ok(None);
        }
        // First of all: the answers have their time, whatever is done meanwhile.
        let questions = if self.dry_run { Vec::new() } else { announce::ask_about(change) };
        let first = change.before.is_idle() && !change.next.is_idle();
        if first && change.ground.is_none() {
            self.fit(change.next, node_ns)?;
        }
        if self.dry_run {
            if first {
                able(node_ns)?;
            }
            let _ = end_gateways(self.begin_gateways(change, node_ns), outcome);
            self.node(change.before, change.next, change.how(), node_ns, outcome)?;
            return Ok(None);
        }
        if first && Belts::of_this_build().hold {
            outcome.problems.extend(track_ahead(change, node_ns)?);
        }
        let _ahead = first.then(|| start_ahead(change, node_ns));
        let mut flows = change.flows();
        flows.rebound.retain(|ip| change.is_awake(ip) || !self.has_swept(ip));
        flows.begun.retain(|number| !self.kept.as_ref().is_some_and(|kept| kept.unborne.has_just(*number)));
        outcome.reports.extend(close_going(change, node_ns)?);
        flows::begin(&flows).map_err(NodeError::Observe)?;
        let held = self.rebind(change, &flows, node_ns, outcome)?;
        let ground = if held.is_none() { lay_ground(change, node_ns) } else { None };
        let wiring = self.begin_gateways(change, node_ns);
        // The look below is what tells of a program that did not do its work.
        let (ground, _ending) = ground.map(Begun::settle).unzip();
        if let Some(ground) = ground.filter(|report| report.failed.is_empty()) {
            outcome.reports.push(("node".to_owned(), ground));
        }
        // While the gateways' tables are loaded.
        let seen = first.then(|| self.look_at_node(change.next, node_ns));
        let unwired = end_gateways(wiring, outcome);
        let seen = seen.transpose()?.filter(|_| unwired.is_empty());
        fault::point("update.after-gateways");
        let reduced = unwired.iter().fold(None, |plan: Option<NodePlan>, attachment| {
            Some(plan.as_ref().unwrap_or(change.next).without(attachment))
        });
        let change = Change { next: reduced.as_ref().unwrap_or(change.next), ..*change };
        let before = held.as_ref().unwrap_or(change.before);
        self.node_as_seen(before, change.next, change.how(), (node_ns, seen), outcome)?;
        if first && !outcome.is_well() {
            able(node_ns)?;
        }
        flows::end(&flows, change.next).map_err(NodeError::Observe)?;
        self.announce(&change, questions, outcome);
        Ok(reduced)
    }

    pub(super) fn node(
        &self,
        before: &NodePlan,
        next: &NodePlan,
        how: Thoroughness,
        node_ns: &Netns,
        outcome: &mut Outcome,
    ) -> Result<(), NodeError> {
        self.node_as_seen(before, next, how, (node_ns, None), outcome)
    }

    /// What must be known of this node's namespace before it is brought to a plan.
    fn look_at_node(&self, next: &NodePlan, node_ns: &Netns) -> Result<State, NodeError> {
        let place = Place::node(node_ns);
        let desired = node_state(next, Belts::of_this_build());
        Ok(kernel::look(&place, &numbers::node_scope(), &desired, &self.memory.saved_settings())?)
    }

    /// The same from what was just seen, if anything was.
    fn node_as_seen(
        &self,
        before: &NodePlan,
        next: &NodePlan,
        how: Thoroughness,
        (node_ns, seen): (&Netns, Option<State>),
        outcome: &mut Outcome,
    ) -> Result<(), NodeError> {
        let place = Place::node(node_ns);
        let mut saved = self.memory.saved_settings();
        if how == Thoroughness::Quick && !before.is_idle() && !self.dry_run {
            let steps = assumed_steps(before, next, &saved);
            // Who lives on hears of its own change and compares all of the kernel a moment later, when nobody waits for it any more.
            let believes =
                |step: &kernel::Step| step.is_elements_only() || self.kept.is_some() && !step.needs_a_look();
            if steps.iter().all(believes) {
                let applied = kernel::apply(&place, &numbers::node_scope(), &steps);
                if let Ok(report) = applied
                    && report.failed.is_empty()
                {
                    outcome.reports.push(("node".to_owned(), report));
                    return Ok(());
                }
                // Something took our objects away behind our back: look, and put everything right.
            }
        }
        let desired = node_state(next, Belts::of_this_build());
        let kept = saved.clone();
        let mut save = |changing: &kernel::Saved| -> Result<(), NodeError> {
            if *changing != kept {
                self.memory.save_settings(changing).map_err(|e| self.unwritable(e))?;
                fault::point("update.after-saving");
            }
            Ok(())
        };
        let scope = numbers::node_scope();
        let seen = match seen {
            Some(seen) => seen,
            None => kernel::look(&place, &scope, &desired, &saved)?,
        };
        let states = (&seen, &desired);
        let report = kernel::reconcile_from(&place, &scope, states, &mut saved, self.dry_run, &mut save)?;
        if saved != kept && !self.dry_run {
            self.memory.save_settings(&saved).map_err(|e| self.unwritable(e))?;
        }
        outcome.reports.push(("node".to_owned(), report));
        Ok(())
    }

    /// What the kernel holds of ours.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn observed(&self, node_ns: &Netns) -> Result<State, NodeError> {
        let place = Place::node(node_ns);
        kernel::observe(&place, &numbers::node_scope(), std::iter::empty())
            .map_err(|e| NodeError::Observe(e.to_string()))
    }

    pub(super) fn unwritable(&self, error: std::io::Error) -> NodeError {
        NodeError::Memory(self.memory.dir().display().to_string(), error)
    }
}

/// The steps from one plan to the next, if the kernel holds the first.
pub(super) fn assumed_steps(before: &NodePlan, next: &NodePlan, saved: &kernel::Saved) -> Vec<kernel::Step> {
    match client_states(before, next) {
        // These name no setting, so none is given back.
        Some((assumed, desired)) => kernel::steps(&assumed, &desired, &kernel::Saved::default()),
        None => {
            let state = |plan| node_state(plan, Belts::of_this_build());
            kernel::steps_believing(&state(before), &state(next), saved)
        }
    }
}

/// Paths of namespaces by attachment. One that leads to another namespace by now is left out: it is somebody else's.
pub fn namespaces(attachments: &[Attachment]) -> BTreeMap<String, std::path::PathBuf> {
    let there = attachments.iter().filter(|a| !a.netns_is_another());
    there.map(|a| (a.id().to_string(), a.netns.clone())).collect()
}
