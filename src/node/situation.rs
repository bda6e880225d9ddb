//! What the store says, put together for one node: objects, endpoints, numbers, and the pods wired here.
//!
//! In: the directory and the node's records. Out: a [`Situation`], from which everything pure follows.
//! Never: changes anything but the numbers that nodes get once.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::IpAddr;
use std::sync::Arc;

use crate::addr::Cidr;
use crate::config::Mode;
use crate::egress::inside;
use crate::egress::model::{Node, Pairs, PodName, Resolution, View};
use crate::egress::plan::{Door, LocalPod};
use crate::egress::resolve::{HOST_NETWORK_SELECTED, node_gateways, resolve};
use crate::node::attachment::{Attachment, Listing};
use crate::node::embedded::{Embedded, NodeError};
use crate::node::last_seen::{outlived, overlay};
use crate::problem::Problem;
use crate::store::objects::Objects;
use crate::store::{endpoints, interfaces, looks_whole, nodes};

/// Everything that a plan is made from.
#[derive(Clone)]
pub struct Situation {
    /// Fingerprint of all that was read, but for the attachments.
    pub inputs: u64,
    /// The directory's objects.
    pub objects: Objects,
    /// The cluster, as far as this node's pods need it.
    pub view: Arc<View>,
    /// Attachments of this node, oldest first.
    pub attachments: Vec<Attachment>,
    /// Attachments of this node whose record is torn. Their pods may be running.
    pub unread: BTreeSet<String>,
    /// Attachments of this node that outlived their pod's object, whose name is another pod's by now. Nobody knows what they would be.
    pub outlived: BTreeSet<String>,
    /// Decisions about this node's pods.
    pub resolution: Resolution,
    /// Ranges that never go to a gateway.
    pub inside: Vec<Cidr>,
    /// Interfaces by which this node's own gateways leave.
    pub doors: BTreeMap<String, Door>,
    /// What is wrong with objects and records.
    pub problems: Vec<Problem>,
}

impl Situation {
    /// The attachments in the planner's words.
    pub fn locals(&self) -> Vec<LocalPod> {
        // A torn record still says that its attachment is here: a gateway stays wired.
        let unread = self.unread.iter().map(|name| LocalPod {
            attachment: name.clone(),
            pod: None,
            addresses: Vec::new(),
            networks: Vec::new(),
        });
        self.attachments.iter().map(local_pod).chain(unread).collect()
    }

    /// Addresses of the pods that run here, but for these.
    pub fn running(&self, asleep: &[String]) -> BTreeSet<IpAddr> {
        let awake = self.attachments.iter().filter(|a| !asleep.contains(&a.id().to_string()));
        awake.flat_map(|attachment| attachment.addresses.iter().copied()).collect()
    }

    /// Whether nobody knows any more of which pool a gateway's address is.
    pub fn has_no_pool(&self, attachment: &str, ip: IpAddr) -> bool {
        let endpoint = self.view.endpoints.iter().find(|endpoint| endpoint.attachment == attachment);
        let address =
            endpoint.and_then(|endpoint| endpoint.addresses.iter().find(|address| address.ip == ip));
        address.is_some_and(|address| !self.view.pools.contains_key(&address.pool))
    }
}

/// An attachment in the planner's words.
pub fn local_pod(attachment: &Attachment) -> LocalPod {
    LocalPod {
        attachment: attachment.id().to_string(),
        pod: attachment.pod.clone(),
        addresses: attachment.addresses.clone(),
        networks: attachment.networks.iter().copied().filter(leaves_something).collect(),
    }
}

/// As with a range that somebody writes: one of everything is not a subnet of pods, and nothing would be left to gateways.
fn leaves_something(network: &Cidr) -> bool {
    network.prefix() > 0
}

/// Subnets that are not believed.
fn too_wide(attachment: &Attachment) -> Option<Problem> {
    let all = attachment.networks.iter().find(|network| !leaves_something(network))?;
    let message = format!(
        "its primary plugin says that its address is of the subnet {all}, which is everything and so counts as no subnet; write the \
         prefix length of the pods' range there, or of the address alone"
    );
    Some(Problem::new(attachment.object(), "CidrTooWide", message))
}

impl Embedded {
    /// Reads everything about this node's pods. Every Node object gets its number on the way.
    ///
    /// # Errors
    /// The directory cannot be read at all; a single bad object is a problem.
    pub fn situation(&self) -> Result<Situation, NodeError> {
        self.situation_of(self.objects()?)
    }

