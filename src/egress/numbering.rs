//! Which gateway, which set and which local gateway has which number on this node.
//!
//! Numbers of gateways live in the connection marks of running flows, longer than any process, so a gateway keeps its number
//! as long as it is known, and the kernel's own maps say it again when the node's file is lost.
//! In: the last plan, or what the kernel holds. Out: the numbers to keep. Never: flushes; `transition` does.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::ops::Range;

use crate::addr::Mac;
use crate::egress::exits::exit_chain_index;
use crate::egress::lower::{local_chain_slot, pin_chain_number};
use crate::egress::numbers::{self, LAST_EXIT, LAST_GATEWAY, TABLES, mark};
use crate::egress::plan::{NodePlan, Place};
use crate::kernel::nft::table::{Atom, Value};
use crate::kernel::state::{Nexthop, NftFamily, State, Via};

/// Numbers in use.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Numbering {
    /// Gateway's number by next hop; both next hops of one gateway have one number.
    pub gateways: BTreeMap<IpAddr, u32>,
    /// Members of each set by mark number.
    pub sets: BTreeMap<u8, BTreeSet<u32>>,
    /// Mark number of each local gateway by gateway number.
    pub slots: BTreeMap<u32, u8>,
    /// Mark number of each interface by which this node's own gateways leave: of the same range.
    pub doors: BTreeMap<String, u8>,
    /// Index of each of this node's own gateways by its MAC.
    pub exits: BTreeMap<Mac, u16>,
    /// Numbers of gateways that go with the next plan. They rest during it: until it stands, packets may still carry them,
    /// and would be found by whoever got one meanwhile.
    pub resting: BTreeSet<u32>,
    /// Indexes that rest, for the same reason.
    pub resting_exits: BTreeSet<u16>,
    /// Numbers that no flow carries and nobody was ever given: they are given first. Where none is left, the lowest free one is.
    pub unborne: Range<u32>,
}

impl Numbering {
    /// From a plan.
    pub fn of(plan: &NodePlan) -> Numbering {
        let mut numbering = Numbering { sets: plan.sets.clone(), ..Numbering::default() };
        for (number, gateway) in &plan.gateways {
            numbering.gateways.extend(gateway.next_hops().map(|ip| (ip, *number)));
            if let Place::Local { slot, .. } = gateway.place {
                numbering.slots.insert(*number, slot);
            }
        }
        numbering.doors = plan.doors().into_iter().map(|(dev, slot)| (dev.to_owned(), slot)).collect();
        numbering.exits = plan.exits.iter().map(|(index, exit)| (exit.mac, *index)).collect();
        numbering
    }

    /// From what the kernel holds: the pin maps know gateways, the groups know sets, the pinned map knows slots.
    pub fn read(state: &State) -> Numbering {
        let mut numbering = Numbering::default();
        let Some(table) = state.tables.get(&(NftFamily::Inet, numbers::NFT_TABLE.to_owned())) else {
            return numbering;
        };
        for (key, value) in
            ["pin4", "pin6"].iter().filter_map(|m| table.maps.get(*m)).flat_map(|m| &m.elements)
        {
            if let ([Atom::Ip(ip)], Some(Value::Goto(chain))) = (key.as_slice(), value)
                && let Some(number) = pin_chain_number(chain)
            {
                numbering.gateways.insert(*ip, number);
            }
        }
        for (key, value) in table.maps.get("pinned").into_iter().flat_map(|m| &m.elements) {
            if let ([Atom::Mark(pin)], Some(Value::Goto(chain))) = (key.as_slice(), value)
                && let Some(slot) = local_chain_slot(chain)
            {
                numbering.slots.insert(pin >> numbers::PIN_SHIFT, slot);
            }
        }
        for (id, nexthop) in &state.nexthops {
            let (Some(set), Nexthop::Group { members, .. }) =
                (id.checked_sub(numbers::NEXTHOP_GROUPS), nexthop)
            else {
                continue;
            };
            let members = members.iter().filter_map(|id| id.checked_sub(numbers::NEXTHOPS)).map(|n| n / 2);
            if let Ok(set) = u8::try_from(set / 2) {
                numbering.sets.entry(set).or_default().extend(members);
            }
        }
        for (key, value) in table.maps.get("exits").into_iter().flat_map(|m| &m.elements) {
            if let ([Atom::Mac(mac)], Some(Value::Goto(chain))) = (key.as_slice(), value)
                && let Some(index) = exit_chain_index(chain)
            {
                numbering.exits.insert(*mac, index);
            }
        }
        for route in &state.routes {
            // The table of an interface that is not ours; ours have nexthop objects.
            let slot = route.table.checked_sub(TABLES).and_then(|slot| u8::try_from(slot).ok());
            if let (Via::Device { dev, .. } | Via::Gateway { dev, .. }, Some(slot)) = (&route.via, slot)
                && mark::LOCALS.contains(&slot)
            {
                numbering.doors.insert(dev.clone(), slot);
            }
        }
        numbering
    }

