//! The books of leases, followed by an agent that has gateways: what is deleted under them is written again.
//!
//! In: endpoints and records of this node, `EgressBlock` objects. Out: leases that are there again within seconds; problems where another
//! owner has an address. Never: follows blocks for long on a node without gateways, or removes anything.

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use super::{Cluster, owed};
use crate::ipam::{Block, IpamError};
use crate::kube::{ClusterStore, Following, Mirror, Reach, Watched, blocks};
use crate::node::embedded::{Embedded, NodeError};
use crate::node::holding::Having;
use crate::problem::Problem;

/// How often everything is compared, should nothing have been heard.
const SELDOM: Duration = Duration::from_secs(10);
/// How long the books are followed after the last gateway left. As long as a watch lives: who followed them before has ended then, however
/// often gateways come and go.
const LINGERS: Duration = Duration::from_secs(300);

/// What is known of the books.
#[derive(Default)]
pub(super) struct Ledger {
    following: Option<Following>,
    /// Since when it has been seen that no gateway is here.
    left: Option<Instant>,
    /// Blocks as they were when they had a lease of ours.
    seen: BTreeMap<(String, IpAddr), Block>,
    /// When all was compared last, and when the folder of endpoints had changed then.
    compared: Option<(Instant, Option<SystemTime>)>,
}

impl Ledger {
    /// Whether the books are to be followed: while gateways are here, and for a while longer.
    fn is_needed(&mut self, gateways: bool, now: Instant) -> bool {
        let left = if gateways { None } else { Some(self.left.unwrap_or(now)) };
        self.left = left;
        left.is_none_or(|left| now.duration_since(left) < LINGERS)
    }
}

impl Cluster {
    /// Compares what gateways here have with the books, if either has changed, and writes what is missing.
    pub(super) fn hold_leases(self: &Arc<Cluster>, ledger: &mut Ledger) -> Result<(), String> {
        if !self.is_synced() {
            return Ok(());
        }
        // Whoever writes or takes away an endpoint changes its folder.
        let touched = fs::metadata(self.dir.endpoints()).and_then(|meta| meta.modified()).ok();
        let news = ledger.following.as_ref().is_some_and(|following| following.changed(Duration::ZERO));
        let compared = ledger.compared.take();
        if !news && compared.is_some_and(|(at, then)| at.elapsed() < SELDOM && then == touched) {
            ledger.compared = compared;
            return Ok(());
        }
        let config = self.config.now();
        let node = Embedded::at(&config).map_err(|e| e.to_string())?;
        let node = Embedded { books: Some(self.clone()), ..node };
        let having = node.having().map_err(|e| e.to_string())?;
        if !ledger.is_needed(!having.is_empty(), Instant::now()) {
            ledger.following = None;
        } else if ledger.following.is_none() && !having.is_empty() {
            let following = Following::with(&self.client, Reach::Books, |_| false);
            ledger.following = Some(following.map_err(|e| format!("no thread can be started: {e}"))?);
        }
        let books = ledger.following.as_ref().and_then(|following| in_force(&following.mirror()));
        let all = match books {
            Some(books) => self.compare(&node, &having, &books, &mut ledger.seen)?,
            // Until they were listed once nothing is known to be missing.
            None => true,
        };
        if all {
            ledger.compared = Some((Instant::now(), touched));
        }
        Ok(())
    }

    /// Says whether all was compared. A lease that cannot be written hinders no other, unless the server is away; the first error is what
    /// comes out.
    fn compare(
        &self,
        node: &Embedded,
        having: &[Having],
        books: &[Block],
        seen: &mut BTreeMap<(String, IpAddr), Block>,
    ) -> Result<bool, String> {
        let (mut problems, mut all, mut failed) = (Vec::new(), true, None);
        let key = |having: &Having| (having.address.pool.clone(), having.address.ip);
        for having in having {
            if let Some(block) = books.iter().find(|block| has(block, node, having)) {
                seen.insert(key(having), block.clone());
            } else if self.is_claiming_for(having) {
                all = false;
            } else {
                let store = ClusterStore::new(&self.client);
                match node.hold(&store, having, seen.get(&key(having))) {
                    Ok(problem) => problems.extend(problem),
                    Err(error) if is_of_the_server(&error) => return Err(error.to_string()),
                    Err(error) => failed = failed.or(Some(error.to_string())),
                }
            }
        }
        seen.retain(|known, _| having.iter().any(|having| key(having) == *known));
        *self.unheld.lock().unwrap_or_else(PoisonError::into_inner) = problems;
        failed.map_or(Ok(all), Err)
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

/// Blocks that are there: not those that went with their definition. `None`: nobody has heard of blocks yet.
fn in_force(mirror: &Mirror) -> Option<Vec<Block>> {
    if mirror.generation(Watched::Blocks) == 0 {
        return None;
    }
    let outlived: Vec<&str> = mirror.outlived(Watched::Blocks).collect();
    let there = mirror.objects(Watched::Blocks).filter(|(name, _)| !outlived.contains(name));
    Some(there.filter_map(|(_, object)| blocks::block(object).ok()).collect())
}

fn is_of_the_server(error: &NodeError) -> bool {
    let NodeError::Unheld { source, .. } = error else { return false };
    matches!(source.as_ref(), IpamError::Store(store) if owed::is_of_the_server(store))
}

fn has(block: &Block, node: &Embedded, having: &Having) -> bool {
    let allocation = block.allocations.get(&having.address.ip);
    block.pool == having.address.pool
        && allocation.is_some_and(|a| a.holder.as_ref() == Some(&node.holder(&having.attachment.id())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_books_are_followed_for_as_long_as_gateways_are_here_and_a_while_longer() {
        let (mut ledger, began) = (Ledger::default(), Instant::now());
        let mut is_needed = |gateways: bool, after: Duration| ledger.is_needed(gateways, began + after);
        let later = Duration::from_secs(1000);
        assert!(is_needed(true, later));
        assert!(is_needed(false, later * 2), "it has only just left");
        assert!(is_needed(true, later * 3));
        assert!(is_needed(false, later * 4) && is_needed(false, later * 4 + LINGERS / 2));
        assert!(!is_needed(false, later * 4 + LINGERS));
        assert!(is_needed(true, later * 5));
    }
}
