//! The state directory: where everything lies.
//!
//! In: a path. Out: paths of its parts, its lock. Never: what is in the files.

use std::ffi::{CStr, CString};
use std::fs::{self, DirBuilder, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::fcntl::AtFlags;
use nix::sys::stat::fstatat;

use super::lock::{Guard, LockError, lock};
use super::looks::Stamp;
use super::record;

/// A state directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dir {
    root: PathBuf,
}

/// Why a state directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DirError {
    /// A part cannot be made.
    #[error("cannot make {}: {source}. Is `stateDir` right, and writable for root?", path.display())]
    Make {
        /// The folder.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// A part is there and cannot be used.
    #[error("cannot read {}: {source}", path.display())]
    Unusable {
        /// The folder.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// It does not exist.
    #[error("there is no state directory {}. Name it with --state, or run the plugin once", path.display())]
    Missing {
        /// Where it was looked for.
        path: PathBuf,
    },
}

const PARTS: [&str; 5] = ["objects", "ipam", "endpoints", "nodes", "cache"];

impl Dir {
    /// Opens a state directory for writing; what is missing of its skeleton is made.
    ///
    /// # Errors
    /// If a folder cannot be made.
    pub fn open(root: impl Into<PathBuf>) -> Result<Dir, DirError> {
        let dir = Dir { root: root.into() };
        for part in PARTS {
            make_folder(&dir.root.join(part))?;
        }
        Ok(dir)
    }

    /// A state directory that is only read: nothing is made.
    ///
    /// # Errors
    /// If it does not exist.
    pub fn at(root: impl Into<PathBuf>) -> Result<Dir, DirError> {
        let root = root.into();
        if root.is_dir() { Ok(Dir { root }) } else { Err(DirError::Missing { path: root }) }
    }

    /// A state directory by its path alone, whether it is there or not.
    pub fn by_path(root: impl Into<PathBuf>) -> Dir {
        Dir { root: root.into() }
    }

    /// The directory itself.
    pub fn path(&self) -> &Path {
        &self.root
    }

    /// The user's objects.
    pub fn objects(&self) -> PathBuf {
        self.root.join("objects")
    }

    /// Blocks, one folder per pool.
    pub fn ipam(&self) -> PathBuf {
        self.root.join("ipam")
    }

    /// Endpoints.
    pub fn endpoints(&self) -> PathBuf {
        self.root.join("endpoints")
    }

    /// Node records.
    pub fn nodes(&self) -> PathBuf {
        self.root.join("nodes")
    }

    /// What nodes say of their interfaces.
    pub fn interfaces(&self) -> PathBuf {
        self.root.join("interfaces")
    }

    /// What can be made again from the rest.
    pub fn cache(&self) -> PathBuf {
        self.root.join("cache")
    }

    /// Takes the directory's lock: nobody else writes records until the guard is dropped.
    ///
    /// `who` is verb and object, for those who wait: `ADD of pod shop/cart-7`.
    ///
    /// # Errors
    /// [`LockError::Busy`] after `timeout`, naming the holder.
    pub fn lock(&self, who: &str, timeout: Duration) -> Result<Guard, LockError> {
        lock(&self.root.join("lock"), who, timeout)
    }

    /// Removes temporary files that dead writers left. All writers hold the lock, so under it none of them is in use.
    pub fn sweep(&self, _guard: &Guard) -> io::Result<usize> {
        let mut swept = record::sweep(&self.endpoints())? + record::sweep(&self.nodes())?;
        for entry in fs::read_dir(self.ipam())?.flatten() {
            if entry.path().is_dir() {
                swept += record::sweep(&entry.path())?;
            }
        }
        Ok(swept)
    }
}

/// Makes a folder and its parents; readable for all, writable for the owner, whatever the caller's umask adds to that.
pub(crate) fn make_folder(path: &Path) -> Result<(), DirError> {
    if path.is_dir() {
        return Ok(());
    }
    let made = DirBuilder::new().recursive(true).mode(0o755).create(path);
    made.map_err(|source| DirError::Make { path: path.to_owned(), source })
}

/// A number for how a folder's files look: by name, inode, size and time, so that any that came, went or was replaced changes it.
/// Nothing is opened. A folder that cannot be listed looks like an empty one.
pub fn looks(folder: &Path) -> u64 {
    let mut hash = DefaultHasher::new();
    let flags = libc::O_DIRECTORY | libc::O_CLOEXEC;
    let folder = fs::OpenOptions::new().read(true).custom_flags(flags).open(folder);
    let look = |folder: &File| {
        let look = |name: CString| {
            let file = fstatat(folder, name.as_c_str(), AtFlags::AT_SYMLINK_NOFOLLOW).ok()?;
            // By inode, because that is a number; names of endpoints begin alike.
            Some((file.st_ino, name, file.st_size, file.st_mtime, file.st_mtime_nsec))
        };
        names(folder).into_iter().filter_map(look).collect()
    };
    let mut files: Vec<_> = folder.as_ref().map_or_else(|_| Vec::new(), look);
    files.sort_unstable();
    files.hash(&mut hash);
    hash.finish()
}

/// The same of a folder whose files are replaced whole and never written in place: then its own times tell of all of them, and none is
/// asked, once they are old enough to tell. Until then it is [`looks`], which is another value: who compares finds one change too many,
/// never one too few.
pub fn looks_whole(folder: &Path) -> u64 {
    let Some(stamp) = Stamp::of(folder).ok().filter(|stamp| stamp.is_settled()) else { return looks(folder) };
    let mut hash = DefaultHasher::new();
    stamp.hash(&mut hash);
    hash.finish()
}

/// The names in an open folder. The library's own listing takes its buffer from the C library's memory, which a short call never
/// touches otherwise: five system calls and as many fresh pages.
fn names(folder: &File) -> Vec<CString> {
    // struct linux_dirent64 of linux/dirent.h: inode, offset, the entry's length, type, name.
    const LENGTH: Range<usize> = 16..18;
    const NAME: usize = 19;
    let (mut names, mut buffer) = (Vec::new(), [0u8; 4096]);
    loop {
        // SAFETY: the kernel writes into the buffer, and no more than it is told to hold.
        let read = unsafe {
            libc::syscall(libc::SYS_getdents64, folder.as_raw_fd(), buffer.as_mut_ptr(), buffer.len())
        };
        let mut entries = usize::try_from(read).ok().and_then(|read| buffer.get(..read)).unwrap_or_default();
        if entries.is_empty() {
            return names;
        }
        while let Some(&[low, high]) = entries.get(LENGTH)
            && let Some((entry, rest)) = entries.split_at_checked(u16::from_ne_bytes([low, high]).into())
            && let Some(Ok(name)) = entry.get(NAME..).map(CStr::from_bytes_until_nul)
        {
            entries = rest;
            if name != c"." && name != c".." {
                names.push(name.to_owned());
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A folder of this test alone, gone when the second value is dropped.
    pub(crate) fn scratch() -> (PathBuf, Clean) {
        use std::sync::atomic::{AtomicU32, Ordering};
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("egret-unit-{}-{n}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        (path.clone(), Clean(path))
    }

    pub(crate) struct Clean(PathBuf);

    impl Drop for Clean {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_folder_that_is_old_enough_is_known_by_its_own_times_and_a_young_one_by_its_files() {
        let (root, _clean) = scratch();
        let put = |name: &str| {
            fs::write(root.join(".new"), name).unwrap();
            fs::rename(root.join(".new"), root.join(name)).unwrap();
        };
        put("one");
        assert_eq!(looks_whole(&root), looks(&root), "young");
        let old = || within(Duration::from_secs(20), || looks_whole(&root) != looks(&root));
        old();
        let settled = looks_whole(&root);
        assert_eq!(looks_whole(&root), settled);
        put("two");
        assert_ne!(looks_whole(&root), settled, "came");
        old();
        let settled = looks_whole(&root);
        put("one");
        assert_ne!(looks_whole(&root), settled, "was replaced");
        assert_eq!(looks_whole(&root.join("nowhere")), looks(&root.join("nowhere")));
    }

    fn within(patience: Duration, so: impl Fn() -> bool) {
        let end = std::time::Instant::now() + patience;
        while !so() {
            assert!(std::time::Instant::now() < end, "never");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    #[test]
    fn a_folder_looks_otherwise_when_a_file_came_went_was_replaced_or_written_in_place() {
        let (root, _clean) = scratch();
        let file = |n: usize| {
            root.join(format!("a-name-long-enough-that-one-read-does-not-list-all-of-them-{n:03}"))
        };
        (0..200).for_each(|n| fs::write(file(n), "1").unwrap());
        assert_eq!(names(&File::open(&root).unwrap()).len(), 200);
        let (before, looked) = (looks(&root), looks(&root));
        assert_eq!(before, looked);
        let mut seen = std::collections::BTreeSet::from([before, looks(&root.join("nowhere"))]);
        fs::write(file(200), "1").unwrap();
        assert!(seen.insert(looks(&root)), "came");
        fs::remove_file(file(3)).unwrap();
        assert!(seen.insert(looks(&root)), "went");
        fs::write(root.join(".new"), "1").unwrap();
        fs::rename(root.join(".new"), file(199)).unwrap();
        assert!(seen.insert(looks(&root)), "was replaced");
        fs::write(file(198), "12").unwrap();
        assert!(seen.insert(looks(&root)), "was written in place");
    }

    #[test]
    fn opening_makes_the_skeleton_and_looking_makes_nothing() {
        let (root, _clean) = scratch();
        let state = root.join("a/b");
        assert!(Dir::at(&state).unwrap_err().to_string().contains("a/b"));
        assert!(!state.exists());
        let dir = Dir::open(&state).unwrap();
        assert!(PARTS.iter().all(|part| dir.path().join(part).is_dir()));
        assert_eq!(Dir::at(&state).unwrap(), dir);
    }
}
