//! Programs that wait for their script.
//!
//! In: a namespace, and the processor that the caller goes on with. Out: an `nft` that starts there, on another one. Never: gives it a
//! script.

use std::collections::BTreeMap;
use std::process::Child;
use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::sched::{CpuSet, sched_getaffinity, sched_getcpu, sched_setaffinity};
use nix::unistd::Pid;

use super::load::{find, start};
use crate::kernel::Netns;

/// By the namespace they were started in.
static AHEAD: Mutex<BTreeMap<(u64, u64), Child>> = Mutex::new(BTreeMap::new());

/// Where a call works, and where the programs work that it will wait for.
///
/// A scheduler that knows of no cache which two processors share looks for no idle one when somebody wakes up (measured: Linux 6.18 without
/// `SCHED_MC`, two processors). So a program and a thread of ours that slept for the disk take turns on one processor, 3 ms each, while
/// the other one rests; that was an eighth of a first wiring.
#[derive(Debug, Clone, Copy)]
pub struct Sides {
    /// The one that the caller is on.
    ours: CpuSet,
    /// All others that it may use.
    theirs: CpuSet,
}

impl Sides {
    /// As seen by the thread that goes on. `None`: that is left to the scheduler.
    pub fn seen_here() -> Option<Sides> {
        let (here, mut theirs) = (sched_getcpu().ok()?, sched_getaffinity(MYSELF).ok()?);
        let mut ours = CpuSet::new();
        ours.set(here).and_then(|()| theirs.unset(here)).ok()?;
        Some(Sides { ours, theirs })
    }

    /// Keeps a thread that helps the caller off the programs' side, until it ends.
    pub fn stay(&self) {
        let _ = sched_setaffinity(MYSELF, &self.ours);
    }

    /// Nothing comes of it where there is but one processor: the kernel refuses a list of none.
    fn send(&self, program: &Child) {
        let _ = sched_setaffinity(Pid::from_raw(program.id().cast_signed()), &self.theirs);
    }
}

/// The calling thread.
const MYSELF: Pid = Pid::from_raw(0);

/// Starts `nft` in the calling thread's namespace for the next script that is loaded there, because half of what it takes (2 of 5 ms) is
/// over before it reads its script, and another processor can do that meanwhile. What goes wrong here, whoever loads the script will say.
pub fn start_ahead(sides: Option<&Sides>) {
    if let (Ok(here), Ok(program)) = (Netns::current(), find())
        && !waiting().contains_key(&here.id())
        && let Ok(child) = start(&program)
    {
        sides.iter().for_each(|sides| sides.send(&child));
        put(here.id(), child);
    }
}

/// The one that waits in the calling thread's namespace.
pub(super) fn started() -> Option<Child> {
    let mut ahead = waiting();
    if ahead.is_empty() {
        return None;
    }
    ahead.remove(&Netns::current().ok()?.id())
}

/// Ends those that nobody needed, when it goes.
#[must_use]
pub struct Ahead;

impl Drop for Ahead {
    fn drop(&mut self) {
        let unused = std::mem::take(&mut *waiting());
        unused.into_values().for_each(end);
    }
}

fn waiting() -> MutexGuard<'static, BTreeMap<(u64, u64), Child>> {
    AHEAD.lock().unwrap_or_else(PoisonError::into_inner)
}

fn put(netns: (u64, u64), child: Child) {
    let before = waiting().insert(netns, child);
    before.into_iter().for_each(end);
}

/// The end of its input: it does nothing and ends.
fn end(mut unused: Child) {
    drop(unused.stdin.take());
    let _ = unused.wait();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::sandbox::Namespace;

    #[test]
    fn a_program_works_where_its_caller_does_not_and_one_of_a_namespace_is_enough() {
        Namespace::new().run(|| {
            let here = Netns::current().unwrap().id();
            let sides = Sides::seen_here().unwrap();
            start_ahead(Some(&sides));
            let first = waiting().get(&here).unwrap().id();
            start_ahead(Some(&sides));
            let mut program = started().unwrap();
            assert_eq!((program.id(), started().is_none()), (first, true));
            let allowed = sched_getaffinity(Pid::from_raw(first.cast_signed())).unwrap();
            let is_one = sides.theirs == CpuSet::new();
            assert!(is_one || allowed == sides.theirs, "{allowed:?}, not {:?}", sides.theirs);
            sides.stay();
            assert_eq!(sched_getaffinity(MYSELF).unwrap(), sides.ours);
            drop(program.stdin.take());
            assert!(program.wait().unwrap().success(), "the end of its input is no error");
        });
    }
}
