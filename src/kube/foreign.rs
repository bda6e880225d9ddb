//! Calico's and Cilium's objects in a cluster: which of them Egret serves. Pure.
//!
//! In: the mirror, what the configuration adopts. Out: the objects as this node reads them. One that is not served stays, with the reason:
//! a pod that names it is held and told, and not let out as if it had named nothing.
//!
//! Two programs must not act on one object, so a project that is at work itself keeps its own. That is looked at: its DaemonSet,
//! `calico-node` or `cilium`, that is meant for any node at all. Whether its pods are ready says nothing: those of one node are not for
//! as long as it is upgraded, and what the pods got of it stays. But whoever may make a DaemonSet of that name somewhere could have all
//! adopted policies left to nobody: outside `kube-system` one counts by pods in the host's network that are there, which tenants' pods
//! must not be. Where Calico is at work its pools are ranges of
//! the cluster, adopted or not; adopted, a gateway may have its own address there, and none is leased.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::api::{self, IP_POOL_SOURCE, NOT_SERVED, Reading};
use crate::config::Project;
use crate::kube::{Mirror, Watched};

const POOLS: &str = "IPPool";
const CALICO_POLICIES: &str = "CalicoEgressGatewayPolicy";
const CILIUM_POLICIES: &str = "CiliumEgressGatewayPolicy";
/// Where nobody is a tenant.
const OF_THE_SYSTEM: &str = "kube-system/";

/// Whose kind it is, if it is foreign.
pub fn of(kind: Watched) -> Option<Project> {
    match kind {
        Watched::CalicoPools
        | Watched::StoredCalicoPools
        | Watched::CalicoPolicies
        | Watched::StoredCalicoPolicies
        | Watched::CalicoAgents => Some(Project::Calico),
        Watched::CiliumPolicies | Watched::CiliumAgents => Some(Project::Cilium),
        _ => None,
    }
}

/// The file of the copy where a foreign kind's objects are, as they are served; both of Calico's stores share one.
pub fn file(kind: Watched) -> Option<&'static str> {
    match kind {
        Watched::CalicoPools | Watched::StoredCalicoPools => Some(POOLS),
        Watched::CalicoPolicies | Watched::StoredCalicoPolicies => Some(CALICO_POLICIES),
        Watched::CiliumPolicies => Some(CILIUM_POLICIES),
        _ => None,
    }
}

/// Files of the copy with their objects.
pub fn served(mirror: &Mirror, adopted: &BTreeSet<Project>) -> Vec<(&'static str, Vec<Value>)> {
    let calico = Stand::of(mirror, adopted, Project::Calico);
    let cilium = Stand::of(mirror, adopted, Project::Cilium);
    let pools = both(mirror, Watched::CalicoPools, Watched::StoredCalicoPools);
    let policies = both(mirror, Watched::CalicoPolicies, Watched::StoredCalicoPolicies);
    let ciliums = mirror.objects(Watched::CiliumPolicies).map(|(_, object)| object.clone());
    // Cilium's policies select pods by themselves; what Cilium serves concerns nobody here unless somebody asked for it.
    let silent = cilium.at_work.is_some() && !cilium.adopted;
    vec![
        (POOLS, pools.into_iter().map(|pool| calico.pool(pool)).collect()),
        (CALICO_POLICIES, policies.into_iter().map(|policy| calico.policy(policy)).collect()),
        (CILIUM_POLICIES, ciliums.filter(|_| !silent).map(|p| cilium.policy(p)).collect()),
    ]
}

/// Everything that decisions are made of: our own kinds, and of foreign ones what is served.
pub fn readings(mirror: &Mirror, adopted: &BTreeSet<Project>) -> Vec<(String, Reading)> {
    let mut all = mirror.readings();
    for (file, objects) in served(mirror, adopted) {
        let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
        all.push((file.to_owned(), api::read(&format!("{file}.json"), list.to_string().as_bytes())));
    }
    all
}

/// By name; what the API has counts before what lies in the store.
fn both(mirror: &Mirror, api: Watched, store: Watched) -> Vec<Value> {
    let mut all: BTreeMap<&str, &Value> = mirror.objects(store).collect();
    all.extend(mirror.objects(api));
    all.into_values().cloned().collect()
}

