//! One thing that a node cannot say, hold or give back, and everything else that it says, holds and gives back all the same.

use std::net::IpAddr;
use std::sync::Arc;
use std::thread::sleep;
use std::time::Duration;

use egret::ipam::{Store, Tenant};
use egret::kube::{Client, ClusterStore};
use egret::node::attachment::Attachment;
use egret::node::books::Books;
use serde_json::{Value, json};

use crate::follower::{Follower, follow, follow_after};
use crate::leases::{claim, endpoint, ends, over, pod, publish, remove_pods, wait};
use crate::proxy::{Fate, Proxy, refusal};
use crate::server::kubectl;
use crate::trouble::{namespace, node};
use crate::world::*;

const NODE: &str = "apart";
const ENDPOINTS: &str = "/apis/egret.dev/v1alpha1/egressendpoints";
const BLOCKS: &str = "/apis/egret.dev/v1alpha1/egressblocks";

/// What its ADD made, and its address.
type Gateway = (Attachment, IpAddr);

/// A node, and a pool in which each address has books of its own.
fn ground() -> Client {
    let client = client_of("admin");
    forget(&client);
    node(&client, NODE);
    namespace(&client, "leases");
    remove_pods();
    let pool = json!({"apiVersion": "egret.dev/v1alpha1", "kind": "EgressPool", "metadata": {"name": "leases"},
        "spec": {"cidr": "10.88.0.0/30", "blockSize": 32, "gatewayNamespaces": "all()"}});
    client.create("/apis/egret.dev/v1alpha1/egresspools", &pool).unwrap();
    client
}

/// An agent that has heard of everything, by a server that can be told to refuse.
fn begun() -> (Client, Arc<Proxy>, Follower) {
    let (client, proxy) = (ground(), Proxy::start());
    let agent = follow(&proxy, NODE);
    agent.synced();
    (client, proxy, agent)
}

fn gateways<const N: usize>(client: &Client, agent: &Follower, names: [&str; N]) -> [Gateway; N] {
    let all = names.map(|name| {
        let gateway = claim(agent, name, &pod(client, name, NODE)).unwrap();
        publish(agent, &gateway);
        let (attachment, ahead) = gateway;
        (attachment, ahead.addresses()[0].ip)
    });
    names.iter().for_each(|name| drop(wait("a gateway is not heard of", || endpoint(client, name))));
    all
}

fn name(object: &Value) -> String {
    object["metadata"]["name"].as_str().unwrap().to_owned()
}

fn books(at: IpAddr) -> String {
    format!("{BLOCKS}/leases.v4-{}-32", at.to_string().replace('.', "-"))
}

fn is_held(client: &Client, at: IpAddr) -> bool {
    let block = client.get(&books(at)).unwrap_or_default();
    !block["spec"]["allocations"][at.to_string()]["holder"].is_null()
}

/// Somebody takes this lease out of the books.
fn lose_lease(client: &Client, at: IpAddr) {
    let store = ClusterStore::new(client);
    let (mut block, version) = store.read("leases", format!("{at}/32").parse().unwrap()).unwrap().unwrap();
    block.allocations.clear();
    store.swap(&block, Some(version)).unwrap();
}

/// Something new is to be said of this pod's gateway, six times, each when the one before was heard.
fn says_six_times(client: &Client, pod: &str) {
    for turn in 0..6 {
        let value = format!("v{turn}");
        kubectl(&["label", "pod", pod, "-n", "leases", "--overwrite", &format!("turn={value}")], "");
        wait("what is new is not said", || {
            endpoint(client, pod).filter(|object| object["spec"]["labels"]["turn"] == *value)
        });
    }
}

#[test]
fn a_lease_that_cannot_be_written_again_hinders_neither_another_lease_nor_what_is_said() {
    let _alone = alone();
    let (client, proxy, agent) = begun();
    let both = gateways(&client, &agent, ["a", "b"]);
    let at = both.map(|(_, at)| at);
    for (refused, other) in [(at[0], at[1]), (at[1], at[0])] {
        let put = format!("PUT {}", books(refused));
        let line = put.clone();
        proxy.judge(move |asked| match asked.contains(&line) {
            true => refusal(403, "Forbidden", "a policy of the cluster's is against it"),
            false => Fate::Pass,
        });
        lose_lease(&client, refused);
        lose_lease(&client, other);
        wait("the other lease is not written again", || is_held(&client, other).then_some(()));
        assert!(!is_held(&client, refused));

        // It is tried ever more seldom, and what is said does not keep its pace.
        let before = proxy.asked(&put);
        wait("it is not tried again", || (proxy.asked(&put) >= before + 4).then_some(()));
        let tries = proxy.asked(&put);
        says_six_times(&client, "b");
        let tries = proxy.asked(&put) - tries;
        assert!(tries < 5, "it was tried {tries} times while six things were said");

        proxy.judge(|_| Fate::Pass);
        wait("the lease is not written again", || is_held(&client, refused).then_some(()));
    }
    over(&client, agent);
}

