//! What was dropped, by which rule, and by whose: counters of our tables.
//!
//! In: the kernel's counters, of the node's namespace and of its gateways'. Out: rows of the status. Never: resets one.

use super::pods::Names;
use super::shape::{Drops, Firewall};
use crate::egress::lower_nft::{FORWARDED, FORWARDED_FROM_US, FORWARDED_TO_US};
use crate::egress::numbers;
use crate::egress::plan::NodePlan;
use crate::kernel::netns::Netns;
use crate::kernel::nft::counters::{Counted, counters};
use crate::problem::Problem;

/// Counters of the node's namespace and of its gateways', each with its place.
pub(super) fn counted(
    plan: Option<&NodePlan>,
    names: &Names<'_>,
    problems: &mut Vec<Problem>,
) -> Vec<(String, Counted)> {
    let tables = numbers::node_scope().tables;
    let mut all = Vec::new();
    let mut take = |place: &str, found: Result<Vec<Counted>, String>| match found {
        Ok(found) => all.extend(found.into_iter().map(|counted| (place.to_owned(), counted))),
        Err(error) => {
            problems.push(Problem::new(place, "NotCounted", format!("counters cannot be read: {error}")));
        }
    };
    take("node", counters(&tables).map_err(|e| e.to_string()));
    for attachment in plan.into_iter().flat_map(|plan| plan.locals.keys()) {
        let Some(record) = names.record(attachment).filter(|record| !record.netns_is_gone()) else {
            continue;
        };
        let found = Netns::open(&record.netns).map_err(|e| e.to_string());
        let found = found.and_then(|netns| netns.run(|| counters(&tables)).map_err(|e| e.to_string()));
        take(attachment, found.and_then(|found| found.map_err(|e| e.to_string())));
    }
    all
}

/// By place and rule, in the order of the rules; what has met no packet is left out.
pub(super) fn drops(counted: &[(String, Counted)]) -> Vec<Drops> {
    let mut drops: Vec<Drops> = Vec::new();
    for (place, Counted { chain, rule, packets }) in counted {
        if chain == FORWARDED
            || [FORWARDED_FROM_US, FORWARDED_TO_US].contains(&rule.as_str())
            || *packets == 0
        {
            continue;
        }
        match drops.iter_mut().find(|known| known.place == *place && known.rule == *rule) {
            Some(known) => known.packets += packets,
            None => drops.push(Drops { place: place.clone(), rule: rule.clone(), packets: *packets }),
        }
    }
    drops
}

pub(super) fn firewall(counted: &[(String, Counted)]) -> Vec<Firewall> {
    let of = |rule: &str, late: bool| {
        let of_node = counted.iter().filter(|(place, _)| place == "node").map(|(_, counted)| counted);
        let mut rules = of_node.filter(|c| c.rule == rule && (c.chain == FORWARDED) == late);
        rules.next().map(|counted| counted.packets)
    };
    let directions = [(FORWARDED_FROM_US, "from gateways"), (FORWARDED_TO_US, "to gateways")];
    let each = directions.into_iter().filter_map(|(rule, direction)| {
        let (before, after) = (of(rule, false)?, of(rule, true)?);
        // Read one after the other: a packet between the two may come out without having gone in.
        Some(Firewall { hook: "forward", direction, before, after, lost: before.saturating_sub(after) })
    });
    each.collect()
}
