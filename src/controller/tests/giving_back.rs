//! What is gone, what only seems to be, and how long that counts.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};

use super::{block, mirror, object, pod, shop, world};
use crate::config::Config;
use crate::controller::agents::Agent;
use crate::controller::reclaim::{EMPTY, Patience, Remnant, remnants as remnants_at};
use crate::controller::world::World;
use crate::kube::Watched;

/// When no lease of these worlds has been free for long.
const NOW: u64 = 1000;

fn remnants(world: &World) -> BTreeSet<Remnant> {
    remnants_at(world, NOW)
}

#[test]
fn a_node_that_is_gone_leaves_leases_and_one_that_is_only_silent_does_not() {
    let mut objects = shop();
    objects.push(object(Watched::Blocks, "p.v4-10-0-0-2-31", &block("10.0.0.2/31", "pod:x", "gone")));
    let silent = world(&mirror(&objects), &["n1", "n2"]);
    assert_eq!(remnants(&silent).into_iter().collect::<Vec<_>>(), [Remnant::Node("gone".into())]);
    // Its Node object was deleted, and its agent lives.
    objects.push(object(Watched::Blocks, "p.v4-10-0-0-4-31", &block("10.0.0.4/31", "pod:y", "deleted")));
    assert_eq!(remnants(&world(&mirror(&objects), &[])).len(), 1);
}

#[test]
fn a_node_that_somebody_called_out_of_service_gives_its_leases_back_unless_its_agent_lives() {
    let mut objects = shop();
    objects.iter_mut().filter(|o| o["metadata"]["name"] == "n1").for_each(|node| {
        node["spec"] =
            json!({"taints": [{"key": "node.kubernetes.io/out-of-service", "effect": "NoExecute"}]});
    });
    assert_eq!(remnants(&world(&mirror(&objects), &[])).len(), 0);
    let away = remnants(&world(&mirror(&objects), &["n1"]));
    assert_eq!(away.into_iter().collect::<Vec<_>>(), [Remnant::OutOfService("n1".into())]);
}

#[test]
fn what_is_reserved_goes_with_its_workload_or_when_that_is_scaled_below_it() {
    let reserved = |owner: &str| {
        let mut spec = block("10.0.0.2/31", owner, "n1");
        spec["allocations"]["10.0.0.2"].as_object_mut().unwrap().remove("holder");
        let mut objects = shop();
        let mut lives = pod("red/lives", "n1", &json!({}));
        lives["metadata"]["uid"] = "uid-of-somebody".into();
        objects.push(lives);
        objects.push(object(Watched::Blocks, "p.v4-10-0-0-2-31", &spec));
        objects.push(object(
            Watched::StatefulSets,
            "red/db",
            &json!({"replicas": 2, "ordinals": {"start": 3}}),
        ));
        remnants(&world(&mirror(&objects), &[])).len()
    };
    for (owner, gone) in [
        ("ordinal:red/db/3", 0),
        ("ordinal:red/db/4", 0),
        ("ordinal:red/db/5", 1),
        ("ordinal:red/db/2", 1),
        ("ordinal:red/lost/0", 1),
        ("pod:uid-of-somebody", 0),
        ("pod:uid-of-nobody", 1),
        ("slot:red/gw/0", 0),
        ("something:else", 0),
    ] {
        assert_eq!(reserved(owner), gone, "{owner}");
    }
}

#[test]
fn nothing_is_taken_from_a_node_of_which_nobody_knows_whether_it_lives() {
    let mut objects = shop();
    objects.push(object(Watched::Blocks, "p.v4-10-0-0-2-31", &block("10.0.0.2/31", "pod:x", "lost")));
    let with = |agent: Agent| World::of(&mirror(&objects), &Config::default(), move |_| agent).unwrap();
    assert!(remnants(&with(Agent::Away)).contains(&Remnant::Node("lost".into())));
    assert!(!remnants(&with(Agent::Unknown)).contains(&Remnant::Node("lost".into())));
}

#[test]
fn nothing_is_freed_before_it_has_been_gone_for_long_enough_without_a_break() {
    let at = Duration::from_secs;
    let gone = || [Remnant::Node("n".into())].into();
    let (mut patience, wait) = (Patience::default(), at(60));
    assert!(patience.ripe(gone(), at(0), at(0), wait).is_empty());
    assert_eq!(patience.due(at(0), wait), Some(at(60)));
    assert!(patience.ripe([].into(), at(30), at(0), wait).is_empty(), "it was back for a moment");
    assert!(patience.ripe(gone(), at(40), at(0), wait).is_empty());
    assert!(patience.ripe(gone(), at(99), at(0), wait).is_empty());
    assert_eq!(patience.ripe(gone(), at(100), at(0), wait).len(), 1);
    assert!(patience.ripe(gone(), at(200), at(190), wait).is_empty(), "we could not hear in between");
}

#[test]
fn nothing_is_gone_of_what_cannot_be_seen() {
    let mut objects = shop();
    let mut spec = block("10.0.0.2/31", "pod:born-since", "n1");
    spec["allocations"]["10.0.0.2"].as_object_mut().unwrap().remove("holder");
    objects.push(object(Watched::Blocks, "p.v4-10-0-0-2-31", &spec));
    let mut known = mirror(&objects);
    assert_eq!(remnants(&world(&known, &[])).len(), 1);
    known.cannot_see(Watched::CiliumPolicies, "forbidden");
    assert_eq!(remnants(&world(&known, &[])).len(), 1, "nothing of this depends on those");
    for kind in [Watched::Pods, Watched::Nodes, Watched::StatefulSets, Watched::Blocks, Watched::Beats] {
        let mut known = mirror(&objects);
        known.cannot_see(kind, "forbidden");
        assert_eq!(remnants(&world(&known, &[])).len(), 0, "{kind:?}");
    }
}

