//! A summary as bytes, so that one read tells what 16,000 block files say.
//!
//! In: a summary and the state of the folder it was made from. Out: bytes; and back, or nothing if anything is wrong with
//! them: a cache can always be made again. Pure.
//!
//! Little endian. Header: magic, state (clean or not), folder's inode and mtime, counts, checksum; then 28 bytes per block,
//! then 28 per allocation. The magic changes with the format.

use super::summary::{Brief, Slot, Summary};
use crate::addr::{Cidr, Family, address_bits, address_from_bits};

const MAGIC: [u8; 8] = *b"egretS\x00\x01";
/// Length of the header.
pub(super) const HEADER: usize = 64;
/// Where the header says whether the rest can be believed.
pub(super) const STATE_AT: u64 = 8;
/// The bytes there if it can.
pub(super) const CLEAN: [u8; 4] = *b"good";
/// The bytes there while a block is being written.
pub(super) const WRITING: [u8; 4] = *b"busy";
const ENTRY: usize = 28;

/// What a folder looked like. Any file renamed into it, made or removed changes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Folder {
    pub(super) inode: u64,
    pub(super) seconds: i64,
    pub(super) nanoseconds: i64,
}

/// Header and body.
pub(super) fn encode(summary: &Summary, folder: Folder) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEADER + (summary.blocks.len() + summary.slots.len()) * ENTRY);
    out.resize(HEADER, 0);
    for block in &summary.blocks {
        let family = if block.cidr.family() == Family::V4 { 4 } else { 6 };
        out.extend([family, block.cidr.prefix(), u8::from(block.broken), 0]);
        out.extend(block.affinity.to_le_bytes());
        out.extend(block.len.to_le_bytes());
        out.extend(address_bits(block.cidr.first()).to_le_bytes());
    }
    for slot in &summary.slots {
        out.extend(slot.offset.to_le_bytes());
        out.extend(slot.owner.to_le_bytes());
        out.extend(slot.holder.to_le_bytes());
        out.extend(slot.node.to_le_bytes());
        out.extend(slot.freed.to_le_bytes());
    }
    let mut header = Vec::with_capacity(HEADER);
    header.extend(MAGIC);
    header.extend(CLEAN);
    header.extend([0; 4]);
    header.extend(folder.inode.to_le_bytes());
    header.extend(folder.seconds.to_le_bytes());
    header.extend(folder.nanoseconds.to_le_bytes());
    header.extend((summary.blocks.len() as u64).to_le_bytes());
    header.extend((summary.slots.len() as u64).to_le_bytes());
    let sum = checksum(&header, &out[HEADER..]);
    header.extend(sum.to_le_bytes());
    out[..HEADER].copy_from_slice(&header);
    out
}

/// A file that says: do not believe me.
pub(super) fn unbelievable() -> Vec<u8> {
    let mut out = Vec::from(MAGIC);
    out.extend(WRITING);
    out.resize(HEADER, 0);
    out
}

