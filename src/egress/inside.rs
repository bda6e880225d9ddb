//! Destinations that never go to a gateway, and longest-prefix rules as disjoint ranges. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::addr::{Cidr, address_bits, address_from_bits};

/// Longest-prefix rules of one family as disjoint, ascending ranges `(first, last, value)`: nft has no longest-prefix match.
pub fn flatten<T: Clone + PartialEq>(rules: &BTreeMap<Cidr, T>) -> Vec<(IpAddr, IpAddr, T)> {
    let mut ranges: Vec<(u128, u128, T)> = Vec::new();
    let mut by_length: Vec<(&Cidr, &T)> = rules.iter().collect();
    by_length.sort_by_key(|(net, _)| net.prefix());
    let Some(family) = by_length.first().map(|(net, _)| net.family()) else { return Vec::new() };
    for (net, value) in by_length {
        let (first, last) = (address_bits(net.first()), address_bits(net.last()));
        let mut next = Vec::with_capacity(ranges.len() + 2);
        for (a, b, old) in ranges {
            if a < first {
                next.push((a, b.min(first - 1), old.clone()));
            }
            if b > last {
                next.push((a.max(last + 1), b, old));
            }
        }
        next.push((first, last, value.clone()));
        next.retain(|(a, b, _)| a <= b);
        ranges = next;
    }
    ranges.sort_by_key(|(a, _, _)| *a);
    ranges
        .into_iter()
        .map(|(a, b, v)| (address_from_bits(family, a), address_from_bits(family, b), v))
        .collect()
}
