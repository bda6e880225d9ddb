//! What would be done to a node's folders, for who looks before anything is written.
//!
//! In: a place, our entry. Out: a refusal, or the changes to come. Never: writes.

use std::fs;

use serde_json::Value;

use super::list;
use super::place::{Change, InstallError, Place, WRAPPED, failed};

impl Place {
    /// Whether there is a list that our entry can stand in.
    ///
    /// # Errors
    /// There is none, it cannot be understood, or it cannot be read.
    pub fn has_room(&self, entry: &Value) -> Result<(), InstallError> {
        let path = self.primary()?;
        let text = fs::read(&path).map_err(failed("read", &path))?;
        list::with(&text, entry).map(drop).map_err(|why| InstallError::Unfit { path, why })
    }

    /// What [`Place::take_entries`] would change.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn entries_to_take(&self) -> Result<Vec<Change>, InstallError> {
        let mut changes = Vec::new();
        for path in self.lists()? {
            let is_ours = path.file_name().is_some_and(|name| name == WRAPPED);
            let text = fs::read(&path).map_err(failed("read", &path))?;
            if is_ours || matches!(list::without(&text), Ok(Some(_))) {
                changes.push(Change { file: path.display().to_string(), what: "removed" });
            }
        }
        Ok(changes)
    }

    /// What [`Place::take_binary`] would remove.
    pub fn binary_to_take(&self) -> Option<Change> {
        let path = self.binary();
        path.exists().then(|| Change { file: path.display().to_string(), what: "removed" })
    }
}
