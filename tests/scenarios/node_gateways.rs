//! Node gateways: the node itself is the gateway, and leaves by the interface and with the address that a policy names.
//!
//! Every node has a second uplink, `eth1`, with a subnet of its own and a default route in a table of its own; `main` leads to the
//! fabric. The primary masquerades, and reverse-path filtering is strict.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use egret::addr::Family;
use egret::egress::explain::Verdict;
use egret::testbed::{Answer, Flow, Outside, Pod, Topology, second_address};

use crate::lab::{Lab, is_emptied, listing, nodes};

/// Every destination.
pub(crate) const WHOLE: &str = "0.0.0.0/0, '::/0'";

/// Nodes with a second uplink.
pub(crate) fn topology(count: u8) -> Topology {
    Topology { second_uplink: true, ..nodes(count) }
}

/// A Cilium policy: pods with this label leave to these prefixes by this gateway.
pub(crate) fn policy(lab: &Lab, name: &str, app: &str, prefixes: &str, gateways: &[(u8, &str)]) {
    let gateway = |(node, how): &(u8, &str)| {
        format!("{{nodeSelector: {{matchLabels: {{kubernetes.io/hostname: node{node}}}}}, {how}}}")
    };
    let listed: Vec<String> = gateways.iter().map(gateway).collect();
    let gateways = match listed.as_slice() {
        [one] => format!("egressGateway: {one}"),
        several => format!("egressGateways: [{}]", several.join(", ")),
    };
    lab.object(&format!(
        "apiVersion: cilium.io/v2\nkind: CiliumEgressGatewayPolicy\nmetadata: {{name: {name}}}\nspec:\n  \
         selectors: [{{podSelector: {{matchLabels: {{app: {app}}}}}}}]\n  destinationCIDRs: [{prefixes}]\n  {gateways}\n"
    ))
    .unwrap();
    // Nodes say their interfaces at the first, and read the others' at the second.
    lab.settle().unwrap();
    lab.settle().unwrap();
}

/// A pod with this label.
pub(crate) fn pod(lab: &Lab, node: u8, name: &str, app: &str) -> Pod {
    lab.pod_object(&format!("apps/{name}"), &[("app", app)], &[], node).unwrap();
    lab.add_pod(node, &format!("apps/{name}")).unwrap()
}

/// The addresses of a node's second uplink.
pub(crate) fn seconds(node: u8) -> BTreeSet<IpAddr> {
    Family::BOTH.map(|family| second_address(node, family)).into()
}

fn flows(pod: &Pod) -> Vec<(Flow, bool)> {
    let to = Family::BOTH.map(|family| Outside::Near.address(family));
    let tcp = to.iter().map(|to| (pod.tcp_flow(*to).unwrap(), true));
    let udp = to.iter().map(|to| (pod.udp_flow(*to).unwrap(), false));
    let mut flows: Vec<_> = tcp.chain(udp).collect();
    flows.iter_mut().for_each(|(flow, _)| assert!(matches!(flow.ask(), Answer::From(_))));
    flows
}

/// Steps that a node would take now.
fn missing(lab: &Lab, node: u8) -> Vec<String> {
    let report = lab.json(node, &["reconcile", "--dry-run"]);
    let items = report["items"].as_array().cloned().unwrap_or_default();
    items
        .iter()
        .flat_map(|item| item["pending"].as_array().cloned().unwrap_or_default())
        .map(|s| s.to_string())
        .collect()
}

#[test]
fn clients_here_and_elsewhere_leave_by_the_interface_of_the_gateways_node() {
    let lab = Lab::raise(topology(2));
    // The primary's bridge comes with a node's first pod.
    let plains = [lab.plain(1, "p1"), lab.plain(2, "p2")];
    let clean: Vec<_> = lab.nodes().map(|node| listing(&node)).collect();
    policy(&lab, "by-eth1", "shop", WHOLE, &[(2, "interface: eth1")]);
    let clients = [pod(&lab, 1, "c1", "shop"), pod(&lab, 2, "c2", "shop")];
    let capture = lab.capture().unwrap();
    for client in &clients {
        assert_eq!(lab.leaves_as_predicted(client), seconds(2), "{}", client.name);
        lab.check_pod(client).unwrap();
    }
    plains.iter().for_each(|plain| lab.leaves_as_before(plain));
    capture.assert_clean(&[&clients[0], &clients[1]]);
    for node in [1, 2] {
        assert_eq!(missing(&lab, node), [""; 0], "node{node}");
    }
    for client in &clients {
        lab.del_pod(client).unwrap();
    }
    for (number, before) in (1..).zip(clean) {
        is_emptied(&lab, number);
        let after = listing(&lab.node(number));
        assert_eq!((differs(&before, &after), differs(&after, &before)), (vec![], vec![]), "node{number}");
    }
}

