//! A summary as bytes, so that one read tells what 16,000 block files say.
//!
//! In: a summary and the state of the folder it was made from. Out: bytes; and back, or nothing if anything is wrong with
//! them: a cache can always be made again. Pure.
//!
//! Little endian. Header: magic, state (clean or not), folder's inode and mtime, counts, checksum of the body, length of the
//! journal, checksum of header and journal. Body: 28 bytes per block, then 28 per allocation. Journal: blocks that changed since,
//! each followed by its allocations, so that a claim writes a hundred bytes and not a megabyte. The magic changes with the format.

use super::block::Block;
use super::summary::{Brief, Slot, Summary, in_short};
use crate::addr::{Cidr, Family, address_bits, address_from_bits};

const MAGIC: [u8; 8] = *b"egretS\x00\x02";
/// Length of the header.
pub(super) const HEADER: usize = 80;
/// Where the header says whether the rest can be believed.
pub(super) const STATE_AT: u64 = 8;
/// The bytes there if it can.
pub(super) const CLEAN: [u8; 4] = *b"good";
/// The bytes there while a block is being written.
pub(super) const WRITING: [u8; 4] = *b"busy";
const ENTRY: usize = 28;
/// A journal of so many blocks is long enough: to take one in costs each reader 0.06 ms in a body of 16,000.
const LONGEST: usize = 16;

/// What a folder looked like. Any file renamed into it, made or removed changes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Folder {
    pub(super) inode: u64,
    pub(super) seconds: i64,
    pub(super) nanoseconds: i64,
}

/// What is in a cache file, as far as who adds to it must know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Written {
    blocks: usize,
    slots: usize,
    /// Checksum of the body.
    sum: u64,
    journal: Vec<u8>,
    /// Blocks in the journal.
    added: usize,
}

impl Written {
    /// Adds what a block is now. Returns the bytes that go into the file and where; `None`: the journal is long enough, and a new
    /// body is due.
    pub(super) fn add(&mut self, block: &Block) -> Option<(u64, Vec<u8>)> {
        if self.added == LONGEST {
            return None;
        }
        let at = HEADER + (self.blocks + self.slots) * ENTRY + self.journal.len();
        let (brief, slots) = in_short(block);
        let mut bytes = Vec::with_capacity((1 + slots.len()) * ENTRY);
        put_brief(&mut bytes, &brief);
        slots.iter().for_each(|slot| put_slot(&mut bytes, slot));
        self.journal.extend_from_slice(&bytes);
        self.added += 1;
        Some((at as u64, bytes))
    }

    /// The header under which all this is believed.
    pub(super) fn header(&self, folder: Folder) -> Vec<u8> {
        let mut header = Vec::with_capacity(HEADER);
        header.extend(MAGIC);
        header.extend(CLEAN);
        header.extend([0; 4]);
        header.extend(folder.inode.to_le_bytes());
        header.extend(folder.seconds.to_le_bytes());
        header.extend(folder.nanoseconds.to_le_bytes());
        header.extend((self.blocks as u64).to_le_bytes());
        header.extend((self.slots as u64).to_le_bytes());
        header.extend(self.sum.to_le_bytes());
        header.extend((self.journal.len() as u64).to_le_bytes());
        let sum = checksum(&header, &self.journal);
        header.extend(sum.to_le_bytes());
        header
    }
}

/// A body, and what is then written.
pub(super) fn encode(summary: &Summary) -> (Vec<u8>, Written) {
    let mut body = Vec::with_capacity((summary.blocks.len() + summary.slots.len()) * ENTRY);
    summary.blocks.iter().for_each(|block| put_brief(&mut body, block));
    summary.slots.iter().for_each(|slot| put_slot(&mut body, slot));
    let written = Written {
        blocks: summary.blocks.len(),
        slots: summary.slots.len(),
        sum: checksum(&[], &body),
        journal: Vec::new(),
        added: 0,
    };
    (body, written)
}

fn put_brief(out: &mut Vec<u8>, block: &Brief) {
    let family = if block.cidr.family() == Family::V4 { 4 } else { 6 };
    out.extend([family, block.cidr.prefix(), u8::from(block.broken), 0]);
    out.extend(block.affinity.to_le_bytes());
    out.extend(block.len.to_le_bytes());
    out.extend(address_bits(block.cidr.first()).to_le_bytes());
}

