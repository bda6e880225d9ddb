//! What would be done to a node's folders, for who looks before anything is written.
//!
//! In: a place, our entry. Out: a refusal, or the changes to come. Never: writes.

use std::path::PathBuf;

use serde_json::Value;

use super::list::{self, Shape};
use super::place::{Change, ENTRY_REMOVED, InstallError, Place, WRAPPED, failed};
use crate::store::read_whole;

/// What is to be written so that our entry stands where pods are started by it.
pub(super) enum Room {
    /// Nothing: this list has it.
    Taken(PathBuf),
    /// A list, which said `seen` when it was looked at.
    In {
        /// The file.
        path: PathBuf,
        /// What it says.
        seen: Vec<u8>,
        /// What it is to say.
        next: String,
    },
    /// A list of ours that says this, around a plugin that stands alone.
    Around(String),
}

impl Place {
    /// Whether there is a list that our entry can stand in.
    ///
    /// # Errors
    /// There is none, it cannot be understood, it cannot be read, or nothing can stand behind it.
    pub fn has_room(&self, entry: &Value) -> Result<(), InstallError> {
        self.room(entry).map(drop)
    }

    /// Where our entry goes. Who looks and who writes ask this, so that neither refuses what the other takes.
    pub(super) fn room(&self, entry: &Value) -> Result<Room, InstallError> {
        let path = self.primary()?;
        let seen = read_whole(&path).map_err(failed("read", &path))?;
        let unfit = |why| InstallError::Unfit { path: path.clone(), why };
        let Some(next) = list::with(&seen, entry).map_err(unfit)? else { return Ok(Room::Taken(path)) };
        if list::shape(&seen).map_err(unfit)? == Shape::List {
            return Ok(Room::In { path, seen, next });
        }
        match self.first_is_multus()? {
            Some(multus) => Err(InstallError::Alone { path, multus }),
            None => Ok(Room::Around(next)),
        }
    }

    /// Our entry as it stands: in the first list that has one.
    pub fn entry(&self) -> Option<Value> {
        let texts = self.lists().ok()?.into_iter().filter_map(|path| read_whole(&path).ok());
        texts.filter_map(|text| list::entry(&text)).next()
    }

    /// What [`Place::take_entries`] would change.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn entries_to_take(&self, changes: &mut Vec<Change>) -> Result<(), InstallError> {
        for path in self.lists()? {
            let file = path.display().to_string();
            let text = read_whole(&path).map_err(failed("read", &path))?;
            if path.file_name().is_some_and(|name| name == WRAPPED) {
                changes.push(Change { file, what: "removed" });
            } else if matches!(list::without(&text), Ok(Some(_))) {
                changes.push(Change { file, what: ENTRY_REMOVED });
            }
        }
        Ok(())
    }

    /// What [`Place::take_binary`] would remove.
    pub fn binary_to_take(&self) -> Option<Change> {
        let path = self.binary();
        path.exists().then(|| Change { file: path.display().to_string(), what: "removed" })
    }
}
