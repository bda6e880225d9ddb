//! What a cluster's objects are, as far as they were heard of. Pure.
//!
//! In: lists and events, one kind at a time. Out: whether anything changed, readings for [`crate::store::objects::Objects::of`], and
//! endpoints. A kind that we may no longer see, or that the server no longer knows, keeps what was last heard: nothing is
//! removed because of it, and [`Mirror::lost`] says why. Neither does an object go with its definition: what is deleted because
//! the definition was, and what is not there because it was made anew, stays in force.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::api::{self, Reading};
use crate::egress::annotations::EGRESS_ADDRESSES;
use crate::egress::interfaces::Interfaces;
use crate::egress::model::{Endpoint, Pairs};
use crate::egress::serving::Life;
use crate::kube::watched::{Reach, Watched};

/// What is known of one kind.
#[derive(Debug, Default)]
struct Kept {
    synced: bool,
    lost: Option<String>,
    /// Its definition went, and nothing was listed since.
    undefined: bool,
    /// Objects that went with their definition, and are in force all the same.
    outlived: BTreeSet<String>,
    /// Lists that were read, watches that were begun.
    lists: u64,
    watches: u64,
    /// Raised with every change.
    generation: u64,
    /// Version that list and watch have come to.
    reached: u64,
    /// As far as they are read.
    objects: BTreeMap<String, Value>,
    /// Versions of objects that were asked for by themselves, and are ahead of the watch.
    ahead: BTreeMap<String, u64>,
    /// What we have told people in an annotation: no part of the objects, or each word would be a change.
    told: BTreeMap<String, String>,
}

/// The objects of a cluster, as far as somebody needs them.
#[derive(Debug, Default)]
pub struct Mirror {
    reach: Reach,
    kinds: BTreeMap<Watched, Kept>,
    /// How pods are. Apart from the objects: nothing else depends on it, and a pod that becomes ready is no reason to plan.
    lives: BTreeMap<String, (Vec<String>, Life)>,
}

impl Mirror {
    /// Nothing yet.
    pub fn of(reach: Reach) -> Mirror {
        Mirror { reach, ..Mirror::default() }
    }

    /// Whose view it keeps.
    pub fn reach(&self) -> &Reach {
        &self.reach
    }

    /// A whole list, of the version that was [`reached`](Mirror::reached): what is not in it is gone. Says whether anything changed.
    pub fn listed(&mut self, kind: Watched, items: &[Value]) -> bool {
        let mut objects: BTreeMap<String, Value> =
            items.iter().map(|item| (name(item), pruned(&self.reach, kind, item))).collect();
        let lives = match kind {
            Watched::Pods => items.iter().map(|item| (name(item), (ids(item), life(item)))).collect(),
            _ => self.lives.clone(),
        };
        let lived = lives != self.lives;
        self.lives = lives;
        let kept = self.kinds.entry(kind).or_default();
        kept.told = items.iter().filter_map(|item| Some((name(item), told(item)?))).collect();
        // What is ahead of the list is not taken back by it.
        let reached = kept.reached;
        kept.ahead.retain(|_, seen| *seen > reached);
        for name in kept.ahead.keys() {
            objects.extend(kept.objects.remove_entry(name));
        }
        // Objects come back one by one: those that are not there yet are not let go meanwhile. An empty list says no more than
        // that the definition is there.
        let anew = kept.undefined || (objects.is_empty() && !kept.outlived.is_empty());
        kept.outlived = match anew {
            true => kept.objects.keys().filter(|name| !objects.contains_key(*name)).cloned().collect(),
            false => BTreeSet::new(),
        };
        let outlived = kept.outlived.iter().filter_map(|name| kept.objects.get_key_value(name));
        objects.extend(outlived.map(|(name, object)| (name.clone(), object.clone())));
        let changed = !kept.synced || kept.lost.is_some() || kept.objects != objects;
        kept.generation += u64::from(changed);
        kept.lists += 1;
        (kept.synced, kept.undefined, kept.lost, kept.objects) = (true, false, None, objects);
        changed || lived
    }

    /// A watch begins.
    pub fn watched(&mut self, kind: Watched) {
        self.kinds.entry(kind).or_default().watches += 1;
    }

    /// How many lists were read and watches begun.
    pub fn begun(&self, kind: Watched) -> (u64, u64) {
        self.kinds.get(&kind).map_or((0, 0), |kept| (kept.lists, kept.watches))
    }

