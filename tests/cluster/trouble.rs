//! What goes wrong between an agent and the API server, done by a proxy of our own before a real server: each has its test and its
//! sentence, and none removes anything.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use egret::agent::door::Gate;
use egret::cni::environment::Environment;
use egret::cni::request::Request;
use egret::config::Config;
use egret::ipam::{IpamError, Store};
use egret::kube::{Client, ClusterStore, Mirror, Watched};
use egret::store::Dir;
use egret::store::objects::Objects;
use egret::testbed::repository;
use serde_json::{Value, json};

use crate::follower::follow;
use crate::following::{follow_here, until};
use crate::proxy::{ADDRESS, Fate, Proxy, refusal};
use crate::server::kubectl;
use crate::world::*;

const GONE: &str = r#"{"type":"ERROR","object":{"kind":"Status","code":410,"reason":"Expired","message":"too old resource version: 1 (2)"}}"#;
/// A watch that lags 2 s is what was asked for; on a busy machine the first of a hundred pods may need as long.
const LATE: Duration = Duration::from_secs(6);

pub(crate) fn label(client: &Client, namespace: &str, value: &str) {
    let path = format!("/api/v1/namespaces/{namespace}");
    loop {
        let mut object = client.get(&path).unwrap();
        object["metadata"]["labels"]["n"] = value.into();
        match client.replace(&path, &object) {
            Err(error) if error.is_conflict() => {}
            outcome => return drop(outcome.unwrap()),
        }
    }
}

pub(crate) fn labelled(mirror: &Mirror, namespace: &str, value: &str) -> bool {
    mirror
        .object(Watched::Namespaces, namespace)
        .is_some_and(|object| object["metadata"]["labels"]["n"] == value)
}

/// A namespace that takes pods: they need its account, and no controller makes one here.
pub(crate) fn namespace(client: &Client, name: &str) {
    let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default", "namespace": name}});
    let accounts = format!("/api/v1/namespaces/{name}/serviceaccounts");
    for (path, object) in [("/api/v1/namespaces", &object), (&accounts, &account)] {
        if let Err(error) = client.create(path, object) {
            assert!(error.is_conflict(), "{error}");
        }
    }
}

#[test]
fn a_watch_that_is_cut_in_the_middle_loses_nothing_and_lists_nothing_anew() {
    let _alone = alone();
    let direct = client_of("admin");
    namespace(&direct, "cut");
    let proxy = Proxy::start();
    let following = follow_here(&Arc::new(Client::new(proxy.access()).unwrap()));
    until(&following, Mirror::is_synced);
    let lists = proxy.listed("/api/v1/namespaces");
    assert!(lists > 0, "it begins with a list");
    // Every watch from now on breaks in the middle of an event, after some of them or at the first.
    let watches = AtomicUsize::new(0);
    proxy.judge(move |line| match line.contains("watch=1") {
        true => Fate::Cut(Duration::from_millis([300, 0, 700][watches.fetch_add(1, Ordering::Relaxed) % 3])),
        false => Fate::Pass,
    });
    // The one that stands already ends with this.
    for n in 0..30 {
        label(&direct, "cut", &n.to_string());
        std::thread::sleep(Duration::from_millis(50));
    }
    proxy.judge(|_| Fate::Pass);
    label(&direct, "cut", "last");
    until(&following, |mirror| labelled(mirror, "cut", "last"));
    assert_eq!(proxy.listed("/api/v1/namespaces"), lists, "it goes on from where it was");
    assert_eq!(following.mirror().lost(), []);
}

