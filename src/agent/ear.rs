//! What the loop waits at for news of files, and how the plugin's calls stop it for a moment.
//!
//! In: the notices' descriptor, calls that begin. Out: descriptors to poll. Never: loses a notice, or is stopped for longer than
//! [`LONGEST`], however many calls come.
//!
//! A client's start writes three files, and the loop would hear of five changes, each of which it cannot do anything about before the call
//! is over. It was woken for each, on the processor of the call more often than not, and that was a tenth of the call.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use nix::sys::inotify::Inotify;
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

/// After a call began: most are over by then.
pub const MOMENT: Duration = Duration::from_millis(5);
/// How long it is stopped at most where one goes on, or others begin.
pub const LONGEST: Duration = Duration::from_millis(25);

/// The loop's ear for files.
#[derive(Debug)]
pub struct Ear {
    notices: Arc<Inotify>,
    gate: Epoll,
    clock: TimerFd,
    stopped: Mutex<Option<Instant>>,
}

impl Ear {
    /// An open one.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn of(notices: Arc<Inotify>) -> io::Result<Arc<Ear>> {
        let gate = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let clock =
            TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK)?;
        let ear = Ear { notices, gate, clock, stopped: Mutex::new(None) };
        ear.let_in()?;
        Ok(Arc::new(ear))
    }

    /// What to poll for reading: what is heard, and when to open it again.
    pub fn descriptors(&self) -> [BorrowedFd<'_>; 2] {
        [self.gate.0.as_fd(), self.clock.as_fd()]
    }

    /// A call begins: until a moment from now nobody is woken.
    pub fn stop(&self) {
        let mut stopped = self.stopped.lock().unwrap_or_else(PoisonError::into_inner);
        if stopped.is_some() {
            return;
        }
        // In this order: what is stopped is opened again.
        let began = Instant::now();
        if self.again().and_then(|()| self.gate.delete(self.notices.as_ref().as_fd())).is_ok() {
            *stopped = Some(began);
        }
    }

    /// Opens it, if that is due. `busy`: a call goes on.
    pub fn open(&self, busy: bool) {
        let mut stopped = self.stopped.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(since) = stopped.map(|since| since.elapsed()) else { return };
        if since < MOMENT || (busy && since < LONGEST && self.again().is_ok()) {
            return;
        }
        match self.let_in() {
            Ok(()) => {
                let _ = self.clock.unset(); // else it wakes once for nothing
                *stopped = None;
            }
            Err(error) => tracing::warn!(%error, "notices of files are not listened to; tried again"),
        }
    }

    fn again(&self) -> nix::Result<()> {
        let moment = Expiration::OneShot(TimeSpec::from_duration(MOMENT));
        self.clock.set(moment, TimerSetTimeFlags::empty())
    }

    /// Taken out and put in again: with an empty mask it would stay among the waiters, and each notice would wake them to look.
    fn let_in(&self) -> nix::Result<()> {
        self.gate.add(self.notices.as_ref().as_fd(), EpollEvent::new(EpollFlags::EPOLLIN, 0))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;
    use std::thread::sleep;

    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    use nix::sys::inotify::{AddWatchFlags, InitFlags};

    use super::*;
    use crate::store::dir::tests::scratch;

    fn wakes(ear: &Ear, within: Duration) -> bool {
        let [notices, _] = ear.descriptors();
        let millis = u16::try_from(within.as_millis()).unwrap();
        poll(&mut [PollFd::new(notices, PollFlags::POLLIN)], PollTimeout::from(millis)).unwrap() > 0
    }

    fn ear(folder: &Path) -> (Arc<Inotify>, Arc<Ear>) {
        let notices = Arc::new(Inotify::init(InitFlags::IN_NONBLOCK).unwrap());
        notices.add_watch(folder, AddWatchFlags::IN_CREATE).unwrap();
        let ear = Ear::of(notices.clone()).unwrap();
        (notices, ear)
    }

    #[test]
    fn what_a_call_writes_is_heard_when_it_is_over_and_nothing_is_lost() {
        let (folder, _clean) = scratch();
        let (notices, ear) = ear(&folder);
        fs::write(folder.join("before"), "").unwrap();
        assert!(wakes(&ear, Duration::ZERO));
        notices.read_events().unwrap();
        // Again where this took longer than a moment, as it may on a busy machine: then it is open by now.
        for n in 0.. {
            let began = Instant::now();
            ear.stop();
            fs::write(folder.join(format!("meanwhile-{n}")), "").unwrap();
            ear.open(false);
            if began.elapsed() < MOMENT {
                break;
            }
            while !wakes(&ear, Duration::ZERO) {
                sleep(Duration::from_millis(1));
                ear.open(false);
            }
            notices.read_events().unwrap();
        }
        let [_, clock] = ear.descriptors();
        assert!(!wakes(&ear, Duration::ZERO), "it has only just begun");
        let rings = poll(&mut [PollFd::new(clock, PollFlags::POLLIN)], PollTimeout::from(20_000_u16));
        assert_eq!(rings, Ok(1), "somebody is told to open it");
        ear.open(false);
        assert!(wakes(&ear, Duration::ZERO));
        assert_eq!(notices.read_events().unwrap().len(), 1);
        let rings = poll(&mut [PollFd::new(clock, PollFlags::POLLIN)], PollTimeout::ZERO);
        assert_eq!(rings, Ok(0), "once");
    }

    #[test]
    fn calls_without_end_do_not_keep_it_from_hearing() {
        let (folder, _clean) = scratch();
        let (_, ear) = ear(&folder);
        let began = Instant::now();
        ear.stop();
        fs::write(folder.join("meanwhile"), "").unwrap();
        while !wakes(&ear, Duration::ZERO) {
            assert!(began.elapsed() < Duration::from_secs(20), "never heard");
            sleep(Duration::from_millis(1));
            ear.stop();
            ear.open(true);
        }
        assert!(began.elapsed() >= LONGEST);
    }
}