#[test]
fn a_static_pod_is_there_under_the_name_that_its_leases_have() {
    let mut objects = shop();
    let mut spec = block("10.0.0.2/31", "pod:hash-of-a-file", "n1");
    spec["allocations"]["10.0.0.2"].as_object_mut().unwrap().remove("holder");
    objects.push(object(Watched::Blocks, "p.v4-10-0-0-2-31", &spec));
    assert_eq!(remnants(&world(&mirror(&objects), &[])).len(), 1);
    let mut pod = pod("red/static", "n1", &json!({}));
    pod["metadata"]["annotations"] = json!({"kubernetes.io/config.hash": "hash-of-a-file"});
    objects.push(pod);
    assert_eq!(remnants(&world(&mirror(&objects), &[])).len(), 0);
}

/// An agent's pod.
fn agent(node: &str) -> Value {
    pod(&format!("egret-system/agent-{node}"), node, &json!({"app.kubernetes.io/name": "egret-agent"}))
}

#[test]
fn a_node_that_the_daemonset_leaves_out_loses_what_its_agent_left_but_not_when_all_agents_are_gone() {
    let with = |agents: &[&str], away: &[&str]| {
        let objects = shop().into_iter().chain(agents.iter().map(|node| agent(node)));
        let found = remnants(&world(&mirror(&objects.collect::<Vec<_>>()), away));
        found.into_iter().map(|remnant| remnant.to_string()).collect::<Vec<_>>()
    };
    let dismissed = ["the agent of node n2, which is not meant to have one any more"];
    assert_eq!(with(&["n1"], &["n2"]), dismissed);
    assert_eq!(with(&["n1", "n2"], &["n2"]), [""; 0], "it is meant to have one");
    assert_eq!(with(&["n1"], &[]), [""; 0], "its agent lives, and ends perhaps");
    assert_eq!(with(&[], &["n1", "n2"]), [""; 0], "somebody deleted the DaemonSet");
    assert_eq!(with(&[], &["n2"]), [""; 0], "agents are no pods here");
    assert_eq!(with(&["n1"], &["n1", "n2"]), [""; 0], "no agent speaks");
}

#[test]
fn a_block_of_which_nothing_was_in_use_for_long_is_given_back_and_no_other() {
    let hour = u64::from(EMPTY);
    let empty = |pool: &str, cidr: &str, allocation: Option<Value>, objects: &[Value]| {
        let mut spec = block(cidr, "", "n1");
        spec["pool"] = pool.into();
        let ip = cidr.split('/').next().unwrap();
        spec["allocations"] = allocation.map_or(json!({}), |allocation| json!({ip: allocation}));
        let named = crate::kube::blocks::object_name(pool, cidr.parse().unwrap());
        let mut all = shop();
        all.extend_from_slice(objects);
        all.push(object(Watched::Blocks, &named, &spec));
        let found = remnants_at(&world(&mirror(&all), &[]), 100 + hour);
        found.into_iter().filter(|remnant| remnant.word() == "block").count()
    };
    let freed =
        |owner: &str, at: u64| Some(json!({"owner": owner, "sequence": 1, "since": at, "freedAt": at}));
    let (nobody, there) = ("pod:uid-of-nobody", "10.0.0.2/31");
    assert_eq!(empty("p", there, None, &[]), 1, "nothing was ever given of it, or it was taken back");
    assert_eq!(empty("gone", "10.7.0.0/31", None, &[]), 1, "its pool is gone");
    assert_eq!(empty("p", there, freed(nobody, 100), &[]), 1);
    assert_eq!(empty("p", there, freed(nobody, 101), &[]), 0, "not for long");
    let mut lives = pod("red/lives", "n1", &json!({}));
    lives["metadata"]["uid"] = "uid-of-somebody".into();
    let lives = [lives];
    assert_eq!(empty("p", there, freed("pod:uid-of-somebody", 100), &[]), 1);
    assert_eq!(empty("p", there, freed("pod:uid-of-somebody", 100), &lives), 0, "it may come back to it");
    assert_eq!(empty("p", there, freed("ordinal:red/db/0", 100), &[]), 1, "there is no such workload");
    let reserved = json!({"owner": nobody, "sequence": 1, "since": 1});
    assert_eq!(empty("p", there, Some(reserved), &[]), 0, "it is reserved");
    let leased = block(there, nobody, "n1")["allocations"]["10.0.0.2"].clone();
    assert_eq!(empty("p", there, Some(leased), &[]), 0, "it is leased");
    let shows = super::gateway("other", "n1", "10.0.0.2");
    assert_eq!(empty("p", there, None, &shows), 0, "a gateway shows an address of it");
    let slow = json!({"cidr": "10.9.0.0/30", "cooldownSeconds": EMPTY + 1});
    let slow = object(Watched::Pools, "slow", &slow);
    assert_eq!(empty("p", there, freed(nobody, 100), &[slow]), 0, "addresses rest for longer here");
}
