//! The record of what one ADD made, in `RUNDIR/NODE/attachments/NETWORK/CONTAINERID:IFNAME.json`.
//!
//! In: written at ADD, also for pods without egress. Out: read by DEL, GC, CHECK and reconcile, which then need neither
//! prevResult nor the namespace. Never fsynced: it lies on tmpfs and dies with the pods it speaks of.

mod draft;
mod last;

use std::collections::BTreeSet;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::addr::Cidr;
use crate::egress::model::{Pairs, PodName};
use crate::kernel::devices::End;
use crate::node::last_seen::LastSeen;
use crate::problem::Problem;
use crate::store::{exchange, read_whole};
use draft::locked;
pub use last::LastRecords;

/// What names an attachment; prints as `NETWORK/CONTAINERID/IFNAME`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AttachmentId {
    /// Name of the CNI list.
    pub network: String,
    /// CNI_CONTAINERID.
    pub container_id: String,
    /// CNI_IFNAME.
    pub ifname: String,
}

impl fmt::Display for AttachmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.network, self.container_id, self.ifname)
    }
}

/// A text that names no attachment: it is not `NETWORK/CONTAINERID/IFNAME`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoAttachmentId;

impl FromStr for AttachmentId {
    type Err = NoAttachmentId;

    fn from_str(text: &str) -> Result<AttachmentId, NoAttachmentId> {
        let mut parts = text.split('/').map(str::to_owned);
        match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some(network), Some(container_id), Some(ifname), None) => {
                Ok(AttachmentId { network, container_id, ifname })
            }
            _ => Err(NoAttachmentId),
        }
    }
}

/// What one ADD made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Attachment {
    /// Name of the CNI list.
    pub network: String,
    /// CNI_CONTAINERID.
    pub container_id: String,
    /// CNI_IFNAME.
    pub ifname: String,
    /// CNI_NETNS as it was said.
    pub netns: PathBuf,
    /// Device of the namespace's file.
    pub dev: u64,
    /// Inode of the namespace's file.
    pub inode: u64,
    /// The pod, if the runtime named one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<PodName>,
    /// Its UID.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
    /// The pod's addresses on this interface, as the previous plugin's result had them.
    pub addresses: Vec<IpAddr>,
    /// The subnets of those addresses: other pods, so never sent to a gateway.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub networks: Vec<Cidr>,
    /// What the runtime passed of the pod's annotations, as far as egress reads them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotations: Option<Pairs>,
    /// Fingerprint of the pod object's annotations at ADD: when it changes, the object says something newer than the runtime.
    #[serde(default)]
    pub seen: u64,
    /// When ADD was called, in Unix nanoseconds: of two attachments with one address the later has it.
    #[serde(default)]
    pub since: u64,
    /// Whether it asked to be a gateway: it may hold leases although no endpoint says so.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub gateway: bool,
    /// The node's end of the pod's interface, where it was looked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_interface: Option<String>,
    /// Its index, which no later device of that name has.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub host_index: u32,
    /// What the pod's object last said: it may go before the pod does.
    #[serde(default, skip_serializing_if = "LastSeen::is_empty")]
    pub last: LastSeen,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes fields so")]
fn is_zero(index: &u32) -> bool {
    *index == 0
}

impl Attachment {
    /// What a problem is about.
    pub fn object(&self) -> String {
        self.pod.as_ref().map_or_else(|| format!("Attachment {}", self.id()), |pod| format!("Pod {pod}"))
    }

    /// What names it.
    pub fn id(&self) -> AttachmentId {
        AttachmentId {
            network: self.network.clone(),
            container_id: self.container_id.clone(),
            ifname: self.ifname.clone(),
        }
    }

    /// Whether a text is what names it, as asked of each attachment of the node at every change.
    pub fn is_named(&self, text: &str) -> bool {
        text.split('/').eq([self.network.as_str(), &self.container_id, &self.ifname])
    }

    /// The node's end of its interface, where it is known well enough to be touched.
    pub fn host_end(&self) -> Option<End> {
        let known = self.host_interface.as_ref().filter(|_| self.host_index > 0);
        known.map(|name| End { name: name.clone(), index: self.host_index })
    }

