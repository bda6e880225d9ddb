//! The rules of leasing, as stories. Each runs in every store.

use std::collections::BTreeSet;

use egret::ipam::{
    After, How, IpamError, Source, cancel, forget_node, forget_owners, release, release_address,
    release_owner, retain,
};

use crate::world::*;

#[test]
fn a_node_fills_its_block_before_it_claims_another_and_nodes_have_different_ones() {
    for (cidr, size) in [("10.10.10.0/29", 31), ("fd00:10::/125", 127)] {
        in_each_store(|store| {
            let pool = pool("p", cidr, size);
            let lease = |n: u32, node: &str| {
                ask(store, &[&pool], tenant(&format!("pod:{node}{n}"), node, &format!("c{n}")), 0).unwrap()
            };
            let (a, b, c) = (lease(1, "one"), lease(2, "one"), lease(3, "one"));
            assert_eq!(a.how, How::New(Source::Free));
            assert_eq!((b.how, b.lease.block), (How::New(Source::Affine), a.lease.block));
            assert_ne!(c.lease.block, a.lease.block);
            let d = lease(1, "two");
            assert!(d.lease.block != a.lease.block && d.lease.block != c.lease.block);
        });
    }
}

#[test]
fn an_owner_keeps_its_address_and_a_late_del_never_frees_it() {
    in_each_store(|store| {
        let pool = pool("p", "10.10.10.0/30", 31);
        let first = ask(store, &[&pool], tenant("pod:a", "one", "old"), 0).unwrap();
        let again = ask(store, &[&pool], tenant("pod:a", "one", "old"), 5).unwrap();
        assert_eq!((again.how, again.lease), (How::Kept, first.lease.clone()));

        let moved = ask(store, &[&pool], tenant("pod:a", "two", "new"), 10).unwrap();
        assert_eq!(moved.lease.ip, first.lease.ip);
        assert_eq!(moved.how, How::TakenOver(holder("one", "old")));
        assert!(moved.lease.sequence > first.lease.sequence);

        assert_eq!(release(store, &holder("one", "old"), After::Owner, 20).unwrap(), []);
        assert_eq!(
            books(store, &[&pool])[&("p".to_owned(), first.lease.ip)].holder,
            Some(holder("two", "new"))
        );
    });
}

#[test]
fn the_same_container_id_on_another_node_is_another_container() {
    in_each_store(|store| {
        let pool = pool("p", "10.10.10.0/30", 31);
        let [one, two] = ["one", "two"].map(|node| {
            let owner = egret::ipam::Owner::container(&holder(node, "c"));
            given(store, &[&pool], tenant(&owner.to_string(), node, "c"), 0)
        });
        assert_ne!(one, two);
        assert_eq!(release(store, &holder("one", "c"), After::Owner, 1).unwrap().len(), 1);
        assert_eq!(books(store, &[&pool]).values().filter(|a| a.holder.is_some()).count(), 1);
    });
}

#[test]
fn a_freed_address_rests_and_only_its_old_owner_may_have_it_meanwhile() {
    in_each_store(|store| {
        let pool = pool("p", "10.10.10.0/32", 32);
        assert_eq!(given(store, &[&pool], tenant("pod:a", "one", "c1"), 0), "10.10.10.0");
        let freed = release(store, &holder("one", "c1"), After::Owner, 100).unwrap();
        assert_eq!(freed.len(), 1);
        assert!(!is_reserved(store, &pool, freed[0].ip));

        let other = || tenant("pod:b", "one", "c2");
        let full = ask(store, &[&pool], other(), 130).unwrap_err();
        assert_eq!(
            full.to_string(),
            "no address for pod:b: pool `p` (10.10.10.0/32): 0 of 1 leased, 1 cooling, 0 reserved (the next is free \
             in 30 s). Add a pool or a larger range, or see `egret ipam show`"
        );
        let back = ask(store, &[&pool], tenant("pod:a", "one", "c3"), 130).unwrap();
        assert_eq!(back.how, How::Returned);
        release(store, &holder("one", "c3"), After::Owner, 200).unwrap();
        assert_eq!(given(store, &[&pool], other(), 260), "10.10.10.0");
        assert!(ask(store, &[&pool], tenant("pod:a", "one", "c4"), 260).is_err());
    });
}

