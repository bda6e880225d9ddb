//! An agent that starts anew, and one whose words are taken back: what was known goes on, whatever is away by then.

use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use egret::agent::cluster::NOT_SEEN;
use egret::agent::door::Gate;
use egret::config::Project;
use egret::egress::model::Endpoint;
use egret::kube::{Client, Mirror, Watched};
use egret::store::objects::Objects;
use egret::store::{Dir, endpoints, nodes};
use egret::testbed::within;
use serde_json::{Value, json};

use crate::follower::{Follower, follow, follow_adopting, follow_again};
use crate::following::{egret_crds, follow_here};
use crate::proxy::{Fate, Proxy, refusal};
use crate::server::kubectl;
use crate::trouble::{add, namespace, node};
use crate::world::*;

pub(crate) const CILIUMS: &str = "ciliumegressgatewaypolicies.cilium.io";

#[track_caller]
pub(crate) fn eventually(what: &str, so: impl FnMut() -> bool) {
    assert!(within(Duration::from_secs(120), Duration::from_millis(50), so).is_some(), "never: {what}");
}

pub(crate) fn cilium(name: &str) -> String {
    json!({"apiVersion": "cilium.io/v2", "kind": "CiliumEgressGatewayPolicy", "metadata": {"name": name}, "spec": {
        "selectors": [{"podSelector": {}}], "destinationCIDRs": ["0.0.0.0/0"], "egressGateway": {"nodeSelector": {}}}})
    .to_string()
}

pub(crate) fn apply(text: &str) {
    kubectl(&["apply", "--server-side", "-f", "-"], text);
}

/// Whether the node reads an object of that name in its copy.
pub(crate) fn has(agent: &Follower, file: &str, name: &str) -> bool {
    let path = agent.dir.join("objects/cluster").join(file);
    fs::read_to_string(path).is_ok_and(|text| text.contains(&format!("\"{name}\"")))
}

/// A pod of a node; its UID.
fn pod(client: &Client, namespace: &str, name: &str, node: &str) -> String {
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": namespace},
        "spec": {"nodeName": node, "containers": [{"name": "c", "image": "x"}]}});
    let made = client.create(&format!("/api/v1/namespaces/{namespace}/pods"), &pod).unwrap();
    made["metadata"]["uid"].as_str().unwrap().to_owned()
}

#[test]
fn adopted_objects_that_go_with_their_definition_stay_in_force_also_for_the_next_agent() {
    const FILE: &str = "CiliumEgressGatewayPolicy.json";
    let _alone = alone();
    let client = client_of("admin");
    forget(&client);
    node(&client, "adopts");
    apply(&cilium("outlives"));
    apply(&cilium("goes"));
    let first = follow_adopting(&Proxy::start(), "adopts", &[Project::Cilium]);
    first.synced();
    eventually("both are heard of", || has(&first, FILE, "outlives") && has(&first, FILE, "goes"));
    kubectl(&["delete", "cegp", "goes"], "");
    eventually("one that is deleted for itself goes", || !has(&first, FILE, "goes"));

    let said = |agent: &Follower, part: &str| {
        let problems = agent.cluster.problems();
        problems.iter().any(|p| {
            p.object == "CiliumEgressGatewayPolicy" && p.reason == NOT_SEEN && p.message.contains(part)
        })
    };
    kubectl(&["delete", "crd", CILIUMS], "");
    eventually("it is said", || said(&first, "404"));
    assert!(has(&first, FILE, "outlives"), "with its definition every pod that it selects would be let out");

    let proxy = Proxy::start();
    let next = follow_again(&proxy, first);
    eventually("the next agent says it, too", || said(&next, "404"));
    assert!(has(&next, FILE, "outlives"));
    apply(&egret_crds());
    apply(
        &fs::read_to_string(egret::testbed::repository().join(format!("deploy/foreign-crds/{CILIUMS}.yaml")))
            .unwrap(),
    );
    kubectl(&["wait", "--for=condition=Established", "crd", CILIUMS, "--timeout=120s"], "");
    eventually("it was made anew, and is empty", || said(&next, "outlives stay in force"));
    assert!(has(&next, FILE, "outlives"));
    apply(&cilium("outlives"));
    eventually("it is there again", || !said(&next, ""));
    kubectl(&["delete", "cegp", "outlives"], "");
    eventually("and goes when somebody means it", || !has(&next, FILE, "outlives"));
}

