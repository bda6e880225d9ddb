//! Claiming an address: the one compare-and-swap loop.
//!
//! In: who, from which pools, when. Out: a lease, or a sentence with how many of how many are leased.
//! Never: where blocks are kept; what the address is used for.

mod full;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::block::{After, Block, State};
use super::error::{ATTEMPTS, IpamError};
use super::lease::{Holder, Lease, Tenant};
use super::pool::{Source, choose};
use super::store::{Store, StoreError, edit, taken_elsewhere};
use super::summary::Summary;
use crate::addr::Cidr;
use crate::egress::model::{Endpoint, Node, Pool};
use crate::store::{Swap, Version};
use full::full;

/// What is asked for: one address, of one family.
#[derive(Debug, Clone)]
pub struct Claim<'a> {
    /// Who moves in, and on which node.
    pub tenant: Tenant,
    /// The pools to take from, all of one family, the preferred first.
    pub pools: &'a [&'a Pool],
    /// Every pool there is: a pool that overlaps another one gives no new leases.
    pub known: &'a [&'a Pool],
    /// A certain address and no other.
    pub address: Option<IpAddr>,
    /// Addresses that would serve nobody, each with the reason: they are never given, and whoever has one gets another.
    pub unservable: &'a BTreeMap<IpAddr, String>,
    /// Addresses that running gateways of others have, each with whose it is: should the books not know of one, it is not given.
    pub in_use: &'a BTreeMap<IpAddr, String>,
    /// Nodes that exist: what an earlier container of the owner holds on another one of them, only that node can give up, for it may
    /// still answer there. `None`: the later container has it, wherever the earlier one was.
    pub nodes: Option<&'a BTreeMap<String, Node>>,
    /// Endpoints that are known. One of that earlier container means the same where its node does not exist: a Node object is deleted
    /// by mistake, too, and whoever finds that nobody is heard there any more deletes the endpoint.
    pub endpoints: &'a [Endpoint],
    /// The time, in Unix seconds.
    pub now: u64,
}

/// A lease, and how it came about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claimed {
    /// The lease.
    pub lease: Lease,
    /// How it came about.
    pub how: How,
}

/// How a lease came about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum How {
    /// It was this holder's already.
    Kept,
    /// The owner had it, with this holder, whose container is of the past.
    TakenOver(Holder),
    /// The owner had it before, and gets it back.
    Returned,
    /// The owner had none.
    New(Source),
}

/// Leases an address. The same owner gets the same address, and the holder of the claim is its holder from then on.
///
/// # Errors
/// [`IpamError::Full`] and others by variant; [`IpamError::try_again`] tells those that pass.
pub fn claim(store: &dyn Store, claim: &Claim<'_>) -> Result<Claimed, IpamError> {
    // A block that differs from its summary means that somebody wrote it by hand: look at all blocks again, once.
    let mut believe = false;
    for _ in 0..ATTEMPTS {
        match attempt(store, claim, believe)? {
            Attempt::Done(claimed) => return Ok(*claimed),
            Attempt::Raced => {}
            Attempt::Stale(pool) => {
                store.refresh(&pool)?;
                believe = true;
            }
        }
    }
    Err(IpamError::Contended(claim.tenant.to_string()))
}

enum Attempt {
    Done(Box<Claimed>),
    Raced,
    /// The summary of this pool is not what its blocks are.
    Stale(String),
}

/// A pool as one attempt sees it.
struct Seen<'a> {
    pool: &'a Pool,
    summary: Arc<Summary>,
    /// Not to be given: in use according to other pools' books, or of no use.
    taken: BTreeSet<IpAddr>,
    /// How many of them are of no use.
    unservable: usize,
    /// How many gateways have although no lease says so.
    unwritten: usize,
    /// Why it gives no new leases.
    refuses: Option<String>,
}

/// An address that is or was the owner's.
struct Own {
    ip: IpAddr,
    block: Block,
    version: Version,
    state: State,
}

