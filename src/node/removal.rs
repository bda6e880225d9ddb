//! An attachment goes: at DEL, and at GC where DEL never came.
//!
//! In: what names it; the record, the last plan and the store say the rest. Out: nothing of it left in the kernel, its leases free.
//! Never: reads objects, so that a broken directory stops nothing.

use std::collections::BTreeSet;

use crate::cni::reply::{CniError, Code};
use crate::cni::request::{Request, Valid};
use crate::fault;
use crate::node::attachment::{Attachment, AttachmentId};
use crate::node::embedded::Embedded;

impl Embedded {
    /// Undoes an attachment, by the record and the last plan alone: objects are not read, so a broken directory stops nothing.
    ///
    /// # Errors
    /// What could not be undone; GC and reconcile try again, because the record stays.
    pub fn remove(&self, id: &AttachmentId) -> Result<(), CniError> {
        let name = id.to_string();
        if !self.memory.may_concern(&name).unwrap_or(false) && !self.memory.is_unfinished() {
            return self.forget(id);
        }
        self.cut_off(id);
        let _guard = self.lock(&format!("DEL {id}"))?;
        // The plan may have changed while we waited.
        self.unwire(Some(&name))?;
        fault::point("del.after-unwiring");
        // Under the same lock: a plan that is made anew while the record is still there wires it again.
        self.forget(id)
    }

    /// What is left of an attachment that is not wired any more: endpoint, leases, record.
    pub(super) fn forget(&self, id: &AttachmentId) -> Result<(), CniError> {
        self.forget_telling(id, || ())
    }

    /// The same. `tell`: nothing but the record is left, by which whoever looks next knows an attachment that ended.
    pub fn forget_telling(&self, id: &AttachmentId, tell: impl FnOnce()) -> Result<(), CniError> {
        // Also without a plan: after a reboot, memory is gone and the store is not.
        if self.is_gateway(id) {
            self.end_gateway(id)?;
            fault::point("del.after-release");
        }
        tell();
        let gone = self.records.remove(id);
        gone.map(drop)
            .map_err(|e| CniError::new(Code::Io, format!("cannot remove the record of attachment {id}: {e}")))
    }

    /// Whether it may have leases or an endpoint. A record that cannot be read may have spoken of a gateway.
    fn is_gateway(&self, id: &AttachmentId) -> bool {
        let recorded = self.records.read_again(id).map_or(true, |found| found.is_some_and(|a| a.gateway));
        let published = || crate::store::endpoints::get(&self.dir, &id.to_string());
        recorded || published().map_or(true, |found| found.is_some())
    }
}

/// Removes every attachment of the request's network that is not valid, and what else nobody stands for any more.
///
/// # Errors
/// What could not be removed; the rest was.
pub fn gc(node: &Embedded, request: &Request) -> Result<(), CniError> {
    let stale = stale(node, request)?;
    let mut going: Vec<(&Embedded, AttachmentId)> = stale.into_iter().map(|id| (node, id)).collect();
    // What was started when the machine had another name.
    let others = node.others();
    for other in &others {
        going.extend(self::stale(other, request)?.into_iter().map(|id| (other, id)));
    }
    let removed = going.iter().filter_map(|(node, id)| node.remove(id).err());
    let mut failed: Vec<String> = removed.map(|e| e.to_string()).collect();
    fault::point("gc.after-attachments");
    failed.extend(node.finish_unfinished().err().map(|e| e.to_string()));
    failed.extend(node.withdraw_unrecorded().err().map(|e| e.to_string()));
    failed.extend(node.release_lost(&request.network).err().map(|e| e.to_string()));
    if failed.is_empty() {
        return Ok(());
    }
    let msg = format!("{} of {} stale attachments could not be removed", failed.len(), going.len());
    Err(CniError::new(Code::Io, msg).details(failed.join("; ")))
}

/// Attachments of the request's network that are not valid.
fn stale(node: &Embedded, request: &Request) -> Result<Vec<AttachmentId>, CniError> {
    let listing = node.records.list(Some(&request.network)).map_err(|e| {
        CniError::new(Code::Io, format!("cannot list {}: {e}", node.records.folder().display()))
    })?;
    let none = BTreeSet::new();
    let valid = match &request.valid {
        Valid::Absent => None,
        Valid::Null => Some(&none),
        Valid::Listed(valid) => Some(valid),
    };
    let is_valid =
        |id: &AttachmentId| valid.is_some_and(|v| v.contains(&(id.container_id.clone(), id.ifname.clone())));
    let lost = |a: &&Attachment| if valid.is_some() { !is_valid(&a.id()) } else { a.netns_is_gone() };
    let mut stale: Vec<AttachmentId> = listing.attachments.iter().filter(lost).map(Attachment::id).collect();
    for (id, problem) in listing.torn {
        tracing::warn!(%problem, "torn record");
        // Without a list nothing is known of it; and one that is valid still names an attachment.
        if valid.is_some() && !is_valid(&id) {
            stale.push(id);
        }
    }
    Ok(stale)
}