#[test]
fn an_ordinals_address_waits_for_it_on_whatever_node_until_a_person_says_otherwise() {
    in_each_store(|store| {
        let mut pool = pool("p", "10.10.10.0/31", 31);
        pool.strict_affinity = true;
        let address = given(store, &[&pool], tenant("ordinal:shop/gw/0", "one", "c1"), 0);
        let freed = release(store, &holder("one", "c1"), After::Owner, 10).unwrap();
        assert!(is_reserved(store, &pool, freed[0].ip));
        given(store, &[&pool], tenant("pod:b", "one", "c2"), 1 << 30);
        let full = ask(store, &[&pool], tenant("pod:c", "one", "c3"), 1 << 30).unwrap_err();
        assert!(full.to_string().contains("1 of 2 leased, 0 cooling, 1 reserved"), "{full}");

        assert_eq!(given(store, &[&pool], tenant("ordinal:shop/gw/0", "two", "c4"), 1 << 30), address);
        let held = release_address(store, ip(&address), false, 1 << 30).unwrap_err();
        assert!(matches!(held, IpamError::Held { .. }), "{held}");
        release(store, &holder("two", "c4"), After::Owner, 1 << 30).unwrap();
        release_address(store, ip(&address), false, 1 << 30).unwrap();
        assert_eq!(given(store, &[&pool], tenant("pod:c", "one", "c3"), 1 << 30), address);
        assert!(matches!(
            release_owner(store, &owner("ordinal:shop/gw/0"), false, 0),
            Err(IpamError::Unknown(_))
        ));
        assert!(matches!(release_address(store, ip("192.0.2.1"), false, 0), Err(IpamError::Unknown(_))));
        assert_eq!(release_owner(store, &owner("pod:c"), true, 0).unwrap().len(), 1);
    });
}

#[test]
fn a_pods_lease_can_be_kept_while_its_pod_lives_on_without_a_sandbox() {
    in_each_store(|store| {
        let pool = pool("p", "10.10.10.0/32", 32);
        given(store, &[&pool], tenant("pod:a", "one", "c1"), 0);
        let freed = release(store, &holder("one", "c1"), After::Reserved, 10).unwrap();
        assert!(is_reserved(store, &pool, freed[0].ip));
        assert!(ask(store, &[&pool], tenant("pod:b", "one", "c2"), 1 << 30).is_err());
        let gone = forget_owners(store, &|o| *o == owner("pod:a"), 1 << 30).unwrap();
        assert_eq!(gone.len(), 1);
        assert!(ask(store, &[&pool], tenant("pod:b", "one", "c2"), (1 << 30) + 59).is_err());
        assert!(ask(store, &[&pool], tenant("pod:b", "one", "c2"), (1 << 30) + 60).is_ok());
    });
}

#[test]
fn a_full_node_takes_an_empty_block_of_another_and_then_borrows_unless_affinity_is_strict() {
    in_each_store(|store| {
        let mut pool = pool("p", "10.10.10.0/30", 31);
        for n in 0..2 {
            given(store, &[&pool], tenant(&format!("pod:{n}"), "one", &format!("a{n}")), 0);
        }
        given(store, &[&pool], tenant("pod:t", "two", "t"), 0);
        release(store, &holder("two", "t"), After::Owner, 0).unwrap();

        // Two's block has one address that was never given and one that cools: not empty.
        let third = ask(store, &[&pool], tenant("pod:2", "one", "a2"), 10).unwrap();
        assert_eq!(third.how, How::New(Source::Borrowed));
        cancel(store, &third, 10).unwrap();
        pool.strict_affinity = true;
        let full = ask(store, &[&pool], tenant("pod:2", "one", "a2"), 10).unwrap_err();
        assert!(full.to_string().contains("strictAffinity keeps them there"), "{full}");

        let third = ask(store, &[&pool], tenant("pod:2", "one", "a2"), 60).unwrap();
        assert_eq!(third.how, How::New(Source::Reclaimed));
        assert_eq!(store.read("p", third.lease.block).unwrap().unwrap().0.affinity.as_deref(), Some("one"));
    });
}

