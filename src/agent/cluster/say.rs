//! What this node tells the others: its number, its interfaces, its gateways' endpoints.
//!
//! In: the node's own files, the mirror. Out: objects, made, replaced and deleted by what the files say. Never: touches another node's.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::IpAddr;
use std::time::Instant;

use serde_json::{Value, json};

use super::Cluster;
use super::refused::{Refusals, Saying, Unsaid};
use crate::api::MOST_PAIRS;
use crate::egress::model::{Endpoint, Pairs};
use crate::hash;
use crate::kube::{ApiError, NodeSpec, Watched};
use crate::node::embedded::Embedded;
use crate::problem::Problem;
use crate::store::nodes::{self, LAST_NUMBER, NodeRecord};
use crate::store::{Since, endpoints, interfaces, looks};

/// An endpoint, and the labels of its pod.
type Gateway = (Endpoint, Pairs);

/// Labels of a gateway that others are not told of: more than an EgressEndpoint takes. Kubernetes has no limit, and whoever may make pods may
/// write them.
const LEFT_OUT: &str = "LabelsLeftOut";
/// Whatever is refused of the node itself.
const NODE: &str = "EgressNode";

/// What was said last, so that it is not said again before it is heard.
#[derive(Debug, Default)]
pub(super) struct Said {
    /// Each with what the server made of it: definitions of an older release take fields away.
    endpoints: BTreeMap<String, (Gateway, Value)>,
    node: Option<NodeSpec>,
    /// How everything looked when nothing was left to say.
    settled: Option<u64>,
    /// How the files of endpoints and interfaces look, asked one by one only when their folder has changed.
    endpoints_look: Since<u64>,
    interfaces_look: Since<u64>,
    refusals: Refusals,
    /// Attachments that ended and whose endpoints could not be deleted; `None`: that is not known.
    standing: Option<BTreeSet<String>>,
}

impl Said {
    pub(super) fn standing(&self) -> Option<&BTreeSet<String>> {
        self.standing.as_ref()
    }
}

impl Cluster {
    /// Says what the others do not know yet. What cannot be said hinders nothing else, unless the server is away; the first error is what
    /// comes out.
    pub(super) fn say(&self, said: &mut Said) -> Result<(), ApiError> {
        said.standing = None;
        if [Watched::Nodes, Watched::NodeRecords, Watched::Endpoints]
            .iter()
            .any(|k| self.mirror().generation(*k) == 0)
        {
            return Ok(());
        }
        let node = self.say_node(said);
        if node.as_ref().is_err_and(ApiError::is_of_the_server) {
            return node;
        }
        let (endpoints, left_out) = self.say_endpoints(said);
        *self.unsaid() = Unsaid { refused: said.refusals.problems(), left_out };
        node.and(endpoints)
    }

    /// The same, if anything looks otherwise than when nothing was left to say: this is asked several times a second, and to compare
    /// five hundred nodes and all gateways each time is most of what an agent does when nothing happens.
    pub(super) fn say_what_changed(&self, said: &mut Said) -> Result<(), ApiError> {
        let looks = self.looks(said);
        if said.settled == Some(looks) {
            return Ok(());
        }
        said.settled = None;
        self.say(said)?;
        // What was written meanwhile, by ourselves even, is looked at again.
        said.settled = Some(self.looks(said)).filter(|now| *now == looks);
        Ok(())
    }

    /// A number for all that is said from.
    fn looks(&self, said: &mut Said) -> u64 {
        let mut hash = DefaultHasher::new();
        let mirror = self.mirror();
        for kind in [Watched::Nodes, Watched::NodeRecords, Watched::Endpoints, Watched::Pods] {
            (mirror.generation(kind), mirror.outlived(kind).collect::<Vec<_>>()).hash(&mut hash);
        }
        drop(mirror);
        let folders = [
            (&mut said.endpoints_look, self.dir.endpoints()),
            (&mut said.interfaces_look, self.dir.interfaces()),
        ];
        for (look, folder) in folders {
            let Ok(files) = look.get(&folder, || Ok::<u64, Infallible>(looks(&folder)));
            files.hash(&mut hash);
        }
        (said.refusals.are_due(Instant::now()), self.has_seen_gateways()).hash(&mut hash);
        hash.finish()
    }

