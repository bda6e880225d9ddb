//! Worlds as an API server tells them, and what the controller would write.

mod counting;
mod giving_back;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::agents::Agent;
use super::status::{self, Write};
use super::tally::tally;
use super::world::World;
use crate::config::Config;
use crate::kube::{Mirror, Reach, Watched};

/// A mirror of these objects (JSON, one per line), in which every kind was listed.
fn mirror(objects: &[Value]) -> Mirror {
    let mut mirror = Mirror::of(Reach::Cluster);
    for kind in Reach::Cluster.kinds() {
        let of = objects.iter().filter(|object| {
            (object["apiVersion"].as_str(), object["kind"].as_str())
                == (Some(kind.typed().0), Some(kind.typed().1))
        });
        mirror.listed(kind, &of.cloned().collect::<Vec<_>>());
    }
    assert!(mirror.is_synced());
    mirror
}

fn world(mirror: &Mirror, away: &[&str]) -> World {
    let agent = |node: &str| match node {
        "never" | "gone" => Agent::Never,
        node if away.contains(&node) => Agent::Away,
        _ => Agent::Here,
    };
    World::of(mirror, &Config::default(), agent).unwrap()
}

fn writes(world: &World, now: u64, time: &str) -> Vec<Write> {
    status::writes(world, &tally(world), now, time)
}

fn object(kind: Watched, name: &str, spec: &Value) -> Value {
    let (version, word) = kind.typed();
    let (namespace, name) = name.split_once('/').map_or((Value::Null, name), |(ns, name)| (ns.into(), name));
    let mut object = json!({"apiVersion": version, "kind": word, "metadata": {"name": name, "generation": 1}, "spec": spec});
    if !namespace.is_null() {
        object["metadata"]["namespace"] = namespace;
    }
    object
}

fn pod(name: &str, node: &str, labels: &Value) -> Value {
    let mut pod = object(Watched::Pods, name, &json!({"nodeName": node}));
    pod["metadata"]["uid"] = format!("uid-{name}").into();
    pod["metadata"]["labels"] = labels.clone();
    pod
}

fn node(name: &str, ip: &str) -> Value {
    let mut node = object(Watched::Nodes, name, &json!({}));
    node["status"] = json!({"addresses": [{"type": "InternalIP", "address": ip}]});
    node
}

fn gateway(name: &str, node: &str, ip: &str) -> [Value; 2] {
    let endpoint = json!({
        "pod": format!("red/{name}"), "attachment": format!("net/{name}/eth0"), "node": node, "underlay": ["192.0.2.1"],
        "vni": 5000, "mac": "02:67:0a:00:00:01", "addresses": [{"ip": ip, "pool": "p"}], "state": "ready", "generation": 1,
    });
    [
        pod(&format!("red/{name}"), node, &json!({"role": "gw"})),
        object(Watched::Endpoints, &format!("gw-{name}"), &endpoint),
    ]
}

/// Two nodes, a pool of four addresses with one gateway, a policy that sends `app: cart` there, and two such pods.
fn shop() -> Vec<Value> {
    let mut all = vec![
        object(Watched::Namespaces, "red", &Value::Null),
        object(Watched::Namespaces, "shop", &Value::Null),
        node("n1", "192.0.2.1"),
        node("n2", "192.0.2.2"),
        object(
            Watched::Pools,
            "p",
            &json!({"cidr": "10.0.0.0/30", "gatewayNamespaces": "all()", "clientNamespaces": "all()"}),
        ),
        object(
            Watched::Policies,
            "web",
            &json!({
                "selectors": [{"selector": "app == 'cart'"}],
                "rules": [{"gateway": {"selector": "role == 'gw'", "namespaceSelector": "all()"}}],
                "otherFamily": "Ignore",
            }),
        ),
        object(Watched::Blocks, "p.v4-10-0-0-0-31", &block("10.0.0.0/31", "pod:uid-red/gw", "n1")),
        object(Watched::NodeRecords, "node-7", &json!({"node": "n1", "number": 7, "wire": "192.0.2.1"})),
        pod("shop/one", "n1", &json!({"app": "cart"})),
        pod("shop/two", "n2", &json!({"app": "cart"})),
        pod("shop/other", "n2", &json!({})),
    ];
    all.extend(gateway("gw", "n1", "10.0.0.0"));
    all
}

fn block(cidr: &str, owner: &str, node: &str) -> Value {
    let ip = cidr.split('/').next().unwrap();
    let holder = json!({"network": "net", "container": "gw", "ifname": "eth0", "node": node});
    json!({"pool": "p", "cidr": cidr, "affinity": node, "sequence": 1,
        "allocations": {ip: {"owner": owner, "holder": holder, "sequence": 1, "since": 100}}})
}