#[test]
fn a_version_that_the_server_forgot_is_a_list_that_changes_nothing() {
    let _alone = alone();
    let direct = client_of("admin");
    namespace(&direct, "gone");
    let expired = refusal(410, "Expired", "too old resource version: 1 (2)");
    for (how, after) in [(expired, "refused"), (Fate::Answer(200, format!("{GONE}\n")), "told")] {
        let proxy = Proxy::start();
        let left = AtomicUsize::new(3);
        proxy.judge(move |line| {
            let watch = line.contains("/namespaces?") && line.contains("watch=1");
            let more = watch
                && left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1)).is_ok();
            if more { how.clone() } else { Fate::Pass }
        });
        // A first list may be older than what was written just before it.
        let before = format!("not-yet-{after}");
        label(&direct, "gone", &before);
        let following = follow_here(&Arc::new(Client::new(proxy.access()).unwrap()));
        until(&following, |mirror| mirror.is_synced() && labelled(mirror, "gone", &before));
        let generation = following.mirror().generation(Watched::Namespaces);
        let started = Instant::now();
        while proxy.listed("/api/v1/namespaces") < 4 {
            assert!(started.elapsed() < Duration::from_secs(120), "it lists again after each");
            std::thread::sleep(Duration::from_millis(20));
        }
        assert_eq!(
            following.mirror().generation(Watched::Namespaces),
            generation,
            "a list that says the same is no change"
        );
        label(&direct, "gone", after);
        until(&following, |mirror| labelled(mirror, "gone", after));
    }
}

#[test]
fn a_block_that_others_write_meanwhile_is_read_again_and_if_that_never_ends_it_is_said() {
    let _alone = alone();
    forget_blocks(&client_of("admin"));
    let proxy = Proxy::start();
    let client = Client::new(proxy.access()).unwrap();
    let left = AtomicUsize::new(2);
    proxy.judge(move |line| {
        let write = line.starts_with("POST") || line.starts_with("PUT");
        let more =
            write && left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1)).is_ok();
        if more { refusal(409, "Conflict", "the object has been modified") } else { Fate::Pass }
    });
    let pool = pool("p", "10.0.0.0/30", 31);
    given(&ClusterStore::new(&client), &[&pool], tenant("pod:a", "node1", "a"), 0);
    proxy.judge(|line| match line.starts_with("POST") || line.starts_with("PUT") {
        true => refusal(409, "Conflict", "the object has been modified"),
        false => Fate::Pass,
    });
    let error = ask(&ClusterStore::new(&client), &[&pool], tenant("pod:b", "node1", "b"), 0).unwrap_err();
    assert!(matches!(error, IpamError::Contended(_)) && error.try_again(), "{error}");
    assert_eq!(ClusterStore::new(&client).summary("p").unwrap().of_owner(&owner("pod:b")).len(), 0);
}

#[test]
fn a_server_that_answers_nothing_is_waited_for_ten_seconds_and_named() {
    client_of("admin");
    let proxy = Proxy::start();
    proxy.judge(|_| Fate::Silence);
    let client = Client::new(proxy.access()).unwrap();
    let started = Instant::now();
    let error = ClusterStore::new(&client).pools().unwrap_err().to_string();
    let took = started.elapsed();
    assert!(took > Duration::from_secs(8) && took < Duration::from_secs(60), "{took:?}");
    assert!(
        error.contains(&format!("https://{ADDRESS}:")) && error.contains("It does not answer in time"),
        "{error}"
    );
}

pub(crate) fn node(client: &Client, name: &str) {
    let object = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}});
    if let Err(error) = client.create("/api/v1/nodes", &object) {
        assert!(error.is_conflict(), "{error}");
    }
    let status = r#"{"status": {"addresses": [{"type": "InternalIP", "address": "172.31.0.9"}]}}"#;
    kubectl(&["patch", "node", name, "--subresource=status", "--type=merge", "-p", status], "");
}

#[test]
fn without_definitions_an_agent_waits_and_says_what_to_apply_and_goes_on_when_they_come() {
    let _alone = alone();
    node(&client_of("admin"), "undefined");
    let proxy = Proxy::start();
    // As a server without them answers.
    proxy.judge(|line| match line.contains("/apis/egret.dev/") {
        true => Fate::Answer(404, "404 page not found\n".to_owned()),
        false => Fate::Pass,
    });
    let follower = follow(&proxy, "undefined");
    let said = follower.sentence("`egret crds | kubectl apply --server-side -f -`");
    assert!(said.contains(" 404"), "{said}");
    assert!(!follower.cluster.is_synced());
    proxy.judge(|_| Fate::Pass);
    follower.synced();
}

