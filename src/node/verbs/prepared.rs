//! ADD in parts: what the pod is; what may wait for others, before any lock; and what changes this node.
//!
//! In: a request. Out: an ADD to be carried out, and settled. Never: asks anybody while a lock is held.

use super::{Asking, add, ask};
use crate::cni::reply::CniError;
use crate::cni::request::Request;
use crate::egress::model::Role;
use crate::node::ahead::Ahead;
use crate::node::embedded::Embedded;

/// An ADD that is ready to be carried out.
pub struct Prepared {
    pub(super) node: Embedded,
    pub(super) asking: Asking,
    ahead: Option<Ahead>,
}

/// What the pod is. Waits for nobody.
///
/// # Errors
/// As [`crate::cni::Node::add`].
pub(in crate::node) fn prepare(mut node: Embedded, request: &Request) -> Result<Prepared, CniError> {
    let asking = ask(&mut node, request)?;
    Ok(Prepared { node, asking, ahead: None })
}

impl Prepared {
    /// What the pod is.
    pub fn role(&self) -> Role {
        self.asking.role
    }

    /// The part that may wait for others, before any lock: in a cluster, a gateway's leases.
    ///
    /// # Errors
    /// As [`crate::cni::Node::add`].
    pub fn claim(&mut self) -> Result<(), CniError> {
        let Asking { view, attachment, .. } = &self.asking;
        if let Some(view) = view {
            self.ahead = self.node.claim_ahead(view, attachment)?;
        }
        Ok(())
    }

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
