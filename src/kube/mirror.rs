//! What a cluster's objects are, as far as they were heard of. Pure.
//!
//! In: lists and events, one kind at a time. Out: whether anything changed, readings for [`crate::store::objects::Objects::of`], and
//! endpoints. A kind that we may no longer see, or that the server no longer knows, keeps what was last heard: nothing is
//! removed because of it, and [`Mirror::lost`] says why.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::api::{self, Reading};
use crate::egress::model::Endpoint;

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
}

impl Watched {
    /// All of them.
    pub const ALL: [Watched; 7] = [
        Watched::Namespaces,
        Watched::Nodes,
        Watched::Pods,
        Watched::ServiceCidrs,
        Watched::Pools,
        Watched::Policies,
        Watched::Endpoints,
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
        }
    }

    /// Its list, with what narrows it for a node.
    pub fn path(self, node: &str) -> String {
        match self {
            Watched::Namespaces => "/api/v1/namespaces?".to_owned(),
            Watched::Nodes => "/api/v1/nodes?".to_owned(),
            Watched::Pods => format!("/api/v1/pods?fieldSelector=spec.nodeName%3D{node}&"),
            Watched::ServiceCidrs => "/apis/networking.k8s.io/v1/servicecidrs?".to_owned(),
            Watched::Pools => "/apis/egret.dev/v1alpha1/egresspools?".to_owned(),
            Watched::Policies => "/apis/egret.dev/v1alpha1/egressgatewaypolicies?".to_owned(),
            Watched::Endpoints => "/apis/egret.dev/v1alpha1/egressendpoints?".to_owned(),
        }
    }
}

/// What is known of one kind.
#[derive(Debug, Default)]
struct Kept {
    synced: bool,
    lost: Option<String>,
    objects: BTreeMap<String, Held>,
}

/// One object.
#[derive(Debug, Clone, PartialEq)]
enum Held {
    Read(Reading),
    Endpoint(Box<Endpoint>),
    /// An endpoint that cannot be read: clients do as if it had gone.
    Unread,
}

/// The objects of a cluster, as far as one node needs them.
#[derive(Debug, Default)]
pub struct Mirror {
    kinds: BTreeMap<Watched, Kept>,
}

impl Mirror {
    /// A whole list: what is not in it is gone. Says whether anything changed.
    pub fn listed(&mut self, kind: Watched, items: &[Value]) -> bool {
        let objects = items.iter().map(|item| (name(item), held(kind, item))).collect();
        let kept = self.kinds.entry(kind).or_default();
        let changed = !kept.synced || kept.lost.is_some() || kept.objects != objects;
        *kept = Kept { synced: true, lost: None, objects };
        changed
    }

    /// One object is there, or has changed. Says whether in anything that matters here.
    pub fn is(&mut self, kind: Watched, object: &Value) -> bool {
        let now = held(kind, object);
        let kept = self.kinds.entry(kind).or_default();
        let before = kept.objects.insert(name(object), now.clone());
        before.as_ref() != Some(&now)
    }

    /// One object is gone.
    pub fn gone(&mut self, kind: Watched, object: &Value) -> bool {
        self.kinds.entry(kind).or_default().objects.remove(&name(object)).is_some()
    }

    /// The kind cannot be seen any more: forbidden, or unknown to the server. What is known of it stays.
    pub fn cannot_see(&mut self, kind: Watched, why: &str) -> bool {
        let kept = self.kinds.entry(kind).or_default();
        let changed = kept.lost.as_deref() != Some(why);
        kept.lost = Some(why.to_owned());
        changed
    }

    /// Every kind was listed once. Until then nothing may be removed.
    pub fn is_synced(&self) -> bool {
        Watched::ALL.iter().all(|kind| self.kinds.get(kind).is_some_and(|kept| kept.synced))
    }

    /// Kinds that cannot be seen just now, with the reason.
    pub fn lost(&self) -> Vec<(Watched, String)> {
        self.kinds.iter().filter_map(|(kind, kept)| Some((*kind, kept.lost.clone()?))).collect()
    }

    /// What the objects say, under names such as `EgressPool shop` in place of files.
    pub fn readings(&self) -> Vec<(String, Reading)> {
        let mut all = Vec::new();
        for (kind, kept) in &self.kinds {
            for (name, held) in &kept.objects {
                if let Held::Read(reading) = held {
                    all.push((format!("{} {name}", kind.typed().1), reading.clone()));
                }
            }
        }
        all
    }

    /// Where gateways are, by attachment.
    pub fn endpoints(&self) -> Vec<Endpoint> {
        let kept = self.kinds.get(&Watched::Endpoints);
        let objects = kept.into_iter().flat_map(|kept| kept.objects.values());
        let mut endpoints: Vec<Endpoint> = objects
            .filter_map(|held| match held {
                Held::Endpoint(endpoint) => Some((**endpoint).clone()),
                _ => None,
            })
            .collect();
        endpoints.sort_by(|a, b| a.attachment.cmp(&b.attachment));
        endpoints
    }
}

fn name(object: &Value) -> String {
    let word = |key: &str| object["metadata"][key].as_str();
    match (word("namespace"), word("name").unwrap_or_default()) {
        (Some(namespace), name) => format!("{namespace}/{name}"),
        (None, name) => name.to_owned(),
    }
}

fn held(kind: Watched, object: &Value) -> Held {
    if kind == Watched::Endpoints {
        let endpoint = serde_json::from_value(object["spec"].clone());
        return endpoint.map_or(Held::Unread, |endpoint| Held::Endpoint(Box::new(endpoint)));
    }
    let (version, word) = kind.typed();
    Held::Read(api::read_member(&format!("{word} {}", name(object)), version, word, object))
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
