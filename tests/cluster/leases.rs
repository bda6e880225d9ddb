//! The books are deleted under running gateways: their addresses are nobody else's, and the leases are there again within seconds.

use std::time::{Duration, Instant};

use egret::egress::model::PodName;
use egret::ipam::{After, Allocation, Store, Tenant, release};
use egret::kube::{Client, ClusterStore};
use egret::node::ahead::Ahead;
use egret::node::attachment::Attachment;
use egret::node::books::Books;
use egret::node::embedded::Embedded;
use egret::node::holding::LEASED_TO_ANOTHER;
use egret::store::objects::Objects;
use egret::store::{Dir, endpoints};
use serde_json::{Value, json};

use crate::follower::{Follower, follow, follow_again};
use crate::following::egret_crds;
use crate::proxy::Proxy;
use crate::server::kubectl;
use crate::trouble::{namespace, node};
use crate::world::*;

const POOL: &str = "/apis/egret.dev/v1alpha1/egresspools";
/// Who claims or gives back begins with a list of all books.
const BOOKS: &str = "egressblocks?limit=500&continue=";
const BLOCK: &str = "/apis/egret.dev/v1alpha1/egressblocks/leases.v4-10-88-0-0-31";

/// Nodes, and a pool of two addresses for whoever runs on them.
pub(crate) fn ground(nodes: &[&str]) -> Client {
    let client = client_of("admin");
    forget(&client);
    // A story may follow one that had this node: stories run in any order.
    if let Err(error) = client.delete("/api/v1/nodes/lease-two") {
        assert!(error.is_absent(), "{error}");
    }
    nodes.iter().for_each(|name| node(&client, name));
    namespace(&client, "leases");
    let pool = json!({"apiVersion": "egret.dev/v1alpha1", "kind": "EgressPool", "metadata": {"name": "leases"},
        "spec": {"cidr": "10.88.0.0/31", "gatewayNamespaces": "all()"}});
    client.create(POOL, &pool).unwrap();
    client
}

/// A pod of a node, as the API server has it; its UID.
pub(crate) fn pod(client: &Client, name: &str, node: &str) -> String {
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "leases",
        "annotations": {"cni.projectcalico.org/ipv4pools": "[\"leases\"]"}},
        "spec": {"nodeName": node, "containers": [{"name": "c", "image": "x"}]}});
    let made = client.create("/api/v1/namespaces/leases/pods", &pod).unwrap();
    made["metadata"]["uid"].as_str().unwrap().to_owned()
}

/// What the first half of a gateway's ADD does on this node.
pub(crate) fn claim(agent: &Follower, pod: &str, uid: &str) -> Result<(Attachment, Ahead), String> {
    claim_by(agent, pod, uid, pod)
}

fn claim_by(agent: &Follower, pod: &str, uid: &str, container: &str) -> Result<(Attachment, Ahead), String> {
    let name = PodName::new("leases", pod);
    let began = Instant::now();
    let view = loop {
        let view = Objects::look(&agent.dir).unwrap().view(&agent.config, Vec::new());
        // And not a gateway of that name elsewhere.
        let is_here = view.pods.get(&name).is_some_and(|known| known.uid.as_deref() == Some(uid));
        if is_here && view.pools.contains_key("leases") {
            break view;
        }
        assert!(began.elapsed() < Duration::from_secs(120), "the agent does not hear of {name}");
        std::thread::sleep(Duration::from_millis(20));
    };
    let record = json!({"network": "net", "containerId": container, "ifname": "eth0", "netns": "/var/run/netns/none", "dev": 1, "inode": 1,
        "pod": name, "uid": uid, "addresses": ["10.244.0.8"], "gateway": true});
    let attachment: Attachment = serde_json::from_value(record).unwrap();
    let node = Embedded { books: Some(agent.cluster.clone()), ..Embedded::at(&agent.config).unwrap() };
    let ahead = node.claim_ahead(&view, &attachment).map_err(|error| error.to_string())?;
    Ok((attachment, ahead.unwrap()))
}

