//! An image that is to be written.
//!
//! In: what each file holds, and the verdict over all. Out: the bytes. Never: judges objects.

use std::borrow::Cow;
use std::ffi::CStr;

use super::{COVERED, DIR, FILE, FORMAT, HEADER, INDEX, Image, MAGIC, OBJECT, ObjectRow, SHARES, Verdict};
use super::{Stamp, checksum, release};
use crate::api::Kind;

/// One file, as the image will keep it. Of ten thousand nearly all are as they were, and such a one is no more than a number:
/// an agent's memory is highest while the old image, these and the new image stand side by side.
pub(in super::super) enum FileRecord<'a> {
    /// The file of this number in the image before.
    Kept(&'a Image, usize),
    /// Read now.
    Read(Box<ReadFile<'a>>),
}

/// A file that was read. Borrowed parts come from the image before.
pub(in super::super) struct ReadFile<'a> {
    /// Path below `objects/`, ended by a zero byte.
    pub(in super::super) path: Cow<'a, CStr>,
    /// What the file looked like when it was read.
    pub(in super::super) stamp: Stamp,
    /// In the order written.
    pub(in super::super) objects: Vec<Compiled<'a>>,
    /// A JSON list of problems; empty for none.
    pub(in super::super) problems: Vec<u8>,
}

impl<'a> From<ReadFile<'a>> for FileRecord<'a> {
    fn from(file: ReadFile<'a>) -> FileRecord<'a> {
        FileRecord::Read(Box::new(file))
    }
}

/// One object of a file.
pub(in super::super) struct Compiled<'a> {
    pub(in super::super) kind: Kind,
    pub(in super::super) name: Cow<'a, str>,
    /// JSON; empty: the object is broken.
    pub(in super::super) body: Cow<'a, [u8]>,
    /// A pod that shares its node's network.
    pub(in super::super) shares: bool,
    /// Of kind, name and body.
    pub(in super::super) digest: u64,
}

impl Compiled<'_> {
    pub(super) fn row(&self) -> ObjectRow<'_> {
        let Compiled { kind, name, body, shares, digest } = self;
        ObjectRow { kind: *kind, name, body, shares: *shares, digest: *digest }
    }
}

impl FileRecord<'_> {
    /// Path below `objects/`.
    pub(in super::super) fn path(&self) -> &CStr {
        match self {
            FileRecord::Kept(image, number) => image.file(*number).path,
            FileRecord::Read(file) => &file.path,
        }
    }

    fn stamp(&self) -> Stamp {
        match self {
            FileRecord::Kept(image, number) => image.file(*number).stamp,
            FileRecord::Read(file) => file.stamp,
        }
    }

    fn problems(&self) -> &[u8] {
        match self {
            FileRecord::Kept(image, number) => image.file(*number).problems,
            FileRecord::Read(file) => &file.problems,
        }
    }

    /// Its objects, in the order written.
    pub(in super::super) fn objects(&self) -> impl ExactSizeIterator<Item = ObjectRow<'_>> {
        let count = match self {
            FileRecord::Kept(image, number) => image.file(*number).objects.len(),
            FileRecord::Read(file) => file.objects.len(),
        };
        (0..count).map(|i| self.object(i))
    }

    /// One of its objects.
    pub(in super::super) fn object(&self, i: usize) -> ObjectRow<'_> {
        match self {
            FileRecord::Kept(image, number) => image.object(image.file(*number).objects.start + i),
            FileRecord::Read(file) => file.objects[i].row(),
        }
    }

    /// How many bytes of it are no rows.
    fn blob(&self) -> usize {
        let objects = self.objects().map(|object| object.name.len() + object.body.len());
        self.path().to_bytes_with_nul().len() + self.problems().len() + objects.sum::<usize>()
    }
}

