//! Running flows during a change of plans, in the kernel's connection tracking. `egress::transition` decides, this does.
//!
//! In: a [`Transition`]. Out: entries deleted or re-marked. Never: touches the low byte of a mark, which is foreign.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::addr::Cidr;
use crate::egress::numbers::{EXIT_MASK, PIN_DEAD, PIN_MASK, PIN_SHIFT, exit_mark};
use crate::egress::plan::NodePlan;
use crate::egress::prefixes::{self, Change, Changes};
use crate::egress::transition::{Fate, Transition, fate};
use crate::kernel::conntrack::{self, Flow, MarkFilter, Sentence};

/// Counted where they are told, by whichever thread: the kernel keeps no such count.
static LOST: AtomicU64 = AtomicU64::new(0);

/// Before the new plan: numbers that begin must not be found on flows of an earlier bearer. Where addresses are about to be
/// forgotten, that is done in the same listing.
///
/// # Errors
/// The kernel's refusal, as a sentence.
pub fn begin(transition: &Transition) -> Result<(), String> {
    forget_exits(&transition.exits_begun)?;
    let begun = &transition.begun;
    match begun.first() {
        Some(_) if !transition.rebound.is_empty() => Ok(()),
        None => Ok(()),
        Some(number) if begun.len() == 1 => kill(*number, None),
        Some(_) => kill_all(begun),
    }
}

/// While addresses are held: their entries towards the outside go. Of running pods that join, established TCP gets the dead pin
/// instead, so that the pod is told at its next packet, and so does what nobody translates: it is pinned anew. Without its entry
/// the far end's next packet would make one the wrong way round, and the pod's own would pass as replies, with the pod's address
/// (measured: a UDP flow whose answer was on its way when its entry was deleted leaked until it ended). Everybody else's flows
/// lose the pins that begin to mean another gateway: the plan in force still is the one before.
///
/// Where all of them sleep, nobody is told anything, and what they opened towards the inside may go with the rest.
///
/// # Errors
/// The kernel's refusal, as a sentence.
pub fn forget(
    transition: &Transition,
    joining: &BTreeSet<IpAddr>,
    sleeps: impl Fn(&IpAddr) -> bool,
    inside: &[Cidr],
) -> Result<(), String> {
    let (begun, rebound) = (&transition.begun, &transition.rebound);
    if begun.is_empty() && rebound.iter().all(sleeps) {
        return conntrack::clear(rebound, inside).map_err(|e| e.to_string());
    }
    let dead = |ip| joining.contains(&ip).then_some((PIN_DEAD, PIN_MASK));
    let stale = |mark: u32| begun.contains(&((mark & PIN_MASK) >> PIN_SHIFT)).then_some((PIN_DEAD, PIN_MASK));
    let stale: Option<&dyn Fn(u32) -> Option<(u32, u32)>> =
        if begun.is_empty() { None } else { Some(&stale) };
    conntrack::forget_or_mark(rebound, inside, dead, stale).map(drop).map_err(|e| e.to_string())
}

/// While prefixes are held: entries of their flows go, whoever carried them.
///
/// # Errors
/// The kernel's refusal, as a sentence.
pub fn release(released: &BTreeMap<IpAddr, Changes>, inside: &[Cidr]) -> Result<(), String> {
    if released.is_empty() {
        return Ok(());
    }
    let sentence = |flow: &Flow| {
        let (Some(changes), Some(to)) = (released.get(&flow.source), flow.to) else { return Sentence::Keep };
        let goes =
            prefixes::at(changes, to) == Change::Released && !inside.iter().any(|net| net.contains(to));
        if goes { Sentence::Delete } else { Sentence::Keep }
    };
    let only = released.keys().next().copied().filter(|_| released.len() == 1);
    conntrack::judge(MarkFilter::ALL, only, sentence).map(drop).map_err(|e| e.to_string())
}

/// When the new plan stands: flows on a gateway that their pod may not use any more get the dead pin; those with a NAT binding of this
/// node's own that they may not use any more are told or forgotten. All in one listing.
///
/// # Errors
/// The kernel's refusal, as a sentence.
pub fn end(transition: &Transition, plan: &NodePlan) -> Result<(), String> {
    forget_exits(&transition.exits_ended)?;
    let Transition { moved, rebuilt, .. } = transition;
    match moved.first() {
        None if rebuilt.is_empty() => Ok(()),
        Some((client, number)) if rebuilt.is_empty() && moved.len() == 1 => kill(*number, Some(*client)),
        _ => settle(transition, plan),
    }
}

fn settle(Transition { moved, rebuilt, .. }: &Transition, plan: &NodePlan) -> Result<(), String> {
    let told = Cell::new(0);
    let sentence = |flow: &Flow| {
        let fate = if rebuilt.contains(&flow.source) {
            fate(plan, flow.source, flow.to, flow.mark, flow.bare, flow.established_tcp)
        } else {
            Fate::Lives
        };
        let left = || moved.contains(&(flow.source, (flow.mark & PIN_MASK) >> PIN_SHIFT));
        match fate {
            Fate::Lives if left() => {
                told.set(told.get() + 1);
                Sentence::Mark(PIN_DEAD, PIN_MASK)
            }
            Fate::Lives => Sentence::Keep,
            Fate::Told => Sentence::Mark(PIN_DEAD, PIN_MASK),
            Fate::Forgotten => Sentence::Delete,
        }
    };
    let clients: BTreeSet<IpAddr> = moved.iter().map(|(client, _)| *client).chain(rebuilt.clone()).collect();
    let only = clients.first().copied().filter(|_| clients.len() == 1);
    conntrack::judge(MarkFilter::ALL, only, sentence).map_err(|e| e.to_string())?;
    count(told.get());
    Ok(())
}

/// Entries of this node's own gateways, by index.
fn forget_exits(indexes: &BTreeSet<u16>) -> Result<(), String> {
    let marked = |index: &u16| MarkFilter { value: exit_mark(*index), mask: EXIT_MASK };
    let filters: Vec<MarkFilter> = indexes.iter().map(marked).collect();
    conntrack::forget_marked(&filters).map_err(|e| e.to_string())
}

/// One listing that the kernel filters.
fn kill(number: u32, client: Option<IpAddr>) -> Result<(), String> {
    let filter = MarkFilter { value: number << PIN_SHIFT, mask: PIN_MASK };
    conntrack::remark(filter, client, (PIN_DEAD, PIN_MASK)).map(count).map_err(|e| e.to_string())
}

/// One listing for any number of them: each walks the table of the whole machine, so that a thousand took twelve seconds.
fn kill_all(numbers: &BTreeSet<u32>) -> Result<(), String> {
    let meant = |_, mark: u32| numbers.contains(&((mark & PIN_MASK) >> PIN_SHIFT));
    conntrack::remark_where(meant, (PIN_DEAD, PIN_MASK)).map(count).map_err(|e| e.to_string())
}

/// Flows that lost their gateway since this process began: told at their next packet, or pinned anew.
pub fn lost() -> u64 {
    LOST.load(Ordering::Relaxed)
}

fn count(flows: usize) {
    LOST.fetch_add(flows as u64, Ordering::Relaxed);
}