    fn say_node(&self, said: &mut Said) -> Result<(), ApiError> {
        let own = self.mirror().nodes().remove(&self.node);
        let Some(known) = own else {
            return self.take_number(said);
        };
        let interfaces =
            interfaces::list(&self.dir).ok().and_then(|mut all| all.interfaces.remove(&self.node));
        let path = format!("node-{}", known.number);
        if self.mirror().outlived(Watched::NodeRecords).any(|name| name == path) {
            // Its definition was made anew, and our number is still on packets everywhere.
            return self.make_node(said, &known);
        }
        let next = NodeSpec { interfaces: interfaces.or_else(|| known.interfaces.clone()), ..known.clone() };
        if next == known || said.node.as_ref() == Some(&next) {
            said.refusals.forget(NODE);
            return Ok(());
        }
        let content = json!(next);
        let replaced = said.refusals.write(of_node(&next, &content), Instant::now(), || {
            self.replace(&format!("{}/{path}", Watched::NodeRecords.collection()), |object| {
                object["spec"] = content.clone();
                Ok(())
            })
        })?;
        if replaced.is_some() {
            said.node = Some(next);
        }
        Ok(())
    }

    /// A number that nobody has: whoever makes the object of that name first has it. Where the search begins depends on the node, so
    /// that nodes which start together do not all want the same.
    fn take_number(&self, said: &mut Said) -> Result<(), ApiError> {
        // Without a Node object there is no node, and nothing of it that is not taken.
        if self.mirror().object(Watched::Nodes, &self.node).is_none() {
            said.refusals.forget(NODE);
            return Ok(());
        }
        let ipv4 = self.own_addresses().into_iter().find_map(|address| match address {
            IpAddr::V4(ip) => Some(ip),
            IpAddr::V6(_) => None,
        });
        let others = self.mirror().nodes();
        let record = |spec: &NodeSpec| NodeRecord {
            name: spec.node.clone(),
            number: spec.number,
            wire: spec.wire,
            next_vni: nodes::FIRST_VNI,
        };
        let records: Vec<NodeRecord> = others.values().map(record).collect();
        let Some(free) = nodes::allocate(&self.node, ipv4, &records) else {
            return Err(ApiError::Access(format!("node {} gets no number: all are taken", self.node)));
        };
        // Should somebody delete the object: packets on their way and connections everywhere carry what this node was called.
        let had = nodes::get(&self.dir, &self.node).ok().flatten().map(|(record, _)| record);
        let had = had.filter(|had| !records.iter().any(|r| r.number == had.number || r.wire == had.wire));
        let wire = had.as_ref().map_or(free.wire, |had| had.wire);
        let last = u32::from(LAST_NUMBER);
        let start = hash::stable32(self.node.as_bytes()) % last;
        let candidates = (0..last).filter_map(|n| u16::try_from((start + n) % last + 1).ok());
        let candidates = had.map(|had| had.number).into_iter().chain(candidates);
        for number in candidates.filter(|n| !records.iter().any(|r| r.number == *n)) {
            let spec = NodeSpec { node: self.node.clone(), number, wire, interfaces: None };
            match self.make_node(said, &spec) {
                Err(error) if error.is_conflict() => {}
                made => return made,
            }
        }
        Ok(())
    }

    fn make_node(&self, said: &mut Said, spec: &NodeSpec) -> Result<(), ApiError> {
        let content = json!(spec);
        let (all, name) = (Watched::NodeRecords.collection(), format!("node-{}", spec.number));
        let object = json!({
            "apiVersion": "egret.dev/v1alpha1", "kind": "EgressNode", "metadata": {"name": name}, "spec": content,
        });
        let made = said.refusals.write(of_node(spec, &content), Instant::now(), || {
            self.client.create(&all, &object).or_else(|refused| {
                // Of an earlier request the answer may have been lost, and no watch need have told of what it made.
                let look = refused.is_conflict().then(|| self.client.get(&format!("{all}/{name}")));
                let ours = look.transpose()?.filter(|there| there["spec"]["node"] == self.node.as_str());
                ours.ok_or(refused)
            })
        })?;
        let Some(made) = made else { return Ok(()) };
        tracing::info!(number = spec.number, "this node has a number");
        self.mirror().learn(Watched::NodeRecords, &made);
        let _ = self.bell.try_send(()); // full: it rings already
        Ok(())
    }

