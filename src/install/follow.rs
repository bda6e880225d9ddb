//! Waits for somebody to change the folders that a runtime reads.
//!
//! In: folders. Out: a return whenever something in them may have changed, or after a while: a notice is not to be relied on across
//! mounts. Never: reads what changed; who waits looks at everything.

use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

/// The folders, watched.
pub struct Follow {
    inotify: Inotify,
}

impl Follow {
    /// Listens in no folder yet.
    ///
    /// # Errors
    /// The kernel has no inotify instance left.
    pub fn new() -> io::Result<Follow> {
        Ok(Follow { inotify: Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)? })
    }

    /// Listens in these folders from now on; look at them after this. One that is not there yet is taken up at the next call.
    pub fn listen(&self, folders: &[&Path]) {
        let flags = AddWatchFlags::IN_CLOSE_WRITE
            | AddWatchFlags::IN_MOVED_TO
            | AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_ONLYDIR;
        for folder in folders {
            // Watching what is watched changes nothing; a folder in place of another is another one.
            let _ = self.inotify.add_watch(*folder, flags);
        }
    }

    /// Waits until something happened in one of them.
    ///
    /// # Errors
    /// The kernel refuses to wait.
    pub fn wait(&self, longest: Duration) -> io::Result<()> {
        let millis = u16::try_from(longest.as_millis()).unwrap_or(u16::MAX);
        let mut one = [PollFd::new(self.inotify.as_fd(), PollFlags::POLLIN)];
        match poll(&mut one, PollTimeout::from(millis)) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let _ = self.inotify.read_events(); // what they say is looked for anyway
        Ok(())
    }
}
