//! The books of leases, followed by an agent that has gateways: what is deleted under them is written again.
//!
//! In: endpoints and records of this node, `EgressBlock` objects. Out: leases that are there again within seconds; problems where another
//! owner has an address. Never: follows blocks on a node without gateways, or removes anything.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use super::Cluster;
use crate::ipam::Block;
use crate::kube::{ClusterStore, Following, Mirror, Reach, Watched, blocks};
use crate::node::embedded::Embedded;
use crate::node::holding::Having;
use crate::problem::Problem;

/// How often everything is compared, should nothing have been heard.
const SELDOM: Duration = Duration::from_secs(10);

/// What is known of the books.
#[derive(Default)]
pub(super) struct Ledger {
    following: Option<Following>,
    /// Blocks as they were when they had a lease of ours.
    seen: BTreeMap<(String, IpAddr), Block>,
    /// What was compared last, and when.
    compared: Option<(Instant, u64, usize, Vec<Having>)>,
}

impl Cluster {
    /// Compares what gateways here have with the books, if either has changed, and writes what is missing.
    pub(super) fn hold_leases(self: &Arc<Cluster>, ledger: &mut Ledger) -> Result<(), String> {
        if !self.is_synced() {
            return Ok(());
        }
        let config = self.config.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let node = Embedded::at(&config).map_err(|e| e.to_string())?;
        let node = Embedded { books: Some(self.clone()), ..node };
        let having = node.having().map_err(|e| e.to_string())?;
        if having.is_empty() && ledger.following.is_none() {
            return Ok(());
        }
        let following = match &ledger.following {
            Some(following) => following,
            None => ledger.following.insert(
                Following::with(&self.client, Reach::Books, |_| false)
                    .map_err(|e| format!("no thread can be started: {e}"))?,
            ),
        };
        following.changed(Duration::ZERO);
        let (generation, outlived, books) = {
            let mirror = following.mirror();
            let generation = mirror.generation(Watched::Blocks);
            let outlived = mirror.outlived(Watched::Blocks).count();
            let unchanged = ledger.compared.as_ref().is_some_and(|(at, seen, gone, had)| {
                at.elapsed() < SELDOM && (*seen, *gone) == (generation, outlived) && *had == having
            });
            // Until it was listed once nothing is known to be missing.
            if generation == 0 || unchanged {
                return Ok(());
            }
            (generation, outlived, in_force(&mirror))
        };
        let mut problems = Vec::new();
        for having in &having {
            let key = (having.address.pool.clone(), having.address.ip);
            if let Some(block) = books.iter().find(|block| has(block, &node, having)) {
                ledger.seen.insert(key, block.clone());
                continue;
            }
            if self.is_claiming_for(having) {
                continue;
            }
            let store = ClusterStore::new(&self.client);
            let held = node.hold(&store, having, ledger.seen.get(&key));
            problems.extend(held.map_err(|e| e.to_string())?);
        }
        ledger.seen.retain(|(pool, ip), _| {
            having.iter().any(|having| having.address.ip == *ip && having.address.pool == *pool)
        });
        *self.unheld.lock().unwrap_or_else(PoisonError::into_inner) = problems;
        ledger.compared = Some((Instant::now(), generation, outlived, having));
        Ok(())
    }

    /// A younger sandbox of the pod is about to take the address.
    fn is_claiming_for(&self, having: &Having) -> bool {
        let pod = having.attachment.pod.as_ref().map(ToString::to_string);
        pod.is_some_and(|pod| self.owed().claiming.contains_key(&pod))
    }

    /// Addresses of gateways here that the books have as somebody else's.
    pub(super) fn unheld(&self) -> Vec<Problem> {
        self.unheld.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Blocks that are there: not those that went with their definition.
fn in_force(mirror: &Mirror) -> Vec<Block> {
    let outlived: Vec<&str> = mirror.outlived(Watched::Blocks).collect();
    let there = mirror.objects(Watched::Blocks).filter(|(name, _)| !outlived.contains(name));
    there.filter_map(|(_, object)| blocks::block(object).ok()).collect()
}

fn has(block: &Block, node: &Embedded, having: &Having) -> bool {
    let allocation = block.allocations.get(&having.address.ip);
    block.pool == having.address.pool
        && allocation.is_some_and(|a| a.holder.as_ref() == Some(&node.holder(&having.attachment.id())))
}
