//! The file's own form.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::Deserialize;
use serde_json::Value;

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) local_node: String,
    pub(crate) nodes: Vec<Node>,
    pub(crate) pods: Vec<Pod>,
    pub(crate) policies: Vec<Value>,
    #[serde(default)]
    pub(crate) namespace_labels: BTreeMap<String, BTreeMap<String, String>>,
    pub(crate) steps: Vec<Step>,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) ip: Option<IpAddr>,
    #[serde(default)]
    pub(crate) labels: BTreeMap<String, String>,
    #[serde(default)]
    pub(crate) interfaces: Vec<Interface>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Interface {
    pub(crate) name: String,
    pub(crate) index: Option<u32>,
    #[serde(default)]
    pub(crate) altnames: Vec<String>,
    #[serde(default)]
    pub(crate) addrs: Vec<String>,
    #[serde(default)]
    pub(crate) default_route4: Option<Value>,
    #[serde(default)]
    pub(crate) default_route6: Option<Value>,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Pod {
    pub(crate) uid: String,
    pub(crate) namespace: String,
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) labels: BTreeMap<String, String>,
    #[serde(default)]
    pub(crate) ips: Vec<IpAddr>,
    pub(crate) node: Option<String>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Step {
    pub(crate) description: String,
    pub(crate) change: Value,
    pub(crate) expect: Vec<Entry>,
    pub(crate) expect_error: Option<String>,
    pub(crate) expect_rp_filter: Option<BTreeMap<String, String>>,
    #[serde(rename = "expectMatchedPodUIDs")]
    pub(crate) expect_matched_pods: Option<Vec<String>>,
    pub(crate) expect_egress_interface: Option<String>,
    #[serde(default)]
    pub(crate) expect_lookup: Vec<Value>,
    #[serde(rename = "expectEffectiveCIDRs")]
    pub(crate) expect_effective: Option<BTreeMap<IpAddr, Vec<String>>>,
}

/// One entry of Cilium's map.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Entry {
    #[serde(rename = "sourceIP")]
    pub(crate) source: IpAddr,
    #[serde(rename = "destinationCIDR")]
    pub(crate) destination: String,
    #[serde(rename = "egressIP")]
    pub(crate) egress: IpAddr,
    #[serde(rename = "gatewayIP")]
    pub(crate) gateway: IpAddr,
    pub(crate) egress_ifindex: Option<u32>,
}