    /// What came of it, and which labels are not said.
    fn say_endpoints(&self, said: &mut Said) -> (Result<(), ApiError>, Vec<Problem>) {
        let heard = self.mirror().gateways();
        let Some((ours, left_out)) = self.gateways_here(&heard) else { return (Ok(()), Vec::new()) };
        let is_heard = |key: &str| heard.iter().any(|(e, _)| e.node == self.node && e.attachment == key);
        said.refusals.retain(|key| key == NODE || ours.contains_key(key) || is_heard(key));
        let published = self.publish_all(said, &heard, &ours);
        if published.as_ref().is_err_and(ApiError::is_of_the_server) {
            return (published, left_out);
        }
        (published.and(self.withdraw_all(said, &heard, &ours)), left_out)
    }

    fn publish_all(
        &self,
        said: &mut Said,
        heard: &[Gateway],
        ours: &BTreeMap<String, Gateway>,
    ) -> Result<(), ApiError> {
        let outlived: BTreeSet<String> =
            self.mirror().outlived(Watched::Endpoints).map(str::to_owned).collect();
        let mut told = Ok(());
        for (attachment, gateway) in ours.iter().filter(|(_, (endpoint, _))| self.may_say(endpoint)) {
            let name = object_name(attachment);
            // As it was said; else somebody deleted or changed it, and clients everywhere follow that.
            let stands = || {
                let (last, made) = said.endpoints.get(attachment)?;
                let there = self.mirror().object(Watched::Endpoints, &name)?["spec"] == *made;
                Some(there && last == gateway)
            };
            if (heard.contains(gateway) || stands() == Some(true)) && !outlived.contains(&name) {
                said.refusals.forget(attachment);
                continue;
            }
            let mut content = json!(gateway.0);
            content["labels"] = json!(gateway.1);
            let saying =
                Saying { key: attachment, object: format!("Pod {}", gateway.0.pod), content: &content };
            match said.refusals.write(saying, Instant::now(), || self.publish(&gateway.0, &content)) {
                Ok(Some(made)) => {
                    self.mirror().learn(Watched::Endpoints, &made);
                    said.endpoints.insert(attachment.clone(), (gateway.clone(), made["spec"].clone()));
                }
                Ok(None) => {}
                Err(error) if error.is_of_the_server() => return Err(error),
                Err(error) => told = told.and(Err(error)),
            }
        }
        told
    }

    /// Deletes the endpoints of gateways that are here no more.
    fn withdraw_all(
        &self,
        said: &mut Said,
        heard: &[Gateway],
        ours: &BTreeMap<String, Gateway>,
    ) -> Result<(), ApiError> {
        let (mut told, mut standing) = (Ok(()), BTreeSet::new());
        let not_here = |e: &&Endpoint| e.node == self.node && !ours.contains_key(&e.attachment);
        for gone in heard.iter().map(|(endpoint, _)| endpoint).filter(not_here) {
            let (key, object) = (gone.attachment.as_str(), format!("Pod {}", gone.pod));
            let going = Saying { key, object, content: &Value::Null };
            match said.refusals.write(going, Instant::now(), || self.withdraw(gone)) {
                Ok(Some(stays)) => _ = (!stays).then(|| said.endpoints.remove(&gone.attachment)),
                Ok(None) => _ = standing.insert(gone.attachment.clone()),
                Err(error) if error.is_of_the_server() => return Err(error),
                Err(error) => {
                    told = told.and(Err(error));
                    standing.insert(gone.attachment.clone());
                }
            }
        }
        said.standing = Some(standing);
        told
    }

    /// Whether it stays.
    fn withdraw(&self, gone: &Endpoint) -> Result<bool, ApiError> {
        if self.republish(gone)? {
            return Ok(true);
        }
        let path = format!("{}/{}", Watched::Endpoints.collection(), object_name(&gone.attachment));
        match self.client.delete(&path) {
            Err(error) if !error.is_absent() => Err(error),
            _ => Ok(false),
        }
    }

    /// This node's gateways by attachment, and what is not said of them; `None` where the directory cannot be read.
    fn gateways_here(&self, heard: &[Gateway]) -> Option<(BTreeMap<String, Gateway>, Vec<Problem>)> {
        let (known, _) = endpoints::list(&self.dir).ok()?;
        let (mirror, mut left_out) = (self.mirror(), Vec::new());
        let mut with_labels = |endpoint: Endpoint| {
            let pod = mirror.object(Watched::Pods, &endpoint.pod.to_string());
            let labels = match pod {
                Some(pod) => {
                    let all = serde_json::from_value(pod["metadata"]["labels"].clone()).unwrap_or_default();
                    let (labels, problem) = as_many_as_are_taken(&endpoint, all);
                    left_out.extend(problem);
                    labels
                }
                None => {
                    let last = heard.iter().find(|(e, _)| e.attachment == endpoint.attachment);
                    last.map(|(_, labels)| labels.clone()).unwrap_or_default()
                }
            };
            (endpoint.attachment.clone(), (endpoint, labels))
        };
        let ours = known.into_iter().filter(|e| e.node == self.node).map(&mut with_labels).collect();
        Some((ours, left_out))
    }

