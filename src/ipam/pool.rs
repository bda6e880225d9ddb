//! Which block of a pool a node should take its next address from.
//!
//! In: a pool, the summary of its blocks, a node, the time. Out: one block, and what taking from it means. Pure.
//!
//! The order is Calico's: a block of one's own; a free block; an empty block of another node; one address of another
//! node's block. Its figures for a new block's place are too: nodes begin at different places, so that they seldom race.
//! Nobody deletes a block, so of free blocks one that exists goes first: else every node that comes and goes leaves one behind.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::summary::{Rank, Summary, node_hash, taken_in};
use crate::addr::{Cidr, address_bits, address_from_bits};
use crate::egress::model::Pool;
use crate::hash::stable;

/// What taking an address from a block means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// The node has claimed it before.
    Affine,
    /// Nobody has: it becomes the node's.
    Free,
    /// Another node has, and uses none of it: it becomes this node's.
    Reclaimed,
    /// Another node has, and lends one address.
    Borrowed,
}

/// A block to take an address from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Choice {
    /// What that means.
    pub source: Source,
    /// The block; it may not exist yet.
    pub block: Cidr,
}

/// The best block for a node that is none of `tried`; `None` if the pool has nothing for it.
///
/// `taken`: addresses that are in use and not in this pool's books.
pub fn choose(
    pool: &Pool,
    summary: &Summary,
    node: &str,
    now: u64,
    taken: &BTreeSet<IpAddr>,
    tried: &BTreeSet<Cidr>,
) -> Option<Choice> {
    let scan = scan(pool, summary, node, now, taken, tried);
    let found = |source: Source| move |block: Cidr| Choice { source, block };
    let fresh = || free_block(pool, summary, node, taken, tried);
    let affine = scan.affine.map(|(_, block)| block);
    affine
        .map(found(Source::Affine))
        .or(scan.unclaimed.map(|(_, block)| block).map(found(Source::Free)))
        .or_else(|| fresh().map(found(Source::Free)))
        .or(scan.vacant.map(|(_, block)| block).map(found(Source::Reclaimed)))
        .or(scan.lent.filter(|_| !pool.strict_affinity).map(|(_, block)| block).map(found(Source::Borrowed)))
}

/// The best existing block of each kind.
#[derive(Default)]
struct Scan {
    affine: Option<(Rank, Cidr)>,
    unclaimed: Option<((bool, u64), Cidr)>,
    vacant: Option<((u64, u64), Cidr)>,
    lent: Option<((Rank, u64), Cidr)>,
}

fn scan(
    pool: &Pool,
    summary: &Summary,
    node: &str,
    now: u64,
    taken: &BTreeSet<IpAddr>,
    tried: &BTreeSet<Cidr>,
) -> Scan {
    let mut scan = Scan::default();
    let hash = node_hash(node);
    // Nodes that look for a block at the same moment should not all go for the same one.
    let distance = |block: Cidr| stable(node.as_bytes()) ^ stable_bits(block);
    for brief in summary.blocks.iter().filter(|b| pool.cidr.covers(b.cidr) && !tried.contains(&b.cidr)) {
        let Some(rank) = summary.rank(brief, now, pool.cooldown_seconds, taken) else { continue };
        if brief.affinity == hash {
            keep_least(&mut scan.affine, (rank, brief.cidr));
        } else if brief.affinity == 0 {
            // Not the one that was freed first: all would know which that is.
            let was_given = rank.0;
            keep_least(&mut scan.unclaimed, ((was_given, distance(brief.cidr)), brief.cidr));
        } else if let Some(since) = summary.vacant_since(brief, now, pool.cooldown_seconds) {
            keep_least(&mut scan.vacant, ((since, distance(brief.cidr)), brief.cidr));
        } else {
            keep_least(&mut scan.lent, ((rank, distance(brief.cidr)), brief.cidr));
        }
    }
    scan
}

fn keep_least<T: Ord>(best: &mut Option<T>, found: T) {
    if best.as_ref().is_none_or(|best| found < *best) {
        *best = Some(found);
    }
}

fn stable_bits(block: Cidr) -> u64 {
    stable(&address_bits(block.first()).to_le_bytes())
}

