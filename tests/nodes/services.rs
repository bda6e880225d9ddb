//! What stays inside the cluster, and what came from outside: neither meets a gateway, whichever way kube-proxy translates.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use serde_json::Value;

use crate::lab::{Lab, OUTSIDE, PORTS};
use crate::world::services;

/// How long is listened at least.
const SHORTEST: Duration = Duration::from_secs(1);
const SERVICE: &str = "10.96.7.7";

pub(crate) fn stay_inside_and_answers_go_back_the_way_they_came(lab: &Lab, lease: &str) {
    lab.kubectl(&["apply", "-f", "-"], &services());
    lab.forget();
    let each = pods(lab, "cart");
    assert_eq!(each.len(), 2, "one on each node");
    for pod in each {
        let inside =
            |what: &str| lab.try_kubectl(&["exec", "-n", "shop", &pod.name, "--", "sh", "-c", what], "");
        let who = format!(r"printf 'GET /cgi-bin/who HTTP/1.0\r\n\r\n' | nc -w 2 {SERVICE} 80");
        lab.eventually(&format!("{} on {} is seen by a Service as itself", pod.name, pod.node), || {
            inside(&who).is_ok_and(|said| said.contains(&seen_as(&pod.address)))
        });
        // The kubelets of both nodes.
        for to in ["172.31.0.1 10250", "172.31.0.2 10250"] {
            lab.eventually(&format!("{} on {} reaches {to}", pod.name, pod.node), || {
                inside(&format!("echo | nc -w 2 {to}")).is_ok()
            });
        }
    }
    the_api_server_is_inside(lab, lease);
    for (port, nodes, seen) in [(30080, [1, 2].as_slice(), None), (30081, &[2], Some(OUTSIDE))] {
        for node in nodes {
            let to = format!("172.31.0.{node}:{port}");
            lab.eventually(&format!("{to} answers outside"), || {
                let said = lab.as_outsider(|| get(&to)).unwrap_or_default();
                said.contains(&seen_as(seen.unwrap_or_default()))
            });
        }
    }
    lab.eventually("a pod on its node's network leaves as its node", || {
        lab.seen("host") == ["172.31.0.1".to_owned()].into()
    });
    let asked =
        ["/opt/cni/bin/egret", "explain", "--config", "/etc/cni/net.d/10-net.conflist", "shop/host", OUTSIDE];
    let said = lab.on("node1", &asked);
    assert!(
        said.contains("remove spec.hostNetwork"),
        "it is selected, and told that it cannot be served: {said}"
    );
    lab.eventually("people are told of it by its events", || {
        let said = lab.kubectl(&["events", "-n", "shop", "--for", "pod/host"], "");
        said.contains("EgressUnprotected") && said.contains("shares its node's network")
    });
    lab.eventually("and by its agent's status", || {
        lab.on("node1", &["cat", "/run/egret/node1/agent.json"]).contains("HostNetworkSelected")
    });
    lab.shows_only(lease);
    lab.kubectl(&["delete", "pod", "-n", "shop", "host", "front"], "");
    lab.eventually("which forgets it with the pod", || {
        !lab.on("node1", &["cat", "/run/egret/node1/agent.json"]).contains("HostNetworkSelected")
    });
}

/// It is on no node here, as in a managed cluster, and pods ask it by its Service: it answers, and sees nobody with a gateway's address.
pub(crate) fn the_api_server_is_inside(lab: &Lab, lease: &str) {
    for pod in pods(lab, "cart") {
        let exec = ["exec", "-n", "shop", &pod.name, "--", "sh", "-c"];
        let reached = "echo | nc -w 2 10.96.0.1 443";
        lab.eventually(&format!("{} on {} reaches the API server", pod.name, pod.node), || {
            lab.try_kubectl(&[&exec[..], &[reached]].concat(), "").is_ok()
        });
        // Flannel gives whoever goes there its node's address, which the kubelet has, too.
        let own = if lab.keeps(&pod.node, "flannel") { None } else { Some(&pod.address) };
        lab.eventually("it is seen there as itself", || {
            // A connection that says nothing, for longer than it takes to look.
            let mut asks =
                lab.kubectl_begun(&[&exec[..], &["sleep 3 | timeout 3 nc 10.96.0.1 443"]].concat());
            let mut peers = String::new();
            while asks.try_wait().unwrap().is_none() {
                peers += &lab.on("", &["ss", "-Htn", "state", "established", "sport = :6443"]);
                std::thread::sleep(Duration::from_millis(300));
            }
            asks.wait().unwrap();
            let peers = peers.replace("[::ffff:", "").replace(']', "");
            assert!(!peers.contains(&format!(" {lease}:")), "{} on {}: {peers}", pod.name, pod.node);
            own.is_none_or(|own| peers.contains(&format!(" {own}:")))
        });
    }
}

/// A client's policies hold towards a gateway, too: those of an engine where one runs, else a rule as an engine would put it.
pub(crate) fn network_policies_hold_towards_a_gateway(lab: &Lab, lease: &str) {
    for pod in pods(lab, "cart") {
        if lab.keeps(&pod.node, "policies") {
            an_engine_holds(lab, &pod, lease);
        } else {
            a_rule_holds(lab, &pod);
        }
    }
}

