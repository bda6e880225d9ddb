//! Objects that an older release or another program wrote: each is named or left out, and none of them changes what others say.

use std::sync::Arc;

use egret::config::Config;
use egret::egress::model::View;
use egret::kube::{Mirror, Watched};
use egret::node::embedded::now_nanos;
use egret::store::objects::Objects;
use serde_json::{Value, json};

use crate::following::{follow_here, until};
use crate::world::{alone, client_of, forget};

const POOLS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/egresspools.egret.dev";

const ENDPOINTS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/egressendpoints.egret.dev";

/// As a release whose definition had no rules would have taken them.
const ODD: [(&str, &str); 3] = [
    ("odd-range", r#"{"cidr": "10.9.0.1/28"}"#),
    ("odd-type", r#"{"cidr": ["10.9.1.0/28"], "blockSize": "31"}"#),
    ("odd-word", r#"{"cidr": "10.9.2.0/28", "source": "Cloud", "weight": 3}"#),
];

#[test]
fn pools_that_no_definition_of_ours_would_take_are_named_and_the_others_serve() {
    let _alone = alone();
    let client = Arc::new(client_of("admin"));
    forget(&client);
    let replace = |change: &dyn Fn(&mut Value)| loop {
        let mut definition = client.get(POOLS).unwrap();
        change(&mut definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]);
        match client.replace(POOLS, &definition) {
            Err(error) if error.is_conflict() => {}
            outcome => return drop(outcome.unwrap()),
        }
    };
    let ours =
        client.get(POOLS).unwrap()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"].clone();
    replace(&|fields| {
        fields["spec"] = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    });
    let started = std::time::Instant::now();
    for (name, spec) in
        ODD.into_iter().chain([("right", r#"{"cidr": "10.9.3.0/28", "gatewayNamespaces": "all()"}"#)])
    {
        let spec: Value = serde_json::from_str(spec).unwrap();
        let object = json!({"apiVersion": "egret.dev/v1alpha1", "kind": "EgressPool", "metadata": {"name": name}, "spec": spec});
        // The server learns of the definition by a watch of its own.
        while let Err(error) = client.create("/apis/egret.dev/v1alpha1/egresspools", &object) {
            assert!(started.elapsed().as_secs() < 120 && !error.is_conflict(), "{error}");
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
    }
    replace(&|fields| *fields = ours.clone());

    let following = follow_here(&client);
    let look = |mirror: &Mirror| {
        let objects = Objects::of(mirror.readings()).unwrap();
        let view = objects.view(&Config::default(), mirror.endpoints());
        (objects, view)
    };
    // A server that has just learned of another definition may answer a first list from before.
    let all = |view: &View| ODD.iter().all(|(name, _)| view.broken.contains(&format!("EgressPool {name}")));
    until(&following, |mirror| {
        let (_, view) = look(mirror);
        mirror.is_synced() && view.pools.contains_key("right") && all(&view)
    });
    let (objects, view) = look(&following.mirror());
    for (name, _) in ODD {
        assert!(!view.pools.contains_key(name), "{name}");
        let object = format!("EgressPool {name}");
        assert!(view.broken.contains(&object), "{name}: whoever names it is told");
        assert!(objects.problems().iter().any(|problem| problem.object == object), "{name}");
    }
    for name in ODD.map(|(name, _)| name).into_iter().chain(["right"]) {
        client.delete(&format!("/apis/egret.dev/v1alpha1/egresspools/{name}")).unwrap();
    }
}

/// Our own records, as a tenant of the API or a later release may leave them.
#[test]
fn records_that_cannot_be_read_are_as_if_they_were_not_there() {
    let _alone = alone();
    let client = Arc::new(client_of("admin"));
    forget(&client);
    let endpoint = |mac: &str, vni: u32| {
        json!({"pod": "gw/g", "attachment": "net/c/eth0", "node": "there", "underlay": ["172.31.0.2"], "vni": vni, "mac": mac,
            "addresses": [{"ip": "10.77.0.0", "pool": "p"}], "state": "ready", "generation": 1})
    };
    let make = |plural: &str, kind: &str, name: &str, spec: Value| {
        let object = json!({"apiVersion": "egret.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec});
        client.create(&format!("/apis/egret.dev/v1alpha1/{plural}"), &object).unwrap();
    };
    make("egressendpoints", "EgressEndpoint", "odd-mac", endpoint("nonsense", 5000));
    make("egressendpoints", "EgressEndpoint", "right", endpoint("02:67:0a:4d:00:00", 5001));
    make("egressnodes", "EgressNode", "node-9", json!({"node": "odd", "number": 9, "wire": "none"}));
    make("egressnodes", "EgressNode", "node-8", json!({"node": "twice", "number": 8, "wire": "172.31.0.8"}));
    make("egressnodes", "EgressNode", "node-7", json!({"node": "twice", "number": 7, "wire": "172.31.0.7"}));
    let following = follow_here(&client);
    // A first list may be older than what was written just before it.
    until(&following, |mirror| {
        mirror.is_synced()
            && mirror.objects(Watched::Endpoints).count() == 2
            && mirror.objects(Watched::NodeRecords).count() == 3
    });
    let mirror = following.mirror();
    let seen: Vec<u32> = mirror.endpoints().iter().map(|endpoint| endpoint.vni).collect();
    assert_eq!(seen, [5001]);
    let nodes = mirror.nodes();
    assert!(!nodes.contains_key("odd"));
    assert_eq!(nodes["twice"].number, 7, "of two, the smaller number counts, for everybody alike");
    drop(mirror);
    client.delete("/apis/egret.dev/v1alpha1/egressendpoints").unwrap();
    for n in 7..=9 {
        client.delete(&format!("/apis/egret.dev/v1alpha1/egressnodes/node-{n}")).unwrap();
    }
}

/// A later release knows a state and a field that this one does not.
#[test]
fn an_agent_that_is_older_than_the_definitions_uses_what_it_understands() {
    let _alone = alone();
    let client = Arc::new(client_of("admin"));
    forget(&client);
    let replace = |change: &dyn Fn(&mut Value)| loop {
        let mut definition = client.get(ENDPOINTS).unwrap();
        change(&mut definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]);
        match client.replace(ENDPOINTS, &definition) {
            Err(error) if error.is_conflict() => {}
            outcome => return drop(outcome.unwrap()),
        }
    };
    let schema = "/spec/versions/0/schema/openAPIV3Schema/properties/spec";
    let ours = client.get(ENDPOINTS).unwrap().pointer(schema).unwrap().clone();
    replace(&|spec| {
        spec["properties"]["weight"] = json!({"type": "integer"});
        spec["properties"]["state"]["enum"].as_array_mut().unwrap().push("resting".into());
    });
    let started = std::time::Instant::now();
    for (name, vni, state) in [("later-ready", 5003, "ready"), ("later-resting", 5004, "resting")] {
        let spec = json!({"pod": "gw/g", "attachment": format!("net/{name}/eth0"), "node": "there", "underlay": ["172.31.0.2"],
            "vni": vni, "mac": "02:67:0a:4d:00:03", "addresses": [{"ip": "10.77.0.3", "pool": "p"}], "state": state, "generation": 1,
            "weight": 3});
        let object = json!({"apiVersion": "egret.dev/v1alpha1", "kind": "EgressEndpoint", "metadata": {"name": name}, "spec": spec});
        while let Err(error) = client.create("/apis/egret.dev/v1alpha1/egressendpoints", &object) {
            assert!(started.elapsed().as_secs() < 120 && !error.is_conflict(), "{error}");
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
    }
    let following = follow_here(&client);
    until(&following, |mirror| mirror.is_synced() && mirror.objects(Watched::Endpoints).count() == 2);
    let seen: Vec<u32> = following.mirror().endpoints().iter().map(|endpoint| endpoint.vni).collect();
    client.delete("/apis/egret.dev/v1alpha1/egressendpoints").unwrap();
    replace(&|spec| *spec = ours.clone());
    assert_eq!(seen, [5003], "a state that is not understood is none to send traffic by");
}

/// The wall clock may be set back between two pods of a node with one address; the later one's rules count all the same.
#[test]
fn adds_are_put_in_order_by_a_clock_that_nobody_sets() {
    let wall = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos();
    let (first, second) = (now_nanos(), now_nanos());
    assert!(first <= second);
    assert!(
        u128::from(first) > wall + 1_000_000_000 * 3600 * 24 * 365,
        "those of an earlier release were before"
    );
}
