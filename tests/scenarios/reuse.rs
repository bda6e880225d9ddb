//! An address that comes again at once: what was of its former pod is not of its next.

use egret::addr::Family;
use egret::testbed::{Pod, RUN_DIR};

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
