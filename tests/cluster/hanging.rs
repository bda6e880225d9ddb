//! A request that the server takes and never answers: who needs that answer waits, within bounds, and nobody else does.

use std::time::{Duration, Instant};

use egret::agent::door::Gate;
use egret::store::objects::Objects;
use egret::store::{Dir, endpoints};
use serde_json::json;

use crate::leases::{claim, pod_of};
use crate::proxy::{Fate, Proxy};
use crate::trouble::{add, follow, namespace, node};
use crate::world::*;

/// A request is given up after 10 s, so whoever waited behind one took longer than this.
const OTHERS: Duration = Duration::from_secs(8);
/// The plugin gives up after 30 s.
const DEADLINE: Duration = Duration::from_secs(28);

#[test]
fn one_request_that_is_never_answered_delays_no_other_pod_and_its_own_is_answered_in_time() {
    let _alone = alone();
    let client = client_of("admin");
    forget(&client);
    node(&client, "hanging");
    for name in ["hang", "well", "leases"] {
        namespace(&client, name);
        let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default", "namespace": name}});
        let _ = client.create(&format!("/api/v1/namespaces/{name}/serviceaccounts"), &account);
    }
    let pool = json!({"apiVersion": "egret.dev/v1alpha1", "kind": "EgressPool", "metadata": {"name": "leases"},
        "spec": {"cidr": "10.88.0.0/31", "gatewayNamespaces": "all()"}});
    client.create("/apis/egret.dev/v1alpha1/egresspools", &pool).unwrap();
    let proxy = Proxy::start();
    let agent = follow(&proxy, "hanging");
    agent.synced();
    // A question about a namespace, what the node has to say, and the books: three calls of three threads.
    proxy.judge(|line| {
        let silent = ["GET /api/v1/namespaces/hang", "POST /apis/egret.dev/v1alpha1/egressendpoints"]
            .contains(&line)
            || line.contains("/egressblocks");
        if silent { Fate::Silence } else { Fate::Pass }
    });
    let endpoint = json!({"pod": "gw/own", "attachment": "net/own/eth0", "node": "hanging", "underlay": ["172.31.0.9"], "vni": 5001,
        "mac": "02:67:0a:f4:00:09", "addresses": [{"ip": "10.244.0.9", "pool": "own", "source": "PodAddress"}], "state": "draining",
        "generation": 1});
    let dir = Dir::open(&agent.dir).unwrap();
    let guard = dir.lock("a test", Duration::from_secs(10)).unwrap();
    endpoints::put(&dir, &guard, &serde_json::from_value(endpoint).unwrap()).unwrap();
    drop(guard);
    let began = Instant::now();
    while proxy.asked("POST /apis/egret.dev/v1alpha1/egressendpoints") == 0 {
        assert!(began.elapsed() < Duration::from_secs(20), "the endpoint is not said");
        std::thread::sleep(Duration::from_millis(20));
    }

    let (stuck, gateway) =
        (pod_of(&client, "hang", "stuck", "hanging"), pod_of(&client, "leases", "gw", "hanging"));
    std::thread::scope(|scope| {
        let agent = &agent;
        let slow = scope.spawn(move || {
            let began = Instant::now();
            let outcome = agent.cluster.fresh(&add("hang", "stuck", &stuck));
            (began.elapsed(), outcome)
        });
        let claims = scope.spawn(move || {
            let began = Instant::now();
            let outcome = claim(agent, "gw", &gateway).map(drop);
            (began.elapsed(), outcome)
        });
        while proxy.asked("GET /api/v1/namespaces/hang") == 0 {
            std::thread::sleep(Duration::from_millis(10));
        }
        for n in 0..10 {
            let name = format!("p{n}");
            let uid = pod_of(&client, "well", &name, "hanging");
            let began = Instant::now();
            agent.cluster.fresh(&add("well", &name, &uid)).unwrap();
            assert!(began.elapsed() < OTHERS, "{name} waited {:?} for another pod's answer", began.elapsed());
        }
        // What is heard goes on reaching the disk, from where the kernel follows.
        let path = "/api/v1/namespaces/well";
        let mut object = client.get(path).unwrap();
        object["metadata"]["annotations"]["egress.projectcalico.org/selector"] = "app == 'gw'".into();
        client.replace(path, &object).unwrap();
        let began = Instant::now();
        while Objects::look(&agent.dir).unwrap().namespace("well").unwrap().annotations.is_empty() {
            assert!(began.elapsed() < OTHERS, "an annotation waits for what is said");
            std::thread::sleep(Duration::from_millis(20));
        }
        let (took, outcome) = slow.join().unwrap();
        println!("the pod whose question hangs: {took:?}, {outcome:?}");
        assert!(took < DEADLINE && took > Duration::from_secs(5), "{took:?}");
        let (took, outcome) = claims.join().unwrap();
        println!("the gateway whose claim hangs: {took:?}, {outcome:?}");
        let why = outcome.unwrap_err();
        assert!(took < DEADLINE && why.contains("does not answer in time"), "{took:?}: {why}");
    });
    drop(agent);
    proxy.judge(|_| Fate::Pass);
    for name in ["hang", "well", "leases"] {
        crate::server::kubectl(&["delete", "pods", "-n", name, "--all", "--force", "--grace-period=0"], "");
    }
    forget(&client);
}
