//! No pool had an address to give: each of them, and why.

use super::{Claim, Seen};
use crate::ipam::error::{IpamError, Refused};

pub(super) fn full(claim: &Claim<'_>, seen: &[Seen<'_>]) -> IpamError {
    let refused = seen.iter().map(|seen| {
        let fill = seen.summary.fill(seen.pool.cidr, claim.now, seen.pool.cooldown_seconds);
        let broken = seen.summary.blocks.iter().filter(|b| b.broken).count();
        let because = match &seen.refuses {
            Some(why) => Some(why.clone()),
            None if broken > 0 => Some(format!("{broken} blocks cannot be read: see `egret ipam check`")),
            None if !seen.taken.is_empty() => Some(kept_back(seen)),
            None if fill.free() > 0 && seen.pool.strict_affinity => Some(
                "the free ones lie in blocks of other nodes, and strictAffinity keeps them there".to_owned(),
            ),
            None => {
                fill.next_free.map(|at| format!("the next is free in {} s", at.saturating_sub(claim.now)))
            }
        };
        Refused { pool: seen.pool.name.clone(), cidr: seen.pool.cidr, fill, because }
    });
    IpamError::Full { tenant: claim.tenant.to_string(), pools: refused.collect() }
}

fn kept_back(seen: &Seen<'_>) -> String {
    let elsewhere = seen.taken.len() - seen.unservable - seen.unwritten;
    let parts = [
        (elsewhere, "in use from another pool"),
        (seen.unwritten, "of running gateways whose leases are not written: see `egret ipam check`"),
        (seen.unservable, "of no use: see `egret ipam show`"),
    ];
    let said = parts.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}"));
    said.collect::<Vec<_>>().join(", ")
}
