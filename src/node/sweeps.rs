//! Entries that an address has from its past, deleted for many calls by one walk, beside what these calls do before they need it.
//!
//! A walk goes through the connection table of the whole machine, 0.2 to 15 ms, whatever is looked for: a hundred ADDs at once, each with
//! its own under the node's lock, took a second for that alone. In: addresses whose pod has not started, or has ended. Out: their
//! entries towards the outside are gone. Never: an address of a pod that may send: that is held first, under the lock.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::Duration;

use crate::addr::Cidr;
use crate::egress::plan::NodePlan;
use crate::kernel::{conntrack, home};
use crate::node::embedded::Embedded;

/// How long the thread that walks stays without anything to do.
const IDLE: Duration = Duration::from_secs(60);

/// Walks through the connection table that many calls share.
#[derive(Debug, Default)]
pub(super) struct Sweeps {
    state: Mutex<State>,
    news: Condvar,
}

#[derive(Debug, Default)]
struct State {
    walking: bool,
    /// Somebody is there who does nothing else.
    has_walker: bool,
    tickets: u64,
    waiting: Vec<Wish>,
    outcomes: BTreeMap<u64, Result<(), String>>,
}

/// What one call wants to be gone.
#[derive(Debug)]
struct Wish {
    ticket: u64,
    addresses: BTreeSet<IpAddr>,
    /// Destinations whose entries stay.
    inside: Vec<Cidr>,
}

/// Something that was asked for; over with this value at the latest.
pub struct Sweep {
    sweeps: Arc<Sweeps>,
    ticket: u64,
    addresses: BTreeSet<IpAddr>,
    done: OnceLock<bool>,
}

impl Sweep {
    /// Whether nothing is left of what this address opened before this was asked for. Waits for it.
    pub(super) fn is_done_for(&self, ip: &IpAddr) -> bool {
        self.addresses.contains(ip) && self.is_done()
    }

    fn is_done(&self) -> bool {
        *self.done.get_or_init(|| match self.sweeps.end(self.ticket, forget) {
            Ok(()) => true,
            Err(error) => {
                tracing::debug!(error, "entries of an address's past are left to the change itself");
                false
            }
        })
    }
}

impl Drop for Sweep {
    fn drop(&mut self) {
        self.is_done();
    }
}

impl fmt::Debug for Sweep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sweep({:?}, done: {:?})", self.addresses, self.done.get())
    }
}

type Walk = fn(&BTreeSet<IpAddr>, &[Cidr]) -> Result<(), String>;

fn forget(all: &BTreeSet<IpAddr>, inside: &[Cidr]) -> Result<(), String> {
    conntrack::clear(all, inside).map_err(|error| error.to_string())
}

impl Sweeps {
    /// Deletes what these addresses opened to anything outside, by a walk that begins after this was asked for, on another processor if one
    /// is free. The calling thread is in the node's namespace.
    fn begin(self: &Arc<Sweeps>, addresses: BTreeSet<IpAddr>, inside: Vec<Cidr>) -> Sweep {
        let ticket = self.ask(addresses.clone(), inside);
        if !std::mem::replace(&mut self.lock().has_walker, true) {
            let own = Arc::clone(self);
            // Without it, who needs the outcome walks.
            if thread::Builder::new().name("walks".to_owned()).spawn(move || own.stay(forget)).is_err() {
                self.lock().has_walker = false;
            }
        }
        Sweep { sweeps: Arc::clone(self), ticket, addresses, done: OnceLock::new() }
    }

    fn ask(&self, addresses: BTreeSet<IpAddr>, inside: Vec<Cidr>) -> u64 {
        let mut state = self.lock();
        let ticket = state.tickets;
        state.tickets += 1;
        state.waiting.push(Wish { ticket, addresses, inside });
        drop(state);
        self.news.notify_all();
        ticket
    }

    /// Waits for an outcome, or walks, whichever is sooner.
    fn end(
        &self,
        ticket: u64,
        walk: impl Fn(&BTreeSet<IpAddr>, &[Cidr]) -> Result<(), String>,
    ) -> Result<(), String> {
        let mut state = self.lock();
        loop {
            if let Some(outcome) = state.outcomes.remove(&ticket) {
                return outcome;
            }
            state = if state.walking {
                self.news.wait(state).unwrap_or_else(PoisonError::into_inner)
            } else {
                self.walk(state, &walk)
            };
        }
    }

