//! A lock between processes: `flock` on a file whose content says who holds it.
//!
//! In: path, who asks, how long to wait. Out: a [`Guard`], or an error that names the holder.
//! Never: waits longer than asked; never leaves a lock behind (the kernel drops it when a process dies).

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::advice;

/// Who holds a lock, as written into the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldBy {
    /// Process.
    pub pid: u32,
    /// Verb and object: `ADD of pod shop/cart-7`.
    pub who: String,
    /// Since when, in Unix milliseconds.
    pub since: u64,
}

/// Why a lock was not had.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Somebody else held it all the time.
    #[error("{}", busy(path, *waited, holder.as_ref()))]
    Busy {
        /// The lock's file.
        path: PathBuf,
        /// How long was waited.
        waited: Duration,
        /// Who held it at the end, if the file says so.
        holder: Option<HeldBy>,
    },
    /// The file cannot be opened or locked.
    #[error("cannot lock {}: {source}{}", path.display(), advice(source))]
    Io {
        /// The lock's file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

impl LockError {
    /// Who holds it, as a remark: ` (process 812)`; empty if nobody has said so.
    pub fn process(&self) -> String {
        match self {
            LockError::Busy { holder: Some(holder), .. } => format!(" (process {})", holder.pid),
            _ => String::new(),
        }
    }
}

fn busy(path: &Path, waited: Duration, holder: Option<&HeldBy>) -> String {
    let who = match holder {
        Some(h) => {
            let held = now_millis().saturating_sub(h.since);
            format!("{} (process {}), for {}.{} s now", h.who, h.pid, held / 1000, held % 1000 / 100)
        }
        None => "a process that has not said who it is".to_owned(),
    };
    format!("{} is held by {who}; gave up after {} ms. Try again", path.display(), waited.as_millis())
}

/// The lock, held until this value is dropped. Writers of records ask for it as proof.
#[derive(Debug)]
pub struct Guard {
    file: File,
    /// Folders with records that were replaced or removed and are not on disk yet; `None`: nothing waits.
    folders: Mutex<Option<BTreeSet<PathBuf>>>,
}

impl Guard {
    /// From here on, records that are written or removed under this guard are on disk when [`Guard::settle`] has returned: each folder
    /// is waited for once, and a file system with one journal writes it once for all of them. The files themselves are on disk before they
    /// are put into their places, as ever.
    pub fn gather(&self) {
        self.folders().get_or_insert_default();
    }

    /// Waits for what was gathered. Nothing of it may be told before.
    ///
    /// # Errors
    /// A folder cannot be written to disk.
    pub fn settle(&self) -> io::Result<()> {
        let folders = self.folders().take().unwrap_or_default();
        folders.iter().try_for_each(|folder| File::open(folder)?.sync_all())
    }

    /// Whether [`Guard::settle`] will see to a folder.
    pub(super) fn sees_to(&self, folder: &Path) -> bool {
        self.folders().as_mut().map(|folders| folders.insert(folder.to_owned())).is_some()
    }

    fn folders(&self) -> MutexGuard<'_, Option<BTreeSet<PathBuf>>> {
        self.folders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Device and inode of the file that is locked, which may have been deleted since.
    pub fn identity(&self) -> Option<(u64, u64)> {
        self.file.metadata().ok().map(|found| (found.dev(), found.ino()))
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        // Who failed on the way tells nobody of success; what it wrote is on disk all the same, as far as it can be.
        let _ = self.settle();
        // Emptied first: the next one to wait in vain must not read our name. Closing the file then unlocks it. A file that
        // was opened for reading alone stays as it is, and nobody's name is in it.
        let _ = self.file.set_len(0);
    }
}

/// Takes the lock as [`lock`] does, and writes nothing: for those who only look, and must not see half of what a writer does.
/// `None`: there is no file, so nobody ever wrote. Who waits for us cannot read who we are.
///
/// # Errors
/// As [`lock`].
pub fn wait_for_writers(path: &Path, timeout: Duration) -> Result<Option<Guard>, LockError> {
    if !path.exists() {
        return Ok(None);
    }
    wait(path, timeout, || looking().open(path), |_| {}).map(Some)
}

/// Takes the lock at `path`, waiting at most `timeout`. The file is made if it is missing; its folder must exist.
///
/// Waiting is polling: `flock` cannot wait with a deadline but by signals, which belong to the process and not to a
/// library. Fifty waiters asking every 0.1 to 2 ms, out of step with each other, cost little and none of them starves.
///
/// # Errors
/// [`LockError::Busy`] names the holder.
pub fn lock(path: &Path, who: &str, timeout: Duration) -> Result<Guard, LockError> {
    wait(path, timeout, || open(path), |file| drop(say(file, who)))
}

/// Whether somebody holds the lock at `path`, found without taking it even for a moment: who starts just now must not find it
/// taken. `/proc/locks` names files by device and inode.
pub fn is_held(path: &Path) -> bool {
    let (Ok(file), Ok(locks)) = (std::fs::metadata(path), std::fs::read_to_string("/proc/locks")) else {
        return false;
    };
    let (major, minor) = (nix::sys::stat::major(file.dev()), nix::sys::stat::minor(file.dev()));
    let file = format!("{major:02x}:{minor:02x}:{}", file.ino());
    locks.lines().any(|line| line.contains("FLOCK") && line.split_whitespace().any(|word| word == file))
}

fn wait(
    path: &Path,
    timeout: Duration,
    open: impl Fn() -> io::Result<File>,
    say: impl Fn(&mut File),
) -> Result<Guard, LockError> {
    let io = |source| LockError::Io { path: path.to_owned(), source };
    let begun = Instant::now();
    let mut pause = Duration::from_micros(100);
    let jitter = Duration::from_micros(u64::from(std::process::id() % 97) * 5);
    loop {
        let mut file = open().map_err(io)?;
        match file.try_lock() {
            // Somebody may have deleted the file between open and lock: then our lock is on a file that nobody else
            // can see, and another process may hold the lock on the new one.
            Ok(()) if is_still_at(&file, path) => {
                // Who cannot say who it is still holds it: on a full disk a pod's end must not fail by this.
                say(&mut file);
                return Ok(Guard { file, folders: Mutex::default() });
            }
            Ok(()) => continue,
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(source)) if source.kind() == io::ErrorKind::Interrupted => continue,
            Err(TryLockError::Error(source)) => return Err(io(source)),
        }
        let waited = begun.elapsed();
        let Some(left) = timeout.checked_sub(waited).filter(|left| !left.is_zero()) else {
            return Err(LockError::Busy { path: path.to_owned(), waited, holder: holder(&mut file) });
        };
        std::thread::sleep((pause + jitter).min(left));
        pause = (pause * 2).min(Duration::from_millis(2));
    }
}