fn attempt(store: &dyn Store, claim: &Claim<'_>, believe: bool) -> Result<Attempt, IpamError> {
    let mut seen = Vec::with_capacity(claim.pools.len());
    for pool in claim.pools {
        let summary = store.summary(&pool.name)?;
        let mut taken = taken_elsewhere(store, pool, claim.now)?;
        let within = claim.unservable.range(pool.cidr.first()..=pool.cidr.last()).map(|(ip, _)| *ip);
        let unservable: Vec<IpAddr> = within.collect();
        taken.extend(&unservable);
        let before = taken.len();
        let in_use = claim.in_use.range(pool.cidr.first()..=pool.cidr.last()).map(|(ip, _)| *ip);
        taken.extend(in_use.filter(|ip| !summary.is_had(*ip)));
        let unwritten = taken.len() - before;
        let (unservable, refuses) = (unservable.len(), refusal(pool, claim.known));
        seen.push(Seen { pool, summary, taken, unservable, unwritten, refuses });
    }
    let own = match owned(store, claim, &seen, believe)? {
        Ok(own) => own,
        Err(stale) => return Ok(Attempt::Stale(stale)),
    };
    for own in &own {
        still_elsewhere(claim, own)?;
    }
    let serves = |own: &Own| !claim.unservable.contains_key(&own.ip);
    let (own, useless): (Vec<Own>, Vec<Own>) = own.into_iter().partition(serves);
    // Goes back before another is given: who is killed in between has lost nothing of use, and has no two.
    give_back(store, claim, useless)?;
    let wanted = |own: &Own| claim.address.is_none_or(|wanted| wanted == own.ip);
    let (own, others): (Vec<Own>, Vec<Own>) = own.into_iter().partition(wanted);
    let attempt = match (own.into_iter().next(), claim.address) {
        (Some(own), _) => keep(store, claim, own)?,
        (None, Some(address)) => requested(store, claim, &seen, address)?,
        (None, None) => anywhere(store, claim, &seen, believe)?,
    };
    if let Attempt::Done(_) = attempt {
        // The owner asked for this address and no other: what it had before goes back.
        give_back(store, claim, others)?;
    }
    Ok(attempt)
}

/// A StatefulSet's pod is made anew although its node is silent, or its Node object gone: which says nothing of what that node still does.
fn still_elsewhere(claim: &Claim<'_>, own: &Own) -> Result<(), IpamError> {
    let holder = own.block.allocations.get(&own.ip).and_then(|allocation| allocation.holder.as_ref());
    let is_known = |holder: &Holder| {
        let attachment = holder.attachment();
        claim.endpoints.iter().any(|e| e.node == holder.node && e.attachment == attachment)
    };
    let may_answer = |holder: &Holder| {
        claim.nodes.is_some_and(|nodes| nodes.contains_key(&holder.node) || is_known(holder))
    };
    match holder.filter(|holder| holder.node != claim.tenant.holder.node && may_answer(holder)) {
        None => Ok(()),
        Some(holder) => Err(IpamError::Elsewhere {
            address: own.ip,
            tenant: claim.tenant.to_string(),
            holder: Box::new(holder.clone()),
        }),
    }
}

fn give_back(store: &dyn Store, claim: &Claim<'_>, lost: Vec<Own>) -> Result<(), IpamError> {
    for lost in lost {
        edit(store, &lost.block.pool, lost.block.cidr, |block| {
            let still = block.allocations.get(&lost.ip).is_some_and(|a| a.owner == claim.tenant.owner);
            still && block.part(lost.ip, After::Freed, claim.now)
        })?;
    }
    Ok(())
}

fn refusal(pool: &Pool, known: &[&Pool]) -> Option<String> {
    if pool.disabled {
        return Some("disabled: no new leases".to_owned());
    }
    let over = known.iter().find(|other| other.name != pool.name && other.cidr.overlaps(pool.cidr))?;
    Some(format!("it overlaps pool `{}` ({}), so neither gives new leases", over.name, over.cidr))
}

