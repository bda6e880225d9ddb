//! Books that were deleted under running gateways, as stories. Each runs in every store.

use std::collections::BTreeMap;

use egret::egress::model::{Endpoint, Node};
use egret::ipam::{After, Block, Claim, Held, How, IpamError, Running, Store, Tenant, claim, hold, release};

use crate::world::*;

fn running<'a>(tenant: &'a Tenant, address: &str, seen: Option<&'a Block>) -> Running<'a> {
    Running { tenant, ip: ip(address), pool: "p", block_size: 31, seen, now: 100 }
}

fn block(store: &dyn Store, cidr: &str) -> Block {
    store.read("p", cidr.parse().unwrap()).unwrap().unwrap().0
}

#[test]
fn a_lease_whose_block_is_gone_comes_back_with_its_owner_and_a_higher_sequence() {
    in_each_store(|store| {
        let gateway = tenant("ordinal:shop/gw/0", "one", "c1");
        // As it was last seen: with a lease that is reserved, and one of another node.
        let mut seen = Block::new("p", "10.10.10.0/30".parse().unwrap(), Some("one"));
        seen.take(ip("10.10.10.0"), &gateway, 10);
        seen.take(ip("10.10.10.1"), &tenant("ordinal:shop/gw/1", "one", "c2"), 10);
        seen.part(ip("10.10.10.1"), After::Owner, 20);
        seen.take(ip("10.10.10.2"), &tenant("pod:far", "two", "c3"), 30);

        assert_eq!(hold(store, &running(&gateway, "10.10.10.0", Some(&seen))).unwrap(), Held::Again);
        let now = block(store, "10.10.10.0/30");
        let again = &now.allocations[&ip("10.10.10.0")];
        assert_eq!((&again.owner, again.holder.as_ref()), (&gateway.owner, Some(&gateway.holder)));
        assert!(
            again.sequence > seen.allocations[&ip("10.10.10.0")].sequence && now.sequence > seen.sequence
        );
        assert_eq!(now.affinity.as_deref(), Some("one"));
        assert_eq!(
            now.allocations[&ip("10.10.10.1")],
            seen.allocations[&ip("10.10.10.1")],
            "kept for its owner"
        );
        assert!(!now.allocations.contains_key(&ip("10.10.10.2")), "its own node says that");
        assert_eq!(hold(store, &running(&gateway, "10.10.10.0", Some(&seen))).unwrap(), Held::There);
        assert_eq!(block(store, "10.10.10.0/30"), now);
        // The other node's comes into the same block.
        let far = tenant("pod:far", "two", "c3");
        assert_eq!(hold(store, &running(&far, "10.10.10.2", Some(&seen))).unwrap(), Held::Again);
        assert_eq!(block(store, "10.10.10.0/30").allocations.len(), 3);
    });
}

#[test]
fn nobody_saw_the_block_and_the_lease_comes_back_all_the_same() {
    in_each_store(|store| {
        let gateway = tenant("pod:a", "one", "c1");
        assert_eq!(hold(store, &running(&gateway, "10.10.10.3", None)).unwrap(), Held::Again);
        assert_eq!(block(store, "10.10.10.2/31").affinity.as_deref(), Some("one"));
        // The books say that it was freed: by hand, or by whoever took its node for gone.
        release(store, &holder("one", "c1"), After::Owner, 50).unwrap();
        assert_eq!(hold(store, &running(&gateway, "10.10.10.3", None)).unwrap(), Held::Again);
        let pool = pool("p", "10.10.10.2/31", 31);
        assert_ne!(given(store, &[&pool], tenant("pod:b", "two", "c2"), 1 << 30), "10.10.10.3");
    });
}

