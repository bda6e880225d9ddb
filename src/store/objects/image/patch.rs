//! An image in which some files hold something else, and all that follows from the files together is as it was.
//!
//! In: an image, the files that were read anew. Out: the image that would be made from all files, or nothing where that may be more
//! than other contents of these. Never: asks what the other files hold; that is what makes it take a twentieth of the time.

use super::super::compile::fingerprint;
use super::write::{Compiled, ReadFile, seal};
use super::{DIR, FILE, HEADER, Image, OBJECT, SHARES, Stamp, WASTE, long, short, slot};
use crate::api::Kind;

impl Image {
    /// The same with other contents of the files of these numbers, and with other stamps of its directories.
    ///
    /// `None`, and all files must be asked: an object came, went, broke or was mended, so that others of its name may be in force now; a pool
    /// changed, which others may overlap; or what nothing points to any more has become an eighth of it all.
    pub(in super::super) fn with(&self, dirs: &[Stamp], files: &[(usize, &ReadFile<'_>)]) -> Option<Image> {
        let room = files.iter().map(|(_, file)| appended(file)).sum::<usize>();
        if dirs.len() != self.dirs || !files.iter().all(|(number, file)| self.is_like(*number, file)) {
            return None;
        }
        u32::try_from(self.bytes.len() + room).ok()?;
        let mut bytes = Vec::with_capacity(self.bytes.len() + room);
        bytes.extend_from_slice(&self.bytes);
        let mut new = Image { bytes: bytes.into(), ..*self };
        for (i, stamp) in dirs.iter().enumerate() {
            new.stamp_at(HEADER + i * DIR + 8, *stamp);
        }
        let mut waste = long(&new.bytes, WASTE);
        for (number, file) in files {
            waste += new.refill(*number, file) as u64;
        }
        let len = new.bytes.len() as u64;
        if waste > len / 8 {
            return None;
        }
        new.long_at(WASTE, waste);
        new.long_at(24, len);
        let objects = (0..new.index).map(|row| new.object(new.indexed(row)).digest);
        let fingerprint = fingerprint(objects, new.broken());
        new.long_at(40, fingerprint);
        seal(new.bytes.to_mut());
        Some(new)
    }

    /// Whether what is in force stays in force, whatever else a file says of it.
    fn is_like(&self, number: usize, file: &ReadFile<'_>) -> bool {
        let row = self.file(number);
        let alike = |(i, object): (usize, &Compiled<'_>)| {
            let old = self.object(i);
            let same_state = old.body.is_empty() == object.body.is_empty();
            let judged = slot(object.kind) == slot(Kind::EgressPool) && old.body != &*object.body;
            (old.kind, old.name) == (object.kind, &*object.name) && same_state && !judged
        };
        row.path == &*file.path
            && row.objects.len() == file.objects.len()
            && row.objects.zip(&file.objects).all(alike)
    }

    /// Puts what a file holds now in the place of what it held. Returns how many bytes nothing points to any more.
    fn refill(&mut self, number: usize, file: &ReadFile<'_>) -> usize {
        let row = self.file(number);
        let (first, mut waste) = (row.objects.start, row.problems.len());
        let at = HEADER + self.dirs * DIR + number * FILE;
        self.stamp_at(at + 8, file.stamp);
        self.point_at(at + 48, &file.problems);
        for (i, object) in file.objects.iter().enumerate() {
            let old = self.object(first + i);
            if old.digest == object.digest && old.body == &*object.body {
                continue;
            }
            waste += old.body.len();
            let at = HEADER + self.dirs * DIR + self.files * FILE + (first + i) * OBJECT;
            let kind = short(&self.bytes, at) % SHARES;
            self.short_at(at, if object.shares { kind | SHARES } else { kind });
            self.point_at(at + 12, &object.body);
            self.long_at(at + 20, object.digest);
        }
        waste
    }

    fn short_at(&mut self, at: usize, value: usize) {
        self.bytes.to_mut()[at..at + 4]
            .copy_from_slice(&u32::try_from(value).unwrap_or(u32::MAX).to_le_bytes());
    }

    fn long_at(&mut self, at: usize, value: u64) {
        self.bytes.to_mut()[at..at + 8].copy_from_slice(&value.to_le_bytes());
    }

    fn point_at(&mut self, at: usize, to: &[u8]) {
        self.short_at(at, self.bytes.len());
        self.short_at(at + 4, to.len());
        self.bytes.to_mut().extend_from_slice(to);
    }

    fn stamp_at(&mut self, at: usize, stamp: Stamp) {
        let Stamp { inode, size, modified, changed } = stamp;
        #[allow(clippy::cast_sign_loss, reason = "times are written as their bits")]
        let words = [inode, size, modified as u64, changed as u64];
        for (i, word) in words.into_iter().enumerate() {
            self.long_at(at + 8 * i, word);
        }
    }
}

fn appended(file: &ReadFile<'_>) -> usize {
    file.problems.len() + file.objects.iter().map(|object| object.body.len()).sum::<usize>()
}