/// What the owner has or had in these pools, the best first: leased, reserved, cooling, remembered; in order of the pools.
/// `Err`: the pool whose summary is wrong.
fn owned(
    store: &dyn Store,
    claim: &Claim<'_>,
    seen: &[Seen<'_>],
    believe: bool,
) -> Result<Result<Vec<Own>, String>, IpamError> {
    let mut found = Vec::new();
    for seen in seen {
        for (cidr, ip) in seen.summary.of_owner(&claim.tenant.owner) {
            let (block, version) = match store.read(&seen.pool.name, cidr) {
                Ok(Some(read)) => read,
                Ok(None) | Err(StoreError::Record(_)) if believe => continue,
                Ok(None) | Err(StoreError::Record(_)) => return Ok(Err(seen.pool.name.clone())),
                Err(error) => return Err(error.into()),
            };
            let Some(allocation) = block.allocations.get(&ip).filter(|a| a.owner == claim.tenant.owner)
            else {
                if believe {
                    continue;
                }
                return Ok(Err(seen.pool.name.clone()));
            };
            let state = allocation.state(claim.now, seen.pool.cooldown_seconds);
            // A new lease in all but name, so the rules for new leases hold.
            let lost = state == State::Free && seen.refuses.is_some();
            let given_away = state <= State::Cooling && seen.taken.contains(&ip);
            if seen.pool.cidr.contains(ip) && !lost && !given_away {
                found.push(Own { ip, block, version, state });
            }
        }
    }
    found.sort_by_key(|own| std::cmp::Reverse((own.state, own.block.allocations[&own.ip].freed_at)));
    Ok(Ok(found))
}

/// Gives the owner what is its own.
fn keep(store: &dyn Store, claim: &Claim<'_>, own: Own) -> Result<Attempt, IpamError> {
    let Own { ip, mut block, version, state: _ } = own;
    let allocation = &block.allocations[&ip];
    if allocation.holder.as_ref() == Some(&claim.tenant.holder) && allocation.pod == claim.tenant.pod {
        return Ok(Attempt::Done(claimed(claim, &block, ip, How::Kept)));
    }
    let how = match block.take(ip, &claim.tenant, claim.now) {
        Some(holder) if holder == claim.tenant.holder => How::Kept, // its pod's name was not known before
        Some(holder) => How::TakenOver(holder),
        None => How::Returned,
    };
    write(store, claim, &block, Some(version), ip, how)
}

fn write(
    store: &dyn Store,
    claim: &Claim<'_>,
    block: &Block,
    seen: Option<Version>,
    ip: IpAddr,
    how: How,
) -> Result<Attempt, IpamError> {
    Ok(match store.swap(block, seen)? {
        Swap::Stored(_) => Attempt::Done(claimed(claim, block, ip, how)),
        Swap::Raced(_) => Attempt::Raced,
    })
}

fn claimed(claim: &Claim<'_>, block: &Block, ip: IpAddr, how: How) -> Box<Claimed> {
    let lease = Lease {
        ip,
        pool: block.pool.clone(),
        block: block.cidr,
        tenant: claim.tenant.clone(),
        sequence: block.allocations.get(&ip).map_or(0, |a| a.sequence),
    };
    Box::new(Claimed { lease, how })
}

/// Takes any address, pool by pool.
fn anywhere(
    store: &dyn Store,
    claim: &Claim<'_>,
    seen: &[Seen<'_>],
    believe: bool,
) -> Result<Attempt, IpamError> {
    let node = &claim.tenant.holder.node;
    for seen in seen.iter().filter(|seen| seen.refuses.is_none()) {
        let mut tried = BTreeSet::new();
        while let Some(choice) = choose(seen.pool, &seen.summary, node, claim.now, &seen.taken, &tried) {
            match store.read(&seen.pool.name, choice.block) {
                Ok(present) => {
                    if let Some((block, version, ip)) =
                        take(present, claim, seen, choice.source, choice.block)
                    {
                        return write(store, claim, &block, version, ip, How::New(choice.source));
                    }
                    if !believe {
                        return Ok(Attempt::Stale(seen.pool.name.clone()));
                    }
                }
                // One damaged block does not keep the others from being used; `ipam check` names it.
                Err(StoreError::Record(_)) => {}
                Err(error) => return Err(error.into()),
            }
            tried.insert(choice.block);
        }
    }
    Err(full(claim, seen))
}

/// Takes a vacant address of a block, if the block is what the summary said.
fn take(
    present: Option<(Block, Version)>,
    claim: &Claim<'_>,
    seen: &Seen<'_>,
    source: Source,
    cidr: Cidr,
) -> Option<(Block, Option<Version>, IpAddr)> {
    let node = claim.tenant.holder.node.as_str();
    let (mut block, version) = match present {
        Some((block, version)) => (block, Some(version)),
        None if source == Source::Free => (Block::new(&seen.pool.name, cidr, None), None),
        None => return None,
    };
    let as_expected = match source {
        Source::Affine => block.affinity.as_deref() == Some(node),
        Source::Free => block.affinity.is_none(),
        Source::Reclaimed => block.is_vacant(claim.now, seen.pool.cooldown_seconds),
        Source::Borrowed => true,
    };
    let ip = block.vacancy(claim.now, seen.pool.cooldown_seconds, &seen.taken).filter(|_| as_expected)?;
    if source != Source::Borrowed {
        block.affinity = Some(node.to_owned());
    }
    block.take(ip, &claim.tenant, claim.now);
    Some((block, version, ip))
}

/// Takes one certain address, which is not the owner's yet.
fn requested(
    store: &dyn Store,
    claim: &Claim<'_>,
    seen: &[Seen<'_>],
    address: IpAddr,
) -> Result<Attempt, IpamError> {
    let tenant = || claim.tenant.to_string();
    let Some(seen) = seen.iter().find(|seen| seen.pool.cidr.contains(address)) else {
        let pools = claim.pools.iter().map(|p| format!("`{}`: {}", p.name, p.cidr)).collect();
        return Err(IpamError::Outside { address, tenant: tenant(), pools });
    };
    if seen.refuses.is_some() {
        return Err(full(claim, std::slice::from_ref(seen)));
    }
    if let Some(why) = claim.unservable.get(&address) {
        return Err(IpamError::Unservable { address, tenant: tenant(), why: why.clone() });
    }
    if let Some(whose) = claim.in_use.get(&address).filter(|_| seen.taken.contains(&address)) {
        return Err(IpamError::InUse { address, tenant: tenant(), whose: whose.clone() });
    }
    if seen.taken.contains(&address) {
        return Err(IpamError::TakenElsewhere { address, tenant: tenant() });
    }
    let cidr = place(seen, address);
    let (mut block, version) = match store.read(&seen.pool.name, cidr)? {
        Some((block, version)) => (block, Some(version)),
        None => (Block::new(&seen.pool.name, cidr, None), None),
    };
    let state = block.state(address, claim.now, seen.pool.cooldown_seconds);
    if let Some(present) = block.allocations.get(&address).filter(|_| state != State::Free) {
        let (owner, holder) = (Box::new(present.owner.clone()), present.holder.clone().map(Box::new));
        return Err(IpamError::Taken { address, tenant: tenant(), state, owner, holder });
    }
    let node = &claim.tenant.holder.node;
    let source = match &block.affinity {
        Some(other) if other == node => Source::Affine,
        None => Source::Free,
        Some(_) if block.is_vacant(claim.now, seen.pool.cooldown_seconds) => Source::Reclaimed,
        Some(other) if seen.pool.strict_affinity => {
            let (node, pool) = (other.clone(), seen.pool.name.clone());
            return Err(IpamError::Strict { address, tenant: tenant(), block: cidr, node, pool });
        }
        Some(_) => Source::Borrowed,
    };
    if source != Source::Borrowed {
        block.affinity = Some(node.clone());
    }
    block.take(address, &claim.tenant, claim.now);
    write(store, claim, &block, version, address, How::New(source))
}

/// The block that an address lies in, or is to lie in. Beside smaller blocks from a time when the pool's block size was
/// another one, a block of this address alone.
fn place(seen: &Seen<'_>, address: IpAddr) -> Cidr {
    let whole = || Cidr::covering(address, seen.pool.block_size);
    let free = |cidr: &Cidr| seen.summary.blocks.iter().all(|b| !b.cidr.overlaps(*cidr));
    seen.summary.block_of(address).or_else(|| Some(whole()).filter(free)).unwrap_or(Cidr::host(address))
}
