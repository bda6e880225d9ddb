//! Which network namespace a path names, without entering it.
//!
//! In: CNI_NETNS. Out: its device and inode, or why it is no namespace. Never: creates, mounts or removes anything.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::sched::{CloneFlags, setns};
use nix::sys::statfs::statfs;

use crate::cni::reply::{CniError, Code};
use crate::cni::request::Request;
use crate::kernel::netns::Netns;

/// A namespace as the kernel numbers it. The kernel reuses inode numbers: two equal values at different times may be two
/// namespaces; two different values never are one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NetnsId {
    /// Device of the kernel's namespace file system.
    pub dev: u64,
    /// Inode there.
    pub inode: u64,
}

/// Why a path names no network namespace.
#[derive(Debug, thiserror::Error)]
pub enum NetnsError {
    /// Nothing is there.
    #[error("the network namespace {0} does not exist (any more)")]
    Gone(PathBuf),
    /// Something else is there.
    #[error("{0} is not a network namespace")]
    Other(PathBuf),
    /// It could not be looked at.
    #[error("cannot look at the network namespace {0}: {1}")]
    Unreadable(PathBuf, io::Error),
}

impl From<NetnsError> for CniError {
    fn from(error: NetnsError) -> CniError {
        let code = match &error {
            NetnsError::Unreadable(_, why) => code(why),
            NetnsError::Gone(_) | NetnsError::Other(_) => Code::NetnsUnusable,
        };
        CniError::new(code, error.to_string())
    }
}

/// What a runtime should make of a namespace that refuses us. Without the right to enter it nothing is wrong with it, and no pod started
/// anew would fare better.
pub fn code(error: &io::Error) -> Code {
    if error.kind() == io::ErrorKind::PermissionDenied { Code::Io } else { Code::NetnsUnusable }
}

/// `NSFS_MAGIC`, linux/magic.h.
const NSFS_MAGIC: i64 = 0x6e73_6673;

mod ioctl {
    // NS_GET_NSTYPE, linux/nsfs.h, since 4.11: returns the CLONE_NEW* flag of the namespace's kind.
    nix::ioctl_none_bad!(ns_get_nstype, 0xb703);
}

/// Opens the namespace at a path. The file system's magic is asked before anything is opened, because opening a pipe or
/// a device can block or have effects.
pub fn open(path: &Path) -> Result<(File, NetnsId), NetnsError> {
    let unreadable = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => NetnsError::Gone(path.to_owned()),
        _ => NetnsError::Unreadable(path.to_owned(), error),
    };
    let magic = statfs(path).map_err(|e| unreadable(e.into()))?.filesystem_type();
    #[allow(clippy::unnecessary_cast, reason = "its type differs between C libraries")]
    if magic.0 as i64 != NSFS_MAGIC {
        return Err(NetnsError::Other(path.to_owned()));
    }
    let file = File::open(path).map_err(unreadable)?;
    // SAFETY: the call takes no pointer, and the descriptor is open.
    let kind = unsafe { ioctl::ns_get_nstype(file.as_raw_fd()) }.map_err(|e| unreadable(e.into()))?;
    if kind != CloneFlags::CLONE_NEWNET.bits() {
        return Err(NetnsError::Other(path.to_owned()));
    }
    let meta = file.metadata().map_err(unreadable)?;
    Ok((file, NetnsId { dev: meta.dev(), inode: meta.ino() }))
}

/// The pod's namespace, checked before anything is touched. Errors: 4 (no CNI_NETNS), 8 (it is the plugin's own and
/// CNI_NETNS_OVERRIDE does not allow that), 100 (it is none).
pub fn of_pod(request: &Request) -> Result<(File, NetnsId), CniError> {
    let Some(path) = &request.netns else {
        return Err(CniError::new(Code::InvalidEnvironment, "required env variables [CNI_NETNS] missing"));
    };
    let (file, id) = open(path)?;
    let own = Netns::current().map_err(|e| CniError::new(Code::NetnsUnusable, e.to_string()))?;
    if (id.dev, id.inode) == own.id() && !request.netns_override {
        let msg = format!("CNI_NETNS {} is the plugin's own network namespace", path.display());
        return Err(CniError::new(Code::InvalidNetns, msg).details("CNI_NETNS_OVERRIDE=1 allows that"));
    }
    Ok((file, id))
}

/// Whether the namespace holds an interface of this name. Asked from a thread of its own, which then ends: the caller's
/// namespace stays what it was even if something fails in between.
pub fn has_interface(netns: &File, ifname: &str) -> io::Result<bool> {
    let ask = || -> io::Result<bool> {
        setns(netns, CloneFlags::CLONE_NEWNET)?;
        match nix::net::if_::if_nametoindex(ifname) {
            Ok(_) => Ok(true),
            Err(nix::Error::ENODEV | nix::Error::ENXIO) => Ok(false),
            Err(error) => Err(error.into()),
        }
    };
    std::thread::scope(|threads| threads.spawn(ask).join())
        .unwrap_or_else(|_| Err(io::Error::other("the thread that entered the namespace panicked")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_network_namespace_is_one() {
        let (_, own) = open(Path::new("/proc/self/ns/net")).unwrap();
        assert!(own.inode > 0);
        for other in ["/proc/self/ns/mnt", "/proc/self/ns/uts", "/proc/self/status", "/dev/null", "/etc"] {
            assert!(matches!(open(Path::new(other)), Err(NetnsError::Other(_))), "{other}");
        }
        for gone in ["/run/netns/never-was-here", "/proc/1048577/ns/net", "/etc/passwd/x"] {
            assert!(matches!(open(Path::new(gone)), Err(NetnsError::Gone(_))), "{gone}");
        }
    }

    #[test]
    fn loopback_is_found_and_nothing_else() {
        let (file, _) = open(Path::new("/proc/self/ns/net")).unwrap();
        assert!(has_interface(&file, "lo").expect("needs root (CAP_SYS_ADMIN) to enter a namespace"));
        assert!(!has_interface(&file, "never0").unwrap());
    }
}
