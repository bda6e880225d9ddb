//! Whether the plugin is being answered just now: then the loop's own looks at kernel and records, which hold the node's lock and
//! concern nobody who waits, make way; how many of them are looked into at once; and what is left of each when it was answered.
//!
//! In: when calls begin and end. Out: yes or no. Never: lets anything wait for long; how long is the loop's affair.
//!
//! Who does what nobody waits for as soon as a call is answered is awake while the plugin ends, on its processor as a rule: the runtime
//! is woken on another one, which sleeps by then. That was a seventh of the start and end of a pod without egress. So it is left to
//! the loop, which wakes up a moment later in any case.

use std::fmt;
use std::mem;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::agent::ear::Ear;

/// After a call another one is about to come: a runtime starts pods together, and a process for each takes its time, as does each of the
/// other plugins in the list. With 10 ms the loop's look at the kernel (8 ms, under the node's lock) began as the next call did.
const MOMENT: Duration = Duration::from_millis(30);

/// Calls that are being answered, or were a moment ago.
#[derive(Debug, Clone, Default)]
pub struct Calls {
    now: Arc<Mutex<Now>>,
    /// Of who need not hear of what they write before they are over.
    ear: Option<Arc<Ear>>,
    left: Arc<Mutex<Vec<Left>>>,
}

/// What is left of a call.
struct Left(Box<dyn FnOnce() + Send>);

impl fmt::Debug for Left {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("what is left of a call")
    }
}

#[derive(Debug, Default)]
struct Now {
    running: usize,
    ended: Option<Instant>,
}

/// A call; over with this value.
#[derive(Debug)]
pub struct Call(Calls);

impl Calls {
    /// None yet. `ear`: the loop's.
    pub fn heard_by(ear: &Arc<Ear>) -> Calls {
        Calls { ear: Some(ear.clone()), ..Calls::default() }
    }

    /// One begins.
    pub fn begin(&self) -> Call {
        self.now().running += 1;
        self.ear.iter().for_each(|ear| ear.stop());
        Call(self.clone())
    }

    /// Leaves this to the loop. Nothing that anybody who looks at this node could miss: it is done some milliseconds later, or never where
    /// the process is killed before.
    pub fn leave(&self, work: impl FnOnce() + Send + 'static) {
        self.left().push(Left(Box::new(work)));
        self.ear.iter().for_each(|ear| ear.stop()); // it opens by a clock, which wakes the loop
    }

    /// Does what was left.
    pub fn finish(&self) {
        let left = mem::take(&mut *self.left());
        left.into_iter().for_each(|Left(work)| work());
    }

    fn left(&self) -> MutexGuard<'_, Vec<Left>> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether one is being answered.
    pub fn are_running(&self) -> bool {
        self.now().running > 0
    }

    /// Whether one is being answered, or was a moment ago.
    pub fn are_coming(&self) -> bool {
        let now = self.now();
        now.running > 0 || now.ended.is_some_and(|ended| ended.elapsed() < MOMENT)
    }

    fn now(&self) -> MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let mut now = self.0.now();
        now.running -= 1;
        now.ended = Some(Instant::now());
    }
}

/// So many ADDs are looked into at once. Each has the cluster's nodes and policies in hand, half a megabyte where there are many: a
/// hundred that start together would take fifty. Fewer would share fewer walks through the connection table.
const AT_ONCE: usize = 16;

/// Places for ADDs that are looked into.
#[derive(Debug, Default)]
pub struct Places {
    taken: Mutex<Taken>,
    left: Condvar,
}

#[derive(Debug, Default)]
struct Taken {
    places: usize,
    /// To wake nobody is a system call, too.
    waiting: usize,
}

/// A place; free again with this value.
#[derive(Debug)]
pub struct Place<'a>(&'a Places);

impl Places {
    /// Waits for a place.
    pub fn take(&self) -> Place<'_> {
        let mut taken = self.taken();
        while taken.places >= AT_ONCE {
            taken.waiting += 1;
            taken = self.left.wait(taken).unwrap_or_else(PoisonError::into_inner);
            taken.waiting -= 1;
        }
        taken.places += 1;
        Place(self)
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut taken = self.0.taken();
        taken.places -= 1;
        if taken.waiting > 0 {
            self.0.left.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_many_so_many_have_a_place_and_the_others_get_theirs() {
        let (places, most) = (Places::default(), Mutex::new(0));
        std::thread::scope(|threads| {
            for _ in 0..40 {
                threads.spawn(|| {
                    let _place = places.take();
                    let mut most = most.lock().unwrap();
                    *most = (*most).max(places.taken().places);
                    drop(most);
                    std::thread::sleep(Duration::from_millis(1));
                });
            }
        });
        assert_eq!((*most.lock().unwrap() <= AT_ONCE, places.taken().places), (true, 0));
    }

    #[test]
    fn what_is_left_of_calls_is_done_once_and_in_order_when_the_loop_has_time() {
        let (calls, done) = (Calls::default(), Arc::new(Mutex::new(Vec::new())));
        for n in 0..3 {
            let done = done.clone();
            calls.leave(move || done.lock().unwrap().push(n));
        }
        assert!(done.lock().unwrap().is_empty());
        calls.finish();
        calls.finish();
        assert_eq!(*done.lock().unwrap(), [0, 1, 2]);
    }

    #[test]
    fn calls_are_coming_until_a_moment_after_the_last() {
        let calls = Calls::default();
        assert!(!calls.are_coming());
        // Again where the look came too late, as it may on a busy machine.
        loop {
            let (one, two) = (calls.begin(), calls.begin());
            drop(one);
            assert!(calls.are_coming());
            let ended = Instant::now();
            drop(two);
            let coming = calls.are_coming();
            if ended.elapsed() < MOMENT {
                assert!(coming);
                break;
            }
        }
        std::thread::sleep(MOMENT);
        assert!(!calls.are_coming());
    }
}