    /// Takes note of the node's end of its interface.
    pub fn is_wired_by(&mut self, end: End) {
        (self.host_interface, self.host_index) = (Some(end.name), end.index);
    }

    /// Whether two are interfaces of one container, in one namespace.
    pub fn is_beside(&self, other: &Attachment) -> bool {
        self.id() != other.id()
            && self.container_id == other.container_id
            && (self.dev, self.inode) == (other.dev, other.inode)
    }

    /// Whether the path leads to another namespace than at ADD.
    pub fn netns_is_another(&self) -> bool {
        fs::metadata(&self.netns).is_ok_and(|meta| (meta.dev(), meta.ino()) != (self.dev, self.inode))
    }

    /// Whether the namespace is *provably* gone: its path leads nowhere although the folder it lay in is there, or it
    /// leads to another namespace by now. A folder that is missing proves nothing, nor does a plain file in its place: one may
    /// stand in another mount namespace, where namespaces that were bound later are not seen.
    pub fn netns_is_gone(&self) -> bool {
        match fs::metadata(&self.netns) {
            Ok(meta) => {
                (meta.dev(), meta.ino()) != (self.dev, self.inode) && super::netns::open(&self.netns).is_ok()
            }
            Err(error) => {
                // /proc/PID/ns/net has no folder left when the process is gone: there, /proc itself is the proof.
                let folder = if self.netns.starts_with("/proc") {
                    Some(Path::new("/proc/self"))
                } else {
                    self.netns.parent()
                };
                error.kind() == io::ErrorKind::NotFound && folder.is_some_and(Path::is_dir)
            }
        }
    }
}

/// What a folder of records holds.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// Readable ones, by name.
    pub attachments: Vec<Attachment>,
    /// Files whose name says which attachment they speak of, while their content does not: named, never dropped silently.
    pub torn: Vec<(AttachmentId, Problem)>,
}

impl Listing {
    /// Names of all attachments, also of those whose record is torn: they may well be running.
    pub fn names(&self) -> BTreeSet<String> {
        let torn = self.torn.iter().map(|(id, _)| id.to_string());
        self.attachments.iter().map(|a| a.id().to_string()).chain(torn).collect()
    }
}

/// All records of one node.
#[derive(Debug, Clone)]
pub struct Attachments {
    folder: PathBuf,
    /// Records that this process need not decode again.
    last: Option<Arc<LastRecords>>,
}

impl Attachments {
    /// Those of a node. `node` must be one path component.
    pub fn of_node(run_dir: &Path, node: &str) -> Attachments {
        Attachments { folder: run_dir.join(node).join("attachments"), last: None }
    }

    /// The same for who lives on, and keeps what was read last.
    #[must_use]
    pub fn keeping(self, last: &Arc<LastRecords>) -> Attachments {
        Attachments { last: Some(Arc::clone(last)), ..self }
    }

    /// The folder that holds one folder per network.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// `:` parts the two because neither may contain it; `-` would let container `a-b` with interface `c` meet container
    /// `a` with interface `b-c`.
    fn file(&self, id: &AttachmentId) -> PathBuf {
        self.folder.join(&id.network).join(format!("{}:{}.json", id.container_id, id.ifname))
    }

    /// The draft has a fixed name, so that a draft whose writer was killed is found by the next `write` or `remove`.
    fn draft(&self, id: &AttachmentId) -> PathBuf {
        self.folder.join(&id.network).join(format!(".{}:{}", id.container_id, id.ifname))
    }

    fn revision(&self, id: &AttachmentId) -> PathBuf {
        self.folder.join(&id.network).join(format!(".{}:{}+", id.container_id, id.ifname))
    }

