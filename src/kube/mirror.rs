//! What a cluster's objects are, as far as they were heard of. Pure.
//!
//! In: lists and events, one kind at a time. Out: whether anything changed, readings for [`crate::store::objects::Objects::of`], and
//! endpoints. A kind that we may no longer see, or that the server no longer knows, keeps what was last heard: nothing is
//! removed because of it, and [`Mirror::lost`] says why.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::api::{self, Reading};
use crate::egress::annotations::EGRESS_ADDRESSES;
use crate::egress::interfaces::Interfaces;
use crate::egress::model::{Endpoint, Pairs};

/// The kinds that are followed, and the order of their readings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Watched {
    /// Namespaces, all.
    Namespaces,
    /// Nodes, all.
    Nodes,
    /// Pods of this node.
    Pods,
    /// Ranges of services.
    ServiceCidrs,
    /// Our pools.
    Pools,
    /// Our policies.
    Policies,
    /// Where gateways are.
    Endpoints,
    /// What nodes say of themselves.
    NodeRecords,
    /// Books of leases. This and the next two are the controller's affair.
    Blocks,
    /// StatefulSets: their pods' leases outlive containers.
    StatefulSets,
    /// Signs of life of agents (and of the controller): Leases in [`super::HOME`].
    Beats,
    /// Calico's pools, by its API.
    CalicoPools,
    /// The same in Calico's own store: without its API server that is where they are.
    StoredCalicoPools,
    /// Calico's policies.
    CalicoPolicies,
    /// The same in its store.
    StoredCalicoPolicies,
    /// Cilium's policies.
    CiliumPolicies,
    /// Calico itself, if it is at work.
    CalicoAgents,
    /// Cilium itself.
    CiliumAgents,
}

/// Whose view of the cluster is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reach {
    /// What the agent of this node needs.
    Node(String),
    /// What the controller needs: every pod, the status of our objects, leases and who has them.
    Cluster,
}

impl Reach {
    /// The kinds that are followed.
    pub fn kinds(&self) -> &'static [Watched] {
        match self {
            Reach::Node(_) => &Watched::ALL,
            Reach::Cluster => &Watched::CLUSTER,
        }
    }
}

impl Default for Reach {
    fn default() -> Reach {
        Reach::Node(String::new())
    }
}

impl Watched {
    /// All that a node needs.
    pub const ALL: [Watched; 15] = [
        Watched::Namespaces,
        Watched::Nodes,
        Watched::Pods,
        Watched::ServiceCidrs,
        Watched::Pools,
        Watched::Policies,
        Watched::Endpoints,
        Watched::NodeRecords,
        Watched::CalicoPools,
        Watched::StoredCalicoPools,
        Watched::CalicoPolicies,
        Watched::StoredCalicoPolicies,
        Watched::CiliumPolicies,
        Watched::CalicoAgents,
        Watched::CiliumAgents,
    ];

    /// All that the controller needs.
    pub const CLUSTER: [Watched; 11] = [
        Watched::Namespaces,
        Watched::Nodes,
        Watched::Pods,
        Watched::ServiceCidrs,
        Watched::Pools,
        Watched::Policies,
        Watched::Endpoints,
        Watched::NodeRecords,
        Watched::Blocks,
        Watched::StatefulSets,
        Watched::Beats,
    ];

    /// `apiVersion` and `kind`: the members of a list have neither.
    pub fn typed(self) -> (&'static str, &'static str) {
        match self {
            Watched::Namespaces => ("v1", "Namespace"),
            Watched::Nodes => ("v1", "Node"),
            Watched::Pods => ("v1", "Pod"),
            Watched::ServiceCidrs => ("networking.k8s.io/v1", "ServiceCIDR"),
            Watched::Pools => ("egret.dev/v1alpha1", "EgressPool"),
            Watched::Policies => ("egret.dev/v1alpha1", "EgressGatewayPolicy"),
            Watched::Endpoints => ("egret.dev/v1alpha1", "EgressEndpoint"),
            Watched::NodeRecords => ("egret.dev/v1alpha1", "EgressNode"),
            Watched::Blocks => ("egret.dev/v1alpha1", "EgressBlock"),
            Watched::StatefulSets => ("apps/v1", "StatefulSet"),
            Watched::Beats => ("coordination.k8s.io/v1", "Lease"),
            Watched::CalicoPools => ("projectcalico.org/v3", "IPPool"),
            Watched::StoredCalicoPools => ("crd.projectcalico.org/v1", "IPPool"),
            Watched::CalicoPolicies => ("projectcalico.org/v3", "EgressGatewayPolicy"),
            Watched::StoredCalicoPolicies => ("crd.projectcalico.org/v1", "EgressGatewayPolicy"),
            Watched::CiliumPolicies => ("cilium.io/v2", "CiliumEgressGatewayPolicy"),
            Watched::CalicoAgents | Watched::CiliumAgents => ("apps/v1", "DaemonSet"),
        }
    }

