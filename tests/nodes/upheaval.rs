//! Programs of Kubernetes that are killed while pods start and end, and Node objects that are deleted under living kubelets: in the end every
//! pod that runs is served, nothing is left of those that do not, and at no moment anybody leaves with another address.

use std::time::Duration;

use crate::lab::Lab;
use crate::{begins, scale};

#[test]
fn what_is_killed_while_pods_start_and_end_leaves_nobody_unserved_and_nothing_behind() {
    let lab = Lab::raise("upheaval", "nftables,iptables", "bridge,ptp");
    let _agents = [1, 2].map(|node| lab.agent(node));
    let address = begins(&lab);
    in_the_middle_of_starts(&lab, &address);
    a_node_object_is_deleted(&lab, &address, "node2");
    a_node_object_is_deleted(&lab, &address, "node1");
    println!("{}", lab.kubectl_egret(&["ipam", "check"]));
}

/// Whichever calls of the plugin are on their way then.
fn in_the_middle_of_starts(lab: &Lab, address: &str) {
    for round in 0..3 {
        scale(lab, "shop", "cart", 12);
        for (node, program) in
            [("node1", "kubelet"), ("node2", "containerd"), ("node2", "kubelet"), ("node1", "containerd")]
        {
            std::thread::sleep(Duration::from_millis(150 + 100 * round));
            lab.kill(node, program);
        }
        lab.shows_only_after(address, 12, "all that were to start are served");
        scale(lab, "shop", "cart", 4);
        std::thread::sleep(Duration::from_millis(100 + 100 * round));
        lab.kill("node1", "containerd");
        lab.kill("node2", "kubelet");
        lab.shows_only_after(address, 4, "and those that are left");
    }
    only_pods_that_run_are_wired(lab);
}

pub(crate) fn only_pods_that_run_are_wired(lab: &Lab) {
    for node in ["node1", "node2"] {
        let wired = || {
            let count = format!("ls /run/egret/{node}/attachments/net | wc -l");
            lab.on(node, &["sh", "-c", &count]).trim().to_owned()
        };
        let running = || {
            let here = format!("spec.nodeName={node}");
            let pods = lab.kubectl(&["get", "pods", "-A", "--no-headers", "--field-selector", &here], "");
            pods.lines().count().to_string()
        };
        lab.eventually("of pods that ended nothing is wired", || wired() == running());
    }
}

/// By mistake: its kubelet lives, and says it anew when it is started again.
fn a_node_object_is_deleted(lab: &Lab, address: &str, node: &str) {
    lab.kubectl(&["delete", "node", node], "");
    std::thread::sleep(Duration::from_secs(2));
    lab.kill(node, "kubelet");
    lab.eventually("the node is there again", || {
        lab.kubectl(&["get", "nodes", "--no-headers"], "").matches(" Ready ").count() == 2
    });
    lab.shows_only_after(address, 4, &format!("{node} was deleted and is there again"));
}
