//! Nodes that come and go, each with a name of its own, as an autoscaler makes them. Each story runs in every store.

use std::collections::BTreeSet;

use egret::egress::model::Pool;
use egret::ipam::{After, How, Source, Store, forget_node, release};

use crate::world::*;

/// A node comes, a pod of it has an address, and both go; says where the address was.
fn a_node_lives(store: &dyn Store, pool: &Pool, n: u64, now: u64) -> String {
    let (node, pod, container) = (format!("node-{n}"), format!("pod:{n}"), format!("c{n}"));
    let claimed = ask(store, &[pool], tenant(&pod, &node, &container), now).unwrap();
    release(store, &holder(&node, &container), After::Owner, now).unwrap();
    forget_node(store, &node, now).unwrap();
    claimed.lease.block.to_string()
}

#[test]
fn a_hundred_nodes_one_after_the_other_have_the_blocks_of_one() {
    for (cidr, size) in [("10.0.0.0/16", 31), ("10.0.0.0/24", 32), ("fd00:10::/64", 127)] {
        in_each_store(|store| {
            let pool = pool("p", cidr, size);
            let live = |n: u64| a_node_lives(store, &pool, n, 1000 + n * u64::from(pool.cooldown_seconds));
            let blocks: BTreeSet<String> = (0..100).map(live).collect();
            assert_eq!(blocks.len(), 1, "of {cidr}: {blocks:?}");
        });
    }
}

#[test]
fn an_address_of_a_node_that_is_gone_rests_before_a_new_node_gives_it_away() {
    in_each_store(|store| {
        let pool = pool("p", "10.0.0.0/24", 32);
        let first = a_node_lives(store, &pool, 1, 1000);
        let second = a_node_lives(store, &pool, 2, 1059);
        assert_ne!(second, first, "it cools for a minute");
        assert_eq!(a_node_lives(store, &pool, 3, 1060), first);
    });
}

#[test]
fn what_is_reserved_in_a_block_that_is_nobodys_stays_its_owners_when_a_node_claims_the_block() {
    in_each_store(|store| {
        let mut pool = pool("p", "10.0.0.0/24", 31);
        pool.strict_affinity = true;
        let kept = given(store, &[&pool], tenant("ordinal:shop/gw/0", "gone", "c1"), 0);
        forget_node(store, "gone", 10).unwrap();
        let beside = ask(store, &[&pool], tenant("pod:a", "one", "c2"), 20).unwrap();
        assert_eq!(beside.how, How::New(Source::Free));
        assert!(beside.lease.block.contains(ip(&kept)) && beside.lease.ip != ip(&kept));
        // The block has nothing more to give.
        let more = ask(store, &[&pool], tenant("pod:b", "two", "c3"), 30).unwrap();
        assert!(!more.lease.block.contains(ip(&kept)));
        assert_eq!(given(store, &[&pool], tenant("ordinal:shop/gw/0", "two", "c4"), 40), kept);
    });
}
