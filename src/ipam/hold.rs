//! A lease that its gateway has, and the books do not: written again.
//!
//! In: who has which address, and what was last seen of its block. Out: what the books say now. The books may have been deleted under
//! running gateways, block by block or with their definition; until the lease is there again its address looks free. Never takes an
//! address from another owner: who else has it is said.

use std::net::IpAddr;

use super::block::{Allocation, Block};
use super::error::{ATTEMPTS, IpamError};
use super::lease::{Holder, Owner, Tenant};
use super::store::Store;
use crate::addr::Cidr;
use crate::store::Swap;

/// An address that a running gateway has.
#[derive(Debug, Clone)]
pub struct Running<'a> {
    /// Who has it.
    pub tenant: &'a Tenant,
    /// The address.
    pub ip: IpAddr,
    /// Its pool.
    pub pool: &'a str,
    /// Prefix length of the pool's blocks, should the block be missing and nobody have seen it.
    pub block_size: u8,
    /// Its block as it was last seen, with the lease in it.
    pub seen: Option<&'a Block>,
    /// The time, in Unix seconds.
    pub now: u64,
}

/// What the books say of such an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Held {
    /// What they should.
    There,
    /// They do again.
    Again,
    /// It is somebody else's: two gateways may answer for it.
    Other(Owner, Option<Holder>),
}

/// Sees to it that the books have the lease: the same address, owner and holder, and a sequence above the last that was seen.
///
/// # Errors
/// The store does not answer, or others were faster each time.
pub fn hold(store: &dyn Store, running: &Running<'_>) -> Result<Held, IpamError> {
    for _ in 0..ATTEMPTS {
        let cidr = place(store, running)?;
        let (mut block, version) = match store.read(running.pool, cidr)? {
            Some((block, version)) => (block, Some(version)),
            None => (renewed(running, cidr), None),
        };
        if let Some(present) = block.allocations.get(&running.ip)
            && let Some(held) = judged(present, running.tenant)
        {
            return Ok(held);
        }
        if let Some(seen) = running.seen {
            block.sequence = block.sequence.max(seen.sequence);
        }
        block.take(running.ip, running.tenant, running.now);
        if let Swap::Stored(_) = store.swap(&block, version)? {
            return Ok(Held::Again);
        }
    }
    Err(IpamError::Contended(running.tenant.to_string()))
}

/// `None`: nobody has it, so it is to be written.
fn judged(present: &Allocation, tenant: &Tenant) -> Option<Held> {
    let other = || Some(Held::Other(present.owner.clone(), present.holder.clone()));
    match &present.holder {
        Some(holder) if *holder == tenant.holder && present.owner == tenant.owner => Some(Held::There),
        // A younger container of this owner on its own node: the older one is about to go.
        Some(holder) if holder.node == tenant.holder.node && present.owner == tenant.owner => {
            Some(Held::There)
        }
        Some(_) => other(),
        None if present.owner == tenant.owner || present.freed_at.is_some() => None,
        None => other(),
    }
}

/// The block that the address lies in, or is to lie in.
fn place(store: &dyn Store, running: &Running<'_>) -> Result<Cidr, IpamError> {
    let summary = store.summary(running.pool)?;
    if let Some(there) = summary.block_of(running.ip) {
        return Ok(there);
    }
    let usual = || Cidr::covering(running.ip, running.block_size);
    let wished = running.seen.map_or_else(usual, |seen| seen.cidr);
    // Beside smaller blocks from a time when the pool's block size was another one, a block of this address alone.
    Ok(if summary.has_block_in(wished) { Cidr::host(running.ip) } else { wished })
}

/// A block that is gone, with what it kept for owners without a container. What other containers had they say themselves.
fn renewed(running: &Running<'_>, cidr: Cidr) -> Block {
    let node = running.tenant.holder.node.as_str();
    let Some(seen) = running.seen.filter(|seen| seen.cidr == cidr) else {
        return Block::new(running.pool, cidr, Some(node));
    };
    let mut block = seen.clone();
    block.affinity.take_if(|claimed| claimed != node);
    block.allocations.retain(|_, allocation| allocation.holder.is_none());
    block
}
