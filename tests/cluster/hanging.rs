//! A request that the server takes and never answers: who needs that answer waits, within bounds, and nobody else does. Told by whole
//! calls: a runtime's, in pods' network namespaces, through the agent's socket.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use egret::addr::Family;
use egret::kube::Client;
use egret::store::objects::Objects;
use egret::testbed::{CnitoolError, Outside, Pod};
use serde_json::{Value, json};

use crate::proxy::{Fate, Proxy};
use crate::server::kubectl;
use crate::trouble::{namespace, node};
use crate::wired::{Bridge, NODE, Wired, aside};
use crate::world::*;

/// A request is given up after 10 s, so whoever waited behind one took longer than this.
const OTHERS: Duration = Duration::from_secs(8);
const NAMESPACES: [&str; 3] = ["hang", "well", "leases"];
/// What makes a pod a gateway, and what a client of that gateway.
pub(crate) const LEASE: (&str, &str) = ("cni.projectcalico.org/ipv4pools", "[\"leases\"]");
pub(crate) const SELECTS: [(&str, &str); 2] = [
    ("egress.projectcalico.org/selector", "app == 'gw'"),
    ("egress.projectcalico.org/namespaceSelector", "projectcalico.org/name == 'leases'"),
];

/// A pool, and a gateway with a lease of it that runs; its UID.
pub(crate) fn leased_gateway(client: &Client) -> String {
    let pool = json!({"apiVersion": "egret.dev/v1alpha1", "kind": "EgressPool", "metadata": {"name": "leases"},
        "spec": {"cidr": "10.10.10.4/30", "gatewayNamespaces": "all()", "clientNamespaces": "all()"}});
    client.create("/apis/egret.dev/v1alpha1/egresspools", &pool).unwrap();
    let uid = pod(client, "leases/gw", &[LEASE]);
    // There is no kubelet that would say so.
    let running = r#"{"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}}"#;
    kubectl(
        &["patch", "pod", "gw", "-n", "leases", "--subresource=status", "--type=merge", "-p", running],
        "",
    );
    uid
}

/// A pod of the node, as the API server has it; its UID.
pub(crate) fn pod(client: &Client, name: &str, annotations: &[(&str, &str)]) -> String {
    let (namespace, name) = name.split_once('/').unwrap();
    let annotations: serde_json::Map<String, Value> =
        annotations.iter().map(|(key, value)| ((*key).to_owned(), (*value).into())).collect();
    let pod = json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "annotations": annotations, "labels": {"app": name}},
        "spec": {"nodeName": NODE, "containers": [{"name": "c", "image": "x"}]}});
    let made = client.create(&format!("/api/v1/namespaces/{namespace}/pods"), &pod).unwrap();
    made["metadata"]["uid"].as_str().unwrap().to_owned()
}

/// How long a whole ADD took and how it ended.
fn timed(node: &Wired, pod: &str, uid: &str) -> (Duration, Result<Pod, CnitoolError>) {
    let began = Instant::now();
    let outcome = node.add(pod, uid);
    (began.elapsed(), outcome)
}

/// The address that the outside sees.
pub(crate) fn seen(pod: &Pod) -> Option<IpAddr> {
    pod.tcp(Outside::Near.address(Family::V4)).ok()
}

#[test]
fn one_request_that_is_never_answered_delays_no_other_pod_and_its_own_is_answered_in_time() {
    let _alone = alone();
    let client = client_of("admin");
    forget(&client);
    node(&client, NODE);
    for name in NAMESPACES {
        namespace(&client, name);
    }
    let first = leased_gateway(&client);
    let (proxy, bridge) = (Proxy::start(), Bridge::find());
    aside(|| {
        let node = Wired::raise(&bridge, &proxy);
        story(&node, &Api { client: &client, bridge: &bridge, proxy: &proxy }, &first);
    });
    for name in NAMESPACES {
        kubectl(&["delete", "pods", "-n", name, "--all", "--force", "--grace-period=0"], "");
    }
    forget(&client);
}

/// The API server, as the test itself speaks to it from its world, and the proxy that stands before the agent's end.
struct Api<'a> {
    client: &'a Client,
    bridge: &'a Bridge,
    proxy: &'a Proxy,
}

