//! What an agent of a cluster lets through before it has heard of everything, and after.
//!
//! In: the mirror, its copy. Out: whether calls can be answered by it, and what is known where they cannot. Never: answers one.

use super::Cluster;
use crate::agent::door::Gate;
use crate::cni::reply::{CniError, Code};
use crate::cni::request::Request;
use crate::kube::foreign;
use crate::node::embedded::Embedded;
use crate::node::standing::Standings;
use crate::store::objects::Objects;

impl Gate for Cluster {
    fn ready(&self) -> Result<(), CniError> {
        if self.is_synced() {
            return Ok(());
        }
        let first = || {
            let server = self.client.access().server();
            format!("the agent of node {} follows {server} for the first time: {}", self.node, self.unheard())
        };
        Err(CniError::new(Code::NotAvailable, self.lacks().unwrap_or_else(first)))
    }

    fn fresh(&self, request: &Request) -> Result<(), CniError> {
        self.make_fresh(request)
    }

    fn lacks(&self) -> Option<String> {
        if self.is_synced() || !self.inherits {
            return None;
        }
        let (node, server) = (&self.node, self.client.access().server());
        // Written again a moment ago: it counts when the marker says so.
        let lost = self.own.lost().map_or_else(|| "a file".to_owned(), |lost| lost.display().to_string());
        let unheard = self.unheard();
        Some(format!(
            "the agent of node {node} waits to hear {server} again ({unheard}): it found its copy without {lost}"
        ))
    }

    fn heard(&self) -> Option<Standings> {
        let config = self.config.now();
        // Not from the disk, which may be what failed.
        let objects = Objects::of(foreign::readings(&self.mirror(), &config.adopt)).ok()?;
        let node = Embedded::at(&config).ok()?;
        Some(Standings::of(&node.namespaces_view(&objects)))
    }

    fn changed(&self) {
        // Full: it rings already.
        let _ = self.bell.try_send(());
    }
}

impl Cluster {
    fn unheard(&self) -> String {
        let why = self.mirror().lost().into_iter().map(|(_, why)| why).next();
        why.unwrap_or_else(|| "it has not heard of all objects yet".to_owned())
    }
}
