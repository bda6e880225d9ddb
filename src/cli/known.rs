//! What commands that only ask know of the cluster: a state directory, a folder of manifests that was never one, or the cluster itself.
//!
//! In: `--state`, `--kubeconfig` and `--node`. Out: a view, with the objects and what is wrong with them. Never: writes, or asks the kernel.
//!
//! A state directory says which gateways run and which addresses they leased. A folder of manifests cannot: there every pod that asks
//! to be a gateway, and may, counts as one that runs, and its address is said only where the manifests leave no choice.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::cluster::Cluster;
use super::manifests;
use super::{Common, Refused};
use crate::addr::{Cidr, Family};
use crate::config::Config;
use crate::egress::explain::GatewayRow;
use crate::egress::gateway;
use crate::egress::lint::assumed_gateways;
use crate::egress::model::{PodName, View};
use crate::node::embedded::Embedded;
use crate::problem::Problem;
use crate::spelling;
use crate::store::objects::Objects;
use crate::store::{Dir, interfaces};

/// Everything that is known.
pub struct Known {
    /// The cluster.
    pub view: View,
    /// The objects, which know their files.
    pub objects: Objects,
    /// What is wrong with objects and records.
    pub problems: Vec<Problem>,
    /// The namespace that a name without one means.
    pub namespace: String,
    /// Pods that have ended, as far as a cluster says so.
    pub ended: BTreeSet<PodName>,
    /// Gateways that are taken as running, and the pool of each address that is not leased yet.
    pub assumed: BTreeMap<PodName, BTreeMap<Family, Cidr>>,
    /// Whether a pod that has no object is none: so it is in a cluster.
    pub all_pods: bool,
}

/// Folders of a state directory that hold no manifests.
pub(super) const RECORDS: [&str; 5] = ["cache", "endpoints", "interfaces", "ipam", "nodes"];

impl Known {
    /// Reads what the flags mean.
    ///
    /// # Errors
    /// There is nothing to read, or no such node.
    pub fn look(common: &Common) -> Result<Known, Refused> {
        let mut known = match (common.cluster()?, &common.state) {
            (Some(cluster), _) => Known::of_cluster(cluster),
            (None, Some(folder)) if !folder.join("objects").exists() => Known::manifests(common, folder)?,
            _ => {
                let node = Embedded::look(&common.of_present_node()?).map_err(|e| e.to_string())?;
                let (view, objects, problems) = node.whole_view().map_err(|e| e.to_string())?;
                Known {
                    view,
                    objects,
                    problems,
                    namespace: "default".to_owned(),
                    ended: BTreeSet::new(),
                    assumed: BTreeMap::new(),
                    all_pods: false,
                }
            }
        };
        if let Some(namespace) = &common.cluster.namespace {
            known.namespace.clone_from(namespace);
        }
        match &common.node {
            Some(node) => known.must_have(node).map(|()| known),
            None => Ok(known),
        }
    }

    /// The objects of a cluster, which says itself which gateways run.
    fn of_cluster(cluster: Cluster) -> Known {
        Known {
            view: cluster.view(),
            namespace: cluster.client.access().namespace.clone(),
            ended: cluster.ended(),
            objects: cluster.objects,
            problems: cluster.problems,
            assumed: BTreeMap::new(),
            all_pods: true,
        }
    }