#[test]
fn pools_are_asked_in_order_and_a_disabled_one_gives_nothing_new() {
    in_each_store(|store| {
        let mut near = pool("near", "10.10.10.0/31", 31);
        let far = pool("far", "10.10.20.0/31", 31);
        assert_eq!(given(store, &[&near, &far], tenant("ordinal:a/b/0", "one", "c0"), 0), "10.10.10.0");
        near.disabled = true;
        let pools = [&near, &far];
        assert_eq!(given(store, &pools, tenant("pod:b", "one", "c1"), 0), "10.10.20.0");
        release(store, &holder("one", "c0"), After::Owner, 0).unwrap();
        assert_eq!(
            given(store, &pools, tenant("ordinal:a/b/0", "one", "c2"), 9),
            "10.10.10.0",
            "who has one keeps it"
        );
        assert_eq!(given(store, &pools, tenant("pod:c", "one", "c3"), 0), "10.10.20.1");
        let full = ask(store, &pools, tenant("pod:d", "one", "c4"), 0).unwrap_err().to_string();
        assert!(
            full.contains(
                "pool `near` (10.10.10.0/31): 1 of 2 leased, 0 cooling, 0 reserved (disabled: no new leases)"
            ),
            "{full}"
        );
        assert!(full.contains("pool `far` (10.10.20.0/31): 2 of 2 leased"), "{full}");
        let none = ask(store, &[], tenant("pod:d", "one", "c4"), 0).unwrap_err().to_string();
        assert!(none.contains("no pool serves it"), "{none}");
    });
}

#[test]
fn a_certain_address_is_given_if_it_is_there_to_give() {
    in_each_store(|store| {
        let pool = pool("p", "10.10.10.0/29", 31);
        let pools = [&pool];
        let want = |who: &str, c: &str, a: &str| ask_for(store, &pools, tenant(who, "one", c), a, 100);
        assert_eq!(want("pod:a", "c1", "10.10.10.5").unwrap().lease.ip, ip("10.10.10.5"));
        assert_eq!(want("pod:a", "c1", "10.10.10.5").unwrap().how, How::Kept);
        assert_eq!(
            want("pod:b", "c2", "10.10.11.5").unwrap_err().to_string(),
            "address 10.10.11.5, asked for by pod:b, is in none of its pools (`p`: 10.10.10.0/29)"
        );
        assert_eq!(
            want("pod:b", "c2", "10.10.10.5").unwrap_err().to_string(),
            "address 10.10.10.5, asked for by pod:b, is leased for pod:a, held by net/c1/eth0 on node one. See `egret ipam show`"
        );
        // It asks for another one now: it has one in the end, and the old one cools.
        want("pod:a", "c3", "10.10.10.6").unwrap();
        let books = books(store, &pools);
        assert_eq!(books.values().filter(|a| a.holder.is_some()).count(), 1);
        assert!(matches!(want("pod:b", "c2", "10.10.10.5"), Err(IpamError::Taken { .. })), "it cools");
        assert!(ask_for(store, &pools, tenant("pod:b", "one", "c2"), "10.10.10.5", 160).is_ok());
    });
}

#[test]
fn a_certain_address_of_another_nodes_block_is_borrowed_unless_affinity_is_strict() {
    in_each_store(|store| {
        let mut pool = pool("p", "10.10.10.0/31", 31);
        ask_for(store, &[&pool], tenant("pod:a", "two", "c1"), "10.10.10.0", 0).unwrap();
        pool.strict_affinity = true;
        let error = ask_for(store, &[&pool], tenant("pod:b", "one", "c2"), "10.10.10.1", 0).unwrap_err();
        assert!(error.to_string().contains("lies in block 10.10.10.0/31 of node two"), "{error}");
        pool.strict_affinity = false;
        let lent = ask_for(store, &[&pool], tenant("pod:b", "one", "c2"), "10.10.10.1", 0).unwrap();
        assert_eq!(lent.how, How::New(Source::Borrowed));
    });
}

#[test]
fn pools_that_overlap_give_nothing_new_and_name_each_other() {
    in_each_store(|store| {
        let wide = pool("wide", "10.10.10.0/24", 31);
        let narrow = pool("narrow", "10.10.10.0/30", 31);
        assert_eq!(given(store, &[&wide], tenant("ordinal:a/b/0", "one", "c1"), 0), {
            given(store, &[&wide, &narrow], tenant("ordinal:a/b/0", "one", "c1"), 0)
        });
        let error = ask(store, &[&wide, &narrow], tenant("pod:b", "one", "c2"), 0).unwrap_err().to_string();
        assert!(
            error.contains("it overlaps pool `narrow` (10.10.10.0/30), so neither gives new leases"),
            "{error}"
        );
        assert!(error.contains("it overlaps pool `wide`"), "{error}");
    });
}