/// And the second, as far as the cluster hears of it.
pub(crate) fn publish(agent: &Follower, (attachment, ahead): &(Attachment, Ahead)) {
    let node = Embedded::at(&agent.config).unwrap();
    node.records.write(attachment).unwrap();
    let endpoint = json!({"pod": attachment.pod, "uid": attachment.uid, "attachment": attachment.id().to_string(), "node": node.name,
        "underlay": ["172.31.0.9"], "vni": 5001, "mac": "02:67:0a:58:00:00", "addresses": ahead.addresses(), "state": "ready",
        "generation": 0});
    let dir = Dir::open(&agent.dir).unwrap();
    let guard = dir.lock("a test", Duration::from_secs(10)).unwrap();
    endpoints::put(&dir, &guard, &serde_json::from_value(endpoint).unwrap()).unwrap();
}

pub(crate) fn allocation(client: &Client, address: &str) -> Option<Allocation> {
    let block = client.get(BLOCK).ok()?;
    serde_json::from_value(block["spec"]["allocations"][address].clone()).ok()
}

/// The agent is told of a container's end, and looks whether that held anything; what it was told of before is done by then.
fn gives_back(agent: &Follower, proxy: &Proxy, container: &str) {
    let before = proxy.asked(BOOKS);
    agent.cluster.release_later(Some(holder("lease-one", container)));
    wait("it does not look at the books", || (proxy.asked(BOOKS) > before).then_some(()));
}

