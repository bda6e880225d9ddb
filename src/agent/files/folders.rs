//! Which folders lie in a folder, without listing it again while nothing came to it or left it.
//!
//! In: a folder's path. Out: the folders in it, links to folders among them. Never: reads a file.
//!
//! The agent asks every second whether it still watches every folder, and a folder may hold ten thousand files: to list them
//! took a hundredth of a processor. A folder's own times tell of every name that came or went. What stands behind a name that
//! stayed (a link, a mount) is asked anew each time.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::is_draft;
use crate::store::Stamp;

/// What was listed, from one round of questions to the next.
#[derive(Default)]
pub(super) struct Folders {
    /// In this round.
    now: HashMap<PathBuf, Listing>,
    /// In the round before; what is not asked for again is forgotten.
    before: HashMap<PathBuf, Listing>,
}

/// One folder as it was listed.
#[derive(Clone)]
struct Listing {
    stamp: Stamp,
    /// Entries that are no plain files: folders, and links that may lead to one.
    inner: Vec<PathBuf>,
}

impl Folders {
    /// A new round begins.
    pub(super) fn begin(&mut self) {
        self.before = std::mem::take(&mut self.now);
    }

    /// The folders in a folder. One that cannot be listed has none.
    pub(super) fn of(&mut self, path: &Path) -> Vec<PathBuf> {
        let Ok(stamp) = Stamp::of(path) else { return Vec::new() };
        let listing = match self.before.remove(path).filter(|known| known.stamp == stamp) {
            Some(known) => known,
            None => match list(path) {
                Ok(inner) => Listing { stamp, inner },
                Err(_) => return Vec::new(),
            },
        };
        let folders = listing.inner.iter().filter(|inner| inner.is_dir()).cloned().collect();
        if stamp.is_settled() {
            self.now.insert(path.to_owned(), listing);
        }
        folders
    }
}

/// By what the listing says: ten thousand files are not asked one by one.
fn list(path: &Path) -> io::Result<Vec<PathBuf>> {
    let mut folders = Vec::new();
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let plain = entry.file_type().is_ok_and(|kind| kind.is_file());
        if !plain && !is_draft(Some(&entry.file_name())) {
            folders.push(entry.path());
        }
    }
    Ok(folders)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::dir::tests::scratch;
    use crate::store::looks::tests::settle;

    /// What lies in a folder in a new round.
    fn asked(folders: &mut Folders, path: &Path) -> Vec<String> {
        folders.begin();
        let mut names: Vec<String> =
            folders.of(path).iter().map(|f| f.file_name().unwrap().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_folder_that_rests_is_not_listed_again_and_one_that_changes_is() {
        let (root, _clean) = scratch();
        let mut folders = Folders::default();
        fs::create_dir(root.join("a")).unwrap();
        fs::write(root.join("pod.yaml"), "").unwrap();
        std::os::unix::fs::symlink(root.join("nowhere"), root.join("link")).unwrap();
        assert_eq!(asked(&mut folders, &root), ["a"]);
        settle(&root);
        asked(&mut folders, &root);
        folders.now.get_mut(&root).unwrap().inner.push(root.join("a/../a"));
        assert_eq!(asked(&mut folders, &root), ["a", "a"], "it was listed, though nothing changed");
        fs::create_dir(root.join("b")).unwrap();
        assert_eq!(asked(&mut folders, &root), ["a", "b"]);
        fs::remove_dir(root.join("a")).unwrap();
        assert_eq!(asked(&mut folders, &root), ["b"]);
    }

    #[test]
    fn a_link_that_begins_to_lead_to_a_folder_is_seen_though_no_name_changed() {
        let (root, _clean) = scratch();
        let (objects, elsewhere) = (root.join("objects"), root.join("elsewhere"));
        fs::create_dir(&objects).unwrap();
        std::os::unix::fs::symlink(&elsewhere, objects.join("link")).unwrap();
        let mut folders = Folders::default();
        settle(&objects);
        asked(&mut folders, &objects);
        assert!(asked(&mut folders, &objects).is_empty());
        fs::create_dir(&elsewhere).unwrap();
        assert_eq!(asked(&mut folders, &objects), ["link"]);
    }
}
