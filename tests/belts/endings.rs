//! The end of a long connection after every kind of change: a FIN or RST that has lost its NAT entry must not show the pod.

use std::time::Duration;

use egret::addr::Family;
use egret::testbed::{Capture, Pod, node_address, within};

use crate::lab::{Lab, forget};
use crate::traffic::{Meeting, Sender, WAIT};

/// Long connections, then a change, then each way to end them, and new traffic to prove that the window is good.
fn end_after(lab: &Lab, capture: &Capture, change: &str, make: impl FnOnce()) {
    let [fin, rst, far_fin, far_rst] = [(); 4].map(|()| lab.meetings());
    make();
    capture.restart();
    let mut ends = Vec::new();
    ends.extend(fin.into_iter().flat_map(|m: Meeting| m.client_ends(false)));
    ends.extend(rst.into_iter().flat_map(|m| m.client_ends(true)));
    ends.extend(far_fin.into_iter().flat_map(|m| m.server_ends(false)));
    ends.extend(far_rst.into_iter().flat_map(|m| m.server_ends(true)));
    std::thread::sleep(Duration::from_millis(80));
    // Whoever was left open closes now.
    drop(ends);
    std::thread::sleep(Duration::from_millis(80));
    lab.clients.iter().for_each(|pod| Sender::open(pod).round());
    lab.assert_clean(capture, change);
}

#[test]
fn connections_that_end_after_a_change_do_not_show_the_pod() {
    let lab = Lab::raise();
    let capture = lab.capture().unwrap();
    end_after(&lab, &capture, "nothing at all", || {});
    for node in [1, 2] {
        end_after(&lab, &capture, &format!("conntrack -F on node {node}"), || forget(&lab.node(node)));
    }
    end_after(&lab, &capture, "conntrack -F in the gateway", || forget(lab.gateway.place()));
    end_after(&lab, &capture, "conntrack -F everywhere", || lab.forget_all());
    end_after(&lab, &capture, "the tunnel was deleted and put back", || {
        for node in lab.nodes() {
            node.sh("ip link del egress.vxlan").unwrap();
        }
        lab.settle().unwrap();
    });
    end_after(&lab, &capture, "egress0 was deleted and put back", || {
        lab.gateway.place().sh("ip link del egress0").unwrap();
        lab.settle().unwrap();
    });
    let mut second = None;
    end_after(&lab, &capture, "a gateway was added", || second = Some(lab.add_gateway(2, "g2")));
    end_after(&lab, &capture, "a gateway was removed", || lab.del_pod(&second.take().unwrap()).unwrap());
    end_after(&lab, &capture, "the clients were unbound and bound again", || {
        lab.bind(false);
        lab.bind(true);
    });
    lab.bind(false);
    end_after(&lab, &capture, "the clients were bound", || lab.bind(true));
}

/// A pod that is no client any more leaves as the primary has it, with its node's address here; but what ends a connection that
/// nobody remembers is INVALID, and no masquerade hides that.
#[test]
fn connections_of_pods_that_were_let_go_do_not_show_the_pod() {
    let lab = Lab::raise();
    let capture = lab.capture().unwrap();
    let ends: [Vec<Meeting>; 2] = [(); 2].map(|()| lab.meetings());
    lab.bind(false);
    capture.restart();
    let ends: Vec<_> = ends
        .into_iter()
        .zip([false, true])
        .flat_map(|(meetings, abruptly)| meetings.into_iter().flat_map(move |m| m.client_ends(abruptly)))
        .collect();
    std::thread::sleep(Duration::from_millis(80));
    lab.clients.iter().for_each(|pod| Sender::open(pod).round());
    let is_seen = |pod: &Pod| {
        let seen = capture.sources_of(pod);
        Family::BOTH.iter().all(|family| seen.contains_key(&node_address(pod.node, *family)))
    };
    let all = || lab.clients.iter().all(is_seen);
    let seen = || lab.clients.iter().map(|pod| capture.sources_of(pod)).collect::<Vec<_>>();
    assert!(within(WAIT, Duration::from_millis(10), all).is_some(), "not seen as their nodes: {:?}", seen());
    let own: Vec<String> =
        capture.packets().iter().filter(|p| lab.is_clients(p.source)).map(ToString::to_string).collect();
    assert!(own.is_empty(), "{} packets with a pod's own address:\n{}", own.len(), own.join("\n"));
    drop(ends);
}
