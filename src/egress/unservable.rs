//! Addresses that may lie in a pool and still serve nobody: replies to them do not reach a gateway.
//!
//! In: Node objects, and this node's addresses with their subnets. Out: each such address, with the reason. Pure.
//!
//! IPv4's network address is none of them: Linux answers ARP for it and takes it as unicast (5.14 and later), and pools that
//! begin with it are usual. Subnets of *other* nodes' devices are unknown here; what they cannot serve they name themselves.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use crate::addr::Cidr;
use crate::egress::model::Node;

/// Why an address serves nobody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unservable<'a> {
    /// A node answers for it, and means itself.
    OfNode(&'a str),
    /// Every host of the subnet takes it for a broadcast.
    Broadcast(Cidr),
    /// Every router of the subnet answers for it.
    RouterAnycast(Cidr),
}

impl fmt::Display for Unservable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unservable::OfNode(name) => write!(f, "is an address of node {name} itself"),
            Unservable::Broadcast(net) => write!(f, "is the broadcast address of {net}"),
            Unservable::RouterAnycast(net) => {
                write!(f, "is the routers' anycast address of {net} (RFC 4291 §2.6.1)")
            }
        }
    }
}

/// All of them that are known on a node called `name` with these addresses and subnets. An address may come twice.
pub fn unservable<'a>(
    name: &'a str,
    own: &'a [(IpAddr, Cidr)],
    nodes: &'a BTreeMap<String, Node>,
) -> impl Iterator<Item = (IpAddr, Unservable<'a>)> + 'a {
    let of_nodes = nodes.iter().flat_map(|(name, node)| {
        let addresses = node.internal_ips.iter().chain(&node.other_ips);
        addresses.map(move |ip| (*ip, Unservable::OfNode(name)))
    });
    let of_this = own.iter().map(move |(ip, _)| (*ip, Unservable::OfNode(name)));
    let of_subnets = own.iter().filter_map(|(_, net)| ends(*net)).filter(|(ip, why)| {
        // What a narrower subnet makes of an address counts: routes lead there.
        let narrowest = own.iter().map(|(_, net)| *net).filter(|net| net.contains(*ip));
        narrowest.max_by_key(|net| net.prefix()).and_then(ends) == Some((*ip, *why))
    });
    of_nodes.chain(of_this).chain(of_subnets)
}

/// The address of a subnet that no single host may have. A /31 or /127 has none (RFC 3021, RFC 6164), nor has a single address.
fn ends<'a>(net: Cidr) -> Option<(IpAddr, Unservable<'a>)> {
    match net.last() {
        _ if net.size() <= 2 => None,
        last @ IpAddr::V4(_) => Some((last, Unservable::Broadcast(net))),
        IpAddr::V6(_) => Some((net.first(), Unservable::RouterAnycast(net))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(own: &[&str], nodes: &[(&str, &str)]) -> Vec<String> {
        let own: Vec<(IpAddr, Cidr)> = own
            .iter()
            .map(|text| {
                let (ip, prefix) = text.split_once('/').unwrap();
                let ip: IpAddr = ip.parse().unwrap();
                (ip, Cidr::covering(ip, prefix.parse().unwrap()))
            })
            .collect();
        let node = |ip: &str| Node { internal_ips: vec![ip.parse().unwrap()], ..Node::default() };
        let nodes = nodes.iter().map(|(name, ip)| ((*name).to_owned(), node(ip))).collect();
        unservable("here", &own, &nodes).map(|(ip, why)| format!("{ip} {why}")).collect()
    }

    #[test]
    fn both_families_have_one_end_that_serves_nobody_and_every_node_its_own_addresses() {
        let found = named(&["10.10.10.101/24", "fd00:10::5/64"], &[("two", "172.30.0.2")]);
        let expected = [
            "172.30.0.2 is an address of node two itself",
            "10.10.10.101 is an address of node here itself",
            "fd00:10::5 is an address of node here itself",
            "10.10.10.255 is the broadcast address of 10.10.10.0/24",
            "fd00:10:: is the routers' anycast address of fd00:10::/64 (RFC 4291 §2.6.1)",
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn a_link_of_two_and_a_single_address_have_no_ends() {
        assert_eq!(named(&["10.0.0.1/31", "fd00::1/127", "10.9.9.9/32"], &[]).len(), 3);
    }

    #[test]
    fn the_narrowest_subnet_says_what_an_address_is() {
        let found = named(&["10.0.0.1/24", "10.0.0.254/31"], &[]);
        assert!(!found.iter().any(|line| line.contains("broadcast")), "{found:?}");
    }
}