#[test]
fn an_address_of_its_own_and_several_nodes_to_choose_from() {
    let lab = Lab::raise(topology(3));
    lab.node(2).sh("ip address add 172.31.2.77/24 dev eth1").unwrap();
    policy(&lab, "by-address", "solo", WHOLE, &[(2, "egressIP: 172.31.2.77")]);
    policy(&lab, "spread", "many", WHOLE, &[(1, "interface: eth1"), (3, "interface: eth1")]);
    let solo = [pod(&lab, 1, "s1", "solo"), pod(&lab, 2, "s2", "solo")];
    // Which of the two a pod takes, its UID says, and that is another one in each run.
    let many: Vec<Pod> = (0..24).map(|n| pod(&lab, 1 + n % 3, &format!("m{n}"), "many")).collect();
    let capture = lab.capture().unwrap();
    let declared = BTreeSet::from(["172.31.2.77".parse().unwrap(), second_address(2, Family::V6)]);
    for client in &solo {
        assert_eq!(lab.leaves_as_predicted(client), declared, "{}", client.name);
    }
    let mut seen = BTreeSet::new();
    for client in &many {
        let own = lab.leaves_as_predicted(client);
        assert!(own == seconds(1) || own == seconds(3), "{}: {own:?}", client.name);
        seen.extend(own);
    }
    assert_eq!(seen, &seconds(1) | &seconds(3), "twenty-four pods take both nodes");
    capture.assert_clean(&solo.iter().chain(&many).collect::<Vec<_>>());
}

#[test]
fn one_pod_by_pod_gateways_and_node_gateways_to_different_prefixes() {
    let lab = Lab::raise(topology(2));
    let gateway = lab.gateway(1, "g1");
    lab.object(
        "apiVersion: egret.dev/v1alpha1\nkind: EgressGatewayPolicy\nmetadata: {name: far-by-pods}\nspec:\n  rules:\n  \
         - destination: {cidr: 198.51.101.0/24}\n    gateway: {selector: egress-code == 'red', namespaceSelector: \"projectcalico.org/name == 'gw'\"}\n  \
         - destination: {cidr: '2001:db8:fe::/64'}\n    gateway: {selector: egress-code == 'red', namespaceSelector: \"projectcalico.org/name == 'gw'\"}\n",
    )
    .unwrap();
    policy(&lab, "rest", "both", WHOLE, &[(2, "interface: eth1")]);
    let annotation = [("egret.dev/egressGatewayPolicy", "far-by-pods")];
    let mut clients = Vec::new();
    for node in [1, 2] {
        lab.pod_object(&format!("apps/b{node}"), &[("app", "both")], &annotation, node).unwrap();
        clients.push(lab.add_pod(node, &format!("apps/b{node}")).unwrap());
    }
    let capture = lab.capture().unwrap();
    let leases: BTreeSet<IpAddr> = lab.leases(&gateway).into_iter().collect();
    for client in &clients {
        assert_eq!(lab.leaves_as_predicted(client), &leases | &seconds(2), "{}", client.name);
        for family in Family::BOTH {
            assert_eq!(client.tcp(Outside::Far.address(family)).unwrap(), lab.lease(&gateway, family));
            assert_eq!(client.udp(Outside::Near.address(family)).unwrap(), second_address(2, family));
        }
    }
    capture.assert_clean(&clients.iter().collect::<Vec<_>>());
}

