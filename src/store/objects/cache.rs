//! The cache file `cache/objects`: the image of last time. Torn, foreign or absent: the objects are read anew.
//!
//! It is replaced whole, by rename, and not fsynced: what a power cut leaves of it does not pass its checksum.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::sys::stat::futimens;
use nix::sys::time::TimeSpec;

use super::image::Image;

/// Reads the cache, if there is a good one.
pub(super) fn load(state_dir: &Path) -> Option<Image> {
    Image::parse(std::fs::read(state_dir.join("cache/objects")).ok()?)
}

/// The right to write the cache next. One at a time: of fifty calls that see a change, one writes, the others go on
/// without. The name of the file being written is fixed and locked, so a killed writer leaves nothing that piles up.
pub(super) struct Pen {
    file: File,
    from: PathBuf,
    to: PathBuf,
    /// Nanoseconds since 1970 by the clock that stamps the files, which is another machine's on a network file system.
    pub(super) now: i64,
}

impl Pen {
    /// Takes the pen. An error: the cache cannot be written, or somebody else writes it just now.
    pub(super) fn take(state_dir: &Path) -> io::Result<Pen> {
        let dir = state_dir.join("cache");
        match std::fs::create_dir(&dir) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        let from = dir.join("objects.new");
        let mut open = OpenOptions::new();
        let open = open.read(true).write(true).create(true).truncate(false).mode(0o600);
        let file = open.custom_flags(libc::O_NOFOLLOW).open(&from)?;
        file.try_lock()?;
        // Between the open and the lock the file may have become the cache: then it must not be written any more.
        let moved = || io::Error::new(io::ErrorKind::WouldBlock, "another call has just replaced the cache");
        let (ours, there) = (file.metadata()?, std::fs::symlink_metadata(&from).map_err(|_| moved())?);
        if (ours.dev(), ours.ino()) != (there.dev(), there.ino()) {
            return Err(moved());
        }
        file.set_len(0)?;
        futimens(&file, &TimeSpec::UTIME_NOW, &TimeSpec::UTIME_NOW)?;
        let stamped = file.metadata()?;
        let now = stamped.mtime().saturating_mul(1_000_000_000).saturating_add(stamped.mtime_nsec());
        Ok(Pen { file, from, to: dir.join("objects"), now })
    }

    /// Replaces the cache.
    pub(super) fn write(mut self, image: &Image) -> io::Result<()> {
        self.file.write_all(image.bytes())?;
        std::fs::rename(&self.from, &self.to)
    }
}