    /// The same, where the objects were read already.
    ///
    /// # Errors
    /// As [`Embedded::situation`].
    pub fn situation_of(&self, objects: Objects) -> Result<Situation, NodeError> {
        let inputs = self.inputs(&objects);
        let Listing { mut attachments, torn } = self.listing(None)?;
        // Without its namespace a pod is no client and no gateway, whether somebody called DEL or not.
        attachments.retain(|a| !a.netns_is_gone());
        attachments.sort_by_key(|a| a.since);
        let mut pods: Vec<PodName> = attachments.iter().filter_map(|a| a.pod.clone()).collect();
        // Nothing is wired for them, and no call waits for their sake; who lives on tells of those that are selected.
        if self.kept.is_some() {
            pods.extend(objects.on_the_network_of(&self.name));
        }
        let (mut endpoints, mut problems) = self.endpoints()?;
        let unread: BTreeSet<String> = torn.iter().map(|(id, _)| id.to_string()).collect();
        let mut here: BTreeSet<String> = attachments.iter().map(|a| a.id().to_string()).collect();
        here.extend(unread.iter().cloned());
        endpoints.retain(|e| e.node != self.name || here.contains(&e.attachment));
        let mut view = self.view_for(&objects, &pods, endpoints);
        let outlived = outlived(&view, &mut attachments);
        for attachment in &attachments {
            let last = overlay(&mut view, attachment);
            self.remember_object(attachment, last);
        }
        problems.extend(self.number_nodes(&mut view)?);
        problems.extend(self.hear_interfaces(&mut view)?);
        if view.asks_for_nodes() {
            self.keep_interfaces(&view)?;
        }
        problems.extend(attachments.iter().filter_map(too_wide));
        problems.extend(objects.problems());
        problems.extend(torn.into_iter().map(|(_, problem)| problem));
        let view = Arc::new(view);
        let resolution = match &self.kept {
            Some(kept) => with_node_gateways(&view, kept.resolution(&view, pods.into_iter().collect())),
            None => resolved(&view, pods),
        };
        problems.extend(resolution.problems.iter().cloned().map(|problem| objects.placed(problem)));
        let doors = self.doors(&resolution)?;
        problems.extend(view.interfaces.get(&self.name).and_then(|own| self.say_ways(own, &doors)));
        let inside = inside::inside(&view);
        Ok(Situation {
            inputs,
            objects,
            view,
            attachments,
            unread,
            outlived,
            resolution,
            inside,
            doors,
            problems,
        })
    }

    /// Everything in the directory, for those who only ask. Pods wired here are known, whether they have an object or not, and
    /// have the annotations that the runtime passed.
    ///
    /// # Errors
    /// The directory cannot be read at all.
    pub fn whole_view(&self) -> Result<(View, Objects, Vec<Problem>), NodeError> {
        let objects = self.objects()?;
        let (endpoints, mut problems) = endpoints::list(&self.dir)?;
        let mut view = objects.view(&self.config, endpoints);
        let mut attachments = self.records.list(None).map(|l| l.attachments).unwrap_or_default();
        attachments.retain(|attachment| !attachment.netns_is_gone());
        attachments.sort_by_key(|attachment| attachment.since);
        outlived(&view, &mut attachments);
        let mut here: BTreeMap<PodName, Vec<IpAddr>> = BTreeMap::new();
        for attachment in attachments {
            overlay(&mut view, &attachment);
            let whose = attachment.object();
            let own = attachment.networks.into_iter().filter(leaves_something);
            let own = own.map(|network| (whose.clone(), network));
            view.subnets.entry(self.name.clone()).or_default().extend(own);
            if let Some(name) = attachment.pod {
                let pod = view.pods.entry(name.clone()).or_default();
                pod.node.get_or_insert_with(|| self.name.clone());
                here.entry(name).or_default().extend(attachment.addresses);
            }
        }
        // What ADD was told of a pod's addresses is newer than its object.
        for (name, addresses) in here.into_iter().filter(|(_, addresses)| !addresses.is_empty()) {
            view.pods.entry(name).or_default().ips = addresses;
        }
        let said = interfaces::list(&self.dir)?;
        view.interfaces = said.interfaces;
        problems.extend(said.torn.into_values());
        problems.extend(objects.problems());
        Ok((view, objects, problems))
    }

    /// A number for everything a plan is made from, cheap enough to ask at every call: the compiled objects' own fingerprint,
    /// the endpoints', nodes' and interfaces' files by name, inode and time, and the configuration.
    pub fn inputs(&self, objects: &Objects) -> u64 {
        let mut hash = DefaultHasher::new();
        objects.fingerprint().hash(&mut hash);
        for folder in [self.dir.endpoints(), self.dir.nodes(), self.dir.interfaces()] {
            looks_whole(&folder).hash(&mut hash);
        }
        serde_json::to_string(&self.config).unwrap_or_default().hash(&mut hash);
        hash.finish()
    }

