//! A gateway that the API server does not take: it is named, and the node's other gateways are said, and end, as if it were not there.

use std::time::Duration;

use egret::kube::Client;
use egret::node::ahead::Ahead;
use egret::node::attachment::Attachment;
use egret::node::books::Books;
use egret::node::embedded::Embedded;
use egret::store::{Dir, endpoints};
use serde_json::{Map, Value, json};

use crate::follower::{Follower, follow};
use crate::leases::{allocation, claim, endpoint, ends, ground, over, pod, publish, wait};
use crate::proxy::{Fate, Proxy, refusal};
use crate::server::kubectl;
use crate::trouble::node;
use crate::world::*;

const NODE: &str = "refused";
const ENDPOINTS: &str = "/apis/egret.dev/v1alpha1/egressendpoints";
const DEFINITION: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/egressendpoints.egret.dev";

/// A gateway pod with so many labels, `l000` and so on, and its endpoint, which comes before all others here.
fn labelled(client: &Client, agent: &Follower, count: usize) {
    let labels: Map<String, Value> = (0..count).map(|n| (format!("l{n:03}"), "x".into())).collect();
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "namespace": "leases", "labels": labels},
        "spec": {"nodeName": NODE, "containers": [{"name": "c", "image": "x"}]}});
    client.create("/api/v1/namespaces/leases/pods", &pod).unwrap();
    let endpoint = json!({"pod": "leases/a", "attachment": "net/a/eth0", "node": NODE, "underlay": ["172.31.0.9"], "vni": 5000,
        "mac": "02:67:0a:f4:00:0a", "addresses": [{"ip": "10.244.0.10", "pool": "own", "source": "PodAddress"}], "state": "draining",
        "generation": 1});
    let dir = Dir::open(&agent.dir).unwrap();
    let guard = dir.lock("a test", Duration::from_secs(10)).unwrap();
    endpoints::put(&dir, &guard, &serde_json::from_value(endpoint).unwrap()).unwrap();
}

/// What others hear of the gateway with this name.
fn heard(client: &Client, pod: &str) -> Option<Value> {
    endpoint(client, pod).map(|mut object| object["spec"].take())
}

/// What the container's DEL does.
fn ended(agent: &Follower, (attachment, _): &(Attachment, Ahead)) {
    ends(agent, attachment);
    let node = Embedded::at(&agent.config).unwrap();
    agent.cluster.release_later(Some(node.holder(&attachment.id())));
}

/// Two gateways come, one fails and one ends, its lease with it.
fn others_live(client: &Client, agent: &Follower) {
    let [one, two] = ["b", "c"].map(|name| {
        let gateway = claim(agent, name, &pod(client, name, NODE)).unwrap();
        publish(agent, &gateway);
        gateway
    });
    wait("the second is not heard of", || heard(client, "b"));
    wait("nor is the third", || heard(client, "c"));
    kubectl(
        &[
            "patch",
            "pod",
            "c",
            "-n",
            "leases",
            "--subresource=status",
            "--type=merge",
            "-p",
            r#"{"status": {"phase": "Failed"}}"#,
        ],
        "",
    );
    wait("that it failed is not heard", || heard(client, "c").filter(|spec| spec["state"] == "failed"));
    let address = one.1.addresses()[0].ip.to_string();
    assert!(allocation(client, &address).unwrap().holder.is_some());
    ended(agent, &one);
    wait("what has ended is still said", || heard(client, "b").is_none().then_some(()));
    wait("its lease does not come back", || {
        allocation(client, &address).is_none_or(|a| a.holder.is_none()).then_some(())
    });
    drop(two);
}

#[test]
fn a_gateway_with_more_labels_than_others_can_be_told_is_said_with_the_first_and_no_other_is_silenced() {
    let _alone = alone();
    let client = ground(&[NODE]);
    let agent = follow(&Proxy::start(), NODE);
    agent.synced();
    labelled(&client, &agent, 300);
    others_live(&client, &agent);

    let said = wait("it is not said itself", || heard(&client, "a"));
    let labels = said["labels"].as_object().unwrap();
    assert_eq!((labels.len(), labels.contains_key("l255"), labels.contains_key("l256")), (256, true, false));
    let remarks = agent.cluster.remarks();
    assert_eq!((remarks.len(), remarks[0].object.as_str()), (1, "Pod leases/a"), "{remarks:?}");
    assert!(remarks[0].message.starts_with("it has 300 labels, and"), "{}", remarks[0]);
    assert!(remarks[0].message.contains("neither `l256` nor those after it"), "{}", remarks[0]);
    assert_eq!(agent.cluster.problems(), [], "the node does what it can");
    over(&client, agent);
}

