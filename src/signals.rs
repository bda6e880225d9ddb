//! Being told to end.
//!
//! In: SIGTERM, SIGINT. Out: a descriptor by which they are read when there is time. Never: ends anything.

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// SIGTERM and SIGINT are read between two jobs, so that none is cut in half. Before any other thread is made: theirs is inherited.
///
/// # Errors
/// A sentence with the kernel's words.
pub fn of_the_end() -> Result<SignalFd, String> {
    let mut set = SigSet::empty();
    set.add(Signal::SIGTERM);
    set.add(Signal::SIGINT);
    set.thread_block().map_err(|e| format!("signals cannot be blocked: {e}"))?;
    SignalFd::with_flags(&set, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)
        .map_err(|e| format!("signals cannot be read: {e}"))
}
