//! Which set a rule leads to, and what it does where mark numbers are scarce.
//!
//! In: a set's members. Out: its number, or that of another set that may serve meanwhile, or none; and a problem. Never: takes a number from
//! anybody.
//!
//! A set that changes has its new number beside its old one until nothing points to that. Where a gateway joins or leaves more than half of as
//! many sets as there can be, all of them do at once, and there are not numbers for all, though there were and there will be. Held for that
//! moment their clients would lose their flows; so they stay where they are, and get their numbers when the others' old ones are free.

use std::collections::BTreeSet;

use super::{Work, next_hops};
use crate::egress::model::EndpointState;
use crate::egress::numbers::mark;
use crate::egress::plan::{NodePlan, Verdict};
use crate::problem::Problem;

/// Whether sets give their numbers up from one plan to the next. If others had none in the next one ([`super::Planned::lacks_sets`]), they
/// have one when it is planned again, upon that.
pub fn frees_sets(before: &NodePlan, next: &NodePlan) -> bool {
    before.sets.keys().any(|number| !next.sets.contains_key(number))
}

impl Work<'_> {
    /// Where a rule leads whose gateways are these.
    pub(super) fn set(&mut self, members: BTreeSet<u32>) -> Verdict {
        if let Some(number) = self.numbering.set(&members) {
            self.plan.sets.insert(number, members);
            return Verdict::Set(number);
        }
        self.lacks_sets = true;
        self.problems.push(Problem::new(
            format!("Node {}", self.inputs.here.node),
            "TooManyGatewaySets",
            format!(
                "node {} needs more than {} different gateway sets, one per mark number; the pods of the last ones are held, or do \
                 without some of their gateways: let policies share gateways, or spread their pods over more nodes",
                self.inputs.here.node,
                mark::SETS.count()
            ),
        ));
        let draining = self.view_drains();
        match self.numbering.instead_of(&members, &draining) {
            Some((number, known)) => {
                self.plan.sets.insert(number, known);
                Verdict::Set(number)
            }
            None => Verdict::Held,
        }
    }

    /// Numbers of gateways that drain: in a set of theirs nobody is sent to them any more.
    fn view_drains(&self) -> BTreeSet<u32> {
        let draining = self.inputs.view.endpoints.iter().filter(|e| e.state == EndpointState::Draining);
        draining.flat_map(next_hops).filter_map(|ip| self.numbering.gateways.get(&ip).copied()).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use crate::egress::numbering::Numbering;

    #[test]
    fn what_serves_in_place_of_a_set_sends_to_nobody_else() {
        let sets = [(1, [1, 2].into()), (2, [1].into()), (3, [3].into()), (4, [1, 4, 5].into())];
        let numbering = Numbering { sets: sets.into(), ..Numbering::default() };
        let instead = |members: &[u32], draining: &[u32]| {
            let of = |numbers: &[u32]| numbers.iter().copied().collect::<BTreeSet<u32>>();
            numbering.instead_of(&of(members), &of(draining)).map(|(number, _)| number)
        };
        assert_eq!(instead(&[1, 2, 9], &[]), Some(1), "one that joins is waited for");
        assert_eq!(instead(&[1, 9], &[]), Some(2));
        assert_eq!(instead(&[4, 5], &[1]), Some(4), "one that drains is in it and takes nothing");
        assert_eq!(instead(&[9], &[1, 2]), None);
    }
}