    /// Its list, with what narrows it.
    pub fn path(self, reach: &Reach) -> String {
        match self {
            Watched::Namespaces => "/api/v1/namespaces?".to_owned(),
            Watched::Nodes => "/api/v1/nodes?".to_owned(),
            Watched::Pods => match reach {
                Reach::Node(node) => format!("/api/v1/pods?fieldSelector=spec.nodeName%3D{node}&"),
                Reach::Cluster => "/api/v1/pods?".to_owned(),
            },
            Watched::ServiceCidrs => "/apis/networking.k8s.io/v1/servicecidrs?".to_owned(),
            Watched::Pools => "/apis/egret.dev/v1alpha1/egresspools?".to_owned(),
            Watched::Policies => "/apis/egret.dev/v1alpha1/egressgatewaypolicies?".to_owned(),
            Watched::Endpoints => "/apis/egret.dev/v1alpha1/egressendpoints?".to_owned(),
            Watched::NodeRecords => "/apis/egret.dev/v1alpha1/egressnodes?".to_owned(),
            Watched::Blocks => "/apis/egret.dev/v1alpha1/egressblocks?".to_owned(),
            Watched::StatefulSets => "/apis/apps/v1/statefulsets?".to_owned(),
            Watched::Beats => format!("{}?", super::lease::LEASES),
            Watched::CalicoPools => "/apis/projectcalico.org/v3/ippools?".to_owned(),
            Watched::StoredCalicoPools => "/apis/crd.projectcalico.org/v1/ippools?".to_owned(),
            Watched::CalicoPolicies => "/apis/projectcalico.org/v3/egressgatewaypolicies?".to_owned(),
            Watched::StoredCalicoPolicies => {
                "/apis/crd.projectcalico.org/v1/egressgatewaypolicies?".to_owned()
            }
            Watched::CiliumPolicies => "/apis/cilium.io/v2/ciliumegressgatewaypolicies?".to_owned(),
            Watched::CalicoAgents => daemon_sets("calico-node"),
            Watched::CiliumAgents => daemon_sets("cilium"),
        }
    }
}

fn daemon_sets(name: &str) -> String {
    format!("/apis/apps/v1/daemonsets?fieldSelector=metadata.name%3D{name}&")
}

/// What is known of one kind.
#[derive(Debug, Default)]
struct Kept {
    synced: bool,
    lost: Option<String>,
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
}

impl Mirror {
    /// Nothing yet.
    pub fn of(reach: Reach) -> Mirror {
        Mirror { reach, kinds: BTreeMap::new() }
    }

    /// A whole list, of the version that was [`reached`](Mirror::reached): what is not in it is gone. Says whether anything changed.
    pub fn listed(&mut self, kind: Watched, items: &[Value]) -> bool {
        let mut objects: BTreeMap<String, Value> =
            items.iter().map(|item| (name(item), pruned(&self.reach, kind, item))).collect();
        let kept = self.kinds.entry(kind).or_default();
        kept.told = items.iter().filter_map(|item| Some((name(item), told(item)?))).collect();
        // What is ahead of the list is not taken back by it.
        let reached = kept.reached;
        kept.ahead.retain(|_, seen| *seen > reached);
        for name in kept.ahead.keys() {
            objects.extend(kept.objects.remove_entry(name));
        }
        let changed = !kept.synced || kept.lost.is_some() || kept.objects != objects;
        kept.generation += u64::from(changed);
        (kept.synced, kept.lost, kept.objects) = (true, None, objects);
        changed
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
        kept.put(name, object, now)
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
        kept.put(name(object), object, now)
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
        changed
    }

