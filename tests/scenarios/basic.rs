//! C: selected pods leave with a lease, whoever and wherever they are; others as before.

use egret::addr::Family;
use egret::testbed::Outside;

use crate::lab::{Lab, SELECTS_RED, nodes};

/// C1 C3 C7 C8 C10: one gateway on node 1; clients on its node and on others, by namespace and by pod annotation.
#[test]
fn c1_c3_c7_c8_c10_clients_anywhere_show_the_lease_and_others_their_node() {
    let lab = Lab::raise(nodes(3));
    let gateway = lab.gateway(1, "g1");
    let mut clients: Vec<_> = (1..=3).map(|n| lab.client(n, &format!("c{n}"))).collect();
    lab.pod_object("solo/s", &[], &SELECTS_RED, 2).unwrap();
    clients.push(lab.add_pod(2, "solo/s").unwrap());
    let plain = lab.plain(1, "p1");
    let capture = lab.capture().unwrap();
    for client in &clients {
        let seen = lab.leaves_as_predicted(client);
        assert_eq!(seen, lab.leases(&gateway).into_iter().collect());
    }
    lab.leaves_as_before(&plain);
    capture.assert_clean(&clients.iter().collect::<Vec<_>>());
    for client in &clients {
        lab.check_pod(client).unwrap();
    }
    lab.check_pod(&gateway).unwrap();
    // A gateway itself is no client: what it says of its own goes as before.
    assert_eq!(
        gateway.tcp(Outside::Near.address(Family::V4)).unwrap(),
        egret::testbed::node_address(1, Family::V4)
    );
}