pub(crate) fn wait<T>(what: &str, look: impl Fn() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(began.elapsed() < Duration::from_secs(120), "{what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn books_that_are_deleted_under_a_gateway_are_written_again_and_its_address_is_given_to_nobody_meanwhile() {
    let _alone = alone();
    let client = ground(&["lease-one", "lease-two"]);
    let proxy = Proxy::start();
    let agents = ["lease-one", "lease-two"].map(|name| follow(&proxy, name));
    agents.iter().for_each(Follower::synced);
    let [one, two] = &agents;

    let uid = pod(&client, "keeps", "lease-one");
    let kept = claim(one, "keeps", &uid).unwrap();
    let address = kept.1.addresses()[0].ip.to_string();
    publish(one, &kept);
    drop(kept);
    let before = allocation(&client, &address).unwrap();
    // Both have heard of it: the one follows the books because of it, the other by its endpoint.
    wait("the endpoint is not heard of", || {
        let (known, _) = endpoints::list(&Dir::open(&two.dir).unwrap()).unwrap();
        known.iter().any(|endpoint| endpoint.pod.name == "keeps").then_some(())
    });
    let follows = || (proxy.asked("egressblocks?resourceVersion") > 0).then_some(());
    wait("the agent with a gateway does not follow the books", follows);
    let mut uids = ["first", "second"].map(|name| (name, pod(&client, name, "lease-two"))).into_iter();

    // While there are no books, nobody writes; the other node claims as soon as there are.
    kubectl(&["delete", "crd", "egressblocks.egret.dev"], "");
    let (name, other) = uids.next().unwrap();
    assert!(claim(two, name, &other).is_err());
    kubectl(&["apply", "--server-side", "-f", "-"], &egret_crds());
    let began = Instant::now();
    let claimed = wait("nothing can be claimed", || claim(two, name, &other).ok());
    assert_ne!(claimed.1.addresses()[0].ip.to_string(), address, "one address for two gateways");
    let again = wait("the lease does not come back", || allocation(&client, &address));
    println!("the lease is back after {:?}", began.elapsed());
    assert_eq!((&again.owner, &again.holder, &again.pod), (&before.owner, &before.holder, &before.pod));
    assert!(again.sequence >= before.sequence, "{} after {}", again.sequence, before.sequence);

    // One object, by hand. The other node's claim is in it, and nothing runs there that could say so: its address is free again.
    client.delete(BLOCK).unwrap();
    let (name, other) = uids.next().unwrap();
    let claimed_too = wait("nothing can be claimed", || claim(two, name, &other).ok());
    assert_ne!(claimed_too.1.addresses()[0].ip.to_string(), address);
    let third = wait("the lease does not come back", || allocation(&client, &address));
    assert_eq!((&third.owner, &third.holder), (&before.owner, &before.holder));

    // Somebody else's by now: it is theirs, and it is said.
    let thief = Tenant { owner: owner("pod:thief"), holder: holder("lease-two", "t"), pod: None };
    let mut block =
        ClusterStore::new(&client).read("leases", "10.88.0.0/31".parse().unwrap()).unwrap().unwrap();
    block.0.take(ip(&address), &thief, 0);
    ClusterStore::new(&client).swap(&block.0, Some(block.1)).unwrap();
    let said = wait("nobody says that two have it", || {
        one.cluster.problems().into_iter().find(|problem| problem.reason == LEASED_TO_ANOTHER)
    });
    assert_eq!(said.object, "Pod leases/keeps");
    assert!(said.message.contains("pod:thief, held by net/t/eth0 on node lease-two"), "{said}");
    assert_eq!(allocation(&client, &address).unwrap().owner, thief.owner);
    drop((claimed, claimed_too));
    drop(agents);
    remove_pods();
    forget(&client);
}

#[test]
fn a_gateways_next_sandbox_has_its_address_also_after_its_node_lost_power_and_its_end_frees_it() {
    let _alone = alone();
    let client = ground(&["lease-one"]);
    let proxy = Proxy::start();
    let agent = follow(&proxy, "lease-one");
    agent.synced();
    let uid = pod(&client, "stays", "lease-one");
    let first = claim_by(&agent, "stays", &uid, "first").unwrap();
    let address = first.1.addresses()[0].ip.to_string();
    publish(&agent, &first);
    drop(first);

    // Its sandbox is made again, and the DEL of the first comes late.
    let second = claim_by(&agent, "stays", &uid, "second").unwrap();
    assert_eq!(second.1.addresses()[0].ip.to_string(), address);
    publish(&agent, &second);
    drop(second);
    let had = allocation(&client, &address).unwrap();
    gives_back(&agent, &proxy, "first");
    gives_back(&agent, &proxy, "nobody");
    assert_eq!(allocation(&client, &address).unwrap(), had, "a late DEL frees nothing");

    // What lay on tmpfs is gone with the power; the next agent finds a holder without a record, whose pod is there.
    std::fs::remove_dir_all(&agent.config.run_dir).unwrap();
    let proxy = Proxy::start();
    let agent = follow_again(&proxy, agent);
    agent.synced();
    wait("it does not look at what was left", || (proxy.asked(BOOKS) > 0).then_some(()));
    gives_back(&agent, &proxy, "nobody");
    assert_eq!(allocation(&client, &address).unwrap(), had, "its pod will have another sandbox");
    let other = pod(&client, "other", "lease-one");
    let others = claim_by(&agent, "other", &other, "other").unwrap();
    assert_ne!(others.1.addresses()[0].ip.to_string(), address);
    drop(others);
    let third = claim_by(&agent, "stays", &uid, "third").unwrap();
    assert_eq!(third.1.addresses()[0].ip.to_string(), address);
    let now = allocation(&client, &address).unwrap();
    assert!(now.sequence > had.sequence && now.owner == had.owner, "{now:?}");
    drop(third);

    // The pod is gone, and no record speaks of its containers.
    remove_pods();
    let freed = wait("nobody frees it", || allocation(&client, &address).filter(|a| a.holder.is_none()));
    assert!(freed.freed_at.is_some(), "{freed:?}");
    drop(agent);
    forget(&client);
}

/// Its DEL removes the endpoint first and the record last; who looks between the two must not take that for a loss.
#[test]
fn a_lost_endpoint_comes_back_and_that_of_a_gateway_which_ends_does_not() {
    let _alone = alone();
    let client = ground(&["lease-one"]);
    let agent = follow(&Proxy::start(), "lease-one");
    agent.synced();
    let uid = pod(&client, "ends", "lease-one");
    let gateway = claim(&agent, "ends", &uid).unwrap();
    publish(&agent, &gateway);
    let (node, dir) = (Embedded::at(&agent.config).unwrap(), Dir::open(&agent.dir).unwrap());
    let id = gateway.0.id();
    let endpoint = || endpoints::get(&dir, &id.to_string()).unwrap();
    let lose = || {
        let guard = dir.lock("a test", Duration::from_secs(10)).unwrap();
        assert!(endpoints::remove(&dir, &guard, &id.to_string()).unwrap());
    };
    let said = || client.list("/apis/egret.dev/v1alpha1/egressendpoints?").unwrap().0.len();
    wait("the endpoint is not said", || (said() == 1).then_some(()));
    // Heard by itself, too: else it would not come back.
    std::thread::sleep(Duration::from_secs(1));
    let was = endpoint();
    lose();
    let again = wait("what was lost does not come back", endpoint);
    assert_eq!(Some(again.0), was.map(|(endpoint, _)| endpoint));

    let guard = node.lock("DEL").unwrap();
    lose();
    std::thread::sleep(Duration::from_secs(2)); // many looks
    assert!(endpoint().is_none(), "a DEL that is under way is no loss");
    node.records.remove(&id).unwrap();
    drop(guard);
    wait("it is still said", || (said() == 0).then_some(()));
    assert!(endpoint().is_none());
    drop(gateway);
    remove_pods();
    forget(&client);
}

/// What a StatefulSet's first pod has on the second node.
fn far_lease(client: &Client) {
    let block = json!({"apiVersion": "egret.dev/v1alpha1", "kind": "EgressBlock", "metadata": {"name": "leases.v4-10-88-0-0-31"}, "spec": {
        "pool": "leases", "cidr": "10.88.0.0/31", "affinity": "lease-two", "sequence": 3, "allocations": {"10.88.0.1": {
            "owner": "ordinal:leases/gw/0", "sequence": 3, "since": 5,
            "holder": {"network": "net", "container": "far", "ifname": "eth0", "node": "lease-two"}}}}});
    client.create("/apis/egret.dev/v1alpha1/egressblocks", &block).unwrap();
}

/// That pod, made anew on the first node; its UID.
fn stateful_pod(client: &Client) -> String {
    let set = json!({"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "gw", "uid": "00000000-0000-0000-0000-000000000001", "controller": true});
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "gw-0", "namespace": "leases", "ownerReferences": [set],
        "annotations": {"cni.projectcalico.org/ipv4pools": "[\"leases\"]"}},
        "spec": {"nodeName": "lease-one", "containers": [{"name": "c", "image": "x"}]}});
    let made = client.create("/api/v1/namespaces/leases/pods", &pod).unwrap();
    made["metadata"]["uid"].as_str().unwrap().to_owned()
}

