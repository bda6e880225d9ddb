//! The files of a folder that is no state directory: manifests before anybody applies them.
//!
//! In: its path. Out: each file that may hold objects, with its text or why it has none. Never: parses them.

use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::file::content;
use super::scan::PASSED_OVER;
use super::{ObjectsError, scanned};

/// A file of the folder: its path below that, and its text or the sentence that says why it cannot be read.
pub type Found = (String, Result<Vec<u8>, String>);

/// The files of a folder at any depth, by name, chosen as those of `objects/` are.
///
/// # Errors
/// The folder, or one in it, cannot be listed.
pub fn files(folder: &Path) -> Result<Vec<Found>, ObjectsError> {
    let unlisted = |path: &Path, source| ObjectsError::Unlisted { path: path.to_owned(), source };
    let flags = libc::O_DIRECTORY | libc::O_CLOEXEC;
    let root = std::fs::OpenOptions::new().read(true).custom_flags(flags).open(folder);
    let root = root.map_err(|source| unlisted(folder, source))?;
    let found = scanned(root.as_fd(), None)
        .map_err(|e| unlisted(&folder.join(e.path.to_string_lossy().as_ref()), e.errno.into()))?;
    let text = |file: &super::scan::FoundFile<'_>| match file.unfit {
        Some(why) => Err(why.to_owned()),
        None => content(root.as_fd(), &file.path)
            .map(|(_, text, _)| text)
            .map_err(|error| format!("cannot be read: {error}; make it readable, or delete it")),
    };
    // A folder of manifests holds what is none, too.
    let meant = found.files.iter().filter(|file| file.unfit != Some(PASSED_OVER));
    Ok(meant.map(|file| (file.path.to_string_lossy().into_owned(), text(file))).collect())
}
