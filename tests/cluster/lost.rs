//! A copy on disk in which somebody else had a hand: what the agent knows is written again, and nothing is decided by less meanwhile.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use egret::agent::door::Gate;
use egret::agent::state::DIRECTORY_UNREADABLE;
use egret::kube::Client;
use egret::problem::Problem;
use egret::testbed::within;
use serde_json::json;

use crate::follower::{Follower, follow, follow_after};
use crate::hanging::{SELECTS, leased_gateway, pod, seen};
use crate::proxy::{Fate, Proxy, refusal};
use crate::server::kubectl;
use crate::trouble::{add, namespace, node};
use crate::wired::{Bridge, NODE, Wired, aside};
use crate::world::*;

const POLICIES: &str = "/apis/egret.dev/v1alpha1/egressgatewaypolicies";

#[track_caller]
fn eventually(what: &str, so: impl FnMut() -> bool) {
    assert!(within(Duration::from_secs(120), Duration::from_millis(20), so).is_some(), "never: {what}");
}

/// What somebody does to a file.
type Deed = fn(&Path);

/// A folder with all that is in it; the agent may write there again before the folder itself is gone.
fn removed(folder: &Path) {
    let _ = fs::remove_dir_all(folder);
}

/// What lies in the copy, but for drafts.
fn files(state: &Path) -> BTreeMap<String, String> {
    let folder = fs::read_dir(state.join("objects/cluster")).into_iter().flatten().flatten();
    let names = folder.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let text = |name: &String| fs::read_to_string(state.join("objects/cluster").join(name)).ok();
    names
        .filter(|name| !name.starts_with('.'))
        .filter_map(|name| Some((name.clone(), text(&name)?)))
        .collect()
}

fn policy(client: &Client) {
    let policy = json!({"apiVersion": "egret.dev/v1alpha1", "kind": "EgressGatewayPolicy", "metadata": {"name": "kept"},
        "spec": {"rules": [{"gateway": {"selector": "has(gw)"}}]}});
    client.create(POLICIES, &policy).unwrap();
}

/// An agent that has everything on disk, a policy among it.
fn given(name: &str) -> (Client, Follower, BTreeMap<String, String>) {
    let client = client_of("admin");
    forget(&client);
    node(&client, name);
    policy(&client);
    let agent = follow(&Proxy::start(), name);
    agent.synced();
    eventually("all is copied", || {
        let files = files(&agent.dir);
        files.len() >= 10 && files.get("EgressGatewayPolicy.json").is_some_and(|text| text.contains("kept"))
    });
    let all = files(&agent.dir);
    (client, agent, all)
}

#[test]
fn whatever_is_done_to_the_copy_it_says_again_what_the_agent_knows_and_the_marker_comes_back() {
    let _alone = alone();
    let (client, agent, all) = given("lost");
    let folder = agent.dir.join("objects/cluster");
    let file = folder.join("EgressGatewayPolicy.json");
    let deeds: [(&str, &dyn Fn()); 8] = [
        ("a file is removed", &|| fs::remove_file(&file).unwrap()),
        ("it is cut short", &|| fs::write(&file, "").unwrap()),
        ("it is replaced", &|| {
            fs::write(folder.join(".new"), "{\"apiVersion\": \"v1\", \"kind\": \"List\", \"items\": []}")
                .unwrap();
            fs::rename(folder.join(".new"), &file).unwrap();
        }),
        ("the folder is removed", &|| removed(&agent.dir.join("objects"))),
        ("another one stands there", &|| {
            fs::rename(&folder, agent.dir.join("away")).unwrap();
            fs::create_dir(&folder).unwrap();
            fs::copy(agent.dir.join("away/Pod.json"), folder.join("Pod.json")).unwrap();
        }),
        ("everything is removed", &|| removed(&agent.dir)),
        ("the records of nodes are removed", &|| removed(&agent.dir.join("nodes"))),
        ("those of endpoints are removed", &|| removed(&agent.dir.join("endpoints"))),
    ];
    let records = || agent.dir.join("nodes/lost.json").exists() && agent.dir.join("endpoints").is_dir();
    for (what, deed) in deeds {
        deed();
        let marker = agent.dir.join("synced");
        let _ = fs::remove_file(&marker);
        eventually(&format!("{what}, and written again"), || files(&agent.dir) == all);
        eventually(&format!("{what}, and the marker is back"), || marker.exists());
        eventually(&format!("{what}, and records have their places"), records);
    }
    drop(agent);
    forget(&client);
}

