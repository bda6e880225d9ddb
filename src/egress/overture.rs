//! What stands on a node before its first plan where nobody tracks packets: see `node::first`.
//!
//! In: addresses of running pods. Out: a state that the plan's own table replaces. Never: looks at a kernel.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::addr::Family;
use crate::egress::lower_nft::{base, priority, rule, word};
use crate::egress::numbers;
use crate::kernel::nft::table::{Chain, Table};
use crate::kernel::state::{NftFamily, State};

const UNHEARD: &str = "unheard";

/// What comes to these pods is not tracked. It stands before tracking begins, in a transaction of its own: the kernel begins to track
/// when it takes a rule that asks for it, long before the transaction is in force, and an answer that comes between opens its flow the
/// wrong way round (measured on 6.18: 50 of 200 flows whose far ends send all the time, each time).
pub fn unheard(pods: &BTreeSet<IpAddr>) -> State {
    state([untracked(pods)])
}

/// The same, and everything else is tracked: so every flow of these pods begins with their own next packet, whichever end speaks
/// first. Those that the outside opened are put right afterwards, as far as they have sockets: see `node::connections`.
pub fn overture(pods: &BTreeSet<IpAddr>) -> State {
    let tracked = vec![rule("tracked", "ct state new counter")];
    let tracked = base("filter", "prerouting", priority::DSTNAT + 10, tracked);
    state([untracked(pods), ("prerouting", tracked)])
}

fn untracked(pods: &BTreeSet<IpAddr>) -> (&'static str, Chain) {
    let of_family = |family: Family| pods.iter().filter(move |ip| Family::of(**ip) == family);
    let silent = Family::BOTH.into_iter().filter_map(|family| {
        let to: Vec<String> = of_family(family).map(IpAddr::to_string).collect();
        let text = format!("{} daddr {{ {} }} notrack", word(family), to.join(", "));
        (!to.is_empty()).then(|| rule(&label(family), text))
    });
    (UNHEARD, base("filter", "prerouting", priority::RAW, silent.collect()))
}

/// Whether a state is one of these, for pods' addresses of this family: somebody began, and was stopped within that second.
pub fn stands(state: &State, family: Family) -> bool {
    let chains = state.tables.values().filter_map(|table| table.chains.get(UNHEARD));
    chains.flat_map(|chain| &chain.rules).any(|rule| rule.label == label(family))
}

fn label(family: Family) -> String {
    format!("answers do not open {family} flows")
}

fn state<const N: usize>(chains: [(&str, Chain); N]) -> State {
    let chains = chains.map(|(name, chain)| (name.to_owned(), chain)).into();
    let table = Table { chains, ..Table::default() };
    State {
        tables: BTreeMap::from([((NftFamily::Inet, numbers::NFT_TABLE.to_owned()), table)]),
        ..State::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_was_stopped_within_that_second_is_known_by_family() {
        let both = BTreeSet::from([[10, 60, 1, 2].into(), "fd00:60::2".parse().unwrap()]);
        let v4 = BTreeSet::from([IpAddr::from([10, 60, 1, 2])]);
        let stood = |state: &State| Family::BOTH.map(|family| stands(state, family));
        assert_eq!(stood(&overture(&both)), [true, true]);
        assert_eq!(stood(&unheard(&v4)), [true, false]);
        assert_eq!(stood(&State::default()), [false, false]);
    }
}
