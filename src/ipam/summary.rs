//! What is known of all blocks of a pool without reading them: enough to choose a block, to find an owner's or a holder's
//! address, and to say how full the pool is.
//!
//! In: blocks, one by one. Out: answers in microseconds for tens of thousands of leases. Names are kept as 32-bit hashes:
//! every answer is a hint, to be checked in the block itself. Pure.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::ops::Range;

use super::block::{Block, State, cools};
use super::fill::Fill;
use super::lease::{Holder, Owner};
use crate::addr::{Cidr, address_bits, address_from_bits};
use crate::hash::stable32;

/// What is known of a pool's blocks.
///
/// Two flat lists, not a map of lists: a pool of 65,536 addresses is read in one piece for every claim, and 16,000 small
/// allocations would cost more than all that is done with them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Summary {
    /// By address, without doubles.
    pub(super) blocks: Vec<Brief>,
    /// The blocks' allocations, in the same order.
    pub(super) slots: Vec<Slot>,
}

/// One block in short.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Brief {
    pub(super) cidr: Cidr,
    /// Hash of the node that claimed it; 0: none.
    pub(super) affinity: u32,
    /// It exists and cannot be read: nothing of it may be given.
    pub(super) broken: bool,
    /// Where its allocations begin in `slots`.
    pub(super) start: u32,
    /// How many there are.
    pub(super) len: u32,
}

/// One allocation in short.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Slot {
    /// Address, counted from the block's first. (Of a block larger than 2^64 addresses, the first 2^64 are enough.)
    pub(super) offset: u64,
    /// Hash of the owner.
    pub(super) owner: u32,
    /// Hash of the holder; 0: none.
    pub(super) holder: u32,
    /// Hash of the holder's node; 0: none.
    pub(super) node: u32,
    /// When it was freed, plus one; 0: it was not.
    pub(super) freed: u64,
}

pub(super) fn node_hash(node: &str) -> u32 {
    stable32(node.as_bytes())
}

fn owner_hash(owner: &Owner) -> u32 {
    stable32(owner.to_string().as_bytes())
}

fn holder_hash(holder: &Holder) -> u32 {
    stable32(holder.to_string().as_bytes())
}

impl Slot {
    fn state(&self, now: u64, cooldown: u32) -> State {
        match (self.holder, self.freed) {
            (0, 0) => State::Reserved,
            (0, at) if cools(at - 1, now, cooldown) => State::Cooling,
            (0, _) => State::Free,
            _ => State::Leased,
        }
    }
}

impl Brief {
    fn range(&self) -> Range<usize> {
        self.start as usize..(self.start + self.len) as usize
    }

    fn address(&self, slot: &Slot) -> IpAddr {
        address_from_bits(self.cidr.family(), address_bits(self.cidr.first()) + u128::from(slot.offset))
    }
}

/// How soon an address of a block should be given: never given before, else by when it was freed.
pub(super) type Rank = (bool, u64);

