//! Where a node's leases are kept, if not in the state directory.
//!
//! In: whoever opened the node. Out: a store to claim from. Never: what is in it.

use std::fmt;

use crate::config::Mode;
use crate::ipam::{DirStore, Store};
use crate::node::embedded::{Embedded, NodeError};
use crate::store::Guard;

/// A cluster's books.
pub trait Books: fmt::Debug + Send + Sync {
    /// A store that begins with what is true now; made for one claim or clean-up.
    fn store(&self) -> Box<dyn Store + '_>;

    /// Leases without a holder are to be given back, as soon as the cluster can be asked and by somebody who may wait for it.
    fn release_later(&self);
}

impl Embedded {
    /// The store of this node's leases, for as long as the directory's lock is held.
    ///
    /// # Errors
    /// They are in a cluster, and only the agent knows it.
    pub fn store<'a>(&'a self, guard: &'a Guard) -> Result<Box<dyn Store + 'a>, NodeError> {
        match (&self.books, self.config.mode) {
            (Some(books), _) => Ok(books.store()),
            (None, Mode::Embedded) => Ok(Box::new(DirStore::under(&self.dir, guard))),
            (None, Mode::Cluster) => Err(NodeError::Ipam(
                "leases are kept in the cluster, and only the agent of this node writes them".to_owned(),
            )),
        }
    }
}
