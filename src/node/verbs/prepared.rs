//! ADD in parts: what the pod is; what may wait for others, before any lock; and what changes this node.
//!
//! In: a request. Out: an ADD to be carried out, and settled. Never: asks anybody while a lock is held.

use std::net::IpAddr;

use super::{Asking, add, ask};
use crate::cni::reply::CniError;
use crate::cni::request::Request;
use crate::egress::model::Role;
use crate::egress::plan::NodePlan;
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
pub(in crate::node) fn prepare(node: Embedded, request: &Request) -> Result<Prepared, CniError> {
    let asking = ask(&node, request)?;
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

    /// Of what changes this node the part that many can share before their turns: entries that a client's addresses have from their past.
    /// Not where the node has rules for such an address: then its pod may be another one, or awake.
    pub fn sweep(&mut self) {
        let Asking { attachment, role, .. } = &self.asking;
        if *role == Role::Client {
            let is_new = |plan: &NodePlan, ip: &IpAddr| {
                let mut own = plan.locals.values().filter_map(|gateway| gateway.own.as_ref());
                !plan.clients.contains_key(ip) && !own.any(|own| own.addresses.contains(ip))
            };
            let addresses = &attachment.addresses;
            self.node.sweep_ahead(|plan| addresses.iter().copied().filter(|ip| is_new(plan, ip)).collect());
        }
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