fn put_slot(out: &mut Vec<u8>, slot: &Slot) {
    out.extend(slot.offset.to_le_bytes());
    out.extend(slot.owner.to_le_bytes());
    out.extend(slot.holder.to_le_bytes());
    out.extend(slot.node.to_le_bytes());
    out.extend(slot.freed.to_le_bytes());
}

fn brief_in(entry: &[u8], start: u32) -> Option<Brief> {
    let family = if entry[0] == 4 { Family::V4 } else { Family::V6 };
    let bits = u128::from_le_bytes(entry[12..28].try_into().ok()?);
    Some(Brief {
        cidr: Cidr::covering(address_from_bits(family, bits), entry[1]),
        affinity: u32::from_le_bytes(entry[4..8].try_into().ok()?),
        broken: entry[2] != 0,
        start,
        len: u32::from_le_bytes(entry[8..12].try_into().ok()?),
    })
}

fn slot_in(entry: &[u8]) -> Option<Slot> {
    Some(Slot {
        offset: u64::from_le_bytes(entry[0..8].try_into().ok()?),
        owner: u32::from_le_bytes(entry[8..12].try_into().ok()?),
        holder: u32::from_le_bytes(entry[12..16].try_into().ok()?),
        node: u32::from_le_bytes(entry[16..20].try_into().ok()?),
        freed: u64::from_le_bytes(entry[20..28].try_into().ok()?),
    })
}

/// A file that says: do not believe me.
pub(super) fn unbelievable() -> Vec<u8> {
    let mut out = Vec::from(MAGIC);
    out.extend(WRITING);
    out.resize(HEADER, 0);
    out
}

/// The summary, if the bytes are whole, clean, and made from this very folder; and what is written there.
pub(super) fn decode(bytes: &[u8], folder: Folder) -> Option<(Summary, Written)> {
    let (header, rest) = bytes.split_at_checked(HEADER)?;
    let word = |at: usize| header.get(at..at + 8).and_then(|b| b.try_into().ok()).map(u64::from_le_bytes);
    let signed = |at: usize| word(at).map(u64::cast_signed);
    let same = (word(16)?, signed(24)?, signed(32)?) == (folder.inode, folder.seconds, folder.nanoseconds);
    if header[..8] != MAGIC || header[8..12] != CLEAN || !same {
        return None;
    }
    let [blocks, slots, journal] = [word(40)?, word(48)?, word(64)?].map(usize::try_from);
    let (blocks, slots, sum) = (blocks.ok()?, slots.ok()?, word(56)?);
    // A shorter summary written over a longer one leaves the longer one's tail behind.
    let (body, rest) = rest.split_at_checked(blocks.checked_add(slots)?.checked_mul(ENTRY)?)?;
    let journal = rest.get(..journal.ok()?)?;
    if checksum(&header[..HEADER - 8], journal) != word(HEADER - 8)? || checksum(&[], body) != sum {
        return None;
    }
    let mut summary = body_of(body.split_at(blocks * ENTRY))?;
    let added = take_in(journal, &mut summary)?;
    Some((summary, Written { blocks, slots, sum, journal: journal.to_vec(), added }))
}

fn body_of((blocks, slots): (&[u8], &[u8])) -> Option<Summary> {
    let mut summary = Summary::default();
    let mut start = 0u32;
    // The journal may bring more.
    summary.blocks.reserve(blocks.len() / ENTRY + 2 * LONGEST);
    for entry in blocks.chunks_exact(ENTRY) {
        let block = brief_in(entry, start)?;
        start = start.checked_add(block.len)?;
        summary.blocks.push(block);
    }
    summary.slots.reserve(slots.len() / ENTRY + 2 * LONGEST);
    for entry in slots.chunks_exact(ENTRY) {
        summary.slots.push(slot_in(entry)?);
    }
    (start as usize == summary.slots.len()).then_some(summary)
}

/// Takes a journal in; how many blocks it had.
fn take_in(mut journal: &[u8], summary: &mut Summary) -> Option<usize> {
    let mut added = 0;
    while !journal.is_empty() {
        let (entry, rest) = journal.split_at_checked(ENTRY)?;
        let block = brief_in(entry, 0)?;
        let (slots, rest) = rest.split_at_checked(usize::try_from(block.len).ok()?.checked_mul(ENTRY)?)?;
        let slots: Option<Vec<Slot>> = slots.chunks_exact(ENTRY).map(slot_in).collect();
        summary.place(block, slots?);
        journal = rest;
        added += 1;
    }
    Some(added)
}

