//! How leases end: a container goes, a network is cleaned up, an owner or a node is gone, a person says so.
//!
//! In: who is gone, when. Out: what was given back. Whoever is not the holder gives back nothing: a late DEL of an old
//! container finds its address with another holder and leaves it.

use std::net::IpAddr;

use super::block::{After, Allocation, Block, State};
use super::claim::{Claimed, How};
use super::error::IpamError;
use super::lease::{Holder, Owner};
use super::store::{Store, StoreError, edit};
use crate::addr::Cidr;

/// An address whose state changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Freed {
    /// The address.
    pub ip: IpAddr,
    /// Its pool.
    pub pool: String,
    /// Who it is, or was, for.
    pub owner: Owner,
    /// What the books keep of it; `None`: nothing, as if it had never been given.
    pub left: Option<Allocation>,
}

impl Freed {
    /// What the address is now, given the pool's cool-down in seconds.
    pub fn state(&self, now: u64, cooldown: u32) -> State {
        self.left.as_ref().map_or(State::Free, |left| left.state(now, cooldown))
    }
}

/// The container is gone: takes it from every address it holds. Once more is no error and changes nothing.
///
/// # Errors
/// If the store does not answer.
pub fn release(store: &dyn Store, holder: &Holder, after: After, now: u64) -> Result<Vec<Freed>, StoreError> {
    let mut freed = Vec::new();
    for pool in store.pools()? {
        for (block, ip) in store.summary(&pool)?.of_holder(holder) {
            freed.extend(part(store, &pool, block, now, |at, held_by, _| {
                (at == ip && held_by == holder).then_some(after)
            })?);
        }
    }
    Ok(freed)
}

/// Clean-up (CNI GC, reconcile): asks `fate` about every holder of this network (`None`: of all) on this node; a fate of
/// `None` means that it lives.
///
/// # Errors
/// If the store does not answer.
pub fn retain(
    store: &dyn Store,
    network: Option<&str>,
    node: &str,
    now: u64,
    fate: &dyn Fn(&Holder, &Owner) -> Option<After>,
) -> Result<Vec<Freed>, StoreError> {
    let mut freed = Vec::new();
    for pool in store.pools()? {
        for block in store.summary(&pool)?.held_on(node) {
            freed.extend(part(store, &pool, block, now, |_, holder, owner| {
                let ours = network.is_none_or(|network| holder.network == network) && holder.node == node;
                if ours { fate(holder, owner) } else { None }
            })?);
        }
    }
    Ok(freed)
}

/// Takes holders away, as `fate` says for each.
fn part(
    store: &dyn Store,
    pool: &str,
    block: Cidr,
    now: u64,
    fate: impl Fn(IpAddr, &Holder, &Owner) -> Option<After>,
) -> Result<Vec<Freed>, StoreError> {
    let mut parted = Vec::new();
    let changed = edit(store, pool, block, |block| {
        let held = block.allocations.iter().filter_map(|(ip, a)| Some((*ip, a.holder.as_ref()?, &a.owner)));
        let going: Vec<_> = held.filter_map(|(ip, h, o)| Some((ip, fate(ip, h, o)?))).collect();
        parted.clear();
        for (ip, after) in going {
            if block.part(ip, after, now) {
                parted.push(ip);
            }
        }
        !parted.is_empty()
    })?;
    Ok(changed.iter().flat_map(|block| parted.iter().filter_map(|ip| freed(block, *ip))).collect())
}

fn freed(block: &Block, ip: IpAddr) -> Option<Freed> {
    let a = block.allocations.get(&ip)?;
    Some(Freed { ip, pool: block.pool.clone(), owner: a.owner.clone(), left: Some(a.clone()) })
}

/// The claim failed further on and nobody ever used the address: as before the claim, without cooling.
/// Does nothing if somebody has taken the lease over since.
///
/// # Errors
/// If the store does not answer.
pub fn cancel(store: &dyn Store, claimed: &Claimed, now: u64) -> Result<(), StoreError> {
    let lease = &claimed.lease;
    let ours = |block: &Block| {
        let present = block.allocations.get(&lease.ip);
        present
            .is_some_and(|a| a.sequence == lease.sequence && a.holder.as_ref() == Some(&lease.tenant.holder))
    };
    edit(store, &lease.pool, lease.block, |block| match &claimed.how {
        How::Kept => false,
        _ if !ours(block) => false,
        How::New(_) => block.forget(lease.ip),
        How::TakenOver(_) | How::Returned => block.part(lease.ip, After::Owner, now),
    })?;
    Ok(())
}