#[test]
fn an_adopted_policy_that_was_made_the_instant_before_its_pods_is_obeyed_though_its_watch_is_late() {
    let _alone = alone();
    let client = client_of("admin");
    forget(&client);
    node(&client, "lags");
    namespace(&client, "lags");
    let proxy = Proxy::start();
    let late = Duration::from_secs(20);
    proxy.judge(move |line| {
        match line.contains("/ciliumegressgatewaypolicies?") && line.contains("watch=1") {
            true => Fate::Lag(late),
            false => Fate::Pass,
        }
    });
    let agent = follow_adopting(&proxy, "lags", &[Project::Cilium]);
    agent.synced();
    eventually("it is followed", || proxy.asked("ciliumegressgatewaypolicies?resourceVersion=") > 0);
    apply(&cilium("late"));
    let made = Instant::now();
    let uid = pod(&client, "lags", "one", "lags");
    agent.cluster.fresh(&add("lags", "one", &uid)).unwrap();
    assert!(has(&agent, "CiliumEgressGatewayPolicy.json", "late"), "its first packet would leave as itself");
    assert!(made.elapsed() < late, "the watch was there before, so nothing was shown");
    drop(agent);
    kubectl(&["delete", "pods", "-n", "lags", "--all", "--force", "--grace-period=0"], "");
    forget(&client);
}

/// Its namespace was annotated while there was no agent, and the list of namespaces takes its time.
#[test]
fn an_agent_that_has_just_started_decides_by_nothing_older_than_the_pod() {
    let _alone = alone();
    let client = client_of("admin");
    node(&client, "starts");
    namespace(&client, "starts");
    let first = follow(&Proxy::start(), "starts");
    first.synced();
    let proxy = Proxy::start();
    let late = Duration::from_secs(20);
    proxy.judge(move |line| match line.starts_with("GET /api/v1/namespaces?") {
        true => Fate::Lag(late),
        false => Fate::Pass,
    });
    let next = follow_again(&proxy, first);
    let mut object = client.get("/api/v1/namespaces/starts").unwrap();
    object["metadata"]["annotations"] = json!({"egress.projectcalico.org/selector": "app == 'gw'"});
    client.replace("/api/v1/namespaces/starts", &object).unwrap();
    let began = Instant::now();
    let uid = pod(&client, "starts", "one", "starts");
    next.cluster.fresh(&add("starts", "one", &uid)).unwrap();
    let annotations = Objects::look(&next.dir).unwrap().namespace("starts").unwrap().annotations;
    assert!(annotations.contains_key("egress.projectcalico.org/selector"), "{annotations:?}");
    assert!(began.elapsed() < late, "the list was there before, so nothing was shown");
    drop(next);
    kubectl(&["delete", "pods", "-n", "starts", "--all", "--force", "--grace-period=0"], "");
}

/// Of several API servers one lags: its memory answers with what was true before (kubernetes/kubernetes#59848).
#[test]
fn an_agent_that_starts_anew_does_not_go_back_to_what_was_true_before_its_predecessor_ended() {
    const SELECTOR: &str = "egress.projectcalico.org/selector";
    let _alone = alone();
    let client = client_of("admin");
    node(&client, "past");
    namespace(&client, "past");
    let before = client.get("/api/v1/namespaces").unwrap();
    let first = follow(&Proxy::start(), "past");
    first.synced();
    let mut object = client.get("/api/v1/namespaces/past").unwrap();
    object["metadata"]["annotations"] = json!({SELECTOR: "app == 'gw'"});
    client.replace("/api/v1/namespaces/past", &object).unwrap();
    eventually("the annotation is heard of", || has(&first, "Namespace.json", SELECTOR));
    let proxy = Proxy::start();
    let lags = before["metadata"]["resourceVersion"].as_str().unwrap().parse::<u64>().unwrap();
    proxy.judge(move |line| {
        let since = line.split_once("NotOlderThan&resourceVersion=").map(|(_, since)| since);
        let since = since.map(|since| since.split(['&', ' ']).next().unwrap().parse::<u64>().unwrap());
        match since.filter(|_| line.starts_with("GET /api/v1/namespaces?")) {
            Some(since) if since <= lags => Fate::Answer(200, before.to_string()),
            Some(_) => refusal(504, "Timeout", "Too large resource version"),
            None => Fate::Pass,
        }
    });
    let next = follow_again(&proxy, first);
    eventually("it watches", || proxy.asked("GET /api/v1/namespaces?resourceVersion=") > 0);
    next.synced();
    assert!(has(&next, "Namespace.json", SELECTOR), "clients of that namespace would be let go");
    let asked = proxy.asked("NotOlderThan&resourceVersion=0");
    assert_eq!(
        proxy.listed("/api/v1/namespaces"),
        2,
        "from memory, and then from the store ({asked} of any age)"
    );
    drop(next);
    object["metadata"]["annotations"] = json!({});
    object["metadata"].as_object_mut().unwrap().remove("resourceVersion");
    client.replace("/api/v1/namespaces/past", &object).unwrap();
}