impl Summary {
    /// Of these blocks, and those that exist and cannot be read.
    pub fn of<'a>(
        blocks: impl IntoIterator<Item = &'a Block>,
        broken: impl IntoIterator<Item = Cidr>,
    ) -> Summary {
        let mut summary = Summary::default();
        let mut all: Vec<(Cidr, Option<&Block>)> = blocks.into_iter().map(|b| (b.cidr, Some(b))).collect();
        all.extend(broken.into_iter().map(|cidr| (cidr, None)));
        all.sort_by_key(|(cidr, _)| *cidr);
        all.dedup_by_key(|(cidr, _)| *cidr);
        for (cidr, block) in all {
            let slots = block.map(slots_of).unwrap_or_default();
            summary.blocks.push(brief(cidr, block, summary.slots.len(), slots.len()));
            summary.slots.extend(slots);
        }
        summary
    }

    /// Learns what a block is now.
    pub fn learn(&mut self, block: &Block) {
        let (brief, slots) = in_short(block);
        self.place(brief, slots);
    }

    /// The same of a block that is known in short only; where its allocations begin is found here.
    pub(super) fn place(&mut self, block: Brief, slots: Vec<Slot>) {
        let (at, old) = match self.blocks.binary_search_by_key(&block.cidr, |b| b.cidr) {
            Ok(at) => (at, self.blocks[at].range()),
            Err(at) => {
                let start = self.blocks.get(at).map_or(self.slots.len(), |next| next.start as usize);
                self.blocks.insert(at, brief(block.cidr, None, start, 0));
                (at, start..start)
            }
        };
        let (before, after) = (old.len(), slots.len());
        self.blocks[at] = Brief { start: self.blocks[at].start, len: narrow(after), ..block };
        self.slots.splice(old, slots);
        if before != after {
            let mut start = self.blocks[at].start;
            for later in &mut self.blocks[at..] {
                later.start = start;
                start += later.len;
            }
        }
    }

    /// Addresses that may be this owner's.
    pub fn of_owner(&self, owner: &Owner) -> Vec<(Cidr, IpAddr)> {
        let hash = owner_hash(owner);
        self.find(|slot| slot.owner == hash)
    }

    /// Addresses that this container may hold.
    pub fn of_holder(&self, holder: &Holder) -> Vec<(Cidr, IpAddr)> {
        let hash = holder_hash(holder);
        self.find(|slot| slot.holder == hash)
    }

    fn find(&self, wanted: impl Fn(&Slot) -> bool) -> Vec<(Cidr, IpAddr)> {
        let hits = self.slots.iter().enumerate().filter(|(_, slot)| wanted(slot));
        hits.map(|(n, slot)| {
            let block = self.blocks[self.blocks.partition_point(|b| b.range().end <= n)];
            (block.cidr, block.address(slot))
        })
        .collect()
    }

    /// Blocks that this node may have claimed.
    pub fn claimed_by(&self, node: &str) -> Vec<Cidr> {
        let hash = node_hash(node);
        self.blocks.iter().filter(|b| b.affinity == hash).map(|b| b.cidr).collect()
    }

    /// Blocks in which this node may hold something.
    pub fn held_on(&self, node: &str) -> Vec<Cidr> {
        let hash = node_hash(node);
        self.blocks_with(|slot| slot.node == hash)
    }

    /// Blocks in which something is reserved.
    pub fn with_reserved(&self) -> Vec<Cidr> {
        self.blocks_with(|slot| slot.holder == 0 && slot.freed == 0)
    }

    fn blocks_with(&self, wanted: impl Fn(&Slot) -> bool) -> Vec<Cidr> {
        let has = |b: &&Brief| self.slots[b.range()].iter().any(&wanted);
        self.blocks.iter().filter(has).map(|b| b.cidr).collect()
    }

    /// The block that holds an address.
    pub fn block_of(&self, ip: IpAddr) -> Option<Cidr> {
        let after = self.blocks.partition_point(|b| {
            b.cidr.family() < crate::addr::Family::of(ip)
                || b.cidr.family() == crate::addr::Family::of(ip) && b.cidr.first() <= ip
        });
        self.blocks[..after].last().map(|b| b.cidr).filter(|cidr| cidr.contains(ip))
    }

    /// Whether any block has addresses of this range.
    pub(super) fn has_block_in(&self, cidr: Cidr) -> bool {
        self.blocks.iter().any(|block| block.cidr.overlaps(cidr))
    }

    /// Whether an owner has this address: leased or reserved.
    pub(super) fn is_had(&self, ip: IpAddr) -> bool {
        let found = self.block_of(ip).map(|cidr| self.blocks.binary_search_by_key(&cidr, |b| b.cidr));
        let Some(Ok(at)) = found else { return false };
        let block = self.blocks[at];
        self.slots[block.range()].iter().any(|slot| slot.freed == 0 && block.address(slot) == ip)
    }

    /// Addresses inside `cidr` that are not free.
    pub fn busy_in(&self, cidr: Cidr, now: u64, cooldown: u32) -> BTreeSet<IpAddr> {
        let mut busy = BTreeSet::new();
        for block in self.blocks.iter().filter(|b| b.cidr.overlaps(cidr)) {
            for slot in &self.slots[block.range()] {
                if slot.state(now, cooldown) != State::Free && cidr.contains(block.address(slot)) {
                    busy.insert(block.address(slot));
                }
            }
        }
        busy
    }

    /// How full a pool is: its addresses that lie inside `cidr`, by state.
    pub fn fill(&self, cidr: Cidr, now: u64, cooldown: u32) -> Fill {
        let mut fill = Fill { size: cidr.size(), ..Fill::default() };
        for block in self.blocks.iter().filter(|b| cidr.overlaps(b.cidr)) {
            for slot in &self.slots[block.range()] {
                match slot.state(now, cooldown) {
                    State::Leased => fill.leased += 1,
                    State::Reserved => fill.reserved += 1,
                    State::Cooling => {
                        fill.cooling += 1;
                        let end = slot.freed - 1 + u64::from(cooldown);
                        fill.next_free = Some(fill.next_free.map_or(end, |next| next.min(end)));
                    }
                    State::Free => {}
                }
            }
        }
        fill
    }

    /// How soon an address of this block should be given; `None` if there is none to give.
    pub(super) fn rank(
        &self,
        block: &Brief,
        now: u64,
        cooldown: u32,
        taken: &BTreeSet<IpAddr>,
    ) -> Option<Rank> {
        if block.broken {
            return None;
        }
        let slots = &self.slots[block.range()];
        let known: u128 = slots.len() as u128;
        let elsewhere =
            taken_in(taken, block.cidr).filter(|ip| !slots.iter().any(|s| block.address(s) == *ip));
        if known + (elsewhere.count() as u128) < block.cidr.size() {
            return Some((false, 0));
        }
        let free = slots
            .iter()
            .filter(|s| s.state(now, cooldown) == State::Free && !taken.contains(&block.address(s)));
        free.map(|s| (true, s.freed)).min()
    }

    /// Whether every address of the block is free, and when the last one became so.
    pub(super) fn vacant_since(&self, block: &Brief, now: u64, cooldown: u32) -> Option<u64> {
        let slots = &self.slots[block.range()];
        let vacant = !block.broken && slots.iter().all(|s| s.state(now, cooldown) == State::Free);
        vacant.then(|| slots.iter().map(|s| s.freed).max().unwrap_or(0))
    }
}

