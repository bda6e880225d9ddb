//! What a node does at each CNI verb as far as it has nothing to do with egress: the attachment record.
//!
//! In: a [`Request`]. Out: a record written, compared or removed. Never: enters a namespace at ADD or DEL, or changes the
//! kernel: a pod without egress costs one small file on tmpfs.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use nix::unistd::{AccessFlags, access};

use super::attachment::{Attachment, AttachmentId, Attachments};
use super::netns;
use crate::cni::Node;
use crate::cni::reply::{CniError, Code};
use crate::cni::request::{Request, Valid};
use crate::config::Config;

/// A node that keeps records and does nothing else.
#[derive(Debug, Clone, Copy)]
pub struct Records;

/// The node's name: configured, or the host's. One path component, because it names folders.
pub fn node_name(config: &Config) -> Result<String, CniError> {
    let name = match &config.node_name {
        Some(name) => name.clone(),
        None => std::fs::read_to_string("/proc/sys/kernel/hostname")
            .map_err(|e| CniError::new(Code::Io, format!("cannot read the host name: {e}; set `nodeName`")))?
            .trim()
            .to_ascii_lowercase(), // as the kubelet does
    };
    if name.is_empty() || name.starts_with('.') || name.contains('/') || name.len() > 253 {
        return Err(CniError::new(
            Code::InvalidConfig,
            format!("`nodeName` = \"{name}\" is not a node's name"),
        ));
    }
    Ok(name)
}

/// The records of the node that the configuration means.
pub fn attachments(config: &Config) -> Result<Attachments, CniError> {
    Ok(Attachments::of_node(&config.run_dir, &node_name(config)?))
}

/// What names the attachment a request speaks of.
pub fn attachment_id(request: &Request) -> AttachmentId {
    AttachmentId {
        network: request.network.clone(),
        container_id: request.container_id.clone(),
        ifname: request.ifname.clone(),
    }
}

impl Node for Records {
    fn add(&self, request: &Request) -> Result<(), CniError> {
        let (_, id) = netns::of_pod(request)?;
        let records = attachments(&request.config)?;
        let attachment = Attachment {
            network: request.network.clone(),
            container_id: request.container_id.clone(),
            ifname: request.ifname.clone(),
            netns: request.netns.clone().unwrap_or_default(),
            dev: id.dev,
            inode: id.inode,
            pod: request.pod.clone(),
            uid: request.pod_uid.clone(),
            addresses: request.addresses().addresses.into_iter().map(|(ip, _)| ip).collect(),
            networks: Vec::new(),
            annotations: None,
            seen: 0,
            since: 0,
            gateway: false,
            host_interface: None,
        };
        records.write(&attachment).map_err(|error| {
            let _ = records.remove(&attachment.id()); // an ADD that fails leaves nothing
            let folder = records.folder().display();
            CniError::new(
                Code::Io,
                format!("cannot write the record of this attachment below {folder}: {error}"),
            )
        })
    }

    fn del(&self, request: &Request) -> Result<(), CniError> {
        remove(&attachments(&request.config)?, &attachment_id(request))
    }

    fn del_unread(&self, container_id: &str, ifname: &str) {
        // A container belongs to one pod, so whatever network its record names, it is the one that goes.
        let Ok(records) = attachments(&Config::default()) else { return };
        let Ok(networks) = records.list(None) else { return };
        for id in
            networks.attachments.iter().map(Attachment::id).chain(networks.torn.into_iter().map(|(id, _)| id))
        {
            if id.container_id == container_id && id.ifname == ifname {
                let _ = remove(&records, &id); // the caller gets an error as it is
            }
        }
    }

    fn check(&self, request: &Request) -> Result<(), CniError> {
        let (file, now) = netns::of_pod(request)?;
        let difference = |msg: String| CniError::new(Code::CheckDifference, msg);
        let id = attachment_id(request);
        let record =
            attachments(&request.config)?.read(&id).map_err(|problem| difference(problem.to_string()))?;
        let record =
            record.ok_or_else(|| difference(format!("no record of an ADD for {id}; start the pod anew")))?;
        if (record.dev, record.inode) != (now.dev, now.inode) {
            let msg = format!(
                "{} is another network namespace (inode {}) than at ADD (inode {})",
                record.netns.display(),
                now.inode,
                record.inode
            );
            return Err(CniError::new(Code::NetnsUnusable, msg));
        }
        match netns::has_interface(&file, &request.ifname) {
            Ok(true) => Ok(()),
            Ok(false) => Err(CniError::new(
                Code::InterfaceMissing,
                format!("there is no interface {} in {}", request.ifname, record.netns.display()),
            )),
            Err(error) => Err(CniError::new(
                Code::NetnsUnusable,
                format!("cannot enter {}: {error}; the plugin must run as root", record.netns.display()),
            )),
        }
    }

    fn gc(&self, request: &Request) -> Result<(), CniError> {
        let records = attachments(&request.config)?;
        let listing = records.list(Some(&request.network)).map_err(|e| {
            CniError::new(Code::Io, format!("cannot list {}: {e}", records.folder().display()))
        })?;
        let none = BTreeSet::new();
        let valid = match &request.valid {
            Valid::Absent => None,
            Valid::Null => Some(&none),
            Valid::Listed(valid) => Some(valid),
        };
        let mut stale: Vec<AttachmentId> = Vec::new();
        for attachment in &listing.attachments {
            let key = (attachment.container_id.clone(), attachment.ifname.clone());
            if valid.map_or_else(|| attachment.netns_is_gone(), |valid| !valid.contains(&key)) {
                stale.push(attachment.id());
            }
        }
        for (id, problem) in listing.torn {
            tracing::warn!(%problem, "torn record");
            // Without a list nothing is known of it; and one that is valid still names an attachment.
            if valid.is_some_and(|valid| !valid.contains(&(id.container_id.clone(), id.ifname.clone()))) {
                stale.push(id);
            }
        }
        let failed: Vec<String> =
            stale.iter().filter_map(|id| remove(&records, id).err()).map(|e| e.to_string()).collect();
        if failed.is_empty() {
            return Ok(());
        }
        let msg = format!("{} of {} stale attachments could not be removed", failed.len(), stale.len());
        Err(CniError::new(Code::Io, msg).details(failed.join("; ")))
    }

    fn status(&self, request: &Request) -> Result<(), CniError> {
        node_name(&request.config)?;
        let run_dir = &request.config.run_dir;
        let there = nearest(run_dir);
        access(&there, AccessFlags::W_OK | AccessFlags::X_OK).map_err(|error| {
            let msg =
                format!("no pod can start: {} (for `runDir`) cannot be written: {error}", there.display());
            CniError::new(Code::NotAvailable, msg)
        })
    }
}

fn remove(records: &Attachments, id: &AttachmentId) -> Result<(), CniError> {
    let failed = |e| CniError::new(Code::Io, format!("cannot remove the record of attachment {id}: {e}"));
    records.remove(id).map(|_| ()).map_err(failed)
}

/// The path itself or its nearest ancestor that exists: what an ADD would have to write into.
fn nearest(path: &Path) -> PathBuf {
    path.ancestors().find(|p| p.exists()).unwrap_or(Path::new("/")).to_owned()
}
