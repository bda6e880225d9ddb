//! Pools that overlap: no address may belong to two.
//!
//! In: names and prefixes. Out: who loses to whom. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::addr::Cidr;

/// A pool, as far as it may meet others.
#[derive(Debug, Clone, Copy)]
pub struct Range<'p> {
    /// Its name. No two are alike.
    pub name: &'p str,
    /// Its prefix.
    pub cidr: Cidr,
    /// What its addresses are.
    pub usage: Use,
    /// When it was made, in seconds since 1970. `None`: after all others.
    pub created: Option<i64>,
}

/// A pool that cannot be used because an older one has addresses of it, or one of its age with a smaller name.
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
    /// It was made before the loser.
    pub is_older: bool,
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

/// Of each two pools that overlap the older one wins, as of policies: what is in use stays so, whatever comes. Of one age it is the smaller
/// name. A loser no longer counts against others.
///
/// O(n log n): prefixes overlap only by nesting and the winners of an area are disjoint, so one that overlaps
/// begins at or before this pool's first address, or is the next one after it.
pub fn overlaps<'p>(pools: &[Range<'p>]) -> Vec<Overlap<'p>> {
    let mut by_age: Vec<&Range<'p>> = pools.iter().collect();
    by_age.sort_unstable_by_key(|pool| (pool.created.is_none(), pool.created, pool.name));
    let mut winners: [BTreeMap<IpAddr, &Range<'p>>; 2] = Default::default();
    let mut losers = Vec::new();
    for pool in by_age {
        let (cidr, areas) = (pool.cidr, pool.usage.areas());
        let rival = areas.iter().find_map(|area| {
            let before = winners[*area].range(..=cidr.first()).next_back();
            let after = winners[*area].range(cidr.first()..).next();
            before.into_iter().chain(after).map(|(_, w)| *w).find(|winner| winner.cidr.overlaps(cidr))
        });
        match rival {
            Some(winner) => {
                let is_older = winner.created != pool.created;
                losers.push(Overlap {
                    loser: pool.name,
                    cidr,
                    winner: winner.name,
                    kept: winner.cidr,
                    is_older,
                });
            }
            None => {
                for area in areas {
                    winners[*area].insert(cidr.first(), pool);
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

    fn range(name: &str, cidr: Cidr, usage: Use) -> Range<'_> {
        Range { name, cidr, usage, created: None }
    }

    #[test]
    fn the_older_wins_else_the_smaller_name_and_a_loser_counts_no_more() {
        let mut pools = [
            range("b", "10.0.0.0/24".parse().unwrap(), Use::Leased),
            range("a", "10.0.0.8/29".parse().unwrap(), Use::Calicos),
            range("c", "10.0.0.128/25".parse().unwrap(), Use::Leased),
            range("d", "fd00::/64".parse().unwrap(), Use::Leased),
        ];
        let lost = |pools: &[Range<'static>]| -> Vec<_> {
            overlaps(pools).iter().map(|found| (found.loser, found.winner, found.is_older)).collect()
        };
        assert_eq!(lost(&pools), [("b", "a", false)]);
        pools[0].created = Some(7);
        assert_eq!(lost(&pools), [("a", "b", true), ("c", "b", true)], "the one that is in use stays so");
        pools[1].created = Some(6);
        assert_eq!(lost(&pools), [("b", "a", true)]);
    }

    #[test]
    fn pods_own_addresses_may_be_calicos_and_nobody_may_lease_them() {
        let cidr: Cidr = "10.0.0.0/16".parse().unwrap();
        let losers = |uses: [Use; 3]| -> Vec<&str> {
            let pools = [("a", uses[0]), ("b", uses[1]), ("c", uses[2])]
                .map(|(name, usage)| range(name, cidr, usage));
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
            let pools: Vec<_> = names.iter().map(String::as_str).zip(cidrs).map(|(n, c)| range(n, c, Use::Leased)).collect();
            let lost = overlaps(&pools);
            let kept: Vec<_> = pools.iter().filter(|p| !lost.iter().any(|o| o.loser == p.name)).collect();
            for (i, a) in kept.iter().enumerate() {
                prop_assert!(!kept[..i].iter().any(|b| a.cidr.overlaps(b.cidr)));
            }
            for o in &lost {
                prop_assert!(o.winner < o.loser && o.kept.overlaps(o.cidr));
                prop_assert!(kept.iter().any(|p| p.name == o.winner && p.cidr == o.kept));
            }
        }
    }
}
