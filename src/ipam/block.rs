//! A block: adjacent addresses of a pool, which node claimed them, and whom each was given to.
//!
//! In: tenants, times, addresses. Out: the block as it is afterwards. Pure: the caller writes it down, or not.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::lease::{Holder, Owner, Tenant};
use crate::addr::Cidr;
use crate::egress::model::PodName;

/// A block of a pool. All its addresses can be leased, both of a /31 (RFC 3021) and the one of a /32 too: a leased address
/// is a host route, never a subnet with a network and a broadcast address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Block {
    /// The pool it was cut from.
    pub pool: String,
    /// Its addresses.
    pub cidr: Cidr,
    /// The node that claimed it. Others may borrow from it, unless the pool says no.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub affinity: Option<String>,
    /// Raised with every change of an allocation.
    pub sequence: u64,
    /// What was given, by address. An address that never was is not in it.
    pub allocations: BTreeMap<IpAddr, Allocation>,
}

/// One address that was given to an owner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Allocation {
    /// Who it is, or last was, for.
    pub owner: Owner,
    /// Who has it now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holder: Option<Holder>,
    /// The pod that has it, or had it last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<PodName>,
    /// The block's sequence when the holder took it.
    pub sequence: u64,
    /// When it came into its present state, in Unix seconds.
    pub since: u64,
    /// Set once it is free again: when. The owner is only remembered from then on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub freed_at: Option<u64>,
}

/// What an address is at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Anybody may get it; if it was given before, its last owner is remembered.
    Free,
    /// Freed a moment ago: its last owner may have it back, others not yet.
    Cooling,
    /// Kept for its owner, who has no container just now.
    Reserved,
    /// In use.
    Leased,
}

impl std::fmt::Display for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            State::Free => "free",
            State::Cooling => "cooling",
            State::Reserved => "reserved",
            State::Leased => "leased",
        })
    }
}

/// What becomes of a lease whose holder goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum After {
    /// The kind of owner says: an ordinal's or slot's stays reserved, a pod's or container's is freed and cools.
    Owner,
    /// Reserved, because the owner is known to live on (its sandbox went, its pod did not).
    Reserved,
    /// Freed: it cools, and its owner is remembered.
    Freed,
}

/// Whether an address freed at `freed_at` still rests. A clock that was set back by more than the cool-down does not keep
/// addresses from everybody until it has caught up.
pub(super) fn cools(freed_at: u64, now: u64, cooldown: u32) -> bool {
    freed_at.abs_diff(now) < u64::from(cooldown)
}

impl Allocation {
    /// What the address is now, given the pool's cool-down in seconds.
    pub fn state(&self, now: u64, cooldown: u32) -> State {
        match (&self.holder, self.freed_at) {
            (Some(_), _) => State::Leased,
            (None, None) => State::Reserved,
            (None, Some(at)) if cools(at, now, cooldown) => State::Cooling,
            (None, Some(_)) => State::Free,
        }
    }
}

impl Block {
    /// A block of which nothing was given yet.
    pub fn new(pool: &str, cidr: Cidr, affinity: Option<&str>) -> Block {
        Block {
            pool: pool.to_owned(),
            cidr,
            affinity: affinity.map(str::to_owned),
            sequence: 0,
            allocations: BTreeMap::new(),
        }
    }

    /// What an address is now.
    pub fn state(&self, ip: IpAddr, now: u64, cooldown: u32) -> State {
        self.allocations.get(&ip).map_or(State::Free, |a| a.state(now, cooldown))
    }

    /// An address that anybody may have: one that was never given, else the one that was freed first. `taken` are addresses
    /// that somebody has who is not in this block's books.
    pub fn vacancy(&self, now: u64, cooldown: u32, taken: &BTreeSet<IpAddr>) -> Option<IpAddr> {
        let never_given = (0..self.cidr.size())
            .map_while(|n| self.cidr.nth(n))
            .find(|ip| !self.allocations.contains_key(ip) && !taken.contains(ip));
        let freed_first = || {
            let free = self
                .allocations
                .iter()
                .filter(|(ip, a)| a.state(now, cooldown) == State::Free && !taken.contains(ip));
            free.min_by_key(|(_, a)| a.freed_at).map(|(ip, _)| *ip)
        };
        never_given.or_else(freed_first)
    }

    /// Whether another node may have the whole block: every address of it is free.
    pub fn is_vacant(&self, now: u64, cooldown: u32) -> bool {
        self.allocations.values().all(|a| a.state(now, cooldown) == State::Free)
    }

