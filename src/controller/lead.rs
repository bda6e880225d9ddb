//! Holds the Lease: a thread that renews it, and says whether this process is the one at work.
//!
//! In: a client. Out: [`Leading::is_ours`], asked before every write. The Lease is a courtesy and not a lock: every write of the
//! controller names the version that it was decided on, so two that work for a moment disturb each other, never the cluster.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::election::{Election, Next, RENEW, RETRY};
use super::time_of_day;
use crate::kube::lease::{self, Found};
use crate::kube::{ApiError, Client};
use crate::probes::turns::{Loop, Turns};

/// What the controllers' Lease is called.
pub const LEASE: &str = "egret-controller";
/// Whoever works asks before every write, and many times a second if there is none. Who has not asked for so long hangs, for what it waits
/// for in between has deadlines of seconds.
const HANGS: Duration = Duration::from_secs(300);
/// For so long the Lease may be out of reach before it is said: a request is given up after 10 s of silence, and the next one may be well.
const OUT_OF_TOUCH: Duration = Duration::from_secs(20);
/// How often the thread looks whether it shall end.
const TICK: Duration = Duration::from_millis(100);

/// Whether this process is at work.
#[derive(Debug)]
pub struct Leading {
    clock: Instant,
    until: Mutex<Option<Duration>>,
    /// When the server was last known to answer, and since when it has answered without a long pause.
    answers: Mutex<Answers>,
    /// When the Lease was last seen or written as it should be, and what has been in the way since.
    touch: Mutex<(Duration, String)>,
    /// When it was last asked.
    asked: Mutex<Duration>,
    ends: AtomicBool,
}

/// How the server has answered so far, by our own clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Answers {
    last: Duration,
    since: Duration,
}

impl Leading {
    /// Whether it may write now.
    pub fn is_ours(&self) -> bool {
        *self.asked.lock().unwrap_or_else(PoisonError::into_inner) = self.clock.elapsed();
        self.leads()
    }

    /// The same for those who only look: it is no sign that anybody works.
    pub fn leads(&self) -> bool {
        let until = *self.until();
        until.is_some_and(|until| self.clock.elapsed() < until)
    }

    /// Whether nobody works any more, though the Lease would be renewed for ever.
    fn hangs(&self) -> bool {
        let asked = *self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        self.clock.elapsed().saturating_sub(asked) > HANGS
    }

    /// Since when the server answers without pause, by the clock of this process. Whoever counts silence counts from there: while
    /// nobody can be heard, nobody is away.
    pub fn hears_since(&self) -> Duration {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner).since
    }

    /// Whether this process can take part in the election at all.
    ///
    /// # Errors
    /// Why not, and for how long.
    pub fn is_in_touch(&self) -> Result<(), String> {
        let (at, why) = self.touch.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let lasts = self.clock.elapsed().saturating_sub(at);
        if lasts < OUT_OF_TOUCH {
            return Ok(());
        }
        let why = if why.is_empty() { "nobody has answered yet" } else { why.as_str() };
        Err(format!("the controllers' Lease has been out of reach for {} s: {why}", lasts.as_secs()))
    }

    /// Time since the process began to watch the clock.
    pub fn now(&self) -> Duration {
        self.clock.elapsed()
    }

    fn succeeds(&self) {
        *self.touch.lock().unwrap_or_else(PoisonError::into_inner) = (self.clock.elapsed(), String::new());
    }

    fn fails(&self, why: String) {
        let known = &mut self.touch.lock().unwrap_or_else(PoisonError::into_inner).1;
        if *known != why {
            tracing::warn!(why, "the controllers' Lease cannot be had; tried again");
            *known = why;
        }
    }

    fn until(&self) -> MutexGuard<'_, Option<Duration>> {
        self.until.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answered(&self) {
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.clock.elapsed();
        if now > answers.last + 2 * RENEW {
            answers.since = now;
        }
        answers.last = now;
    }
}

/// The thread, until it is told to end.
#[derive(Debug)]
pub struct Lead {
    leading: Arc<Leading>,
    thread: JoinHandle<()>,
}

impl Lead {
    /// Begins to try. `bell` rings when it wins or loses.
    ///
    /// # Errors
    /// If no thread can be started.
    pub fn start(
        client: Arc<Client>,
        name: &str,
        bell: SyncSender<()>,
        turns: Arc<Turns>,
    ) -> std::io::Result<Lead> {
        let clock = Instant::now();
        let answers = Answers { last: Duration::ZERO, since: Duration::ZERO };
        let (until, answers, asked) = (Mutex::default(), Mutex::new(answers), Mutex::default());
        let (touch, ends) = (Mutex::default(), AtomicBool::new(false));
        let leading = Arc::new(Leading { clock, until, answers, touch, asked, ends });
        let me = identity(name);
        tracing::info!(me, "the controller begins");
        let trying = Trying { client, leading: leading.clone(), bell, turns, election: Election::new(me) };
        let thread = thread::Builder::new().name("lead".to_owned()).spawn(move || trying.run())?;
        Ok(Lead { leading, thread })
    }

