//! What a node is about to do, on file before it does it, so that whoever comes after a crash trusts nothing.
//!
//! In: a [`Change`]. Out: kernel and memory both at the next plan, or an intention left for the next call. Never: decides.
//!
//! The plan on file names what the kernel holds; calls that believe it change one map element and are done. A process killed
//! between the two, or a step that fails, would make it a lie: an element of a pod that was never started stays in the kernel,
//! and the next pod with that address is sent to a gateway. So the next plan lies beside the last one while the kernel is
//! changed, and as long as it lies there the kernel is read back.

use std::collections::{BTreeMap, BTreeSet};

use crate::egress::numbering::Numbering;
use crate::egress::numbers;
use crate::egress::plan::{LocalPod, NodePlan};
use crate::egress::transition::{UNKNOWN, believed, keep_unread};
use crate::fault;
use crate::kernel::netns::Netns;
use crate::kernel::state::State;
use crate::kernel::{self, Place};
use crate::node::attachment::{Attachment, AttachmentId};
use crate::node::change::Change;
use crate::node::embedded::{Embedded, NodeError};
use crate::node::situation::local_pod;
use crate::node::update::{Outcome, Thoroughness, namespaces};

impl Embedded {
    /// Brings kernel and memory from one plan to the next.
    ///
    /// # Errors
    /// A kernel cannot be read, or lacks something, or memory cannot be written; failed steps are in the outcome.
    pub fn carry_out(
        &self,
        change: &Change<'_>,
        inputs: u64,
        node_ns: &Netns,
        outcome: &mut Outcome,
    ) -> Result<(), NodeError> {
        self.carry_out_telling(change, inputs, node_ns, outcome, None)
    }

    /// The same, and says when the kernel holds the next plan. From then on nothing fails: a file that cannot be written is the next
    /// call's affair, which finds the intention and reads the kernel.
    ///
    /// # Errors
    /// As [`Embedded::carry_out`].
    pub(super) fn carry_out_telling(
        &self,
        change: &Change<'_>,
        inputs: u64,
        node_ns: &Netns,
        outcome: &mut Outcome,
        stands: Option<&dyn Fn()>,
    ) -> Result<(), NodeError> {
        if self.dry_run {
            return self.bring(change, node_ns, outcome).map(drop);
        }
        let unwritable = |e| self.unwritable(e);
        if change.is_nothing() {
            let idle = change.next.is_idle();
            return if idle { Ok(()) } else { self.memory.remember_inputs(inputs).map_err(unwritable) };
        }
        self.memory.intend(inputs, change.next).map_err(unwritable)?;
        fault::point("update.after-intention");
        let reduced = self.bring(change, node_ns, outcome)?;
        fault::point("update.after-kernel");
        if !outcome.is_well() {
            return Ok(()); // the intention stays: the next call looks
        }
        if let Some(reduced) = &reduced {
            self.memory.intend(inputs, reduced).map_err(unwritable)?;
        }
        let next = reduced.as_ref().unwrap_or(change.next);
        let stands = stands.filter(|_| reduced.is_none());
        stands.iter().for_each(|stands| stands());
        fault::point("update.after-answer");
        let written = self.memory.applied_as_intended(inputs, next.is_idle()).map_err(unwritable);
        match written {
            Err(error) if stands.is_some() => {
                tracing::warn!(%error, "the plan is left intended; the next call reads the kernel");
                Ok(())
            }
            written => written,
        }
    }

    /// Takes an attachment out of the last plan and of the kernel, by memory alone; without one, only finishes what somebody
    /// left half done. The caller holds the node's lock.
    ///
    /// # Errors
    /// As [`Embedded::carry_out`], and failed steps.
    pub fn unwire(&self, attachment: Option<&str>) -> Result<(), NodeError> {
        self.unwire_and(attachment, |plan| plan)
    }

    /// This machine is a gateway itself no more, and nothing else of this name stands: it has another name.
    pub(super) fn end_exits(&self) -> Result<(), NodeError> {
        let is_all = |plan: &NodePlan| plan.clients.is_empty() && plan.locals.is_empty();
        let has_exits = |plan: &NodePlan| is_all(plan) && !plan.exits.is_empty();
        if !self.memory.applied().is_some_and(|applied| has_exits(&applied.plan)) {
            return Ok(());
        }
        let _guard = self.lock("ending a gateway whose node has another name")?;
        self.unwire_and(None, |plan| match is_all(&plan) {
            true => NodePlan { exits: BTreeMap::new(), ..plan },
            false => plan,
        })
    }

