//! The kinds that a node's agent follows: where they are listed, and which line of a role lets it see them. Pure.

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
}

impl Watched {
    /// All of them.
    pub const ALL: [Watched; 8] = [
        Watched::Namespaces,
        Watched::Nodes,
        Watched::Pods,
        Watched::ServiceCidrs,
        Watched::Pools,
        Watched::Policies,
        Watched::Endpoints,
        Watched::NodeRecords,
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
            Watched::NodeRecords => "/apis/egret.dev/v1alpha1/egressnodes?".to_owned(),
        }
    }

    /// API group and plural, as roles name them.
    pub fn resource(self) -> (&'static str, &'static str) {
        match self {
            Watched::Namespaces => ("", "namespaces"),
            Watched::Nodes => ("", "nodes"),
            Watched::Pods => ("", "pods"),
            Watched::ServiceCidrs => ("networking.k8s.io", "servicecidrs"),
            Watched::Pools => ("egret.dev", "egresspools"),
            Watched::Policies => ("egret.dev", "egressgatewaypolicies"),
            Watched::Endpoints => ("egret.dev", "egressendpoints"),
            Watched::NodeRecords => ("egret.dev", "egressnodes"),
        }
    }

    /// What its definition is called, if it has one that a person can delete.
    pub fn definition(self) -> Option<String> {
        let (group, plural) = self.resource();
        (group == "egret.dev").then(|| format!("{plural}.{group}"))
    }

    /// Servers before Kubernetes 1.33 do not know it, and there is nothing to wait for.
    pub fn is_optional(self) -> bool {
        self == Watched::ServiceCidrs
    }

    /// The line of a role that lets the agent see it.
    pub fn grant(self) -> String {
        let (group, plural) = self.resource();
        let group = if group.is_empty() { "\"\"" } else { group };
        format!("{{apiGroups: [{group}], resources: [{plural}], verbs: [get, list, watch]}}")
    }

    /// Whether decisions are made of it; the others are records of ours.
    pub fn is_read(self) -> bool {
        !matches!(self, Watched::Endpoints | Watched::NodeRecords)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_role_that_is_shipped_has_the_line_of_every_kind() {
        let role = include_str!("../../deploy/rbac.yaml");
        let may = |group: &str, plural: &str| {
            let rules = role.split("- apiGroups: ").skip(1);
            rules.into_iter().any(|rule| {
                let (groups, rest) = rule.split_once('\n').unwrap();
                let quoted = if group.is_empty() { "\"\"" } else { group };
                groups.contains(quoted) && rest.contains(plural) && rest.contains("get, list, watch")
            })
        };
        for kind in Watched::ALL {
            let (group, plural) = kind.resource();
            assert!(may(group, plural), "{}", kind.grant());
            assert!(kind.path("here").contains(plural));
        }
    }
}