/// The first block that does not exist, counted from a place that the node's name decides, round the pool.
fn free_block(
    pool: &Pool,
    summary: &Summary,
    node: &str,
    taken: &BTreeSet<IpAddr>,
    tried: &BTreeSet<Cidr>,
) -> Option<Cidr> {
    let bits = pool.cidr.family().bits();
    let prefix = pool.block_size.clamp(pool.cidr.prefix(), bits);
    let size = 1u128.checked_shl(u32::from(bits - prefix))?;
    let count = 1u128.checked_shl(u32::from(prefix - pool.cidr.prefix())).unwrap_or(u128::MAX);
    let first = address_bits(pool.cidr.first());
    let last = first + (count - 1) * size;
    let start = first + u128::from(stable(node.as_bytes())) % count * size;
    let walk = Walk { pool, summary, prefix, size, taken, tried };
    walk.leg(start, last).or_else(|| start.checked_sub(size).and_then(|end| walk.leg(first, end)))
}

struct Walk<'a> {
    pool: &'a Pool,
    summary: &'a Summary,
    prefix: u8,
    size: u128,
    taken: &'a BTreeSet<IpAddr>,
    tried: &'a BTreeSet<Cidr>,
}

impl Walk<'_> {
    /// From one block to another, both included.
    fn leg(&self, from: u128, to: u128) -> Option<Cidr> {
        let family = self.pool.cidr.family();
        let blocks = &self.summary.blocks;
        let mut block = Cidr::covering(address_from_bits(family, from), self.prefix);
        let mut next = blocks.partition_point(|b| b.cidr.last() < block.first());
        loop {
            let begin = address_bits(block.first());
            if begin > to {
                return None;
            }
            while blocks.get(next).is_some_and(|b| b.cidr.last() < block.first()) {
                next += 1;
            }
            // Blocks of another size stay from a time when the pool's block size was another one. They overlap.
            let over = match blocks.get(next) {
                Some(b) if b.cidr.overlaps(block) => {
                    address_bits(b.cidr.last()).max(address_bits(block.last()))
                }
                _ if self.is_spoilt(block) => address_bits(block.last()),
                _ => return Some(block),
            };
            let beyond = over.checked_add(1)?;
            // The masks of `covering` round down, and `beyond` is aligned: both ends are ends of blocks.
            block = Cidr::covering(address_from_bits(family, beyond), self.prefix);
            if address_bits(block.first()) <= begin {
                return None; // the last block of the family: `beyond` came round to the first
            }
        }
    }

    fn is_spoilt(&self, block: Cidr) -> bool {
        self.tried.contains(&block) || taken_in(self.taken, block).count() as u128 >= self.size
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::super::block::Block;
    use super::super::block::tests::tenant;
    use super::*;

    /// A pool with the defaults of an `EgressPool`.
    pub(crate) fn pool(name: &str, cidr: &str, block_size: u8) -> Pool {
        Pool::new(name, cidr.parse().unwrap(), block_size)
    }

    const NOTHING: BTreeSet<IpAddr> = BTreeSet::new();
    const NONE: BTreeSet<Cidr> = BTreeSet::new();

    fn block(cidr: &str, node: Option<&str>, leased: usize) -> Block {
        let mut block = Block::new("p", cidr.parse().unwrap(), node);
        for n in 0..leased {
            let ip = block.cidr.nth(n as u128).unwrap();
            block.take(ip, &tenant(&format!("pod:{cidr}-{n}"), "c"), 1);
        }
        block
    }

    fn chosen(pool: &Pool, blocks: &[Block], node: &str) -> Option<(Source, String)> {
        let summary = Summary::of(blocks, []);
        choose(pool, &summary, node, 1000, &NOTHING, &NONE).map(|c| (c.source, c.block.to_string()))
    }

    #[test]
    fn own_block_then_nobodys_then_a_new_one_then_vacant_then_borrowed() {
        let mut pool = pool("p", "10.0.0.0/29", 31);
        let own = block("10.0.0.2/31", Some("one"), 1);
        let full = |n: u8, node| block(&format!("10.0.0.{n}/31"), Some(node), 2);
        let (source, _) = chosen(&pool, &[own, full(0, "two")], "one").unwrap();
        assert_eq!(source, Source::Affine);

        let nobodys = [full(0, "two"), full(2, "two"), block("10.0.0.4/31", None, 1)];
        assert_eq!(chosen(&pool, &nobodys, "one"), Some((Source::Free, "10.0.0.4/31".to_owned())));

        let three = [full(0, "two"), full(2, "two"), full(4, "one")];
        assert_eq!(chosen(&pool, &three, "one"), Some((Source::Free, "10.0.0.6/31".to_owned())));

        let mut four = three.to_vec();
        four.push(block("10.0.0.6/31", Some("two"), 0));
        assert_eq!(chosen(&pool, &four, "one"), Some((Source::Reclaimed, "10.0.0.6/31".to_owned())));

        four[3] = block("10.0.0.6/31", None, 1);
        assert_eq!(chosen(&pool, &four, "one"), Some((Source::Free, "10.0.0.6/31".to_owned())));

        four[3] = block("10.0.0.6/31", Some("two"), 1);
        assert_eq!(chosen(&pool, &four, "one"), Some((Source::Borrowed, "10.0.0.6/31".to_owned())));
        pool.strict_affinity = true;
        assert_eq!(chosen(&pool, &four, "one"), None);
    }

    #[test]
    fn the_walk_for_a_free_block_finds_the_last_one_from_everywhere() {
        for (cidr, size) in [
            ("10.0.0.0/26", 31),
            ("255.255.255.192/26", 31),
            ("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffc0/122", 127),
        ] {
            let pool = pool("p", cidr, size);
            let all: Vec<Cidr> =
                (0..32).map(|n| Cidr::covering(pool.cidr.nth(n * 2).unwrap(), size)).collect();
            for free in &all {
                let blocks: Vec<Block> =
                    all.iter().filter(|c| *c != free).map(|c| block(&c.to_string(), Some("x"), 2)).collect();
                for node in ["one", "two", "three", "four"] {
                    assert_eq!(
                        chosen(&pool, &blocks, node),
                        Some((Source::Free, free.to_string())),
                        "{node}"
                    );
                }
            }
            let blocks: Vec<Block> = all.iter().map(|c| block(&c.to_string(), Some("x"), 2)).collect();
            assert_eq!(chosen(&pool, &blocks, "one"), None);
        }
    }

    #[test]
    fn blocks_of_another_size_are_used_and_never_overlapped() {
        let small = [block("10.0.0.0/31", Some("x"), 2), block("10.0.0.8/31", Some("x"), 2)];
        for n in 0..8 {
            let wide = pool("p", "10.0.0.0/28", 30);
            let (_, block) = chosen(&wide, &small, &format!("node-{n}")).unwrap();
            assert!(["10.0.0.4/30", "10.0.0.12/30"].contains(&block.as_str()), "{block}");
        }
        let large = [block("10.0.0.0/29", Some("x"), 8)];
        let narrow = pool("p", "10.0.0.0/28", 31);
        for n in 0..8 {
            let (_, block) = chosen(&narrow, &large, &format!("node-{n}")).unwrap();
            assert!("10.0.0.8/29".parse::<Cidr>().unwrap().covers(block.parse().unwrap()), "{block}");
        }
    }

    #[test]
    fn addresses_in_use_elsewhere_spoil_a_block_only_if_they_fill_it() {
        let pool = pool("p", "10.0.0.0/31", 31);
        let taken: BTreeSet<IpAddr> = ["10.0.0.0".parse().unwrap()].into();
        assert!(choose(&pool, &Summary::default(), "one", 0, &taken, &NONE).is_some());
        let taken: BTreeSet<IpAddr> = ["10.0.0.0".parse().unwrap(), "10.0.0.1".parse().unwrap()].into();
        assert_eq!(choose(&pool, &Summary::default(), "one", 0, &taken, &NONE), None);
    }

    #[test]
    fn a_pool_of_one_address_and_one_of_2_to_the_64_have_blocks() {
        assert_eq!(chosen(&pool("p", "10.0.0.7/32", 32), &[], "one").unwrap().1, "10.0.0.7/32");
        let (_, block) = chosen(&pool("p", "fd00::/64", 127), &[], "one").unwrap();
        assert!("fd00::/64".parse::<Cidr>().unwrap().covers(block.parse().unwrap()));
    }
}
