//! A client that ends says nothing more.
//!
//! In: what names it. Out: nothing leaves its namespace any more. Never: fails the DEL; touches what the primary's own DEL looks for; cuts a
//! gateway off, which ends in an order of its own.
//!
//! Its processes have ended, but the kernel still sends what they left in their sockets, until the primary's DEL takes the interface away.
//! Unbound, and with its entries gone, that would leave with the node's address, and a FIN with the pod's own.

use crate::kernel::KernelError;
use crate::kernel::cut::cut;
use crate::kernel::netns::Netns;
use crate::node::attachment::AttachmentId;
use crate::node::embedded::Embedded;

impl Embedded {
    /// Cuts off the pod of an attachment that the plan speaks of, before anything of it is undone. Without a namespace that is provably
    /// the one of its ADD nothing is touched: names come again.
    pub(super) fn cut_off(&self, id: &AttachmentId) {
        let Ok(Some(attachment)) = self.records.read(id) else { return };
        if attachment.gateway || attachment.netns_is_gone() || attachment.netns_is_another() {
            return;
        }
        let (Ok(node_ns), Ok(pod)) = (self.netns(), Netns::open(&attachment.netns)) else { return };
        let done: Result<bool, KernelError> = cut(&node_ns, &pod, &attachment.ifname);
        if let Err(error) = done {
            tracing::warn!(%error, %id, "what this pod's sockets still send leaves without egress until its interface is gone");
        }
    }
}
