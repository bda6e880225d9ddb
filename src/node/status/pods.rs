//! The plan's gateways, clients and sets with the names of their pods.
//!
//! In: a plan, attachment records, endpoints. Out: rows of the status. Never: reads anything by itself.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::shape::{ClientHere, GatewayHere, LeaseHere, MemberHere, SetHere};
use crate::egress::model::{Endpoint, PodName};
use crate::egress::plan::{LocalGateway, NodePlan, Place};
use crate::node::attachment::Attachment;

/// Who is behind an attachment.
pub(super) struct Names<'a> {
    pub(super) attachments: &'a [Attachment],
    pub(super) endpoints: &'a [Endpoint],
}

impl Names<'_> {
    fn endpoint(&self, attachment: &str) -> Option<&Endpoint> {
        self.endpoints.iter().find(|endpoint| endpoint.attachment == attachment)
    }

    fn node(&self, key: &str) -> Option<String> {
        let of_key = || key.strip_prefix("node/")?.split('/').next();
        let of_endpoint = self.endpoint(key).map(|endpoint| endpoint.node.as_str());
        of_endpoint.or_else(of_key).map(str::to_owned)
    }

    pub(super) fn record(&self, attachment: &str) -> Option<&Attachment> {
        self.attachments.iter().find(|record| record.id().to_string() == attachment)
    }

    fn pod(&self, attachment: &str) -> Option<PodName> {
        let of_endpoint = self.endpoint(attachment).map(|endpoint| endpoint.pod.clone());
        of_endpoint.or_else(|| self.record(attachment)?.pod.clone())
    }

    /// `routed`: pools whose addresses somebody else routes to the node.
    pub(super) fn gateways(&self, plan: &NodePlan, routed: &BTreeSet<String>) -> Vec<GatewayHere> {
        let here = plan.locals.iter().map(|(attachment, gateway)| {
            let endpoint = self.endpoint(attachment);
            GatewayHere {
                pod: self.pod(attachment),
                attachment: attachment.clone(),
                state: endpoint.map(|endpoint| endpoint.state),
                leases: gateway.addresses.iter().map(|ip| lease(*ip, gateway, endpoint, routed)).collect(),
            }
        });
        here.collect()
    }

    pub(super) fn clients(&self, plan: &NodePlan) -> Vec<ClientHere> {
        let mut clients: BTreeMap<&str, ClientHere> = BTreeMap::new();
        for (ip, client) in &plan.clients {
            let here = clients.entry(&client.attachment).or_insert_with(|| ClientHere {
                pod: self.pod(&client.attachment),
                attachment: client.attachment.clone(),
                addresses: Vec::new(),
                binding: client.binding.clone(),
            });
            here.addresses.push(*ip);
        }
        let mut clients: Vec<ClientHere> = clients.into_values().collect();
        clients.sort_by(|a, b| (&a.pod, &a.attachment).cmp(&(&b.pod, &b.attachment)));
        clients
    }

    pub(super) fn sets(&self, plan: &NodePlan) -> Vec<SetHere> {
        let member = |number: &u32| {
            let gateway = plan.gateways.get(number)?;
            let underlay = match &gateway.place {
                Place::Remote { underlay, .. } => Some(*underlay),
                _ => None,
            };
            Some(MemberHere {
                pod: self.pod(&gateway.attachment),
                key: gateway.attachment.clone(),
                node: self.node(&gateway.attachment),
                addresses: gateway.addresses.clone(),
                underlay,
            })
        };
        let set = |(mark, members): (&u8, &BTreeSet<u32>)| SetHere {
            mark: *mark,
            gateways: members.iter().filter_map(member).collect(),
        };
        plan.sets.iter().map(set).collect()
    }
}

fn lease(
    address: IpAddr,
    gateway: &LocalGateway,
    endpoint: Option<&Endpoint>,
    routed: &BTreeSet<String>,
) -> LeaseHere {
    let known = endpoint.and_then(|endpoint| endpoint.addresses.iter().find(|known| known.ip == address));
    let pool = known.map(|known| known.pool.clone());
    let announced = gateway.announced.iter().filter(|(_, announced)| *announced == address);
    let announced: Vec<String> = announced.map(|(dev, _)| dev.clone()).collect();
    let by_others = pool.as_ref().is_some_and(|pool| routed.contains(pool));
    let way_back = match (announced.is_empty(), by_others) {
        _ if gateway.hidden.contains_key(&address) => match gateway.hidden[&address] {
            Some(node) => format!("none is needed: clients are seen with the node's address {node}"),
            None => "none: its node has no address of this family for clients to leave with".to_owned(),
        },
        _ if gateway.is_own(address) => {
            "the primary network routes it: it is the pod's own address".to_owned()
        }
        (false, _) => format!("proxy neighbour on {}", announced.join(", ")),
        (true, true) => "the pool says `announce: None`: routed by others".to_owned(),
        (true, false) => "nothing announces it: no uplink's subnet holds it".to_owned(),
    };
    LeaseHere { address, pool, announced, way_back }
}
