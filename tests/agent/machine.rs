//! The machine changes: links, addresses, default routes; and what node gateways make of it.

use std::collections::BTreeSet;
use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use egret::addr::Family;
use egret::testbed::{Pod, STATE_DIR, Topology, second_address};

use crate::kernel::{Stop, chatter};
use crate::lab::{Lab, eventually, leaves_by, outside};

/// What networkd does at its restart, at its worst: everything it knows of the device goes and comes back.
const FLAP: &str = "r4=$(ip route show default); r6=$(ip -6 route show default); \
    a6=$(ip -6 -o address show dev eth0 scope global | tr -s ' ' | cut -d' ' -f4); \
    ip link set eth0 down; sleep 0.2; ip link set eth0 up; \
    for a in $a6; do ip -6 address add $a dev eth0 nodad; done; ip route add $r4; ip -6 route add $r6";

#[test]
fn links_that_go_down_and_up_leave_gateways_in_use_and_nothing_leaks_meanwhile() {
    let lab = Lab::raise(2);
    let agents = lab.agents();
    let gateway = lab.gateway(1, "red");
    let clients = [lab.client(1, "near"), lab.client(2, "far")];
    for client in &clients {
        eventually("the gateway is used", || leaves_by(&lab, client, &gateway));
    }
    let capture = lab.capture().unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (_stop, stop) = (Stop(&stop), &stop);
        clients.iter().for_each(|client| drop(scope.spawn(move || chatter(client, stop))));
        let down_and_up = "ip link set egress0 down; sleep 0.2; ip link set egress0 up";
        let harm: [(&str, &dyn Fn()); 3] = [
            ("the gateway's veth", &|| drop(gateway.place().sh(down_and_up).unwrap())),
            ("the gateway's uplink", &|| drop(lab.node(1).sh(FLAP).unwrap())),
            ("the client's uplink", &|| drop(lab.node(2).sh(FLAP).unwrap())),
        ];
        for (what, harm) in harm {
            harm();
            for client in &clients {
                let took = eventually("the gateway is used again", || leaves_by(&lab, client, &gateway));
                println!("{what} down and up: {} leaves by it again after {took:?}", client.name);
            }
            eventually("nothing differs", || lab.differs(1).is_empty() && lab.differs(2).is_empty());
        }
    });
    capture.assert_clean(&[&clients[0], &clients[1]]);
    drop(agents);
}

fn policy(lab: &Lab, how: &str) {
    lab.object(&format!(
        "apiVersion: cilium.io/v2\nkind: CiliumEgressGatewayPolicy\nmetadata: {{name: by-node}}\nspec:\n  \
         selectors: [{{podSelector: {{matchLabels: {{app: shop}}}}}}]\n  destinationCIDRs: [0.0.0.0/0, '::/0']\n  \
         egressGateway: {{nodeSelector: {{matchLabels: {{kubernetes.io/hostname: node2}}}}, {how}}}\n"
    ))
    .unwrap();
}

fn seen(pod: &Pod) -> BTreeSet<IpAddr> {
    let mut pod = pod.clone();
    pod.patience = Duration::from_millis(100);
    outside().iter().filter_map(|to| pod.udp(*to).ok()).collect()
}

#[test]
fn node_gateways_follow_policies_and_addresses_without_any_call_also_on_a_node_without_pods() {
    let lab = Lab::with(Topology { nodes: 2, second_uplink: true, ..Topology::default() });
    let agents = lab.agents();
    let client = |name: &str| {
        lab.pod_object(&format!("shop/{name}"), &[("app", "shop")], &[], 1).unwrap();
        lab.add_pod(1, &format!("shop/{name}")).unwrap()
    };
    let pod = client("cart");
    policy(&lab, "interface: eth1");
    let by_eth1 = BTreeSet::from(Family::BOTH.map(|family| second_address(2, family)));
    let took = eventually("it leaves by node2's eth1", || seen(&pod) == by_eth1);
    println!("a policy of node gateways: seen outside after {took:?}");

    // An address that is not there yet: held, and served as soon as it is.
    let capture = lab.capture().unwrap();
    let own: IpAddr = "172.31.2.77".parse().unwrap();
    let wanted = BTreeSet::from([own, second_address(2, Family::V6)]);
    policy(&lab, "egressIP: 172.31.2.77");
    eventually("held", || seen(&pod).is_empty());
    for _ in 0..2 {
        lab.node(2).sh("ip address add 172.31.2.77/24 dev eth1").unwrap();
        let took = eventually("it leaves with the new address", || seen(&pod) == wanted);
        println!("an address of the gateway's node: seen outside after {took:?}");
        let said = || fs::read_to_string(Path::new(STATE_DIR).join("interfaces/node2.json")).unwrap();
        eventually("its node says it", || said().contains("172.31.2.77"));
        lab.node(2).sh("ip address del 172.31.2.77/24 dev eth1").unwrap();
        eventually("held again", || seen(&pod).is_empty());
    }
    let stray = capture.sources_of(&pod).into_keys().find(|ip| !wanted.contains(ip) && !by_eth1.contains(ip));
    assert_eq!(stray, None);

    policy(&lab, "interface: eth1");
    eventually("by eth1 again", || seen(&pod) == by_eth1);
    let later = client("later");
    eventually("a pod that comes later too", || seen(&later) == by_eth1);
    lab.remove_object("CiliumEgressGatewayPolicy", None, "by-node").unwrap();
    eventually("as before", || seen(&pod).is_disjoint(&by_eth1) && seen(&pod).len() == 2);
    eventually("nothing differs", || lab.differs(1).is_empty() && lab.differs(2).is_empty());
    drop(agents);
}
