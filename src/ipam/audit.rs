//! Holding the books of leases against what else is known: leaks, doubles, orphans.
//!
//! In: blocks, pools, endpoints, attachments and nodes of one moment. Out: problems, each with what to do. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::block::{Allocation, Block};
use crate::addr::Family;
use crate::egress::model::{Endpoint, Pool};
use crate::problem::Problem;

/// What is known at one moment.
#[derive(Debug, Clone, Default)]
pub struct Books<'a> {
    /// Every block that can be read.
    pub blocks: &'a [Block],
    /// Every pool that counts.
    pub pools: &'a [Pool],
    /// Every endpoint.
    pub endpoints: &'a [Endpoint],
    /// The nodes there are; `None` if nobody says.
    pub nodes: Option<&'a BTreeSet<String>>,
    /// The attachments of one node, by name (`NETWORK/CONTAINERID/IFNAME`); `None` if they are not known.
    pub attachments: Option<(&'a str, &'a BTreeSet<String>)>,
    /// The time, in Unix seconds.
    pub now: u64,
    /// Seconds that an ADD may take from its lease to its endpoint; younger leases are not called leaks.
    pub grace: u64,
}

/// Everything that is wrong with the books, by object.
pub fn audit(books: &Books<'_>) -> Vec<Problem> {
    let mut problems = Vec::new();
    pools(books, &mut problems);
    blocks(books, &mut problems);
    for block in books.blocks {
        for (ip, allocation) in &block.allocations {
            problems.extend(leak(books, block, *ip, allocation));
        }
    }
    doubles(books, &mut problems);
    endpoints(books, &mut problems);
    problems.sort();
    problems.dedup();
    problems
}

fn object(block: &Block) -> String {
    format!("EgressBlock {}", block.cidr)
}

fn pools(books: &Books<'_>, problems: &mut Vec<Problem>) {
    for (n, pool) in books.pools.iter().enumerate() {
        for other in books.pools[n + 1..].iter().filter(|other| other.cidr.overlaps(pool.cidr)) {
            let message = format!("overlaps pool {} ({}): neither gives new leases", other.name, other.cidr);
            let object = format!("{:?} {}", pool.kind, pool.name);
            problems.push(
                Problem::new(object, "PoolOverlap", message).at("spec.cidr").value(pool.cidr.to_string()),
            );
        }
    }
}

fn blocks(books: &Books<'_>, problems: &mut Vec<Problem>) {
    for block in books.blocks {
        let about = |reason, message| Problem::new(object(block), reason, message);
        let used = block.allocations.values().filter(|a| a.freed_at.is_none()).count();
        match books.pools.iter().find(|pool| pool.name == block.pool) {
            None => problems.push(about(
                "OrphanBlock",
                format!(
                    "its pool {} does not exist, or is not served; {used} of its addresses are in use. Restore the pool, \
                     or release the addresses and delete the block",
                    block.pool
                ),
            )),
            Some(pool) if !pool.cidr.covers(block.cidr) => problems.push(about(
                "OutsidePool",
                format!(
                    "it lies outside of pool {} ({}), which was changed; {used} of its addresses are in use and stay so, \
                     nothing new is given. Delete the block once none is in use, which replacing its gateways' pods sees to",
                    pool.name, pool.cidr
                ),
            )),
            Some(_) => {}
        }
        if let (Some(nodes), Some(node)) = (books.nodes, &block.affinity)
            && !nodes.contains(node)
        {
            problems.push(about(
                "OrphanAffinity",
                format!("it is claimed by node {node}, which does not exist. Others can only borrow from it"),
            ));
        }
    }
}

