//! Changes of which somebody told: the files that changed are read, and no other is looked at.
//!
//! In: the objects of last time, paths. Out: the objects of now, or nothing where all files must be looked at. Never: believes a path more
//! than the file that stands there.

use std::ffi::{CStr, CString};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::file::read;
use super::image::{FileRecord, Image};
use super::stamp::Stamp;
use super::{Objects, cache, compile, open_root, scan};

impl Objects {
    /// The same, for who was told of every change since the last time: only these files are looked at, paths below `objects/`. `None`:
    /// more than the contents of files may have changed, and all of them must be looked at. The cache stays as it is
    /// ([`Objects::keep`]).
    pub fn follow<'p>(
        state_dir: &Path,
        last: &Objects,
        told: impl IntoIterator<Item = &'p Path>,
    ) -> Option<Objects> {
        let mut told = told.into_iter().peekable();
        if told.peek().is_none() {
            return Some(last.clone());
        }
        let root = open_root(&state_dir.join("objects")).ok()?;
        let image = &last.image;
        let mut changed = Vec::new();
        for path in told {
            let path = CString::new(path.as_os_str().as_bytes()).ok()?;
            let number = image.file_at(&path)?;
            if !scan::is_plain(root.as_fd(), &path) {
                return None;
            }
            let row = image.file(number);
            let (_, reading) = read(root.as_fd(), row.path);
            // The next look at everything looks at it again: what is told of may be newer than what was read.
            let before = Some((&**image, image.file(number)));
            changed.push((number, compile::read(row.path.into(), Stamp::NEVER, reading, before)));
        }
        let dirs: Vec<Stamp> = image.dirs().map(|dir| dir.stamp).collect();
        let changed: Vec<_> = changed.iter().map(|(number, file)| (*number, file)).collect();
        image.with(&dirs, &changed).map(Objects::from)
    }

    /// Writes the cache, after [`Objects::follow`]: it says what a file last held, should it be torn when all are read anew.
    pub fn keep(&self, state_dir: &Path) {
        // Somebody else who writes it just now has read the files, too.
        if let Ok(pen) = cache::Pen::take(state_dir)
            && let Err(error) = pen.write(&self.image)
        {
            tracing::debug!(%error, "object cache not written");
        }
    }
}

/// The image before with other contents of some files, if that is all that differs.
pub(super) fn refilled<'d>(
    before: &Image,
    dirs: impl ExactSizeIterator<Item = (&'d CStr, Stamp)> + Clone,
    records: &[FileRecord<'_>],
) -> Option<Image> {
    let same_dirs = before.dirs().map(|dir| dir.path).eq(dirs.clone().map(|(path, _)| path));
    if !same_dirs || records.len() != before.files().len() {
        return None;
    }
    let mut changed = Vec::new();
    for (number, record) in records.iter().enumerate() {
        match record {
            FileRecord::Kept(_, kept) if *kept == number => {}
            FileRecord::Kept(..) => return None,
            FileRecord::Read(file) => changed.push((number, &**file)),
        }
    }
    before.with(&dirs.map(|(_, stamp)| stamp).collect::<Vec<_>>(), &changed)
}
