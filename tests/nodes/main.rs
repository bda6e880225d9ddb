//! Real kubelets start real pods, containerd calls the plugin, the plugin asks the agent, and the outside says whom it saw.
//!
//! `scripts/cluster` raises etcd, the API server, controllers, and two nodes with containerd, kubelet and kube-proxy. One cluster serves the
//! whole story, because raising another costs more than telling it. `EGRET_NODES_PROXY` and `EGRET_NODES_PRIMARY` change what it stands on;
//! `scripts/soak` does.
#![allow(clippy::print_stdout, reason = "how long things take is worth a line")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic in a test is its report")]

mod addresses;
mod bypassed;
mod families;
mod guides;
mod lab;
mod live;
mod overlay;
mod own;
mod services;
mod upheaval;
mod world;

use std::collections::BTreeSet;
use std::process::Child;
use std::time::Duration;

use lab::{Lab, OUTSIDE};
use serde_json::Value;
use world::{WORLD, callers};

/// node1 and node2.
const PROXIES: &str = "nftables,iptables";
const PRIMARIES: &str = "bridge,ptp";

fn only(address: &str) -> BTreeSet<String> {
    BTreeSet::from([address.to_owned()])
}

/// What a node's own `egret explain` says that the outside will see.
fn predicted(lab: &Lab, node: &str, pod: &str) -> BTreeSet<String> {
    let config = "/etc/cni/net.d/10-net.conflist";
    let egret = ["/opt/cni/bin/egret", "explain", "--config", config, "-o", "json", pod, OUTSIDE];
    let said: Value = serde_json::from_str(&lab.on(node, &egret)).unwrap_or_default();
    serde_json::from_value(said["items"][0]["sources"].clone()).unwrap_or_default()
}

fn lease(lab: &Lab) -> String {
    lab.kubectl(&["get", "eep", "-o", "jsonpath={.items[*].spec.addresses[0].ip}"], "")
}

fn scale(lab: &Lab, namespace: &str, name: &str, replicas: usize) {
    let count = format!("--replicas={replicas}");
    lab.kubectl(&["scale", "deployment", "-n", namespace, name, &count], "");
}

#[test]
fn a_deployment_annotated_by_its_namespace_leaves_with_its_gateways_address_whatever_is_away() {
    let on = |key: &str, or: &str| std::env::var(key).unwrap_or_else(|_| or.to_owned());
    let (proxies, primaries) = (on("EGRET_NODES_PROXY", PROXIES), on("EGRET_NODES_PRIMARY", PRIMARIES));
    let lab = Lab::raise("nodes", &proxies, &primaries);
    let mut agents = [1, 2].map(|node| Some(lab.agent(node)));
    let address = begins(&lab);
    tells(&lab);
    begins_again(&lab, &mut agents);
    services::stay_inside_and_answers_go_back_the_way_they_came(&lab, &address);
    services::network_policies_hold_towards_a_gateway(&lab, &address);
    without_an_agent(&lab, &mut agents, &address);
    without_a_program_of_kubernetes(&lab, &address);
    a_gateway_follows_its_pod(&lab, &address);
    follows_its_annotations(&lab, &address);
    follows_its_gateway(&lab, &address);
    comes_back_after_a_reboot(&lab, &mut agents, &address);
    is_drained_and_ends(&lab, &address);
    println!("soak: the whole story on kube-proxy {proxies}, primary {primaries}");
}

/// From the first packet on; the address.
fn begins(lab: &Lab) -> String {
    lab.kubectl(&["apply", "-f", "-"], WORLD);
    lab.kubectl(&["apply", "-f", "-"], &callers("shop", "cart", 4));
    lab.kubectl(&["apply", "-f", "-"], &callers("plain", "plain", 2));
    lab.eventually("all clients are heard", || lab.who("cart").len() == 4);
    lab.eventually("and those whom nothing selects", || lab.who("plain").len() == 2);
    let address = lease(lab);
    lab.shows_only(&address);
    assert_eq!(lab.seen("plain"), ["172.31.0.1", "172.31.0.2"].map(str::to_owned).into());
    for (pod, node) in lab.running("shop") {
        assert_eq!(predicted(lab, &node, &format!("shop/{pod}")), only(&address));
    }
    obeys_before_it_begins(lab, &address);
    address
}