/// As definitions of another release may, or an admission policy of the cluster's.
fn most_labels(client: &Client, most: u32) {
    loop {
        let mut definition = client.get(DEFINITION).unwrap();
        let schema =
            &mut definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
        schema["properties"]["labels"]["maxProperties"] = most.into();
        match client.replace(DEFINITION, &definition) {
            Err(error) if error.is_conflict() => {}
            outcome => return drop(outcome.unwrap()),
        }
    }
}

#[test]
fn a_gateway_that_the_server_refuses_is_named_and_tried_again_and_no_other_is_silenced() {
    let _alone = alone();
    let client = ground(&[NODE]);
    let proxy = Proxy::start();
    let agent = follow(&proxy, NODE);
    agent.synced();
    most_labels(&client, 1);
    let probe = json!({"apiVersion": "egret.dev/v1alpha1", "kind": "EgressEndpoint", "metadata": {"name": "probe"}, "spec": {
        "pod": "x/x", "attachment": "net/x/eth0", "node": "x", "underlay": ["172.31.0.8"], "vni": 5999, "mac": "02:67:0a:f4:00:0b",
        "addresses": [], "state": "draining", "generation": 1, "labels": {"a": "1", "b": "2"}}});
    // The server learns of the definition by a watch of its own.
    wait("two labels are still taken", || {
        let asked = client.create(&format!("{ENDPOINTS}?dryRun=All"), &probe);
        asked.is_err_and(|error| error.to_string().contains("at most 1")).then_some(())
    });
    labelled(&client, &agent, 2);
    others_live(&client, &agent);

    assert_eq!(heard(&client, "a"), None);
    let problems = agent.cluster.problems();
    let named = problems.iter().find(|problem| problem.object == "Pod leases/a");
    let named = named.unwrap_or_else(|| panic!("{problems:?}"));
    assert!(named.reason == "NotTaken" && named.message.contains("spec.labels"), "{named}");
    // Others' words are said at once, and so is not all the time what is refused.
    let tries = || proxy.asked(&format!("POST {ENDPOINTS}"));
    let before = tries();
    std::thread::sleep(Duration::from_secs(20));
    assert!(tries() - before <= 10, "it was tried {} times in 20 s", tries() - before);
    most_labels(&client, 256);
    wait("it is not tried again", || heard(&client, "a"));
    wait("it is named still", || agent.cluster.problems().is_empty().then_some(()));
    over(&client, agent);
}

#[test]
fn a_node_whose_own_object_is_refused_says_its_gateways_all_the_same() {
    let _alone = alone();
    let client = ground(&[NODE]);
    let proxy = Proxy::start();
    let agent = follow(&proxy, NODE);
    agent.synced();
    // Somebody takes its number away, and it gets no other.
    proxy.judge(|line| match line.contains("POST /apis/egret.dev/v1alpha1/egressnodes") {
        true => refusal(422, "Invalid", "EgressNode is invalid: spec.node: no such node"),
        false => Fate::Pass,
    });
    client.delete("/apis/egret.dev/v1alpha1/egressnodes").unwrap();
    let tried = || (proxy.asked("POST /apis/egret.dev/v1alpha1/egressnodes") > 1).then_some(());
    wait("it does not hear that its number is gone", tried);
    others_live(&client, &agent);
    let problems = agent.cluster.problems();
    assert!(
        problems.iter().any(|p| p.object.starts_with("EgressNode node-") && p.reason == "NotTaken"),
        "{problems:?}"
    );
    // Nothing is to be said of a node that is none.
    client.delete(&format!("/api/v1/nodes/{NODE}")).unwrap();
    wait("it is named still", || agent.cluster.problems().is_empty().then_some(()));
    node(&client, NODE);
    wait("it is not named again", || (!agent.cluster.problems().is_empty()).then_some(()));
    proxy.judge(|_| Fate::Pass);
    wait("it never has a number", || {
        let (nodes, _) = client.list("/apis/egret.dev/v1alpha1/egressnodes?").unwrap();
        nodes.iter().any(|node| node["spec"]["node"] == NODE).then_some(())
    });
    over(&client, agent);
}
