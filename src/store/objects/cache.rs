//! The cache file `cache/objects`: the image of last time. Torn, foreign or absent: the objects are read anew.
//!
//! It is replaced whole, by name, and not fsynced: what a power cut leaves of it does not pass its checksum.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::sys::stat::futimens;
use nix::sys::time::TimeSpec;

use super::bytes::{Bytes, Mapped};
use super::image::Image;
use crate::store::{exchange, read_whole};

/// Reads the cache, if there is a good one, for who keeps it.
pub(super) fn load(state_dir: &Path) -> Option<Image> {
    Image::parse(read_whole(&state_dir.join("cache/objects")).ok()?)
}

/// The same for a moment. It is never written in place, nor truncated ([`Pen::write`]).
pub(super) fn glance(state_dir: &Path) -> Option<Image> {
    match Mapped::of(&open(state_dir)?) {
        Some(mapped) => Image::parse(Bytes::Mapped(mapped)),
        None => load(state_dir),
    }
}

fn open(state_dir: &Path) -> Option<File> {
    // Not blocking, should a pipe be in its place.
    let mut open = OpenOptions::new();
    open.read(true).custom_flags(libc::O_NONBLOCK).open(state_dir.join("cache/objects")).ok()
}

/// The right to write the cache next. One at a time: of fifty calls that see a change, one writes, the others go on
/// without. So the new file can have a fixed name, and a killed writer leaves nothing that piles up.
pub(super) struct Pen {
    dir: PathBuf,
    /// Nanoseconds since 1970 by the clock that stamps the files, which is another machine's on a network file system.
    pub(super) now: i64,
    _locked: File,
}

impl Pen {
    /// Takes the pen. An error: the cache cannot be written, or somebody else writes it just now.
    pub(super) fn take(state_dir: &Path) -> io::Result<Pen> {
        let dir = state_dir.join("cache");
        match std::fs::create_dir(&dir) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        let lock = writing().truncate(false).open(dir.join("objects.lock"))?;
        lock.try_lock()?;
        futimens(&lock, &TimeSpec::UTIME_NOW, &TimeSpec::UTIME_NOW)?;
        let stamped = lock.metadata()?;
        let now = stamped.mtime().saturating_mul(1_000_000_000).saturating_add(stamped.mtime_nsec());
        Ok(Pen { dir, now, _locked: lock })
    }

    /// Replaces the cache.
    ///
    /// The two files change places and the old one is deleted: a rename *over* a file makes ext4 write the new one out
    /// first (`auto_da_alloc`), which costs 0.3 to 2 ms against 0.06 (kernel 6.18, busy disk), for a safety that the
    /// checksum gives already.
    pub(super) fn write(self, image: &Image) -> io::Result<()> {
        let (new, cache) = (self.dir.join("objects.new"), self.dir.join("objects"));
        // What a killed writer left may be the cache of before, which somebody has mapped: it is deleted, never made shorter.
        let fresh = || writing().create_new(true).open(&new);
        let mut file = fresh().or_else(|_| std::fs::remove_file(&new).and_then(|()| fresh()))?;
        file.write_all(image.bytes())?;
        if exchange(&new, &cache).is_ok() {
            return std::fs::remove_file(&new);
        }
        // No cache yet, or a file system that cannot exchange (NFS).
        std::fs::rename(&new, &cache)
    }
}

fn writing() -> OpenOptions {
    let mut open = OpenOptions::new();
    open.read(true).write(true).create(true).mode(0o600).custom_flags(libc::O_NOFOLLOW);
    open
}