#[test]
fn what_is_forbidden_is_named_with_the_rule_that_the_role_lacks() {
    let _alone = alone();
    node(&client_of("admin"), "forbidden");
    let proxy = Proxy::start();
    let words = "egressgatewaypolicies.egret.dev is forbidden: User \"agent\" cannot list resource \"egressgatewaypolicies\" in API group \
                 \"egret.dev\" at the cluster scope";
    proxy.judge(move |line| match line.contains("/egret.dev/v1alpha1/egressgatewaypolicies") {
        true => refusal(403, "Forbidden", words),
        false => Fate::Pass,
    });
    let follower = follow(&proxy, "forbidden");
    // Not by its number: that may be part of the proxy's port.
    let said = follower.sentence("deploy/rbac.yaml");
    let rule = "`deploy/rbac.yaml` has the role that Egret needs: its rule for apiGroups [egret.dev], resources [egressgatewaypolicies] needs \
                the verb list";
    assert!(said.contains(rule), "{said}");
    // The manifest has that very rule, and one for every kind that is followed.
    let manifest = std::fs::read_to_string(repository().join("deploy/rbac.yaml")).unwrap();
    for kind in Watched::of_a_node() {
        let path = kind.path(&egret::kube::Reach::Node("x".into()));
        let resource = path.split(['?']).next().unwrap().rsplit('/').next().unwrap().to_owned();
        assert!(manifest.contains(&resource), "deploy/rbac.yaml does not speak of {resource}");
    }
}

/// An ADD as the kubelet's runtime makes it.
pub(crate) fn add(namespace: &str, pod: &str, uid: &str) -> Request {
    let arguments =
        format!("IgnoreUnknown=1;K8S_POD_NAMESPACE={namespace};K8S_POD_NAME={pod};K8S_POD_UID={uid}");
    let variables = [
        ("CNI_COMMAND", "ADD"),
        ("CNI_CONTAINERID", pod),
        ("CNI_NETNS", "/var/run/netns/none"),
        ("CNI_IFNAME", "eth0"),
        ("CNI_PATH", "/opt/cni/bin"),
        ("CNI_ARGS", &arguments),
    ];
    let environment = Environment::read(|name| {
        variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned().into())
    })
    .unwrap();
    let input = json!({"cniVersion": "1.0.0", "name": "net", "type": "egret",
        "prevResult": {"cniVersion": "1.0.0", "ips": [{"address": "10.244.0.9/24", "interface": 0}],
            "interfaces": [{"name": "eth0", "sandbox": "/var/run/netns/none"}]}});
    Request::read(environment, input.to_string().as_bytes()).unwrap()
}

/// The namespace was annotated and a policy made the instant before the pods, and both watches are late.
#[test]
fn a_hundred_pods_obey_an_annotation_that_the_watch_has_not_heard_of_yet() {
    let _alone = alone();
    let direct = client_of("admin");
    node(&direct, "lagging");
    namespace(&direct, "lag");
    let proxy = Proxy::start();
    proxy.judge(|line| {
        let late = line.contains("/api/v1/namespaces?") || line.contains("/egressgatewaypolicies?");
        if late && line.contains("watch=1") { Fate::Lag(LATE) } else { Fate::Pass }
    });
    let follower = follow(&proxy, "lagging");
    follower.synced();
    let lists = "GET /apis/egret.dev/v1alpha1/egressgatewaypolicies?limit";
    let before = proxy.asked(lists);

    let mut object = direct.get("/api/v1/namespaces/lag").unwrap();
    object["metadata"]["annotations"] = json!({"egress.projectcalico.org/selector": "app == 'gw'"});
    direct.replace("/api/v1/namespaces/lag", &object).unwrap();
    let policy = json!({"apiVersion": "egret.dev/v1alpha1", "kind": "EgressGatewayPolicy", "metadata": {"name": "late"},
        "spec": {"rules": [{"gateway": {"selector": "has(gw)"}}]}});
    direct.create("/apis/egret.dev/v1alpha1/egressgatewaypolicies", &policy).unwrap();
    let annotated = Instant::now();
    let early = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for n in 0..100 {
            let name = format!("p{n}");
            let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "lag"},
                "spec": {"nodeName": "lagging", "containers": [{"name": "c", "image": "x"}]}});
            let made = direct.create("/api/v1/namespaces/lag/pods", &pod).unwrap();
            let uid = made["metadata"]["uid"].as_str().unwrap().to_owned();
            let (follower, early) = (&follower, &early);
            scope.spawn(move || {
                follower.cluster.fresh(&add("lag", &name, &uid)).unwrap();
                early.fetch_add(usize::from(annotated.elapsed() < LATE), Ordering::Relaxed);
                // What the verb reads next.
                let objects = Objects::look(&follower.dir).unwrap();
                let annotations = objects.namespace("lag").unwrap().annotations;
                assert_eq!(
                    annotations.get("egress.projectcalico.org/selector").unwrap(),
                    "app == 'gw'",
                    "{name}"
                );
                let view = objects.view(&Config::default(), Vec::new());
                assert!(view.policies.contains_key("late"), "{name}: {:?}", view.policies.keys());
            });
        }
    });
    assert!(early.into_inner() > 0, "none of them came before the watch, so nothing was shown");
    let asked = [proxy.asked("GET /api/v1/namespaces/lag"), proxy.asked(lists) - before];
    println!("100 pods took {} requests for their namespace, {} for policies", asked[0], asked[1]);
    assert!(asked.iter().all(|count| (1..=100).contains(count)), "{asked:?}");
    direct.delete("/apis/egret.dev/v1alpha1/egressgatewaypolicies/late").unwrap();
    for n in 0..100 {
        direct.delete(&format!("/api/v1/namespaces/lag/pods/p{n}?gracePeriodSeconds=0")).unwrap();
    }
}

