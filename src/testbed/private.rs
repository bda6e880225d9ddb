//! A private machine for the calling thread: its own mounts and its own root network namespace.
//!
//! Everything a world makes hangs on these two: named namespaces lie on a tmpfs that no other process sees, and veths
//! end in namespaces that only those names keep. So when the process ends, however it ends, the kernel takes
//! everything back, and worlds stand side by side without names to agree on.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};

use super::Trouble;

/// Named network namespaces, where `ip netns` looks too.
pub const NETNS_DIR: &str = "/run/netns";
/// Egret's node-local state.
pub const RUN_DIR: &str = "/run/egret";
/// The directory that all nodes share.
pub const STATE_DIR: &str = "/var/lib/egret";
/// Records of libcni and of host-local; each node has its own below it (see `place`).
pub const CNI_DIR: &str = "/var/lib/cni";
/// The testbed's own records.
pub(super) const WORLD_DIR: &str = "/run/testbed";

/// Directories that become empty, private memory. `/run` whole: it also holds the lock of legacy iptables.
const MEMORY: [&str; 3] = ["/run", CNI_DIR, STATE_DIR];

/// The way back to where the thread was.
#[derive(Debug)]
pub(super) struct Private {
    mounts: File,
    network: File,
    directory: PathBuf,
    inside: u64,
}

impl Private {
    /// Takes the calling thread out of the machine's mounts and network. Threads and processes that it starts later
    /// come along; others do not.
    pub(super) fn enter() -> Result<Private, Trouble> {
        if !nix::unistd::geteuid().is_root() {
            return Err(Trouble::new(
                "the testbed makes network namespaces and needs root: run it with sudo",
            ));
        }
        let open =
            |path: &str| File::open(path).map_err(|e| Trouble::new(format!("cannot open {path}: {e}")));
        let (mounts, network) = (open("/proc/thread-self/ns/mnt")?, open("/proc/thread-self/ns/net")?);
        let directory = std::env::current_dir().unwrap_or_else(|_| "/".into());
        unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET).map_err(|e| {
            Trouble::new(format!("cannot have namespaces of its own ({e}): CAP_SYS_ADMIN needed"))
        })?;
        let none = None::<&str>;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)
            .map_err(|e| Trouble::new(format!("cannot make mounts private: {e}")))?;
        for path in MEMORY {
            fs::create_dir_all(path).map_err(|e| Trouble::new(format!("cannot make {path}: {e}")))?;
            mount(Some("tmpfs"), path, Some("tmpfs"), MsFlags::MS_NOSUID, Some("mode=755"))
                .map_err(|e| Trouble::new(format!("cannot mount memory on {path}: {e}")))?;
        }
        for path in [NETNS_DIR, RUN_DIR, WORLD_DIR] {
            fs::create_dir_all(path).map_err(|e| Trouble::new(format!("cannot make {path}: {e}")))?;
        }
        let inside = mounts_inode()?;
        Ok(Private { mounts, network, directory, inside })
    }

    /// Joins the private machine of another process. The caller must have one thread.
    pub(super) fn join(pid: i32) -> Result<(), Trouble> {
        let directory = std::env::current_dir().unwrap_or_else(|_| "/".into());
        for (kind, flag) in [("net", CloneFlags::CLONE_NEWNET), ("mnt", CloneFlags::CLONE_NEWNS)] {
            let path = format!("/proc/{pid}/ns/{kind}");
            let file = File::open(&path).map_err(|e| Trouble::new(format!("cannot open {path}: {e}")))?;
            setns(file, flag).map_err(|e| Trouble::new(format!("cannot enter {path}: {e}")))?;
        }
        // Entering mounts moves a process to their root; a person expects to stay where they were.
        let _ = std::env::set_current_dir(directory);
        Ok(())
    }
}

impl Drop for Private {
    /// Lets go of everything and goes home, where the thread can: not with other threads of its making still
    /// running. Then the end of the thread does it.
    fn drop(&mut self) {
        if mounts_inode().ok() != Some(self.inside) {
            return;
        }
        for path in MEMORY {
            let _ = umount2(Path::new(path), MntFlags::MNT_DETACH);
        }
        let _ = setns(&self.network, CloneFlags::CLONE_NEWNET);
        if setns(&self.mounts, CloneFlags::CLONE_NEWNS).is_ok() {
            let _ = std::env::set_current_dir(&self.directory);
        }
    }
}

fn mounts_inode() -> Result<u64, Trouble> {
    use std::os::unix::fs::MetadataExt;
    let path = "/proc/thread-self/ns/mnt";
    fs::metadata(path).map(|m| m.ino()).map_err(|e| Trouble::new(format!("cannot read {path}: {e}")))
}