fn leak(books: &Books<'_>, block: &Block, ip: IpAddr, allocation: &Allocation) -> Option<Problem> {
    let holder = allocation.holder.as_ref()?;
    let attachment = holder.attachment();
    let why = if books.nodes.is_some_and(|nodes| !nodes.contains(&holder.node)) {
        format!("node {} does not exist", holder.node)
    } else if books.now.saturating_sub(allocation.since) < books.grace {
        return None;
    } else if books
        .attachments
        .is_some_and(|(node, known)| node == holder.node && !known.contains(&attachment))
    {
        format!("node {} has no such attachment", holder.node)
    } else if !books.endpoints.iter().any(|e| e.attachment == attachment && e.node == holder.node) {
        "there is no endpoint for it".to_owned()
    } else {
        return None;
    };
    let message = format!(
        "{ip} is held by {holder} for {}, but {why}. The next GC on that node frees it, or `egret ipam release --force {ip}`",
        allocation.owner
    );
    Some(Problem::new(object(block), "Leak", message).at(format!("allocations[\"{ip}\"]")))
}

/// One address in two books, one owner with two addresses.
fn doubles(books: &Books<'_>, problems: &mut Vec<Problem>) {
    let mut by_address: BTreeMap<IpAddr, &Block> = BTreeMap::new();
    let mut by_owner: BTreeMap<(Family, String), IpAddr> = BTreeMap::new();
    for block in books.blocks {
        for (ip, allocation) in block.allocations.iter().filter(|(_, a)| a.freed_at.is_none()) {
            if let Some(other) = by_address.insert(*ip, block) {
                let message = format!(
                    "{ip} is in use here (pool {}) and in block {} of pool {}: two gateways may answer for it. \
                     Delete one of the two",
                    block.pool, other.cidr, other.pool
                );
                problems.push(Problem::new(object(block), "Double", message));
            }
            let owner = allocation.owner.to_string();
            if let Some(other) = by_owner.insert((Family::of(*ip), owner.clone()), *ip) {
                let message =
                    format!("{owner} has {ip} and also {other}; release the one that it does not use");
                problems.push(Problem::new(object(block), "TwoAddresses", message));
            }
        }
    }
}