/// Definitions of another release: older ones take a field away that this release writes.
#[test]
fn an_agent_that_is_newer_than_the_definitions_says_its_endpoint_once_and_not_for_ever() {
    let _alone = alone();
    let direct = client_of("admin");
    node(&direct, "newer");
    let path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/egressendpoints.egret.dev";
    let change = |take: &dyn Fn(&mut Value)| loop {
        let mut definition = direct.get(path).unwrap();
        take(
            &mut definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"],
        );
        match direct.replace(path, &definition) {
            Err(error) if error.is_conflict() => {}
            outcome => return drop(outcome.unwrap()),
        }
    };
    let source = "addresses";
    let known = Mutex::new(Value::Null);
    change(&|fields| {
        let address = &mut fields[source]["items"]["properties"];
        *known.lock().unwrap() = address["source"].take();
        address.as_object_mut().unwrap().remove("source");
    });
    let proxy = Proxy::start();
    let follower = follow(&proxy, "newer");
    follower.synced();
    let endpoint = json!({"pod": "gw/own", "attachment": "net/own/eth0", "node": "newer", "underlay": ["172.31.0.9"], "vni": 5001,
        "mac": "02:67:0a:f4:00:09", "addresses": [{"ip": "10.244.0.9", "pool": "own", "source": "PodAddress"}], "state": "draining",
        "generation": 1}); // of a pod that is nowhere
    let endpoint = serde_json::from_value(endpoint).unwrap();
    let dir = Dir::open(&follower.dir).unwrap();
    let guard = dir.lock("a test", Duration::from_secs(10)).unwrap();
    egret::store::endpoints::put(&dir, &guard, &endpoint).unwrap();
    drop(guard);
    let said = || {
        proxy.asked("POST /apis/egret.dev/v1alpha1/egressendpoints")
            + proxy.asked("PUT /apis/egret.dev/v1alpha1/egressendpoints")
    };
    let started = Instant::now();
    while said() == 0 {
        assert!(started.elapsed() < Duration::from_secs(120), "it is not said");
        std::thread::sleep(Duration::from_millis(20));
    }
    // Twice at most: the definition's change cuts the watch by which an agent hears itself. Then it is silent.
    let started = Instant::now();
    let mut count = said();
    let is_silent = loop {
        std::thread::sleep(Duration::from_secs(3));
        let before = std::mem::replace(&mut count, said());
        if before == count || started.elapsed() > Duration::from_secs(60) {
            break before == count;
        }
    };
    change(&|fields| fields[source]["items"]["properties"]["source"] = known.lock().unwrap().clone());
    drop(follower); // else it says its endpoint again
    direct.delete("/apis/egret.dev/v1alpha1/egressendpoints").unwrap();
    assert!(is_silent && count <= 6, "it is said for ever: {count} requests in {:?}", started.elapsed());
}
