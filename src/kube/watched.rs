//! The kinds that are followed, by whom, and where they are listed. Pure.

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
    /// Ranges that are inside the cluster, said once for all nodes.
    Ranges,
    /// Where the API server is: the slice of endpoints that it keeps of itself.
    ApiServers,
    /// Books of leases; of agents only those look at them that have gateways. The next two are the controller's affair.
    Blocks,
    /// StatefulSets: their pods' leases outlive containers.
    StatefulSets,
    /// Signs of life of agents (and of the controller): Leases in [`crate::kube::HOME`].
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
    /// The books of leases alone.
    Books,
}

impl Reach {
    /// The kinds that are followed.
    pub fn kinds(&self) -> impl Iterator<Item = Watched> + use<> {
        let reach = self.clone();
        Watched::ALL.into_iter().filter(move |kind| match reach {
            Reach::Node(_) => !kind.is_of_the_controller_alone(),
            Reach::Cluster => true,
            Reach::Books => *kind == Watched::Blocks,
        })
    }
}

impl Default for Reach {
    fn default() -> Reach {
        Reach::Node(String::new())
    }
}

impl Watched {
    /// Every kind.
    const ALL: [Watched; 20] = [
        Watched::Namespaces,
        Watched::Nodes,
        Watched::Pods,
        Watched::ServiceCidrs,
        Watched::Pools,
        Watched::Policies,
        Watched::Endpoints,
        Watched::NodeRecords,
        Watched::Ranges,
        Watched::ApiServers,
        Watched::Blocks,
        Watched::StatefulSets,
        Watched::Beats,
        Watched::CalicoPools,
        Watched::StoredCalicoPools,
        Watched::CalicoPolicies,
        Watched::StoredCalicoPolicies,
        Watched::CiliumPolicies,
        Watched::CalicoAgents,
        Watched::CiliumAgents,
    ];

    /// Those that select pods, ours first.
    pub const POLICIES: [Watched; 4] =
        [Watched::Policies, Watched::CalicoPolicies, Watched::StoredCalicoPolicies, Watched::CiliumPolicies];

    /// Those that an agent follows, whichever its node is.
    pub fn of_a_node() -> impl Iterator<Item = Watched> {
        Reach::default().kinds()
    }