#[test]
fn a_call_decides_by_the_whole_copy_or_not_at_all() {
    let _alone = alone();
    let (client, agent, all) = given("lost-call");
    let objects = agent.dir.join("objects");
    let request = add("kube-system", "any", "uid"); // nothing is asked for its sake
    for _ in 0..20 {
        fs::remove_file(objects.join("cluster/EgressGatewayPolicy.json")).unwrap();
        agent.cluster.fresh(&request).unwrap();
        assert_eq!(files(&agent.dir), all, "the verb reads this next");
    }
    // Where nothing can be written, nothing is decided.
    fs::rename(&objects, agent.dir.join("away")).unwrap();
    fs::write(&objects, "no folder").unwrap();
    for _ in 0..3 {
        let error = agent.cluster.fresh(&request).unwrap_err();
        assert!(error.to_string().contains("objects"), "{error}");
    }
    fs::remove_file(&objects).unwrap();
    eventually("it is written again", || files(&agent.dir) == all);
    agent.cluster.fresh(&request).unwrap();
    drop(agent);
    forget(&client);
}

#[test]
fn an_agent_that_starts_with_less_than_its_predecessor_wrote_waits_until_it_has_heard_the_rest() {
    let _alone = alone();
    let deeds: [(&str, Deed); 3] = [
        ("lost-removed", |file| fs::remove_file(file).unwrap()),
        ("lost-cut", |file| fs::write(file, "").unwrap()),
        // As after a power cut: what was written last has no text.
        ("lost-marked", |file| {
            fs::remove_file(file).unwrap();
            fs::write(file.ancestors().nth(3).unwrap().join("synced"), "").unwrap();
        }),
    ];
    for (name, deed) in deeds {
        let (client, first, all) = given(name);
        let proxy = Proxy::start();
        proxy.judge(|line| match line.contains("/egressgatewaypolicies") {
            true => refusal(503, "ServiceUnavailable", "away"),
            false => Fate::Pass,
        });
        let next = follow_after(&proxy, first, |state| {
            deed(&state.join("objects/cluster/EgressGatewayPolicy.json"));
        });
        let said = next.sentence("found its copy without");
        assert!(said.contains("EgressGatewayPolicy.json"), "{said}");
        eventually("it has asked", || {
            proxy.asked("watch=1") > 3 && proxy.asked("/egressgatewaypolicies") > 1
        });
        assert!(next.dir.join("synced").exists(), "by this the plugin stays in the network list");
        assert!(!next.cluster.is_synced(), "{name}");
        proxy.judge(|_| Fate::Pass);
        next.synced();
        assert_eq!(files(&next.dir).keys().collect::<Vec<_>>(), all.keys().collect::<Vec<_>>());
        assert!(files(&next.dir)["EgressGatewayPolicy.json"].contains("\"kept\""));
        drop(next);
        forget(&client);
    }
}

/// A client of namespace `lost` and its gateway, on a node with an agent.
fn on_a_node(story: impl FnOnce(&Wired, (&Bridge, &Client), &[String; 2]) + Send) {
    let client = client_of("admin");
    forget(&client);
    node(&client, NODE);
    for name in ["leases", "lost"] {
        namespace(&client, name);
    }
    let annotations: serde_json::Map<_, _> =
        SELECTS.iter().map(|(key, value)| ((*key).to_owned(), (*value).into())).collect();
    let patch = json!({"metadata": {"annotations": annotations}}).to_string();
    kubectl(&["patch", "namespace", "lost", "--type=merge", "-p", &patch], "");
    let uids = [leased_gateway(&client), pod(&client, "lost/cart", &[])];
    let (proxy, bridge) = (Proxy::start(), Bridge::find());
    aside(|| story(&Wired::raise(&bridge, &proxy), (&bridge, &client), &uids));
    for name in ["leases", "lost"] {
        kubectl(&["delete", "pods", "-n", name, "--all", "--force", "--grace-period=0"], "");
    }
    forget(&client);
}

