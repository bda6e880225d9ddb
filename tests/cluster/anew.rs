//! A server that comes back otherwise than it went: a watch that ends in the middle of what it told, a store that was put back, a
//! definition that was made anew. What was heard is neither heard twice nor let go.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use egret::config::Project;
use egret::kube::{Client, Mirror, Watched};
use serde_json::{Value, json};

use crate::again::{CILIUMS, apply, cilium, eventually, has};
use crate::follower::{Follower, follow_adopting, follow_after, follow_again};
use crate::following::{follow_here, until};
use crate::proxy::{Fate, Proxy, refusal};
use crate::server::kubectl;
use crate::trouble::{label, labelled, namespace, node};
use crate::world::*;

#[test]
fn a_watch_that_ends_with_an_error_goes_on_from_what_it_told_and_tells_nothing_twice() {
    let _alone = alone();
    let direct = client_of("admin");
    namespace(&direct, "twice");
    let proxy = Proxy::start();
    let watches = AtomicUsize::new(0);
    // What was true for a moment, long ago: who heard it twice would go back to it. And then the server's store has no time.
    let event = |kind: &str, object: Value| json!({"type": kind, "object": object}).to_string();
    let at = |version: &str| json!({"metadata": {"name": "passing", "resourceVersion": version}});
    let error = json!({"kind": "Status", "code": 500, "reason": "InternalError", "message": "etcdserver: request timed out"});
    proxy.judge(move |line| {
        let first = line.contains("/namespaces?")
            && line.contains("watch=1")
            && watches.fetch_add(1, Ordering::Relaxed) == 0;
        let Some(from) = line.split("resourceVersion=").nth(1).filter(|_| first) else { return Fate::Pass };
        let from: u64 = from.split('&').next().unwrap().parse().unwrap();
        let (made, gone) = (at(&(from + 1).to_string()), at(&(from + 2).to_string()));
        Fate::Answer(
            200,
            [event("ADDED", made), event("DELETED", gone), event("ERROR", error.clone())].join("\n") + "\n",
        )
    });
    let following = follow_here(&Arc::new(Client::new(proxy.access()).unwrap()));
    until(&following, Mirror::is_synced);
    let watch = |from: u64| format!("/namespaces?resourceVersion={from}&");
    let began = Instant::now();
    while proxy.asked("/namespaces?resourceVersion=") < 2 && began.elapsed() < Duration::from_secs(60) {
        std::thread::sleep(Duration::from_millis(20));
    }
    let reached = following.mirror().version(Watched::Namespaces);
    assert_eq!(
        (proxy.asked(&watch(reached)), proxy.asked(&watch(reached - 2))),
        (1, 1),
        "it goes on from {reached}"
    );
}

