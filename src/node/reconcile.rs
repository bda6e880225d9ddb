//! `egret reconcile` and `egret uninstall`: the node as a whole, once.
//!
//! In: the directory and the node. Out: an [`Outcome`] that names every step. Never: touches what is not ours.

use std::cell::Cell;
use std::collections::BTreeSet;

use crate::cni::reply::CniError;
use crate::egress::model::{Pod, View};
use crate::egress::numbers;
use crate::fault;
use crate::ipam::{self, After, Holder, Owner, StoreError};
use crate::kernel::state::State;
use crate::kernel::{self, Place};
use crate::node::attachment::Attachment;
use crate::node::embedded::{Embedded, NodeError, now};
use crate::node::update::{Outcome, Thoroughness};
use crate::store::endpoints;

impl Embedded {
    /// Forgets what is provably gone, then brings everything to its plan, trusting nothing.
    ///
    /// # Errors
    /// Something cannot be read at all, or a step failed.
    pub fn reconcile(&self) -> Result<Outcome, NodeError> {
        let _guard = self.lock_or_look("reconcile")?;
        if !self.dry_run {
            self.forget_lost()?;
        }
        let torn = self.memory.torn_settings();
        // Where policies ask, the update says more than this.
        let unsaid = match self.may_be_asked()? {
            true => None,
            false => self.say_interfaces(&self.own_interfaces()?),
        };
        let mut outcome = self.update(Thoroughness::Whole, &[])?;
        outcome.problems.extend(torn);
        if !self.dry_run {
            // Only now: while this kernel still answers for an address, nobody else may get it.
            self.give_back_lost_leases(None)?;
            outcome.problems.extend(self.hold_all()?);
        }
        self.announce_again(&mut outcome);
        outcome.problems.extend(unsaid);
        outcome.problems.extend(self.bypassed()?);
        Ok(outcome)
    }

    /// Takes everything of ours out of this node: its kernel as before, its gateways out of the cluster.
    ///
    /// # Errors
    /// Something cannot be read at all, or a step failed; then the node's own files stay, for another try.
    pub fn uninstall(&self) -> Result<Outcome, NodeError> {
        let guard = self.lock_or_look("uninstall")?;
        let mut outcome = Outcome::default();
        outcome.problems.extend(self.memory.torn_settings());
        let gateways = self.gateways_here()?;
        if !self.dry_run {
            self.withdraw(|_| true)?;
        }
        let node_ns = self.netns()?;
        let nothing = State::default();
        for attachment in gateways {
            if let Some(report) = self.clear_gateway(&attachment, &node_ns)? {
                outcome.reports.push((attachment.id().to_string(), report));
            }
        }
        let mut saved = self.memory.saved_settings();
        let place = Place::node(&node_ns);
        let report = kernel::reconcile(&place, &numbers::node_scope(), &nothing, &mut saved, self.dry_run)
            .map_err(|e| NodeError::Observe(e.to_string()))?;
        outcome.reports.push(("node".to_owned(), report));
        let outcome = outcome.check()?;
        if !self.dry_run {
            let folder = self.memory.dir().display().to_string();
            self.memory.forget().map_err(|e| NodeError::Memory(folder, e))?;
        }
        drop(guard);
        Ok(outcome)
    }

    /// Attachments of this node's gateways: those in the last plan, and those with an endpoint, should the plan be lost.
    fn gateways_here(&self) -> Result<Vec<Attachment>, NodeError> {
        let mut planned = self.memory.applied().map(|a| a.plan.locals).unwrap_or_default();
        planned.extend(self.memory.intended().map(|plan| plan.locals).unwrap_or_default());
        let (known, _) = endpoints::list(&self.dir)?;
        let mut attachments = self.listing(None)?.attachments;
        attachments.retain(|attachment| {
            let id = attachment.id().to_string();
            planned.contains_key(&id) || known.iter().any(|e| e.attachment == id)
        });
        Ok(attachments)
    }

    /// Attachments whose namespace is provably gone, as DEL would.
    fn forget_lost(&self) -> Result<(), NodeError> {
        let listing = self.listing(None)?;
        let gone: Vec<&Attachment> = listing.attachments.iter().filter(|a| a.netns_is_gone()).collect();
        gone.iter().for_each(|attachment| self.cut_off_lost(attachment));
        let lost: BTreeSet<String> = gone.iter().map(|a| a.id().to_string()).collect();
        let known = listing.names();
        // Also endpoints of this node that no record speaks of: after a reboot the records are gone, and so are the pods.
        self.withdraw(|attachment| lost.contains(attachment) || !known.contains(attachment))?;
        fault::point("reconcile.after-withdrawal");
        for attachment in gone {
            let removed = self.records.remove(&attachment.id());
            removed.map_err(|e| NodeError::Memory(self.records.folder().display().to_string(), e))?;
        }
        fault::point("reconcile.after-records");
        Ok(())
    }

