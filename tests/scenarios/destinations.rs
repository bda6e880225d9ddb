//! Policies by destination: each prefix has its own way, and a change of the list reaches running pods.

use egret::addr::Family;
use egret::testbed::{Outside, node_address};

use crate::lab::{Lab, SELECTS_RED, nodes};

fn policy(lab: &Lab, by_gateway: Outside, excluded: Outside) {
    let [(_, pods), (_, namespaces)] = SELECTS_RED;
    let rule = |family| {
        let to = by_gateway.network(family);
        format!(
            "  - destination: {{cidr: '{to}'}}\n    gateway: {{selector: \"{pods}\", namespaceSelector: \"{namespaces}\"}}\n"
        )
    };
    let [v4, v6] = Family::BOTH;
    lab.object(&format!(
        "apiVersion: egret.dev/v1alpha1\nkind: EgressGatewayPolicy\nmetadata: {{name: partners}}\nspec:\n  \
         selectors: [{{namespaceSelector: \"projectcalico.org/name == 'bank'\"}}]\n  rules:\n{}{}  excludedCIDRs: ['{}', '{}']\n",
        rule(v4),
        rule(v6),
        excluded.network(v4),
        excluded.network(v6),
    ))
    .unwrap();
    lab.settle().unwrap();
}

#[test]
fn d2_d5_f5_each_destination_has_its_own_way_and_a_changed_list_reaches_running_pods() {
    let lab = Lab::raise(nodes(2));
    let gateway = lab.gateway(1, "g1");
    lab.namespace("bank", &[], &[]).unwrap();
    policy(&lab, Outside::Near, Outside::Far);
    let clients = [1, 2].map(|node| {
        let name = format!("bank/c{node}");
        lab.pod_object(&name, &[], &[], node).unwrap();
        lab.add_pod(node, &name).unwrap()
    });
    for (listed, excluded) in [(Outside::Near, Outside::Far), (Outside::Far, Outside::Near)] {
        policy(&lab, listed, excluded);
        for (client, family) in clients.iter().flat_map(|client| Family::BOTH.map(|family| (client, family)))
        {
            let lease = lab.lease(&gateway, family);
            assert_eq!(client.tcp(listed.address(family)).unwrap(), lease, "{} to {listed:?}", client.name);
            assert_eq!(client.ping(listed.address(family)).unwrap(), lease, "{} to {listed:?}", client.name);
            let own = node_address(client.node, family);
            assert_eq!(client.tcp(excluded.address(family)).unwrap(), own, "{} to {excluded:?}", client.name);
            assert_eq!(client.udp(excluded.address(family)).unwrap(), own, "{} to {excluded:?}", client.name);
        }
    }
}
