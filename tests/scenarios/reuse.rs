//! An address that comes again at once: what was of its former pod is not of its next.

use egret::addr::Family;
use egret::testbed::{Outside, Pod, RUN_DIR};

use crate::lab::{Lab, nodes};

/// The primary gives the next pod of a node the lowest free address, not the one after the last.
fn forget_the_last(lab: &Lab, node: u8) {
    lab.node(node).sh("rm -f /var/lib/cni/networks/pods/last_reserved_ip.*").unwrap();
}

fn gone(lab: &Lab, pod: &Pod) {
    lab.del_pod(pod).unwrap();
    forget_the_last(lab, pod.node);
}

#[test]
fn f9_f10_f11_an_address_that_is_reused_at_once_belongs_to_its_new_pod_whatever_comes_late() {
    let lab = Lab::raise(nodes(2));
    let gateway = lab.gateway(1, "g1");
    forget_the_last(&lab, 2);
    let lease = Family::BOTH.map(|family| lab.lease(&gateway, family));
    let first = lab.client(2, "first");
    assert_eq!(lab.leaves_as_predicted(&first), lease.into());
    // The address of a client goes to one that nothing selects.
    gone(&lab, &first);
    let plain = lab.plain(2, "next");
    assert_eq!(plain.addresses, first.addresses, "the world has made the address come again");
    lab.leaves_as_before(&plain);
    // The runtime says the end of the first once more, as it may: the new pod keeps what it has.
    lab.cnitool("del", &first).unwrap();
    lab.leaves_as_before(&plain);
    gone(&lab, &plain);
    // And back; the second of the name `first` has another UID, and its late end is told again and again.
    let second = lab.client(2, "second");
    assert_eq!(second.addresses, first.addresses);
    let capture = lab.capture().unwrap();
    assert_eq!(lab.leaves_as_predicted(&second), lease.into());
    lab.cnitool("del", &plain).unwrap();
    assert_eq!(lab.leaves_as_predicted(&second), lease.into());
    capture.assert_clean(&[&second]);
    // The same name with another address: nothing is left at the old one, all is at the new one.
    let other = lab.plain(2, "other");
    gone(&lab, &second);
    let blocker = lab.plain(2, "blocker");
    assert_eq!(blocker.addresses, second.addresses);
    let again = lab.client(2, "second");
    assert_ne!(again.addresses, second.addresses);
    assert_eq!(lab.leaves_as_predicted(&again), lease.into());
    lab.leaves_as_before(&blocker);
    lab.leaves_as_before(&other);
}

/// The node's memory is deleted under a running client, and the next call finds in the kernel what nobody has a record of. It stays bound
/// until its address is another pod's.
#[test]
fn an_address_that_nobody_had_a_record_of_belongs_to_its_next_pod() {
    let lab = Lab::raise(nodes(2));
    let gateway = lab.gateway(1, "g1");
    forget_the_last(&lab, 2);
    let leases = lab.leases(&gateway).into_iter().collect();
    let first = lab.client(2, "first");
    lab.leaves_as_predicted(&first);
    lab.node(2).sh(&format!("rm -r {RUN_DIR}/node2")).unwrap();
    let other = lab.client(2, "other");
    assert_eq!(lab.leaves_as_predicted(&other), leases);
    assert_eq!(lab.leaves_as_predicted(&first), leases, "nobody knows that it is gone");
    gone(&lab, &first);
    let next = lab.plain(2, "next");
    assert_eq!(next.addresses, first.addresses, "the world has made the address come again");
    lab.leaves_as_before(&next);
    assert_eq!(lab.leaves_as_predicted(&other), leases);
}

/// A gateway with both families goes on with IPv6 alone, in a new sandbox beside its old one, and its IPv4 address goes to another gateway. On the wire
/// a gateway is called by its IPv4 address, if it has one: the two are not one.
#[test]
fn a_gateway_that_gave_its_ipv4_address_away_is_not_its_next_bearer() {
    let lab = Lab::bare(nodes(2));
    lab.namespace("gw", &[], &[]).unwrap();
    let one = |name: &str, cidr: &str| {
        lab.object(&format!(
            "apiVersion: egret.dev/v1alpha1\nkind: EgressPool\nmetadata: {{name: {name}}}\n\
             spec: {{cidr: '{cidr}', gatewayNamespaces: all(), clientNamespaces: all(), cooldownSeconds: 0}}\n"
        ))
        .unwrap();
    };
    one("only", "10.10.10.1/32");
    one("only6", "fd00:10:10::11/128");
    one("more6", "fd00:10:10::12/128");
    let wants = |pools: &str, pools6: &str| {
        [("egret.dev/ipv4pools", format!("[{pools}]")), ("egret.dev/ipv6pools", format!("[{pools6}]"))]
    };
    let object = |name: &str, label: &str, wishes: &[(&str, String)]| {
        let wishes: Vec<(&str, &str)> = wishes.iter().map(|(key, value)| (*key, value.as_str())).collect();
        lab.pod_object(&format!("gw/{name}"), &[("egress-code", label)], &wishes, 2).unwrap();
    };
    object("old", "red", &wants("\"only\"", "\"only6\""));
    let first = lab.add_pod(2, "gw/old").unwrap();
    object("old", "red", &wants("", "\"only6\"")[1..]);
    lab.add_pod(2, "gw/old").unwrap();
    lab.stop_sandbox(&first).unwrap();
    object("new", "blue", &wants("\"only\"", "\"more6\""));
    lab.add_pod(2, "gw/new").unwrap();
    lab.settle().unwrap();

    let selects = |code: &str| {
        let query = format!("egress-code == '{code}'");
        let name = format!("own/{code}");
        let namespaces = "projectcalico.org/name == 'gw'";
        let words = [("egret.dev/selector", query.as_str()), ("egret.dev/namespaceSelector", namespaces)];
        lab.pod_object(&name, &[], &words, 1).unwrap();
        lab.add_pod(1, &name).unwrap()
    };
    let (red, blue) = (selects("red"), selects("blue"));
    let [of_red, of_blue] = [(&red, "fd00:10:10::11"), (&blue, "fd00:10:10::12")]
        .map(|(pod, own)| (pod.tcp(Outside::Near.address(Family::V6)).ok(), own.parse().ok()));
    assert_eq!((of_red.0, of_blue.0), (of_red.1, of_blue.1));
    lab.leaves_as_predicted(&blue);
}
