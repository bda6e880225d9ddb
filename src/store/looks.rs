//! How files and folders look from outside: whether anything in them is not as it was, without opening any.
//!
//! In: paths. Out: values that differ when what they are of differs. Never: reads a file, or says what changed.

use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use crate::clock;

/// What changed so shortly before it was looked at may change again without its times showing it: some file systems count whole
/// seconds.
const GRAIN: Duration = Duration::from_secs(2);

/// Which file or folder stands at a path, and when it changed last. A folder changes when a name comes, goes or is replaced, and not
/// when one of its files is written in place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Stamp {
    /// Device and inode.
    place: (u64, u64),
    size: u64,
    /// Of a folder's names or a file's content, in nanoseconds since 1970.
    content: i128,
    /// Of anything, owners and modes too.
    anything: i128,
}

impl Stamp {
    /// Taken before the content is read, so that a change in between is seen next time.
    ///
    /// # Errors
    /// Nothing is there, or it cannot be asked.
    pub fn of(path: &Path) -> io::Result<Stamp> {
        fs::metadata(path).map(|found| Stamp::from(&found))
    }

    /// Of a file that is open.
    ///
    /// # Errors
    /// It cannot be asked.
    pub fn of_open(file: &File) -> io::Result<Stamp> {
        file.metadata().map(|found| Stamp::from(&found))
    }

    fn from(found: &Metadata) -> Stamp {
        let nanos = |seconds: i64, nanos: i64| i128::from(seconds) * 1_000_000_000 + i128::from(nanos);
        Stamp {
            place: (found.dev(), found.ino()),
            size: found.size(),
            content: nanos(found.mtime(), found.mtime_nsec()),
            anything: nanos(found.ctime(), found.ctime_nsec()),
        }
    }

    /// Whether a later change cannot have the same times.
    pub fn is_settled(self) -> bool {
        let now = clock::now(libc::CLOCK_REALTIME).as_nanos().cast_signed();
        self.content.max(self.anything) + GRAIN.as_nanos().cast_signed() < now
    }
}

/// What was made of a file or folder, for as long as that stays as it was.
#[derive(Debug)]
pub struct Since<T>(Option<(Stamp, T)>);

impl<T> Default for Since<T> {
    fn default() -> Since<T> {
        Since(None)
    }
}

impl<T: Clone> Since<T> {
    /// The value of what stands at this path; made anew if that is not provably what it was made of.
    ///
    /// # Errors
    /// As `make`; then the next call makes it anew.
    pub fn get<E>(&mut self, path: &Path, make: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
        let stamp = Stamp::of(path).ok();
        if let (Some((known, value)), Some(stamp)) = (&self.0, stamp)
            && *known == stamp
        {
            return Ok(value.clone());
        }
        self.0 = None;
        let value = make()?;
        self.0 = stamp.filter(|stamp| stamp.is_settled()).map(|stamp| (stamp, value.clone()));
        Ok(value)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::convert::Infallible;

    use nix::sys::stat::{UtimensatFlags, utimensat};
    use nix::sys::time::TimeSpec;

    use super::*;
    use crate::store::dir::tests::scratch;

    /// As if nothing had happened to it for long. Its last change of all is this one, of now.
    pub(crate) fn settle(path: &Path) {
        let long_ago = TimeSpec::new(1_000_000_000, 0);
        utimensat(nix::fcntl::AT_FDCWD, path, &long_ago, &long_ago, UtimensatFlags::FollowSymlink).unwrap();
        let end = std::time::Instant::now() + Duration::from_secs(20);
        while !Stamp::of(path).unwrap().is_settled() {
            assert!(std::time::Instant::now() < end, "it never settles");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    #[test]
    fn what_was_made_of_a_folder_is_made_anew_when_a_file_came_went_or_was_replaced_and_while_it_changes() {
        let (root, _clean) = scratch();
        let (mut since, mut made) = (Since::default(), 0);
        let mut get = || -> u32 {
            let Ok(value) = since.get(&root, || {
                made += 1;
                Ok::<u32, Infallible>(made)
            });
            value
        };
        fs::write(root.join("a"), "1").unwrap();
        assert_eq!(
            (get(), get()),
            (1, 2),
            "it has only just changed, and may again without its times showing it"
        );
        settle(&root);
        assert_eq!((get(), get(), get()), (3, 3, 3));
        fs::write(root.join(".draft"), "2").unwrap();
        fs::rename(root.join(".draft"), root.join("a")).unwrap();
        assert_eq!(get(), 4);
        settle(&root);
        assert_eq!((get(), get()), (5, 5));
        fs::remove_file(root.join("a")).unwrap();
        assert_eq!(get(), 6);
        fs::remove_dir(&root).unwrap();
        assert_eq!((get(), get()), (7, 8), "nothing is remembered of what is not there");
    }

    #[test]
    fn what_cannot_be_made_is_tried_again() {
        let (root, _clean) = scratch();
        settle(&root);
        let mut since = Since::default();
        assert_eq!(since.get(&root, || Err::<u8, _>("no")), Err("no"));
        assert_eq!(since.get(&root, || Ok::<u8, &str>(1)), Ok(1));
        assert_eq!(since.get(&root, || Err::<u8, _>("not asked")), Ok(1));
    }
}
