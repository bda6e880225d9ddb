//! Tiers, policies and prefixes: which rule decides for which destination, and which rules lose.
//!
//! In: what each tier has to say, the first to decide first. Out: a `Blend`, one rule per prefix. Never: asks which gateways a
//! rule finds; that is the same question whoever won.
//!
//! The first tier with a rule for a destination decides, and within it the longest prefix. So a rule stands unless a prefix of an
//! earlier tier covers its own, and what is left is one map of longest prefixes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::addr::{Cidr, Family};
use crate::egress::model::Source;
use crate::egress::policy::{Policy, PolicyRule, To};
use crate::problem::Problem;

/// Where a rule sends.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Goal {
    /// As if we were not there.
    Direct,
    /// Nowhere, for this reason.
    Held(Arc<str>),
    /// To pod or node gateways: a number that whoever keeps goals understands.
    Gateways(u32),
}

/// One rule that stands.
#[derive(Debug, Clone)]
pub(super) struct Rule {
    pub(super) goal: Goal,
    /// Where it was written; `None`: in the annotations that select the pod.
    pub(super) source: Option<Arc<Source>>,
    /// Whether the family that the policy does not speak of is held.
    pub(super) holds_other_family: bool,
    /// Said of what no rule names (`defaultAction`), so it yields to every rule of its tier for the same prefix.
    pub(super) by_default: bool,
}

/// Rules by destination; the longest prefix decides.
pub(super) type Rules = BTreeMap<Cidr, Rule>;

/// The rules of one tier, from its policies, the first to win first. What lost is told to `lost`.
pub(super) fn tier<'a>(
    policies: impl IntoIterator<Item = (&'a Policy, Vec<(Cidr, Rule)>)>,
    lost: &mut Vec<Problem>,
) -> Rules {
    let mut rules = Rules::new();
    let mut owners: BTreeMap<Cidr, &Policy> = BTreeMap::new();
    for (policy, own) in policies {
        let mut beaten: BTreeMap<*const Policy, (&Policy, Vec<Cidr>)> = BTreeMap::new();
        for (cidr, rule) in own {
            match (rules.get_mut(&cidr), owners.get(&cidr)) {
                (Some(_), _) if rule.by_default => {}
                (Some(standing), _) if standing.by_default => {
                    *standing = rule;
                    owners.insert(cidr, policy);
                }
                (Some(standing), Some(owner)) if !std::ptr::eq(*owner, policy) => {
                    if standing.goal != rule.goal {
                        beaten.entry(*owner).or_insert_with(|| (owner, Vec::new())).1.push(cidr);
                    }
                }
                // Within one policy what is excluded stays excluded, wherever it stands.
                (Some(standing), _) => {
                    if rule.goal == Goal::Direct {
                        *standing = rule;
                    }
                }
                (None, _) => {
                    owners.insert(cidr, policy);
                    rules.insert(cidr, rule);
                }
            }
        }
        lost.extend(beaten.into_values().map(|(winner, cidrs)| loser(policy, winner, &cidrs)));
    }
    rules
}

fn loser(policy: &Policy, winner: &Policy, cidrs: &[Cidr]) -> Problem {
    let first = cidrs.first().map(ToString::to_string).unwrap_or_default();
    let more = match cidrs.len() {
        0 | 1 => String::new(),
        n => format!(" and {} more of its prefixes", n - 1),
    };
    let stand = if cidrs.len() > 1 { "stand" } else { "stands" };
    let why = match winner.created.is_some() && winner.created != policy.created {
        true => "is older",
        false => "comes first by name",
    };
    let message = format!(
        "{first}{more} {stand} in {} too, which {why}, and so decides for pods that both concern: take them out of one",
        winner.object()
    );
    let rule = policy.rules.iter().find(|rule| cidrs.first() == Some(&rule.destination));
    let field = rule.map_or("spec.defaultAction", |rule| &rule.field);
    Problem::new(policy.object(), "PrefixTaken", message).at(field).value(first)
}

