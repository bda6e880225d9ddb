//! Blocks in memory: what a store is without a disk, a lock or a server, to compare the others with.
//!
//! In: blocks. Out: a [`Store`]. Never: outlives its process.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::addr::Cidr;
use crate::ipam::{Block, Store, StoreError, Summary};
use crate::store::{Swap, Version};

/// A store that ends with the process. Any number of threads may share it.
#[derive(Debug, Default)]
pub struct MemoryStore {
    pools: Mutex<BTreeMap<String, Kept>>,
}

#[derive(Debug, Default)]
struct Kept {
    blocks: BTreeMap<Cidr, (Block, Version)>,
    summary: Arc<Summary>,
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> MemoryStore {
        MemoryStore::default()
    }

    fn pools(&self) -> MutexGuard<'_, BTreeMap<String, Kept>> {
        // A thread that panicked while it held the lock has either put a whole block in or nothing.
        self.pools.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store for MemoryStore {
    fn pools(&self) -> Result<Vec<String>, StoreError> {
        Ok(self.pools().keys().cloned().collect())
    }

    fn summary(&self, pool: &str) -> Result<Arc<Summary>, StoreError> {
        Ok(self.pools().get(pool).map(|kept| kept.summary.clone()).unwrap_or_default())
    }

    fn refresh(&self, pool: &str) -> Result<(), StoreError> {
        if let Some(kept) = self.pools().get_mut(pool) {
            kept.summary = Arc::new(Summary::of(kept.blocks.values().map(|(block, _)| block), []));
        }
        Ok(())
    }

    fn read(&self, pool: &str, block: Cidr) -> Result<Option<(Block, Version)>, StoreError> {
        Ok(self.pools().get(pool).and_then(|kept| kept.blocks.get(&block).cloned()))
    }

    fn swap(&self, block: &Block, seen: Option<Version>) -> Result<Swap, StoreError> {
        let mut pools = self.pools();
        let kept = pools.entry(block.pool.clone()).or_default();
        let present = kept.blocks.get(&block.cidr).map(|(_, version)| *version);
        if present != seen {
            return Ok(Swap::Raced(present));
        }
        let next = Version(seen.map_or(1, |v| v.0 + 1));
        kept.blocks.insert(block.cidr, (block.clone(), next));
        Arc::make_mut(&mut kept.summary).learn(block);
        Ok(Swap::Stored(next))
    }
}
