//! Records of attachments as this process last read or wrote them, so that who lives on does not decode those of all pods at every change,
//! and no pod waits for a file to be made.
//!
//! In: a record's path, how its file looks, and how it is read or written. Out: the record. Never: believed of another file: a record is
//! never written twice, only replaced, and what somebody edited looks otherwise and is read.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

use nix::fcntl::renameat;

use super::{Attachment, draft};
use crate::problem::Problem;
use crate::store::Stamp;

type Read = Result<Option<Attachment>, Box<Problem>>;

/// The name of the draft that lies ready; those of attachments have a `:`.
const SPARE: &str = ".spare";

/// What files held that looked so.
#[derive(Debug, Default)]
pub struct LastRecords {
    known: Mutex<BTreeMap<PathBuf, (Stamp, Attachment)>>,
    next: Mutex<Next>,
}

/// What the next pod needs, and what the last one left to be done.
#[derive(Debug, Default)]
struct Next {
    spare: Option<Spare>,
    written: Option<Written>,
}

/// A draft that is nobody's yet, in a network's folder.
#[derive(Debug)]
struct Spare {
    folder: PathBuf,
    /// The folder itself: to find it by its path takes longer than to give a file in it another name.
    open: File,
    file: File,
}

impl Spare {
    /// `None`: another process has it, or it cannot be made.
    fn laid(folder: &Path) -> Option<Spare> {
        let open = File::open(folder).ok()?;
        let file = draft::spare(&folder.join(SPARE)).ok().flatten()?;
        Some(Spare { folder: folder.to_owned(), open, file })
    }

    /// Makes it the record of this name. Fails, too, where it was removed, or its folder was.
    fn become_record(&mut self, name: &OsStr, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        Ok(renameat(&self.open, SPARE, &self.open, name)?)
    }
}

/// Where a record was written last.
#[derive(Debug)]
struct Written {
    path: PathBuf,
    /// If it was into the draft: that, which has this name now, and what it says. Nobody waits for its being closed.
    known: Option<(Spare, Attachment)>,
}

impl LastRecords {
    /// Writes a record into the draft that lies ready, and gives it its name: to make a file as well takes three times as long. Says whether
    /// that was done. Where not, there is none in this folder, another call has it, or it was lost.
    pub(super) fn write(&self, path: &Path, bytes: &[u8], attachment: &Attachment) -> bool {
        let mut next = match self.next.try_lock() {
            Ok(next) => next,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return false,
        };
        let spare = next.spare.take_if(|spare| path.parent() == Some(&spare.folder));
        let written = spare.zip(path.file_name()).and_then(|(mut spare, name)| {
            spare.become_record(name, bytes).ok()?;
            Some((spare, attachment.clone()))
        });
        let done = written.is_some();
        next.written = Some(Written { path: path.to_owned(), known: written });
        done
    }

    /// After a call, when nobody waits: what was written is remembered, and a draft lies ready for the next one, on the network of this one.
    ///
    /// Times younger than two seconds are believed here, other than of files that were read: what is in this one we wrote ourselves, its times
    /// are those of its name, and whatever replaces it is another file.
    pub fn tidy(&self) {
        let mut next = self.next();
        let Some(Written { path, known }) = next.written.take() else { return };
        if let Some((spare, attachment)) = known
            && let Ok(stamp) = Stamp::of_open(&spare.file)
        {
            self.known().insert(path.clone(), (stamp, attachment));
        }
        let Some(folder) = path.parent() else { return };
        if let Some(elsewhere) = next.spare.take_if(|spare| spare.folder != folder) {
            let _ = fs::remove_file(elsewhere.folder.join(SPARE)); // it is nobody's, and empty
        }
        if next.spare.is_none() {
            // Who finds none makes one.
            next.spare = Spare::laid(folder);
        }
    }

    fn next(&self) -> MutexGuard<'_, Next> {
        self.next.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<PathBuf, (Stamp, Attachment)>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The record at this path, if this process knows what is in the file that is there now.
    pub(super) fn known_at(&self, path: &Path) -> Option<Attachment> {
        let stamp = Stamp::of(path).ok()?;
        let known = self.known();
        let kept =
            known.get(path).filter(|(seen, _)| *seen == stamp).map(|(_, attachment)| attachment.clone());
        drop(known);
        kept.or_else(|| self.just_written(path, stamp))
    }

    /// A record that nobody had the time to remember yet. Who writes the next one just now is not waited for.
    fn just_written(&self, path: &Path, stamp: Stamp) -> Option<Attachment> {
        let next = self.next.try_lock().ok()?;
        let written = next.written.as_ref().filter(|written| written.path == path)?;
        let (spare, attachment) = written.known.as_ref()?;
        (Stamp::of_open(&spare.file).ok()? == stamp).then(|| attachment.clone())
    }

    /// The record at this path, which is added to `files` if it is kept.
    pub(super) fn of(
        &self,
        path: PathBuf,
        files: &mut BTreeSet<PathBuf>,
        read: impl FnOnce() -> Read,
    ) -> Read {
        let stamp = Stamp::of(&path).ok();
        let mut known = self.known();
        if let Some((seen, attachment)) = known.get(&path)
            && Some(*seen) == stamp
        {
            files.insert(path);
            return Ok(Some(attachment.clone()));
        }
        known.remove(&path);
        let found = read()?;
        if let (Some(attachment), Some(stamp)) = (&found, stamp.filter(|stamp| stamp.is_settled())) {
            known.insert(path.clone(), (stamp, attachment.clone()));
            files.insert(path);
        }
        Ok(found)
    }

    /// How many are kept.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.known().len()
    }

    /// Forgets all but these, which are all that there are.
    pub(super) fn forget_others(&self, files: &BTreeSet<PathBuf>) {
        self.known().retain(|path, _| files.contains(path));
    }
}
