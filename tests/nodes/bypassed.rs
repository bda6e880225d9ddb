//! Pods whose packets do not pass their node's forwarding: a selected one is refused or told of, on a real kubelet; agents that start anew
//! find it again.

use std::process::Child;

use crate::lab::{Lab, in_one_piece};
use crate::live::leave_with;
use crate::only;

/// A primary that gives pods a macvlan on the node's uplink.
const MACVLAN: &str = r#"#!/bin/sh
case $CNI_COMMAND in
ADD)
    uplink=$(ip -o route get 172.31.0.254 | sed 's/.* dev \([^ ]*\) .*/\1/')
    ip link add mv$$ link "$uplink" type macvlan mode bridge
    ip link set mv$$ netns "$CNI_NETNS" name "$CNI_IFNAME"
    nsenter --net="$CNI_NETNS" sh -c "ip addr add 172.31.0.77/24 dev $CNI_IFNAME; ip link set $CNI_IFNAME up; ip route add default via 172.31.0.254"
    echo '{"cniVersion": "1.0.0", "interfaces": [{"name": "'"$CNI_IFNAME"'", "sandbox": "'"$CNI_NETNS"'"}], "ips": [{"address": "172.31.0.77/24", "interface": 0}]}'
    ;;
VERSION) echo '{"cniVersion": "1.0.0", "supportedVersions": ["0.4.0", "1.0.0"]}' ;;
esac
"#;

pub(crate) fn is_refused_or_reported(lab: &Lab, agents: &mut [Option<Child>; 2]) {
    taken_by_a_filter(lab, agents);
    on_a_macvlan(lab);
}

fn told(lab: &Lab, pod: &str) -> String {
    lab.kubectl(&["events", "-n", "plain", "--for", &format!("pod/{pod}")], "")
}

fn unprotected(lab: &Lab) -> String {
    lab.kubectl(&["get", "egpol", "blue", "-o", "jsonpath={.status.unprotectedPods[*]}"], "")
}

/// Somebody's tc program sends a running client's packets elsewhere.
fn taken_by_a_filter(lab: &Lab, agents: &mut [Option<Child>; 2]) {
    let (pod, node) = lab.running("plain").into_iter().find(|(_, node)| node == "node1").unwrap();
    lab.kubectl(&["label", "pod", "-n", "plain", &pod, "colour=blue"], "");
    leave_with(lab, &pod, &only("172.31.0.144"), "a client");
    let address = lab.kubectl(&["get", "pod", "-n", "plain", &pod, "-o", "jsonpath={.status.podIP}"], "");
    let device = device_of(lab, &node, &address);
    let filter = format!(
        "ip link add sink type veth peer name sink1 && ip link set sink up && tc qdisc add dev {device} clsact && \
         tc filter add dev {device} ingress protocol all u32 match u32 0 0 action mirred egress redirect dev sink && echo done"
    );
    assert_eq!(lab.on(&node, &["sh", "-c", &filter]), "done\n");
    let why = "a tc filter redirects to sink";
    lab.eventually("its owner is told", || {
        told(lab, &pod).contains("EgressUnprotected") && told(lab, &pod).contains(why)
    });
    lab.eventually("and no address is promised", || {
        !lab.kubectl(&["get", "pod", "-n", "plain", &pod, "-o", "yaml"], "").contains("egress-addresses")
    });
    lab.eventually("its policy names it", || unprotected(lab) == format!("plain/{pod}"));
    lab.kill_agent(1, agents[0].take().unwrap());
    agents[0] = Some(lab.agent(1));
    lab.eventually("an agent that starts anew sees it, too", || {
        lab.on("node1", &["cat", "/run/egret/node1/agent.json"]).contains(why)
            && lab.log_of_agent(1).contains("passes this node by")
    });
    lab.on(&node, &["sh", "-c", &format!("tc qdisc del dev {device} clsact; ip link del sink")]);
    leave_with(lab, &pod, &only("172.31.0.144"), "without the filter it is a client again");
    lab.eventually("and nobody says otherwise", || {
        unprotected(lab).is_empty()
            && lab
                .kubectl(&["get", "pod", "-n", "plain", &pod, "-o", "yaml"], "")
                .contains("egress-addresses")
    });
    lab.kubectl(&["label", "pod", "-n", "plain", &pod, "colour-"], "");
}