    /// Lets go of every gateway without one of these next hops. Its numbers are free for the plan after the next: an emptied
    /// set and a slot keep theirs until then too, because rules of the old plan still lead there.
    pub fn retain(&mut self, alive: &BTreeSet<IpAddr>) {
        let known: BTreeSet<u32> = self.gateways.values().copied().collect();
        self.gateways.retain(|ip, _| alive.contains(ip));
        let numbers: BTreeSet<u32> = self.gateways.values().copied().collect();
        self.resting.extend(known.difference(&numbers));
        for members in self.sets.values_mut() {
            members.retain(|number| numbers.contains(number));
        }
    }

    /// Lets go of every own gateway but these, with the same rest.
    pub fn retain_exits(&mut self, alive: &BTreeSet<Mac>) {
        let gone = self.exits.iter().filter(|(mac, _)| !alive.contains(*mac));
        self.resting_exits.extend(gone.map(|(_, index)| *index));
        self.exits.retain(|mac, _| alive.contains(mac));
    }

    /// The index of an own gateway: the one it had, else the lowest free one; `None` when all 511 are taken.
    pub fn exit(&mut self, mac: Mac) -> Option<u16> {
        if let Some(index) = self.exits.get(&mac) {
            return Some(*index);
        }
        let used: BTreeSet<u16> = self.exits.values().chain(&self.resting_exits).copied().collect();
        let index = (1..=LAST_EXIT).find(|index| !used.contains(index))?;
        self.exits.insert(mac, index);
        Some(index)
    }

    /// The mark number of an interface by which own gateways leave; `None` when all 30 are taken.
    pub fn door(&mut self, dev: &str) -> Option<u8> {
        if let Some(slot) = self.doors.get(dev) {
            return Some(*slot);
        }
        let slot = self.free_slot()?;
        self.doors.insert(dev.to_owned(), slot);
        Some(slot)
    }

    fn free_slot(&self) -> Option<u8> {
        mark::LOCALS
            .into_iter()
            .find(|s| !self.slots.values().chain(self.doors.values()).any(|used| used == s))
    }

    /// The number of the gateway with these next hops: the one it had, else one that nobody was given, else the lowest free one.
    pub fn gateway(&mut self, next_hops: &[IpAddr]) -> Option<u32> {
        let known = next_hops.iter().find_map(|ip| self.gateways.get(ip).copied());
        let number = known.or_else(|| {
            let used: BTreeSet<u32> = self.gateways.values().chain(&self.resting).copied().collect();
            self.unborne.by_ref().chain(1..=LAST_GATEWAY).find(|n| !used.contains(n))
        })?;
        for ip in next_hops {
            self.gateways.insert(*ip, number);
        }
        Some(number)
    }

    /// The mark number of a local gateway; `None` when all 30 are taken.
    pub fn slot(&mut self, gateway: u32) -> Option<u8> {
        if let Some(slot) = self.slots.get(&gateway) {
            return Some(*slot);
        }
        let slot = self.free_slot()?;
        self.slots.insert(gateway, slot);
        Some(slot)
    }

    /// The mark number of a set: a set *is* its members. `None` when all 95 are taken.
    ///
    /// A set that changed gets a new number and the old one lives until nothing points to it: the interval maps are switched
    /// between the two, so no packet meets a half-changed set.
    pub fn set(&mut self, members: &BTreeSet<u32>) -> Option<u8> {
        if let Some((mark, _)) = self.sets.iter().find(|(_, known)| *known == members) {
            return Some(*mark);
        }
        let mark = mark::SETS.into_iter().find(|mark| !self.sets.contains_key(mark))?;
        self.sets.insert(mark, members.clone());
        Some(mark)
    }

    /// The set with a number that does most of what these members would, and nothing else: each of its own is one of them, or `draining`.
    pub fn instead_of(
        &self,
        members: &BTreeSet<u32>,
        draining: &BTreeSet<u32>,
    ) -> Option<(u8, BTreeSet<u32>)> {
        let may = |known: &BTreeSet<u32>| known.iter().all(|n| members.contains(n) || draining.contains(n));
        let serving = |known: &BTreeSet<u32>| known.intersection(members).count();
        let sets = self.sets.iter().filter(|(_, known)| may(known) && serving(known) > 0);
        sets.max_by_key(|(mark, known)| (serving(known), Reverse(**mark)))
            .map(|(mark, known)| (*mark, known.clone()))
    }
}
