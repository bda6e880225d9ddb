//! The image: all objects, compiled, as one run of bytes, the same in memory and in the cache file.
//!
//! In: file records and a verdict over them ([`encode`]); or bytes that claim to be an image ([`Image::parse`]).
//! Out: rows that borrow from the bytes; an object is decoded only when somebody asks for it, so that a call about one
//! pod pays for one pod. Never: touches files, or judges objects.
//!
//! Layout, little-endian: header (88 bytes) · directories · files · objects · index · blob. Rows have a fixed size and
//! point into the blob. The index lists the objects in force, sorted by slot and name.

mod patch;
mod write;

use std::ffi::CStr;
use std::ops::Range;

use super::bytes::Bytes;
use super::stamp::Stamp;
use crate::api::Kind;
pub(super) use write::{Compiled, FileRecord, ReadFile, encode};

/// Raise it when rows, or the JSON of an object, change shape or meaning.
const FORMAT: u32 = 6;
const MAGIC: [u8; 8] = *b"EGRETOBJ";
const HEADER: usize = 88;
const DIR: usize = 40;
const FILE: usize = 56;
const OBJECT: usize = 28;
const INDEX: usize = 4;
/// Offset of the number of bytes that nothing points to any more.
const WASTE: usize = 80;
/// Set beside the kind of a pod that shares its node's network.
const SHARES: usize = 1 << 8;
/// Offset of what the checksum covers.
const COVERED: usize = 40;

/// What follows from all files together.
#[derive(Default)]
pub(super) struct Verdict {
    /// Objects in force, as numbers in file order, sorted by slot and name.
    pub(super) index: Vec<usize>,
    /// JSON list of the problems between files.
    pub(super) problems: Vec<u8>,
    /// JSON list of broken objects' names.
    pub(super) broken: Vec<u8>,
    /// Changes if and only if an object in force, or the list of the broken, changes.
    pub(super) fingerprint: u64,
}

/// Where objects of a kind share their names: both kinds of pool are pools, and an annotation names either kind of policy.
pub(super) fn slot(kind: Kind) -> u8 {
    match kind {
        Kind::Namespace => 0,
        Kind::Pod => 1,
        Kind::Node => 2,
        Kind::EgressPool | Kind::IPPool => 3,
        Kind::ServiceCIDR => 4,
        Kind::EgressGatewayPolicy | Kind::CalicoEgressGatewayPolicy => 5,
        Kind::CiliumEgressGatewayPolicy => 6,
        Kind::EgressRange => 7,
        Kind::EndpointSlice => 8,
    }
}

/// Bytes that were checked to be an image.
#[derive(Clone)]
pub(super) struct Image {
    bytes: Bytes,
    dirs: usize,
    files: usize,
    objects: usize,
    index: usize,
}

/// A directory that was listed.
pub(super) struct DirRow<'i> {
    pub(super) path: &'i CStr,
    pub(super) stamp: Stamp,
}

/// A file that was read.
pub(super) struct FileRow<'i> {
    pub(super) path: &'i CStr,
    pub(super) stamp: Stamp,
    pub(super) objects: Range<usize>,
    pub(super) problems: &'i [u8],
}

/// An object of a file.
#[derive(Clone, Copy)]
pub(super) struct ObjectRow<'i> {
    pub(super) kind: Kind,
    pub(super) name: &'i str,
    /// JSON; empty: broken.
    pub(super) body: &'i [u8],
    /// A pod that shares its node's network.
    pub(super) shares: bool,
    /// Of kind, name and body.
    pub(super) digest: u64,
}

impl Image {
    /// Takes bytes that are a whole image of this release; `None`: torn, foreign, or of another release.
    pub(super) fn parse(bytes: impl Into<Bytes>) -> Option<Image> {
        let bytes = bytes.into();
        let word = |at| long(&bytes, at);
        let right = bytes.len() >= HEADER
            && bytes.starts_with(&MAGIC)
            && short(&bytes, 8) == FORMAT as usize
            && word(16) == release()
            && word(24) == bytes.len() as u64
            && word(32) == checksum(&bytes[COVERED..]);
        if !right {
            return None;
        }
        let count = |at| short(&bytes, at);
        let (dirs, files, objects, index) = (count(48), count(52), count(56), count(60));
        let tables = HEADER + dirs * DIR + files * FILE + objects * OBJECT + index * INDEX;
        (tables <= bytes.len()).then_some(Image { dirs, files, objects, index, bytes })
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(super) fn fingerprint(&self) -> u64 {
        long(&self.bytes, 40)
    }

    /// JSON list of the problems between files.
    pub(super) fn problems(&self) -> &[u8] {
        self.blob(64)
    }

    /// JSON list of the names of broken objects.
    pub(super) fn broken(&self) -> &[u8] {
        self.blob(72)
    }

    pub(super) fn dirs(&self) -> impl Iterator<Item = DirRow<'_>> {
        (0..self.dirs).map(|i| {
            let at = HEADER + i * DIR;
            DirRow { path: self.path(at), stamp: self.stamp(at + 8) }
        })
    }

