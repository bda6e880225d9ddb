//! Entries that an address has from its past, deleted for many calls by one walk, before any of them has a lock.
//!
//! A walk goes through the connection table of the whole machine, 5 to 15 ms, whatever is looked for: a hundred ADDs at once, each with
//! its own under the node's lock, took a second for that alone. In: addresses whose pod has not started, or has ended. Out: their
//! entries towards the outside are gone. Never: an address of a pod that may send: that is held first, under the lock.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use crate::addr::Cidr;
use crate::egress::plan::NodePlan;
use crate::kernel::conntrack;
use crate::node::embedded::Embedded;

/// Walks through the connection table that many calls share.
#[derive(Debug, Default)]
pub(super) struct Sweeps {
    state: Mutex<State>,
    ended: Condvar,
}

#[derive(Debug, Default)]
struct State {
    walking: bool,
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

impl Sweeps {
    /// Deletes what these addresses opened to anything outside, by a walk that begins after this was asked for.
    ///
    /// # Errors
    /// The kernel's refusal, as a sentence.
    pub(super) fn forget(&self, addresses: BTreeSet<IpAddr>, inside: Vec<Cidr>) -> Result<(), String> {
        self.by(addresses, inside, |all, inside| {
            conntrack::clear(all, inside).map_err(|error| error.to_string())
        })
    }

    fn by(
        &self,
        addresses: BTreeSet<IpAddr>,
        inside: Vec<Cidr>,
        walk: impl Fn(&BTreeSet<IpAddr>, &[Cidr]) -> Result<(), String>,
    ) -> Result<(), String> {
        let mut state = self.lock();
        let ticket = state.tickets;
        state.tickets += 1;
        state.waiting.push(Wish { ticket, addresses, inside });
        loop {
            if let Some(outcome) = state.outcomes.remove(&ticket) {
                return outcome;
            }
            if state.walking {
                state = self.ended.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            state.walking = true;
            let round = state.round();
            drop(state);
            let all = round.iter().flat_map(|wish| &wish.addresses).copied().collect();
            let outcome = walk(&all, round.first().map_or(&[], |wish| &wish.inside));
            state = self.lock();
            state.walking = false;
            state.outcomes.extend(round.into_iter().map(|wish| (wish.ticket, outcome.clone())));
            self.ended.notify_all();
        }
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
    /// Deletes, before this call has a lock, what is left of the past of addresses whose pod sends nothing; `of` says which those are
    /// by the plan last applied. What cannot be done now is done under the lock.
    pub(super) fn sweep_ahead(&mut self, of: impl FnOnce(&NodePlan) -> BTreeSet<IpAddr>) {
        let Some(kept) = &self.kept else { return };
        let Some(applied) = self.memory.applied_shared() else { return };
        let addresses = of(&applied.plan);
        if addresses.is_empty() {
            return;
        }
        match kept.sweeps.forget(addresses.clone(), applied.plan.inside.iter().copied().collect()) {
            Ok(()) => self.swept = addresses,
            Err(error) => {
                tracing::debug!(error, "entries of an address's past are left to the change itself");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn who_waits_while_a_walk_goes_on_shares_the_next_one_and_what_it_comes_to() {
        let (sweeps, walks) = (Sweeps::default(), Mutex::new(Vec::new()));
        let walk = |all: &BTreeSet<IpAddr>, inside: &[Cidr]| {
            std::thread::sleep(Duration::from_millis(20));
            walks.lock().unwrap().push((all.len(), inside.len()));
            if inside.is_empty() { Ok(()) } else { Err("refused".to_owned()) }
        };
        std::thread::scope(|calls| {
            for n in 0..40_u8 {
                let (sweeps, walk) = (&sweeps, &walk);
                calls.spawn(move || {
                    let inside: Vec<Cidr> =
                        if n % 4 == 0 { vec!["10.0.0.0/8".parse().unwrap()] } else { Vec::new() };
                    let refused = !inside.is_empty();
                    let outcome = sweeps.by(BTreeSet::from([[10, 0, 0, n].into()]), inside, walk);
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
