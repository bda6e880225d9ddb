//! A client that ends says nothing more.
//!
//! In: what names it. Out: nothing leaves its namespace any more. Never: fails the call; touches what the primary's own DEL looks for; cuts a
//! gateway off, which ends in an order of its own.
//!
//! Its processes have ended, but the kernel still sends what they left in their sockets, until the primary's DEL takes the interface away.
//! Unbound, and with its entries gone, that would leave with the node's address, and a FIN with the pod's own.
//!
//! Where a namespace's path is gone, nobody knows that no process lives in it. If none does, the interface went with it.

use std::collections::BTreeSet;

use crate::egress::plan::NodePlan;
use crate::kernel::KernelError;
use crate::kernel::cut::{cut, cut_at};
use crate::kernel::netns::Netns;
use crate::node::attachment::{Attachment, AttachmentId};
use crate::node::embedded::Embedded;

impl Embedded {
    /// Cuts off the pod of an attachment that the plan speaks of, before anything of it is undone. Without a namespace that is provably
    /// the one of its ADD nothing is touched: names come again.
    pub(super) fn cut_off(&self, id: &AttachmentId) {
        let Ok(Some(attachment)) = self.records.read(id) else { return };
        if attachment.netns_is_gone() {
            return self.cut_off_lost(&attachment);
        }
        if attachment.gateway || attachment.netns_is_another() {
            return;
        }
        let (Ok(node_ns), Ok(pod)) = (self.netns(), Netns::open(&attachment.netns)) else { return };
        let done: Result<bool, KernelError> = cut(&node_ns, &pod, &attachment.ifname);
        if let Err(error) = done {
            tracing::warn!(%error, %id, "what this pod's sockets still send leaves without egress until its interface is gone");
        }
    }

    /// The same for one whose namespace's path is gone, by the node's end of its interface.
    pub(super) fn cut_off_lost(&self, attachment: &Attachment) {
        let Some(end) = attachment.host_end().filter(|_| !attachment.gateway && !self.dry_run) else {
            return;
        };
        let Ok(node_ns) = self.netns() else { return };
        let id = attachment.id();
        match cut_at(&node_ns, &end) {
            Ok(true) => {
                tracing::info!(%id, interface = end.name, "the path of this pod's namespace is gone and its interface is not; it is cut off");
            }
            Ok(false) => {}
            Err(error) => {
                tracing::warn!(%error, %id, "what lives in this pod's lost namespace leaves without egress");
            }
        }
    }

    /// Cuts off whoever is a client of the first plan, none of the second, and lost the path of its namespace.
    pub(super) fn cut_off_going(&self, before: &NodePlan, next: &NodePlan) {
        let stays: BTreeSet<&str> = next.clients.values().map(|client| client.attachment.as_str()).collect();
        let going = before.clients.values().map(|client| client.attachment.as_str());
        let going: BTreeSet<&str> = going.filter(|attachment| !stays.contains(attachment)).collect();
        for id in going.into_iter().filter_map(|name| name.parse::<AttachmentId>().ok()) {
            let Ok(Some(attachment)) = self.records.read(&id) else { continue };
            if attachment.netns_is_gone() {
                self.cut_off_lost(&attachment);
            }
        }
    }
}