    /// Walks for all who ask, until nobody has for a while.
    fn stay(&self, walk: Walk) {
        if let Err(error) = home::settle() {
            tracing::debug!(%error, "this thread asks where it is each time");
        }
        let mut state = self.lock();
        loop {
            let idle = |state: &mut State| state.walking || state.waiting.is_empty();
            let (woken, late) =
                self.news.wait_timeout_while(state, IDLE, idle).unwrap_or_else(PoisonError::into_inner);
            state = woken;
            if late.timed_out() {
                state.has_walker = false;
                return;
            }
            state = self.walk(state, &walk);
        }
    }

    /// One walk, for everybody who waits by now.
    fn walk<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
        walk: &impl Fn(&BTreeSet<IpAddr>, &[Cidr]) -> Result<(), String>,
    ) -> MutexGuard<'a, State> {
        state.walking = true;
        let round = state.round();
        drop(state);
        let all = round.iter().flat_map(|wish| &wish.addresses).copied().collect();
        let outcome = walk(&all, round.first().map_or(&[], |wish| &wish.inside));
        let mut state = self.lock();
        state.walking = false;
        state.outcomes.extend(round.into_iter().map(|wish| (wish.ticket, outcome.clone())));
        self.news.notify_all();
        state
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Everybody who waits and means the same by inside.
    fn round(&mut self) -> Vec<Wish> {
        let Some(inside) = self.waiting.first().map(|wish| wish.inside.clone()) else { return Vec::new() };
        let (round, later) = std::mem::take(&mut self.waiting).into_iter().partition(|w| w.inside == inside);
        self.waiting = later;
        round
    }
}

impl Embedded {
    /// Begins, beside all that follows in an ADD, to delete what a client's addresses have from their past. Not where the node has rules
    /// for such an address: then its pod may be another one, or awake.
    pub(super) fn sweep_new(&mut self, addresses: &[IpAddr]) {
        let is_new = |plan: &NodePlan, ip: &IpAddr| {
            let mut own = plan.locals.values().filter_map(|gateway| gateway.own.as_ref());
            !plan.clients.contains_key(ip) && !own.any(|own| own.addresses.contains(ip))
        };
        self.sweep_ahead(|plan| addresses.iter().copied().filter(|ip| is_new(plan, ip)).collect());
    }

    /// Begins to delete, before this call has a lock, what is left of the past of addresses whose pod sends nothing; `of` says which those
    /// are by the plan last applied. What cannot be done so is done under the lock.
    pub(super) fn sweep_ahead(&mut self, of: impl FnOnce(&NodePlan) -> BTreeSet<IpAddr>) {
        let Some(kept) = &self.kept else { return };
        let Some(applied) = self.memory.applied_shared() else { return };
        let addresses = of(&applied.plan);
        if !addresses.is_empty() {
            let inside = applied.plan.inside.iter().copied().collect();
            self.swept.push(Arc::new(kept.sweeps.begin(addresses, inside)));
        }
    }

    /// Whether nothing is left of what this address opened before this call had a lock.
    pub(super) fn has_swept(&self, ip: &IpAddr) -> bool {
        self.swept.iter().any(|sweep| sweep.is_done_for(ip))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use super::*;

    #[test]
    fn who_waits_while_a_walk_goes_on_shares_the_next_one_and_what_it_comes_to() {
        let (sweeps, walks) = (Sweeps::default(), Mutex::new(Vec::new()));
        let asked = AtomicUsize::new(0);
        let walk = |all: &BTreeSet<IpAddr>, inside: &[Cidr]| {
            // The first one goes on until all others have asked, however slowly they come.
            while asked.load(Ordering::Relaxed) < 40 {
                thread::sleep(Duration::from_millis(1));
            }
            walks.lock().unwrap().push((all.len(), inside.len()));
            if inside.is_empty() { Ok(()) } else { Err("refused".to_owned()) }
        };
        thread::scope(|calls| {
            for n in 0..40_u8 {
                let (sweeps, walk, asked) = (&sweeps, &walk, &asked);
                calls.spawn(move || {
                    let inside: Vec<Cidr> =
                        if n % 4 == 0 { vec!["10.0.0.0/8".parse().unwrap()] } else { Vec::new() };
                    let refused = !inside.is_empty();
                    let ticket = sweeps.ask(BTreeSet::from([[10, 0, 0, n].into()]), inside);
                    asked.fetch_add(1, Ordering::Relaxed);
                    let outcome = sweeps.end(ticket, walk);
                    assert_eq!(outcome.is_err(), refused);
                });
            }
        });
        let walks = walks.into_inner().unwrap();
        assert_eq!(
            walks.iter().map(|(addresses, _)| addresses).sum::<usize>(),
            40,
            "each address once: {walks:?}"
        );
        assert!(walks.len() < 20, "they share: {walks:?}");
        assert!(sweeps.lock().outcomes.is_empty(), "nothing is left");
    }
}