    /// What the server made of it.
    fn publish(&self, endpoint: &Endpoint, content: &Value) -> Result<Value, ApiError> {
        let name = object_name(&endpoint.attachment);
        let object = json!({
            "apiVersion": "egret.dev/v1alpha1", "kind": "EgressEndpoint",
            "metadata": {"name": name}, "spec": content,
        });
        match self.client.create(&Watched::Endpoints.collection(), &object) {
            Err(error) if error.is_conflict() => {
                self.replace(&format!("{}/{name}", Watched::Endpoints.collection()), |object| {
                    if object["spec"]["node"] != endpoint.node.as_str() {
                        let other = object["spec"]["node"].as_str().unwrap_or_default();
                        let msg = format!(
                            "EgressEndpoint {name} is node {other}'s: if there is no such node, delete that object"
                        );
                        return Err(ApiError::Another(msg));
                    }
                    object["spec"] = content.clone();
                    Ok(())
                })
            }
            outcome => outcome,
        }
    }

    fn replace(
        &self,
        path: &str,
        change: impl Fn(&mut Value) -> Result<(), ApiError>,
    ) -> Result<Value, ApiError> {
        let mut object = self.client.get(path)?;
        change(&mut object)?;
        self.client.replace(path, &object)
    }

    /// Its file was lost or damaged under a running gateway; what the cluster says of it is all there is. Whether it stays.
    fn republish(&self, endpoint: &Endpoint) -> Result<bool, ApiError> {
        let config = self.config.now();
        let stays = Embedded::at(&config).and_then(|node| Ok(node.republish(endpoint)?));
        if !matches!(stays, Ok(false)) {
            tracing::warn!(endpoint = endpoint.attachment, ?stays, "an endpoint is not on disk");
        }
        stays.map_err(|error| ApiError::Access(format!("an endpoint is not on disk: {error}")))
    }
}

fn of_node<'a>(spec: &NodeSpec, content: &'a Value) -> Saying<'a> {
    Saying { key: NODE, object: format!("EgressNode node-{}", spec.number), content }
}

/// The first by name: so that it does not depend on what was said before. Which ones selectors look at is known by nobody here.
fn as_many_as_are_taken(endpoint: &Endpoint, mut labels: Pairs) -> (Pairs, Option<Problem>) {
    let all = labels.len();
    let Some(first) = labels.keys().nth(MOST_PAIRS).cloned() else { return (labels, None) };
    drop(labels.split_off(&first));
    let message = format!(
        "it has {all} labels, and clients on other nodes see the first {MOST_PAIRS} by name: to their selectors it has neither `{first}` nor \
         those after it. Take away labels that nobody selects by"
    );
    (labels, Some(Problem::new(format!("Pod {}", endpoint.pod), LEFT_OUT, message).at("metadata.labels")))
}

/// A name that the API takes, and nobody else's: of an attachment `NETWORK/CONTAINER/IFNAME`.
fn object_name(attachment: &str) -> String {
    let mut parts = attachment.split('/').skip(1);
    let word = |text: &str, most: usize| -> String {
        let low = text.to_ascii_lowercase();
        low.chars().filter(|c| c.is_ascii_lowercase() || c.is_ascii_digit()).take(most).collect()
    };
    let container = word(parts.next().unwrap_or_default(), 16);
    format!("gw-{container}-{:08x}", hash::stable32(attachment.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_has_a_name_that_the_api_takes_and_another_attachment_has_another() {
        let one = object_name("net/0123456789ABCDEF0123/eth0");
        assert!(one.starts_with("gw-0123456789abcdef-"), "{one}");
        assert_ne!(one, object_name("net/0123456789ABCDEF0123/eth1"));
        assert!(object_name("n/_.-/e").starts_with("gw--"), "{}", object_name("n/_.-/e"));
    }
}
