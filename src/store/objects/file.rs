//! One file of objects, read whole.
//!
//! In: a path below `objects/`. Out: its stamp and what it says. Never: half of a file that somebody is writing.

use std::ffi::CStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{Mode, fstat};

use super::scan::PASSED_OVER;
use super::stamp::Stamp;
use crate::api::{self, Reading};
use crate::problem::Problem;

/// How long a file that is just being written is waited for, at most twice more.
const WRITERS_MOMENT: Duration = Duration::from_millis(1);
/// Larger files are refused: a List of 10,000 pods as the API server writes it has about 50 MB.
const LARGEST: u64 = 256 << 20;

/// Reads one file. A stamp that changed while it was read (somebody writes it in place) is read again.
pub(super) fn read(root: BorrowedFd<'_>, path: &CStr) -> (Stamp, Reading) {
    let mut last = (Stamp::NEVER, Vec::new());
    let mut busy = false;
    for _ in 0..3 {
        match content(root, path) {
            Ok((stamp, text, true)) => return (stamp, api::read(&path.to_string_lossy(), &text)),
            Ok((_, text, false)) => last.1 = text,
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                // Most writers are done by then.
                std::thread::sleep(WRITERS_MOMENT);
                busy = true;
                continue;
            }
            Err(error) => {
                let why = format!("cannot be read: {error}; make it readable, or delete it");
                return (Stamp::NEVER, unread(path, &why));
            }
        }
    }
    if busy {
        return (Stamp::NEVER, unread(path, "somebody is writing it; read again when it is closed"));
    }
    (last.0, api::read(&path.to_string_lossy(), &last.1))
}

/// Stamp and text of a file, and whether it stayed the same while it was read.
pub(super) fn content(root: BorrowedFd<'_>, path: &CStr) -> io::Result<(Stamp, Vec<u8>, bool)> {
    // Not blocking: the file may have become a pipe since the scan.
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    let mut file = File::from(openat(root, path, flags, Mode::empty())?);
    if is_being_written(&file) {
        return Err(io::Error::new(io::ErrorKind::ResourceBusy, "somebody is writing it"));
    }
    let before = Stamp::of(&fstat(&file)?);
    if before.size > LARGEST {
        return Err(io::Error::other(format!("it has {} bytes, more than {LARGEST}", before.size)));
    }
    let mut text = Vec::with_capacity(usize::try_from(before.size).unwrap_or_default() + 1);
    Read::by_ref(&mut file).take(LARGEST).read_to_end(&mut text)?;
    let after = Stamp::of(&fstat(&file)?);
    Ok((before, text, before == after))
}

/// Whether somebody has a file open for writing. The first half of a manifest is a manifest too, and an empty file one without
/// objects, so text alone does not tell; the kernel does: it gives no read lease (fcntl(2)) on such a file. The lease is given
/// back at once. A file system without leases says nothing, and then the file is read as it is.
pub(super) fn is_being_written(file: &File) -> bool {
    /// asm-generic/fcntl.h.
    const F_SETSIG: libc::c_int = 10;
    let fd = file.as_raw_fd();
    // SAFETY: these calls take numbers only, and the descriptor is open. A writer that comes in between waits until the lease is
    // given back, and we are told by a signal: not by SIGIO, which would end us, but by SIGURG, which nobody notices.
    unsafe {
        libc::fcntl(fd, F_SETSIG, libc::SIGURG);
        let refused = libc::fcntl(fd, libc::F_SETLEASE, libc::F_RDLCK) == -1;
        let written = refused && Errno::last() == Errno::EAGAIN;
        if !refused {
            libc::fcntl(fd, libc::F_SETLEASE, libc::F_UNLCK);
        }
        written
    }
}

pub(super) fn unread(path: &CStr, why: &str) -> Reading {
    let reason = if why == PASSED_OVER { "PassedOver" } else { "Unreadable" };
    let problem = Problem::new("", reason, why).file(path.to_string_lossy());
    Reading { objects: Vec::new(), problems: vec![problem], whole: false }
}
