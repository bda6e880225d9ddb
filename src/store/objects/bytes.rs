//! The bytes of an image: a process's own, or a file's that is mapped.
//!
//! In: bytes that were made, or a file that is only ever replaced by name. Out: a slice. Never: maps a file for long.

use std::fs::File;
use std::ops::Deref;
use std::os::fd::AsRawFd;
use std::ptr::{self, NonNull};
use std::slice;

/// Bytes that nobody changes but who owns them.
pub(super) enum Bytes {
    /// In memory of this process.
    Own(Vec<u8>),
    /// Where the kernel keeps the file.
    Mapped(Mapped),
}

impl Bytes {
    /// To be changed: mapped ones become a process's own.
    pub(super) fn to_mut(&mut self) -> &mut Vec<u8> {
        if let Bytes::Mapped(mapped) = self {
            *self = Bytes::Own(mapped.to_vec());
        }
        match self {
            Bytes::Own(bytes) => bytes,
            Bytes::Mapped(_) => unreachable!("they were just made its own"),
        }
    }
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Bytes::Own(bytes) => bytes,
            Bytes::Mapped(mapped) => mapped,
        }
    }
}

impl From<Vec<u8>> for Bytes {
    fn from(bytes: Vec<u8>) -> Bytes {
        Bytes::Own(bytes)
    }
}

impl Clone for Bytes {
    fn clone(&self) -> Bytes {
        Bytes::Own(self.to_vec())
    }
}

/// A file's bytes, all of them there.
///
/// To read 135 KB into memory of one's own is to have the kernel clear 33 pages and to copy as many: a twentieth of the ADD of a pod
/// without egress. What is mapped is gone when the file becomes shorter, or its disk fails, so this is for moments and for files that
/// nobody shortens.
pub(super) struct Mapped {
    start: NonNull<u8>,
    length: usize,
}

// SAFETY: it is memory that is only read, and unmapped by who drops it.
unsafe impl Send for Mapped {}
// SAFETY: as above.
unsafe impl Sync for Mapped {}

impl Mapped {
    /// Maps a file whole. `None`: the kernel cannot, or cannot have all of it there (before Linux 5.14 it does not say); whoever reads
    /// the file then learns why.
    pub(super) fn of(file: &File) -> Option<Mapped> {
        let length = usize::try_from(file.metadata().ok()?.len()).ok()?;
        // SAFETY: a fresh mapping, of which nobody knows.
        let start = unsafe {
            let (flags, nowhere) = (libc::MAP_PRIVATE, ptr::null_mut());
            libc::mmap(nowhere, length, libc::PROT_READ, flags, file.as_raw_fd(), 0)
        };
        if start == libc::MAP_FAILED {
            return None;
        }
        let mapped = Mapped { start: NonNull::new(start.cast())?, length };
        // SAFETY: the mapping is as long as that, and only read.
        let there = unsafe { libc::madvise(start, length, libc::MADV_POPULATE_READ) } == 0;
        there.then_some(mapped)
    }
}

impl Deref for Mapped {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the mapping lives as long as this value, and nobody writes into the file.
        unsafe { slice::from_raw_parts(self.start.as_ptr(), self.length) }
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: mapped by `of`, and nobody borrows from it any more.
        unsafe {
            libc::munmap(self.start.as_ptr().cast(), self.length);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::dir::tests::scratch;

    #[test]
    fn a_mapped_file_is_what_it_holds_and_a_change_is_nobody_elses() {
        let (root, _clean) = scratch();
        let path = root.join("file");
        let text: Vec<u8> = (0..20_000u32).flat_map(u32::to_le_bytes).collect();
        std::fs::write(&path, &text).unwrap();
        let mut bytes = Bytes::Mapped(Mapped::of(&File::open(&path).unwrap()).expect("Linux 5.14 or later"));
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "another file of that name").unwrap();
        assert_eq!(*bytes, *text);
        bytes.to_mut()[0] = 7;
        assert_eq!((bytes[0], &bytes[1..]), (7, &text[1..]));
        assert!(Mapped::of(&File::open(&root).unwrap()).is_none(), "a folder");
        std::fs::write(&path, "").unwrap();
        assert!(Mapped::of(&File::open(&path).unwrap()).is_none(), "nothing");
    }
}
