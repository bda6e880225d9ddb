//! What stands on a node before its first plan where nobody tracks packets: see `node::first`.
//!
//! In: addresses of running pods that will become clients. Out: a state that the plan's own table replaces. Never: looks at a kernel.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::addr::Family;
use crate::egress::lower_nft::{base, priority, rule, word};
use crate::egress::numbers;
use crate::kernel::nft::table::Table;
use crate::kernel::state::{NftFamily, State};

/// Packets are tracked, but for those to these pods: so every flow of theirs begins with their own next packet, whichever end speaks
/// first. Connections that the outside opened before are taken for the pod's own: nobody can tell them apart any more.
pub fn overture(pods: &BTreeSet<IpAddr>) -> State {
    let of_family = |family: Family| pods.iter().filter(move |ip| Family::of(**ip) == family);
    let silent = Family::BOTH.into_iter().filter_map(|family| {
        let to: Vec<String> = of_family(family).map(IpAddr::to_string).collect();
        let text = format!("{} daddr {{ {} }} notrack", word(family), to.join(", "));
        (!to.is_empty()).then(|| rule("answers do not open flows", text))
    });
    let table = Table {
        chains: BTreeMap::from([
            ("unheard".to_owned(), base("filter", "prerouting", priority::RAW, silent.collect())),
            (
                "prerouting".to_owned(),
                base(
                    "filter",
                    "prerouting",
                    priority::DSTNAT + 10,
                    vec![rule("tracked", "ct state new counter")],
                ),
            ),
        ]),
        ..Table::default()
    };
    State {
        tables: BTreeMap::from([((NftFamily::Inet, numbers::NFT_TABLE.to_owned()), table)]),
        ..State::default()
    }
}
