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

/// What a pool's addresses are, as far as another may have them too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// Leased from an `EgressPool`: nobody else's.
    Leased,
    /// Pods' own, of an `EgressPool`. Calico's pool of them means the same addresses.
    Pods,
    /// Leased from an `IPPool`.
    Calicos,
    /// Pods' own, of an `IPPool`: whatever else they are, nothing is leased here.
    CalicosPods,
}

impl Use {
    /// Where it must be alone: among what is leased, among ours.
    fn areas(self) -> &'static [usize] {
        match self {
            Use::Leased => &[0, 1],
            Use::Pods => &[1],
            Use::Calicos => &[0],
            Use::CalicosPods => &[],
        }
    }
}

/// Of each two pools that overlap the one with the smaller name wins; a loser no longer counts against others.
///
/// Names are distinct. O(n log n): prefixes overlap only by nesting and the winners of an area are disjoint, so one that overlaps
/// begins at or before this pool's first address, or is the next one after it.
pub fn overlaps<'p>(pools: &[(&'p str, Cidr, Use)]) -> Vec<Overlap<'p>> {
    let mut by_name: Vec<_> = pools.to_vec();
    by_name.sort_unstable_by_key(|(name, ..)| *name);
    let mut winners: [BTreeMap<IpAddr, (&str, Cidr)>; 2] = Default::default();
    let mut losers = Vec::new();
    for (name, cidr, usage) in by_name {
        let rival = usage.areas().iter().find_map(|area| {
            let before = winners[*area].range(..=cidr.first()).next_back();
            let after = winners[*area].range(cidr.first()..).next();
            before.into_iter().chain(after).map(|(_, w)| *w).find(|(_, kept)| kept.overlaps(cidr))
        });
        match rival {
            Some((winner, kept)) => losers.push(Overlap { loser: name, cidr, winner, kept }),
            None => {
                for area in usage.areas() {
                    winners[*area].insert(cidr.first(), (name, cidr));
                }
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
            ("b", "10.0.0.0/24".parse().unwrap(), Use::Leased),
            ("a", "10.0.0.8/29".parse().unwrap(), Use::Calicos),
            ("c", "10.0.0.128/25".parse().unwrap(), Use::Leased),
            ("d", "fd00::/64".parse().unwrap(), Use::Leased),
        ];
        let found = overlaps(&pools);
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].loser, found[0].winner), ("b", "a"));
    }

    #[test]
    fn pods_own_addresses_may_be_calicos_and_nobody_may_lease_them() {
        let cidr: Cidr = "10.0.0.0/16".parse().unwrap();
        let losers = |uses: [Use; 3]| -> Vec<&str> {
            let pools = [("a", cidr, uses[0]), ("b", cidr, uses[1]), ("c", cidr, uses[2])];
            overlaps(&pools).iter().map(|overlap| overlap.loser).collect()
        };
        assert_eq!(losers([Use::Pods, Use::Calicos, Use::CalicosPods]), [""; 0]);
        assert_eq!(losers([Use::Pods, Use::Leased, Use::Calicos]), ["b"]);
        assert_eq!(losers([Use::Calicos, Use::Pods, Use::Leased]), ["c"]);
        assert_eq!(losers([Use::Pods, Use::Pods, Use::CalicosPods]), ["b"]);
    }

    proptest! {
        #[test]
        fn winners_are_disjoint_and_each_loser_overlaps_its_winner(
            ranges in proptest::collection::vec((0u32..64, 26u8..=32), 0..12)
        ) {
            let names: Vec<String> = (0..ranges.len()).map(|i| format!("p{i:02}")).collect();
            let cidrs = ranges.iter().map(|(a, p)| Cidr::covering(std::net::Ipv4Addr::from_bits(*a).into(), *p));
            let pools: Vec<_> = names.iter().map(String::as_str).zip(cidrs).map(|(n, c)| (n, c, Use::Leased)).collect();
            let lost = overlaps(&pools);
            let kept: Vec<_> = pools.iter().filter(|(n, ..)| !lost.iter().any(|o| o.loser == *n)).collect();
            for (i, (_, a, _)) in kept.iter().enumerate() {
                prop_assert!(!kept[..i].iter().any(|(_, b, _)| a.overlaps(*b)));
            }
            for o in &lost {
                prop_assert!(o.winner < o.loser && o.kept.overlaps(o.cidr));
                prop_assert!(kept.iter().any(|(n, c, _)| *n == o.winner && *c == o.kept));
            }
        }
    }
}