/// Where packets are forwarded, by the pod's own address.
fn a_rule_holds(lab: &Lab, pod: &Pod) {
    let (address, port) = (&pod.address, PORTS[0]);
    let rules = format!(
        "table ip np {{ chain policed {{ type filter hook forward priority 0; \
         ip saddr {address} ip daddr {OUTSIDE} tcp dport {port} counter drop; }}; }}"
    );
    lab.on(&pod.node, &["nft", &rules]);
    lab.hears(SHORTEST, &format!("a rule stops {} on {}", pod.name, pod.node), || is_silent(lab, pod));
    lab.on(&pod.node, &["nft", "delete table ip np"]);
    lab.eventually("and lets it go on", || lab.who("cart").contains(&pod.name));
}

/// While others are heard.
fn is_silent(lab: &Lab, pod: &Pod) -> bool {
    !lab.who("cart").contains(&pod.name) && lab.who("cart").len() > 2
}

/// Of two places outside the one that the policy allows is reached, and with the lease. From here on a policy forbids the gateways' own
/// pods all traffic, which is nothing to their clients.
fn an_engine_holds(lab: &Lab, pod: &Pod, lease: &str) {
    let other = another_place_outside(lab);
    let reaches = || {
        let ask = format!("echo hello | nc -w 2 {OTHER} {}", PORTS[0]);
        let said = lab.try_kubectl(&["exec", "-n", "shop", &pod.name, "--", "sh", "-c", &ask], "");
        // Whoever is answered was accepted, though that may not have been told yet; who is not may have been too late.
        let first = said.is_ok().then(|| other.recv_timeout(Duration::from_secs(60)).unwrap());
        let seen: BTreeSet<String> = first.into_iter().chain(other.try_iter()).collect();
        assert!(seen.is_empty() || seen == BTreeSet::from([lease.to_owned()]), "{seen:?}");
        said.is_ok()
    };
    let allow = |place: &str| lab.kubectl(&["apply", "-f", "-"], &policy(place));
    lab.kubectl(&["label", "pod", "-n", "shop", &pod.name, "policed=yes"], "");
    lab.eventually("before there is a policy it reaches both", reaches);
    allow(OTHER);
    lab.hears(SHORTEST, &format!("a policy stops {} on {}", pod.name, pod.node), || is_silent(lab, pod));
    lab.eventually("and not what it allows", reaches);
    allow(OUTSIDE);
    lab.eventually("the policy allows the first place", || lab.who("cart").contains(&pod.name));
    assert!(!reaches(), "and not the second");
    lab.kubectl(&["delete", "networkpolicy", "-n", "shop", "one-place"], "");
    lab.eventually("without a policy it reaches both", reaches);
    lab.kubectl(&["apply", "-f", "-"], NOTHING);
    lab.shows_only(lease);
}

const OTHER: &str = "203.0.113.11";

/// Answers there, and tells who asked.
fn another_place_outside(lab: &Lab) -> Receiver<String> {
    let (said, peers) = channel();
    lab.on("outside", &["ip", "address", "add", &format!("{OTHER}/24"), "dev", "eth0"]);
    lab.as_outsider(|| {
        let listener = TcpListener::bind((OTHER, PORTS[0])).unwrap();
        std::thread::spawn(move || {
            while let Ok((_stream, from)) = listener.accept() {
                let _ = said.send(from.ip().to_string());
            }
        });
    });
    peers
}

fn policy(place: &str) -> String {
    format!(
        "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {{name: one-place, namespace: shop}}
spec:
  podSelector: {{matchLabels: {{policed: 'yes'}}}}
  policyTypes: [Egress]
  egress: [{{to: [{{ipBlock: {{cidr: {place}/32}}}}]}}]
"
    )
}

const NOTHING: &str = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: nothing, namespace: gw}
spec: {podSelector: {}, policyTypes: [Ingress, Egress]}
";

/// What the server says; the address may be left open.
fn seen_as(address: &str) -> String {
    if address.is_empty() { "you are ".to_owned() } else { format!("you are [::ffff:{address}]") }
}

struct Pod {
    name: String,
    node: String,
    address: String,
}

/// One pod of a Deployment on each node that has any.
fn pods(lab: &Lab, of: &str) -> Vec<Pod> {
    let said = lab.kubectl(&["get", "pods", "-n", "shop", "-l", &format!("app={of}"), "-o", "json"], "");
    let list: Value = serde_json::from_str(&said).unwrap();
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let pods = list["items"].as_array().unwrap().iter().map(|pod| Pod {
        name: word(&pod["metadata"]["name"]),
        node: word(&pod["spec"]["nodeName"]),
        address: word(&pod["status"]["podIP"]),
    });
    let all: Vec<Pod> = pods.collect();
    let (mut first, second): (Vec<Pod>, Vec<Pod>) = all.into_iter().partition(|pod| pod.node == "node1");
    first.truncate(1);
    first.extend(second.into_iter().take(1));
    assert!(!first.is_empty());
    first
}

fn get(to: &str) -> std::io::Result<String> {
    let address = to.parse().map_err(std::io::Error::other)?;
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(2))?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    stream.write_all(b"GET /cgi-bin/who HTTP/1.0\r\n\r\n")?;
    let mut said = String::new();
    stream.read_to_string(&mut said)?;
    Ok(said)
}
