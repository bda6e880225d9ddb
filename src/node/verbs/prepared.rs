//! ADD in two parts: what may wait for others, before any lock, and what changes this node.
//!
//! In: a request. Out: an ADD to be carried out, and settled. Never: asks anybody while a lock is held.

use super::{Asking, add, ask};
use crate::cni::reply::CniError;
use crate::cni::request::Request;
use crate::node::ahead::Ahead;
use crate::node::embedded::Embedded;

/// An ADD that is ready to be carried out.
pub struct Prepared {
    node: Embedded,
    asking: Asking,
    ahead: Option<Ahead>,
}

/// The part of ADD that may wait for others, before any lock: what the pod is, and in a cluster its leases.
///
/// # Errors
/// As [`crate::cni::Node::add`].
pub(in crate::node) fn prepare(node: Embedded, request: &Request) -> Result<Prepared, CniError> {
    let asking = ask(&node, request)?;
    let ahead = node.claim_ahead(&asking.view, &asking.attachment, asking.role)?;
    Ok(Prepared { node, asking, ahead })
}

impl Prepared {
    /// The part that changes this node. Waits for nobody but for its locks.
    ///
    /// # Errors
    /// As [`crate::cni::Node::add`]; then, too, [`Prepared::settle`] must follow.
    pub fn carry_out(&mut self) -> Result<(), CniError> {
        add(&mut self.node, &self.asking, self.ahead.as_ref())
    }

    /// After it, without any lock: what was claimed for an ADD that failed is given back.
    ///
    /// # Errors
    /// The one that it is told.
    pub fn settle(self, outcome: Result<(), CniError>) -> Result<(), CniError> {
        if let (true, Some(ahead)) = (outcome.is_err(), self.ahead) {
            self.node.abandon(ahead);
        }
        outcome
    }
}
