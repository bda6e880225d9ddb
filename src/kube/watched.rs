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
    pub fn kinds(&self) -> &'static [Watched] {
        match self {
            Reach::Node(_) => &Watched::ALL,
            Reach::Cluster => &Watched::CLUSTER,
            Reach::Books => &[Watched::Blocks],
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
    pub const ALL: [Watched; 16] = [
        Watched::Namespaces,
        Watched::Nodes,
        Watched::Pods,
        Watched::ServiceCidrs,
        Watched::Pools,
        Watched::Policies,
        Watched::Endpoints,
        Watched::NodeRecords,
        Watched::Ranges,
        Watched::CalicoPools,
        Watched::StoredCalicoPools,
        Watched::CalicoPolicies,
        Watched::StoredCalicoPolicies,
        Watched::CiliumPolicies,
        Watched::CalicoAgents,
        Watched::CiliumAgents,
    ];

    /// All that the controller needs.
    pub const CLUSTER: [Watched; 19] = [
        Watched::Namespaces,
        Watched::Nodes,
        Watched::Pods,
        Watched::ServiceCidrs,
        Watched::Pools,
        Watched::Policies,
        Watched::Endpoints,
        Watched::NodeRecords,
        Watched::Ranges,
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
            Watched::Ranges => ("egret.dev/v1alpha1", "EgressRange"),
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
                Reach::Cluster | Reach::Books => "/api/v1/pods?".to_owned(),
            },
            Watched::ServiceCidrs => "/apis/networking.k8s.io/v1/servicecidrs?".to_owned(),
            Watched::Pools => "/apis/egret.dev/v1alpha1/egresspools?".to_owned(),
            Watched::Policies => "/apis/egret.dev/v1alpha1/egressgatewaypolicies?".to_owned(),
            Watched::Endpoints => "/apis/egret.dev/v1alpha1/egressendpoints?".to_owned(),
            Watched::NodeRecords => "/apis/egret.dev/v1alpha1/egressnodes?".to_owned(),
            Watched::Ranges => "/apis/egret.dev/v1alpha1/egressranges?".to_owned(),
            Watched::Blocks => "/apis/egret.dev/v1alpha1/egressblocks?".to_owned(),
            Watched::StatefulSets => "/apis/apps/v1/statefulsets?".to_owned(),
            Watched::Beats => format!("{}?", crate::kube::lease::LEASES),
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

    /// What its definition is called, if it is one of ours: a person can delete it.
    pub fn definition(self) -> Option<String> {
        let path = self.path(&Reach::Cluster);
        let plural = path.strip_prefix("/apis/egret.dev/v1alpha1/")?.trim_end_matches('?');
        Some(format!("{plural}.egret.dev"))
    }

    /// Servers before Kubernetes 1.33 do not know it, and there is nothing to wait for.
    pub fn is_optional(self) -> bool {
        self == Watched::ServiceCidrs
    }

    /// Whether clusters may not know it yet: what cannot be seen of it from the first is taken as absent.
    pub(super) fn is_new(self) -> bool {
        self == Watched::Ranges
    }

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

fn daemon_sets(name: &str) -> String {
    format!("/apis/apps/v1/daemonsets?fieldSelector=metadata.name%3D{name}&")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_of_ours_have_a_definition_that_can_be_deleted_and_no_other() {
        assert_eq!(Watched::Pools.definition().as_deref(), Some("egresspools.egret.dev"));
        assert_eq!(Watched::Blocks.definition().as_deref(), Some("egressblocks.egret.dev"));
        for kind in
            [Watched::Pods, Watched::ServiceCidrs, Watched::StoredCalicoPools, Watched::CiliumPolicies]
        {
            assert_eq!(kind.definition(), None, "{kind:?}");
        }
    }
}
