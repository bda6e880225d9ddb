//! A primary with an overlay and a masquerade of its own: Flannel, which speaks nftables on one node and iptables on the other. What it
//! would give the node's address must leave with the gateway's; what it tunnels must stay as it is, whatever it writes anew meanwhile.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use crate::lab::{Lab, OUTSIDE};
use crate::{begins, only, predicted, scale, services};

/// The address by which node2 is a gateway.
const EDGE: &str = "172.31.0.102";

#[test]
fn on_an_overlay_that_masquerades_pods_and_nodes_are_gateways_for_both_nodes() {
    let lab = Lab::raise("overlay", "nftables,iptables", "overlay");
    let mut agents = [1, 2].map(|node| Some(lab.agent(node)));
    let address = begins(&lab);
    services::stay_inside_and_answers_go_back_the_way_they_came(&lab, &address);
    services::network_policies_hold_towards_a_gateway(&lab, &address);
    long_answers_pass_two_tunnels(&lab, &address);
    flannel_begins_again(&lab, &address);
    node_gateways(&lab, &address);
    lab.kill_agent(2, agents[1].take().unwrap());
    lab.shows_only_after(EDGE, 4, "without an agent on the gateway clients go on");
    agents[1] = Some(lab.agent(2));
    back_to_the_pod(&lab, &address);
    scale(&lab, "shop", "cart", 6);
    lab.shows_only_after(&address, 6, "new pods follow");
}

/// More than one packet each way, as large as the pods' devices take them: they are as narrow as the primary's tunnel, and a client of
/// the other node has ours on its way.
fn long_answers_pass_two_tunnels(lab: &Lab, address: &str) {
    let peers = echo(lab);
    for (pod, node) in lab.running("shop").into_iter().filter(|(pod, _)| pod.starts_with("cart")) {
        let send = format!("head -c {LONG} /dev/zero | nc -w 60 {OUTSIDE} {ECHO} | wc -c");
        let said = lab.kubectl(&["exec", "-n", "shop", &pod, "--", "sh", "-c", &send], "");
        assert_eq!(said.trim(), LONG.to_string(), "{pod} on {node}");
    }
    assert_eq!(peers.try_iter().collect::<BTreeSet<_>>(), only(address));
}

const ECHO: u16 = 8082;
const LONG: usize = 300_000;

/// Outside, sends back so many bytes; whose they were.
fn echo(lab: &Lab) -> Receiver<String> {
    let (said, peers) = channel();
    lab.as_outsider(|| {
        let listener = TcpListener::bind((OUTSIDE, ECHO)).unwrap();
        std::thread::spawn(move || {
            while let Ok((mut stream, from)) = listener.accept() {
                let mut bytes = vec![0; LONG];
                if stream.read_exact(&mut bytes).is_ok() && stream.write_all(&bytes).is_ok() {
                    let _ = said.send(from.ip().to_string());
                }
            }
        });
    });
    peers
}

/// Killed, with its rules and routes gone: it writes all of it anew, behind ours.
fn flannel_begins_again(lab: &Lab, address: &str) {
    lab.forget();
    lab.on("node1", &["nft", "delete", "table", "ip", "flannel-ipv4"]);
    let away = "iptables -t nat -D POSTROUTING -m comment --comment 'flanneld masq' -j FLANNEL-POSTRTG";
    lab.on("node2", &["sh", "-c", &format!("{away}; iptables -t nat -F FLANNEL-POSTRTG")]);
    for node in ["node1", "node2"] {
        lab.kill(node, "flannel");
        lab.eventually("Flannel masquerades again", || {
            lab.on(node, &["sh", "-c", "nft list ruleset 2>/dev/null"]).contains("masquerade fully-random")
        });
    }
    lab.shows_only_after(address, 4, "clients go on");
    let nodes = BTreeSet::from(["172.31.0.1", "172.31.0.2"].map(str::to_owned));
    lab.eventually("whom nothing selects leave as their nodes", || lab.seen("plain") == nodes);
}

/// While they run, clients of both nodes go over to an address of node2, which it gets only now.
fn node_gateways(lab: &Lab, was: &str) {
    lab.on("node2", &["ip", "address", "add", &format!("{EDGE}/24"), "dev", "eth0"]);
    lab.kubectl(&["apply", "-f", "-"], POLICY);
    let name = "egret.dev/egressGatewayPolicy=edge";
    let without = "egress.projectcalico.org/selector-";
    let nor = "egress.projectcalico.org/namespaceSelector-";
    lab.kubectl(&["annotate", "namespace", "shop", name, without, nor], "");
    from_one_to_the_other(lab, was, EDGE);
    for (pod, node) in lab.running("shop") {
        if pod.starts_with("cart") {
            assert_eq!(predicted(lab, &node, &format!("shop/{pod}")), only(EDGE));
        }
    }
}

fn back_to_the_pod(lab: &Lab, address: &str) {
    let to = "egress.projectcalico.org/selector=app == 'gw'";
    let of = "egress.projectcalico.org/namespaceSelector=projectcalico.org/name == 'gw'";
    lab.kubectl(&["annotate", "namespace", "shop", "egret.dev/egressGatewayPolicy-", to, of], "");
    from_one_to_the_other(lab, EDGE, address);
}

/// From the first to the second, and never with a third. What is left of a flow that ended on the first may still come with it: on a busy
/// machine one packet did, after a window without any.
fn from_one_to_the_other(lab: &Lab, first: &str, second: &str) {
    for what in ["clients go over", "and stay there"] {
        lab.hears(Duration::from_secs(1), what, || {
            let sources = lab.sources();
            assert!(sources.iter().all(|one| one == first || one == second), "{sources:?}");
            lab.who("cart").len() == 4 && sources == only(second)
        });
    }
    lab.forget();
}

const POLICY: &str = "
apiVersion: egret.dev/v1alpha1
kind: EgressGatewayPolicy
metadata: {name: edge}
spec: {rules: [{gateway: {nodes: [{nodeSelector: kubernetes.io/hostname == 'node2', egressIP: 172.31.0.102}]}}]}
";