    /// List or watch have come to this version: whatever was written before is known.
    pub fn reached(&mut self, kind: Watched, version: &str) {
        let kept = self.kinds.entry(kind).or_default();
        kept.reached = kept.reached.max(version.parse().unwrap_or_default());
    }

    /// One object is there, or has changed. Says whether in anything that matters here.
    pub fn is(&mut self, kind: Watched, object: &Value) -> bool {
        let now = pruned(&self.reach, kind, object);
        let kept = self.kinds.entry(kind).or_default();
        let name = name(object);
        if kept.ahead.get(&name).is_some_and(|seen| *seen > version(object)) {
            return false;
        }
        kept.ahead.remove(&name);
        kept.outlived.remove(&name);
        let changed = kept.put(name, object, now);
        self.live(kind, object) || changed
    }

    /// One object as somebody asked for it by itself. Says whether it is news: the watch may have passed it already.
    pub fn learn(&mut self, kind: Watched, object: &Value) -> bool {
        let now = pruned(&self.reach, kind, object);
        let kept = self.kinds.entry(kind).or_default();
        let seen = version(object);
        if seen <= kept.reached {
            return false;
        }
        kept.ahead.insert(name(object), seen);
        kept.outlived.remove(&name(object));
        let changed = kept.put(name(object), object, now);
        self.live(kind, object) || changed
    }

    /// How a pod is, and the UIDs that it goes by; `None`: there is none of this name.
    pub fn life(&self, name: &str) -> Option<(&[String], Life)> {
        self.lives.get(name).map(|(ids, life)| (ids.as_slice(), *life))
    }

    fn live(&mut self, kind: Watched, object: &Value) -> bool {
        if kind != Watched::Pods {
            return false;
        }
        let now = (ids(object), life(object));
        self.lives.insert(name(object), now.clone()) != Some(now)
    }

    /// One object is gone.
    pub fn gone(&mut self, kind: Watched, object: &Value) -> bool {
        let kept = self.kinds.entry(kind).or_default();
        let name = name(object);
        if kept.ahead.get(&name).is_some_and(|seen| *seen > version(object)) {
            return false;
        }
        kept.ahead.remove(&name);
        kept.told.remove(&name);
        let changed = kept.objects.remove(&name).is_some();
        kept.generation += u64::from(changed);
        if kind == Watched::Pods {
            self.lives.remove(&name);
        }
        changed
    }

    /// The kind cannot be seen any more: forbidden, or unknown to the server. What is known of it stays.
    pub fn cannot_see(&mut self, kind: Watched, why: &str) -> bool {
        let kept = self.kinds.entry(kind).or_default();
        let changed = kept.lost.as_deref() != Some(why);
        kept.lost = Some(why.to_owned());
        // Definitions and roles of an earlier release know nothing of it: then there are none, until somebody says otherwise.
        let unknown = kind.is_new() && !kept.synced;
        kept.synced |= unknown;
        kept.generation += u64::from(unknown);
        changed
    }

    /// The kind's definition goes, or is gone: what goes with it stays in force, now and when the definition is made anew.
    pub fn is_undefined(&mut self, kind: Watched, why: &str) -> bool {
        self.kinds.entry(kind).or_default().undefined = true;
        self.cannot_see(kind, why)
    }

    /// Objects of a kind that went with their definition, and are in force until others of the kind are there.
    pub fn outlived(&self, kind: Watched) -> impl Iterator<Item = &str> {
        self.kinds.get(&kind).into_iter().flat_map(|kept| kept.outlived.iter().map(String::as_str))
    }

    /// Whether a list would take something away that is known.
    pub fn would_lose(&self, kind: Watched, items: &[Value]) -> bool {
        let names: BTreeSet<String> = items.iter().map(name).collect();
        self.kinds.get(&kind).is_some_and(|kept| kept.objects.keys().any(|known| !names.contains(known)))
    }

    /// A foreign kind is not there, or not for us to see, and nobody asked for it: as if there were no object of it. One of which
    /// objects are known keeps them.
    pub fn has_none(&mut self, kind: Watched, why: &str) -> bool {
        match self.kinds.get(&kind) {
            Some(kept) if kept.synced && !kept.objects.is_empty() => self.cannot_see(kind, why),
            _ => self.listed(kind, &[]),
        }
    }

    /// Every kind was listed once. Until then nothing may be removed.
    pub fn is_synced(&self) -> bool {
        self.reach.kinds().iter().all(|kind| self.kinds.get(kind).is_some_and(|kept| kept.synced))
    }

