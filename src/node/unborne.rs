//! Gateway numbers that no running flow carries, known before anybody needs one.
//!
//! A number that begins must not be found on flows of an earlier bearer: to look for them is a walk through the connection table of the
//! whole machine, 10 to 18 ms in which whoever wrote an object waits. So who lives on has a block of numbers looked for at once, by one
//! walk when nobody waits, and gives each of them to one gateway only. In: the plan in force. Out: numbers. Never: gives a number twice,
//! or believes a block of which a plan knows a number.

use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::egress::numbering::Numbering;
use crate::egress::numbers::{PIN_DEAD, PIN_MASK, PIN_SHIFT};
use crate::egress::plan::NodePlan;
use crate::kernel::conntrack::{self, MarkFilter};

/// Numbers of a block: as many as one walk is made for.
const BLOCK: u32 = 256;
/// Blocks lie above all numbers that are given by who knows of none: those are the lowest free ones, of at most some hundred gateways.
const FIRST: u32 = 0x10_0000;
/// One beyond the last block: that has the dead pin's number.
const END: u32 = (PIN_DEAD >> PIN_SHIFT) / BLOCK * BLOCK;

/// What is left of a block, and what the update that is under way took of it.
#[derive(Debug, Default)]
pub(super) struct Unborne(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    left: Range<u32>,
    taken: Range<u32>,
}

impl Unborne {
    /// An update begins to number: it may take what is left.
    pub(super) fn lend(&self, numbering: &mut Numbering) {
        let mut state = self.state();
        state.taken = 0..0;
        numbering.unborne = state.left.clone();
    }

    /// It has numbered.
    pub(super) fn take_back(&self, numbering: &Numbering) {
        let mut state = self.state();
        state.taken = state.left.start..numbering.unborne.start;
        state.left = numbering.unborne.clone();
    }

    /// Whether the update under way took this number, so that no flow can carry it.
    pub(super) fn has_just(&self, number: u32) -> bool {
        self.state().taken.contains(&number)
    }

    /// It is over: from now on its numbers are like any other.
    pub(super) fn settle(&self) {
        self.state().taken = 0..0;
    }

    /// Looks for another block where little is left, in the calling thread's namespace: flows that carry a number of it get the dead pin,
    /// as they would when it began.
    ///
    /// # Errors
    /// The kernel's refusal; then each number is looked for when it begins.
    pub(super) fn replenish(&self, plan: &NodePlan) -> Result<(), conntrack::Error> {
        if self.state().left.len() >= BLOCK as usize / 8 {
            return Ok(());
        }
        let block = free_block(self.state().left.end, plan);
        let filter =
            MarkFilter { value: block.start << PIN_SHIFT, mask: PIN_MASK & !((BLOCK - 1) << PIN_SHIFT) };
        conntrack::remark(filter, None, (PIN_DEAD, PIN_MASK))?;
        self.state().left = block;
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The first block behind this number, or from the beginning, of which the plan knows no number.
fn free_block(behind: u32, plan: &NodePlan) -> Range<u32> {
    let known = |block: &Range<u32>| plan.gateways.range(block.clone()).next().is_some();
    let highest = plan.gateways.keys().next_back().copied().unwrap_or_default();
    let behind = behind.max(highest + 1).max(FIRST).next_multiple_of(BLOCK);
    let blocks = (behind..END).chain(FIRST..behind.min(END)).step_by(BLOCK as usize);
    blocks.map(|start| start..start + BLOCK).find(|block| !known(block)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::egress::tests::worlds::World;

    fn bearing(numbers: &[u32]) -> NodePlan {
        let mut plan = World::new().gateway(2, 0).client(10, &[0]).plan();
        let gateway = plan.gateways.values().next().cloned().unwrap_or_else(|| panic!("no gateway"));
        plan.gateways = numbers.iter().map(|number| (*number, gateway.clone())).collect();
        plan
    }

    #[test]
    fn a_block_is_one_that_the_plan_knows_nothing_of_and_not_that_of_the_dead_pin() {
        assert_eq!(free_block(0, &bearing(&[1, 2])), FIRST..FIRST + BLOCK);
        assert_eq!(free_block(FIRST + BLOCK, &bearing(&[1])), FIRST + BLOCK..FIRST + 2 * BLOCK);
        // An agent before this one gave them.
        assert_eq!(free_block(0, &bearing(&[FIRST + 3])), FIRST + BLOCK..FIRST + 2 * BLOCK);
        assert_eq!(free_block(END, &bearing(&[FIRST + 3])), FIRST + BLOCK..FIRST + 2 * BLOCK);
        assert_eq!(free_block(0, &bearing(&[END - 1])), FIRST..FIRST + BLOCK);
        const { assert!(END <= PIN_DEAD >> PIN_SHIFT && FIRST.is_multiple_of(BLOCK)) };
    }

    #[test]
    fn a_number_is_taken_once_and_is_unborne_during_that_update_only() {
        let unborne = Unborne::default();
        unborne.state().left = FIRST..FIRST + 2;
        let mut numbering = Numbering::default();
        unborne.lend(&mut numbering);
        let hop = |n: u8| [std::net::IpAddr::from([10, 0, 0, n])];
        assert_eq!(numbering.gateway(&hop(1)), Some(FIRST));
        assert_eq!(numbering.gateway(&hop(1)), Some(FIRST), "it keeps the number it had");
        unborne.take_back(&numbering);
        assert!(unborne.has_just(FIRST) && !unborne.has_just(FIRST + 1));
        unborne.settle();
        assert!(!unborne.has_just(FIRST));
        let mut next = Numbering::default();
        unborne.lend(&mut next);
        assert_eq!(next.gateway(&hop(2)), Some(FIRST + 1));
        assert_eq!(next.gateway(&hop(3)), Some(1), "without a block the lowest that is free");
        unborne.take_back(&next);
        assert!(!unborne.has_just(1) && unborne.has_just(FIRST + 1) && unborne.state().left.is_empty());
    }
}
