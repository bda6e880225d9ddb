//! When which job is due.
//!
//! In: wishes and outcomes, each with the clock's value. Out: the job to do now, or how long nothing is due. Pure: time is an
//! argument, counted from the agent's start.
//!
//! A burst of a thousand files is one job: it waits until nothing was heard for a moment ([`Job::quiet`]), but never longer than
//! [`Job::most`] after the first wish, so that nobody starves it by writing all the time. A job that was done rests as long as it
//! took, but not long, so that the agent leaves the node's lock to others; one that failed is tried again, later each time.

use std::collections::BTreeMap;
use std::time::Duration;

/// A kind of work. The order is that of urgency.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Job {
    /// Compare the kernel with the plan, and put back what is missing.
    Check,
    /// Is the directory still the one that is watched?
    Folder,
    /// Read the plan that somebody else has applied, and the records of attachments.
    Recall,
    /// Read the directory, plan, bring the kernel there.
    Update,
    /// What is this machine? If that changed, an update follows.
    Look,
    /// Is still there what the kernel gives no notice of?
    Unannounced,
    /// Are the pods' namespaces still there?
    Namespaces,
    /// Do the books have what gateways here have?
    Leases,
    /// Say again that an address is here.
    Announce,
    /// Ask who else has our addresses.
    Ask,
    /// Collect the answers.
    Answers,
}

const fn millis(n: u64) -> Duration {
    Duration::from_millis(n)
}

impl Job {
    /// As it is counted.
    pub fn word(self) -> &'static str {
        match self {
            Job::Check => "check",
            Job::Folder => "folder",
            Job::Recall => "recall",
            Job::Update => "update",
            Job::Look => "look",
            Job::Unannounced => "unannounced",
            Job::Namespaces => "namespaces",
            Job::Leases => "leases",
            Job::Announce => "announce",
            Job::Ask => "ask",
            Job::Answers => "answers",
        }
    }

    /// How long nothing must have been heard before it is done.
    pub fn quiet(self) -> Duration {
        match self {
            Job::Check => millis(1),
            Job::Update | Job::Recall | Job::Folder => millis(4),
            Job::Look | Job::Namespaces => millis(20),
            Job::Unannounced | Job::Leases | Job::Announce | Job::Ask | Job::Answers => Duration::ZERO,
        }
    }

    /// How long it waits at most after it was first wanted.
    pub fn most(self) -> Duration {
        match self {
            Job::Check => millis(5),
            Job::Update | Job::Recall | Job::Folder => millis(25),
            Job::Look | Job::Namespaces => millis(80),
            Job::Unannounced | Job::Leases | Job::Announce | Job::Ask | Job::Answers => Duration::ZERO,
        }
    }
}

/// How long nothing must have been heard where each that was heard is whole.
const SOON: Duration = millis(1);
/// The longest rest.
const REST: Duration = millis(20);
/// Pause after the first failure; each further one doubles it.
const RETRY: Duration = millis(20);
/// The longest pause.
const LONGEST: Duration = Duration::from_secs(5);

/// All that is to be done, and when.
#[derive(Debug, Clone, Default)]
pub struct Schedule {
    wanted: BTreeMap<Job, Wanted>,
    rest: BTreeMap<Job, Duration>,
    failures: BTreeMap<Job, u32>,
}

#[derive(Debug, Clone, Copy)]
struct Wanted {
    /// When it was first wanted by something that happened; `None` if only by the clock.
    first: Option<Duration>,
    at: Duration,
}

impl Schedule {
    /// Something happened that calls for a job.
    pub fn want(&mut self, job: Job, now: Duration) {
        self.want_after(job.quiet(), job, now);
    }

    /// The same, where who did it is done: only what it did besides, this very moment, is waited for.
    pub fn want_soon(&mut self, job: Job, now: Duration) {
        self.want_after(SOON, job, now);
    }

    fn want_after(&mut self, quiet: Duration, job: Job, now: Duration) {
        let first = self.wanted.get(&job).and_then(|wanted| wanted.first).unwrap_or(now);
        let at = (now + quiet).min(first + job.most());
        self.wanted.insert(job, Wanted { first: Some(first), at });
    }

    /// Something happened that cannot wait at all: packets are on their way meanwhile.
    pub fn hurry(&mut self, job: Job, now: Duration) {
        let first = self.wanted.get(&job).and_then(|wanted| wanted.first).unwrap_or(now);
        self.wanted.insert(job, Wanted { first: Some(first), at: now });
        self.rest.remove(&job);
    }

    /// The clock calls for a job, no earlier than `at`. What is due sooner stays so.
    pub fn at(&mut self, job: Job, at: Duration) {
        let wanted = self.wanted.entry(job).or_insert(Wanted { first: None, at });
        wanted.at = wanted.at.min(at);
    }

    /// A job that was taken makes way for others, and is wanted no later than before by who wants it anew.
    pub fn put_off(&mut self, job: Job, first: Option<Duration>, at: Duration) {
        self.wanted.insert(job, Wanted { first, at });
    }

    /// A job was done.
    pub fn done(&mut self, job: Job, began: Duration, ended: Duration) {
        self.failures.remove(&job);
        self.rest.insert(job, ended + ended.saturating_sub(began).min(REST));
    }

    /// A job failed: again, later each time. Until it succeeds, what happens does not make it due sooner than that.
    pub fn failed(&mut self, job: Job, now: Duration) {
        let failures = self.failures.entry(job).or_default();
        let pause = RETRY.saturating_mul(1 << (*failures).min(16)).min(LONGEST);
        *failures += 1;
        self.rest.insert(job, now + pause);
        self.at(job, now + pause);
    }