/// The taken addresses inside a block.
pub(super) fn taken_in(taken: &BTreeSet<IpAddr>, cidr: Cidr) -> impl Iterator<Item = IpAddr> + '_ {
    taken.range(cidr.first()..=cidr.last()).copied()
}

fn brief(cidr: Cidr, block: Option<&Block>, start: usize, len: usize) -> Brief {
    let affinity = block.and_then(|b| b.affinity.as_deref()).map_or(0, node_hash);
    Brief { cidr, affinity, broken: block.is_none(), start: narrow(start), len: narrow(len) }
}

/// More than 2^32 leases do not fit into a machine that runs this.
fn narrow(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// A block as a summary has it, wherever its allocations begin there.
pub(super) fn in_short(block: &Block) -> (Brief, Vec<Slot>) {
    let slots = slots_of(block);
    (brief(block.cidr, Some(block), 0, slots.len()), slots)
}

fn slots_of(block: &Block) -> Vec<Slot> {
    let base = address_bits(block.cidr.first());
    let slot = |(ip, a): (&IpAddr, &super::block::Allocation)| Slot {
        offset: u64::try_from(address_bits(*ip) - base).unwrap_or(u64::MAX),
        owner: owner_hash(&a.owner),
        holder: a.holder.as_ref().map_or(0, holder_hash),
        node: a.holder.as_ref().map_or(0, |h| node_hash(&h.node)),
        freed: a.freed_at.map_or(0, |at| at.saturating_add(1)),
    };
    block.allocations.iter().map(slot).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::block::tests::tenant;
    use super::super::block::{After, Block};
    use super::*;

    /// A block of four with addresses in the states that the digits say: 0 never given, 1 leased, 2 reserved, 3 freed.
    fn block(n: u8, states: &[u8]) -> Block {
        let cidr = Cidr::covering(IpAddr::from([10, 0, 0, n * 4]), 30);
        let mut block = Block::new("p", cidr, n.is_multiple_of(2).then_some("one"));
        for (ordinal, state) in states.iter().enumerate() {
            let ip = cidr.nth(ordinal as u128).unwrap();
            let tenant = tenant(&format!("pod:{n}-{ordinal}"), &format!("c{n}-{ordinal}"));
            match state {
                1 => _ = block.take(ip, &tenant, 1),
                2 | 3 => {
                    block.take(ip, &tenant, 1);
                    block.part(ip, if *state == 2 { After::Reserved } else { After::Freed }, 100);
                }
                _ => {}
            }
        }
        block
    }

    proptest! {
        #[test]
        fn learning_block_by_block_is_knowing_them_all(
            changes in prop::collection::vec((0u8..20, prop::collection::vec(0u8..4, 4)), 0..40)
        ) {
            let mut last = std::collections::BTreeMap::new();
            let mut learned = Summary::default();
            for (n, states) in &changes {
                let block = block(*n, states);
                learned.learn(&block);
                last.insert(*n, block);
            }
            prop_assert_eq!(&learned, &Summary::of(last.values(), []));
            for block in last.values() {
                for (ip, allocation) in &block.allocations {
                    prop_assert!(learned.of_owner(&allocation.owner).contains(&(block.cidr, *ip)));
                    if let Some(holder) = &allocation.holder {
                        prop_assert_eq!(learned.of_holder(holder), vec![(block.cidr, *ip)]);
                    }
                }
                prop_assert_eq!(learned.block_of(block.cidr.last()), Some(block.cidr));
                let brief = learned.blocks.iter().find(|b| b.cidr == block.cidr).unwrap();
                let none = BTreeSet::new();
                for now in [100, 159, 160] {
                    prop_assert_eq!(learned.rank(brief, now, 60, &none).is_some(), block.vacancy(now, 60, &none).is_some());
                    prop_assert_eq!(learned.vacant_since(brief, now, 60).is_some(), block.is_vacant(now, 60));
                }
            }
        }
    }

    #[test]
    fn a_broken_block_gives_nothing_and_is_still_known() {
        let summary = Summary::of([&block(0, &[1, 3])], ["10.0.0.4/30".parse().unwrap()]);
        let brief = summary.blocks[1];
        assert_eq!(summary.rank(&brief, 1000, 60, &BTreeSet::new()), None);
        assert_eq!(summary.vacant_since(&brief, 1000, 60), None);
        assert_eq!(summary.block_of("10.0.0.5".parse().unwrap()), Some("10.0.0.4/30".parse().unwrap()));
        assert_eq!(
            summary.fill("10.0.0.0/29".parse().unwrap(), 100, 60).to_string(),
            "1 of 8 leased, 1 cooling, 0 reserved"
        );
    }
}