    /// Endpoints of this node that no record speaks of, for GC: after a reboot the records are gone, and so are the pods.
    ///
    /// # Errors
    /// The records cannot be listed, or the store cannot be written.
    pub(super) fn withdraw_unrecorded(&self) -> Result<(), NodeError> {
        let known = self.listing(None)?.names();
        self.withdraw(|attachment| !known.contains(attachment))
    }

    /// Takes endpoints of this node out of the cluster.
    fn withdraw(&self, goes: impl Fn(&str) -> bool) -> Result<(), NodeError> {
        let (known, _) = endpoints::list(&self.dir)?;
        let going: Vec<_> = known.iter().filter(|e| e.node == self.name && goes(&e.attachment)).collect();
        if going.is_empty() {
            return Ok(());
        }
        let guard = self.lock_store("withdrawing endpoints")?;
        for endpoint in going {
            endpoints::remove(&self.dir, &guard, &endpoint.attachment)?;
        }
        Ok(())
    }

    /// Leases whose holder has no record here any more, for GC.
    ///
    /// # Errors
    /// The store cannot be locked or written.
    pub fn release_lost(&self, network: &str) -> Result<(), CniError> {
        self.give_back_lost_leases(Some(network)).map_err(CniError::from)
    }

    /// At once, or where that means to wait for a cluster, by somebody else: its agent looks for them by itself, whoever mends the node.
    fn give_back_lost_leases(&self, network: Option<&str>) -> Result<(), NodeError> {
        match &self.books {
            Some(books) => books.release_later(None),
            None if !self.keeps_leases() => {}
            None => drop(self.release_lost_leases(network, &BTreeSet::new())?),
        }
        Ok(())
    }

    /// Gives back leases whose holder has no record here. A lost sandbox whose pod lives on keeps its address: the pod will have another
    /// sandbox. Says whether any lease waits for that, or for its pod's end: in a cluster it keeps its holder until then, because
    /// one that is reserved for a pod is looked at by nobody any more.
    ///
    /// # Errors
    /// The store cannot be locked, read or written.
    pub fn release_lost_leases(
        &self,
        network: Option<&str>,
        standing: &BTreeSet<String>,
    ) -> Result<bool, NodeError> {
        let living = self.objects().map(|objects| living_uids(&objects.view(&self.config, Vec::new())));
        let waits = Cell::new(false);
        let of_dead = |owner: &Owner| match (owner, &living) {
            (Owner::PodUid(uid), Ok(living)) => !living.contains(uid),
            // Nobody knows whether the pod lives: never give its address away.
            (Owner::PodUid(_), Err(_)) => false,
            _ => true,
        };
        if let Some(books) = &self.books {
            // Asked when the block was read, and in this order: what is claimed is on record before it is no claim any more.
            let is_known = |holder: &Holder| {
                let id = holder.attachment();
                books.is_claiming(&id) || self.listing(network).map_or(true, |all| all.names().contains(&id))
            };
            let fate = |holder: &Holder, owner: &Owner| {
                if is_known(holder) {
                    return None;
                }
                let goes = of_dead(owner) && !standing.contains(&holder.attachment());
                waits.set(waits.get() || !goes);
                goes.then_some(After::Owner)
            };
            ipam::retain(books.store().as_ref(), network, &self.name, now(), &fate).map_err(unreleased)?;
            return Ok(waits.get());
        }
        let guard = self.lock_store("looking for leases without a holder")?;
        if let Err(error) = self.dir.sweep(&guard) {
            tracing::warn!(%error, "temporary files that a killed process left are still there");
        }
        // Under the store's lock: an ADD writes its record first and leases under this lock, so no lease found below can be
        // younger than this listing. What cannot be listed or read still holds its lease.
        let known = self.listing(network)?.names();
        let fate = |holder: &Holder, owner: &Owner| {
            let after = if of_dead(owner) { After::Owner } else { After::Reserved };
            (!known.contains(&holder.attachment())).then_some(after)
        };
        ipam::retain(self.store(&guard)?.as_ref(), network, &self.name, now(), &fate).map_err(unreleased)?;
        Ok(false)
    }

    /// The first wiring of a node failed: its kernel as before.
    ///
    /// # Errors
    /// The kernel cannot be read, or the node's directory cannot be written.
    pub(crate) fn clear(&self) -> Result<(), NodeError> {
        let node_ns = self.netns()?;
        let place = Place::node(&node_ns);
        let mut saved = self.memory.saved_settings();
        kernel::reconcile(&place, &numbers::node_scope(), &State::default(), &mut saved, false)
            .map_err(|e| NodeError::Observe(e.to_string()))?;
        self.memory
            .save_settings(&saved)
            .and_then(|()| self.memory.intend_nothing())
            .map_err(|e| self.unwritable(e))
    }
}

fn unreleased(error: StoreError) -> NodeError {
    NodeError::Ipam(error.to_string())
}

fn living_uids(view: &View) -> BTreeSet<String> {
    view.pods.values().flat_map(Pod::ids).map(str::to_owned).collect()
}