/// Behind a load balancer, or without its store, an API server that is away still says something.
#[test]
fn an_agent_that_starts_while_nobody_can_say_anything_starts_again_the_pods_that_its_predecessor_knew() {
    let _alone = alone();
    let client = client_of("admin");
    node(&client, "dark");
    namespace(&client, "dark");
    let [uid, never] = ["one", "never"].map(|name| pod(&client, "dark", name, "dark"));
    // There is no kubelet that would say so.
    let running =
        r#"{"status": {"phase": "Running", "podIP": "10.244.0.9", "podIPs": [{"ip": "10.244.0.9"}]}}"#;
    kubectl(
        &["patch", "pod", "one", "-n", "dark", "--subresource=status", "--type=merge", "-p", running],
        "",
    );
    let first = follow(&Proxy::start(), "dark");
    first.synced();
    eventually("both are heard of", || has(&first, "Pod.json", "one") && has(&first, "Pod.json", "never"));
    let proxy = Proxy::start();
    proxy.judge(|line| match line.contains("/pods") {
        true => refusal(503, "ServiceUnavailable", "no server is available"),
        false => refusal(500, "InternalError", "etcdserver: request timed out"),
    });
    let next = follow_again(&proxy, first);
    let asked = |uid: &str| {
        let name = if uid == never { "never" } else { "one" };
        next.cluster.fresh(&add("dark", name, uid)).map_err(|error| error.to_string())
    };
    let began = Instant::now();
    let early = asked(&uid).unwrap_err();
    assert!(early.contains("etcdserver: request timed out"), "{early}");
    eventually("a pod that is known for long starts again", || asked(&uid).is_ok());
    let waits = asked(&never).unwrap_err();
    assert!(
        waits.contains("nobody can say whether namespace dark was annotated"),
        "one that never ran: {waits}"
    );
    assert!(
        began.elapsed() > Duration::from_secs(8),
        "what it may go by may be younger: {:?}",
        began.elapsed()
    );
    let other = asked("0000").unwrap_err();
    assert!(other.contains("nothing is known of pod dark/one yet"), "another pod of its name: {other}");
    drop(next);
    kubectl(&["delete", "pods", "-n", "dark", "--all", "--force", "--grace-period=0"], "");
}

fn endpoint(dir: &std::path::Path) -> Endpoint {
    let endpoint = json!({"pod": "gw/own", "attachment": "net/own/eth0", "node": "speaks", "underlay": ["172.31.0.9"], "vni": 5001,
        "mac": "02:67:0a:f4:00:09", "addresses": [{"ip": "10.244.0.9", "pool": "own"}], "state": "draining", "generation": 1});
    let endpoint: Endpoint = serde_json::from_value(endpoint).unwrap();
    let dir = Dir::open(dir).unwrap();
    let guard = dir.lock("a test", Duration::from_secs(10)).unwrap();
    endpoints::put(&dir, &guard, &endpoint).unwrap();
    endpoint
}

#[test]
fn what_a_node_has_said_is_said_again_when_somebody_deletes_or_changes_it() {
    const ALL: &str = "/apis/egret.dev/v1alpha1/egressendpoints";
    let _alone = alone();
    let client = client_of("admin");
    forget(&client);
    node(&client, "speaks");
    // Somebody has the number that the node would take first, for as long as it begins.
    let proxy = Proxy::start();
    let first = follow(&proxy, "speaks");
    first.synced();
    let own = |client: &Client| -> Option<Value> {
        let all = client.get("/apis/egret.dev/v1alpha1/egressnodes").unwrap();
        all["items"].as_array().unwrap().iter().find(|o| o["spec"]["node"] == "speaks").cloned()
    };
    let number = own(&client).unwrap()["spec"]["number"].as_u64().unwrap();
    drop(first);
    forget(&client);
    let blocks = json!({"apiVersion": "egret.dev/v1alpha1", "kind": "EgressNode", "metadata": {"name": format!("node-{number}")},
        "spec": {"node": "blocks", "number": number, "wire": "172.31.0.77"}});
    client.create("/apis/egret.dev/v1alpha1/egressnodes", &blocks).unwrap();
    let agent = follow(&Proxy::start(), "speaks");
    agent.synced();
    let said = own(&client).unwrap()["spec"].clone();
    assert_ne!(said["number"].as_u64(), Some(number));

    client.delete(&format!("/apis/egret.dev/v1alpha1/egressnodes/node-{number}")).unwrap();
    let path = format!("/apis/egret.dev/v1alpha1/egressnodes/node-{}", said["number"]);
    client.delete(&path).unwrap();
    eventually("a node says its number again", || own(&client).is_some());
    assert_eq!(own(&client).unwrap()["spec"], said, "connections everywhere carry the number that it had");
    let kept = nodes::get(&Dir::at(&agent.dir).unwrap(), "speaks").unwrap().unwrap().0;
    assert_eq!(Some(u64::from(kept.number)), said["number"].as_u64());

    let endpoint = endpoint(&agent.dir);
    let there = || {
        let all = client.get(ALL).unwrap();
        all["items"].as_array().unwrap().first().cloned()
    };
    eventually("it says its gateway", || there().is_some());
    let object = there().unwrap();
    let name = object["metadata"]["name"].as_str().unwrap();
    client.delete(&format!("{ALL}/{name}")).unwrap();
    eventually("and again when the object is deleted", || {
        there().is_some_and(|now| now["metadata"]["uid"] != object["metadata"]["uid"])
    });
    let mut wrong = there().unwrap();
    wrong["spec"]["vni"] = 6000.into();
    client.replace(&format!("{ALL}/{name}"), &wrong).unwrap();
    eventually("and when it is changed", || there().is_some_and(|now| now["spec"]["vni"] == endpoint.vni));
    drop(agent);
    forget(&client);
}