/// A client moves between two addresses of one node, to another node, and back: its TCP is told, its UDP goes on with the new
/// address from the same port, other pods' flows live.
#[test]
fn a_client_that_moves_between_node_gateways_is_told_and_never_shows_another_address() {
    let lab = Lab::raise(topology(2));
    lab.node(2).sh("ip address add 172.31.2.77/24 dev eth1").unwrap();
    // The kernel lists the newest IPv6 address first, so the first one is added again.
    lab.node(2)
        .sh("ip address add fd00:172:31:2::77/64 dev eth1 nodad; ip address del fd00:172:31:2::2/64 dev eth1; ip address add fd00:172:31:2::2/64 dev eth1 nodad")
        .unwrap();
    policy(&lab, "stays", "stays", WHOLE, &[(2, "interface: eth1")]);
    let ways = [
        (2, "interface: eth1"),
        (2, "egressIP: 172.31.2.77"),
        (2, "egressIP: 'fd00:172:31:2::77'"),
        (1, "interface: eth1"),
    ];
    policy(&lab, "moves", "moves", WHOLE, &ways[..1]);
    let movers = [pod(&lab, 1, "m1", "moves"), pod(&lab, 2, "m2", "moves")];
    let stayers = [pod(&lab, 1, "s1", "stays"), pod(&lab, 2, "s2", "stays")];
    let capture = lab.capture().unwrap();
    let mut stay: Vec<_> = stayers.iter().flat_map(flows).collect();
    for (node, how) in [1, 2, 3, 0, 3, 1, 0].map(|way| ways[way]) {
        let mut moved: Vec<_> = movers.iter().map(flows).collect();
        policy(&lab, "moves", "moves", WHOLE, &[(node, how)]);
        for (mover, flows) in movers.iter().zip(&mut moved) {
            let now = lab.leaves_as_predicted(mover);
            for (flow, tcp) in flows {
                let answer = flow.ask();
                match &answer {
                    Answer::Reset => assert!(*tcp, "{} to {how} of node{node}: UDP was reset", mover.name),
                    Answer::From(ip) => {
                        assert!(
                            !*tcp || now.contains(ip),
                            "{} to {how} of node{node}: TCP lives",
                            mover.name
                        );
                        assert!(
                            now.contains(ip),
                            "{} to {how} of node{node}: {ip} is not of {now:?}",
                            mover.name
                        );
                    }
                    other => panic!("{} to {how} of node{node}, tcp {tcp}: {other:?}", mover.name),
                }
            }
        }
        for (flow, _) in &mut stay {
            assert!(
                matches!(flow.ask(), Answer::From(ip) if seconds(2).contains(&ip)),
                "after {how} of node{node}"
            );
        }
    }
    capture.assert_clean(&movers.iter().chain(&stayers).collect::<Vec<_>>());
}

/// From a pod gateway to the own node, to direct by another prefix, and back.
#[test]
fn a_client_that_moves_between_pod_gateways_and_node_gateways_shows_nothing_else() {
    let lab = Lab::raise(topology(2));
    let gateway = lab.gateway(1, "g1");
    let leases: BTreeSet<IpAddr> = lab.leases(&gateway).into_iter().collect();
    policy(&lab, "base", "app", WHOLE, &[(2, "interface: eth1")]);
    let clients = [pod(&lab, 1, "c1", "app"), pod(&lab, 2, "c2", "app")];
    let capture = lab.capture().unwrap();
    for round in 0..4 {
        let mut old: Vec<_> = clients.iter().map(flows).collect();
        let annotations: &[_] = if round % 2 == 0 { &crate::lab::SELECTS_RED } else { &[] };
        for client in &clients {
            lab.pod_object(&client.name.to_string(), &[("app", "app")], annotations, client.node).unwrap();
        }
        lab.settle().unwrap();
        let expected = if round % 2 == 0 { leases.clone() } else { seconds(2) };
        for (client, flows) in clients.iter().zip(&mut old) {
            assert_eq!(lab.leaves_as_predicted(client), expected, "round {round}: {}", client.name);
            for (flow, tcp) in flows {
                match flow.ask() {
                    Answer::Reset if *tcp => {}
                    Answer::From(ip) => {
                        assert!(!*tcp && expected.contains(&ip), "round {round}, tcp {tcp}: {ip}");
                    }
                    other => panic!("round {round}: {}, tcp {tcp}: {other:?}", client.name),
                }
            }
        }
    }
    capture.assert_clean(&[&clients[0], &clients[1]]);
}