#[test]
fn an_endpoint_that_another_node_has_is_named_and_hinders_no_other() {
    let _alone = alone();
    let (client, proxy, agent) = begun();
    gateways(&client, &agent, ["a", "b"]);
    let object = name(&endpoint(&client, "a").unwrap());
    // What another node says goes by the same name.
    let other = r#"{"spec": {"node": "elsewhere", "attachment": "net/z/eth0", "pod": "leases/z"}}"#;
    kubectl(&["patch", "egressendpoint", &object, "--type=merge", "-p", other], "");
    let get = format!("GET {ENDPOINTS}/{object}");
    wait("it is not tried again", || (proxy.asked(&get) >= 4).then_some(()));
    let tries = proxy.asked(&get);
    says_six_times(&client, "b");
    let tries = proxy.asked(&get) - tries;
    assert!(tries < 5, "it was tried {tries} times while six things were said");
    let named = agent.cluster.problems().into_iter().find(|problem| problem.object == "Pod leases/a");
    assert!(named.as_ref().is_some_and(|p| p.message.contains("is node elsewhere's")), "{named:?}");
    assert_eq!(endpoint(&client, "z").unwrap()["spec"]["node"], "elsewhere", "it is nobody's to take");

    client.delete(&format!("{ENDPOINTS}/{object}")).unwrap();
    wait("it is not said again", || endpoint(&client, "a"));
    wait("it is named still", || agent.cluster.problems().is_empty().then_some(()));
    over(&client, agent);
}

#[test]
fn an_endpoint_that_cannot_be_deleted_keeps_its_own_lease_only() {
    let _alone = alone();
    let (client, proxy, agent) = begun();
    let both = gateways(&client, &agent, ["a", "b"]);
    let own = both[0].1;
    let delete = format!("DELETE {ENDPOINTS}/{}", name(&endpoint(&client, "a").unwrap()));
    let line = delete.clone();
    proxy.judge(move |asked| match asked.contains(&line) {
        true => refusal(403, "Forbidden", "a policy of the cluster's is against it"),
        false => Fate::Pass,
    });
    kubectl(&["delete", "pod", "a", "-n", "leases", "--force", "--grace-period=0"], "");
    ends(&agent, &both[0].0);
    wait("it is not deleted", || (proxy.asked(&delete) > 0).then_some(()));

    // A container that no record speaks of has an address, and its pod is gone.
    let store = ClusterStore::new(&client);
    let lost = ["10.88.0.0", "10.88.0.1", "10.88.0.2", "10.88.0.3"].map(|at| at.parse().unwrap());
    let lost = lost.into_iter().find(|at| both.iter().all(|gateway| gateway.1 != *at)).unwrap();
    let mut holder = holder(NODE, "lost");
    holder.network = "net".to_owned();
    let tenant = Tenant { owner: owner("pod:gone"), holder, pod: None };
    let mut block = egret::ipam::Block::new("leases", format!("{lost}/32").parse().unwrap(), Some(NODE));
    block.take(lost, &tenant, 0);
    store.swap(&block, None).unwrap();
    assert!(is_held(&client, lost));
    agent.cluster.release_later(None);
    wait("what is lost is not given back", || (!is_held(&client, lost)).then_some(()));
    assert!(is_held(&client, own), "clients send packets there");
    assert!(endpoint(&client, "a").is_some());

    proxy.judge(|_| Fate::Pass);
    wait("it stands still", || endpoint(&client, "a").is_none().then_some(()));
    wait("its lease does not come back", || (!is_held(&client, own)).then_some(()));
    over(&client, agent);
}

#[test]
fn while_nobody_knows_which_endpoints_stand_no_lease_is_given_back() {
    let _alone = alone();
    let (client, proxy, agent) = begun();
    let [gateway] = gateways(&client, &agent, ["a"]);
    let own = gateway.1;

    // It ends while no agent can say so, and the next one may not list endpoints.
    proxy.judge(|_| refusal(503, "ServiceUnavailable", "not now"));
    ends(&agent, &gateway.0);
    kubectl(&["delete", "pod", "a", "-n", "leases", "--force", "--grace-period=0"], "");
    let proxy = Proxy::start();
    let line = format!("GET {ENDPOINTS}?");
    proxy.judge(move |asked| match asked.starts_with(&line) {
        true => refusal(403, "Forbidden", "egressendpoints is forbidden"),
        false => Fate::Pass,
    });
    let agent = follow_after(&proxy, agent, |_| {});
    agent.synced();
    wait("it does not hear of pods", || (proxy.asked("/api/v1/pods") > 1).then_some(()));
    sleep(Duration::from_secs(3)); // many looks
    assert!(endpoint(&client, "a").is_some(), "nobody could delete it");
    assert!(is_held(&client, own), "clients send packets there");

    proxy.judge(|_| Fate::Pass);
    wait("its endpoint stands still", || endpoint(&client, "a").is_none().then_some(()));
    wait("its lease does not come back", || (!is_held(&client, own)).then_some(()));
    over(&client, agent);
}
