//! Who is selected, by what, and who is kept out.

use egret::addr::Family;
use egret::testbed::{Outside, Topology};
use serde_json::json;

use crate::lab::{Lab, POOLS, SELECTS_RED, WANTS_LEASES, nodes};

const BLUE: [(&str, &str); 2] = [
    ("egress.projectcalico.org/selector", "egress-code == 'blue'"),
    ("egress.projectcalico.org/namespaceSelector", "projectcalico.org/name == 'gw'"),
];

/// C6 C13: two selectors, two gateways: each pod shows its own lease; a pod's annotations replace its namespace's.
#[test]
fn c6_c13_a_pods_annotations_override_its_namespaces() {
    let lab = Lab::raise(nodes(2));
    let red = lab.gateway(1, "red");
    lab.pod_object("gw/blue", &[("egress-code", "blue")], &WANTS_LEASES, 2).unwrap();
    let blue = lab.add_pod(2, "gw/blue").unwrap();
    let by_namespace = lab.client(1, "same");
    lab.pod_object("shop/own", &[], &BLUE, 1).unwrap();
    let by_pod = lab.add_pod(1, "shop/own").unwrap();
    lab.namespace("other", &[], &BLUE).unwrap();
    lab.pod_object("other/same", &[], &[], 2).unwrap();
    let other = lab.add_pod(2, "other/same").unwrap();
    let capture = lab.capture().unwrap();
    assert_eq!(lab.leaves_as_predicted(&by_namespace), lab.leases(&red).into_iter().collect());
    for pod in [&by_pod, &other] {
        assert_eq!(lab.leaves_as_predicted(pod), lab.leases(&blue).into_iter().collect());
    }
    capture.assert_clean(&[&by_namespace, &by_pod, &other]);
}

/// `EnabledPerNamespace`: a pod's own annotations are nothing.
#[test]
fn c14_pods_select_nothing_where_only_namespaces_may() {
    let mut topology = nodes(1);
    topology.egret_keys.insert("egressIPSupport".to_owned(), json!("EnabledPerNamespace"));
    let lab = Lab::raise(topology);
    let red = lab.gateway(1, "red");
    lab.pod_object("plain/own", &[], &SELECTS_RED, 1).unwrap();
    let ignored = lab.add_pod(1, "plain/own").unwrap();
    lab.pod_object("shop/own", &[], &BLUE, 1).unwrap();
    let by_namespace = lab.add_pod(1, "shop/own").unwrap();
    let capture = lab.capture().unwrap();
    lab.leaves_as_before(&ignored);
    assert_eq!(lab.leaves_as_predicted(&by_namespace), lab.leases(&red).into_iter().collect());
    capture.assert_clean(&[&by_namespace]);
}

/// A selector that does not parse, one that takes no gateway, and a broken Namespace: held, named, and nobody else is touched.
#[test]
fn a4_what_cannot_be_obeyed_is_held_and_named() {
    let lab = Lab::raise(nodes(1));
    lab.gateway(1, "red");
    let good = lab.client(1, "good");
    lab.pod_object("x/typo", &[], &[("egress.projectcalico.org/selector", "egress-code = 'red'")], 1)
        .unwrap();
    lab.pod_object("x/nobody", &[], &[("egress.projectcalico.org/selector", "egress-code == 'red'")], 1)
        .unwrap();
    lab.object_file(
        "broken.yaml",
        "apiVersion: v1\nkind: Namespace\nmetadata: {name: broken, annotations: [no]}\n",
    )
    .unwrap();
    lab.pod_object("broken/pod", &[], &[], 1).unwrap();
    let held = ["x/typo", "x/nobody", "broken/pod"].map(|name| lab.add_pod(1, name).unwrap());
    let plain = lab.plain(1, "plain");
    let capture = lab.capture().unwrap();
    held.iter().for_each(|pod| lab.is_held(pod));
    lab.leaves_as_predicted(&good);
    lab.leaves_as_before(&plain);
    capture.assert_clean(&[&good]);
    assert!(held.iter().all(|pod| capture.sources_of(pod).is_empty()), "a held pod sends nothing");
    let said = lab.json(1, &["reconcile"])["problems"].to_string();
    assert!(said.contains("x/typo") && said.contains("broken"), "{said}");
}

/// A5: the gateway comes after its client; nothing leaks before.
#[test]
fn a5_a_client_that_came_first_is_served_when_the_gateway_appears() {
    let lab = Lab::raise(nodes(2));
    let client = lab.client(2, "early");
    let capture = lab.capture().unwrap();
    lab.is_held(&client);
    lab.gateway(1, "late");
    lab.leaves_as_predicted(&client);
    capture.assert_clean(&[&client]);
}

/// `gatewayNamespaces` decides who may be a gateway, `clientNamespaces` who may use it.
#[test]
fn pools_say_whose_pods_may_be_gateways_and_whose_may_use_them() {
    let lab = Lab::raise(nodes(1));
    lab.pod_object("rogue/gw", &[("egress-code", "red")], &WANTS_LEASES, 1).unwrap();
    let refused = lab.add_pod(1, "rogue/gw").unwrap_err().said;
    assert!(refused.contains("gatewayNamespaces") && refused.contains("rogue"), "{refused}");
    for (name, cidr) in POOLS {
        lab.pool(name, cidr, "projectcalico.org/name == 'shop'");
    }
    lab.gateway(1, "red");
    lab.namespace("outsiders", &[], &SELECTS_RED).unwrap();
    let (client, outsider) = (lab.client(1, "c"), lab.add_pod(1, "outsiders/o").unwrap());
    let capture = lab.capture().unwrap();
    lab.leaves_as_predicted(&client);
    lab.pod_object("outsiders/o", &[], &[], 1).unwrap();
    lab.is_held(&outsider);
    let said = lab.explain(&outsider, Outside::Near.address(Family::V4)).to_string();
    assert!(said.contains("clientNamespaces"), "{said}");
    capture.assert_clean(&[&client]);
}

/// What the runtime passes wins over the Pod object, also where that says something else or does not exist.
#[test]
fn annotations_from_the_runtime_win() {
    let lab = Lab::raise(Topology { runtime_annotations: false, ..nodes(1) });
    let red = lab.gateway(1, "red");
    lab.pod_object("plain/c", &[], &BLUE, 1).unwrap();
    let mut pods = ["plain/c", "plain/unknown"].map(|name| lab.sandbox(1, name).unwrap());
    let capture = lab.capture().unwrap();
    for pod in &mut pods {
        let passed: serde_json::Map<_, _> =
            SELECTS_RED.iter().map(|(k, v)| ((*k).to_owned(), json!(v))).collect();
        pod.capabilities.insert("io.kubernetes.cri.pod-annotations".to_owned(), passed.into());
        lab.wire(pod).unwrap();
        lab.settle().unwrap();
        assert_eq!(lab.leaves_as_predicted(pod), lab.leases(&red).into_iter().collect());
    }
    capture.assert_clean(&[&pods[0], &pods[1]]);
}
