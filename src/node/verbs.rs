//! The CNI verbs of a node on a directory. A screen each.
//!
//! In: a [`Request`]. Out: a pod wired, unwired or compared. Never: writes standard output; that is `cni::reply`'s.

mod client;
mod gateway;
mod prepared;
mod together;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use crate::addr::Cidr;
use crate::cni::reply::{CniError, Code};
use crate::cni::request::Request;
use crate::config::Mode;
use crate::egress::explain::doubt;
use crate::egress::gateway::wanted;
use crate::egress::model::{PodName, Role, View};
use crate::egress::plan::binding_chain;
use crate::egress::resolve::Common;
use crate::fault;
use crate::kernel::netns::{Netns, NetnsError};
use crate::kernel::{KernelError, devices};
use crate::node::ahead::Ahead;
use crate::node::attachment::{Attachment, AttachmentId};
use crate::node::embedded::{Embedded, NodeError, now_nanos};
use crate::node::last_seen::{LastSeen, overlay};
use crate::node::netns;
use crate::node::passage::{bypass, without_other_end};
use crate::node::situation::annotations_fingerprint;
use crate::node::update::{Outcome, Thoroughness};
use crate::problem::Problem;
use crate::store::objects::Objects;

pub use prepared::Prepared;
pub(super) use prepared::prepare;
pub use together::{Call, Ended, together};

/// How long the ADD of a pod without egress waits for a lock, to take up what others changed.
const IN_PASSING: Duration = Duration::from_millis(20);

/// What the pod is to us, from its own objects alone: gateways are looked up only for a client.
struct Asking {
    objects: Objects,
    attachment: Attachment,
    role: Role,
    /// Of a client, the binding that its rules as written ask for.
    chain: Option<String>,
    /// Of a gateway, the cluster as its pod sees it.
    view: Option<View>,
}

fn add(node: &mut Embedded, asking: &Asking, ahead: Option<&Ahead>) -> Result<(), CniError> {
    let id = asking.attachment.id();
    match asking.role {
        Role::Unselected | Role::HostNetwork => {
            write(node, &asking.attachment)?;
            node.catch_up(asking).inspect_err(|_| {
                let _ = node.records.remove(&id); // an ADD that fails leaves nothing
            })
        }
        Role::Client | Role::Gateway => {
            let guard = node.lock(&format!("ADD {id}"))?;
            let before = node.records.read(&id).ok().flatten();
            write(node, &asking.attachment)?;
            fault::point("add.after-record");
            let wired = match asking.role {
                Role::Gateway => node.add_gateway(asking, ahead),
                _ => node.add_client(asking),
            };
            if let Err(error) = wired {
                node.undo(asking, before.as_ref());
                return Err(error);
            }
            if let Err(error) = node.memory.remember_config(&node.config) {
                tracing::warn!(%error, "the command line will not know this configuration");
            }
            drop(guard);
            Ok(())
        }
    }
}

fn ask(node: &mut Embedded, request: &Request) -> Result<Asking, CniError> {
    let objects = node.first_objects()?;
    let attachment = attachment(request)?;
    let pods: Vec<PodName> = request.pod.iter().cloned().collect();
    let decide =
        |view: &mut View, common: &mut Option<Common>| decide(node, &objects, (view, common), attachment);
    let mut asking = match &node.kept {
        Some(kept) => kept.lend(&objects, &node.config, &pods, decide),
        None => decide(&mut objects.view_of_one(&node.config, &pods, &node.name), &mut None),
    }?;
    if let (Role::Unselected, Some(pod)) = (asking.role, &asking.attachment.pod)
        && let Some(doubt) = doubt(&asking.objects.unread())
    {
        tracing::warn!(%pod, "nothing selects the pod; {doubt}");
    }
    let read_addresses = request.addresses().read_netns;
    if asking.role == Role::Client && !read_addresses {
        node.sweep_new(&asking.attachment.addresses);
    }
    if matches!(asking.role, Role::Client | Role::Gateway) {
        let unusable = |error: NetnsError| {
            let code = if let NetnsError::Io { error, .. } = &error {
                netns::code(error)
            } else {
                Code::NetnsUnusable
            };
            CniError::new(code, error.to_string())
        };
        let pod = Netns::open(&asking.attachment.netns).map_err(unusable)?;
        let here = Netns::current().map_err(unusable)?;
        let is_client = asking.role == Role::Client;
        let swept = if read_addresses { 0 } else { asking.attachment.addresses.len() };
        read_namespace(request, (&here, &pod), (read_addresses, is_client), &mut asking.attachment)?;
        if is_client {
            let unswept = &asking.attachment.addresses[swept..];
            if !unswept.is_empty() {
                node.sweep_new(unswept);
            }
            must_pass((&here, &pod), &asking.attachment)?;
        }
    }
    Ok(asking)
}