#[test]
fn a_store_that_was_put_back_while_the_server_was_away_is_followed_from_where_it_is() {
    let _alone = alone();
    let direct = client_of("admin");
    namespace(&direct, "back");
    let proxy = Proxy::start();
    let watches = AtomicUsize::new(0);
    // What is heard is of a time that the store, as it comes back, has not come to.
    let then = json!({"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "999999999999"}}});
    proxy.judge(move |line| match line.contains("/namespaces?") && line.contains("watch=1") {
        true => match watches.fetch_add(1, Ordering::Relaxed) {
            0 => Fate::Answer(200, format!("{then}\n")),
            1 => refusal(503, "ServiceUnavailable", "the server is away"),
            _ => Fate::Pass,
        },
        false => Fate::Pass,
    });
    let following = follow_here(&Arc::new(Client::new(proxy.access()).unwrap()));
    until(&following, |mirror| mirror.is_synced() && mirror.version(Watched::Namespaces) == 999_999_999_999);
    label(&direct, "back", "after");
    until(&following, |mirror| labelled(mirror, "back", "after"));
    assert!(following.mirror().version(Watched::Namespaces) < 999_999_999_999);
}

const FILE: &str = "CiliumEgressGatewayPolicy.json";

/// An agent that heard of a policy whose definition is younger than that.
fn heard_before_its_definition(client: &Client, of: &str, policy: &str) -> Follower {
    node(client, of);
    apply(&cilium(policy));
    let made = Instant::now();
    let first = follow_adopting(&Proxy::start(), of, &[Project::Cilium]);
    first.synced();
    eventually("it is heard of", || has(&first, FILE, policy));
    // What is younger may have been made by a server whose clock is late.
    std::thread::sleep(Duration::from_secs(12).saturating_sub(made.elapsed()));
    kubectl(&["delete", "crd", CILIUMS], "");
    let definition = egret::testbed::repository().join(format!("deploy/foreign-crds/{CILIUMS}.yaml"));
    apply(&fs::read_to_string(definition).unwrap());
    kubectl(&["wait", "--for=condition=Established", "crd", CILIUMS, "--timeout=120s"], "");
    first
}

#[test]
fn objects_whose_definition_was_made_anew_while_no_agent_was_there_stay_in_force() {
    let _alone = alone();
    let client = client_of("admin");
    forget(&client);
    // As a release does that replaces everything, definitions and agents: the next one finds a definition that stands.
    let first = heard_before_its_definition(&client, "anew", "before");
    let proxy = Proxy::start();
    let next = follow_again(&proxy, first);
    let (list, from) =
        ("/apis/cilium.io/v2/ciliumegressgatewaypolicies", "ciliumegressgatewaypolicies?resourceVersion=");
    eventually("it was listed, and is followed", || proxy.listed(list) > 0 && proxy.asked(from) > 0);
    let said = |part: &str| next.cluster.problems().iter().any(|problem| problem.message.contains(part));
    eventually("it is said", || said("before stay in force"));
    assert!(has(&next, FILE, "before"), "every pod that it selects would be let out");
    apply(&cilium("before"));
    eventually("it is there again", || !said("before"));
    kubectl(&["delete", "cegp", "before"], "");
    eventually("and goes when somebody means it", || !has(&next, FILE, "before"));
}

/// As where `kubeadm reset` and another `join` leave the state directory as it was.
#[test]
fn what_a_node_knows_of_another_cluster_does_not_stay_in_force_in_this_one() {
    let _alone = alone();
    let client = client_of("admin");
    forget(&client);
    // The definitions of the next cluster are younger than what was known of the one before.
    let first = heard_before_its_definition(&client, "moved", "there");
    let proxy = Proxy::start();
    let next = follow_after(&proxy, first, |state| {
        let file = state.join("objects/cluster/Namespace.json");
        let mut list: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
        for one in list["items"].as_array_mut().unwrap() {
            if one["metadata"]["name"] == "kube-system" {
                one["metadata"]["uid"] = "another-cluster".into();
            }
        }
        fs::write(file, list.to_string()).unwrap();
    });
    eventually("what was true there is gone", || !has(&next, FILE, "there"));
    assert!(!next.cluster.problems().iter().any(|problem| problem.message.contains("there stay in force")));
    apply(&cilium("here"));
    eventually("and what is true here is in force", || has(&next, FILE, "here"));
    kubectl(&["delete", "cegp", "here"], "");
}

#[test]
fn a_list_that_comes_in_pages_though_nobody_asked_for_any_is_read_to_its_end() {
    let _alone = alone();
    let direct = client_of("admin");
    namespace(&direct, "page-one");
    namespace(&direct, "page-two");
    let proxy = Proxy::start();
    let page = direct.get("/api/v1/namespaces?limit=1").unwrap();
    assert!(page["metadata"]["continue"].is_string(), "{page}");
    let whole =
        |line: &str| line.starts_with("GET /api/v1/namespaces?") && line.contains("resourceVersionMatch=");
    proxy.judge(move |line| if whole(line) { Fate::Answer(200, page.to_string()) } else { Fate::Pass });
    let following = follow_here(&Arc::new(Client::new(proxy.access()).unwrap()));
    until(&following, Mirror::is_synced);
    let mirror = following.mirror();
    for name in ["page-one", "page-two"] {
        assert!(mirror.object(Watched::Namespaces, name).is_some(), "{name} is not gone");
    }
}
