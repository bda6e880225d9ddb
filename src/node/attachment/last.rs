//! Records of attachments as this process last read them, so that who lives on does not decode those of all pods at every change.
//!
//! In: a record's path, how its file looks, and how it is read. Out: the record. Never: believed of another file: a record is never
//! written twice, only replaced, and what somebody edited looks otherwise and is read.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use super::Attachment;
use crate::problem::Problem;
use crate::store::Stamp;

type Read = Result<Option<Attachment>, Box<Problem>>;

/// What files held that looked so.
#[derive(Debug, Default)]
pub struct LastRecords(Mutex<BTreeMap<PathBuf, (Stamp, Attachment)>>);

impl LastRecords {
    /// The record at this path, which is added to `files` if it is kept.
    pub(super) fn of(
        &self,
        path: PathBuf,
        files: &mut BTreeSet<PathBuf>,
        read: impl FnOnce() -> Read,
    ) -> Read {
        let stamp = Stamp::of(&path).ok();
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
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
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Forgets all but these, which are all that there are.
    pub(super) fn forget_others(&self, files: &BTreeSet<PathBuf>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|path, _| files.contains(path));
    }
}