    /// What others ask.
    pub fn leading(&self) -> Arc<Leading> {
        self.leading.clone()
    }

    /// Gives the Lease back, so that another begins within a second.
    pub fn end(self) {
        *self.leading.until() = None;
        self.leading.ends.store(true, Ordering::Release);
        let _ = self.thread.join();
    }
}

struct Trying {
    client: Arc<Client>,
    leading: Arc<Leading>,
    bell: SyncSender<()>,
    turns: Arc<Turns>,
    election: Election,
}

impl Trying {
    fn run(mut self) {
        loop {
            self.turns.at(Loop::Lease, "ask");
            if self.leading.hangs() {
                // Another takes over, and this one is started again.
                tracing::error!(seconds = HANGS.as_secs(), "the controller hangs; it ends");
                std::process::abort();
            }
            let led = self.leading.leads();
            match self.turn() {
                // Somebody else was faster: look again.
                Err(error) if !error.is_conflict() => self.leading.fails(error.to_string()),
                _ => self.leading.succeeds(),
            }
            self.turns.at(Loop::Lease, "wait");
            let leads = self.leading.leads();
            if led != leads {
                tracing::info!(leads, "whether this controller is at work has changed");
                let _ = self.bell.try_send(());
            }
            let pause = if leads { RENEW } else { RETRY };
            let begun = Instant::now();
            while begun.elapsed() < pause {
                if self.leading.ends.load(Ordering::Acquire) {
                    return self.release();
                }
                thread::sleep(TICK);
            }
        }
    }

    /// Looks at the Lease once, and does what is to be done about it.
    fn turn(&mut self) -> Result<(), ApiError> {
        let begun = self.leading.now();
        let found = lease::read(&self.client, LEASE)?;
        self.leading.answered();
        let spec = found.as_ref().map(|found| &found.spec);
        match self.election.next(spec, self.leading.now(), &wall()) {
            Next::Wait => self.election.lost(),
            Next::Write(spec) => {
                let seen = found.as_ref().map(|found| found.version.as_str());
                lease::write(&self.client, LEASE, &spec, seen)?;
                // It may have taken long, and was heard all the same.
                self.leading.answered();
                self.election.won(begun);
            }
        }
        *self.leading.until() = self.election.leads_until();
        Ok(())
    }

    fn release(&self) {
        let released = || -> Result<(), ApiError> {
            let Some(Found { spec, version }) = lease::read(&self.client, LEASE)? else { return Ok(()) };
            let Some(spec) = self.election.released(&spec, &wall()) else { return Ok(()) };
            lease::write(&self.client, LEASE, &spec, Some(&version)).map(drop)
        };
        match released() {
            Ok(()) => tracing::info!("the controller ends; another may begin"),
            Err(error) => tracing::warn!(%error, "the Lease could not be given back; it ends by itself"),
        }
    }
}

/// A name that no other process has, also not the next of the same pod.
fn identity(name: &str) -> String {
    let chance = RandomState::new().hash_one(std::process::id());
    format!("{name}_{chance:016x}")
}

/// The time of day, for people who read the Lease.
fn wall() -> String {
    lease::micro_time(time_of_day())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of a process that began so long ago.
    fn since(begun: Duration) -> Leading {
        let clock = Instant::now().checked_sub(begun).unwrap();
        let answers = Mutex::new(Answers { last: Duration::ZERO, since: Duration::ZERO });
        let (until, asked, ends) = (Mutex::default(), Mutex::default(), AtomicBool::new(false));
        Leading { clock, until, answers, touch: Mutex::default(), asked, ends }
    }

    #[test]
    fn who_asks_works_and_who_has_not_asked_for_minutes_hangs() {
        let leading = since(2 * HANGS);
        assert!(!leading.leads() && leading.hangs(), "who only looks shows nothing");
        assert!(!leading.is_ours(), "and it asks");
        assert!(!leading.hangs());
    }

    #[test]
    fn who_has_not_reached_the_lease_for_a_while_says_why_until_it_does() {
        let leading = since(OUT_OF_TOUCH);
        assert!(leading.is_in_touch().unwrap_err().ends_with("for 20 s: nobody has answered yet"));
        leading.fails("it is forbidden".to_owned());
        assert!(leading.is_in_touch().unwrap_err().ends_with("for 20 s: it is forbidden"));
        leading.succeeds();
        leading.fails("one request was lost".to_owned());
        assert_eq!(leading.is_in_touch(), Ok(()));
    }
}