/// The status of an object after the writes.
fn said<'a>(writes: &'a [Write], name: &str) -> &'a Value {
    &writes.iter().find(|write| write.name == name).unwrap_or_else(|| panic!("{name}: {writes:?}")).status
}

/// `TYPE=STATUS/REASON` of each condition.
fn conditions(status: &Value) -> Vec<String> {
    let word = |condition: &Value, key: &str| condition[key].as_str().unwrap().to_owned();
    let all = status["conditions"].as_array().unwrap();
    all.iter().map(|c| format!("{}={}/{}", word(c, "type"), word(c, "status"), word(c, "reason"))).collect()
}

#[test]
fn a_pool_says_how_full_it_is_and_a_policy_how_many_follow_it() {
    let all = writes(&world(&mirror(&shop()), &[]), 1000, "t");
    let pool = said(&all, "p");
    assert_eq!(
        [&pool["size"], &pool["free"], &pool["leased"], &pool["clients"], &pool["unprotected"]],
        [&json!("4"), &json!("3"), &json!(1), &json!(2), &json!(0)]
    );
    assert_eq!(conditions(pool), ["Accepted=True/Read", "Ready=True/InUse", "Protected=True/Served"]);
    let policy = said(&all, "web");
    assert_eq!(
        (&policy["pods"], &policy["held"], &policy["observedGeneration"]),
        (&json!(2), &json!(0), &json!(1))
    );
    assert_eq!(conditions(policy), ["Accepted=True/Read", "Ready=True/InUse", "Protected=True/Served"]);
}

#[test]
fn a_gateway_says_whether_it_takes_flows() {
    let with = |state: &str, away: &[&str]| {
        let mut objects = shop();
        let endpoint = objects.iter_mut().find(|object| object["kind"] == "EgressEndpoint").unwrap();
        endpoint["spec"]["state"] = state.into();
        conditions(said(&writes(&world(&mirror(&objects), away), 1000, "t"), "gw-gw"))
    };
    assert_eq!(with("ready", &[]), ["Ready=True/Serving"]);
    assert_eq!(with("ready", &["n1"]), ["Ready=True/AgentAway"]);
    assert_eq!(with("starting", &[]), ["Ready=False/Starting"]);
    assert_eq!(with("draining", &[]), ["Ready=False/Draining"]);
    assert_eq!(with("failed", &[]), ["Ready=False/Failed"]);
}

#[test]
fn pods_where_no_agent_runs_are_named_by_their_policy_and_by_the_pool_that_they_would_leave_by() {
    let all = writes(&world(&mirror(&shop()), &["n2"]), 1000, "t");
    for name in ["p", "web"] {
        let status = said(&all, name);
        assert_eq!(
            (&status["unprotected"], &status["unprotectedPods"]),
            (&json!(1), &json!(["shop/two"])),
            "{name}"
        );
        assert_eq!(conditions(status)[2], "Protected=False/AgentAway");
    }
    assert_eq!(conditions(said(&all, "node-7"))[0], "AgentReady=True/Heard");
    let mut objects = shop();
    let mut host = pod("shop/host", "n1", &json!({"app": "cart"}));
    host["spec"]["hostNetwork"] = true.into();
    objects.push(host);
    objects.push(pod("shop/three", "never", &json!({"app": "cart"})));
    let all = writes(&world(&mirror(&objects), &[]), 1000, "t");
    assert_eq!(said(&all, "web")["unprotectedPods"], json!(["shop/host", "shop/three"]));
    assert_eq!(conditions(said(&all, "web"))[2], "Protected=False/HostNetwork");
    assert_eq!(said(&all, "p")["unprotectedPods"], json!(["shop/three"]));
    let mut objects = shop();
    let mut beat = object(Watched::Beats, "egret-system/agent.n1", &json!({}));
    beat["metadata"]["annotations"] = json!({"egret.dev/bypassed": "shop/one,shop/nobody"});
    objects.push(beat);
    let all = writes(&world(&mirror(&objects), &[]), 1000, "t");
    assert_eq!(said(&all, "web")["unprotectedPods"], json!(["shop/one"]));
    assert_eq!(conditions(said(&all, "web"))[2], "Protected=False/Bypassed");
    let beat = objects.last_mut().unwrap();
    beat["metadata"]["annotations"] = json!({"egret.dev/unwired": "shop/one"});
    let all = writes(&world(&mirror(&objects), &[]), 1000, "t");
    for name in ["p", "web"] {
        assert_eq!(said(&all, name)["unprotectedPods"], json!(["shop/one"]));
        assert_eq!(conditions(said(&all, name))[2], "Protected=False/NotWired");
    }
}