fn decide(
    node: &Embedded,
    objects: &Objects,
    (view, common): (&mut View, &mut Option<Common>),
    mut attachment: Attachment,
) -> Result<Asking, CniError> {
    if common.as_ref().is_none_or(Common::asks_for_nodes) {
        node.hear_interfaces(view)?;
    }
    if !view.interfaces.is_empty() {
        *common = None; // they may be others by now
    }
    if let Some(object) = attachment.pod.as_ref().and_then(|name| view.pods.get(name)) {
        attachment.uid = attachment.uid.or_else(|| object.uid.clone());
        attachment.seen = annotations_fingerprint(&object.annotations);
    }
    attachment.last = overlay(view, &attachment).unwrap_or_default();
    let (role, chain) =
        role((view, common), &attachment, &node.name).map_err(|problem| refused(&objects.placed(problem)))?;
    // One gateway per pod: a further interface of it is one without egress, as everything of a gateway pod is.
    let role = match role {
        Role::Gateway if node.serves_otherwise(&attachment) => Role::Unselected,
        role => role,
    };
    attachment.gateway = role == Role::Gateway;
    let view = attachment.gateway.then(|| view.clone());
    Ok(Asking { objects: objects.clone(), attachment, role, chain, view })
}

/// The record of an attachment, as far as the request alone tells it.
///
/// # Errors
/// Its namespace cannot be used.
pub fn attachment(request: &Request) -> Result<Attachment, CniError> {
    let (_, id) = netns::of_pod(request)?;
    let found = request.addresses();
    Ok(Attachment {
        network: request.network.clone(),
        container_id: request.container_id.clone(),
        ifname: request.ifname.clone(),
        netns: request.netns.clone().unwrap_or_default(),
        dev: id.dev,
        inode: id.inode,
        pod: request.pod.clone(),
        uid: request.pod_uid.clone(),
        addresses: found.addresses.iter().map(|(ip, _)| *ip).collect(),
        networks: networks(&found.addresses),
        annotations: request.pod_annotations.clone().map(|mut all| {
            all.retain(|key, _| crate::egress::annotations::is_ours(key));
            all
        }),
        seen: 0,
        since: now_nanos(),
        gateway: false,
        host_interface: None,
        host_index: 0,
        last: LastSeen::default(),
    })
}

/// What a pod is, and the chain of its binding if it is a client; or why it may not be what it asks to be. Without endpoints a decision
/// has no gateways, but its binding is named by the rules as written.
fn role(
    (view, common): (&View, &mut Option<Common>),
    attachment: &Attachment,
    node: &str,
) -> Result<(Role, Option<String>), Problem> {
    let Some(name) = &attachment.pod else { return Ok((Role::Unselected, None)) };
    if wanted(view, name, node)?.is_some() {
        return Ok((Role::Gateway, None));
    }
    let decision = common.get_or_insert_with(|| Common::of(view)).decide(view, name);
    let chain = (decision.role == Role::Client).then(|| binding_chain(&decision.binding));
    Ok((decision.role, chain))
}