    /// Kinds that cannot be seen just now, with the reason.
    pub fn lost(&self) -> Vec<(Watched, String)> {
        let why = |kind: Watched, kept: &Kept| {
            let outlived = || {
                let names: Vec<&str> = kept.outlived.iter().map(String::as_str).collect();
                let word = kind.typed().1;
                let advice = "apply them again; a minute after the first of the kind is there, the others go";
                format!(
                    "the definition of {word} was deleted and made anew, and {} stay in force: {advice}",
                    names.join(", ")
                )
            };
            kept.lost.clone().or_else(|| (!kept.outlived.is_empty()).then(outlived))
        };
        self.kinds.iter().filter_map(|(kind, kept)| Some((*kind, why(*kind, kept)?))).collect()
    }

    /// Raised with every change of a kind; 0 until it was listed.
    pub fn generation(&self, kind: Watched) -> u64 {
        self.kinds.get(&kind).filter(|kept| kept.synced).map_or(0, |kept| kept.generation)
    }

    /// The objects of a kind, as far as they are read, by `namespace/name` or name.
    pub fn objects(&self, kind: Watched) -> impl Iterator<Item = (&str, &Value)> {
        let kept = self.kinds.get(&kind).into_iter();
        kept.flat_map(|kept| kept.objects.iter().map(|(name, object)| (name.as_str(), object)))
    }

    /// One object.
    pub fn object(&self, kind: Watched, name: &str) -> Option<&Value> {
        self.kinds.get(&kind)?.objects.get(name)
    }

    /// What a pod's annotation tells people of its addresses. Nobody decides by it.
    pub fn told(&self, pod: &str) -> Option<&str> {
        self.kinds.get(&Watched::Pods)?.told.get(pod).map(String::as_str)
    }

    /// What the objects say, under names such as `EgressPool shop` in place of files.
    pub fn readings(&self) -> Vec<(String, Reading)> {
        let mut all = Vec::new();
        for kind in self.reach.kinds().iter().copied().filter(|kind| kind.is_read()) {
            let (version, word) = kind.typed();
            for (name, object) in self.objects(kind) {
                let file = format!("{word} {name}");
                all.push((file.clone(), api::read_member(&file, version, word, object)));
            }
        }
        all
    }

    /// Where gateways are, by attachment. One that cannot be read is left out: clients do as if it had gone.
    pub fn endpoints(&self) -> Vec<Endpoint> {
        self.gateways().into_iter().map(|(endpoint, _)| endpoint).collect()
    }

    /// The same, each with the labels of its pod: a node has the Pod objects of its own pods only.
    pub fn gateways(&self) -> Vec<(Endpoint, Pairs)> {
        let read = |(_, object): (&str, &Value)| {
            let labels = serde_json::from_value(object["spec"]["labels"].clone()).unwrap_or_default();
            Some((serde_json::from_value(object["spec"].clone()).ok()?, labels))
        };
        let mut gateways: Vec<(Endpoint, Pairs)> =
            self.objects(Watched::Endpoints).filter_map(read).collect();
        gateways.sort_by(|(a, _), (b, _)| a.attachment.cmp(&b.attachment));
        gateways
    }

    /// What nodes say of themselves. Of two that speak of one node the smaller number counts.
    pub fn nodes(&self) -> BTreeMap<String, NodeSpec> {
        let read = |(_, object): (&str, &Value)| serde_json::from_value(object["spec"].clone()).ok();
        let mut nodes = BTreeMap::new();
        for spec in self.objects(Watched::NodeRecords).filter_map(read) {
            let spec: NodeSpec = spec;
            let known = nodes.entry(spec.node.clone()).or_insert_with(|| spec.clone());
            if spec.number < known.number {
                *known = spec;
            }
        }
        nodes
    }
}

impl Kept {
    fn put(&mut self, name: String, object: &Value, now: Value) -> bool {
        match told(object) {
            Some(told) => _ = self.told.insert(name.clone(), told),
            None => _ = self.told.remove(&name),
        }
        let changed = self.objects.get(&name) != Some(&now);
        self.generation += u64::from(changed);
        self.objects.insert(name, now);
        changed
    }
}

/// `EgressNode`: what a node says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeSpec {
    /// The Node object's name.
    pub node: String,
    /// Its number in connection marks.
    pub number: u16,
    /// The last four bytes of its MAC addresses.
    pub wire: Ipv4Addr,
    /// Its interfaces, where somebody asked for them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interfaces: Option<Interfaces>,
}

