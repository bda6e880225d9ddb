//! Pools that overlap: no address may belong to two.
//!
//! In: names and prefixes. Out: who loses to whom. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::addr::Cidr;

/// A pool that cannot be used because one with a smaller name has addresses of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overlap<'p> {
    /// Its name.
    pub loser: &'p str,
    /// Its prefix.
    pub cidr: Cidr,
    /// The pool that keeps the addresses.
    pub winner: &'p str,
    /// Prefix of that pool.
    pub kept: Cidr,
}

/// Of each two pools that overlap the one with the smaller name wins; a loser no longer counts against others.
///
/// Names are distinct. O(n log n): prefixes overlap only by nesting and the winners are disjoint, so one that overlaps
/// begins at or before this pool's first address, or is the next one after it.
pub fn overlaps<'p>(pools: &[(&'p str, Cidr)]) -> Vec<Overlap<'p>> {
    let mut by_name: Vec<_> = pools.to_vec();
    by_name.sort_unstable_by_key(|(name, _)| *name);
    let mut winners: BTreeMap<IpAddr, (&str, Cidr)> = BTreeMap::new();
    let mut losers = Vec::new();
    for (name, cidr) in by_name {
        let before = winners.range(..=cidr.first()).next_back();
        let after = winners.range(cidr.first()..).next();
        let rival = before.into_iter().chain(after).map(|(_, w)| *w).find(|(_, kept)| kept.overlaps(cidr));
        match rival {
            Some((winner, kept)) => losers.push(Overlap { loser: name, cidr, winner, kept }),
            None => {
                winners.insert(cidr.first(), (name, cidr));
            }
        }
    }
    losers
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_smaller_name_wins_and_a_loser_counts_no_more() {
        let pools = [
            ("b", "10.0.0.0/24".parse().unwrap()),
            ("a", "10.0.0.8/29".parse().unwrap()),
            ("c", "10.0.0.128/25".parse().unwrap()),
            ("d", "fd00::/64".parse().unwrap()),
        ];
        let found = overlaps(&pools);
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].loser, found[0].winner), ("b", "a"));
    }

    proptest! {
        #[test]
        fn winners_are_disjoint_and_each_loser_overlaps_its_winner(
            ranges in proptest::collection::vec((0u32..64, 26u8..=32), 0..12)
        ) {
            let names: Vec<String> = (0..ranges.len()).map(|i| format!("p{i:02}")).collect();
            let cidrs = ranges.iter().map(|(a, p)| Cidr::covering(std::net::Ipv4Addr::from_bits(*a).into(), *p));
            let pools: Vec<(&str, Cidr)> = names.iter().map(String::as_str).zip(cidrs).collect();
            let lost = overlaps(&pools);
            let kept: Vec<_> = pools.iter().filter(|(n, _)| !lost.iter().any(|o| o.loser == *n)).collect();
            for (i, (_, a)) in kept.iter().enumerate() {
                prop_assert!(!kept[..i].iter().any(|(_, b)| a.overlaps(*b)));
            }
            for o in &lost {
                prop_assert!(o.winner < o.loser && o.kept.overlaps(o.cidr));
                prop_assert!(kept.iter().any(|(n, c)| *n == o.winner && *c == o.kept));
            }
        }
    }
}
