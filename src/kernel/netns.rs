//! A network namespace: found, recognised again, and worked in.
//!
//! In: a path, or the namespace this thread is in. Out: an owned descriptor with an identity that survives renames.
//! Never: creates or mounts one. Never starts a thread: to be in a namespace is a property of a thread, so [`Netns::run`] moves
//! the calling one and brings it back.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{fmt, io};

use nix::sched::{CloneFlags, setns};
use nix::sys::statfs::{FsType, fstatfs};

use super::home;

/// The calling thread's namespace. `/proc/self/ns/net` would be the *main* thread's.
const CURRENT: &str = "/proc/thread-self/ns/net";
/// `SIOCGSKNS` of `linux/sockios.h` (4.10): a descriptor of the namespace that a socket was made in.
const SIOCGSKNS: libc::Ioctl = 0x894c;
/// `NSFS_MAGIC` of `linux/magic.h`: the file system every namespace descriptor lives on.
const NSFS_MAGIC: FsType = FsType(0x6e73_6673);
/// `NS_GET_NSTYPE` of `linux/nsfs.h` (4.11): which kind of namespace a descriptor is.
const NS_GET_NSTYPE: libc::Ioctl = 0xb703;

/// Why a path is no usable network namespace.
#[derive(Debug, thiserror::Error)]
pub enum NetnsError {
    /// Nothing is there. For a CNI DEL this is the normal end of a pod.
    #[error("network namespace {} is not there: {error}", path.display())]
    Missing {
        /// The path that was opened.
        path: PathBuf,
        /// The system's answer.
        error: io::Error,
    },
    /// Something is there, but no network namespace: typically the mount point that is left after a reboot.
    #[error("{} is not a network namespace; is it still mounted? (`findmnt {}`)", path.display(), path.display())]
    NotANetns {
        /// The path that was opened.
        path: PathBuf,
    },
    /// It could not be opened or asked for another reason.
    #[error("cannot open network namespace {}: {error}", path.display())]
    Io {
        /// The path that was opened.
        path: PathBuf,
        /// The system's answer.
        error: io::Error,
    },
}

/// A network namespace held open: it lives at least as long as this value.
pub struct Netns {
    file: Arc<File>,
    path: PathBuf,
    id: (u64, u64),
}

impl Netns {
    /// Opens the namespace behind a path such as `/run/netns/pod` or `/proc/PID/ns/net`.
    pub fn open(path: impl AsRef<Path>) -> Result<Netns, NetnsError> {
        let path = path.as_ref();
        Netns::of(File::open(path), path)
    }

    /// The namespace the calling thread is in.
    pub fn current() -> Result<Netns, NetnsError> {
        let path = PathBuf::from(CURRENT);
        if let Some((file, id)) = home::here() {
            return Ok(Netns { file, path, id });
        }
        let found = current().and_then(|file| Ok((identity(&file)?, file)));
        match found {
            Ok((id, file)) => Ok(Netns { id, file: Arc::new(file), path }),
            Err(error) => Err(NetnsError::Io { path, error }),
        }
    }

    pub(super) fn into_parts(self) -> (Arc<File>, (u64, u64)) {
        (self.file, self.id)
    }

    fn of(opened: io::Result<File>, path: &Path) -> Result<Netns, NetnsError> {
        let path = path.to_owned();
        let file = match opened {
            Ok(file) => file,
            Err(error) if [io::ErrorKind::NotFound, io::ErrorKind::NotADirectory].contains(&error.kind()) => {
                return Err(NetnsError::Missing { path, error });
            }
            Err(error) => return Err(NetnsError::Io { path, error }),
        };
        if !is_netns(&file) {
            return Err(NetnsError::NotANetns { path });
        }
        match identity(&file) {
            Ok(id) => Ok(Netns { id, file: Arc::new(file), path }),
            Err(error) => Err(NetnsError::Io { path, error }),
        }
    }

    /// Device and inode: equal exactly while both name the same living namespace. An inode is used again after its
    /// namespace is gone, so an id on disk proves nothing beside an open one.
    pub fn id(&self) -> (u64, u64) {
        self.id
    }