fn refused(problem: &Problem) -> CniError {
    let code = if problem.reason == "NotPermitted" { Code::NotPermitted } else { Code::InvalidConfig };
    CniError::new(code, problem.to_string())
}

/// A pod with egress must have its interface, with addresses that we know, and a way through this node's forwarding. A client is bound by every
/// address that it can leave with, whether the result names it or not; those that it does not name come last.
fn read_namespace(
    request: &Request,
    (here, pod): (&Netns, &Netns),
    (read_addresses, is_client): (bool, bool),
    attachment: &mut Attachment,
) -> Result<(), CniError> {
    let found = devices::interface_of(here, pod, &request.ifname).map_err(|e| {
        let code =
            if let KernelError::Enter { error, .. } = &e { netns::code(error) } else { Code::NetnsUnusable };
        CniError::new(code, e.to_string())
    })?;
    let Some(found) = found else {
        let msg = format!("there is no interface {} in {}", request.ifname, attachment.netns.display());
        return Err(CniError::new(Code::InterfaceMissing, msg));
    };
    if read_addresses {
        attachment.addresses.clear();
        attachment.networks.clear();
    }
    if read_addresses || is_client {
        let is_new = |ip: &IpAddr| crate::node::facts::is_routable(ip) && !attachment.addresses.contains(ip);
        let new: Vec<_> = found.addresses.into_iter().filter(|(ip, _)| is_new(ip)).collect();
        attachment.addresses.extend(new.iter().map(|(ip, _)| *ip));
        attachment.networks.extend(networks(&new));
        attachment.networks.sort();
        attachment.networks.dedup();
    }
    if attachment.addresses.is_empty() {
        let msg = format!(
            "interface {} has no address, neither in prevResult nor in {}; Egret must come after the plugin that gives it one",
            request.ifname,
            attachment.netns.display()
        );
        return Err(CniError::new(Code::InvalidConfig, msg));
    }
    let Some(peer) = found.peer else {
        let msg = without_other_end(&request.ifname);
        return Err(CniError::new(Code::TrafficBypassesNode, msg));
    };
    attachment.is_wired_by(peer);
    Ok(())
}

/// A client must not only have another end here: nothing may take its packets away there.
fn must_pass((here, pod): (&Netns, &Netns), attachment: &Attachment) -> Result<(), CniError> {
    let device = (attachment.ifname.as_str(), attachment.host_interface.as_deref());
    match bypass(here, pod, device, &attachment.addresses)? {
        None => Ok(()),
        Some(why) => Err(CniError::new(Code::TrafficBypassesNode, why)),
    }
}

/// The subnets of addresses; a host prefix says nothing about its neighbours.
fn networks(addresses: &[(IpAddr, u8)]) -> Vec<Cidr> {
    let subnets = addresses.iter().map(|(ip, prefix)| Cidr::covering(*ip, *prefix));
    let subnets: BTreeSet<Cidr> = subnets.filter(|net| net.size() > 1).collect();
    subnets.into_iter().collect()
}

fn write(node: &Embedded, attachment: &Attachment) -> Result<(), CniError> {
    node.records.write(attachment).map_err(|error| {
        let _ = node.records.remove(&attachment.id()); // an ADD that fails leaves nothing
        let folder = node.records.folder().display();
        let advice = crate::store::advice(&error);
        CniError::new(
            Code::Io,
            format!("cannot write the record of this attachment below {folder}: {error}{advice}"),
        )
    })
}

impl Asking {
    /// The objects as they are: those that were read, if the record was begun no longer ago than a file takes to be written. A look at
    /// a thousand files takes longer. Whoever waited for a lock looks again.
    fn objects_now(&self, node: &Embedded) -> Result<Objects, NodeError> {
        const JUST_NOW: Duration = Duration::from_millis(2);
        let since = Duration::from_nanos(now_nanos().saturating_sub(self.attachment.since));
        if node.kept.is_none() && since < JUST_NOW {
            return Ok(self.objects.clone());
        }
        node.objects()
    }
}

