//! The ground of a node: what its first gateway needs here, whichever gateway that is.
//!
//! In: a plan without gateways, or a change to a first one. Out: tables and devices that are on their way into the kernel. Never: does
//! anything to a packet; says why it was not begun. Whoever carries the change out looks at the kernel afterwards and does what is missing.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use crate::egress::belts::Belts;
use crate::egress::gateway::GatewayWish;
use crate::egress::lower::node_state;
use crate::egress::model::{EgressAddress, View};
use crate::egress::numbering::Numbering;
use crate::egress::numbers;
use crate::egress::plan::{Here, NodePlan};
use crate::egress::planning::{Inputs, is_announced, plan};
use crate::fault;
use crate::kernel::nft::ahead::Sides;
use crate::kernel::nft::diff;
use crate::kernel::state::State;
use crate::kernel::{self, Begun, Netns, Place, Step};
use crate::node::announce::{self, Asked};
use crate::node::attachment::{Attachment, AttachmentId};
use crate::node::change::Change;
use crate::node::embedded::Embedded;
use crate::node::first::{Early, start_in, untracked};
use crate::node::situation::Situation;

/// What is done for a first gateway while its leases are taken: half of that time the disk is waited for.
pub struct Ground {
    /// This machine, as it was found.
    pub(super) here: Here,
    laid: Mutex<Option<Begun>>,
    asked: Mutex<Vec<Asked>>,
}

impl Ground {
    /// Asks who has the addresses that were just leased. The time for an answer begins, and nobody learns from a question that an
    /// address is anybody's: so it need not be on disk yet.
    pub(super) fn ask(&self, view: &View, leased: &[EgressAddress]) {
        let announced = leased.iter().filter(|address| is_announced(address, view.pools.get(&address.pool)));
        let devices = |ip: IpAddr| self.here.uplinks_for(ip).into_iter().map(move |dev| (dev, ip));
        let addresses: BTreeSet<(String, IpAddr)> =
            announced.flat_map(|address| devices(address.ip)).collect();
        *lock(&self.asked) = announce::ask(&self.here, &addresses);
    }

    /// What was asked already.
    pub(super) fn asked(&self) -> Vec<Asked> {
        std::mem::take(&mut lock(&self.asked))
    }

    /// What was begun, but for tables that are being loaded. Once.
    pub(super) fn begun(&self) -> Option<Begun> {
        lock(&self.laid).take()
    }
}

fn lock<T>(value: &Mutex<T>) -> MutexGuard<'_, T> {
    value.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for Ground {
    /// Whoever takes it out again must not be overtaken by tables that come late.
    fn drop(&mut self) {
        let _ = self.begun().map(Begun::end);
    }
}

impl Embedded {
    /// Does the work that a node's first gateway waits for before it is wired, and meanwhile lays the ground. Where that cannot be laid yet, the
    /// wiring lays it as ever.
    pub(super) fn while_laying<T>(
        &self,
        situation: &Situation,
        (wish, attachment): (&GatewayWish, &Attachment),
        early: Option<&mut Early>,
        work: impl FnOnce(Option<&Ground>) -> T,
    ) -> (T, Option<Ground>) {
        let found = early.and_then(|early| self.may_lay(situation, wish, early));
        let Some((ground, starting, node_ns)) = found else { return (work(None), None) };
        let (here, sides) = (&ground.here, Sides::seen_here());
        let lay = move || {
            sides.iter().for_each(Sides::stay);
            let steps = self.steps_to_ground(situation, here, &attachment.id(), &node_ns)?;
            starting.and_then(|starting| starting.join().ok());
            let laid = lay(&node_ns, &steps);
            // Not before: it has its script last, and would take the processor from the other one and from this call.
            start_in(&attachment.netns, sides.as_ref());
            laid
        };
        let (done, laid) = thread::scope(|scope| {
            let laying = thread::Builder::new().spawn_scoped(scope, lay);
            let done = work(Some(&ground));
            (done, laying.ok().and_then(|laying| laying.join().ok().flatten()))
        });
        let is_laid = laid.is_some();
        *lock(&ground.laid) = laid;
        (done, is_laid.then_some(ground))
    }