#[test]
fn a_pool_under_a_new_name_does_not_give_what_is_in_use_under_the_old_one() {
    in_each_store(|store| {
        let old = pool("old", "10.10.10.0/30", 31);
        let new = pool("new", "10.10.10.0/30", 30);
        let running = given(store, &[&old], tenant("pod:a", "one", "c1"), 0);
        let mut seen = BTreeSet::from([running.clone()]);
        for n in 0..3 {
            assert!(seen.insert(given(
                store,
                &[&new],
                tenant(&format!("pod:b{n}"), "one", &format!("d{n}")),
                0
            )));
        }
        let full = ask(store, &[&new], tenant("pod:c", "one", "e"), 0).unwrap_err().to_string();
        assert!(full.contains("1 in use from another pool"), "{full}");
        let error = ask_for(store, &[&new], tenant("pod:c", "one", "e"), &running, 0).unwrap_err();
        assert!(matches!(error, IpamError::TakenElsewhere { .. }), "{error}");
        release(store, &holder("one", "c1"), After::Owner, 0).unwrap();
        assert_eq!(given(store, &[&new], tenant("pod:c", "one", "e"), 60), running);
    });
}

#[test]
fn an_address_that_another_pool_gave_meanwhile_is_not_given_back_to_its_old_owner() {
    in_each_store(|store| {
        let before = pool("before", "10.10.10.0/31", 31);
        let meanwhile = pool("meanwhile", "10.10.10.0/31", 31);
        assert_eq!(given(store, &[&before], tenant("pod:a", "one", "c1"), 0), "10.10.10.0");
        release(store, &holder("one", "c1"), After::Owner, 0).unwrap();
        assert_eq!(given(store, &[&meanwhile], tenant("pod:b", "one", "c2"), 100), "10.10.10.0");
        assert_eq!(given(store, &[&before], tenant("pod:a", "one", "c3"), 100), "10.10.10.1");
    });
}

#[test]
fn clean_up_takes_from_the_dead_of_this_network_and_node_only() {
    in_each_store(|store| {
        let pool = pool("p", "10.10.10.0/28", 30);
        for (n, (node, container)) in [("one", "live"), ("one", "dead"), ("two", "dead")].iter().enumerate() {
            given(store, &[&pool], tenant(&format!("pod:{n}"), node, container), 0);
        }
        let mut foreign = tenant("pod:x", "one", "dead");
        foreign.holder.network = "other".to_owned();
        given(store, &[&pool], foreign, 0);
        let fate =
            |h: &egret::ipam::Holder, _: &egret::ipam::Owner| (h.container != "live").then_some(After::Owner);
        let freed = retain(store, Some("net"), "one", 10, &fate).unwrap();
        assert_eq!(freed.iter().map(|f| f.owner.to_string()).collect::<Vec<_>>(), ["pod:1"]);
        assert_eq!(retain(store, Some("net"), "one", 10, &fate).unwrap(), []);
        assert_eq!(books(store, &[&pool]).values().filter(|a| a.holder.is_some()).count(), 3);
    });
}

#[test]
fn a_claim_that_came_to_nothing_leaves_no_trace_unless_somebody_took_over() {
    in_each_store(|store| {
        let pool = pool("p", "10.10.10.0/32", 32);
        let claimed = ask(store, &[&pool], tenant("pod:a", "one", "c1"), 0).unwrap();
        cancel(store, &claimed, 0).unwrap();
        assert!(books(store, &[&pool]).is_empty());

        let old = ask(store, &[&pool], tenant("pod:b", "one", "c2"), 0).unwrap();
        ask(store, &[&pool], tenant("pod:b", "one", "c3"), 0).unwrap();
        cancel(store, &old, 0).unwrap();
        assert_eq!(books(store, &[&pool]).values().next().unwrap().holder, Some(holder("one", "c3")));
    });
}

#[test]
fn a_node_that_is_gone_gives_back_its_blocks_and_what_it_held() {
    in_each_store(|store| {
        let mut pool = pool("p", "10.10.10.0/31", 31);
        pool.strict_affinity = true;
        given(store, &[&pool], tenant("pod:a", "gone", "c1"), 0);
        given(store, &[&pool], tenant("ordinal:a/b/0", "gone", "c2"), 0);
        assert_eq!(forget_node(store, "gone", 10).unwrap().len(), 2);
        assert_eq!(given(store, &[&pool], tenant("pod:b", "one", "c3"), 70), "10.10.10.0");
        assert_eq!(given(store, &[&pool], tenant("ordinal:a/b/0", "one", "c4"), 70), "10.10.10.1");
    });
}