    /// `apiVersion`, `kind`, and what the server calls its list.
    fn words(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Watched::Namespaces => ("v1", "Namespace", "namespaces"),
            Watched::Nodes => ("v1", "Node", "nodes"),
            Watched::Pods => ("v1", "Pod", "pods"),
            Watched::ServiceCidrs => ("networking.k8s.io/v1", "ServiceCIDR", "servicecidrs"),
            Watched::Pools => ("egret.dev/v1alpha1", "EgressPool", "egresspools"),
            Watched::Policies => ("egret.dev/v1alpha1", "EgressGatewayPolicy", "egressgatewaypolicies"),
            Watched::Endpoints => ("egret.dev/v1alpha1", "EgressEndpoint", "egressendpoints"),
            Watched::NodeRecords => ("egret.dev/v1alpha1", "EgressNode", "egressnodes"),
            Watched::Ranges => ("egret.dev/v1alpha1", "EgressRange", "egressranges"),
            Watched::ApiServers => ("discovery.k8s.io/v1", "EndpointSlice", "endpointslices"),
            Watched::Blocks => ("egret.dev/v1alpha1", "EgressBlock", "egressblocks"),
            Watched::StatefulSets => ("apps/v1", "StatefulSet", "statefulsets"),
            Watched::Beats => ("coordination.k8s.io/v1", "Lease", "leases"),
            Watched::CalicoPools => ("projectcalico.org/v3", "IPPool", "ippools"),
            Watched::StoredCalicoPools => ("crd.projectcalico.org/v1", "IPPool", "ippools"),
            Watched::CalicoPolicies => {
                ("projectcalico.org/v3", "EgressGatewayPolicy", "egressgatewaypolicies")
            }
            Watched::StoredCalicoPolicies => {
                ("crd.projectcalico.org/v1", "EgressGatewayPolicy", "egressgatewaypolicies")
            }
            Watched::CiliumPolicies => {
                ("cilium.io/v2", "CiliumEgressGatewayPolicy", "ciliumegressgatewaypolicies")
            }
            Watched::CalicoAgents | Watched::CiliumAgents => ("apps/v1", "DaemonSet", "daemonsets"),
        }
    }

    /// `apiVersion` and `kind`: the members of a list have neither.
    pub fn typed(self) -> (&'static str, &'static str) {
        let (version, kind, _) = self.words();
        (version, kind)
    }

    /// Where its objects are: of all namespaces, but for Leases and what the API server says of itself.
    pub fn collection(self) -> String {
        match self.words() {
            _ if self == Watched::Beats => crate::kube::lease::LEASES.to_owned(),
            (version, _, plural) if self == Watched::ApiServers => {
                format!("/apis/{version}/namespaces/default/{plural}")
            }
            (version, _, plural) if version.contains('/') => format!("/apis/{version}/{plural}"),
            (version, _, plural) => format!("/api/{version}/{plural}"),
        }
    }

    /// Its list, with what narrows it.
    pub fn path(self, reach: &Reach) -> String {
        let narrowed = match (self, reach) {
            (Watched::Pods, Reach::Node(node)) => format!("fieldSelector=spec.nodeName%3D{node}&"),
            (Watched::ApiServers, _) => "fieldSelector=metadata.name%3Dkubernetes&".to_owned(),
            (Watched::CalicoAgents, _) => "fieldSelector=metadata.name%3Dcalico-node&".to_owned(),
            (Watched::CiliumAgents, _) => "fieldSelector=metadata.name%3Dcilium&".to_owned(),
            _ => String::new(),
        };
        format!("{}?{narrowed}", self.collection())
    }

    /// What its definition is called, if it has one: a person can delete it. A foreign kind may be served without.
    pub fn definition(self) -> Option<String> {
        let (version, _, plural) = self.words();
        let (group, _) = version.split_once('/')?;
        let is_object = self.is_foreign() && !matches!(self, Watched::CalicoAgents | Watched::CiliumAgents);
        (group == "egret.dev" || is_object).then(|| format!("{plural}.{group}"))
    }

    /// There is nothing to wait for where the server does not know it: one before Kubernetes 1.33, or a part of one.
    pub fn is_optional(self) -> bool {
        matches!(self, Watched::ServiceCidrs | Watched::ApiServers)
    }

    /// Whether clusters and roles may not know it yet: what cannot be seen of it from the first is taken as absent.
    pub(super) fn is_new(self) -> bool {
        matches!(self, Watched::Ranges | Watched::ApiServers)
    }

    /// Whether decisions are made of it; the others are records of ours, or concern us only if they are adopted.
    pub fn is_read(self) -> bool {
        let is_record = matches!(self, Watched::Endpoints | Watched::NodeRecords);
        !is_record && !self.is_of_the_controller_alone() && !self.is_foreign()
    }

    fn is_of_the_controller_alone(self) -> bool {
        matches!(self, Watched::Blocks | Watched::StatefulSets | Watched::Beats)
    }

    /// Whether it is of another project: a cluster without it is as good.
    pub fn is_foreign(self) -> bool {
        self >= Watched::CalicoPools
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_followed_by_a_controller_and_all_but_its_own_by_an_agent() {
        let numbers: Vec<usize> = Watched::ALL.iter().map(|kind| *kind as usize).collect();
        assert_eq!(numbers, (0..=Watched::CiliumAgents as usize).collect::<Vec<_>>());
        assert!(Reach::Cluster.kinds().eq(Watched::ALL));
        let alone = Watched::ALL.into_iter().filter(|kind| Watched::of_a_node().all(|of| of != *kind));
        assert!(alone.eq([Watched::Blocks, Watched::StatefulSets, Watched::Beats]));
    }

    #[test]
    fn a_list_is_narrowed_to_what_is_needed() {
        let node = Reach::Node("n1".to_owned());
        for (kind, path) in [
            (Watched::Namespaces, "/api/v1/namespaces?"),
            (Watched::Pods, "/api/v1/pods?fieldSelector=spec.nodeName%3Dn1&"),
            (Watched::Pools, "/apis/egret.dev/v1alpha1/egresspools?"),
            (Watched::Beats, "/apis/coordination.k8s.io/v1/namespaces/egret-system/leases?"),
            (Watched::CalicoAgents, "/apis/apps/v1/daemonsets?fieldSelector=metadata.name%3Dcalico-node&"),
            (
                Watched::ApiServers,
                "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices?fieldSelector=metadata.name%3Dkubernetes&",
            ),
        ] {
            assert_eq!(kind.path(&node), path);
        }
        assert_eq!(Watched::Pods.path(&Reach::Cluster), "/api/v1/pods?");
    }

    #[test]
    fn kinds_that_kubernetes_has_not_by_itself_have_a_definition_that_can_be_deleted() {
        for (kind, name) in [
            (Watched::Pools, "egresspools.egret.dev"),
            (Watched::Blocks, "egressblocks.egret.dev"),
            (Watched::StoredCalicoPools, "ippools.crd.projectcalico.org"),
            (Watched::CiliumPolicies, "ciliumegressgatewaypolicies.cilium.io"),
        ] {
            assert_eq!(kind.definition().as_deref(), Some(name));
        }
        for kind in [Watched::Pods, Watched::ServiceCidrs, Watched::StatefulSets, Watched::CiliumAgents] {
            assert_eq!(kind.definition(), None, "{kind:?}");
        }
    }
}