/// Two nodes with one address: the pod was deleted by force, while its node was not reached.
#[test]
fn a_stateful_pod_waits_for_the_node_that_has_its_address() {
    let _alone = alone();
    let client = ground(&["lease-one", "lease-two"]);
    far_lease(&client);
    let agent = follow(&Proxy::start(), "lease-one");
    agent.synced();
    let uid = stateful_pod(&client);
    let refused = claim(&agent, "gw-0", &uid).unwrap_err();
    let parts = [
        "held by net/far/eth0 on node lease-two",
        "node.kubernetes.io/out-of-service",
        "`egret ipam release 10.88.0.1 --force`",
    ];
    assert!(parts.iter().all(|part| refused.contains(part)), "{refused}");
    assert_eq!(allocation(&client, "10.88.0.1").unwrap().sequence, 3);

    // The node is reached again while the pod waits: its agent says that the container is gone.
    std::thread::scope(|scope| {
        let claims =
            scope.spawn(|| claim(&agent, "gw-0", &uid).map(|(_, ahead)| ahead.addresses()[0].ip.to_string()));
        std::thread::sleep(Duration::from_secs(1));
        assert!(!claims.is_finished(), "it was to wait");
        release(&ClusterStore::new(&client), &holder("lease-two", "far"), After::Owner, 10).unwrap();
        assert_eq!(claims.join().unwrap().unwrap(), "10.88.0.1");
    });
    over(&client, agent);
}