/// The node's end of a pod's interface: the port of the bridge behind which the neighbour with its address is. The node forgets neighbours that
/// it has not spoken to for a while, so it speaks to this one first.
fn device_of(lab: &Lab, node: &str, address: &str) -> String {
    let script = format!(
        "ping -c 1 -W 1 {address} >/dev/null; mac=$(ip neigh show {address} dev cni0 | sed -n 's/.*lladdr \\([^ ]*\\).*/\\1/p'); \
         bridge fdb show br cni0 | awk -v m=$mac '$1 == m {{ print $3; exit }}'"
    );
    let mut device = String::new();
    lab.eventually("the device of a pod is known", || {
        device = lab.on(node, &["sh", "-c", &script]).trim().to_owned();
        device.starts_with("veth")
    });
    device
}

fn on_a_macvlan(lab: &Lab) {
    let folder = lab.state().join("node1");
    let plugin = folder.join("cni-bin/lonely");
    std::fs::write(&plugin, MACVLAN).unwrap();
    std::fs::set_permissions(&plugin, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let file = folder.join("cni-conf/10-net.conflist");
    let before = std::fs::read_to_string(&file).unwrap();
    let mut list: serde_json::Value = serde_json::from_str(&before).unwrap();
    let egret = list["plugins"].as_array().unwrap().last().unwrap().clone();
    list["plugins"] = serde_json::json!([{"type": "lonely"}, egret]);
    in_one_piece(&file, &list.to_string());

    let pod = |name: &str, labels: &str| {
        format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}, namespace: plain, labels: {{{labels}}}}}, spec: {{nodeName: node1, \
             terminationGracePeriodSeconds: 0, containers: [{{name: c, image: 'lab.local/busybox:1', imagePullPolicy: Never, command: [sleep, '100000']}}]}}}}"
        )
    };
    let phase =
        |name: &str| lab.kubectl(&["get", "pod", "-n", "plain", name, "-o", "jsonpath={.status.phase}"], "");
    lab.kubectl(&["apply", "-f", "-"], &pod("refused", "colour: blue"));
    lab.eventually("a selected pod on macvlan is refused, with the reason", || {
        // Before containerd has read its new list, a pod starts as ever.
        if phase("refused") == "Running" {
            lab.kubectl(&["delete", "pod", "-n", "plain", "refused", "--force"], "");
            lab.kubectl(&["apply", "-f", "-"], &pod("refused", "colour: blue"));
        }
        let said = told(lab, "refused");
        said.contains("FailedCreatePodSandBox") && said.contains("no other end on the node")
    });
    lab.kubectl(&["delete", "pod", "-n", "plain", "refused", "--force"], "");
    lab.kubectl(&["apply", "-f", "-"], &pod("lonely", ""));
    lab.eventually("one that nothing selects starts", || phase("lonely") == "Running");
    lab.kubectl(&["label", "pod", "-n", "plain", "lonely", "colour=blue"], "");
    lab.eventually("selected while it runs it is told", || {
        told(lab, "lonely").contains("EgressUnprotected")
            && told(lab, "lonely").contains("no other end on the node")
    });
    lab.eventually("and named by its policy", || unprotected(lab) == "plain/lonely");
    lab.kubectl(&["delete", "pod", "-n", "plain", "lonely"], "");
    lab.eventually("which forgets it with the pod", || unprotected(lab).is_empty());
    in_one_piece(&file, &before);
    std::thread::sleep(std::time::Duration::from_secs(2));
}