/// The DaemonSet by which a project is at work.
pub fn at_work(mirror: &Mirror, project: Project) -> Option<&str> {
    let agents = match project {
        Project::Calico => Watched::CalicoAgents,
        Project::Cilium => Watched::CiliumAgents,
    };
    let is_some = |set: &Value, number: &str| set["status"][number].as_u64().is_some_and(|nodes| nodes > 0);
    let is_trusted = |name: &str, set: &Value| {
        let on_host = set["spec"]["template"]["spec"]["hostNetwork"] == true;
        name.starts_with(OF_THE_SYSTEM) || on_host && is_some(set, "currentNumberScheduled")
    };
    let is_at_work =
        |name: &str, set: &Value| is_some(set, "desiredNumberScheduled") && is_trusted(name, set);
    mirror.objects(agents).find_map(|(name, set)| is_at_work(name, set).then_some(name))
}

/// How a project stands in this cluster.
struct Stand {
    name: &'static str,
    key: &'static str,
    adopted: bool,
    /// `DaemonSet kube-system/cilium`.
    at_work: Option<String>,
}

impl Stand {
    fn of(mirror: &Mirror, adopted: &BTreeSet<Project>, project: Project) -> Stand {
        let (name, key) = match project {
            Project::Calico => ("Calico", "calico"),
            Project::Cilium => ("Cilium", "cilium"),
        };
        let at_work = at_work(mirror, project).map(|set| format!("DaemonSet {set}"));
        Stand { name, key, adopted: adopted.contains(&project), at_work }
    }

    fn policy(&self, object: Value) -> Value {
        match self.refusal(&object) {
            Some(why) => annotated(object, NOT_SERVED, &why),
            None => object,
        }
    }

    fn pool(&self, object: Value) -> Value {
        match (&self.at_work, self.adopted) {
            (None, _) => self.policy(object),
            (Some(_), true) => annotated(object, IP_POOL_SOURCE, "PodAddress"),
            // A range, and nobody is a gateway of it.
            (Some(_), false) => {
                let range = annotated(object, IP_POOL_SOURCE, "PodAddress");
                annotated(range, "egret.dev/gateway-namespaces", "!all()")
            }
        }
    }

    fn refusal(&self, object: &Value) -> Option<String> {
        let kind = object["kind"].as_str().unwrap_or_default();
        let (name, key) = (self.name, self.key);
        match (&self.at_work, self.adopted) {
            (None, true) => None,
            (None, false) => Some(format!(
                "this {kind} is {name}'s and not served here: `adopt` in Egret's configuration does not name {key}. Add it there on every \
                 node, or write Egret's own kind (`egret convert`)"
            )),
            (Some(set), true) => Some(format!(
                "{name} is at work in this cluster, {set}, and two programs must not act on one {kind}: it is left to {name}. Write Egret's own \
                 kind (`egret convert`), or take {name} out of the cluster"
            )),
            (Some(set), false) => Some(format!(
                "this {kind} is left to {name}, which is at work in this cluster, {set}. For Egret, write its own kind (`egret convert`)"
            )),
        }
    }
}