fn open(path: &Path) -> io::Result<File> {
    looking().write(true).create(true).truncate(false).mode(0o644).open(path)
}

/// Not blocking, should a pipe be in its place.
fn looking() -> OpenOptions {
    let mut open = OpenOptions::new();
    open.read(true).custom_flags(libc::O_NONBLOCK);
    open
}

fn is_still_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), std::fs::metadata(path)) {
        (Ok(ours), Ok(there)) => (ours.dev(), ours.ino()) == (there.dev(), there.ino()),
        _ => false,
    }
}

fn say(file: &mut File, who: &str) -> io::Result<()> {
    let held = HeldBy { pid: std::process::id(), who: who.to_owned(), since: now_millis() };
    let mut text = serde_json::to_vec(&held)?;
    text.push(b'\n');
    file.set_len(0)?;
    file.seek(SeekFrom::Start(0))?;
    file.write_all(&text)
}

fn holder(file: &mut File) -> Option<HeldBy> {
    let mut text = String::new();
    file.seek(SeekFrom::Start(0)).ok()?;
    file.read_to_string(&mut text).ok()?;
    serde_json::from_str(&text).ok()
}

fn now_millis() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::dir::tests::scratch;

    #[test]
    fn who_waits_in_vain_learns_who_holds_it() {
        let (root, _clean) = scratch();
        let path = root.join("lock");
        let held = lock(&path, "ADD of pod shop/cart-7", Duration::ZERO).unwrap();
        assert!(is_held(&path));
        let error = lock(&path, "DEL", Duration::from_millis(30)).unwrap_err().to_string();
        assert!(error.contains("held by ADD of pod shop/cart-7 (process "), "{error}");
        drop(held);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "");
        // With patience: a child that another test is just starting holds every lock of this process until it executes.
        lock(&path, "DEL", Duration::from_secs(20)).unwrap();
    }

    #[test]
    fn a_lock_file_deleted_under_its_holder_gives_one_more_holder_only() {
        let (root, _clean) = scratch();
        let path = root.join("lock");
        let _old = lock(&path, "old", Duration::ZERO).unwrap();
        std::fs::remove_file(&path).unwrap();
        let _new = lock(&path, "new", Duration::ZERO).unwrap();
        assert!(matches!(lock(&path, "third", Duration::ZERO), Err(LockError::Busy { .. })));
    }

    #[test]
    fn fifty_at_once_all_get_their_turn_and_never_two_of_them() {
        let (root, _clean) = scratch();
        let path = root.join("lock");
        let inside = std::sync::atomic::AtomicU32::new(0);
        std::thread::scope(|scope| {
            for n in 0..50 {
                let (path, inside) = (&path, &inside);
                scope.spawn(move || {
                    let _held = lock(path, &format!("thread {n}"), Duration::from_secs(120)).unwrap();
                    let others = inside.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                    std::thread::sleep(Duration::from_micros(500));
                    inside.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
                    assert_eq!(others, 0);
                });
            }
        });
    }
}