/// A static pod goes by its file's, too.
fn ids(pod: &Value) -> Vec<String> {
    let metadata = &pod["metadata"];
    let all = [&metadata["uid"], &metadata["annotations"]["kubernetes.io/config.hash"]];
    all.into_iter().filter_map(|id| id.as_str().map(str::to_owned)).collect()
}

fn life(pod: &Value) -> Life {
    let conditions = pod["status"]["conditions"].as_array();
    let ready = |c: &Value| c["type"] == "Ready" && c["status"] == "True";
    match pod["status"]["phase"].as_str() {
        Some("Failed" | "Succeeded") => Life::Ended,
        _ if !pod["metadata"]["deletionTimestamp"].is_null() => Life::Leaving,
        _ if conditions.is_some_and(|all| all.iter().any(ready)) => Life::Ready,
        _ => Life::Unready,
    }
}

fn name(object: &Value) -> String {
    let word = |key: &str| object["metadata"][key].as_str();
    match (word("namespace"), word("name").unwrap_or_default()) {
        (Some(namespace), name) => format!("{namespace}/{name}"),
        (None, name) => name.to_owned(),
    }
}

/// Kubernetes calls versions opaque; they are growing numbers, and promised to be since 1.35. One that is none counts as old.
fn version(object: &Value) -> u64 {
    object["metadata"]["resourceVersion"].as_str().and_then(|text| text.parse().ok()).unwrap_or_default()
}

fn told(object: &Value) -> Option<String> {
    object["metadata"]["annotations"][EGRESS_ADDRESSES].as_str().map(str::to_owned)
}

/// An object without what nobody here reads: an event about that is no change, and it takes no memory.
fn pruned(reach: &Reach, kind: Watched, object: &Value) -> Value {
    let (version, word) = kind.typed();
    let mut now = json!({"apiVersion": version, "kind": word});
    let mut keep = |part: &str, keys: &[&str]| {
        let Some(fields) = object.get(part).and_then(Value::as_object) else { return };
        let kept = fields.iter().filter(|(key, _)| keys.is_empty() || keys.contains(&key.as_str()));
        now[part] = kept.map(|(key, value)| (key.clone(), value.clone())).collect::<Map<_, _>>().into();
    };
    let all = *reach == Reach::Cluster;
    let metadata: &[&str] = match kind {
        Watched::Nodes => &["name", "uid", "labels"],
        Watched::Beats => &["name", "resourceVersion", "annotations"],
        Watched::NodeRecords if all => &["name", "generation"],
        Watched::Endpoints | Watched::NodeRecords | Watched::ServiceCidrs | Watched::Blocks => &["name"],
        Watched::StatefulSets => &["name", "namespace"],
        Watched::Pools | Watched::Policies | Watched::Ranges if all => {
            &["name", "labels", "annotations", "creationTimestamp", "generation"]
        }
        Watched::CalicoAgents | Watched::CiliumAgents => &["name", "namespace"],
        _ => &["name", "namespace", "uid", "labels", "annotations", "creationTimestamp", "ownerReferences"],
    };
    keep("metadata", metadata);
    match kind {
        Watched::Namespaces => {}
        Watched::Nodes => {
            keep("spec", if all { &["podCIDR", "podCIDRs", "taints"] } else { &["podCIDR", "podCIDRs"] });
            keep("status", &["addresses"]);
        }
        Watched::Pods => {
            keep("spec", &["nodeName", "hostNetwork"]);
            keep("status", &["phase", "podIP", "podIPs"]);
        }
        Watched::StatefulSets => keep("spec", &["replicas", "ordinals"]),
        Watched::Beats => keep("spec", &["holderIdentity", "renewTime"]),
        Watched::Pools | Watched::Policies | Watched::Ranges | Watched::NodeRecords if all => {
            keep("spec", &[]);
            keep("status", &[]);
        }
        Watched::CalicoAgents | Watched::CiliumAgents => keep("status", &["numberReady"]),
        _ => keep("spec", &[]),
    }
    if let Some(annotations) = now["metadata"].get_mut("annotations").and_then(Value::as_object_mut) {
        annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
        // Ours, of what the pod does: read back, it would be a reason for itself.
        annotations.remove(EGRESS_ADDRESSES);
        if annotations.is_empty()
            && let Some(metadata) = now["metadata"].as_object_mut()
        {
            metadata.remove("annotations");
        }
    }
    now
}

#[cfg(test)]
mod tests;