    /// The path it was opened by.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn is(&self, other: &File) -> bool {
        identity(other).is_ok_and(|id| id == self.id)
    }

    /// Runs `work` on this thread with the thread inside the namespace, then comes back.
    ///
    /// A socket opened inside keeps the namespace, so most callers only open one there. Does not move when the thread is
    /// there already. Errors are those of entering (`EPERM` without `CAP_SYS_ADMIN`). A thread that cannot come back would
    /// do the host's work in a pod from then on, so that aborts the process.
    pub fn run<T>(&self, work: impl FnOnce() -> T) -> io::Result<T> {
        let (home, is_known) = match home::here() {
            Some((_, id)) if id == self.id => return Ok(work()),
            Some((home, _)) => (home, true),
            None => (Arc::new(current()?), false),
        };
        if !is_known && self.is(&home) {
            return Ok(work());
        }
        setns(self.as_fd(), CloneFlags::CLONE_NEWNET)?;
        if is_known {
            home::away(true);
        }
        let _back = Back { home, is_known };
        Ok(work())
    }

    /// Makes a socket inside. The thread mostly still is where a namespace was its own when it was opened, and then the socket itself
    /// says so: to ask another one first took as long as to make it.
    ///
    /// # Errors
    /// As [`Netns::run`], and those of making it.
    pub fn socket<S: AsRawFd>(&self, make: impl Fn() -> io::Result<S>) -> io::Result<S> {
        if self.path == Path::new(CURRENT) {
            let made = make()?;
            if of_socket(&made).is_ok_and(|namespace| self.is(&namespace)) {
                return Ok(made);
            }
        }
        self.run(make)?
    }
}

/// A descriptor of the calling thread's namespace. Asked of a socket: a path through `/proc` makes a dozen objects of that file
/// system for this process, which go again at its end (a fifth of the time); the path is for who may not ask.
fn current() -> io::Result<File> {
    of_socket(&UnixDatagram::unbound()?).or_else(|_| File::open(CURRENT))
}

/// A descriptor of the namespace that a socket was made in.
fn of_socket(socket: &impl AsRawFd) -> io::Result<File> {
    // SAFETY: the request takes no argument; what it returns is an open descriptor that nobody else has.
    unsafe {
        match libc::ioctl(socket.as_raw_fd(), SIOCGSKNS) {
            -1 => Err(io::Error::last_os_error()),
            descriptor => Ok(File::from_raw_fd(descriptor)),
        }
    }
}

fn identity(file: &File) -> io::Result<(u64, u64)> {
    file.metadata().map(|data| (data.dev(), data.ino()))
}

/// Brings the thread back when dropped, also while it unwinds.
struct Back {
    home: Arc<File>,
    /// Where it stays, by its own word.
    is_known: bool,
}

impl Drop for Back {
    fn drop(&mut self) {
        if setns(&*self.home, CloneFlags::CLONE_NEWNET).is_err() {
            std::process::abort();
        }
        if self.is_known {
            home::away(false);
        }
    }
}

fn is_netns(file: &File) -> bool {
    if fstatfs(file).map_or(true, |fs| fs.filesystem_type() != NSFS_MAGIC) {
        return false;
    }
    // SAFETY: NS_GET_NSTYPE takes no argument and only reads the open descriptor.
    unsafe { libc::ioctl(file.as_raw_fd(), NS_GET_NSTYPE) == libc::CLONE_NEWNET }
}

impl AsFd for Netns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl PartialEq for Netns {
    fn eq(&self, other: &Netns) -> bool {
        self.id == other.id
    }
}

impl Eq for Netns {}

impl fmt::Debug for Netns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (inode {})", self.path.display(), self.id.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A fresh namespace that lives as long as the value; made on a thread of its own, so the caller stays where it is.
    fn fresh() -> Netns {
        std::thread::spawn(|| {
            nix::sched::unshare(CloneFlags::CLONE_NEWNET).expect("unshare needs root: run the tests as root");
            Netns::current().unwrap()
        })
        .join()
        .unwrap()
    }

    #[test]
    fn work_is_done_inside_and_the_thread_comes_back() {
        let (here, other) = (Netns::current().unwrap(), fresh());
        assert_ne!(here, other);
        assert_eq!(other.run(|| Netns::current().unwrap()).unwrap(), other);
        assert_eq!(Netns::current().unwrap(), here);
    }

    #[test]
    fn a_socket_is_made_inside_wherever_the_thread_is() {
        let (here, other) = (Netns::current().unwrap(), fresh());
        let made_in =
            |netns: &Netns| netns.is(&of_socket(&netns.socket(UnixDatagram::unbound).unwrap()).unwrap());
        assert!(made_in(&here) && made_in(&other));
        assert!(other.run(|| made_in(&here) && made_in(&other)).unwrap());
        assert_eq!(Netns::current().unwrap(), here);
    }

    #[test]
    fn the_thread_comes_back_from_a_panic() {
        let (here, other) = (Netns::current().unwrap(), fresh());
        let result =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| other.run(|| panic!("inside"))));
        assert!(result.is_err());
        assert_eq!(Netns::current().unwrap(), here);
    }

    #[test]
    fn a_path_that_is_gone_and_a_file_that_is_no_namespace_are_told_apart() {
        assert!(matches!(Netns::open("/run/netns/no-such-pod"), Err(NetnsError::Missing { .. })));
        assert!(matches!(Netns::open("/proc/self/ns/mnt"), Err(NetnsError::NotANetns { .. })));
        let error = Netns::open("/etc/passwd").unwrap_err();
        assert_eq!(
            error.to_string(),
            "/etc/passwd is not a network namespace; is it still mounted? (`findmnt /etc/passwd`)"
        );
    }
}