/// What an init container says, too, is said with the gateway's address: in a namespace that was annotated the instant before.
fn obeys_before_it_begins(lab: &Lab, address: &str) {
    lab.kubectl(&["apply", "-f", "-"], world::BEFORE);
    lab.eventually("init containers are heard", || lab.who("early").len() == 2);
    assert_eq!(lab.seen("early"), only(address));
    lab.shows_only(address);
    lab.kubectl(&["delete", "namespace", "before"], "");
    upheaval::only_pods_that_run_are_wired(lab);
}

/// Over HTTP: nobody waited for the API server, or once at most, and it was asked no more than once a pod for each thing.
fn tells(lab: &Lab) {
    for node in [1, 2] {
        assert!(lab.page(node, "/readyz").starts_with("HTTP/1.1 200"), "{}", lab.page(node, "/readyz"));
        assert!(lab.page(node, "/healthz").ends_with("ok\n"));
        let adds = lab.counted(node, "egret_cni_requests_total", "verb=\"ADD\"");
        let by = |how: &str| lab.counted(node, "egret_cni_freshness_total", &format!("\"{how}\""));
        assert_eq!((by("memory"), by("none")), (0.0, 0.0), "{}", lab.page(node, "/metrics"));
        assert!(adds >= 3.0 && by("known") + by("answer") <= adds, "{}", lab.page(node, "/metrics"));
        for of in ["namespace", "policies"] {
            let reads = lab.counted(node, "egret_kube_fresh_reads_total", of);
            assert!(reads > 0.0 && reads <= adds, "{of}: {reads} of {adds}");
        }
        let page = lab.page(node, "/metrics");
        let said: Vec<&str> = page.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
        let all = include_str!("../../docs/metrics.md");
        let (_, agents) = all.split_once("## What the agent counts").unwrap();
        let documented = agents.split("\n## ").next().unwrap().lines().filter_map(|line| {
            let mut words = line.strip_prefix("| `egret_")?.split("` | ").chain([""]);
            Some(format!("egret_{} {}", words.next()?, words.next()?.split(' ').next()?))
        });
        assert_eq!(said, documented.collect::<Vec<_>>(), "docs/metrics.md");
        println!("node{node}: {adds} ADDs, {} waited for no answer, {} for one", by("known"), by("answer"));
    }
}

/// With everything as it is, an agent that was killed and started anew takes no step.
fn begins_again(lab: &Lab, agents: &mut [Option<Child>; 2]) {
    lab.kill_agent(1, agents[0].take().unwrap());
    agents[0] = Some(lab.agent(1));
    lab.eventually("an agent that was killed is ready again", || {
        lab.page(1, "/readyz").starts_with("HTTP/1.1 200")
            && lab.counted(1, "egret_watch_lists_total", "") >= 15.0
    });
    std::thread::sleep(Duration::from_secs(2)); // whatever it would do, it would do by now
    assert_eq!(lab.counted(1, "egret_reconcile_steps_total", ""), 0.0, "{}", lab.log_of_agent(1));
}

fn without_an_agent(lab: &Lab, agents: &mut [Option<Child>; 2], address: &str) {
    lab.kill_agent(2, agents[1].take().unwrap());
    lab.forget();
    scale(lab, "shop", "cart", 6);
    scale(lab, "plain", "plain", 4);
    lab.eventually("whom nothing selects starts without an agent", || lab.who("plain").len() == 4);
    lab.eventually("a client of the other node starts", || lab.who("cart").len() == 5);
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(lab.who("cart").len(), 5, "the sixth waits, the others go on");
    lab.shows_only(address);
    let ready = lab.kubectl(&["get", "nodes", "--no-headers"], "");
    assert_eq!(ready.matches(" Ready ").count(), 2, "{ready}");

    // And without the API server: what is known on disk is enough to keep the node true.
    lab.api_server(true);
    agents[1] = Some(lab.agent(2));
    lab.eventually("an agent starts without the API server", || {
        lab.log_of_agent(2).contains("cannot follow objects") && lab.state_of_agent(2)["health"] == "well"
    });
    lab.on("node2", &["nft", "delete", "table", "inet", "egret"]);
    lab.eventually("and repairs", || {
        lab.on("node2", &["nft", "list", "table", "inet", "egret"]).contains("chain")
    });
    lab.forget();
    lab.eventually("clients go on", || lab.who("cart").len() == 5);
    lab.shows_only(address);
    lab.api_server(false);
    lab.eventually("with the API server back the sixth starts", || lab.who("cart").len() == 6);
    lab.shows_only(address);
}