/// A person says: this address is nobody's. A reserved or cooling one is free at once; a held one only by `force`, and
/// then it cools, because its container may still run.
///
/// # Errors
/// [`IpamError::Held`] without `force`; [`IpamError::Unknown`] if there is nothing to release.
pub fn release_address(
    store: &dyn Store,
    address: IpAddr,
    force: bool,
    now: u64,
) -> Result<Freed, IpamError> {
    for pool in store.pools()? {
        let Some(block) = store.summary(&pool)?.block_of(address) else { continue };
        if let Some(freed) = give_up(store, &pool, block, address, force, now, &|_| true)? {
            return Ok(freed);
        }
    }
    Err(IpamError::Unknown(address.to_string()))
}

/// A person says: this owner is gone. As [`release_address`], for all that it has.
///
/// # Errors
/// [`IpamError::Held`] without `force`; [`IpamError::Unknown`] if there is nothing to release.
pub fn release_owner(
    store: &dyn Store,
    owner: &Owner,
    force: bool,
    now: u64,
) -> Result<Vec<Freed>, IpamError> {
    let mut all = Vec::new();
    for pool in store.pools()? {
        for (block, ip) in store.summary(&pool)?.of_owner(owner) {
            all.extend(give_up(store, &pool, block, ip, force, now, &|present| present == owner)?);
        }
    }
    if all.is_empty() { Err(IpamError::Unknown(owner.to_string())) } else { Ok(all) }
}

fn give_up(
    store: &dyn Store,
    pool: &str,
    block: Cidr,
    address: IpAddr,
    force: bool,
    now: u64,
    meant: &dyn Fn(&Owner) -> bool,
) -> Result<Option<Freed>, IpamError> {
    let mut held = None;
    let mut given_up = None;
    edit(store, pool, block, |block| {
        (held, given_up) = (None, None);
        let Some(present) = block.allocations.get(&address).filter(|a| meant(&a.owner)) else { return false };
        let owner = present.owner.clone();
        match &present.holder {
            Some(holder) if !force => {
                held = Some(holder.clone());
                return false;
            }
            Some(_) => block.part(address, After::Freed, now),
            None => block.forget(address),
        };
        let left = block.allocations.get(&address).cloned();
        given_up = Some(Freed { ip: address, pool: pool.to_owned(), owner, left });
        true
    })?;
    match held {
        Some(holder) => Err(IpamError::Held { address, holder: Box::new(holder) }),
        None => Ok(given_up),
    }
}

/// Owners that are gone: what is reserved for them is freed and cools.
///
/// # Errors
/// If the store does not answer.
pub fn forget_owners(
    store: &dyn Store,
    gone: &dyn Fn(&Owner) -> bool,
    now: u64,
) -> Result<Vec<Freed>, StoreError> {
    let mut all = Vec::new();
    for pool in store.pools()? {
        for cidr in store.summary(&pool)?.with_reserved() {
            let mut going = Vec::new();
            let changed = edit(store, &pool, cidr, |block| {
                let reserved =
                    |(_, a): &(&IpAddr, &Allocation)| a.state(now, 0) == State::Reserved && gone(&a.owner);
                going = block.allocations.iter().filter(reserved).map(|(ip, _)| *ip).collect();
                for ip in &going {
                    block.part(*ip, After::Freed, now);
                }
                !going.is_empty()
            })?;
            all.extend(changed.iter().flat_map(|block| going.iter().filter_map(|ip| freed(block, *ip))));
        }
    }
    Ok(all)
}

/// A node is gone for good (its Node object was deleted): its containers hold nothing any more, its blocks are nobody's.
/// Never for a node that is only silent: it may still answer for its addresses.
///
/// # Errors
/// If the store does not answer.
pub fn forget_node(store: &dyn Store, node: &str, now: u64) -> Result<Vec<Freed>, StoreError> {
    let mut all = Vec::new();
    for pool in store.pools()? {
        let summary = store.summary(&pool)?;
        for block in summary.held_on(node) {
            let gone = |_, holder: &Holder, _: &Owner| (holder.node == node).then_some(After::Owner);
            all.extend(part(store, &pool, block, now, gone)?);
        }
        for block in summary.claimed_by(node) {
            edit(store, &pool, block, |block| {
                let claimed = block.affinity.as_deref() == Some(node);
                if claimed {
                    block.affinity = None;
                }
                claimed
            })?;
        }
    }
    Ok(all)
}
