//! The configuration: one type for the plugin's entry in a conflist, the command line and later the agent.
//!
//! In: JSON keys as users write them. Out: values that are right, with defaults. Errors name key and value.
//! Never: looks at the machine; what depends on it (host name, uplink) is filled in by `node::Facts`.

use std::net::IpAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::addr::Cidr;
use crate::egress::model::EgressSupport;

/// Which body does the work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// The plugin does it all, on a directory.
    #[default]
    Embedded,
    /// The plugin asks the agent. Not served yet.
    Cluster,
}

/// Whether the kernel spreads flows over several gateways by ports or by addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MultipathHash {
    /// By addresses and ports (`fib_multipath_hash_policy=1`), saved and restored.
    #[default]
    L4,
    /// As the host has it.
    Leave,
}

/// The underlay that carries the tunnel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Underlay {
    /// Device whose address is used; default: the one that holds `address`.
    pub device: Option<String>,
    /// Underlay address; default: this Node's InternalIP, else the source of the default route.
    pub address: Option<IpAddr>,
    /// UDP port of the tunnel, equal on all nodes.
    pub port: u16,
    /// VNI of the node's own device, equal on all nodes.
    pub vni: u32,
    /// MTU of the underlay; default: the device's.
    pub mtu: Option<u32>,
}

impl Default for Underlay {
    fn default() -> Self {
        Underlay { device: None, address: None, port: 4790, vni: 4097, mtu: None }
    }
}

/// Where leases are announced.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct AnnounceOn {
    /// Device names; empty: every device whose subnet holds the lease.
    pub interfaces: Vec<String>,
}

/// The keys of Egret's entry in a CNI list. Unknown keys at this level are the CNI library's and are ignored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Config {
    /// Embedded or cluster.
    pub mode: Mode,
    /// Directory of objects and records.
    pub state_dir: PathBuf,
    /// Directory of node-local state on tmpfs.
    pub run_dir: PathBuf,
    /// This node's name; default: the host name.
    pub node_name: Option<String>,
    /// Whose annotations count.
    #[serde(rename = "egressIPSupport")]
    pub egress_ip_support: EgressSupport,
    /// Ranges that are never sent to a gateway, beside those of the objects.
    #[serde(rename = "clusterCIDRs")]
    pub cluster_cidrs: Vec<Cidr>,
    /// The tunnel's underlay.
    pub underlay: Underlay,
    /// Where leases are announced.
    pub announce: AnnounceOn,
    /// How flows spread over gateways.
    pub multipath_hash: MultipathHash,
    /// Bits of the packet mark that are ours: seven adjacent bits.
    pub mark_mask: u32,
    /// Milliseconds to wait for another call's lock.
    pub lock_timeout: u64,
    /// Log filter for standard error (`warn`, `info`, `egret=debug`).
    pub log: String,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            mode: Mode::Embedded,
            state_dir: "/var/lib/egret".into(),
            run_dir: "/run/egret".into(),
            node_name: None,
            egress_ip_support: EgressSupport::default(),
            cluster_cidrs: Vec::new(),
            underlay: Underlay::default(),
            announce: AnnounceOn::default(),
            multipath_hash: MultipathHash::default(),
            mark_mask: 0x7f,
            lock_timeout: 10_000,
            log: "warn".to_owned(),
        }
    }
}