    fn unwire_and(
        &self,
        attachment: Option<&str>,
        further: impl FnOnce(NodePlan) -> NodePlan,
    ) -> Result<(), NodeError> {
        let (unfinished, torn) = self.memory.left_half_done();
        // Half done means undone here, because objects are not read: what is left of the plan last applied is where to go back to, also from
        // what nobody can read. That plan is not believed for that: then the kernel is read whole.
        let (inputs, before) = match (self.memory.applied(), &unfinished) {
            // Whoever reads objects next plans anew: of what nobody can read not all is known.
            (Some(applied), _) if torn => (0, applied.plan),
            (Some(applied), _) => (applied.inputs, applied.plan),
            (None, Some(intended)) => (0, NodePlan::empty(intended.here.clone())),
            // Nobody knows where to go: whatever cannot be read stays, and whoever reads objects next reads the kernel first.
            (None, None) => return Ok(()),
        };
        let attachments = match attachment.filter(|_| !torn) {
            None => self.listing(None)?.attachments,
            // Of others only gateways have a part in it, by their namespaces.
            Some(_) => self.gateways_of([Some(&before), unfinished.as_ref()].into_iter().flatten()),
        };
        // A gateway that lost its namespace lost its devices with it: a plan that has it cannot be carried out any more.
        let lost: Vec<&Attachment> = attachments.iter().filter(|a| a.netns_is_gone()).collect();
        lost.iter().for_each(|attachment| self.cut_off_lost(attachment));
        let lost = lost.into_iter().map(|a| a.id().to_string());
        let asleep: Vec<String> = attachment.map(str::to_owned).into_iter().chain(lost).collect();
        let mut next = further(asleep.iter().fold(before.clone(), |plan, name| plan.without(name)));
        // Whoever was about to become a client may be one: told that it came, and killed was who had yet to put the plan in its place.
        let node_ns = self.netns()?;
        let begun = match &unfinished {
            None if torn => Some(self.as_the_kernel_has_it(&before, &attachments, &node_ns)?),
            begun => begun.clone(),
        };
        if let Some(begun) = begun {
            keep_unread(&begun, &mut next, &[], |name| {
                name == UNKNOWN || !asleep.iter().any(|a| a == name) && self.may_live(name)
            });
        }
        let change = Change {
            before: &before,
            unfinished: unfinished.as_ref(),
            next: &next,
            how: if torn { Thoroughness::Whole } else { Thoroughness::Quick },
            asleep: &asleep,
            running: &BTreeSet::new(),
            seen: None,
            ground: None,
            namespaces: &namespaces(&attachments),
        };
        let mut outcome = Outcome::default();
        self.carry_out(&change, inputs, &node_ns, &mut outcome)?;
        self.announce_again(&mut outcome);
        outcome.check().map(drop)
    }

    /// What somebody began whose intention nobody can read: the clients that the kernel has, by the plan before and by the records of pods.
    fn as_the_kernel_has_it(
        &self,
        before: &NodePlan,
        attachments: &[Attachment],
        node_ns: &Netns,
    ) -> Result<NodePlan, NodeError> {
        let observed = self.observed(node_ns)?;
        let locals: Vec<LocalPod> = attachments.iter().map(local_pod).collect();
        let mut begun = believed(&observed, &Numbering::read(&observed), before, &locals);
        // Of a client of that plan it is known whose it is, whatever it was about to become.
        for (ip, client) in &mut begun.clients {
            if let Some(known) = before.clients.get(ip) {
                client.attachment.clone_from(&known.attachment);
            }
        }
        Ok(begun)
    }

    /// Whether an attachment has a record, and a namespace that is not provably gone.
    fn may_live(&self, name: &str) -> bool {
        let Ok(id) = name.parse::<AttachmentId>() else { return false };
        self.records
            .read(&id)
            .map_or(true, |found| found.is_some_and(|attachment| !attachment.netns_is_gone()))
    }

    /// Records of these plans' gateways, as far as they can be read. A gateway without one is left as it is wired.
    pub(super) fn gateways_of<'a>(&self, plans: impl Iterator<Item = &'a NodePlan>) -> Vec<Attachment> {
        let names: BTreeSet<&String> = plans.flat_map(|plan| plan.locals.keys()).collect();
        let ids = names.into_iter().filter_map(|name| name.parse::<AttachmentId>().ok());
        ids.filter_map(|id| self.records.read(&id).ok().flatten()).collect()
    }

    /// Undoes what a killed call left half done, if there is any.
    ///
    /// # Errors
    /// As [`Embedded::unwire`].
    pub fn finish_unfinished(&self) -> Result<(), NodeError> {
        if !self.memory.is_unfinished() {
            return Ok(());
        }
        let _guard = self.lock("finishing what was left half done")?;
        self.unwire(None)
    }

    /// A node that nothing is known of needs nothing; what its kernel holds of ours is of a life that somebody deleted.
    pub(super) fn take_out_remnants(&self, node_ns: &Netns, outcome: &mut Outcome) -> Result<(), NodeError> {
        let place = Place::node(node_ns);
        let mut saved = self.memory.saved_settings();
        let (scope, nothing) = (numbers::node_scope(), State::default());
        let kept = saved.clone();
        let report = kernel::reconcile(&place, &scope, &nothing, &mut saved, self.dry_run)?;
        if saved != kept && !self.dry_run {
            // Given back once: whoever changes a setting afterwards means it.
            self.memory.save_settings(&saved).map_err(|e| self.unwritable(e))?;
        }
        if report != kernel::Report::default() {
            outcome.reports.push(("node".to_owned(), report));
        }
        Ok(())
    }

    /// A gateway's ADD failed: its namespace as before. What cannot be undone goes with the namespace.
    pub(super) fn strip(&self, attachment: &Attachment) {
        let stripped = || self.clear_gateway(attachment, &self.netns()?);
        if let Err(error) = stripped() {
            tracing::warn!(%error, netns = %attachment.netns.display(), "the wiring of a failed ADD goes with its namespace");
        }
    }
}
