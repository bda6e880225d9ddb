//! What the worlds had in them: a run in which a kind of decision never occurred proves nothing about it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use egret::addr::Cidr;
use egret::egress::explain::{Item, Verdict};
use egret::egress::model::Role;

/// Rows by what was done and by what decided it.
#[derive(Debug, Default, Clone)]
pub(crate) struct Tally {
    pub(crate) rows: BTreeMap<(&'static str, String), usize>,
    pub(crate) asked: usize,
    pub(crate) packets: usize,
    /// What became of running flows.
    pub(crate) ends: BTreeMap<String, usize>,
}

/// What a run of many worlds must have met.
const MUST: [(&str, &str); 19] = [
    ("gateway", "selector of a Pod, by pods"),
    ("gateway", "selector of a Namespace, by pods"),
    ("gateway", "policies named by a Pod, by pods"),
    ("gateway", "policies named by a Pod, by nodes"),
    ("gateway", "policies named by a Namespace, by pods"),
    ("gateway", "policies named by a Namespace, by nodes"),
    ("gateway", "enforced policy, by pods"),
    ("gateway", "enforced policy, by nodes"),
    ("gateway", "policy that selects, by pods"),
    ("gateway", "policy that selects, by nodes"),
    ("gateway", "Cilium's policy, by nodes"),
    ("direct", "nothing"),
    ("direct", "is a gateway"),
    ("direct", "policies named by a Pod"),
    ("direct", "Cilium's policy"),
    ("held", "selector of a Pod"),
    ("held", "policies named by a Namespace"),
    ("held", "policy that selects"),
    ("held", "Cilium's policy"),
];

impl Tally {
    /// Counts one row.
    pub(crate) fn count(&mut self, item: &Item, enforced: &BTreeSet<String>) {
        let action = match item.action {
            Verdict::Gateway => "gateway",
            Verdict::Direct => "direct",
            Verdict::Held => "held",
        };
        let mut by = decided_by(item, enforced).to_owned();
        if item.action == Verdict::Gateway {
            let pods = item.gateways.iter().any(|gateway| gateway.usable && gateway.pod.is_some());
            by.push_str(if pods { ", by pods" } else { ", by nodes" });
        }
        *self.rows.entry((action, by)).or_default() += 1;
    }

    /// Adds another's.
    pub(crate) fn add(&mut self, other: &Tally) {
        for (kind, times) in &other.rows {
            *self.rows.entry(kind.clone()).or_default() += times;
        }
        for (end, times) in &other.ends {
            *self.ends.entry(end.clone()).or_default() += times;
        }
        self.asked += other.asked;
        self.packets += other.packets;
    }

    /// Kinds of decision that never occurred.
    pub(crate) fn missing(&self) -> Vec<String> {
        let met = |(action, by): &(&str, &str)| self.rows.keys().any(|(a, b)| a == action && b == by);
        MUST.iter().filter(|kind| !met(kind)).map(|(action, by)| format!("{action}: {by}")).collect()
    }

    fn of(&self, action: &str) -> usize {
        self.rows.iter().filter(|((a, _), _)| *a == action).map(|(_, times)| times).sum()
    }
}

fn decided_by(item: &Item, enforced: &BTreeSet<String>) -> &'static str {
    if item.role == Role::Gateway {
        return "is a gateway";
    }
    if item.inside.is_some() {
        return "inside";
    }
    let rule: Option<Cidr> = item.rule;
    let Some(source) = item.decided_by.as_ref() else { return "nothing" };
    let (kind, name) = source.object.split_once(' ').unwrap_or_default();
    let policies = source.field.contains("Policy");
    match kind {
        _ if rule.is_none() => "no rule for it",
        "Pod" if policies => "policies named by a Pod",
        "Pod" => "selector of a Pod",
        "Namespace" if policies => "policies named by a Namespace",
        "Namespace" => "selector of a Namespace",
        "EgressGatewayPolicy" if enforced.contains(name) => "enforced policy",
        "EgressGatewayPolicy" => "policy that selects",
        "CiliumEgressGatewayPolicy" => "Cilium's policy",
        _ => "somebody else",
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [gateway, direct, held] = ["gateway", "direct", "held"].map(|action| self.of(action));
        write!(
            f,
            "{} questions, {} packets outside; rows: {gateway} through gateways, {direct} direct, {held} held",
            self.asked, self.packets
        )
    }
}

impl Tally {
    /// One line per kind.
    pub(crate) fn table(&self) -> String {
        let line = |((action, by), times): (&(&str, String), &usize)| format!("{times:6} {action:8} {by}\n");
        let rows: String = self.rows.iter().map(line).collect();
        let ends: String = self.ends.iter().map(|(end, times)| format!("{times:6} {end}\n")).collect();
        rows + &ends
    }
}