/// The server did what it was asked, and its answer was lost on the way: no watch has told of it when it is asked again.
#[test]
fn a_node_whose_number_was_taken_without_an_answer_has_that_number_and_no_second_one() {
    let _alone = alone();
    let client = client_of("admin");
    forget(&client);
    node(&client, "unheard");
    let (proxy, posts) = (Proxy::start(), AtomicUsize::new(0));
    proxy.judge(move |line| {
        let first = |line: &str| line.starts_with("POST") && posts.fetch_add(1, Ordering::Relaxed) == 0;
        match line.contains("/egressnodes") {
            true if line.contains("watch=1") => Fate::Silence,
            true if first(line) => Fate::Cut(Duration::ZERO),
            _ => Fate::Pass,
        }
    });
    let agent = follow(&proxy, "unheard");
    let kept = || nodes::get(&Dir::at(&agent.dir).unwrap(), "unheard").unwrap();
    eventually("the node has a number", || kept().is_some());
    assert!(proxy.asked("POST /apis/egret.dev/v1alpha1/egressnodes") > 1, "it had its answer at once");
    let (all, _) = client.list("/apis/egret.dev/v1alpha1/egressnodes?").unwrap();
    let numbers: Vec<_> = all.iter().map(|object| &object["spec"]["number"]).collect();
    assert_eq!(numbers, [&json!(kept().unwrap().0.number)]);
    drop(agent);
    forget(&client);
}

/// What stands between an agent and its server may take requests and go on living without one.
#[test]
fn a_watch_that_never_begins_is_begun_anew_and_one_that_ends_at_once_is_no_storm() {
    let _alone = alone();
    let direct = client_of("admin");
    namespace(&direct, "storm");
    let proxy = Proxy::start();
    let client = std::sync::Arc::new(Client::new(proxy.access()).unwrap());
    let silent = std::sync::atomic::AtomicBool::new(true);
    proxy.judge(move |line| {
        let watch = line.contains("/namespaces?") && line.contains("watch=1");
        let first = watch && silent.swap(false, Ordering::Relaxed);
        if first { Fate::Silence } else { Fate::Pass }
    });
    let following = follow_here(&client);
    crate::following::until(&following, Mirror::is_synced);
    kubectl(&["label", "namespace", "storm", "--overwrite", "n=heard"], "");
    crate::following::until(&following, |mirror| {
        mirror.object(Watched::Namespaces, "storm").is_some_and(|o| o["metadata"]["labels"]["n"] == "heard")
    });

    for how in [Fate::Answer(200, String::new()), refusal(410, "Expired", "too old resource version: 1 (2)")]
    {
        let proxy = Proxy::start();
        proxy.judge(move |line| match line.contains("/namespaces?") && line.contains("watch=1") {
            true => how.clone(),
            false => Fate::Pass,
        });
        let client = std::sync::Arc::new(Client::new(proxy.access()).unwrap());
        let following = follow_here(&client);
        crate::following::until(&following, Mirror::is_synced);
        let began = Instant::now();
        let asked = || proxy.asked("/api/v1/namespaces?");
        eventually("it is begun again", || asked() >= 3);
        std::thread::sleep(Duration::from_secs(4).saturating_sub(began.elapsed()));
        let (asked, time) = (asked(), began.elapsed().as_secs_f64());
        assert!((asked as f64) < 5.0 * time, "{asked} requests in {time} s");
        proxy.judge(|_| Fate::Pass);
        kubectl(&["label", "namespace", "storm", "--overwrite", &format!("n=after-{asked}")], "");
        crate::following::until(&following, |mirror| {
            let seen = mirror.object(Watched::Namespaces, "storm");
            seen.is_some_and(|o| o["metadata"]["labels"]["n"] == format!("after-{asked}"))
        });
    }
}