    /// Gives an address to a tenant, whoever had it before; says which holder it was taken from.
    pub fn take(&mut self, ip: IpAddr, tenant: &Tenant, now: u64) -> Option<Holder> {
        self.sequence += 1;
        let allocation = Allocation {
            owner: tenant.owner.clone(),
            holder: Some(tenant.holder.clone()),
            pod: tenant.pod.clone(),
            sequence: self.sequence,
            since: now,
            freed_at: None,
        };
        self.allocations.insert(ip, allocation).and_then(|before| before.holder)
    }

    /// Takes the holder from an address. Says whether anything changed.
    pub fn part(&mut self, ip: IpAddr, after: After, now: u64) -> bool {
        let Some(allocation) = self.allocations.get_mut(&ip) else { return false };
        let reserve = match after {
            After::Owner => allocation.owner.outlives_its_container(),
            After::Reserved => true,
            After::Freed => false,
        };
        let nothing_to_do = allocation.holder.is_none() && (allocation.freed_at.is_some() || reserve);
        if nothing_to_do {
            return false;
        }
        self.sequence += 1;
        allocation.holder = None;
        allocation.since = now;
        allocation.freed_at = (!reserve).then_some(now);
        true
    }

    /// Forgets that an address was ever given. Says whether anything changed.
    pub fn forget(&mut self, ip: IpAddr) -> bool {
        let known = self.allocations.remove(&ip).is_some();
        self.sequence += u64::from(known);
        known
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn tenant(owner: &str, container: &str) -> Tenant {
        let Ok(owner) = owner.parse();
        let holder = Holder {
            network: "net".to_owned(),
            container: container.to_owned(),
            ifname: "eth0".to_owned(),
            node: "one".to_owned(),
        };
        Tenant { owner, holder, pod: None }
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    const NONE: BTreeSet<IpAddr> = BTreeSet::new();

    #[test]
    fn never_given_addresses_go_first_and_then_the_one_freed_longest_ago() {
        let mut block = Block::new("p", "10.0.0.0/30".parse().unwrap(), Some("one"));
        for (n, address) in ["10.0.0.0", "10.0.0.1", "10.0.0.2"].iter().enumerate() {
            block.take(ip(address), &tenant(&format!("pod:{n}"), "c"), 0);
        }
        block.part(ip("10.0.0.2"), After::Owner, 10);
        block.part(ip("10.0.0.0"), After::Owner, 20);
        assert_eq!(block.vacancy(1000, 60, &NONE), Some(ip("10.0.0.3")));
        block.take(ip("10.0.0.3"), &tenant("pod:3", "c"), 30);
        assert_eq!(block.vacancy(69, 60, &NONE), None);
        assert_eq!(block.vacancy(70, 60, &NONE), Some(ip("10.0.0.2")));
        assert_eq!(block.vacancy(1000, 60, &BTreeSet::from([ip("10.0.0.2")])), Some(ip("10.0.0.0")));
    }

    #[test]
    fn a_pods_lease_cools_and_an_ordinals_stays_reserved() {
        let mut block = Block::new("p", "fd00::/127".parse().unwrap(), None);
        block.take(ip("fd00::"), &tenant("pod:a", "c"), 0);
        block.take(ip("fd00::1"), &tenant("ordinal:shop/db/0", "c"), 0);
        assert!(block.part(ip("fd00::"), After::Owner, 100) && block.part(ip("fd00::1"), After::Owner, 100));
        assert!(!block.part(ip("fd00::1"), After::Owner, 200), "twice changes nothing");
        assert_eq!(block.state(ip("fd00::"), 159, 60), State::Cooling);
        assert_eq!(block.state(ip("fd00::"), 160, 60), State::Free);
        assert_eq!(block.state(ip("fd00::"), 10, 60), State::Free, "a clock set back far");
        assert_eq!(block.state(ip("fd00::1"), 1 << 40, 60), State::Reserved);
        assert!(block.part(ip("fd00::1"), After::Freed, 300));
        assert!(block.is_vacant(1000, 60) && !block.is_vacant(310, 60));
    }

    #[test]
    fn both_addresses_of_a_31_and_the_one_of_a_32_can_be_leased() {
        for (cidr, size) in [("10.0.0.0/31", 2), ("10.0.0.7/32", 1), ("fd00::/127", 2), ("fd00::7/128", 1)] {
            let mut block = Block::new("p", cidr.parse().unwrap(), None);
            let mut given = 0;
            while let Some(ip) = block.vacancy(0, 60, &NONE) {
                block.take(ip, &tenant(&format!("pod:{given}"), "c"), 0);
                given += 1;
            }
            assert_eq!(given, size, "{cidr}");
        }
    }
}