#[test]
fn who_else_has_the_address_by_now_keeps_it_and_is_named() {
    in_each_store(|store| {
        let pool = pool("p", "10.10.10.0/32", 32);
        let other = tenant("pod:b", "two", "c2");
        given(store, &[&pool], other.clone(), 10);
        let gateway = tenant("pod:a", "one", "c1");
        let held = hold(store, &running(&gateway, "10.10.10.0", None)).unwrap();
        assert_eq!(held, Held::Other(other.owner.clone(), Some(other.holder.clone())));
        // Its own younger container is no stranger.
        let older = Tenant { holder: holder("two", "c1"), ..other.clone() };
        assert_eq!(hold(store, &running(&older, "10.10.10.0", None)).unwrap(), Held::There);
        // When the other ends, the gateway that runs has it again.
        release(store, &other.holder, After::Owner, 20).unwrap();
        assert_eq!(hold(store, &running(&gateway, "10.10.10.0", None)).unwrap(), Held::Again);
        let reserved = tenant("ordinal:shop/gw/0", "one", "c3");
        release(store, &gateway.holder, After::Owner, 30).unwrap();
        given(store, &[&pool], reserved.clone(), 1 << 30);
        release(store, &reserved.holder, After::Owner, 1 << 30).unwrap();
        let held = hold(store, &running(&gateway, "10.10.10.0", None)).unwrap();
        assert_eq!(held, Held::Other(reserved.owner, None), "reserved is had");
    });
}

#[test]
fn an_address_that_a_running_gateway_shows_is_given_to_nobody_though_the_books_are_empty() {
    in_each_store(|store| {
        let pool = pool("p", "10.10.10.0/31", 31);
        let shown =
            BTreeMap::from([(ip("10.10.10.0"), "is the address of gateway shop/gw on node one".to_owned())]);
        let none = BTreeMap::new();
        let ask = |of: &str, address: Option<&str>| {
            let (tenant, known) = (tenant(of, "two", of), &[&pool]);
            let (unservable, address) = (&none, address.map(ip));
            let (in_use, nodes, endpoints, now) = (&shown, None, &[], 0);
            let pools = known;
            claim(store, &Claim { tenant, pools, known, address, unservable, in_use, nodes, endpoints, now })
        };
        assert_eq!(ask("pod:a", None).unwrap().lease.ip, ip("10.10.10.1"));
        let full = ask("pod:b", None).unwrap_err();
        let why = "1 of 2 leased, 0 cooling, 0 reserved (1 of running gateways whose leases are not written: see `egret ipam check`)";
        assert!(full.try_again() && full.to_string().contains(why), "{full}");
        let refused = ask("pod:b", Some("10.10.10.0")).unwrap_err();
        assert!(matches!(refused, IpamError::InUse { .. }) && refused.try_again());
        assert_eq!(
            refused.to_string(),
            "address 10.10.10.0, asked for by pod:b, is the address of gateway shop/gw on node one, although no lease says so. \
             See `egret ipam check`"
        );
        // With the lease in the books the pool is full, and nothing else is said.
        hold(store, &running(&tenant("pod:gw", "one", "c1"), "10.10.10.0", None)).unwrap();
        let full = ask("pod:b", None).unwrap_err().to_string();
        assert!(full.contains("2 of 2 leased, 0 cooling, 0 reserved."), "{full}");
    });
}