    /// Writes or replaces a record: readers see the old or the new one, never half.
    pub fn write(&self, attachment: &Attachment) -> io::Result<()> {
        let id = attachment.id();
        let (file, bytes) = (self.file(&id), serde_json::to_vec(attachment)?);
        if self.last.as_ref().is_some_and(|last| last.write(&file, &bytes, attachment)) {
            return Ok(());
        }
        let draft = self.draft(&id);
        let mut lock: File = match locked(&draft) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                fs::create_dir_all(self.folder.join(&id.network))?;
                locked(&draft)
            }
            other => other,
        }?;
        lock.write_all(&bytes)?;
        fs::rename(&draft, &file)
    }

    /// Reads a record; `None` if there is none. A torn one is a problem that names the file.
    pub fn read(&self, id: &AttachmentId) -> Result<Option<Attachment>, Box<Problem>> {
        let file = self.file(id);
        let problem = |why: String| {
            let message = format!(
                "the record of attachment {id} cannot be used: {why}; the next ADD, DEL or GC replaces it"
            );
            Box::new(Problem::new(String::new(), "TornRecord", message).file(file.display().to_string()))
        };
        let bytes = match read_whole(&file) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(problem(error.to_string())),
        };
        let attachment: Attachment = serde_json::from_slice(&bytes).map_err(|e| problem(e.to_string()))?;
        if attachment.id() != *id {
            return Err(problem(format!("it speaks of {}", attachment.id())));
        }
        Ok(Some(attachment))
    }

    /// The same, without opening a file that this process knows.
    ///
    /// # Errors
    /// As [`Attachments::read`].
    pub fn read_again(&self, id: &AttachmentId) -> Result<Option<Attachment>, Box<Problem>> {
        let known = self.last.as_ref().and_then(|last| last.known_at(&self.file(id)));
        known.map_or_else(|| self.read(id), |attachment| Ok(Some(attachment)))
    }

    /// Whether there is a record, without reading it.
    pub fn has(&self, id: &AttachmentId) -> bool {
        self.file(id).exists()
    }

    /// Removes a record and its draft; whether there was one.
    pub fn remove(&self, id: &AttachmentId) -> io::Result<bool> {
        unlink(&self.draft(id))?;
        unlink(&self.revision(id))?;
        unlink(&self.file(id))
    }

    /// Changes a record that is there; whether it is. One that goes meanwhile is not made again: its pod has ended. The caller holds
    /// the node's lock, so nobody else uses this draft.
    pub fn revise(&self, id: &AttachmentId, change: impl FnOnce(&mut Attachment)) -> io::Result<bool> {
        let Ok(Some(mut attachment)) = self.read(id) else { return Ok(false) };
        change(&mut attachment);
        let (file, draft) = (self.file(id), self.revision(id));
        fs::write(&draft, serde_json::to_vec(&attachment)?)?;
        // Exchanged and not renamed, which would put it where it was just removed.
        let exchanged = exchange(&draft, &file);
        unlink(&draft)?;
        match exchanged {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Every record of one network, or of all.
    pub fn list(&self, network: Option<&str>) -> io::Result<Listing> {
        let all = network.is_none();
        let networks = match network {
            Some(network) => vec![network.to_owned()],
            None => names(&self.folder)?,
        };
        let (mut listing, mut files) = (Listing::default(), BTreeSet::new());
        for network in networks {
            for name in names(&self.folder.join(&network))? {
                let Some((container_id, ifname)) =
                    name.strip_suffix(".json").and_then(|n| n.rsplit_once(':'))
                else {
                    continue; // drafts, and what is not ours
                };
                let id = AttachmentId {
                    network: network.clone(),
                    container_id: container_id.to_owned(),
                    ifname: ifname.to_owned(),
                };
                let read = match &self.last {
                    Some(last) => last.of(self.file(&id), &mut files, || self.read(&id)),
                    None => self.read(&id),
                };
                match read {
                    Ok(attachment) => listing.attachments.extend(attachment), // None: gone since the folder was read
                    Err(problem) => listing.torn.push((id, *problem)),
                }
            }
        }
        if let Some(last) = self.last.as_ref().filter(|_| all) {
            last.forget_others(&files);
        }
        Ok(listing)
    }
}

fn unlink(path: &Path) -> io::Result<bool> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Names in a folder, sorted; a missing folder is an empty one.
fn names(folder: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut names = Vec::new();
    for entry in entries {
        names.extend(entry?.file_name().into_string()); // names of ours are UTF-8
    }
    names.sort_unstable();
    Ok(names)
}

#[cfg(test)]
mod tests;
