//! What a mirror's objects say, in our own types: manifests as files would have them, and what agents write of gateways and nodes.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Mirror;
use crate::api::{self, Reading};
use crate::egress::interfaces::Interfaces;
use crate::egress::model::{Endpoint, Pairs};
use crate::kube::watched::Watched;

/// `EgressNode`: what a node says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeSpec {
    /// The Node object's name.
    pub node: String,
    /// Its number in connection marks.
    pub number: u16,
    /// The last four bytes of its MAC addresses.
    pub wire: Ipv4Addr,
    /// Its interfaces, where somebody asked for them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interfaces: Option<Interfaces>,
}

impl Mirror {
    /// What the objects say, under names such as `EgressPool shop` in place of files.
    pub fn readings(&self) -> Vec<(String, Reading)> {
        let mut all = Vec::new();
        for kind in self.reach.kinds().filter(|kind| kind.is_read()) {
            let (version, word) = kind.typed();
            for (name, object) in self.objects(kind) {
                let file = format!("{word} {name}");
                all.push((file.clone(), api::read_member(&file, version, word, object)));
            }
        }
        all
    }

    /// Where gateways are, by attachment. One that cannot be read is left out: clients do as if it had gone.
    pub fn endpoints(&self) -> Vec<Endpoint> {
        self.gateways().into_iter().map(|(endpoint, _)| endpoint).collect()
    }

    /// The same, each with the labels of its pod: a node has the Pod objects of its own pods only.
    pub fn gateways(&self) -> Vec<(Endpoint, Pairs)> {
        let read = |(_, object): (&str, &Value)| {
            let labels = serde_json::from_value(object["spec"]["labels"].clone()).unwrap_or_default();
            Some((serde_json::from_value(object["spec"].clone()).ok()?, labels))
        };
        let mut gateways: Vec<(Endpoint, Pairs)> =
            self.objects(Watched::Endpoints).filter_map(read).collect();
        gateways.sort_by(|(a, _), (b, _)| a.attachment.cmp(&b.attachment));
        gateways
    }

    /// What nodes say of themselves. Of two that speak of one node the smaller number counts.
    pub fn nodes(&self) -> BTreeMap<String, NodeSpec> {
        let read = |(_, object): (&str, &Value)| serde_json::from_value(object["spec"].clone()).ok();
        let mut nodes = BTreeMap::new();
        for spec in self.objects(Watched::NodeRecords).filter_map(read) {
            let spec: NodeSpec = spec;
            let known = nodes.entry(spec.node.clone()).or_insert_with(|| spec.clone());
            if spec.number < known.number {
                *known = spec;
            }
        }
        nodes
    }
}
