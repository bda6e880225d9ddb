//! A machine starts anew, or a namespace goes without DEL: what lay on tmpfs and in the kernel is gone, the store is not.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use egret::egress::model::STATIC_POD_UID;
use egret::testbed::{Pod, RUN_DIR, Topology, within};
use serde_json::json;

use crate::books::{assert_in_order, gc, reconcile_command, records, said};
use crate::lab::{Lab, WANTS_LEASES, listing, nodes};

fn reconcile(lab: &Lab, node: u8) {
    let output = reconcile_command(lab, node).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
}

/// State of each lease, by pod.
fn leases(lab: &Lab) -> BTreeMap<String, Vec<String>> {
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for row in lab.json(1, &["ipam", "show"])["items"].as_array().unwrap() {
        let name = row["pod"].as_str().unwrap_or("nobody").to_owned();
        found.entry(name).or_default().push(row["state"].as_str().unwrap().to_owned());
    }
    found
}

/// Everything of ours in a node's kernel goes, as power does it; tmpfs too.
fn reboot(lab: &Lab, node: u8, pods: &[&Pod]) {
    for pod in pods {
        lab.lose_pod(pod).unwrap();
    }
    // Power takes a namespace away at once, the kernel when it has the time: until then a gateway in it is served by the tunnel's socket, and
    // what it sends is hidden behind the node's address as any pod's.
    let left = || lab.node(node).sh("ip -o link show type veth | grep -c ': veth' || true").unwrap();
    let gone = within(Duration::from_secs(30), Duration::from_millis(5), || left().trim() == "0");
    gone.unwrap_or_else(|| panic!("pods of node {node} are still there: {}", listing(&lab.node(node))));
    lab.node(node)
        .sh("nft delete table inet egret; nft delete table netdev egret 2>/dev/null || true; ip link del egress.vxlan; \
             for f in -4 -6; do for p in 700 710 719 720 721 799; do while ip $f rule del priority $p 2>/dev/null; do :; done; done; done; \
             ip nexthop flush proto 97 2>/dev/null || true; ip nexthop flush >/dev/null 2>&1 || true; conntrack -F >/dev/null 2>&1 || true")
        .unwrap();
    // The primary's own memory, which a runtime would have cleared by a DEL of the old sandbox.
    lab.node(node).sh("rm -rf /var/lib/cni/*").unwrap();
    std::fs::remove_dir_all(Path::new(RUN_DIR).join(format!("node{node}"))).unwrap();
}

#[test]
fn after_a_reboot_living_pods_have_their_address_kept_and_get_it_back() {
    let lab = Lab::raise(Topology { settle: false, ..nodes(2) });
    let (stays, goes) = (lab.gateway(1, "stays"), lab.gateway(1, "goes"));
    let (here, there) = (lab.client(1, "here"), lab.client(2, "there"));
    reconcile(&lab, 1);
    lab.leaves_as_predicted(&there);
    let had = lab.leases(&stays);
    lab.remove_pod_object("gw/goes").unwrap();
    reboot(&lab, 1, &[&stays, &goes, &here]);
    // Until the node says so itself, nobody else knows: what is sent to its gateways ends at a machine that has none.
    let capture = lab.capture().unwrap();
    for to in lab.destinations() {
        let saw = there.udp(to);
        assert!(saw.is_err(), "{to} saw {saw:?}; node 1 has\n{}", listing(&lab.node(1)));
    }
    assert!(capture.sources_of(&there).is_empty(), "{:?}", capture.sources_of(&there));
    drop(capture);
    reconcile(&lab, 1);
    reconcile(&lab, 2);
    let expected = [("gw/goes", "cooling"), ("gw/stays", "reserved")];
    let expected = expected.map(|(pod, state)| (pod.to_owned(), vec![state.to_owned(); 2]));
    assert_eq!(leases(&lab), expected.into());
    assert_in_order(&lab, &[&there], "rebooted");
    lab.is_held(&there);

    let again = lab.add_pod(1, "gw/stays").unwrap();
    assert_eq!(lab.leases(&again), had);
    reconcile(&lab, 2);
    assert_in_order(&lab, &[&again, &there], "the gateway is back");
    lab.leaves_as_predicted(&there);
}

#[test]
fn after_a_reboot_gc_alone_does_the_same() {
    let lab = Lab::raise(Topology { settle: false, ..nodes(1) });
    let gateway = lab.gateway(1, "g");
    reboot(&lab, 1, &[&gateway]);
    gc(&lab, 1, Some(&[]));
    reconcile(&lab, 1);
    assert_in_order(&lab, &[], "rebooted, then GC");
    assert_eq!(leases(&lab), [("gw/g".to_owned(), vec!["reserved".to_owned(); 2])].into());
}

/// A static pod's runtime passes the UID of its file; the object that its kubelet makes has another, and names that of the file.
#[test]
fn a_static_pod_serves_as_a_gateway_and_keeps_its_address_over_a_reboot() {
    let lab = Lab::raise(Topology { settle: false, ..nodes(1) });
    let gateway = lab.gateway(1, "static");
    let annotations: BTreeMap<_, _> =
        WANTS_LEASES.into_iter().chain([(STATIC_POD_UID, gateway.uid.as_str())]).collect();
    let metadata = json!({
        "namespace": "gw", "name": "static", "uid": "of-the-object", "labels": {"egress-code": "red"},
        "annotations": annotations,
    });
    let object =
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"nodeName": "node1"}});
    lab.object(&object.to_string()).unwrap();
    let client = lab.client(1, "c");
    lab.leaves_as_predicted(&client);
    reboot(&lab, 1, &[&gateway, &client]);
    reconcile(&lab, 1);
    assert_eq!(leases(&lab), [("gw/static".to_owned(), vec!["reserved".to_owned(); 2])].into());
}

#[test]
fn a_namespace_that_went_without_del_leaves_nothing_after_reconcile_or_gc() {
    let lab = Lab::raise(Topology { settle: false, ..nodes(1) });
    for with_gc in [false, true] {
        // New names each time: the primary still keeps the addresses of namespaces that went without DEL.
        let name = |what: &str| format!("{what}-{with_gc}");
        let (gateway, client) = (lab.gateway(1, &name("g")), lab.client(1, &name("c")));
        let stays = lab.client(1, &name("stays"));
        lab.lose_pod(&gateway).unwrap();
        lab.lose_pod(&client).unwrap();
        // The next pod's ADD does not suffer from what nobody has tidied up.
        let next = lab.client(1, &name("next"));
        if with_gc {
            gc(&lab, 1, None);
        } else {
            reconcile(&lab, 1);
        }
        reconcile(&lab, 1);
        assert_in_order(&lab, &[&stays, &next], &format!("lost, with_gc = {with_gc}"));
        assert_eq!(records(1).len(), 2);
        lab.is_held(&stays);
        lab.is_held(&next);
        lab.del_pod(&stays).unwrap();
        lab.del_pod(&next).unwrap();
    }
}
