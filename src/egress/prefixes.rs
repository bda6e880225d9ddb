//! What changes for one client between two plans, destination by destination.
//!
//! In: two plans and the client's binding in each. Out: prefixes whose running flows may not go on as they are. Never: touches a kernel.
//!
//! A pod that has several rules may lose a gateway for one destination and keep it for another, so gateways alone do not tell
//! which of its flows may go on.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::addr::{Cidr, Family};
use crate::egress::plan::{Binding, NodePlan, Verdict};

/// What becomes of flows to a prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// They go on.
    None,
    /// Each is to be judged by the new rule.
    Judged,
    /// They went by a gateway, or were held, and go direct now: an entry of that time holds no address of the primary network's
    /// choice, so with it they would leave with the pod's own.
    Released,
}

/// Prefixes of both plans' rules, with what changes there. For a destination the longest counts.
pub type Changes = BTreeMap<Cidr, Change>;

/// Compares the rules of two bindings for a family.
pub fn changes(before: &NodePlan, old: &str, after: &NodePlan, new: &str, family: Family) -> Changes {
    let (was, is) = (before.bindings.get(old), after.bindings.get(new));
    let keys = [was, is].into_iter().flatten().flat_map(|binding| binding.rules.keys());
    let mut prefixes: BTreeSet<Cidr> = keys.filter(|prefix| prefix.family() == family).copied().collect();
    prefixes.insert(family.everything());
    let change = |prefix: Cidr| {
        let (was, is) = (verdict(was, prefix), verdict(is, prefix));
        (prefix, compare(before, was, after, is))
    };
    prefixes.into_iter().map(change).collect()
}

/// The change at an address.
pub fn at(changes: &Changes, to: IpAddr) -> Change {
    let holds = changes.iter().filter(|(prefix, _)| prefix.contains(to));
    holds.max_by_key(|(prefix, _)| prefix.prefix()).map_or(Change::None, |(_, change)| *change)
}

fn compare(before: &NodePlan, was: Verdict, after: &NodePlan, is: Verdict) -> Change {
    match (was, is) {
        (Verdict::Direct, Verdict::Direct) | (Verdict::Held, Verdict::Held) => Change::None,
        (_, Verdict::Direct) => Change::Released,
        (Verdict::Set(was), Verdict::Set(is)) => {
            let lost = members(before, was).difference(&members(after, is)).next().is_some();
            if lost { Change::Judged } else { Change::None }
        }
        _ => Change::Judged,
    }
}

/// Gateways of a set, by number and MAC, as far as they take flows: one that drains keeps its flows, and one that is gone tells its
/// own at their next packet.
fn members(plan: &NodePlan, set: u8) -> BTreeSet<(u32, crate::addr::Mac)> {
    let numbers = plan.sets.get(&set).into_iter().flatten();
    let known = numbers.filter_map(|number| Some((*number, plan.gateways.get(number)?)));
    known
        .filter(|(_, gateway)| gateway.takes_new_flows)
        .map(|(number, gateway)| (number, gateway.mac))
        .collect()
}

/// What the rules say of a whole prefix: the longest that holds it; none: direct.
fn verdict(binding: Option<&Binding>, prefix: Cidr) -> Verdict {
    let rules = binding.into_iter().flat_map(|binding| &binding.rules);
    let holds = |rule: &Cidr| {
        rule.family() == prefix.family() && rule.prefix() <= prefix.prefix() && rule.contains(prefix.first())
    };
    let holding = rules.filter(|(rule, _)| holds(rule)).max_by_key(|(rule, _)| rule.prefix());
    holding.map_or(Verdict::Direct, |(_, verdict)| *verdict)
}
