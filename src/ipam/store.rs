//! Where blocks are kept: the trait that a directory and the Kubernetes API fulfil.
//!
//! In: blocks. Out: blocks with versions. Never: what a claim is.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use super::block::Block;
use super::summary::Summary;
use crate::addr::Cidr;
use crate::egress::model::Pool;
use crate::store::{DirError, RecordError, Swap, Version, advice};

/// Why a store did not answer.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A block cannot be read or written.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// A folder cannot be made.
    #[error(transparent)]
    Dir(#[from] DirError),
    /// A store elsewhere did not do it.
    #[error(transparent)]
    Remote(Box<dyn std::error::Error + Send + Sync>),
    /// Something else failed.
    #[error("cannot {verb} {what}: {source}{}", advice(source))]
    Io {
        /// What was tried: `read`, `write`.
        verb: &'static str,
        /// On what.
        what: String,
        /// What the kernel said.
        source: std::io::Error,
    },
}

/// Keeps blocks. Every write is compare-and-swap on the version that was read.
pub trait Store {
    /// Names of the pools that have blocks, whether the pools still exist or not.
    ///
    /// # Errors
    /// If the store does not answer.
    fn pools(&self) -> Result<Vec<String>, StoreError>;

    /// What is known of a pool's blocks. It may be a little old: what it says is checked in the block.
    ///
    /// # Errors
    /// If the store does not answer. A block that cannot be read is no error; it is in the summary as broken.
    fn summary(&self, pool: &str) -> Result<Arc<Summary>, StoreError>;

    /// Makes the summary anew, because a block was found to differ from it.
    ///
    /// # Errors
    /// If the store does not answer.
    fn refresh(&self, pool: &str) -> Result<(), StoreError>;

    /// A block and its version; `None` if it was never written.
    ///
    /// # Errors
    /// If the store does not answer, or the block is damaged.
    fn read(&self, pool: &str, block: Cidr) -> Result<Option<(Block, Version)>, StoreError>;

    /// Writes a block if it still has the version that was seen (`None`: if it does not exist).
    ///
    /// # Errors
    /// If the store does not answer, or the block that is there is damaged.
    fn swap(&self, block: &Block, seen: Option<Version>) -> Result<Swap, StoreError>;
}

/// Addresses of a pool that are in use according to the books of *other* pools: a pool that was renamed while its gateways
/// run, or one that overlaps. They must not be given again.
pub(super) fn taken_elsewhere(
    store: &dyn Store,
    pool: &Pool,
    now: u64,
) -> Result<BTreeSet<IpAddr>, StoreError> {
    let mut taken = BTreeSet::new();
    for other in store.pools()?.iter().filter(|other| **other != pool.name) {
        taken.append(&mut store.summary(other)?.busy_in(pool.cidr, now, pool.cooldown_seconds));
    }
    Ok(taken)
}

/// Changes a block that exists, however often somebody else is faster. `change` says whether it changed anything; if not,
/// nothing is written. Returns the block as it is now, if it was changed.
pub(super) fn edit(
    store: &dyn Store,
    pool: &str,
    block: Cidr,
    mut change: impl FnMut(&mut Block) -> bool,
) -> Result<Option<Block>, StoreError> {
    loop {
        let Some((mut block, version)) = store.read(pool, block)? else { return Ok(None) };
        if !change(&mut block) {
            return Ok(None);
        }
        // Each round that we lose is one that somebody else won, so this ends.
        if let Swap::Stored(_) = store.swap(&block, Some(version))? {
            return Ok(Some(block));
        }
    }
}
