//! `EndpointSlice` of discovery.k8s.io, as far as it says where the API server is: the one that this keeps of itself, `default/kubernetes`.
//!
//! Pods ask the server by its Service. That has an address of the cluster, but kube-proxy translates before anybody decides where a packet
//! goes, and then the address is the server's own: of a managed cluster it is no node's. Of other Services what is outside stays outside:
//! whoever puts a partner's addresses behind one wants to be known there. So what such a slice says is nobody's affair.

use serde_json::Value;

use super::Object;
use super::fields::{Findings, Section};
use super::shape::{Field, Shape, field};
use crate::addr::Cidr;

/// The server's own slice. By its name and not by a label: whoever may write slices in `default` could label any.
const OF_THE_SERVER: &str = "default/kubernetes";

pub(super) const FIELDS: &[Field] = &[
    field("metadata", Shape::Open(METADATA), "Its name and namespace.").required(),
    field(
        "endpoints",
        Shape::Any,
        "Of `default/kubernetes` the `addresses`: where the API server is, inside the cluster.",
    ),
];

const METADATA: &[Field] = &[
    field("name", Shape::Text, "The object's name.").required(),
    field("namespace", Shape::Text, "Its namespace.").or("default"),
];

pub(super) fn read(name: &str, root: &Section<'_>, findings: &mut Findings<'_>) -> Option<Object> {
    root.section("metadata", findings);
    let endpoints = root.list("endpoints", findings).iter().filter(|_| name == OF_THE_SERVER);
    let texts = endpoints.flat_map(|endpoint| endpoint["addresses"].as_array().into_iter().flatten());
    // A slice may have names in place of addresses.
    let addresses = texts.filter_map(Value::as_str).filter_map(|text| text.parse().ok());
    Some(Object::ApiServer(addresses.map(Cidr::host).collect()))
}