#[test]
fn what_the_agent_of_a_dead_node_said_of_a_pod_is_not_said_of_its_successor_elsewhere() {
    for key in ["egret.dev/bypassed", "egret.dev/unwired"] {
        let mut objects = shop();
        let mut beat = object(Watched::Beats, "egret-system/agent.n1", &json!({}));
        beat["metadata"]["annotations"] = json!({ key: "shop/one" });
        objects.push(beat);
        let unprotected = |objects: &[Value], away: &[&str]| {
            let all = writes(&world(&mirror(objects), away), 1000, "t");
            ["web", "p"].map(|name| said(&all, name)["unprotected"].clone())
        };
        assert_eq!(unprotected(&objects, &[]), [1, 1], "{key}");
        // The node dies, its Node object and its agent's Lease stay, and the pod is made anew on another.
        objects.retain(|object| object["metadata"]["name"] != "one");
        objects.push(pod("shop/one", "n2", &json!({"app": "cart"})));
        assert_eq!(unprotected(&objects, &["n1"]), [0, 0], "{key}");
    }
}

#[test]
fn pods_that_have_ended_or_run_nowhere_yet_are_not_counted() {
    let mut objects = shop();
    objects.retain(|object| object["metadata"]["name"] != "one");
    let mut ended = pod("shop/one", "n1", &json!({"app": "cart"}));
    ended["status"] = json!({"phase": "Succeeded", "podIP": "10.244.0.9"});
    let mut pending = pod("shop/pending", "n1", &json!({"app": "cart"}));
    pending["spec"] = json!({});
    objects.extend([ended, pending]);
    let all = writes(&world(&mirror(&objects), &[]), 1000, "t");
    assert_eq!(said(&all, "web")["pods"], 1);
}

#[test]
fn a_pod_is_held_only_in_a_family_that_it_has() {
    let with = |ips: &Value| {
        let mut objects = shop();
        let mut pod = pod("shop/three", "n1", &json!({"app": "cart"}));
        pod["status"] = json!({"podIPs": ips});
        objects.push(pod);
        let all = writes(&world(&mirror(&objects), &[]), 1000, "t");
        said(&all, "web")["held"].clone()
    };
    assert_eq!(with(&json!([{"ip": "10.244.0.5"}])), 0);
    assert_eq!(with(&json!([{"ip": "10.244.0.5"}, {"ip": "fd00:244::5"}])), 1, "the gateway has IPv4 only");
}

#[test]
fn of_several_pods_that_are_held_the_first_is_named_with_its_own_reason() {
    let mut objects = shop();
    let policy = objects.iter_mut().find(|object| object["metadata"]["name"] == "web").unwrap();
    policy["spec"]["rules"] = json!([{"gateway": {"selector": "role == 'gw'"}}]);
    objects.push(object(Watched::Namespaces, "zoo", &Value::Null));
    objects.push(pod("zoo/three", "n1", &json!({"app": "cart"})));
    let all = writes(&world(&mirror(&objects), &[]), 1000, "t");
    let message = said(&all, "web")["conditions"][1]["message"].as_str().unwrap();
    assert!(
        message.starts_with("shop/one and 2 others reach nothing that it decides: ")
            && message.contains("in namespace `shop`"),
        "{message}"
    );
}

#[test]
fn a_pod_with_an_address_in_no_range_is_named_with_the_knob_to_turn() {
    let with = |ip: &str, cidrs: &str| {
        let mut objects = shop();
        let mut pod = pod("shop/three", "n1", &json!({}));
        pod["status"] = json!({"podIPs": [{"ip": ip}]});
        objects.push(pod);
        let config = Config { cluster_cidrs: vec![cidrs.parse().unwrap()], ..Config::default() };
        let world = World::of(&mirror(&objects), &config, |_| Agent::Here).unwrap();
        let all = writes(&world, 1000, "t");
        let node = said(&all, "node-7");
        (conditions(node)[1].clone(), node["conditions"][1]["message"].as_str().unwrap().to_owned())
    };
    let (answer, message) = with("10.244.0.5", "10.245.0.0/16");
    assert_eq!(answer, "AddressesInside=False/OutsideRanges");
    assert!(
        message.starts_with("pod shop/three has 10.244.0.5, which") && message.contains("`clusterCIDRs`"),
        "{message}"
    );
    assert_eq!(with("10.244.0.5", "10.244.0.0/16").0, "AddressesInside=True/InRanges");
    assert_eq!(with("fd00::5", "10.244.0.0/16").0, "AddressesInside=False/OutsideRanges");
    assert_eq!(with("192.0.2.1", "10.244.0.0/16").0, "AddressesInside=True/InRanges", "the node's own");
}

