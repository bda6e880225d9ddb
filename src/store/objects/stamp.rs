//! The stamp: by what a file is known not to have changed.
//!
//! Besides inode, size and modification time it holds the change time, which no program can set: a rewrite of the same
//! size with its old modification time put back (`cp -p`, `rsync -t`) is still seen.

use nix::sys::stat::FileStat;

/// What `stat` says of a file, as far as a change of content shows there. Times are nanoseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    pub(super) inode: u64,
    pub(super) size: u64,
    pub(super) modified: i64,
    pub(super) changed: i64,
}

const MILLISECOND: i64 = 1_000_000;

impl Stamp {
    /// Equal to no file's.
    pub(super) const NEVER: Stamp = Stamp { inode: 0, size: u64::MAX, modified: 0, changed: 0 };

    pub(super) fn of(stat: &FileStat) -> Stamp {
        let time = |seconds: i64, nanos: i64| seconds.saturating_mul(1_000_000_000).saturating_add(nanos);
        Stamp {
            inode: stat.st_ino,
            size: u64::try_from(stat.st_size).unwrap_or_default(),
            modified: time(stat.st_mtime, stat.st_mtime_nsec),
            changed: time(stat.st_ctime, stat.st_ctime_nsec),
        }
    }

    /// The stamp of a name that `stat` refuses: the same refusal is no change.
    pub(super) fn refused(errno: nix::errno::Errno) -> Stamp {
        Stamp { inode: 0, size: u64::from((errno as i32).unsigned_abs()), modified: 0, changed: 0 }
    }

    /// The stamp to remember for what was read at `read_at`, or [`Stamp::NEVER`] if the file changed so shortly before
    /// that a later change could leave the same times: kernels before 6.13 stamp with the tick (at most 10 ms), and
    /// file systems without nanoseconds with the second. git calls such an entry racy.
    pub(super) fn settled(self, read_at: i64) -> Stamp {
        let whole = |time: i64| time % 1_000_000_000 == 0;
        let grain = if whole(self.modified) && whole(self.changed) { 2_000 } else { 20 } * MILLISECOND;
        let last = self.modified.max(self.changed);
        let fresh = self.inode != 0 && last.saturating_add(grain) >= read_at;
        if fresh { Stamp::NEVER } else { self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_changed_within_the_grain_of_the_clock_is_not_trusted() {
        let at = |modified: i64, changed: i64| Stamp { inode: 1, size: 1, modified, changed };
        let second = 1_000_000_000;
        let now = 100 * second + 500 * MILLISECOND + 1;
        let old = at(now - second, now - 21 * MILLISECOND);
        assert_eq!(old.settled(now), old);
        assert_eq!(at(now - second, now - 19 * MILLISECOND).settled(now), Stamp::NEVER);
        assert_eq!(at(now + second, now - second).settled(now), Stamp::NEVER);
        // Whole seconds: a file system that stores no nanoseconds.
        assert_eq!(at(99 * second, 99 * second).settled(now), Stamp::NEVER);
        assert_eq!(at(98 * second, 98 * second).settled(now), at(98 * second, 98 * second));
        let refused = Stamp::refused(nix::errno::Errno::ENOENT);
        assert_eq!(refused.settled(now), refused);
        assert_ne!(refused, Stamp::NEVER);
    }
}
