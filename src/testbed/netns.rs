//! Named network namespaces: made, taken away. `kernel::netns` opens them and works in them.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};

use super::Trouble;
use crate::kernel::netns::Netns;

/// Makes a namespace and pins it at `path`, an empty file that must not exist yet.
pub(super) fn create(path: &Path) -> Result<(), Trouble> {
    let trouble = |what: &str, e: &dyn std::fmt::Display| {
        Trouble::new(format!("cannot {what} network namespace {}: {e}", path.display()))
    };
    File::options().write(true).create_new(true).open(path).map_err(|e| trouble("name", &e))?;
    let make = || -> Result<(), Trouble> {
        unshare(CloneFlags::CLONE_NEWNET).map_err(|e| trouble("make", &e))?;
        mount(Some("/proc/thread-self/ns/net"), path, None::<&str>, MsFlags::MS_BIND, None::<&str>)
            .map_err(|e| trouble("pin", &e))
    };
    // A thread of its own leaves its namespace for good; the caller's stays where it is.
    std::thread::scope(|scope| scope.spawn(make).join()).map_err(|_| trouble("make", &"a thread panicked"))?
}

/// Takes the name away; the namespace goes with its last process, socket or open file.
pub(super) fn delete(path: &Path) -> io::Result<()> {
    umount2(path, MntFlags::MNT_DETACH)?;
    fs::remove_file(path)
}

/// Opens a namespace, for callers whose errors are the system's.
pub(super) fn open(path: &Path) -> io::Result<Netns> {
    Netns::open(path).map_err(io::Error::other)
}
