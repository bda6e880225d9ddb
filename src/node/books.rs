//! Where a node's leases are kept, if not in the state directory.
//!
//! In: whoever opened the node. Out: a store to claim from. Never: what is in it.

use std::fmt;
use std::sync::Arc;

use crate::config::Mode;
use crate::ipam::{DirStore, Holder, Store};
use crate::node::embedded::{Embedded, NodeError};
use crate::store::Guard;

/// A cluster's books.
pub trait Books: fmt::Debug + Send + Sync {
    /// A store that begins with what is true now; made for one claim or clean-up.
    fn store(&self) -> Box<dyn Store + '_>;

    /// An ADD has claimed, or has not: `ok`, `full`, `failed`; or a lease was written `again`.
    fn claimed(&self, result: &'static str);

    /// Leases are to be given back, as soon as the cluster can be asked and by somebody who may wait for it: this holder's, which
    /// ended, or, without one, those of every holder that no record speaks of.
    fn release_later(&self, ended: Option<Holder>);

    /// A pod begins to claim leases for an attachment; `false`: it does so already, for another one.
    fn begin_claim(&self, pod: &str, attachment: &str) -> bool;

    /// What was claimed is on record, or given back.
    fn end_claim(&self, pod: &str);

    /// Whether leases are being claimed for it: then it has a holder, though no record speaks of it yet.
    fn is_claiming(&self, attachment: &str) -> bool;
}

/// A claim that is under way. Two of one pod would take its leases from each other, and the one that lost would not know.
#[derive(Debug)]
pub struct Claiming {
    books: Arc<dyn Books>,
    pod: String,
}

impl Claiming {
    /// Begins; `None`: the pod claims already.
    pub fn begin(books: &Arc<dyn Books>, pod: &str, attachment: &str) -> Option<Claiming> {
        let begun = books.begin_claim(pod, attachment);
        begun.then(|| Claiming { books: books.clone(), pod: pod.to_owned() })
    }
}

impl Drop for Claiming {
    fn drop(&mut self) {
        self.books.end_claim(&self.pod);
    }
}

impl Embedded {
    /// Whether leases are in this node's directory: those of a cluster are its agent's affair, whoever else comes by.
    pub(super) fn keeps_leases(&self) -> bool {
        self.books.is_none() && self.config.mode == Mode::Embedded
    }

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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Mutex;

    use super::*;

    #[derive(Debug, Default)]
    struct Ledger(Mutex<BTreeMap<String, String>>);

    impl Books for Ledger {
        fn store(&self) -> Box<dyn Store + '_> {
            unreachable!("nobody leases here")
        }
        fn claimed(&self, _: &'static str) {}
        fn release_later(&self, _: Option<Holder>) {}
        fn begin_claim(&self, pod: &str, attachment: &str) -> bool {
            let mut claims = self.0.lock().unwrap();
            let free = !claims.contains_key(pod);
            claims.entry(pod.to_owned()).or_insert_with(|| attachment.to_owned());
            free
        }
        fn end_claim(&self, pod: &str) {
            self.0.lock().unwrap().remove(pod);
        }
        fn is_claiming(&self, attachment: &str) -> bool {
            self.0.lock().unwrap().values().any(|claiming| claiming == attachment)
        }
    }

    #[test]
    fn of_two_sandboxes_of_a_pod_one_claims_at_a_time_and_what_it_claims_is_not_lost() {
        let books: Arc<dyn Books> = Arc::new(Ledger::default());
        let first = Claiming::begin(&books, "gw/one", "net/a/eth0").unwrap();
        assert!(Claiming::begin(&books, "gw/one", "net/b/eth0").is_none());
        assert!(Claiming::begin(&books, "gw/two", "net/c/eth0").is_some());
        assert!(books.is_claiming("net/a/eth0") && !books.is_claiming("net/b/eth0"));
        drop(first);
        assert!(!books.is_claiming("net/a/eth0"));
        assert!(Claiming::begin(&books, "gw/one", "net/b/eth0").is_some());
    }
}