/// Each is killed while clients call; they are heard on, and the next pod starts and obeys.
fn without_a_program_of_kubernetes(lab: &Lab, address: &str) {
    let programs = [("node2", "kubelet"), ("node2", "containerd"), ("", "apiserver")];
    for (at, (place, program)) in programs.into_iter().enumerate() {
        lab.forget();
        lab.kill(place, program);
        lab.shows_only_after(address, 6 + at, "clients were heard");
        let next = format!("--replicas={}", 7 + at);
        lab.eventually("the next one is asked for", || {
            lab.try_kubectl(&["scale", "deployment", "-n", "shop", "cart", &next], "").is_ok()
        });
        lab.eventually("the next one is heard", || lab.who("cart").len() == 7 + at);
        lab.shows_only(address);
    }
    scale(lab, "shop", "cart", 4);
    lab.eventually("four are left", || {
        lab.kubectl(&["get", "pods", "-n", "shop", "-l", "app=cart", "--no-headers"], "").lines().count() == 4
    });
}

fn follows_its_annotations(lab: &Lab, address: &str) {
    let annotate = |selector: &str, namespaces: &str| {
        let words = [
            format!("egress.projectcalico.org/selector{selector}"),
            format!("egress.projectcalico.org/namespaceSelector{namespaces}"),
        ];
        lab.kubectl(&["annotate", "namespace", "shop", "--overwrite", &words[0], &words[1]], "");
    };
    annotate("-", "-");
    lab.hears(Duration::from_secs(1), "clients are let go", || {
        lab.who("cart").len() == 4 && !lab.seen("cart").contains(address)
    });
    annotate("=app == 'gw'", "=projectcalico.org/name == 'gw'");
    lab.hears(Duration::from_secs(1), "and taken in again", || {
        lab.who("cart").len() == 4 && lab.seen("cart") == only(address)
    });
    lab.forget();
    std::thread::sleep(Duration::from_secs(1));
    lab.eventually("they are heard on", || lab.who("cart").len() == 4);
    lab.shows_only(address);
}

/// Restarted, and moved: it keeps its address, and meanwhile nobody leaves with another.
fn follows_its_gateway(lab: &Lab, address: &str) {
    let endpoint =
        || lab.kubectl(&["get", "eep", "-o", "jsonpath={.items[*].spec.uid}/{.items[*].spec.node}"], "");
    // For a moment there are two: the old one's, and the new one's.
    let one = || Some(endpoint()).filter(|said| said.contains("/node") && !said.contains(' '));
    let was = endpoint();
    lab.forget();
    lab.kubectl(&["delete", "pod", "-n", "gw", "red-0"], "");
    lab.eventually("the gateway is another pod", || one().is_some_and(|now| now != was));
    assert_eq!(lease(lab), address);
    lab.shows_only_after(address, 4, "its clients go on");

    let to = |node: &str| {
        format!(
            r#"{{"spec":{{"template":{{"spec":{{"nodeSelector":{{"kubernetes.io/hostname":"{node}"}}}}}}}}}}"#
        )
    };
    lab.kubectl(&["patch", "statefulset", "-n", "gw", "red", "-p", &to("node2")], "");
    lab.eventually("the gateway is on the other node", || one().is_some_and(|now| now.ends_with("/node2")));
    assert_eq!(lease(lab), address);
    lab.shows_only_after(address, 4, "its clients follow");

    lab.kubectl(&["scale", "statefulset", "-n", "gw", "red", "--replicas=0"], "");
    lab.eventually("without a gateway there is no endpoint", || lease(lab).is_empty());
    lab.hears(Duration::from_secs(1), "and clients are held, not let out", || lab.packets() == 0);
    services::the_api_server_is_inside(lab, address);
    lab.kubectl(&["scale", "statefulset", "-n", "gw", "red", "--replicas=1"], "");
    lab.shows_only_after(address, 4, "the next gateway serves");
}

