//! Whether loops turn: what each does now, and since when.
//!
//! In: a loop begins a step. Out: the steps that last too long, as a sentence. Never: waits; ends anything. A process whose loop hangs
//! in a call of the kernel or of the API does no work, however well its other threads answer.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use crate::kube::lease;

/// A loop of the agent or the controller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Loop {
    /// Keeps the kernel true.
    Node,
    /// Brings what is heard of the cluster to the disk.
    Cluster,
    /// Tells the cluster of this node.
    Speech,
    /// Of a controller: compares what is heard with what is written.
    Controller,
    /// Of a controller: says which of several works.
    Lease,
}

impl Loop {
    fn word(self) -> &'static str {
        match self {
            Loop::Node => "the loop that keeps the kernel true",
            Loop::Cluster => "the loop that copies the cluster to disk",
            Loop::Speech => "the loop that tells the cluster of this node",
            Loop::Controller => "the loop that looks at the cluster",
            Loop::Lease => "the loop that holds the controllers' Lease",
        }
    }

    /// A step of it that lasts so long has come to a halt; `None`: it waits for others, and a server that is away is no reason to
    /// end anything. A look at everything comes each 10 s, and locks of the directory are waited for so long, twice. What a controller waits
    /// for has deadlines of seconds, but one step of it may be dozens of requests.
    fn halt(self) -> Option<Duration> {
        match self {
            Loop::Node => Some(Duration::from_secs(30)),
            Loop::Cluster => Some(Duration::from_secs(60)),
            Loop::Speech => None,
            Loop::Controller | Loop::Lease => Some(Duration::from_secs(180)),
        }
    }

    /// A step of it that lasts so long leaves work undone. A request is given up after 10 s of silence.
    fn delay(self) -> Duration {
        match self {
            Loop::Node => Duration::from_secs(15),
            Loop::Cluster => Duration::from_secs(30),
            Loop::Speech | Loop::Controller | Loop::Lease => Duration::from_secs(60),
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Step {
    word: &'static str,
    since: Instant,
    at: SystemTime,
}

/// The loops that have begun.
#[derive(Debug, Default)]
pub struct Turns(Mutex<BTreeMap<Loop, Step>>);

impl Turns {
    /// A loop begins a step; to wait for something new is one, too.
    pub fn at(&self, of: Loop, word: &'static str) {
        self.steps().insert(of, Step { word, since: Instant::now(), at: SystemTime::now() });
    }

    /// Whether every loop turns.
    ///
    /// # Errors
    /// Which does not, in what step, since when.
    pub fn alive(&self) -> Result<(), String> {
        self.within(Instant::now(), Loop::halt)
    }

    /// Whether every loop comes to its work.
    ///
    /// # Errors
    /// As [`Turns::alive`].
    pub fn timely(&self) -> Result<(), String> {
        self.within(Instant::now(), |of| Some(of.delay()))
    }

    fn within(&self, now: Instant, bound: impl Fn(Loop) -> Option<Duration>) -> Result<(), String> {
        let late: Vec<String> = self
            .steps()
            .iter()
            .filter_map(|(of, step)| {
                let lasts = now.saturating_duration_since(step.since);
                (lasts >= bound(*of)?).then(|| {
                    let at = step.at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
                    let since = lease::time(at.as_secs());
                    format!(
                        "{} has been at `{}` for {} s, since {since}",
                        of.word(),
                        step.word,
                        lasts.as_secs()
                    )
                })
            })
            .collect();
        if late.is_empty() { Ok(()) } else { Err(late.join("; ")) }
    }

    fn steps(&self) -> MutexGuard<'_, BTreeMap<Loop, Step>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loop_that_stands_is_named_with_its_step_and_since_when_and_one_that_turns_is_not() {
        let turns = Turns::default();
        assert_eq!((turns.alive(), turns.timely()), (Ok(()), Ok(())), "nothing has begun");
        for of in [Loop::Node, Loop::Cluster, Loop::Speech] {
            turns.at(of, "wait");
        }
        let at = |seconds| Instant::now() + Duration::from_secs(seconds);
        let halt = |seconds| turns.within(at(seconds), Loop::halt);
        let delay = |seconds| turns.within(at(seconds), |of| Some(of.delay()));
        assert_eq!((halt(14), delay(14)), (Ok(()), Ok(())));
        turns.at(Loop::Node, "check");
        assert_eq!(halt(20), Ok(()));
        let late = delay(20).unwrap_err();
        assert!(
            late.starts_with("the loop that keeps the kernel true has been at `check` for 20 s, since 20"),
            "{late}"
        );
        assert!(!late.contains("cluster"), "{late}");
        assert!(halt(45).unwrap_err().contains("`check`") && !halt(45).unwrap_err().contains("copies"));
        // However long the API server is silent, that ends no agent; but it says so.
        assert!(
            !halt(1000).unwrap_err().contains("tells the cluster")
                && delay(1000).unwrap_err().contains("tells the cluster")
        );
        turns.at(Loop::Node, "wait");
        turns.at(Loop::Cluster, "wait");
        assert_eq!(halt(10), Ok(()));
    }
}
