//! Who of many goes to which of several: spreading pods over gateways so that a change moves few of them.
//!
//! In: names and numbers. Out: choices that are the same on every node, in every release. Never: a random number.

use crate::egress::model::PodName;
use crate::hash;

/// How many buckets pods fall into where a rule limits its next hops: so many gateway sets there are at most per rule, and sets
/// are scarce, because each has a mark number on the node.
pub(super) const BUCKETS: u64 = 16;

/// A pod's bucket, by name: a StatefulSet's pod that comes back keeps its gateways.
pub(super) fn bucket(pod: &PodName) -> u8 {
    #[allow(clippy::cast_possible_truncation, reason = "the remainder is below 16")]
    let bucket = (mixed(hash::stable(pod.to_string().as_bytes())) % BUCKETS) as u8;
    bucket
}

/// Positions of the `most` that rendezvous hashing gives to a bucket: each name's score is its own, so one that comes or goes
/// moves only who must.
pub(super) fn rendezvous(bucket: u8, names: &[String], most: usize) -> Vec<usize> {
    let score = |name: &str| mixed(hash::stable(format!("{bucket}/{name}").as_bytes()));
    let mut order: Vec<(u64, &String, usize)> =
        names.iter().enumerate().map(|(i, name)| (score(name), name, i)).collect();
    order.sort_unstable_by(|a, b| b.cmp(a));
    order.into_iter().take(most).map(|(_, _, i)| i).collect()
}

/// Cilium's choice among the entries of `egressGateways`: FNV-1a of 32 bits over the pod's UID, modulo their number.
pub(super) fn by_uid(uid: &str, entries: usize) -> usize {
    let fnv = uid.bytes().fold(0x811c_9dc5_u32, |h, b| (h ^ u32::from(b)).wrapping_mul(0x0100_0193));
    fnv as usize % entries.max(1)
}

/// FNV hardly stirs its upper bits, and scores are compared by them (the finaliser is splitmix64's).
fn mixed(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_vectors_of_fnv_hold() {
        assert_eq!(by_uid("", usize::MAX), 0x811c_9dc5);
        assert_eq!(by_uid("foobar", usize::MAX), 0xbf9c_f968);
    }

    #[test]
    fn pods_fall_evenly_into_buckets() {
        let mut counts = [0_u32; 16];
        (0..16_000)
            .for_each(|i| counts[usize::from(bucket(&PodName::new("shop", format!("cart-{i}"))))] += 1);
        assert!(counts.iter().all(|count| (800..1200).contains(count)), "{counts:?}");
    }

    #[test]
    fn a_gateway_that_goes_moves_only_who_had_it_and_all_have_their_share() {
        let names: Vec<String> = (0..8).map(|i| format!("red/gw-{i}")).collect();
        let mut shares = [0_usize; 8];
        for bucket in 0..16 {
            let before = rendezvous(bucket, &names, 2);
            before.iter().for_each(|i| shares[*i] += 1);
            let after = rendezvous(bucket, &names[..7], 2);
            let kept = before.iter().filter(|i| **i != 7).all(|i| after.contains(i));
            assert!(kept && after.len() == 2, "bucket {bucket}: {before:?} {after:?}");
        }
        assert!(shares.iter().all(|share| (1..=9).contains(share)), "{shares:?}");
    }
}
