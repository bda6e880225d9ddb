//! Where a node's records lie, and what CHECK and STATUS ask of them.
//!
//! In: a configuration, a [`Request`]. Out: names and paths, or what is missing. Never: leaves anything.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::attachment::{AttachmentId, Attachments};
use super::embedded::may_be_made;
use super::memory::Memory;
use super::netns;
use crate::cni::reply::{CniError, Code};
use crate::cni::request::Request;
use crate::config::{Config, Mode};
use crate::store::advice;

/// The node's name: configured, or the host's. One path component, because it names folders.
pub fn node_name(config: &Config) -> Result<String, CniError> {
    node_named(config.node_name.as_deref())
}

/// The same by what `nodeName` says, if anything.
pub(super) fn node_named(configured: Option<&str>) -> Result<String, CniError> {
    let name = match configured {
        Some(name) => name.to_owned(),
        None => fs::read_to_string("/proc/sys/kernel/hostname")
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

/// Whether the record of an ADD and the pod's interface are there as they were.
///
/// # Errors
/// What is missing or another one.
pub fn check(records: &Attachments, request: &Request) -> Result<(), CniError> {
    let (file, now) = netns::of_pod(request)?;
    let difference = |msg: String| CniError::new(Code::CheckDifference, msg);
    let id = attachment_id(request);
    let record = records.read(&id).map_err(|problem| difference(problem.to_string()))?;
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
            netns::code(&error),
            format!("cannot enter {}: {error}; the plugin must run as root", record.netns.display()),
        )),
    }
}

/// Whether even a pod without egress could start here: its record must find room, and the objects must be where they can be listed, and
/// under running pods be there at all.
///
/// # Errors
/// Where it does not.
pub fn status(config: &Config) -> Result<(), CniError> {
    let none_starts = |msg: String| CniError::new(Code::NotAvailable, format!("no pod can start: {msg}"));
    let node = node_name(config)?;
    // An agent's own directory is its own affair: without it pods start by what it last said.
    if config.mode == Mode::Embedded {
        let memory = Memory::new(&config.run_dir, &node);
        may_be_made(config, &memory).map_err(|error| none_starts(error.to_string()))?;
        let there = nearest(&config.state_dir.join("objects"));
        fs::read_dir(&there).map_err(|error| {
            none_starts(format!(
                "{} (for `stateDir`) cannot be listed: {error}{}",
                there.display(),
                advice(&error)
            ))
        })?;
    }
    let there = nearest(&config.run_dir.join(node));
    draft(&there).map_err(|error| {
        let advice = advice(&error);
        none_starts(format!("{} (for `runDir`) cannot be written: {error}{advice}", there.display()))
    })
}

/// Writes as much as a record, and removes it again: whether there is room only the writing tells.
fn draft(folder: &Path) -> io::Result<()> {
    let path = folder.join(format!(".status.{}", nix::unistd::gettid()));
    let written = File::create(&path).and_then(|mut file| file.write_all(&[b' '; 4096]));
    written.and(fs::remove_file(&path))
}

/// The path itself or its nearest ancestor that exists: what an ADD would have to write into.
fn nearest(path: &Path) -> PathBuf {
    path.ancestors().find(|p| p.exists()).unwrap_or(Path::new("/")).to_owned()
}
