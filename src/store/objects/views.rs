//! Objects in the resolver's words.
//!
//! In: the objects, which pods are asked about. Out: a [`View`] with what a decision about them needs. Never: decodes what nobody asks
//! about.

use super::Objects;
use crate::config::Config;
use crate::egress::model::{Endpoint, PodName, View};

impl Objects {
    /// Everything, for planning.
    pub fn view(&self, config: &Config, endpoints: Vec<Endpoint>) -> View {
        let mut view = self.outline(config);
        view.namespaces = self.namespaces().collect();
        view.pods = self.pods().collect();
        view.endpoints = endpoints;
        view
    }

    /// What a decision about these pods needs: they, the endpoints' pods, the namespaces of both, all pools, nodes and
    /// policies.
    pub fn view_for(&self, config: &Config, pods: &[PodName], endpoints: Vec<Endpoint>) -> View {
        self.with_pods(self.outline(config), pods, endpoints)
    }

    /// The same, from what does not depend on pods.
    pub fn with_pods(&self, mut view: View, pods: &[PodName], endpoints: Vec<Endpoint>) -> View {
        for name in pods.iter().chain(endpoints.iter().map(|e| &e.pod)) {
            if let Some(pod) = self.pod(name) {
                view.pods.insert(name.clone(), pod);
            }
            if !view.namespaces.contains_key(&name.namespace)
                && let Some(namespace) = self.namespace(&name.namespace)
            {
                view.namespaces.insert(name.namespace.clone(), namespace);
            }
        }
        view.endpoints = endpoints;
        view
    }

    /// What it takes to say what one pod of a node is: of the nodes its own alone, unless a policy asks for node gateways. A cluster has
    /// hundreds, and a pod without egress needs none of them.
    pub fn view_of_one(&self, config: &Config, pods: &[PodName], node: &str) -> View {
        let mut view = self.outline_without_nodes(config);
        if view.asks_for_nodes() {
            view.nodes = self.nodes().collect();
        } else {
            view.nodes.extend(self.node(node).map(|own| (node.to_owned(), own)));
        }
        self.with_pods(view, pods, Vec::new())
    }

    /// What every decision needs, whatever pod it is about: all pools, nodes and policies.
    pub fn outline(&self, config: &Config) -> View {
        View { nodes: self.nodes().collect(), ..self.outline_without_nodes(config) }
    }

    fn outline_without_nodes(&self, config: &Config) -> View {
        View {
            support: config.egress_ip_support,
            cluster_cidrs: config.cluster_cidrs.iter().copied().chain(self.ranges()).collect(),
            pools: self.pools().collect(),
            policies: self.policies().collect(),
            cilium_policies: self.cilium_policies().collect(),
            service_cidrs: self.service_cidrs(),
            api_servers: self.api_servers(),
            broken: self.broken(),
            ..View::default()
        }
    }
}
