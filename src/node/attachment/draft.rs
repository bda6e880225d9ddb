//! Files that records are drafted in, each by one writer at a time.
//!
//! In: a path. Out: an empty file with its lock held until it is closed. Never: one that is a record by now, or that somebody else writes.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use nix::fcntl::{FallocateFlags, fallocate};

/// Bytes that a draft which lies ready has room for, so that none needs to be found while a pod waits: a page.
const ROOM: i64 = 4096;

/// Opens the draft, empty, with its lock held until it is closed, so that two calls for one attachment (a runtime that tries again while the first
/// call still runs) write one after the other. The lock is held for one small write and never across a wait.
pub(super) fn locked(path: &Path) -> io::Result<File> {
    loop {
        let file = opened(path)?;
        file.lock()?;
        if is_ours(&file, path)? {
            return Ok(file);
        }
    }
}

/// One that lies ready before anybody needs it; `None`: another process has it. Two agents may be here for a moment, when somebody
/// removed the folder that their lock lies in.
pub(super) fn spare(path: &Path) -> io::Result<Option<File>> {
    let file = opened(path)?;
    if file.try_lock().is_err() || !is_ours(&file, path)? {
        return Ok(None);
    }
    if let Err(error) = fallocate(&file, FallocateFlags::FALLOC_FL_KEEP_SIZE, 0, ROOM) {
        tracing::debug!(%error, "the next record finds its room when it is written");
    }
    Ok(Some(file))
}

fn opened(path: &Path) -> io::Result<File> {
    let mut draft = File::options();
    // Not blocking, should a pipe be in its place.
    draft.create(true).truncate(false).write(true).custom_flags(libc::O_NONBLOCK);
    draft.open(path)
}

/// Whether the path still leads to a file whose lock we have; then it is empty. Who had it before may have renamed it: it is a record now.
fn is_ours(file: &File, path: &Path) -> io::Result<bool> {
    match fs::metadata(path) {
        Ok(meta) if meta.ino() == file.metadata()?.ino() => {
            if meta.len() > 0 {
                file.set_len(0)?; // whoever drafted it was killed
            }
            Ok(true)
        }
        Ok(_) => Ok(false),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}