impl Embedded {
    /// Whether an agent's loop follows the objects of this node, so that a call need not.
    pub(super) fn is_followed(&self) -> bool {
        self.kept.is_some() && self.config.mode == Mode::Cluster
    }

    fn finish(&self, outcome: Outcome) -> Result<(), CniError> {
        for problem in &outcome.problems {
            tracing::warn!(reason = %problem.reason, "{problem}");
        }
        outcome.check()?;
        Ok(())
    }

    /// The record as before an ADD.
    fn restore(&self, id: &AttachmentId, before: Option<&Attachment>) {
        let undone = match before {
            Some(attachment) => self.records.write(attachment),
            None => self.records.remove(id).map(drop),
        };
        if let Err(error) = undone {
            tracing::warn!(%error, %id, "the record of a failed ADD is left to GC");
        }
    }

    /// An ADD failed: everything as before it.
    fn undo(&self, asking: &Asking, before: Option<&Attachment>) {
        let id = &asking.attachment.id();
        self.restore(id, before);
        fault::point("undo.after-record");
        if asking.role == Role::Gateway && before.is_none() {
            self.strip(&asking.attachment);
        }
        let unwired = || -> Result<(), NodeError> {
            if self.memory.applied().is_none() && self.nobody_is_wired()? {
                return self.clear();
            }
            self.update(Thoroughness::Whole, &[id.to_string()]).map(drop)
        };
        if let Err(error) = unwired() {
            tracing::warn!(%error, %id, "the wiring of a failed ADD is left to reconcile");
        }
    }

    /// Whether no pod here has to do with egress. Without a plan that alone says that a node may be emptied: the plan may be
    /// lost while its pods run.
    fn nobody_is_wired(&self) -> Result<bool, NodeError> {
        let listing = self.listing(None)?;
        Ok(listing.torn.is_empty() && listing.attachments.iter().all(|a| a.host_interface.is_none()))
    }

    /// Takes up what others changed in the directory, if this node has anything to do with egress. Never fails the call that
    /// happened to come by, nor makes it wait for others; but where the plan still has another pod's binding for this one's
    /// address, because that pod's DEL failed or never came, the binding goes now or the ADD fails.
    fn catch_up(&mut self, asking: &Asking) -> Result<(), CniError> {
        let concerns_nobody = |ip| self.memory.may_concern(ip) == Some(false);
        if self.is_followed() && asking.attachment.addresses.iter().all(concerns_nobody) {
            return Ok(());
        }
        let (unfinished, known) = (self.memory.is_unfinished(), self.memory.inputs());
        if known.is_none() && !unfinished {
            return Ok(());
        }
        let inherits =
            asking.attachment.addresses.iter().any(|ip| self.memory.may_concern(ip).unwrap_or(true));
        if self.is_followed() && !inherits {
            return Ok(());
        }
        let inputs = self.inputs(&asking.objects);
        if known == Some(inputs) && !inherits && !unfinished {
            self.announce_again(&mut Outcome::default());
            return Ok(());
        }
        if !inherits {
            self.patience = self.patience.min(IN_PASSING);
        }
        let caught_up = self.lock("catching up").and_then(|_guard| {
            if self.is_followed() && asking.attachment.addresses.iter().all(concerns_nobody) {
                return Ok(()); // the pod that had it was answered before it was gone
            }
            if !inherits && self.memory.inputs() == Some(inputs) && !self.memory.is_unfinished() {
                return Ok(()); // somebody else was faster
            }
            let mut outcome = self.update(Thoroughness::Quick, &[asking.attachment.id().to_string()])?;
            self.announce_again(&mut outcome);
            outcome.check().map(drop)
        });
        match caught_up {
            Err(error) if inherits => Err(error.into()),
            Err(error) => {
                tracing::warn!(%error, "changes in the directory are left to the next call");
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }
}