    /// What is wrong with pods on this node's network, where nothing else is to be said of it.
    ///
    /// # Errors
    /// The objects cannot be listed.
    pub fn shared_network(&self) -> Result<Vec<Problem>, NodeError> {
        let objects = self.objects()?;
        let pods: Vec<PodName> = objects.on_the_network_of(&self.name).collect();
        if pods.is_empty() {
            return Ok(Vec::new());
        }
        let view = self.view_for(&objects, &pods, Vec::new());
        let problems = resolve(&view, pods).problems.into_iter();
        let about_them = problems.filter(|problem| problem.reason == HOST_NETWORK_SELECTED);
        Ok(about_them.map(|problem| objects.placed(problem)).collect())
    }

    /// Gives every Node its number and wire bytes; a single machine without a Node object gets a node of its own.
    fn number_nodes(&self, view: &mut View) -> Result<Vec<Problem>, NodeError> {
        view.nodes.entry(self.name.clone()).or_default();
        let (records, problems) = self.node_records()?;
        let mut unnumbered: BTreeSet<String> = view.nodes.keys().cloned().collect();
        let number = |view: &mut View, record: &nodes::NodeRecord| {
            if let Some(node) = view.nodes.get_mut(&record.name) {
                (node.number, node.wire) = (Some(record.number), Some(record.wire));
            }
        };
        for record in records.iter() {
            number(view, record);
            unnumbered.remove(&record.name);
        }
        if self.config.mode == Mode::Cluster {
            // The API keeps the numbers, and each node's agent asks for its own. Who has none sends nothing yet.
            if unnumbered.contains(&self.name) {
                let none = nodes::NodeError::Unnumbered(self.name.clone());
                self.last_known_number(view, &self.name, none)?;
            }
        } else if self.dry_run {
            number_for_show(view, &mut records.to_vec(), &unnumbered);
        } else if !unnumbered.is_empty() {
            let guard = self.lock_store("numbering nodes")?;
            for name in unnumbered {
                let ipv4 = view.nodes.get(&name).and_then(first_ipv4);
                match nodes::ensure(&self.dir, &guard, &name, ipv4) {
                    Ok(record) => number(view, &record),
                    Err(error) => self.last_known_number(view, &name, error)?,
                }
            }
        }
        Ok(problems)
    }

    /// A node whose record is torn keeps the number it had in the last plan: its pods' flows carry it. One that was never
    /// known here is left out, and the torn record is a problem already; only without an own number there is no plan.
    fn last_known_number(
        &self,
        view: &mut View,
        name: &str,
        error: nodes::NodeError,
    ) -> Result<(), NodeError> {
        let applied = self.memory.applied();
        let known = applied.as_ref().and_then(|applied| applied.plan.nodes.get(name));
        match (known, view.nodes.get_mut(name)) {
            (Some(peer), Some(node)) => (node.number, node.wire) = (Some(peer.number), Some(peer.wire)),
            _ if name == self.name => return Err(error.into()),
            _ => tracing::warn!(%error, node = name, "left out of the plan"),
        }
        Ok(())
    }
}

/// The numbers that nodes would get, and nothing written.
fn number_for_show(view: &mut View, records: &mut Vec<nodes::NodeRecord>, unnumbered: &BTreeSet<String>) {
    for name in unnumbered {
        let Some(node) = view.nodes.get_mut(name) else { continue };
        let Some(record) = nodes::allocate(name, first_ipv4(node), records) else { continue };
        (node.number, node.wire) = (Some(record.number), Some(record.wire));
        records.push(record);
    }
}

/// Decisions about these pods, and besides every node gateway that any policy asks for: a node is a gateway for other nodes' pods.
pub fn resolved(view: &View, pods: impl IntoIterator<Item = PodName>) -> Resolution {
    with_node_gateways(view, resolve(view, pods))
}

fn with_node_gateways(view: &View, mut resolution: Resolution) -> Resolution {
    let (gateways, problems) = node_gateways(view);
    resolution.node_gateways.extend(gateways);
    for problem in problems {
        if !resolution.problems.contains(&problem) {
            resolution.problems.push(problem);
        }
    }
    resolution
}

fn first_ipv4(node: &Node) -> Option<std::net::Ipv4Addr> {
    node.internal_ips.iter().find_map(|ip| match ip {
        IpAddr::V4(ip) => Some(*ip),
        IpAddr::V6(_) => None,
    })
}

/// Tells whether a pod's object was annotated anew since ADD.
pub fn annotations_fingerprint(annotations: &Pairs) -> u64 {
    let mut hash = DefaultHasher::new();
    annotations.hash(&mut hash);
    hash.finish()
}
