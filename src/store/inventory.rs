//! What one process wrote into a folder where nobody else writes, and whether it still lies there.
//!
//! In: texts, with the names of their files. Out: the files; which of them are not as they were written, and how often that was
//! found. Never: reads a file but to see that it need not be written, or writes again what it does not find: who wrote it knows what
//! it says now.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::looks::Stamp;
use super::record::replace_text;
use super::whole::read_whole;

/// The files of a folder.
#[derive(Debug)]
pub struct Inventory {
    folder: PathBuf,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    /// By name, how each looked when it was written; `None`: what is there is something else.
    files: BTreeMap<String, Option<Stamp>>,
    /// The folder itself, after the last of them.
    folder: Option<Stamp>,
    losses: u64,
}

impl Inventory {
    /// Of this folder, and nothing in it yet.
    pub fn of(folder: PathBuf) -> Inventory {
        Inventory { folder, seen: Mutex::default() }
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The names of all files that belong there.
    pub fn names(&self) -> Vec<String> {
        self.seen().files.keys().cloned().collect()
    }

    /// A file that an earlier process wrote: what it looked like before it was read, or `None` if it should be there and is not.
    pub fn inherit(&self, name: &str, stamp: Option<Stamp>) {
        self.seen().files.insert(name.to_owned(), stamp);
    }

    /// Writes a file, if it says something else. Says whether it was written.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn put(&self, name: &str, text: &[u8]) -> io::Result<bool> {
        let path = self.folder.join(name);
        // Kept until the new file is known: who looks meanwhile would find a stranger.
        let mut seen = self.seen();
        let before = Stamp::of(&path).ok();
        let is_there = before.is_some() && read_whole(&path).is_ok_and(|written| written == text);
        let stamp = match is_there {
            true => before,
            false => {
                // What somebody did before is not to look like our own doing.
                let ours = Stamp::of(&self.folder).ok() == seen.folder;
                replace_text(&path, text)?;
                seen.folder = Stamp::of(&self.folder).ok().filter(|_| ours);
                Some(Stamp::of(&path)?)
            }
        };
        seen.files.insert(name.to_owned(), stamp);
        Ok(!is_there)
    }

    /// By one look at the folder: no file in it came, went or was replaced. One that is written in place is not seen so.
    pub fn glance(&self) -> bool {
        let seen = self.seen();
        seen.is_whole() && seen.folder.is_some() && Stamp::of(&self.folder).ok() == seen.folder
    }

    /// Whether every file is there as it was written; each that is not counts as lost until it is written again.
    pub fn check(&self) -> bool {
        let mut seen = self.seen();
        let before = Stamp::of(&self.folder).ok();
        let mut lost = Vec::new();
        for (name, written) in &mut seen.files {
            if written.is_some() && Stamp::of(&self.folder.join(name)).ok() != *written {
                *written = None;
                lost.push(name.clone());
            }
        }
        if !lost.is_empty() {
            seen.losses += 1;
            let (folder, files) = (self.folder.display(), lost.join(", "));
            tracing::warn!(%folder, files, "somebody removed or changed what this process wrote; it is written again");
        }
        let whole = seen.is_whole();
        seen.folder = before.filter(|_| whole);
        whole
    }

    /// How often something was found lost.
    pub fn losses(&self) -> u64 {
        self.seen().losses
    }

    /// A file that is lost.
    pub fn lost(&self) -> Option<PathBuf> {
        let seen = self.seen();
        let lost = seen.files.iter().find(|(_, written)| written.is_none());
        lost.map(|(name, _)| self.folder.join(name))
    }

    /// Whether whoever has read the files since that many losses were counted has read what was written.
    pub fn held_since(&self, losses: u64) -> bool {
        self.check() && self.losses() == losses
    }
}

impl Seen {
    fn is_whole(&self) -> bool {
        self.files.values().all(Option::is_some)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::store::dir::tests::scratch;

    #[test]
    fn a_file_that_somebody_removes_replaces_or_cuts_short_is_lost_until_it_is_written_again() {
        let (root, _clean) = scratch();
        let inventory = Inventory::of(root.clone());
        let write = || ["a", "b"].map(|name| inventory.put(name, b"text").unwrap());
        assert_eq!((write(), inventory.check(), inventory.glance()), ([true; 2], true, true));
        assert_eq!((write(), inventory.losses()), ([false; 2], 0), "what is there is not written again");
        let path = root.join("b");
        let deeds: [(&str, &dyn Fn()); 4] = [
            ("removed", &|| fs::remove_file(&path).unwrap()),
            ("replaced", &|| {
                fs::write(root.join("c"), "text").unwrap();
                fs::rename(root.join("c"), &path).unwrap();
            }),
            ("cut short", &|| fs::write(&path, "").unwrap()),
            ("gone with its folder", &|| {
                fs::remove_dir_all(&root).unwrap();
                fs::create_dir(&root).unwrap();
            }),
        ];
        for (n, (what, deed)) in (1..).zip(deeds) {
            let began = inventory.losses();
            assert!(inventory.held_since(began), "{what}");
            deed();
            assert!(!inventory.held_since(began) && !inventory.glance(), "{what}");
            let lost = inventory.lost().unwrap();
            assert!(lost == path || lost == root.join("a"), "{what}: {}", lost.display());
            write();
            assert!(inventory.check() && inventory.glance() && inventory.lost().is_none(), "{what}");
            assert!(!inventory.held_since(began), "{what}: who read meanwhile has read less");
            assert_eq!(inventory.losses(), n, "{what}");
        }
    }

    #[test]
    fn what_an_earlier_process_left_counts_and_what_it_lacks_is_lost() {
        let (root, _clean) = scratch();
        fs::write(root.join("a"), "text").unwrap();
        let inventory = Inventory::of(root.clone());
        inventory.inherit("a", Stamp::of(&root.join("a")).ok());
        assert!(!inventory.glance(), "nobody has looked at the folder");
        assert!(inventory.check() && inventory.glance());
        inventory.inherit("b", None);
        assert_eq!((inventory.check(), inventory.lost()), (false, Some(root.join("b"))));
        inventory.put("b", b"text").unwrap();
        assert!(inventory.check());
        assert_eq!(inventory.names(), ["a", "b"]);
    }
}