#[test]
fn a_swap_of_an_old_version_is_refused() {
    in_each_store(|store| {
        let pool = pool("p", "10.10.10.0/31", 31);
        let claimed = ask(store, &[&pool], tenant("pod:a", "one", "c1"), 0).unwrap();
        let (mut block, version) = store.read("p", claimed.lease.block).unwrap().unwrap();
        // To an API server a write that changes nothing is none.
        block.sequence += 1;
        let swap = |seen| store.swap(&block, seen).unwrap();
        assert!(matches!(swap(None), egret::store::Swap::Raced(Some(v)) if v == version));
        assert!(matches!(swap(Some(version)), egret::store::Swap::Stored(v) if v > version));
        assert!(matches!(swap(Some(version)), egret::store::Swap::Raced(_)));
        given(store, &[&pool], tenant("pod:b", "one", "c2"), 0);
    });
}

#[test]
fn an_address_that_would_serve_nobody_is_never_given_in_either_family() {
    for (cidr, size, bad, rest) in [
        ("10.10.10.0/30", 31, ["10.10.10.1", "10.10.10.3"], ["10.10.10.0", "10.10.10.2"]),
        ("fd00:10::/126", 127, ["fd00:10::", "fd00:10::1"], ["fd00:10::2", "fd00:10::3"]),
    ] {
        in_each_store(|store| {
            let (pool, bad) = (pool("p", cidr, size), of_node(&bad));
            let lease = |n: u32, node: &str| {
                let tenant = tenant(&format!("pod:{n}"), node, &format!("c{n}"));
                ask_beside(store, &[&pool], tenant, None, &bad, 0).map(|claimed| claimed.lease.ip)
            };
            let given = BTreeSet::from([lease(1, "one").unwrap(), lease(2, "two").unwrap()]);
            assert_eq!(given, rest.map(ip).into());
            let full = lease(3, "one").unwrap_err();
            assert!(full.try_again(), "a Node object may go");
            assert_eq!(
                full.to_string(),
                format!(
                    "no address for pod:3: pool `p` ({cidr}): 2 of 4 leased, 0 cooling, 0 reserved (2 of no use: see \
                     `egret ipam show`). Add a pool or a larger range, or see `egret ipam show`"
                )
            );
        });
    }
}

#[test]
fn an_address_asked_for_that_would_serve_nobody_is_refused_for_good() {
    in_each_store(|store| {
        let (pool, bad) = (pool("p", "10.10.10.0/30", 31), of_node(&["10.10.10.1"]));
        let tenant = tenant("pod:a", "one", "c1");
        let refused = ask_beside(store, &[&pool], tenant, Some(ip("10.10.10.1")), &bad, 0).unwrap_err();
        assert!(!refused.try_again(), "trying again helps nobody");
        assert_eq!(
            refused.to_string(),
            "address 10.10.10.1, asked for by pod:a, is an address of node n itself: replies to it would not come back. \
             Ask for another one"
        );
        assert_eq!(books(store, &[&pool]).len(), 0);
    });
}

#[test]
fn an_owner_whose_address_a_node_took_gets_another_and_the_old_one_goes_back() {
    in_each_store(|store| {
        let pool = pool("p", "10.10.10.0/31", 31);
        let name = "ordinal:shop/gw/0";
        let old = ask(store, &[&pool], tenant(name, "one", "c1"), 0).unwrap().lease.ip;
        release(store, &holder("one", "c1"), After::Owner, 10).unwrap();
        let bad = of_node(&[&old.to_string()]);
        let new = ask_beside(store, &[&pool], tenant(name, "one", "c2"), None, &bad, 20).unwrap();
        assert_ne!(new.lease.ip, old);
        let again = ask_beside(store, &[&pool], tenant(name, "one", "c2"), None, &bad, 30).unwrap();
        assert_eq!((again.how, again.lease.ip), (How::Kept, new.lease.ip));
        assert_eq!(books(store, &[&pool])[&("p".to_owned(), old)].freed_at, Some(20));
        ask_beside(store, &[&pool], tenant("pod:b", "one", "c3"), None, &bad, 1 << 30).unwrap_err();
    });
}
