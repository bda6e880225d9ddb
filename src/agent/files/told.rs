//! Which files of objects were told of since they were last looked at.
//!
//! In: what the kernel said of watched folders. Out: paths below `objects/`, if nothing but contents may have changed. Pure.

use std::collections::BTreeSet;
use std::path::PathBuf;

/// What was told of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    files: BTreeSet<PathBuf>,
    anything: bool,
}

impl Default for Told {
    /// Nobody has looked yet.
    fn default() -> Told {
        Told { files: BTreeSet::new(), anything: true }
    }
}

impl Told {
    /// Of this file.
    pub(super) fn of(&mut self, file: PathBuf) {
        if !self.anything {
            self.files.insert(file);
        }
    }

    /// Anything may have happened, so that all must be looked at.
    pub fn of_anything(&mut self) {
        *self = Told::default();
    }

    /// Whether all must be looked at.
    pub fn is_anything(&self) -> bool {
        self.anything
    }

    /// What to look at now, so that from here on it is told anew; `None`: at everything. Who fails at looking tells of anything.
    pub fn take(&mut self) -> Option<BTreeSet<PathBuf>> {
        let files = std::mem::take(&mut self.files);
        let all = std::mem::replace(&mut self.anything, false);
        (!all).then_some(files)
    }
}
