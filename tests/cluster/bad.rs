//! Objects that no API server with our definitions may take, each with the sentence that says why. What a reader of files says
//! of them is held beside it: both refuse.

/// Kind, `spec`, and a part of what the server says.
pub(crate) const BAD: &[(&str, &str, &str)] = &[
    ("EgressPool", "{}", "spec.cidr: Required value"),
    ("EgressPool", "{cidr: ten}", "this is no address with a prefix length"),
    ("EgressPool", "{cidr: 10.10.10.1/28}", "the prefix has bits set below its length"),
    ("EgressPool", "{cidr: 127.0.0.0/24}", "which no outside host answers"),
    ("EgressPool", "{cidr: 0.0.0.0/0}", "which no outside host answers"),
    ("EgressPool", "{cidr: 'fe80::/64'}", "which no outside host answers"),
    ("EgressPool", "{cidr: 10.10.10.0/28, blockSize: 127}", "blockSize is not between 20 and 32"),
    ("EgressPool", "{cidr: 'fd00::/112', blockSize: 31}", "blockSize is not between 20 and 32"),
    ("EgressPool", "{cidr: 10.10.10.0/28, blockSize: 26}", "fewer addresses than one block"),
    ("EgressPool", "{cidr: 10.10.10.0/28, gatewayNamespaces: ''}", "the selector is empty; write `all()`"),
    ("EgressPool", "{cidr: 10.10.10.0/28, nodeSelector: 'role = \"edge\"'}", "the selector does not parse"),
    ("EgressPool", "{cidr: 10.10.10.0/28, nodeSelector: 'has(role))'}", "another number of parentheses"),
    ("EgressPool", "{cidr: 10.10.10.0/28, nodeSelector: 'role'}", "the selector does not parse"),
    ("EgressPool", "{cidr: 10.10.10.0/28, source: Elsewhere}", "supported values: \"Pool\", \"PodAddress\""),
    ("EgressPool", "{cidr: 10.10.10.0/28, cooldownSeconds: 604801}", "less than or equal to 604800"),
    ("EgressPool", "{cidr: 10.10.10.0/28, cidrs: []}", "unknown field \"spec.cidrs\""),
    ("EgressRange", "{}", "spec.cidrs: Required value"),
    ("EgressRange", "{cidrs: []}", "should have at least 1 items"),
    ("EgressRange", "{cidrs: [0.0.0.0/0]}", "would leave nothing to gateways"),
    ("EgressRange", "{cidrs: ['::ffff:192.0.2.0/120']}", "this is no address with a prefix length"),
    ("EgressRange", "{cidrs: [ten]}", "this is no address with a prefix length"),
    ("EgressRange", "{cidrs: [10.244.0.1/16]}", "a prefix has bits set below its length"),
    ("EgressGatewayPolicy", "{}", "the policy says nothing"),
    ("EgressGatewayPolicy", "{rules: [{destination: {}}]}", "the policy says nothing"),
    ("EgressGatewayPolicy", "{rules: [{description: x}]}", "the policy says nothing"),
    ("EgressGatewayPolicy", "{defaultAction: Deny, selectors: [{}]}", "the entry has no selector"),
    ("EgressGatewayPolicy", "{rules: [{gateway: {}}]}", "the selector is missing"),
    ("EgressGatewayPolicy", "{rules: [{gateway: {selector: ' '}}]}", "the selector is empty"),
    ("EgressGatewayPolicy", "{rules: [{gateway: {selector: 'a == b'}}]}", "the selector does not parse"),
    (
        "EgressGatewayPolicy",
        "{rules: [{gateway: {selector: all(), nodes: [{nodeSelector: all()}]}}]}",
        "are for gateway pods, and `nodes` names nodes",
    ),
    (
        "EgressGatewayPolicy",
        "{rules: [{gateway: {nodes: [{nodeSelector: all(), interface: eth1, egressIP: 192.0.2.1}]}}]}",
        "interface stands beside egressIP",
    ),
    (
        "EgressGatewayPolicy",
        "{rules: [{gateway: {nodes: [{nodeSelector: all(), interface: 'eth 1'}]}}]}",
        "this is no name of a network interface",
    ),
    (
        "EgressGatewayPolicy",
        "{rules: [{gateway: {nodes: [{nodeSelector: all(), egressIP: '192.0.2'}]}}]}",
        "this is not an address",
    ),
    ("EgressGatewayPolicy", "{rules: [{gateway: {nodes: [{nodeSelector: 'a b'}]}}]}", "should match"),
    ("EgressGatewayPolicy", "{rules: [{gateway: {nodes: []}}]}", "should have at least 1 items"),
    (
        "EgressGatewayPolicy",
        "{rules: [{destination: {cidr: ten}}]}",
        "this is no address with a prefix length",
    ),
    ("EgressGatewayPolicy", "{rules: [{destination: {cidrs: []}}]}", "cidrs is empty"),
    (
        "EgressGatewayPolicy",
        "{rules: [{destination: {cidr: 192.0.2.0/24, cidrs: [192.0.2.0/24]}}]}",
        "cidrs stands beside cidr",
    ),
    (
        "EgressGatewayPolicy",
        "{rules: [{gateway: {selector: all()}}, {gateway: {selector: has(a)}}]}",
        "two rules have no destination",
    ),
    (
        "EgressGatewayPolicy",
        "{rules: [{gateway: {selector: all()}}, {destination: {cidr: 0.0.0.0/0}}]}",
        "stands beside one without destination",
    ),
    (
        "EgressGatewayPolicy",
        "{rules: [{destination: {cidrs: [10.0.0.0/8, 0.0.0.0/0]}, gateway: {selector: all()}}, {}]}",
        "stands beside one without destination",
    ),
    (
        "EgressGatewayPolicy",
        "{rules: [{gateway: {selector: \"(a == 'b' || has(c)\"}}]}",
        "another number of parentheses",
    ),
    (
        "EgressGatewayPolicy",
        "{rules: [{destination: {cidr: 192.0.2.0/24}}, {destination: {cidr: 192.0.2.0/24}}]}",
        "two rules have one destination",
    ),
    ("IPPool", "{cidr: 10.10.10.0/28}", "fewer addresses than one block of blockSize (26 if absent"),
    ("CalicoPolicy", "{rules: []}", "no rule of spec.rules specifies a gateway or a destination"),
    (
        "CalicoPolicy",
        "{rules: [{destination: {cidr: 0.0.0.0/0}}, {gateway: {selector: all(), namespaceSelector: all()}}]}",
        "stands beside one without destination",
    ),
    ("CalicoPolicy", "{rules: [{gateway: {selector: all()}}]}", "namespaceSelector: Required value"),
    (
        "CiliumEgressGatewayPolicy",
        "{selectors: [{}]}",
        "the entry has neither podSelector nor namespaceSelector",
    ),
    (
        "CiliumEgressGatewayPolicy",
        "{destinationCIDRs: [192.0.2.1]}",
        "this is no address with a prefix length",
    ),
    ("CiliumEgressGatewayPolicy", "{destinationCIDRs: []}", "destinationCIDRs is empty"),
    (
        "CiliumEgressGatewayPolicy",
        "{egressGateway: {nodeSelector: {}, interface: eth1, egressIP: 192.0.2.1}}",
        "interface stands beside egressIP",
    ),
];

/// The whole object, with what Cilium's must have where `spec` has it not.
pub(crate) fn object(kind: &str, spec: &str) -> String {
    let (kind, version) = match kind {
        "IPPool" => (kind, "projectcalico.org/v3"),
        "CalicoPolicy" => ("EgressGatewayPolicy", "projectcalico.org/v3"),
        "CiliumEgressGatewayPolicy" => (kind, "cilium.io/v2"),
        _ => (kind, "egret.dev/v1alpha1"),
    };
    let mut fields = vec![spec[1..spec.len() - 1].to_owned()];
    if kind == "CiliumEgressGatewayPolicy" {
        for (key, value) in [
            ("selectors", "[{podSelector: {}}]"),
            ("destinationCIDRs", "[0.0.0.0/0]"),
            ("egressGateway", "{nodeSelector: {}}"),
        ] {
            if !spec.contains(&format!("{key}:")) {
                fields.push(format!("{key}: {value}"));
            }
        }
    }
    fields.retain(|field| !field.is_empty());
    let spec = fields.join(", ");
    format!("{{apiVersion: {version}, kind: {kind}, metadata: {{name: bad}}, spec: {{{spec}}}}}")
}