/// Two nodes with one address: a Node object was deleted, by whom ever, and the containers there go on.
#[test]
fn a_stateful_pod_waits_for_a_container_whose_node_object_is_gone_while_its_endpoint_is_known() {
    let _alone = alone();
    let client = ground(&["lease-one"]);
    far_lease(&client);
    let endpoint = json!({"apiVersion": "egret.dev/v1alpha1", "kind": "EgressEndpoint", "metadata": {"name": "far"}, "spec": {
        "pod": "leases/gw-0", "attachment": "net/far/eth0", "node": "lease-two", "underlay": ["172.31.0.8"], "vni": 5001,
        "mac": "02:67:0a:58:00:01", "addresses": [{"ip": "10.88.0.1", "pool": "leases"}], "state": "ready", "generation": 1}});
    client.create("/apis/egret.dev/v1alpha1/egressendpoints", &endpoint).unwrap();
    let agent = follow(&Proxy::start(), "lease-one");
    agent.synced();
    let dir = Dir::open(&agent.dir).unwrap();
    let known = || endpoints::get(&dir, "net/far/eth0").unwrap();
    wait("the endpoint is not heard of", known);
    let uid = stateful_pod(&client);
    let refused = claim(&agent, "gw-0", &uid).unwrap_err();
    assert!(refused.contains("held by net/far/eth0 on node lease-two"), "{refused}");
    assert_eq!(allocation(&client, "10.88.0.1").unwrap().sequence, 3);

    // The controller finds nobody there, and the endpoint goes first.
    client.delete("/apis/egret.dev/v1alpha1/egressendpoints/far").unwrap();
    wait("it is still heard of", || known().is_none().then_some(()));
    let (_, ahead) = claim(&agent, "gw-0", &uid).unwrap();
    assert_eq!(ahead.addresses()[0].ip.to_string(), "10.88.0.1");
    over(&client, agent);
}

/// The object by which others hear of the gateway of this pod.
pub(crate) fn endpoint(client: &Client, pod: &str) -> Option<Value> {
    let (all, _) = client.list("/apis/egret.dev/v1alpha1/egressendpoints?").unwrap();
    let name = json!(format!("leases/{pod}"));
    all.into_iter().find(|object| object["spec"]["pod"] == name)
}

/// What a gateway's DEL does, but for telling the agent.
pub(crate) fn ends(agent: &Follower, attachment: &Attachment) {
    let (node, dir) = (Embedded::at(&agent.config).unwrap(), Dir::open(&agent.dir).unwrap());
    let guard = node.lock("DEL").unwrap();
    let store = dir.lock("a test", Duration::from_secs(10)).unwrap();
    assert!(endpoints::remove(&dir, &store, &attachment.id().to_string()).unwrap());
    drop(store);
    node.records.remove(&attachment.id()).unwrap();
    drop(guard);
}

/// No pod of the namespace is left.
pub(crate) fn remove_pods() {
    kubectl(&["delete", "pods", "-n", "leases", "--all", "--force", "--grace-period=0"], "");
}

/// The end of a story: the agent goes, and the cluster forgets it.
pub(crate) fn over(client: &Client, agent: Follower) {
    drop(agent);
    remove_pods();
    forget(client);
}