/// First the gateway's node, then the other. Its pods are started anew before its agent is there, and nobody leaves with another address;
/// the gateway keeps its own.
fn comes_back_after_a_reboot(lab: &Lab, agents: &mut [Option<Child>; 2], address: &str) {
    lab.kubectl(&["delete", "pods", "-n", "shop", "-l", "app=cart"], "");
    let on = |place: &str| lab.running("shop").iter().filter(|(_, at)| at == place).count();
    lab.eventually("each node has two clients", || (on("node1"), on("node2")) == (2, 2));
    for node in [2, 1] {
        let place = format!("node{node}");
        lab.shows_only_after(address, 4, "clients are heard before");
        let refused = || {
            let rows = "jsonpath={range .items[*]}{.source.host} {.count}{\"\\n\"}{end}";
            let events = ["get", "events", "-n", "shop", "-o", rows];
            let said =
                lab.kubectl(&[&events[..], &["--field-selector=reason=FailedCreatePodSandBox"]].concat(), "");
            let here = said.lines().filter_map(|row| row.strip_prefix(&place)?.trim().parse::<u64>().ok());
            here.sum::<u64>()
        };
        let before = refused();
        lab.reboot(node, agents[usize::from(node - 1)].take().unwrap());
        lab.eventually("its kubelet wants to start its clients", || refused() > before);
        agents[usize::from(node - 1)] = Some(lab.agent(node));
        lab.eventually("the gateway has an endpoint", || lease(lab) == address);
        lab.shows_only_after(address, 4, &format!("{place} was rebooted"));
        lab.eventually("and those whom nothing selects are heard", || lab.who("plain").len() == 4);
        println!("{}", lab.kubectl_egret(&["ipam", "check"]));
    }
}

/// Clients of a node that is drained go to the other one; when they end, nothing of them is left.
fn is_drained_and_ends(lab: &Lab, address: &str) {
    lab.forget();
    lab.kubectl(&["drain", "node1", "--ignore-daemonsets", "--force", "--timeout=120s"], "");
    lab.eventually("all clients are on one node", || {
        let pods = lab.running("shop");
        pods.len() == 4 && pods.iter().all(|(_, node)| node == "node2")
    });
    lab.shows_only_after(address, 4, "and are heard");
    lab.kubectl(&["uncordon", "node1"], "");
    lab.kubectl(&["delete", "deployment", "-n", "shop", "cart"], "");
    for node in ["node1", "node2"] {
        lab.eventually("nothing of them is left in the kernel", || {
            !lab.on(node, &["nft", "list", "map", "inet", "egret", "binding4"]).contains("10.244.")
        });
    }
}

/// A second gateway on the other node, whose pod becomes ready, unready, ready again, and ends slowly.
fn a_gateway_follows_its_pod(lab: &Lab, first: &str) {
    let state = || {
        let filter = "{range .items[*]}{.spec.pod} {.spec.state} {.spec.addresses[0].ip}{\"\\n\"}{end}";
        let all = lab.kubectl(&["get", "eep", "-o", &format!("jsonpath={filter}")], "");
        let row = all.lines().find(|row| row.starts_with("gw/two ")).unwrap_or_default().to_owned();
        row.split(' ').skip(1).map(str::to_owned).collect::<Vec<_>>()
    };
    let is = |word: &str| state().first().is_some_and(|found| found == word);
    let ready = |word: &str| {
        let patch = format!(
            "{{\"status\": {{\"conditions\": [{{\"type\": \"lab.local/ok\", \"status\": \"{word}\"}}]}}}}"
        );
        lab.kubectl(&["patch", "pod", "-n", "gw", "two", "--subresource=status", "-p", &patch], "");
    };
    lab.kubectl(&["apply", "-f", "-"], SECOND);
    lab.eventually("a gateway whose pod is not ready yet is starting", || is("starting"));
    let second = state()[1].clone();
    lab.forget();
    lab.eventually("it takes no flows", || lab.who("cart").len() >= 4);
    assert_eq!(lab.seen("cart"), only(first));
    ready("True");
    lab.eventually("with its pod it becomes ready", || is("ready"));
    let both = BTreeSet::from([first.to_owned(), second.clone()]);
    lab.eventually("and takes flows", || lab.seen("cart") == both);
    ready("False");
    lab.eventually("with a pod that is not ready it drains", || is("draining"));
    let elsewhere = || lab.who("cart").len() == 4 && lab.seen("cart") == only(first);
    lab.hears(Duration::from_secs(1), "new flows go elsewhere", elsewhere);
    ready("True");
    lab.eventually("ready again", || is("ready"));
    lab.kubectl(&["delete", "pod", "-n", "gw", "two", "--wait=false"], "");
    lab.eventually("it drains while its pod ends", || is("draining"));
    lab.eventually("and is gone with it", || state().is_empty());
    lab.hears(Duration::from_secs(1), "the first serves all", elsewhere);
}

const SECOND: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: two, namespace: gw, labels: {app: gw}, annotations: {cni.projectcalico.org/ipv4pools: '["red"]'}}
spec:
  nodeName: node2
  terminationGracePeriodSeconds: 4
  readinessGates: [{conditionType: lab.local/ok}]
  containers: [{name: c, image: "lab.local/busybox:1", imagePullPolicy: Never, command: [sleep, "100000"]}]
"#;