    fn manifests(common: &Common, folder: &Path) -> Result<Known, Refused> {
        let unusable = |e: std::io::Error| {
            let next = "name a state directory or a folder of manifests with --state";
            Refused::misused(format!("cannot read {}: {e}; {next}", folder.display()))
        };
        std::fs::read_dir(folder).map_err(unusable)?;
        let texts = manifests::folder(folder, &RECORDS)?;
        if texts.is_empty() {
            return Err(Refused::misused(format!(
                "there is neither a manifest (.yaml, .yml, .json) nor a folder `objects` in {}",
                folder.display()
            )));
        }
        // Not what a plugin was last called with on this machine: the answer must be the same on every machine.
        let config = match &common.config {
            Some(file) => Config::from_file(file).map_err(|e| Refused::misused(e.to_string()))?,
            None => Config::default(),
        };
        let objects =
            Objects::of(manifests::read(&texts).readings).map_err(|e| Refused::failed(e.to_string()))?;
        let mut view = objects.view(&config, Vec::new());
        let said = interfaces::list(&Dir::by_path(folder)).map_err(|e| Refused::failed(e.to_string()))?;
        view.interfaces = said.interfaces;
        view.endpoints = assumed_gateways(&view);
        let mut problems: Vec<Problem> = said.torn.into_values().collect();
        problems.extend(objects.problems());
        let assumed =
            view.endpoints.iter().map(|endpoint| (endpoint.pod.clone(), unleased(&view, &endpoint.pod)));
        let assumed = assumed.collect();
        let (namespace, ended) = ("default".to_owned(), BTreeSet::new());
        Ok(Known { view, objects, problems, namespace, ended, assumed, all_pods: false })
    }

    /// A single machine may have no Node objects at all.
    fn must_have(&self, node: &str) -> Result<(), Refused> {
        let runs_pods = self.view.pods.values().any(|pod| pod.node.as_deref() == Some(node));
        if runs_pods || self.view.nodes.is_empty() || self.view.nodes.contains_key(node) {
            return Ok(());
        }
        let names: Vec<&str> = self.view.nodes.keys().map(String::as_str).collect();
        let hint = match spelling::nearest(node, &names) {
            Some(near) => format!("; did you mean `{near}`?"),
            None => format!("; there are {}", names.join(", ")),
        };
        Err(Refused::misused(format!("there is no Node `{node}`, and no pod runs there{hint}")))
    }

    /// Takes back what was assumed of a gateway so that it counts: the address that it has not leased, the node that nobody knows.
    pub fn forget_assumed(&self, row: &mut GatewayRow, family: Family) {
        if !row.pod.as_ref().is_some_and(|pod| self.assumed.contains_key(pod)) {
            return;
        }
        if self.pool(row, family).is_some() {
            row.egress_address = None;
        }
        if self.view.nodes.get(&row.node).is_none_or(|node| node.internal_ips.is_empty()) {
            row.node_address = None;
        }
    }

    /// The pool that a gateway would lease its address from, where it has none yet.
    pub fn pool(&self, row: &GatewayRow, family: Family) -> Option<Cidr> {
        self.assumed.get(row.pod.as_ref()?)?.get(&family).copied()
    }

    /// A sentence about gateways that are taken as running, if any of them matters.
    pub fn note(&self, concerned: impl Fn(&PodName) -> bool) -> Option<String> {
        const SHOWN: usize = 5;
        let named = |(pod, pools): (&PodName, &BTreeMap<Family, Cidr>)| {
            let pools: Vec<String> = pools.values().map(ToString::to_string).collect();
            if pools.is_empty() {
                pod.to_string()
            } else {
                format!("{pod} with an address of {}", pools.join(" and "))
            }
        };
        let mut names: Vec<String> =
            self.assumed.iter().filter(|(pod, _)| concerned(pod)).map(named).collect();
        let left = names.len().saturating_sub(SHOWN);
        names.truncate(SHOWN);
        if left > 0 {
            names.push(format!("{left} more"));
        }
        let sentence = format!(
            "these are manifests alone, so pods that ask to be gateways are taken as running: {}",
            names.join(", ")
        );
        (!names.is_empty()).then_some(sentence)
    }
}

/// The pools of a gateway's addresses, where its manifest does not say the address, nor the pool by having one alone.
fn unleased(view: &View, pod: &PodName) -> BTreeMap<Family, Cidr> {
    let node = view.pods.get(pod).and_then(|object| object.node.clone()).unwrap_or_default();
    let Ok(Some(wish)) = gateway::wanted(view, pod, &node) else { return BTreeMap::new() };
    let open = |(family, names): (&Family, &Vec<String>)| {
        let pool = view.pools.get(names.first()?)?;
        let certain = wish.addresses.contains_key(family)
            || pool.nat_outgoing
            || (pool.cidr.size() == 1 && names.len() == 1);
        (!certain).then_some((*family, pool.cidr))
    };
    wish.pools.iter().filter_map(open).collect()
}
