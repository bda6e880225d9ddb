//! A network namespace by its file: make, enter, leave.
//!
//! A socket keeps the namespace it was made in, so entering is needed only to make sockets and to write settings;
//! they may then be used from any thread. Never: leaves a thread in the wrong namespace. Failing to come back aborts
//! the process, because everything that thread did next would hit the wrong network.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};

use super::Trouble;

/// This thread's namespace; `/proc/self/ns/net` would be the main thread's.
const HERE: &str = "/proc/thread-self/ns/net";

/// An open namespace. While the value lives, the namespace does.
#[derive(Debug)]
pub struct Netns(File);

impl Netns {
    /// Makes a namespace and pins it at `path`, an empty file that must not exist yet.
    pub fn create(path: &Path) -> Result<(), Trouble> {
        let trouble = |what: &str, e: &dyn std::fmt::Display| {
            Trouble::new(format!("cannot {what} network namespace {}: {e}", path.display()))
        };
        let home = Netns::here().map_err(|e| trouble("leave for", &e))?;
        File::options().write(true).create_new(true).open(path).map_err(|e| trouble("name", &e))?;
        unshare(CloneFlags::CLONE_NEWNET).map_err(|e| trouble("make", &e))?;
        let back = Back(home);
        let pinned = mount(Some(HERE), path, None::<&str>, MsFlags::MS_BIND, None::<&str>);
        drop(back);
        pinned.map_err(|e| trouble("pin", &e))
    }

    /// Takes the name away; the namespace goes with its last process, socket or open file.
    pub fn delete(path: &Path) -> io::Result<()> {
        umount2(path, MntFlags::MNT_DETACH)?;
        fs::remove_file(path)
    }

    /// Opens a named namespace.
    pub fn open(path: &Path) -> io::Result<Netns> {
        File::open(path).map(Netns)
    }

    /// The calling thread's.
    pub fn here() -> io::Result<Netns> {
        Netns::open(Path::new(HERE))
    }

    /// Inode number: equal numbers are the same namespace while either is open.
    pub fn inode(&self) -> io::Result<u64> {
        self.0.metadata().map(|m| m.ino())
    }

    /// Runs `work` inside, on this thread, and comes back.
    ///
    /// `work` must not start threads: they would stay inside.
    pub fn run<T>(&self, work: impl FnOnce() -> T) -> io::Result<T> {
        let home = Netns::here()?;
        setns(&self.0, CloneFlags::CLONE_NEWNET)?;
        let back = Back(home);
        let result = work();
        drop(back);
        Ok(result)
    }

    /// The open file, for a child that enters between fork and exec.
    pub(super) fn into_file(self) -> File {
        self.0
    }
}

/// Comes back on drop, also when the work panics.
struct Back(Netns);

impl Drop for Back {
    fn drop(&mut self) {
        if setns(&self.0.0, CloneFlags::CLONE_NEWNET).is_err() {
            std::process::abort();
        }
    }
}