    pub(super) fn files(&self) -> impl ExactSizeIterator<Item = FileRow<'_>> {
        (0..self.files).map(|i| self.file(i))
    }

    pub(super) fn file(&self, i: usize) -> FileRow<'_> {
        let at = HEADER + self.dirs * DIR + i * FILE;
        let first = short(&self.bytes, at + 40);
        FileRow {
            path: self.path(at),
            stamp: self.stamp(at + 8),
            objects: first..first + short(&self.bytes, at + 44),
            problems: self.blob(at + 48),
        }
    }

    /// What a look at a file needs of it, for all of them at each call: its path, which ends in a zero byte, and its stamp.
    pub(super) fn stamped(&self, i: usize) -> (&[u8], Stamp) {
        let at = HEADER + self.dirs * DIR + i * FILE;
        (self.blob(at), self.stamp(at + 8))
    }

    /// The number of the file with this path.
    pub(super) fn file_at(&self, path: &CStr) -> Option<usize> {
        let row = partition(self.files, |i| self.file(i).path < path);
        (row < self.files && self.file(row).path == path).then_some(row)
    }

    /// The file that holds an object.
    pub(super) fn file_of(&self, object: usize) -> Option<FileRow<'_>> {
        let row = partition(self.files, |i| self.file(i).objects.end <= object);
        (row < self.files).then(|| self.file(row))
    }

    /// An object by its number in file order.
    pub(super) fn object(&self, i: usize) -> ObjectRow<'_> {
        let at = HEADER + self.dirs * DIR + self.files * FILE + i * OBJECT;
        let word = short(&self.bytes, at);
        let kind = Kind::ALL.get(word % SHARES).copied().unwrap_or(Kind::Namespace);
        let name = std::str::from_utf8(self.blob(at + 4)).unwrap_or_default();
        let (body, digest) = (self.blob(at + 12), long(&self.bytes, at + 20));
        ObjectRow { kind, name, body, shares: word >= SHARES, digest }
    }

    /// The number of the object in force with this name.
    pub(super) fn find(&self, slot: u8, name: &str) -> Option<usize> {
        let row = partition(self.index, |i| self.key(i) < (slot, name));
        (row < self.index && self.key(row) == (slot, name)).then(|| self.indexed(row))
    }

    /// The objects in force of a slot, by name.
    pub(super) fn of(&self, slot: u8) -> impl Iterator<Item = ObjectRow<'_>> + Clone {
        let first = partition(self.index, |i| self.key(i).0 < slot);
        let end = partition(self.index, |i| self.key(i).0 <= slot);
        (first..end).map(|i| self.object(self.indexed(i)))
    }

    fn indexed(&self, row: usize) -> usize {
        let tables = HEADER + self.dirs * DIR + self.files * FILE + self.objects * OBJECT;
        short(&self.bytes, tables + row * INDEX)
    }

    fn key(&self, row: usize) -> (u8, &str) {
        let object = self.object(self.indexed(row));
        (slot(object.kind), object.name)
    }

    /// What an (offset, length) pair at `at` points to.
    fn blob(&self, at: usize) -> &[u8] {
        let start = short(&self.bytes, at);
        self.bytes.get(start..start + short(&self.bytes, at + 4)).unwrap_or_default()
    }

    fn path(&self, at: usize) -> &CStr {
        CStr::from_bytes_with_nul(self.blob(at)).unwrap_or_default()
    }

    fn stamp(&self, at: usize) -> Stamp {
        let words = self.bytes.get(at..at + 32).map(<[u8]>::as_chunks::<8>);
        let Some((&[inode, size, modified, changed], [])) = words else { return Stamp::NEVER };
        let (inode, size) = (u64::from_le_bytes(inode), u64::from_le_bytes(size));
        Stamp { inode, size, modified: i64::from_le_bytes(modified), changed: i64::from_le_bytes(changed) }
    }
}

/// The least `i` in `0..len` for which `before(i)` is false; `before` is true, then false.
fn partition(len: usize, before: impl Fn(usize) -> bool) -> usize {
    let (mut low, mut high) = (0, len);
    while low < high {
        let middle = low.midpoint(high);
        if before(middle) { low = middle + 1 } else { high = middle }
    }
    low
}

fn short(bytes: &[u8], at: usize) -> usize {
    bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, |b| u32::from_le_bytes(b) as usize)
}

fn long(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_le_bytes)
}

/// Which release wrote it: objects are compiled by rules that may differ between releases.
fn release() -> u64 {
    checksum(env!("CARGO_PKG_VERSION").as_bytes())
}

/// Finds torn files, not forgers (who may write the cache may write the objects). Four lanes, because one would wait
/// for its own multiplication: the sum is taken over the whole cache in every call.
fn checksum(bytes: &[u8]) -> u64 {
    const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
    let mix = |lane: u64, word: u64| (lane.rotate_left(23) ^ word).wrapping_mul(ODD);
    let mut lanes = [1u64, 2, 3, 4];
    let (blocks, rest) = bytes.as_chunks::<32>();
    for block in blocks {
        let (words, _) = block.as_chunks::<8>();
        for (lane, word) in lanes.iter_mut().zip(words) {
            *lane = mix(*lane, u64::from_le_bytes(*word));
        }
    }
    let sum = lanes.into_iter().fold(bytes.len() as u64, mix);
    rest.iter().fold(sum, |sum, byte| mix(sum, u64::from(*byte)))
}

#[cfg(test)]
mod tests;
