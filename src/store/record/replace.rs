//! One file put in another one's place.
//!
//! In: a text and a path. Out: the text there, whole, and on disk as far as was asked. Never: leaves half a file, whenever it is killed.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use serde::Serialize;

use crate::fault;

/// What of a record is on disk when its writer goes on.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Waits {
    Nothing,
    File,
    FileAndFolder,
}

impl Waits {
    pub(super) fn of(durable: bool) -> Waits {
        if durable { Waits::FileAndFolder } else { Waits::Nothing }
    }
}

pub(super) fn pretty<T: Serialize>(value: &T) -> io::Result<Vec<u8>> {
    let mut text = serde_json::to_vec_pretty(value)?;
    text.push(b'\n');
    Ok(text)
}

/// Writes JSON beside a file, puts it in its place, and waits for the disk.
pub(crate) fn replace_file<T: Serialize>(path: &Path, value: &T) -> io::Result<()> {
    replace_as(path, &pretty(value)?, Waits::FileAndFolder)
}

/// The same with a text, and without waiting: for what can be had again.
pub(crate) fn replace_text(path: &Path, text: &[u8]) -> io::Result<()> {
    replace_as(path, text, Waits::Nothing)
}

pub(super) fn replace_as(path: &Path, text: &[u8], waits: Waits) -> io::Result<()> {
    let folder = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    let stem = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_string_lossy();
    // One name per record, not one per process: writers hold a lock, so a leftover is overwritten by the next one.
    let temporary = folder.join(format!(".{stem}.tmp"));
    let mut draft = OpenOptions::new();
    draft.write(true).create(true).truncate(true).mode(0o644).custom_flags(libc::O_NONBLOCK);
    let mut file = draft.open(&temporary)?;
    let written = file.write_all(text);
    let written = written.and_then(|()| if waits == Waits::Nothing { Ok(()) } else { file.sync_all() });
    fault::point("record.after-temp");
    // On a full disk even an empty leftover takes a place that somebody else could use.
    if let Err(error) = written.and_then(|()| fs::rename(&temporary, path)) {
        let _ = fs::remove_file(&temporary);
        return Err(error);
    }
    fault::point("record.after-rename");
    if waits == Waits::FileAndFolder { File::open(folder)?.sync_all() } else { Ok(()) }
}
