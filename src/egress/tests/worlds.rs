//! Small worlds, and the words to change them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::addr::Family;
use crate::egress::model::{
    Action, Decision, EgressAddress, Endpoint, EndpointState, Node, Outcome, PodName, Resolution, Role, View,
};
use crate::egress::numbering::Numbering;
use crate::egress::numbers;
use crate::egress::plan::{Here, LocalPod, NodePlan, Uplink};
use crate::egress::planning::{Inputs, plan};

/// Three nodes; the plan is made on `node1`.
pub(crate) struct World {
    pub here: Here,
    pub view: View,
    pub locals: Vec<LocalPod>,
    pub resolution: Resolution,
    pub numbering: Numbering,
}

impl World {
    pub(crate) fn new() -> World {
        let mut view = View::default();
        for n in 1..=3u8 {
            let node = Node {
                internal_ips: vec![ip(&format!("172.30.0.{n}")), ip(&format!("fd00:172:30::{n}"))],
                number: Some(u16::from(n)),
                wire: Some([172, 30, 0, n].into()),
                ..Node::default()
            };
            view.nodes.insert(format!("node{n}"), node);
        }
        let uplink = Uplink {
            dev: "eth0".into(),
            addresses: vec![
                (ip("172.30.0.1"), "172.30.0.0/24".parse().unwrap()),
                (ip("10.10.10.101"), "10.10.10.0/24".parse().unwrap()),
                (ip("fd00:10:10::101"), "fd00:10:10::/64".parse().unwrap()),
            ],
        };
        let here = Here {
            node: "node1".into(),
            underlay: ip("172.30.0.1"),
            port: 4790,
            vni: 4097,
            tunnel_mtu: 1450,
            veth_mtu: 1500,
            mark_mask: 0x7f,
            ipv6: true,
            hash_ports: true,
            uplinks: vec![uplink].into(),
            outward: BTreeSet::from(["eth0".to_owned()]),
            doors: BTreeMap::new(),
        };
        World {
            here,
            view,
            locals: Vec::new(),
            resolution: Resolution::default(),
            numbering: Numbering::default(),
        }
    }

    /// A gateway on a node, with the lease 10.10.10.`n` and its IPv6 twin.
    pub(crate) fn gateway(mut self, node: u8, n: u8) -> World {
        let attachment = format!("net/gw{n}/eth0");
        self.view.endpoints.push(Endpoint {
            pod: PodName::new("red", format!("gw{n}")),
            uid: None,
            attachment: attachment.clone(),
            node: format!("node{node}"),
            underlay: self.view.nodes[&format!("node{node}")].internal_ips.clone(),
            vni: 5000 + u32::from(n),
            mac: numbers::gateway_mac([10, 10, 10, n].into()),
            addresses: vec![lease(&format!("10.10.10.{n}")), lease(&format!("fd00:10:10::{n:x}"))],
            state: EndpointState::Ready,
            generation: 1,
            problems: Vec::new(),
        });
        if node == 1 {
            self.locals.push(LocalPod {
                attachment,
                pod: Some(PodName::new("red", format!("gw{n}"))),
                addresses: vec![ip(&format!("10.60.1.{}", 200 + u32::from(n)))],
                networks: Vec::new(),
            });
        }
        self
    }

    /// A client on this node with 10.60.1.`n` and its IPv6 twin, through these gateways.
    pub(crate) fn client(mut self, n: u8, gateways: &[u8]) -> World {
        let pod = PodName::new("shop", format!("c{n}"));
        self.locals.push(LocalPod {
            attachment: format!("net/c{n}/eth0"),
            pod: Some(pod.clone()),
            addresses: vec![client(n), ip(&format!("fd00:10:60:1::{n:x}"))],
            networks: vec!["10.60.1.0/24".parse().unwrap()],
        });
        self.decide(&pod, gateways);
        self
    }

    /// Changes a client's gateways; none: held.
    pub(crate) fn decide(&mut self, pod: &PodName, gateways: &[u8]) {
        let attachments: BTreeSet<String> = gateways.iter().map(|n| format!("net/gw{n}/eth0")).collect();
        let action = if attachments.is_empty() {
            Action::Held("no gateway".into())
        } else {
            Action::Through(attachments.into())
        };
        let outcome = Outcome { action, candidates: std::sync::Arc::default(), decided_by: None };
        let rules: BTreeMap<_, _> =
            Family::BOTH.iter().map(|family| (family.everything(), outcome.clone())).collect();
        let binding = format!("{}: {gateways:?}", pod.namespace);
        let decision =
            Decision { pod: pod.clone(), role: Role::Client, rules: rules.into(), decided_by: None, binding };
        self.resolution.decisions.insert(pod.clone(), decision);
    }

    pub(crate) fn endpoint(&mut self, n: u8) -> &mut Endpoint {
        let attachment = format!("net/gw{n}/eth0");
        self.view.endpoints.iter_mut().find(|e| e.attachment == attachment).unwrap()
    }

    pub(crate) fn lose(&mut self, n: u8) {
        let attachment = format!("net/gw{n}/eth0");
        self.view.endpoints.retain(|e| e.attachment != attachment);
        self.locals.retain(|pod| pod.attachment != attachment);
    }

    pub(crate) fn plan(&mut self) -> NodePlan {
        let inside = ["10.60.0.0/16", "172.30.0.0/24", "fd00:10:60::/48"].map(|net| net.parse().unwrap());
        let inputs = Inputs {
            here: &self.here,
            view: &self.view,
            locals: &self.locals,
            resolution: &self.resolution,
            inside: &inside,
        };
        let (plan, problems) = plan(&inputs, &mut self.numbering);
        assert_eq!(problems, []);
        plan
    }
}

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(crate) fn client(n: u8) -> IpAddr {
    ip(&format!("10.60.1.{n}"))
}

fn lease(text: &str) -> EgressAddress {
    EgressAddress::leased(ip(text), "red")
}
