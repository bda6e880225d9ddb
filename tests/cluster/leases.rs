//! The books are deleted under running gateways: their addresses are nobody else's, and the leases are there again within seconds.

use std::sync::Arc;
use std::time::{Duration, Instant};

use egret::egress::model::PodName;
use egret::ipam::{Allocation, Store, Tenant};
use egret::kube::{Client, ClusterStore};
use egret::node::ahead::Ahead;
use egret::node::attachment::Attachment;
use egret::node::embedded::Embedded;
use egret::node::holding::LEASED_TO_ANOTHER;
use egret::store::objects::Objects;
use egret::store::{Dir, endpoints};
use serde_json::json;

use crate::following::egret_crds;
use crate::proxy::Proxy;
use crate::server::kubectl;
use crate::trouble::{Follower, follow, namespace, node};
use crate::world::*;

const POOL: &str = "/apis/egret.dev/v1alpha1/egresspools";
const BLOCK: &str = "/apis/egret.dev/v1alpha1/egressblocks/leases.v4-10-88-0-0-31";

/// A pod of a node, as the API server has it; its UID.
fn pod(client: &Client, name: &str, node: &str) -> String {
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "leases",
        "annotations": {"cni.projectcalico.org/ipv4pools": "[\"leases\"]"}},
        "spec": {"nodeName": node, "containers": [{"name": "c", "image": "x"}]}});
    let made = client.create("/api/v1/namespaces/leases/pods", &pod).unwrap();
    made["metadata"]["uid"].as_str().unwrap().to_owned()
}

/// What the first half of a gateway's ADD does on this node.
fn claim(agent: &Follower, pod: &str, uid: &str) -> Result<(Attachment, Ahead), String> {
    let name = PodName::new("leases", pod);
    let began = Instant::now();
    let view = loop {
        let view = Objects::look(&agent.dir).unwrap().view(&agent.config, Vec::new());
        if view.pods.contains_key(&name) && view.pools.contains_key("leases") {
            break view;
        }
        assert!(began.elapsed() < Duration::from_secs(20), "the agent does not hear of {name}");
        std::thread::sleep(Duration::from_millis(20));
    };
    let record = json!({"network": "net", "containerId": pod, "ifname": "eth0", "netns": "/var/run/netns/none", "dev": 1, "inode": 1,
        "pod": name, "uid": uid, "addresses": ["10.244.0.8"], "gateway": true});
    let attachment: Attachment = serde_json::from_value(record).unwrap();
    let node = Embedded { books: Some(agent.cluster.clone()), ..Embedded::at(&agent.config).unwrap() };
    let ahead = node.claim_ahead(&view, &attachment).map_err(|error| error.to_string())?;
    Ok((attachment, ahead.unwrap()))
}

/// And the second, as far as the cluster hears of it.
fn publish(agent: &Follower, (attachment, ahead): &(Attachment, Ahead)) {
    let node = Embedded::at(&agent.config).unwrap();
    node.records.write(attachment).unwrap();
    let endpoint = json!({"pod": attachment.pod, "uid": attachment.uid, "attachment": attachment.id().to_string(), "node": node.name,
        "underlay": ["172.31.0.9"], "vni": 5001, "mac": "02:67:0a:58:00:00", "addresses": ahead.addresses(), "state": "ready",
        "generation": 0});
    let dir = Dir::open(&agent.dir).unwrap();
    let guard = dir.lock("a test", Duration::from_secs(10)).unwrap();
    endpoints::put(&dir, &guard, &serde_json::from_value(endpoint).unwrap()).unwrap();
}

fn allocation(client: &Client, address: &str) -> Option<Allocation> {
    let block = client.get(BLOCK).ok()?;
    serde_json::from_value(block["spec"]["allocations"][address].clone()).ok()
}

fn wait<T>(what: &str, look: impl Fn() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(began.elapsed() < Duration::from_secs(40), "{what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn books_that_are_deleted_under_a_gateway_are_written_again_and_its_address_is_given_to_nobody_meanwhile() {
    let _alone = alone();
    let client = Arc::new(client_of("admin"));
    forget(&client);
    for name in ["lease-one", "lease-two"] {
        node(&client, name);
    }
    namespace(&client, "leases");
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default", "namespace": "leases"}});
    let _ = client.create("/api/v1/namespaces/leases/serviceaccounts", &account);
    let pool = json!({"apiVersion": "egret.dev/v1alpha1", "kind": "EgressPool", "metadata": {"name": "leases"},
        "spec": {"cidr": "10.88.0.0/31", "gatewayNamespaces": "all()"}});
    client.create(POOL, &pool).unwrap();
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
    kubectl(&["delete", "pods", "-n", "leases", "--all", "--force", "--grace-period=0"], "");
    forget(&client);
}