    /// The most urgent job that is due, which is then no longer wanted, and since when something that happened called for it.
    pub fn take(&mut self, now: Duration) -> Option<(Job, Option<Duration>)> {
        let job = self.wanted.keys().copied().find(|job| self.due(*job).is_some_and(|due| due <= now))?;
        let wanted = self.wanted.remove(&job);
        Some((job, wanted.and_then(|wanted| wanted.first)))
    }

    /// How long nothing is due; `None` if nothing is wanted at all.
    pub fn pause(&self, now: Duration) -> Option<Duration> {
        self.wanted.keys().filter_map(|job| self.due(*job)).min().map(|due| due.saturating_sub(now))
    }

    fn due(&self, job: Job) -> Option<Duration> {
        let wanted = self.wanted.get(&job)?;
        Some(self.rest.get(&job).map_or(wanted.at, |rest| wanted.at.max(*rest)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn take(schedule: &mut Schedule, now: Duration) -> Option<Job> {
        schedule.take(now).map(|(job, _)| job)
    }

    #[test]
    fn a_burst_of_a_thousand_files_is_one_update_soon_after_its_end() {
        let mut schedule = Schedule::default();
        for n in 0..1000 {
            schedule.want(Job::Update, Duration::from_micros(10 * n));
        }
        assert_eq!(take(&mut schedule, millis(13)), None);
        assert_eq!(take(&mut schedule, millis(14)), Some(Job::Update));
        assert_eq!((take(&mut schedule, millis(99)), schedule.pause(millis(99))), (None, None));
    }

    #[test]
    fn what_was_put_in_place_whole_is_waited_for_no_longer_than_what_comes_with_it() {
        let mut schedule = Schedule::default();
        schedule.want_soon(Job::Update, millis(0));
        schedule.want_soon(Job::Update, Duration::from_micros(900));
        assert_eq!(take(&mut schedule, millis(1)), None);
        assert_eq!(take(&mut schedule, millis(2)), Some(Job::Update));
        schedule.want_soon(Job::Update, millis(10));
        schedule.want(Job::Update, millis(10)); // somebody else writes in place
        assert_eq!(take(&mut schedule, millis(11)), None);
        assert_eq!(take(&mut schedule, millis(14)), Some(Job::Update));
    }

    #[test]
    fn who_writes_all_the_time_starves_nothing() {
        let mut schedule = Schedule::default();
        for n in 0..=24 {
            schedule.want(Job::Update, millis(n));
            assert_eq!(take(&mut schedule, millis(n)), None);
        }
        schedule.want(Job::Update, millis(25));
        assert_eq!(take(&mut schedule, millis(25)), Some(Job::Update));
    }

    #[test]
    fn the_kernel_comes_before_the_files() {
        let mut schedule = Schedule::default();
        schedule.want(Job::Update, millis(0));
        schedule.want(Job::Check, millis(8));
        assert_eq!(take(&mut schedule, millis(10)), Some(Job::Check));
        assert_eq!(take(&mut schedule, millis(10)), Some(Job::Update));
    }

    #[test]
    fn failures_are_tried_again_later_each_time_and_success_forgets_them() {
        let mut schedule = Schedule::default();
        let mut pauses = Vec::new();
        let mut now = millis(0);
        for _ in 0..11 {
            schedule.failed(Job::Update, now);
            schedule.want(Job::Update, now); // does not hurry it
            let pause = schedule.pause(now).unwrap();
            pauses.push(pause.as_millis());
            now += pause;
            assert_eq!(take(&mut schedule, now), Some(Job::Update));
        }
        assert_eq!(pauses, [20, 40, 80, 160, 320, 640, 1280, 2560, 5000, 5000, 5000]);
        schedule.done(Job::Update, now, now);
        schedule.failed(Job::Update, now);
        assert_eq!(schedule.pause(now), Some(millis(20)));
    }

    #[test]
    fn what_took_long_rests_as_long() {
        let mut schedule = Schedule::default();
        schedule.want(Job::Check, millis(0));
        assert_eq!(take(&mut schedule, millis(1)), Some(Job::Check));
        schedule.want(Job::Check, millis(15)); // our own change was heard
        schedule.done(Job::Check, millis(1), millis(16));
        assert_eq!(take(&mut schedule, millis(30)), None);
        assert_eq!(take(&mut schedule, millis(31)), Some(Job::Check));
        schedule.done(Job::Check, millis(31), millis(46));
        schedule.hurry(Job::Check, millis(47)); // the rules are gone
        assert_eq!(take(&mut schedule, millis(47)), Some(Job::Check));
    }

    proptest! {
        /// However wishes fall, a job is due within its longest wait after the first of them, and before the last is over.
        #[test]
        fn nothing_waits_longer_than_it_may(gaps in prop::collection::vec(0u64..40_000, 1..60)) {
            let mut schedule = Schedule::default();
            let (mut now, mut first) = (Duration::ZERO, None);
            for gap in gaps {
                now += Duration::from_micros(gap);
                if let Some(since) = first {
                    let due = now >= since + Job::Update.most();
                    let taken = take(&mut schedule, now);
                    prop_assert!(!due || taken.is_some(), "wanted since {since:?}, now {now:?}");
                    if taken.is_some() {
                        first = None;
                    }
                }
                schedule.want(Job::Update, now);
                first.get_or_insert(now);
            }
            prop_assert_eq!(take(&mut schedule, now + Job::Update.quiet()), Some(Job::Update));
        }
    }
}
