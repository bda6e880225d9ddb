//! A gateway as people and machines are shown it: where it is, and the address that the outside sees.
//!
//! In: the view and a candidate of the resolver. Out: a row, the same in `explain` and in `list`. Never: decides whether a gateway
//! may be used; the candidate says that.

use std::collections::HashMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::egress::model::{Candidate, Endpoint, NodeGateway, PodName, View};

/// A gateway that a rule looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct GatewayRow {
    /// The gateway pod; none: the node itself is the gateway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<PodName>,
    /// Its node; empty if no node serves.
    pub node: String,
    /// That node's underlay address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_address: Option<IpAddr>,
    /// The address that the outside sees.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub egress_address: Option<IpAddr>,
    /// Interface that a node gateway leaves by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
    /// Whether new flows use it.
    pub usable: bool,
    /// Why not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// A view, asked for rows.
pub(super) struct GatewayRows<'a> {
    view: &'a View,
    endpoints: HashMap<&'a str, &'a Endpoint>,
}

impl<'a> GatewayRows<'a> {
    pub(super) fn of(view: &'a View) -> GatewayRows<'a> {
        let endpoints = view.endpoints.iter().map(|endpoint| (endpoint.attachment.as_str(), endpoint));
        GatewayRows { view, endpoints: endpoints.collect() }
    }

    /// The row of a candidate.
    pub(super) fn row(&self, candidate: &Candidate) -> GatewayRow {
        let endpoint = candidate.pod.as_ref().and_then(|_| self.endpoints.get(candidate.key.as_str()));
        let of_node = self.view.nodes.get(&candidate.node).and_then(|node| node.internal_ips.first());
        let of_endpoint = || endpoint?.underlay.first();
        let interface = match candidate.pod {
            Some(_) => None,
            None => NodeGateway::interface_in(&candidate.key).map(ToOwned::to_owned),
        };
        GatewayRow {
            pod: candidate.pod.clone(),
            node: candidate.node.clone(),
            node_address: of_node.or_else(of_endpoint).copied(),
            egress_address: candidate.address,
            interface,
            usable: candidate.unusable.is_none(),
            reason: candidate.unusable.clone(),
        }
    }
}