/// Writes an image. `None`: it would be larger than 4 GiB, which offsets of four bytes cannot say.
///
/// Into one piece of memory of the right size: an agent writes its image anew at every change, and what grows by doubling
/// would be most of what it ever holds.
pub(in super::super) fn encode<'d>(
    dirs: impl ExactSizeIterator<Item = (&'d CStr, Stamp)> + Clone,
    files: &[FileRecord<'_>],
    verdict: &Verdict,
) -> Option<Vec<u8>> {
    let objects: usize = files.iter().map(|file| file.objects().len()).sum();
    let tables =
        HEADER + dirs.len() * DIR + files.len() * FILE + objects * OBJECT + verdict.index.len() * INDEX;
    let blob: usize = dirs.clone().map(|(path, _)| path.to_bytes_with_nul().len()).sum::<usize>()
        + files.iter().map(FileRecord::blob).sum::<usize>()
        + verdict.problems.len()
        + verdict.broken.len();
    u32::try_from(tables + blob).ok()?;
    let mut bytes = Vec::with_capacity(tables + blob);
    bytes.resize(tables, 0);
    let mut out = Writer { bytes, row: 0 };
    out.put(&MAGIC);
    out.short(FORMAT as usize).short(0).long(release()).long(0).long(0).long(verdict.fingerprint);
    out.short(dirs.len()).short(files.len()).short(objects).short(verdict.index.len());
    out.point(&verdict.problems).point(&verdict.broken).long(0);
    for (path, stamp) in dirs {
        out.point(path.to_bytes_with_nul()).stamp(stamp);
    }
    let mut first = 0;
    for file in files {
        let count = file.objects().len();
        out.point(file.path().to_bytes_with_nul()).stamp(file.stamp());
        out.short(first).short(count).point(file.problems());
        first += count;
    }
    for object in files.iter().flat_map(FileRecord::objects) {
        let kind = Kind::ALL.iter().position(|k| *k == object.kind).unwrap_or_default();
        let kind = if object.shares { kind | SHARES } else { kind };
        out.short(kind).point(object.name.as_bytes()).point(object.body).long(object.digest);
    }
    for object in &verdict.index {
        out.short(*object);
    }
    let Writer { mut bytes, row } = out;
    debug_assert_eq!((row, bytes.len()), (tables, tables + blob));
    let len = bytes.len() as u64;
    bytes[24..32].copy_from_slice(&len.to_le_bytes());
    seal(&mut bytes);
    Some(bytes)
}

/// The last that is written: what all before it comes to.
pub(super) fn seal(bytes: &mut [u8]) {
    let sum = checksum(&bytes[COVERED..]);
    bytes[32..40].copy_from_slice(&sum.to_le_bytes());
}

/// Rows are filled in from the front, what they point to is put behind them.
struct Writer {
    bytes: Vec<u8>,
    row: usize,
}

impl Writer {
    fn put(&mut self, row: &[u8]) -> &mut Writer {
        let end = self.row + row.len();
        self.bytes[self.row..end].copy_from_slice(row);
        self.row = end;
        self
    }

    /// Four bytes. A number that does not fit belongs to an image that [`encode`] refuses.
    fn short(&mut self, value: usize) -> &mut Writer {
        self.put(&u32::try_from(value).unwrap_or(u32::MAX).to_le_bytes())
    }

    fn long(&mut self, value: u64) -> &mut Writer {
        self.put(&value.to_le_bytes())
    }

    /// Offset and length of bytes that go to the blob.
    fn point(&mut self, bytes: &[u8]) -> &mut Writer {
        let at = self.bytes.len();
        self.bytes.extend_from_slice(bytes);
        self.short(at).short(bytes.len())
    }

    fn stamp(&mut self, stamp: Stamp) -> &mut Writer {
        #[allow(clippy::cast_sign_loss, reason = "times are written as their bits")]
        let bits = |time: i64| time as u64;
        self.long(stamp.inode).long(stamp.size).long(bits(stamp.modified)).long(bits(stamp.changed))
    }
}