#[test]
fn a_client_stays_one_whatever_is_removed_from_the_copy_while_pods_change() {
    let _alone = alone();
    on_a_node(pods_change);
}

/// Nothing but this record says how the node serves the gateway; that it serves it is known elsewhere all the same.
#[test]
fn a_gateway_whose_own_record_is_damaged_serves_again_by_what_the_cluster_says_of_it() {
    let _alone = alone();
    on_a_node(|node, (bridge, client), uids| {
        let gateway = node.add("leases/gw", &uids[0]).unwrap();
        let (lease, cart) = (node.lease(&gateway), node.add("lost/cart", &uids[1]).unwrap());
        node.eventually("it leaves by its gateway", || seen(&cart) == Some(lease));
        let said = || client.list("/apis/egret.dev/v1alpha1/egressendpoints?").unwrap().0.len();
        node.eventually("the cluster knows", || bridge.run(said) == 1);
        let folder = fs::read_dir(node.state().join("endpoints")).unwrap();
        let records: Vec<_> = folder.map(|entry| entry.unwrap().path()).collect();
        let [record] = &records[..] else { panic!("{records:?}") };
        for text in ["", "{\"apiVersion\": \"egret.dev/v1alpha1\", \"ki"] {
            fs::write(record, text).unwrap();
            node.eventually("it is written again", || fs::read_to_string(record).unwrap().contains("gw"));
            node.eventually("it leaves by its gateway", || {
                let through = seen(&cart);
                assert!(through.is_none_or(|address| address == lease), "it leaves as {through:?}");
                through.is_some() && node.is_well()
            });
        }
    });
}

fn pods_change(node: &Wired, (bridge, client): (&Bridge, &Client), uids: &[String; 2]) {
    let gateway = node.add("leases/gw", &uids[0]).unwrap();
    let lease = node.lease(&gateway);
    let cart = node.add("lost/cart", &uids[1]).unwrap();
    node.eventually("it leaves by its gateway", || seen(&cart) == Some(lease));
    let names = || files(&node.state()).into_keys().collect::<Vec<_>>();
    let all = names();
    let folder = node.state().join("objects/cluster");
    let deeds: [(&str, &dyn Fn()); 3] = [
        ("a file", &|| fs::remove_file(folder.join("Namespace.json")).unwrap()),
        ("the folder", &|| removed(&node.state().join("objects"))),
        ("the folder and the marker", &|| {
            removed(&node.state().join("objects"));
            let _ = fs::remove_file(node.state().join("synced"));
        }),
    ];
    for (n, (what, deed)) in deeds.into_iter().enumerate() {
        deed();
        // One kind has news, and its file alone would be written.
        bridge.run(|| label(client, "/api/v1/namespaces/lost/pods/cart", n));
        let label = format!("\"n\":\"{n}\"");
        node.eventually(&format!("{what} is back, with the news"), || {
            let through = seen(&cart);
            assert!(
                through.is_none_or(|address| address == lease),
                "without {what} it leaves as {through:?}"
            );
            names() == all && files(&node.state())["Pod.json"].contains(&label)
        });
        node.eventually("the marker is back", || node.state().join("synced").exists());
        node.eventually("it leaves by its gateway", || seen(&cart) == Some(lease));
    }
    // Where it cannot be written again, everything is as it was, and that is said.
    let (objects, away) = (node.state().join("objects"), node.state().join("away"));
    fs::rename(&objects, away).unwrap();
    fs::write(&objects, "no folder").unwrap();
    node.eventually("it is said", || {
        let is_said = |p: &Problem| p.reason == DIRECTORY_UNREADABLE && p.message.contains("is not the copy");
        node.problems().iter().any(is_said)
    });
    assert_eq!(seen(&cart), Some(lease));
    fs::remove_file(&objects).unwrap();
    node.eventually("all is well again", || node.is_well() && names() == all && seen(&cart) == Some(lease));
}

/// Whoever else writes to the object, as the agent does to tell people of its addresses.
fn label(client: &Client, path: &str, n: usize) {
    loop {
        let mut object = client.get(path).unwrap();
        object["metadata"]["labels"]["n"] = n.to_string().into();
        match client.replace(path, &object) {
            Err(error) if error.is_conflict() => {}
            outcome => return drop(outcome.unwrap()),
        }
    }
}
