//! A gateway's leases in a cluster, claimed before any lock is taken.
//!
//! In: what an ADD asks for. Out: leases that the ADD goes on with, or that are given back. Never: holds a lock while the API server is
//! asked, because it may let one wait, and every other pod of the node would wait with it.

use crate::cni::reply::{CniError, Code};
use crate::egress::gateway::{self, GatewayWish};
use crate::egress::model::{EgressAddress, View};
use crate::fault;
use crate::node::attachment::Attachment;
use crate::node::books::Claiming;
use crate::node::embedded::{Embedded, NodeError};
use crate::node::lease::{Claims, cancel};
use crate::store::endpoints;

/// Leases that nobody uses yet.
#[derive(Debug)]
pub struct Ahead {
    wish: GatewayWish,
    claims: Claims,
    /// Until this value goes, no clean-up takes them for lost.
    _claiming: Claiming,
}

impl Ahead {
    /// What was claimed.
    pub fn addresses(&self) -> &[EgressAddress] {
        &self.claims.addresses
    }

    /// What was claimed, if that is still what is wished for.
    ///
    /// # Errors
    /// 11: it is not.
    pub(super) fn claims(&self, wish: &GatewayWish) -> Result<&Claims, CniError> {
        if (&self.wish.pools, &self.wish.addresses) == (&wish.pools, &wish.addresses) {
            return Ok(&self.claims);
        }
        let msg = "what the pod asks for changed while its leases were claimed; it is tried again".to_owned();
        Err(CniError::new(Code::TryAgainLater, msg))
    }
}

impl Embedded {
    /// Claims what a pod that becomes a gateway asks for, where leases are kept in a cluster. `None`: it asks for nothing, or leases are kept here.
    ///
    /// # Errors
    /// As [`Embedded::lease`]; 11 also while another ADD of this pod claims.
    pub fn claim_ahead(&self, view: &View, attachment: &Attachment) -> Result<Option<Ahead>, CniError> {
        let (Some(books), Some(pod)) = (&self.books, &attachment.pod) else { return Ok(None) };
        let wish = gateway::wanted(view, pod, &self.name)
            .map_err(|problem| CniError::new(Code::InvalidConfig, problem.to_string()))?;
        let Some(wish) = wish else { return Ok(None) };
        let id = attachment.id().to_string();
        let Some(claiming) = Claiming::begin(books, &pod.to_string(), &id) else {
            let msg = format!("another sandbox of pod {pod} is claiming its leases; it is tried again");
            return Err(CniError::new(Code::TryAgainLater, msg));
        };
        let store = books.store();
        let (known, _) = endpoints::list(&self.dir).map_err(NodeError::from)?;
        let claims = self.claim(store.as_ref(), view, (attachment, &known), &wish).inspect_err(|_| {
            books.release_later(None); // what could not be given back at once
        })?;
        fault::point("add.after-lease");
        Ok(Some(Ahead { wish, claims, _claiming: claiming }))
    }

    /// The ADD failed further on: as before it, or as soon as the cluster can be asked.
    pub(super) fn abandon(&self, ahead: Ahead) {
        let Some(books) = &self.books else { return };
        if !cancel(books.store().as_ref(), &ahead.claims.leases) {
            drop(ahead);
            books.release_later(None);
        }
    }
}
