//! Calls that wait for the same turn share it: whoever gets the turn works for all who wait by then.
//!
//! In: a wish each, and how many are worked on at once. Out: what became of it. Never: lets a wish wait for more than the round that
//! goes on and its own; or works on two rounds at once.

use std::sync::mpsc::{Sender, channel};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Wishes that wait, and whether somebody works.
#[derive(Debug)]
pub struct Crowd<T, O>(Mutex<State<T, O>>);

#[derive(Debug)]
struct State<T, O> {
    led: bool,
    waiting: Vec<(T, Sender<Told<O>>)>,
}

/// What one who waits is told.
#[derive(Debug)]
enum Told<O> {
    /// The next round is yours; your wish is in it.
    Lead,
    /// It is done.
    Done(O),
}

impl<T, O> Default for Crowd<T, O> {
    fn default() -> Self {
        Crowd(Mutex::new(State { led: false, waiting: Vec::new() }))
    }
}

impl<T, O> Crowd<T, O> {
    /// Has a wish fulfilled, with those of others. `round` is called by one of them, while it holds `turn`, and gives an outcome for each
    /// wish, in their order. `None`: who led the round ended in the middle of it.
    pub fn join(&self, wish: T, turn: &Mutex<()>, round: impl FnOnce(Vec<T>) -> Vec<O>) -> Option<O> {
        let (tell, told) = channel();
        let leads = {
            let mut state = self.lock();
            state.waiting.push((wish, tell));
            !std::mem::replace(&mut state.led, true)
        };
        if !leads && let Told::Done(outcome) = told.recv().ok()? {
            return Some(outcome);
        }
        let own = turn.lock().unwrap_or_else(PoisonError::into_inner);
        let waiting = std::mem::take(&mut self.lock().waiting);
        let (wishes, tells): (Vec<T>, Vec<_>) = waiting.into_iter().unzip();
        let outcomes = round(wishes);
        drop(own);
        {
            let mut state = self.lock();
            let next = state.waiting.first().map(|(_, tell)| tell.send(Told::Lead));
            state.led = next.is_some();
        }
        for (tell, outcome) in tells.iter().zip(outcomes) {
            let _ = tell.send(Told::Done(outcome)); // nobody listens: its thread ended
        }
        match told.recv().ok()? {
            Told::Done(outcome) => Some(outcome),
            Told::Lead => None,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<T, O>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn who_waits_while_a_round_goes_on_is_in_the_next_one_and_each_gets_its_own_outcome() {
        let (crowd, turn, rounds) = (Crowd::default(), Mutex::new(()), Mutex::new(Vec::new()));
        let round = |wishes: Vec<u32>| {
            // The first one goes on until all others wait, however slowly they come.
            while rounds.lock().unwrap().is_empty() && crowd.lock().waiting.len() + wishes.len() < 40 {
                std::thread::sleep(Duration::from_millis(1));
            }
            rounds.lock().unwrap().push(wishes.len());
            wishes.into_iter().map(|wish| wish * 2).collect()
        };
        std::thread::scope(|calls| {
            for n in 0..40 {
                let (crowd, turn, round) = (&crowd, &turn, &round);
                calls.spawn(move || assert_eq!(crowd.join(n, turn, round), Some(n * 2)));
            }
        });
        assert!(!crowd.lock().led, "the next one begins anew");
        assert_eq!(crowd.join(7, &turn, round), Some(14));
        let rounds = rounds.into_inner().unwrap();
        assert_eq!(rounds.iter().sum::<usize>(), 41, "each once: {rounds:?}");
        assert_eq!(rounds.len(), 3, "they share: {rounds:?}");
    }

    #[test]
    fn while_somebody_else_has_the_turn_a_round_is_gathered() {
        let (crowd, turn) = (Crowd::default(), Mutex::new(()));
        let sizes = Mutex::new(Vec::new());
        std::thread::scope(|calls| {
            let busy = turn.lock().unwrap();
            for n in 0..10_u32 {
                let (crowd, turn, sizes) = (&crowd, &turn, &sizes);
                calls.spawn(move || {
                    crowd.join(n, turn, |wishes| {
                        sizes.lock().unwrap().push(wishes.len());
                        wishes
                    })
                });
            }
            while crowd.lock().waiting.len() < 10 {
                std::thread::yield_now();
            }
            drop(busy);
        });
        assert_eq!(*sizes.lock().unwrap(), [10]);
    }
}