/// The summary, if the bytes are whole, clean, and made from this very folder.
pub(super) fn decode(bytes: &[u8], folder: Folder) -> Option<Summary> {
    let (header, body) = bytes.split_at_checked(HEADER)?;
    let word = |at: usize| header.get(at..at + 8).and_then(|b| b.try_into().ok()).map(u64::from_le_bytes);
    let signed = |at: usize| word(at).map(u64::cast_signed);
    let same = (word(16)?, signed(24)?, signed(32)?) == (folder.inode, folder.seconds, folder.nanoseconds);
    if header[..8] != MAGIC || header[8..12] != CLEAN || !same {
        return None;
    }
    let (blocks, slots) = (usize::try_from(word(40)?).ok()?, usize::try_from(word(48)?).ok()?);
    let length = blocks.checked_add(slots)?.checked_mul(ENTRY)?;
    // A shorter summary written over a longer one leaves the longer one's tail behind.
    let body = body.get(..length)?;
    if checksum(&header[..HEADER - 8], body) != word(HEADER - 8)? {
        return None;
    }
    let (blocks, slots) = body.split_at(blocks * ENTRY);
    let mut summary = Summary::default();
    let mut start = 0u32;
    summary.blocks.reserve(blocks.len() / ENTRY + 1);
    for entry in blocks.chunks_exact(ENTRY) {
        let family = if entry[0] == 4 { Family::V4 } else { Family::V6 };
        let bits = u128::from_le_bytes(entry[12..28].try_into().ok()?);
        let len = u32::from_le_bytes(entry[8..12].try_into().ok()?);
        summary.blocks.push(Brief {
            cidr: Cidr::covering(address_from_bits(family, bits), entry[1]),
            affinity: u32::from_le_bytes(entry[4..8].try_into().ok()?),
            broken: entry[2] != 0,
            start,
            len,
        });
        start = start.checked_add(len)?;
    }
    summary.slots.reserve(slots.len() / ENTRY + 1);
    for entry in slots.chunks_exact(ENTRY) {
        summary.slots.push(Slot {
            offset: u64::from_le_bytes(entry[0..8].try_into().ok()?),
            owner: u32::from_le_bytes(entry[8..12].try_into().ok()?),
            holder: u32::from_le_bytes(entry[12..16].try_into().ok()?),
            node: u32::from_le_bytes(entry[16..20].try_into().ok()?),
            freed: u64::from_le_bytes(entry[20..28].try_into().ok()?),
        });
    }
    (start as usize == summary.slots.len()).then_some(summary)
}

/// Eight bytes at a time: byte by byte would take longer than all the rest of a claim.
fn checksum(header: &[u8], body: &[u8]) -> u64 {
    let step = |sum: u64, word: u64| (sum ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
    let mut sum = body.len() as u64;
    for part in [header, body] {
        let (words, rest) = part.as_chunks::<8>();
        sum = words.iter().fold(sum, |sum, word| step(sum, u64::from_le_bytes(*word)));
        sum = rest.iter().fold(sum, |sum, byte| step(sum, u64::from(*byte)));
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::super::block::tests::tenant;
    use super::super::block::{After, Block};
    use super::*;

    const FOLDER: Folder = Folder { inode: 7, seconds: -3, nanoseconds: 5 };

    fn summary() -> Summary {
        let mut four = Block::new("p", "10.0.0.0/31".parse().unwrap(), Some("one"));
        four.take("10.0.0.1".parse().unwrap(), &tenant("pod:a", "c"), 1);
        let mut six = Block::new("p", "fd00::/64".parse().unwrap(), None);
        six.take("fd00::ffff".parse().unwrap(), &tenant("pod:b", "d"), 1);
        six.part("fd00::ffff".parse().unwrap(), After::Owner, 9);
        Summary::of([&four, &six], ["10.0.0.2/31".parse().unwrap()])
    }

    #[test]
    fn what_was_encoded_is_decoded_also_over_a_longer_one() {
        let mut bytes = encode(&summary(), FOLDER);
        assert_eq!(decode(&bytes, FOLDER), Some(summary()));
        bytes.extend([1; 100]);
        assert_eq!(decode(&bytes, FOLDER), Some(summary()));
        assert_eq!(decode(&encode(&Summary::default(), FOLDER), FOLDER), Some(Summary::default()));
    }

    #[test]
    fn a_change_of_any_byte_or_of_the_folder_is_noticed() {
        let whole = encode(&summary(), FOLDER);
        for at in 0..whole.len() {
            for change in [0x01, 0x80] {
                let mut bytes = whole.clone();
                bytes[at] ^= change;
                assert_eq!(decode(&bytes, FOLDER), None, "byte {at}");
            }
            assert_eq!(decode(&whole[..at], FOLDER), None, "cut at {at}");
        }
        for folder in [
            Folder { inode: 8, ..FOLDER },
            Folder { seconds: 0, ..FOLDER },
            Folder { nanoseconds: 6, ..FOLDER },
        ] {
            assert_eq!(decode(&whole, folder), None);
        }
        assert_eq!(decode(&unbelievable(), FOLDER), None);
    }
}
