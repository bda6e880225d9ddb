//! The example that Calico's guide shows, as the files that are shipped.

use std::path::Path;

use egret::addr::Family;
use egret::testbed::Outside;

use crate::lab::{Lab, kind, nodes, prohibited};

/// Pool 10.10.10.0/31, `nodeSelector: "!all()"`, a namespace annotated for `egress-code == 'red'`.
#[test]
fn the_ip_pool_of_calicos_guide_works_as_committed() {
    let lab = Lab::bare(nodes(2));
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/calico-ippool");
    for file in ["pool.yaml", "gateway.yaml", "client.yaml"] {
        lab.object_file(file, &std::fs::read_to_string(folder.join(file)).unwrap()).unwrap();
    }
    let gateway = lab.add_pod(1, "default/egress-gateway").unwrap();
    let client = lab.add_pod(2, "my-namespace/my-client").unwrap();
    let lease = lab.leases(&gateway);
    assert!(["10.10.10.0", "10.10.10.1"].contains(&lease[0].to_string().as_str()), "{lease:?}");
    let capture = lab.capture().unwrap();
    for at in Outside::BOTH {
        let to = at.address(Family::V4);
        assert_eq!(lab.predicted(&client, to), lease.iter().copied().collect());
        for saw in [client.tcp(to), client.udp(to), client.http(to), client.ping(to)] {
            assert_eq!(saw.unwrap(), lease[0]);
        }
        // The pool has no IPv6, so neither has the pod: better nothing than its node's address.
        let to = at.address(Family::V6);
        assert_eq!(kind(client.udp(to)), prohibited(to));
    }
    capture.assert_clean(&[&client]);
    assert!(lab.reasons(1).iter().all(|reason| reason == "UnknownPod"), "{:?}", lab.reasons(1));
}