fn endpoints(books: &Books<'_>, problems: &mut Vec<Problem>) {
    let mut seen: BTreeMap<IpAddr, &Endpoint> = BTreeMap::new();
    for endpoint in books.endpoints {
        let about = |reason, message| {
            Problem::new(format!("EgressEndpoint {}", endpoint.attachment), reason, message)
        };
        for address in &endpoint.addresses {
            if let Some(other) = seen.insert(address.ip, endpoint) {
                let message = format!(
                    "{} is also the address of endpoint {} on node {}",
                    address.ip, other.attachment, other.node
                );
                problems.push(about("Double", message));
            }
            let held = books.blocks.iter().filter_map(|b| b.allocations.get(&address.ip));
            let mut holders = held.filter_map(|a| a.holder.as_ref());
            let ours = holders.any(|h| h.attachment() == endpoint.attachment && h.node == endpoint.node);
            if !ours {
                let message = format!(
                    "{} of pool {} is not leased to it. Restart the pod {}, so that it gets a lease",
                    address.ip, address.pool, endpoint.pod
                );
                problems.push(about("NoLease", message));
            }
        }
        if books.nodes.is_some_and(|nodes| !nodes.contains(&endpoint.node)) {
            problems.push(about("OrphanEndpoint", format!("node {} does not exist", endpoint.node)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::block::After;
    use super::super::block::tests::tenant;
    use super::super::pool::tests::pool;
    use super::*;
    use crate::store::endpoints::tests::endpoint;

    fn block(pool: &str, cidr: &str, leases: &[(&str, &str, &str)]) -> Block {
        let mut block = Block::new(pool, cidr.parse().unwrap(), Some("one"));
        for (ip, owner, container) in leases {
            block.take(ip.parse().unwrap(), &tenant(owner, container), 100);
        }
        block
    }

    fn found(books: &Books<'_>) -> Vec<(String, String)> {
        audit(books).into_iter().map(|p| (p.object, p.reason)).collect()
    }

    fn said(list: &[(&str, &str)]) -> Vec<(String, String)> {
        list.iter().map(|(o, r)| ((*o).to_owned(), (*r).to_owned())).collect()
    }

    #[test]
    fn books_in_order_have_no_problem() {
        let mut order =
            block("p", "10.0.0.0/31", &[("10.0.0.0", "pod:a", "c1"), ("10.0.0.1", "ordinal:a/b/0", "c2")]);
        order.part("10.0.0.1".parse().unwrap(), After::Owner, 100);
        let (nodes, attachments) =
            (BTreeSet::from(["one".to_owned()]), BTreeSet::from(["net/c1/eth0".to_owned()]));
        let books = Books {
            blocks: &[order],
            pools: &[pool("p", "10.0.0.0/30", 31)],
            endpoints: &[endpoint("net/c1/eth0", "one", &["10.0.0.0"])],
            nodes: Some(&nodes),
            attachments: Some(("one", &attachments)),
            now: 1000,
            grace: 10,
        };
        assert_eq!(audit(&books), []);
    }

    #[test]
    fn leaks_are_holders_without_endpoint_attachment_or_node_and_the_youngest_are_spared() {
        let leases = [("10.0.0.0", "pod:a", "c1"), ("10.0.0.1", "pod:b", "c2")];
        let blocks = [block("p", "10.0.0.0/31", &leases)];
        let pools = [pool("p", "10.0.0.0/30", 31)];
        let endpoints =
            [endpoint("net/c1/eth0", "one", &["10.0.0.0"]), endpoint("net/c2/eth0", "one", &["10.0.0.1"])];
        let books = Books { blocks: &blocks, pools: &pools, now: 1000, grace: 10, ..Books::default() };
        let leak = ("EgressBlock 10.0.0.0/31", "Leak");
        assert_eq!(found(&Books { endpoints: &endpoints[..1], ..books.clone() }), said(&[leak]));
        assert_eq!(found(&Books { now: 105, ..books.clone() }), []);
        let attachments = BTreeSet::from(["net/c1/eth0".to_owned()]);
        let of =
            |node| Books { attachments: Some((node, &attachments)), endpoints: &endpoints, ..books.clone() };
        assert_eq!((found(&of("one")), found(&of("two"))), (said(&[leak]), Vec::new()));
        let nodes = BTreeSet::from(["two".to_owned()]);
        let gone = Books { nodes: Some(&nodes), endpoints: &endpoints, ..books };
        assert_eq!(
            found(&gone),
            said(&[
                ("EgressBlock 10.0.0.0/31", "OrphanAffinity"),
                leak,
                leak,
                ("EgressEndpoint net/c1/eth0", "OrphanEndpoint"),
                ("EgressEndpoint net/c2/eth0", "OrphanEndpoint"),
            ])
        );
    }

    #[test]
    fn doubles_and_orphans_are_named() {
        let blocks = [
            block("p", "10.0.0.0/31", &[("10.0.0.0", "pod:a", "c1")]),
            block("old", "10.0.0.0/30", &[("10.0.0.0", "pod:b", "c2"), ("10.0.0.3", "pod:a", "c3")]),
            block("p", "10.0.9.0/31", &[]),
        ];
        let pools = [pool("p", "10.0.0.0/29", 31), pool("q", "10.0.0.4/30", 31)];
        let endpoints = [
            endpoint("net/c1/eth0", "one", &["10.0.0.0"]),
            endpoint("net/c2/eth0", "one", &["10.0.0.0"]),
            endpoint("net/c3/eth0", "one", &["10.0.0.3", "fd00::1"]),
        ];
        let books =
            Books { blocks: &blocks, pools: &pools, endpoints: &endpoints, now: 1000, ..Books::default() };
        assert_eq!(
            found(&books),
            said(&[
                ("EgressBlock 10.0.0.0/30", "Double"),
                ("EgressBlock 10.0.0.0/30", "OrphanBlock"),
                ("EgressBlock 10.0.0.0/30", "TwoAddresses"),
                ("EgressBlock 10.0.9.0/31", "OutsidePool"),
                ("EgressEndpoint net/c2/eth0", "Double"),
                ("EgressEndpoint net/c3/eth0", "NoLease"),
                ("EgressPool p", "PoolOverlap"),
            ])
        );
    }
}