impl Api<'_> {
    fn pod(&self, name: &str, annotations: &[(&str, &str)]) -> String {
        self.bridge.run(|| pod(self.client, name, annotations))
    }

    /// From now on requests with one of these parts are taken and never answered.
    fn is_silent(&self, to: &'static [&'static str]) {
        self.proxy.judge(move |line| match to.iter().any(|part| line.contains(part)) {
            true => Fate::Silence,
            false => Fate::Pass,
        });
    }

    fn annotate(&self, namespace: &str, (key, value): (&str, &str)) {
        self.bridge.run(|| {
            let path = format!("/api/v1/namespaces/{namespace}");
            let mut object = self.client.get(&path).unwrap();
            object["metadata"]["annotations"][key] = value.into();
            self.client.replace(&path, &object).unwrap();
        });
    }
}

fn story(node: &Wired, api: &Api<'_>, first: &str) {
    // What the node has to say, a question about a namespace, and the books: three calls of three threads.
    api.is_silent(&["POST /apis/egret.dev/v1alpha1/egressendpoints"]);
    let gateway = node.add("leases/gw", first).unwrap();
    let lease = node.lease(&gateway);
    node.eventually("the endpoint is being said", || {
        api.proxy.asked("POST /apis/egret.dev/v1alpha1/egressendpoints") > 0
    });
    api.is_silent(&[
        "POST /apis/egret.dev/v1alpha1/egressendpoints",
        "GET /api/v1/namespaces/hang",
        "/egressblocks",
    ]);
    let (stuck, late) = (api.pod("hang/stuck", &[]), api.pod("leases/late", &[LEASE]));
    std::thread::scope(|scope| {
        let slow = scope.spawn(|| timed(node, "hang/stuck", &stuck));
        let claims = scope.spawn(|| timed(node, "leases/late", &late));
        node.eventually("both wait", || {
            api.proxy.asked("GET /api/v1/namespaces/hang") > 0 && api.proxy.asked("/egressblocks") > 1
        });
        // Of those whom something selects and of the others: one at least comes and goes while both hang. A busy machine has no time for more.
        let mut quick = [0; 2];
        for n in 0..6 {
            let (name, selects) = (format!("well/p{n}"), n % 2 == 0);
            let uid = api.pod(&name, if selects { &SELECTS } else { &[] });
            let (took, other) = timed(node, &name, &uid);
            let other = other.unwrap();
            // The gateway of this node serves, though the cluster has not heard of it.
            assert_eq!(seen(&other) == Some(lease), selects, "{name}: {:?}", seen(&other));
            let began = Instant::now();
            node.world.stop_sandbox(&other).unwrap();
            println!("{name}: {took:?}, and {:?} for its end", began.elapsed());
            let meanwhile = !slow.is_finished() && !claims.is_finished();
            quick[usize::from(selects)] +=
                usize::from(meanwhile && took < OTHERS && began.elapsed() < OTHERS);
        }
        assert!(quick.iter().all(|count| *count > 0), "all waited for another pod's answer: {quick:?}");
        // What is heard goes on reaching the disk, from where the kernel follows.
        let reaches_disk = |value: &str| {
            api.annotate("well", ("egret.dev/told", value));
            let began = Instant::now();
            node.eventually("an annotation is on disk", || {
                let well = Objects::look(&node.state()).unwrap().namespace("well").unwrap();
                well.annotations.get("egret.dev/told").is_some_and(|found| found == value)
            });
            began.elapsed()
        };
        let took = ["b", "c", "d"].map(reaches_disk);
        assert!(took.iter().any(|one| *one < OTHERS), "annotations wait for what is said: {took:?}");
        let (asked, claimed) = (slow.join().unwrap(), claims.join().unwrap());
        for (what, (took, outcome)) in [("question", &asked), ("claim", &claimed)] {
            println!("the pod whose {what} hangs: {took:?}, {outcome:?}");
            assert!(*took > Duration::from_secs(5), "{what}: {took:?}");
        }
        // That the agent answered, and the plugin did not give up after 30 s, is in these sentences. Neither is anything to guess: what was annotated before a pod that never ran, and a lease.
        let why = asked.1.unwrap_err().said;
        assert!(why.contains("nobody can say whether namespace hang was annotated"), "{why}");
        let why = claimed.1.unwrap_err().said;
        assert!(why.contains("does not answer in time"), "{why}");
    });
    api.is_silent(&[]);
    let mut again = None;
    node.eventually("it starts when it is tried again", || {
        again = node.add("leases/late", &late).ok();
        again.is_some()
    });
    assert_ne!(node.lease(&again.unwrap()), lease);
}