/// Whatever the gateway's node loses, its clients' packets leave as declared or not at all.
#[test]
fn what_the_gateways_node_loses_stops_its_clients_and_shows_nothing() {
    let lab = Lab::raise(topology(2));
    policy(&lab, "by-eth1", "shop", WHOLE, &[(2, "interface: eth1")]);
    let mut clients = [pod(&lab, 1, "c1", "shop"), pod(&lab, 2, "c2", "shop")];
    clients.iter_mut().for_each(|client| client.patience = Duration::from_millis(300));
    let capture = lab.capture().unwrap();
    let node = lab.node(2);
    let faults: [(&str, &str, &str); 5] = [
        ("conntrack -F 2>/dev/null", "true", ""),
        (
            "ip route flush table 100; ip -6 route flush table 100",
            "ip route add default via 172.31.2.254 dev eth1 table 100; ip -6 route add default via fd00:172:31:2::254 dev eth1 table 100",
            "NoWayOut",
        ),
        (
            "ip link set eth1 down",
            "ip link set eth1 up; ip -6 address replace fd00:172:31:2::2/64 dev eth1 nodad; ip route replace default via 172.31.2.254 dev eth1 table 100; ip -6 route replace default via fd00:172:31:2::254 dev eth1 table 100",
            "-",
        ),
        (
            "for f in -4 -6; do for p in 700 710; do while ip $f rule del pref $p 2>/dev/null; do :; done; done; done",
            "true",
            "",
        ),
        (
            "ip address del 172.31.2.2/24 dev eth1",
            "ip address add 172.31.2.2/24 dev eth1; ip route replace default via 172.31.2.254 dev eth1 table 100",
            "-",
        ),
    ];
    for (breaks, mends, reason) in faults {
        let mut running: Vec<_> = clients.iter().flat_map(flows).collect();
        node.sh(breaks).unwrap();
        let mut ask = || {
            for (flow, _) in &mut running {
                if let Answer::From(ip) = flow.ask() {
                    assert!(seconds(2).contains(&ip), "after {breaks}: {ip}");
                }
            }
            for client in &clients {
                for family in Family::BOTH {
                    let to = Outside::Near.address(family);
                    for ip in [client.tcp(to), client.udp(to)].into_iter().flatten() {
                        assert!(seconds(2).contains(&ip), "after {breaks}: {ip}");
                    }
                }
            }
        };
        ask();
        let reasons = lab.reasons(2);
        assert!(
            reason.is_empty() || reason == "-" || reasons.iter().any(|r| r == reason),
            "{breaks}: {reasons:?}"
        );
        if reason == "NoWayOut" {
            for client in &clients {
                let said = lab.explain(client, Outside::Near.address(Family::V4));
                assert!(said.items.iter().all(|item| item.action == Verdict::Held), "{said}");
                assert!(said.items[0].reason.contains("interface eth1 of node node2"), "{said}");
            }
        }
        lab.settle().unwrap();
        ask();
        node.sh(mends).unwrap();
        lab.settle().unwrap();
        lab.settle().unwrap();
        for client in &clients {
            assert_eq!(lab.leaves_as_predicted(client), seconds(2), "after {mends}: {}", client.name);
        }
        assert_eq!(missing(&lab, 2), [""; 0], "after {mends}");
    }
    capture.assert_clean(&[&clients[0], &clients[1]]);
}

/// Lines of one listing that are not in another.
fn differs(a: &str, b: &str) -> Vec<String> {
    a.lines().filter(|line| !b.lines().any(|other| other == *line)).map(str::to_owned).collect()
}

/// Given a gateway's interface that goes away for good, its node takes pods in and lets them go as before, and can be emptied.
#[test]
fn an_interface_that_goes_away_leaves_its_node_working() {
    let lab = Lab::raise(topology(1));
    let _plain = lab.plain(1, "p1");
    let before = listing(&lab.node(1));
    policy(&lab, "by-eth1", "shop", WHOLE, &[(1, "interface: eth1")]);
    let client = pod(&lab, 1, "c1", "shop");
    assert_eq!(lab.leaves_as_predicted(&client), seconds(1));
    lab.node(1).sh("ip link delete eth1").unwrap();
    lab.settle().unwrap();
    let mut second = pod(&lab, 1, "c2", "shop");
    second.patience = Duration::from_millis(200);
    lab.is_held(&second);
    assert_eq!(missing(&lab, 1), [""; 0]);
    for client in [&client, &second] {
        lab.del_pod(client).unwrap();
    }
    is_emptied(&lab, 1);
    assert_eq!(differs(&listing(&lab.node(1)), &before), [""; 0], "nothing of it is left");
}