    /// The kind cannot be seen any more: forbidden, or unknown to the server. What is known of it stays.
    pub fn cannot_see(&mut self, kind: Watched, why: &str) -> bool {
        let kept = self.kinds.entry(kind).or_default();
        let changed = kept.lost.as_deref() != Some(why);
        kept.lost = Some(why.to_owned());
        changed
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
        self.kinds.iter().filter_map(|(kind, kept)| Some((*kind, kept.lost.clone()?))).collect()
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

impl Watched {
    /// Whether decisions are made of it; the others are records of ours, or concern us only if they are adopted.
    pub fn is_read(self) -> bool {
        use Watched::{Beats, Blocks, Endpoints, NodeRecords, StatefulSets};
        !matches!(self, Endpoints | NodeRecords | Blocks | StatefulSets | Beats) && !self.is_foreign()
    }

    /// Whether it is of another project: a cluster without it is as good.
    pub fn is_foreign(self) -> bool {
        self >= Watched::CalicoPools
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
        Watched::Beats => &["name", "resourceVersion"],
        Watched::NodeRecords if all => &["name", "generation"],
        Watched::Endpoints | Watched::NodeRecords | Watched::ServiceCidrs | Watched::Blocks => &["name"],
        Watched::StatefulSets => &["name", "namespace"],
        Watched::Pools | Watched::Policies if all => {
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
        Watched::Pools | Watched::Policies | Watched::NodeRecords if all => {
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
mod tests {
    use serde_json::json;

    use super::*;

    fn pool(cidr: &str) -> Value {
        json!({"metadata": {"name": "p", "resourceVersion": "1"}, "spec": {"cidr": cidr}})
    }

    #[test]
    fn a_list_that_changes_nothing_is_no_change_and_an_event_about_nothing_that_matters_is_none() {
        let mut mirror = Mirror::default();
        assert!(mirror.listed(Watched::Pools, &[pool("10.0.0.0/28")]));
        assert!(!mirror.listed(Watched::Pools, &[pool("10.0.0.0/28")]));
        let mut touched = pool("10.0.0.0/28");
        touched["metadata"]["resourceVersion"] = "2".into();
        touched["status"] = json!({"leased": 3});
        assert!(!mirror.is(Watched::Pools, &touched));
        assert!(mirror.is(Watched::Pools, &pool("10.0.0.0/29")));
        assert!(mirror.gone(Watched::Pools, &pool("10.0.0.0/29")));
        assert!(!mirror.gone(Watched::Pools, &pool("10.0.0.0/29")));
    }

    #[test]
    fn an_object_that_was_asked_for_is_ahead_of_the_watch_until_that_comes_by() {
        let namespace = |version: &str, value: &str| json!({"metadata": {"name": "shop", "resourceVersion": version, "labels": {"a": value}}});
        let mut mirror = Mirror::default();
        let kind = Watched::Namespaces;
        mirror.listed(kind, &[namespace("5", "one")]);
        mirror.reached(kind, "10");
        assert!(!mirror.learn(kind, &namespace("9", "old")), "the watch has passed it");
        assert!(mirror.learn(kind, &namespace("12", "three")));
        assert!(!mirror.is(kind, &namespace("11", "two")), "and never goes back");
        assert!(!mirror.gone(kind, &namespace("11", "two")));
        assert_eq!(mirror.object(kind, "shop").unwrap()["metadata"]["labels"]["a"], "three");
        assert!(mirror.is(kind, &namespace("13", "four")));
        assert!(mirror.gone(kind, &namespace("14", "four")));
    }

    #[test]
    fn what_people_are_told_of_a_pod_is_kept_beside_it_and_is_no_change() {
        let pod = |annotations: Value| json!({"metadata": {"namespace": "shop", "name": "cart", "annotations": annotations}});
        let mut mirror = Mirror::default();
        mirror.listed(Watched::Pods, &[pod(json!({}))]);
        let said = pod(json!({"egret.dev/egress-addresses": "10.10.10.0"}));
        assert!(
            !mirror.is(Watched::Pods, &said) && !mirror.listed(Watched::Pods, std::slice::from_ref(&said))
        );
        assert_eq!(mirror.told("shop/cart"), Some("10.10.10.0"));
        let (_, reading) = &mirror.readings()[0];
        assert_eq!(reading.problems, []);
        assert!(!mirror.is(Watched::Pods, &pod(json!({}))));
        assert_eq!(mirror.told("shop/cart"), None);
    }

    #[test]
    fn a_kind_that_cannot_be_seen_keeps_what_was_known_until_it_is_listed_again() {
        let mut mirror = Mirror::default();
        for kind in Watched::ALL {
            assert!(!mirror.is_synced());
            mirror.listed(kind, &[]);
        }
        assert!(mirror.is_synced());
        mirror.listed(Watched::Pools, &[pool("10.0.0.0/28")]);
        assert!(mirror.cannot_see(Watched::Pools, "403"));
        assert!(!mirror.cannot_see(Watched::Pools, "403"));
        assert_eq!((mirror.readings().len(), mirror.is_synced()), (1, true));
        assert_eq!(mirror.lost(), [(Watched::Pools, "403".to_owned())]);
        assert!(mirror.listed(Watched::Pools, &[]));
        assert_eq!((mirror.readings().len(), mirror.lost().len()), (0, 0));
    }
}