    fn may_lay(
        &self,
        situation: &Situation,
        wish: &GatewayWish,
        early: &mut Early,
    ) -> Option<(Ground, Option<JoinHandle<()>>, Netns)> {
        let mut pools = wish.pools.values().flatten().map(|name| situation.view.pools.get(name));
        // A pod's own address needs rules of the node's, and a second program for them.
        let of_pools = pools.all(|pool| pool.is_some_and(|pool| pool.source.is_pool()));
        if self.kept.is_some() || !of_pools || self.memory.applied().is_some() {
            return None;
        }
        let node_ns = self.netns().ok()?;
        let here = self.here(situation, &node_ns).ok()?;
        Some((Ground { here, laid: Mutex::default(), asked: Mutex::default() }, early.starting(), node_ns))
    }

    /// What is to be done, where it may be done before anybody knows which gateway comes. An intention lies on file before anything is, as
    /// for every change: whoever is killed, or gets no lease, leaves a node that the next call puts right, or that is emptied by its own
    /// end.
    fn steps_to_ground(
        &self,
        situation: &Situation,
        here: &Here,
        id: &AttachmentId,
        node_ns: &Netns,
    ) -> Option<Vec<Step>> {
        if self.observed(node_ns).ok()? != State::default() {
            return None;
        }
        let locals = situation.locals();
        let (view, resolution, inside) = (&situation.view, &situation.resolution, &situation.inside);
        let inputs = Inputs { here, view, locals: &locals, resolution, inside };
        let (bare, _) = plan(&inputs, &mut Numbering::default());
        let running = situation.running(&[id.to_string()]);
        if !bare.is_idle() || !untracked(&running, None).ok()?.is_empty() {
            return None;
        }
        let steps = steps_to(&node_state(&bare, Belts::of_this_build()))?;
        self.fit(&bare, node_ns).ok()?;
        self.memory.intend(situation.inputs, &bare).ok()?;
        fault::point("add.after-ground");
        Some(steps)
    }
}

/// Begins the ground of a change to a first gateway, so that its tables are loaded while the gateways are wired. Only where it can do
/// nothing to a packet: nobody here is a client, nothing of ours stood here before, and no setting of the host is touched. What is left
/// to do then is elements and devices.
pub(super) fn lay_ground(change: &Change<'_>, node_ns: &Netns) -> Option<Begun> {
    if let Some(ground) = change.ground {
        return ground.begun();
    }
    let next = change.next;
    if change.seen != Some(&State::default()) || !next.clients.is_empty() || !next.exits.is_empty() {
        return None;
    }
    let bare = next.locals.keys().fold(next.clone(), |plan, gateway| plan.without(gateway));
    let state = |plan: &NodePlan| node_state(plan, Belts::of_this_build());
    let (ground, whole) = (state(&bare), state(next));
    // Were rules left to load, a second program would be started for them.
    diff::change(&ground.tables, &whole.tables)?.elements_only()?;
    lay(node_ns, &steps_to(&ground)?)
}

/// From nothing to a ground that touches no setting of the host.
fn steps_to(ground: &State) -> Option<Vec<Step>> {
    let nothing = State::default();
    let is_the_hosts = |path: &String| kernel::steps::is_the_hosts(path, &nothing, ground);
    let none_is = !ground.sysctls.keys().any(is_the_hosts);
    none_is.then(|| kernel::steps(&nothing, ground, &kernel::Saved::default()))
}

fn lay(node_ns: &Netns, steps: &[Step]) -> Option<Begun> {
    let place = Place::node(node_ns);
    kernel::begin_from_nothing(&place, &numbers::node_scope(), steps).ok()
}