/// Two gateways with one address: the earlier container of a StatefulSet's pod runs on, on a node that nobody reaches.
#[test]
fn what_an_owner_has_on_another_node_that_exists_is_given_up_by_that_node_or_when_it_is_gone() {
    in_each_store(|store| {
        let pool = pool("p", "10.10.10.0/31", 31);
        let node = |name: &str| (name.to_owned(), Node::default());
        let (both, one_gone) = (BTreeMap::from([node("one"), node("two")]), BTreeMap::from([node("two")]));
        let none = BTreeMap::new();
        let ask = |nodes: Option<&BTreeMap<String, Node>>, on: &str, address: Option<&str>| {
            let (tenant, known) = (tenant("ordinal:shop/gw/0", on, &format!("on-{on}")), &[&pool]);
            let (unservable, in_use, address) = (&none, &BTreeMap::new(), address.map(ip));
            let (pools, endpoints, now) = (known, &[], 0);
            claim(store, &Claim { tenant, pools, known, address, unservable, in_use, nodes, endpoints, now })
        };
        let first = ask(Some(&both), "one", None).unwrap().lease.ip;
        let other = if first == ip("10.10.10.0") { "10.10.10.1" } else { "10.10.10.0" };
        for address in [None, Some(other)] {
            let refused = ask(Some(&both), "two", address).unwrap_err();
            assert!(matches!(refused, IpamError::Elsewhere { .. }) && refused.try_again(), "{refused}");
            let parts =
                ["is held by net/on-one/eth0 on node one", "out-of-service", "release 10.10.10.0 --force"];
            assert!(parts.iter().all(|part| refused.to_string().contains(part)), "{refused}");
        }
        let left = books(store, &[&pool]);
        assert_eq!(left[&("p".to_owned(), first)].holder, Some(holder("one", "on-one")), "nothing was taken");
        assert_eq!(left.len(), 1, "nor anything else given");
        // Its own node gives it to the pod's next sandbox.
        assert_eq!(ask(Some(&both), "one", None).unwrap().lease.ip, first);

        // It says so; or is gone.
        release(store, &holder("one", "on-one"), After::Owner, 5).unwrap();
        assert_eq!(ask(Some(&both), "two", None).unwrap().how, How::Returned);
        let back = ask(Some(&BTreeMap::from([node("one")])), "one", None).unwrap();
        assert_eq!((back.lease.ip, back.how), (first, How::TakenOver(holder("two", "on-two"))));
        let moved = ask(Some(&one_gone), "two", None).unwrap();
        assert_eq!((moved.lease.ip, moved.how), (first, How::TakenOver(holder("one", "on-one"))));
    });
}

/// A Node object that is deleted by mistake stops no container: its gateway answers on for as long as its endpoint is known.
#[test]
fn what_an_owner_has_where_the_node_object_is_gone_is_given_up_with_the_endpoint_of_its_container() {
    in_each_store(|store| {
        let pool = pool("p", "10.10.10.0/31", 31);
        let nodes = BTreeMap::from([("two".to_owned(), Node::default())]);
        let ask = |nodes: Option<&BTreeMap<String, Node>>, on: &str, endpoints: &[Endpoint]| {
            let (tenant, known) = (tenant("ordinal:shop/gw/0", on, &format!("on-{on}")), &[&pool]);
            let (unservable, in_use, pools) = (&BTreeMap::new(), &BTreeMap::new(), known);
            let (address, now) = (None, 0);
            claim(store, &Claim { tenant, pools, known, address, unservable, in_use, nodes, endpoints, now })
        };
        let had = ask(Some(&nodes), "one", &[]).unwrap().lease.ip;
        let answers = gateway(&holder("one", "on-one"));
        // Its earlier containers, and others of its node, are not it.
        let others = [gateway(&holder("one", "earlier")), gateway(&holder("three", "on-one"))];

        let refused = ask(Some(&nodes), "two", &[others[0].clone(), answers.clone()]).unwrap_err();
        assert!(matches!(refused, IpamError::Elsewhere { .. }) && refused.try_again(), "{refused}");
        let left = &books(store, &[&pool])[&("p".to_owned(), had)];
        assert_eq!(left.holder, Some(holder("one", "on-one")), "nothing was taken");
        // The controller has deleted it, because nobody is heard there.
        let moved = ask(Some(&nodes), "two", &others).unwrap();
        assert_eq!((moved.lease.ip, moved.how), (had, How::TakenOver(holder("one", "on-one"))));
        // Who shares a directory has no controller that would.
        assert_eq!(ask(None, "one", &[gateway(&holder("two", "on-two"))]).unwrap().lease.ip, had);
    });
}