/// Eight bytes at a time, in four lanes that do not wait for each other: byte by byte would take longer than all the rest of a
/// claim.
fn checksum(header: &[u8], body: &[u8]) -> u64 {
    let step = |sum: u64, word: u64| (sum ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
    let mut lanes = [1u64, 2, 3, 4];
    let (blocks, rest) = body.as_chunks::<32>();
    for block in blocks {
        let (words, _) = block.as_chunks::<8>();
        for (lane, word) in lanes.iter_mut().zip(words) {
            *lane = step(*lane, u64::from_le_bytes(*word));
        }
    }
    let sum = lanes.into_iter().fold(body.len() as u64, step);
    [rest, header].into_iter().flatten().fold(sum, |sum, byte| step(sum, u64::from(*byte)))
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

    fn whole(summary: &Summary) -> Vec<u8> {
        let (body, written) = encode(summary);
        [written.header(FOLDER), body].concat()
    }

    fn decoded(bytes: &[u8], folder: Folder) -> Option<Summary> {
        decode(bytes, folder).map(|(summary, _)| summary)
    }

    /// A cache to which these blocks were added one by one, and how many it took.
    fn journalled(blocks: &[Block]) -> (Vec<u8>, usize) {
        let (body, mut written) = encode(&summary());
        let mut bytes = [written.header(FOLDER), body].concat();
        let mut taken = 0;
        for block in blocks {
            let Some((at, entry)) = written.add(block) else { break };
            assert_eq!(at as usize, bytes.len());
            bytes.extend(entry);
            bytes[..HEADER].copy_from_slice(&written.header(FOLDER));
            taken += 1;
        }
        assert_eq!(decode(&bytes, FOLDER).map(|(_, found)| found), Some(written));
        (bytes, taken)
    }

    fn changes() -> Vec<Block> {
        let mut fuller = Block::new("p", "10.0.0.0/31".parse().unwrap(), Some("two"));
        fuller.take("10.0.0.0".parse().unwrap(), &tenant("pod:a", "c"), 1);
        fuller.take("10.0.0.1".parse().unwrap(), &tenant("pod:c", "e"), 1);
        let mended = Block::new("p", "10.0.0.2/31".parse().unwrap(), None);
        let mut new = Block::new("p", "10.0.0.4/31".parse().unwrap(), Some("one"));
        new.take("10.0.0.5".parse().unwrap(), &tenant("pod:d", "f"), 1);
        let again = Block::new("p", "10.0.0.0/31".parse().unwrap(), None);
        vec![fuller, mended, new, again]
    }

    #[test]
    fn what_was_encoded_is_decoded_also_over_a_longer_one() {
        let mut bytes = whole(&summary());
        assert_eq!(decoded(&bytes, FOLDER), Some(summary()));
        bytes.extend([1; 100]);
        assert_eq!(decoded(&bytes, FOLDER), Some(summary()));
        assert_eq!(decoded(&whole(&Summary::default()), FOLDER), Some(Summary::default()));
    }

    #[test]
    fn a_journal_says_what_learning_the_same_blocks_says() {
        let mut learned = summary();
        for n in 1..=changes().len() {
            learned.learn(&changes()[n - 1]);
            assert_eq!(decoded(&journalled(&changes()[..n]).0, FOLDER), Some(learned.clone()));
        }
    }

    #[test]
    fn a_journal_is_full_some_day() {
        let many = vec![changes()[2].clone(); LONGEST + 1];
        assert_eq!(journalled(&many).1, LONGEST);
    }

    #[test]
    fn a_change_of_any_byte_or_of_the_folder_is_noticed() {
        let whole = journalled(&changes()).0;
        for at in 0..whole.len() {
            for change in [0x01, 0x80] {
                let mut bytes = whole.clone();
                bytes[at] ^= change;
                assert_eq!(decoded(&bytes, FOLDER), None, "byte {at}");
            }
            assert_eq!(decoded(&whole[..at], FOLDER), None, "cut at {at}");
        }
        for folder in [
            Folder { inode: 8, ..FOLDER },
            Folder { seconds: 0, ..FOLDER },
            Folder { nanoseconds: 6, ..FOLDER },
        ] {
            assert_eq!(decoded(&whole, folder), None);
        }
        assert_eq!(decoded(&unbelievable(), FOLDER), None);
    }
}
