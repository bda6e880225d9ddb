//! How long a claim takes in a large pool. The figures are printed; a release build is held to the promises, a debug build
//! to twenty times as much.

use std::time::{Duration, Instant};

use egret::addr::Cidr;
use egret::egress::model::Pool;
use egret::ipam::{Block, DirStore, How, Source, Store, block_name};
use egret::store::{Version, record};
use egret::testbed::MemoryStore;

use crate::world::*;

const BLOCKS: u32 = 16_000;

/// Every second /31 of a /16 is full: 32,000 leases of 50 nodes, and holes to find.
fn blocks(pool: &Pool) -> impl Iterator<Item = Block> + '_ {
    (0..BLOCKS).map(|n| {
        let node = format!("node-{}", n % 50);
        let first = pool.cidr.nth(u128::from(n) * 4).unwrap();
        let mut block = Block::new(&pool.name, Cidr::covering(first, pool.block_size), Some(&node));
        for ordinal in 0..2 {
            let ip = block.cidr.nth(ordinal).unwrap();
            let owner = format!("pod:00000000-0000-0000-0000-{n:010}{ordinal:02}");
            block.take(ip, &tenant(&owner, &node, &format!("{n:060}{ordinal:04}")), 1);
        }
        block
    })
}

/// What is done in a store that was just opened.
type Claims<'a> = &'a mut dyn FnMut(&dyn Store);

/// Median of 21 pairs of claims: one that needs a new block, one from the block that the node then has.
fn medians(store: &mut dyn FnMut(Claims<'_>), pool: &Pool) -> [Duration; 3] {
    let mut took: [Vec<Duration>; 3] = Default::default();
    for n in 0..21 {
        let owners = [format!("pod:new-{n}-a"), format!("pod:new-{n}-b"), format!("pod:new-{n}-a")];
        let wanted = [
            How::New(Source::Free),
            How::New(Source::Affine),
            How::TakenOver(holder("node-new", &format!("c{n}-0"))),
        ];
        for (kind, (owner, wanted)) in owners.iter().zip(wanted).enumerate() {
            let begun = Instant::now();
            store(&mut |store| {
                let claimed =
                    ask(store, &[pool], tenant(owner, "node-new", &format!("c{n}-{kind}")), 1).unwrap();
                assert_eq!(claimed.how, wanted);
            });
            took[kind].push(begun.elapsed());
        }
    }
    took.map(|mut times| {
        times.sort();
        times[times.len() / 2]
    })
}

/// What the disk takes for one durable replace of a small file just now: 0.3 ms on a quiet machine, ten on a busy one.
fn disk(scratch: &Scratch) -> Duration {
    let path = scratch.path.join("probe.json");
    let mut took: Vec<Duration> = (0..21)
        .map(|n| {
            let begun = Instant::now();
            record::replace(&path, ("Probe", "probe"), Version(n), &"x".repeat(400), true).unwrap();
            begun.elapsed()
        })
        .collect();
    took.sort();
    took[took.len() / 2]
}

fn report(what: &str, [fresh, affine, again]: [Duration; 3], promise: Duration) {
    println!(
        "{what}: new block {fresh:?}, own block {affine:?}, same owner again {again:?} (promise {promise:?})"
    );
    let limit = if cfg!(debug_assertions) { promise * 20 } else { promise };
    for took in [fresh, affine, again] {
        assert!(took <= limit, "{what}: {took:?} instead of at most {limit:?}");
    }
}

#[test]
fn a_claim_from_65536_addresses_with_32000_leased_is_quick() {
    let pool = pool("large", "10.96.0.0/16", 31);
    let memory = MemoryStore::new();
    let scratch = Scratch::new();
    let folder = scratch.dir.ipam().join(&pool.name);
    std::fs::create_dir_all(&folder).unwrap();
    for block in blocks(&pool) {
        let name = block_name(block.cidr);
        let path = folder.join(format!("{name}.json"));
        record::replace(&path, ("EgressBlock", &name), Version(1), &block, false).unwrap();
        memory.swap(&block, None).unwrap();
    }
    report("in memory", medians(&mut |f| f(&memory), &pool), Duration::from_millis(2));

    let guard = scratch.dir.lock("test", Duration::ZERO).unwrap();
    let begun = Instant::now();
    DirStore::under(&scratch.dir, &guard).summary(&pool.name).unwrap();
    println!("reading all blocks, because there is no summary: {:?}", begun.elapsed());
    drop(guard);
    // As each ADD does it: lock, look, claim, unlock.
    let mut each = |f: Claims<'_>| {
        let guard = scratch.dir.lock("ADD", Duration::from_secs(1)).unwrap();
        f(&DirStore::under(&scratch.dir, &guard));
    };
    let before = disk(&scratch);
    let took = medians(&mut each, &pool);
    let disk = before.max(disk(&scratch));
    println!("one durable replace of a small file, which is part of it: {disk:?}");
    report("in a directory", took, Duration::from_millis(5) + disk);
}