/// A policy's rules. `gateways` numbers what is sent to gateways.
pub(super) fn rules_of(policy: &Policy, mut gateways: impl FnMut(&To) -> u32) -> Vec<(Cidr, Rule)> {
    let holds_other_family = !policy.ignores_other_family;
    let object = policy.object();
    let source = |field: &str, value: String| {
        Some(Arc::new(Source { object: object.clone(), field: field.to_owned(), value }))
    };
    let mut rules: Vec<(Cidr, Rule)> = Vec::with_capacity(policy.rules.len());
    for PolicyRule { destination, field, to } in &policy.rules {
        let goal = match to {
            To::Direct => Goal::Direct,
            gated => Goal::Gateways(gateways(gated)),
        };
        let source = source(field, destination.to_string());
        rules.push((*destination, Rule { goal, source, holds_other_family, by_default: false }));
    }
    if policy.deny_others {
        let named: BTreeSet<Cidr> = policy.rules.iter().map(|rule| rule.destination).collect();
        for everything in Family::BOTH.map(Family::everything).into_iter().filter(|all| !named.contains(all))
        {
            let why = format!("{object} denies what none of its rules names: add a rule for the destination");
            let source = source("spec.defaultAction", "Deny".to_owned());
            let goal = Goal::Held(why.into());
            rules.push((everything, Rule { goal, source, holds_other_family: false, by_default: true }));
        }
    }
    rules
}

/// A tier that cannot be obeyed: nothing that it should decide may leave.
pub(super) fn nothing(why: &str, source: Option<Arc<Source>>) -> Rules {
    let goal = Goal::Held(why.into());
    let rule = Rule { goal, source, holds_other_family: false, by_default: false };
    Family::BOTH.into_iter().map(|family| (family.everything(), rule.clone())).collect()
}

/// One map of all tiers.
pub(super) fn blend(tiers: impl IntoIterator<Item = Rules>) -> Rules {
    let mut blend = Rules::new();
    for tier in tiers {
        if blend.is_empty() {
            blend = tier;
            continue;
        }
        let earlier = Covering::of(&blend);
        let left: Vec<(Cidr, Rule)> =
            tier.into_iter().filter(|(cidr, _)| !earlier.covers(&blend, *cidr)).collect();
        blend.extend(left);
    }
    hold_the_other_family(&mut blend);
    blend
}

/// Prefix lengths that occur, so that a prefix is looked for at those only.
struct Covering {
    lengths: BTreeSet<(Family, u8)>,
}

impl Covering {
    fn of(rules: &Rules) -> Covering {
        Covering { lengths: rules.keys().map(|cidr| (cidr.family(), cidr.prefix())).collect() }
    }

    fn covers(&self, rules: &Rules, cidr: Cidr) -> bool {
        let shorter = self.lengths.range((cidr.family(), 0)..=(cidr.family(), cidr.prefix()));
        shorter.into_iter().any(|(_, length)| rules.contains_key(&Cidr::covering(cidr.first(), *length)))
    }
}

/// Who is sent to gateways for one family's whole internet, and of whose other family nothing is said, would leave there with
/// an address that nobody chose.
fn hold_the_other_family(rules: &mut Rules) {
    let [v4, v6] = Family::BOTH;
    for (sent, other) in [(v4, v6), (v6, v4)] {
        let Some(rule) = rules.get(&sent.everything()) else { continue };
        let gated = matches!(rule.goal, Goal::Gateways(_)) && rule.holds_other_family;
        if !gated || rules.contains_key(&other.everything()) {
            continue;
        }
        let by = rule.source.as_ref().map(|source| source.object.clone()).unwrap_or_default();
        let why = format!(
            "{by} sends all of {sent} to gateways and says nothing of {other}, which would leave with another address: add a \
             rule for {}, without gateway if it may go direct",
            other.everything()
        );
        let goal = Goal::Held(why.into());
        let rule = Rule { goal, source: rule.source.clone(), holds_other_family: false, by_default: false };
        rules.insert(other.everything(), rule);
    }
}