#[test]
fn what_is_not_obeyed_says_so_with_the_readers_reason() {
    let mut objects = shop();
    objects.retain(|object| object["kind"] != "EgressEndpoint");
    objects.push(object(Watched::Pools, "q", &json!({"cidr": "10.0.0.0/31"})));
    objects.push(object(Watched::Policies, "bad", &json!({"rules": [{"gateway": {"selector": "a = b"}}]})));
    objects.push(object(Watched::Pools, "off", &json!({"cidr": "10.9.0.0/31", "disabled": true})));
    let all = writes(&world(&mirror(&objects), &[]), 1000, "t");
    assert_eq!(conditions(said(&all, "q")), ["Accepted=False/PoolOverlap", "Ready=False/PoolOverlap"]);
    assert_eq!(conditions(said(&all, "off"))[1], "Ready=False/Disabled");
    assert_eq!(
        conditions(said(&all, "bad"))[..2],
        ["Accepted=False/SelectorSyntax", "Ready=False/SelectorSyntax"]
    );
    let web = said(&all, "web");
    assert_eq!((&web["held"], conditions(web)[1].as_str()), (&json!(2), "Ready=False/NoGateway"));
    let message = web["conditions"][1]["message"].as_str().unwrap();
    assert!(message.starts_with("shop/one and 1 others reach nothing that it decides: "), "{message}");
}

/// Writes them, as the mirror then knows.
fn wrote(known: &mut Mirror, writes: &[Write]) {
    for write in writes {
        let mut now = known.object(write.kind, &write.name).cloned().unwrap();
        now["status"] = write.status.clone();
        known.is(write.kind, &now);
    }
}

#[test]
fn what_was_said_of_agents_stays_while_nobody_can_say_anew() {
    let unheard = |known: &Mirror| World::of(known, &Config::default(), |_| Agent::Unknown).unwrap();
    let mut known = mirror(&shop());
    let first = writes(&world(&known, &["n1", "n2"]), 1000, "before");
    assert_eq!(conditions(said(&first, "node-7"))[0], "AgentReady=False/AgentAway");
    assert_eq!(conditions(said(&first, "gw-gw")), ["Ready=True/AgentAway"]);
    assert_eq!(said(&first, "web")["unprotected"], 2);
    wrote(&mut known, &first);
    assert_eq!(writes(&unheard(&known), 1000, "after"), vec![], "a controller that begins changes nothing");
    // What does not depend on agents is said as ever.
    known.is(Watched::Pods, &pod("shop/three", "n2", &json!({"app": "cart"})));
    let then = writes(&unheard(&known), 1000, "after");
    let web = said(&then, "web");
    assert_eq!((&web["pods"], &web["unprotected"]), (&json!(3), &json!(2)));
    assert!(conditions(web).contains(&"Protected=False/AgentAway".to_owned()));
    // Where nothing was said yet, nothing is said.
    let new = writes(&unheard(&mirror(&shop())), 1000, "t");
    assert_eq!(conditions(said(&new, "web")), ["Accepted=True/Read", "Ready=True/InUse"]);
    assert_eq!(conditions(said(&new, "node-7")), ["AddressesInside=True/InRanges"]);
    assert_eq!(conditions(said(&new, "gw-gw")), ["Ready=True/Serving"], "its endpoint says so itself");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    /// Whatever the world, what was written is what would be written.
    #[test]
    fn done_twice_the_second_writes_nothing(
        pods in prop::collection::vec((0usize..3, any::<bool>(), 0usize..4), 0..12),
        away in prop::sample::subsequence(vec!["n1", "n2"], 0..=2),
        gateways in 0usize..3,
        disabled in any::<bool>(),
    ) {
        let mut objects = shop();
        objects.retain(|object| gateways > 0 || object["kind"] != "EgressEndpoint");
        for object in objects.iter_mut().filter(|o| o["kind"] == "EgressPool") {
            object["spec"]["disabled"] = disabled.into();
        }
        for (n, (node, selected, phase)) in pods.into_iter().enumerate() {
            let labels = if selected { json!({"app": "cart"}) } else { json!({}) };
            let mut pod = pod(&format!("shop/p{n}"), ["n1", "n2", "never"][node], &labels);
            let phase = ["Running", "Pending", "Failed", "Succeeded"][phase];
            pod["status"] = json!({"phase": phase});
            objects.push(pod);
        }
        let mut known = mirror(&objects);
        let first = writes(&world(&known, &away), 1000, "first");
        prop_assert_eq!(first.len(), 3 + gateways.min(1));
        prop_assert!(first.iter().all(|write| write.status["observedGeneration"] == 1));
        wrote(&mut known, &first);
        prop_assert_eq!(writes(&world(&known, &away), 1000, "second"), vec![]);
    }
}