fn annotated(mut object: Value, key: &str, value: &str) -> Value {
    if !object["metadata"]["annotations"].is_object() {
        object["metadata"]["annotations"] = json!({});
    }
    object["metadata"]["annotations"][key] = value.into();
    object
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Object;

    fn policy(name: &str) -> Value {
        json!({"metadata": {"name": name}, "spec": {
            "selectors": [{"podSelector": {}}], "destinationCIDRs": ["0.0.0.0/0"], "egressGateway": {"nodeSelector": {}}}})
    }

    fn pool(name: &str, cidr: &str) -> Value {
        json!({"metadata": {"name": name}, "spec": {"cidr": cidr}})
    }

    /// Meant for so many nodes, and ready on none.
    fn agents(nodes: u32) -> Value {
        json!({"metadata": {"name": "x", "namespace": "kube-system"},
            "status": {"desiredNumberScheduled": nodes, "numberReady": 0}})
    }

    /// What a node reads: the object, or what is said of it.
    fn read(mirror: &Mirror, adopted: &[Project]) -> Vec<String> {
        let mut all = Vec::new();
        for (file, objects) in served(mirror, &adopted.iter().copied().collect()) {
            for object in objects {
                let reading = api::read(&format!("{file}.json"), object.to_string().as_bytes());
                let written = &reading.objects[0];
                all.push(match &written.object {
                    Some(Object::Pool(pool)) => {
                        format!("{} {:?} {:?}", pool.name, pool.source, pool.gateway_namespaces.as_deref())
                    }
                    Some(_) => format!("{} served", written.name),
                    None => format!("{}: {}", written.name, reading.problems[0].message),
                });
            }
        }
        all
    }

    fn mirror(calico: u32, cilium: u32) -> Mirror {
        let mut mirror = Mirror::default();
        mirror.listed(Watched::CalicoAgents, &[agents(calico)]);
        mirror.listed(Watched::CiliumAgents, &[agents(cilium)]);
        mirror.listed(Watched::StoredCalicoPools, &[pool("red", "10.1.0.0/16"), pool("pods", "10.0.0.0/16")]);
        mirror.listed(Watched::CalicoPools, &[pool("red", "10.2.0.0/16")]);
        mirror.listed(Watched::CiliumPolicies, &[policy("out")]);
        mirror
    }

    #[test]
    fn what_is_adopted_and_nobodys_is_served() {
        let all = read(&mirror(0, 0), &[Project::Calico, Project::Cilium]);
        assert_eq!(all, ["pods Pool Some(\"all()\")", "red Pool Some(\"all()\")", "out served"]);
    }

    #[test]
    fn what_nobody_adopted_is_said_and_holds_who_names_it() {
        let all = read(&mirror(0, 0), &[]);
        assert_eq!(all.len(), 3);
        assert!(
            all.iter().all(|said| said.contains("does not name c") && said.contains("egret convert")),
            "{all:?}"
        );
    }

    #[test]
    fn where_calico_is_at_work_its_pools_are_ranges_and_addresses_there_are_the_pods_own() {
        let own = read(&mirror(2, 0), &[Project::Calico, Project::Cilium]);
        assert_eq!(own, ["pods PodAddress Some(\"all()\")", "red PodAddress Some(\"all()\")", "out served"]);
        let ranges = read(&mirror(2, 0), &[Project::Cilium]);
        assert_eq!(ranges[..2], ["pods PodAddress Some(\"!all()\")", "red PodAddress Some(\"!all()\")"]);
    }

    #[test]
    fn a_daemonset_that_is_meant_for_no_node_is_nobody_at_work_and_one_whose_pods_are_not_ready_is() {
        assert_eq!(at_work(&mirror(0, 1), Project::Calico), None);
        assert_eq!(at_work(&mirror(0, 1), Project::Cilium), Some("kube-system/x"));
        assert_eq!(at_work(&Mirror::default(), Project::Cilium), None);
    }

    #[test]
    fn a_daemonset_of_a_tenant_is_nobody_at_work_unless_its_pods_are_in_the_hosts_network() {
        let at_work = |namespace: &str, on_host: bool, current: u32| {
            let set = json!({"metadata": {"name": "calico-node", "namespace": namespace},
                "spec": {"template": {"spec": {"hostNetwork": on_host, "containers": []}}},
                "status": {"desiredNumberScheduled": 3, "currentNumberScheduled": current}});
            let mut mirror = Mirror::default();
            mirror.listed(Watched::CalicoAgents, &[set]);
            at_work(&mirror, Project::Calico).is_some()
        };
        assert!(!at_work("tenant", false, 0));
        assert!(!at_work("tenant", false, 3), "pods like any other");
        assert!(!at_work("tenant", true, 0), "pods that nobody lets in");
        assert!(!at_work("kube-systems", false, 3));
        assert!(at_work("calico-system", true, 3) && at_work("anywhere", true, 1));
        assert!(at_work("kube-system", false, 0));
    }

    #[test]
    fn a_project_at_work_keeps_its_policies_and_who_adopted_them_is_told() {
        let told = read(&mirror(0, 3), &[Project::Calico, Project::Cilium]);
        assert!(
            told[2].contains("Cilium is at work in this cluster, DaemonSet kube-system/x, and"),
            "{told:?}"
        );
        assert_eq!(
            read(&mirror(0, 3), &[Project::Calico]).len(),
            2,
            "what Cilium serves is nobody's affair here"
        );
    }
}
