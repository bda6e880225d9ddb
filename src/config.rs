//! The configuration: one type for the plugin's entry in a conflist, the command line and later the agent.
//!
//! In: JSON keys as users write them ([`Config::from_json`]), or a file that holds them ([`Config::from_file`]). Out:
//! values that are right, with defaults. Errors name key and value. Never: looks at the machine; what depends on it
//! (host name, uplink) is filled in by `node::Facts`.

mod file;
mod read;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::addr::Cidr;
use crate::egress::model::EgressSupport;
pub use read::ConfigError;

/// Which body does the work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// The plugin does it all, on a directory (`stateDir`), and leaves nothing running.
    #[default]
    Embedded,
    /// The plugin asks the agent of its node.
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

/// Somebody else's kinds of objects, which Egret can serve in a cluster where they are nobody's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Project {
    /// `IPPool` and `EgressGatewayPolicy` of Calico.
    Calico,
    /// `CiliumEgressGatewayPolicy`.
    Cilium,
}

/// The underlay that carries the tunnel. Unknown keys in it are refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Underlay {
    /// `device`: name of the device whose address is used; default: the one that holds `address`.
    pub device: Option<String>,
    /// `address`: this node's address on the underlay, IPv4 or IPv6; default: the Node object's first InternalIP, else
    /// the source of the default route.
    pub address: Option<IpAddr>,
    /// `port`: UDP port of the tunnel, 1 to 65535, equal on all nodes; default 4790.
    pub port: u16,
    /// `vni`: network identifier of the node's own device, 1 to 16777215, equal on all nodes; default 4097. Gateways
    /// take numbers from 5000 up, and pass over this one.
    pub vni: u32,
    /// `mtu`: bytes an underlay packet may have, 576 to 65535; default: the MTU of the device.
    pub mtu: Option<u32>,
}

impl Default for Underlay {
    fn default() -> Self {
        Underlay { device: None, address: None, port: 4790, vni: 4097, mtu: None }
    }
}

/// Where leases are announced. Unknown keys in it are refused.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct AnnounceOn {
    /// `interfaces`: device names; default and empty: every device whose subnet holds the lease.
    pub interfaces: Vec<String>,
}

/// Where lies what a machine knows of its running pods, unless `runDir` says otherwise.
pub const RUN_DIR: &str = "/run/egret";

/// The keys of Egret's entry in a CNI list. Unknown keys at this level are the CNI library's and are ignored, but see
/// [`Config::misspelled`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Config {
    /// `mode`: `embedded` (the default) or `cluster`: the plugin asks the agent of its node.
    pub mode: Mode,
    /// `stateDir`: directory of objects and records, an absolute path; default `/var/lib/egret`. Nodes that share it
    /// are one cluster.
    pub state_dir: PathBuf,
    /// `runDir`: directory of this machine's state, an absolute path on a tmpfs (it must go with a reboot, as the pods
    /// do); default `/run/egret`.
    pub run_dir: PathBuf,
    /// `nodeName`: this node's name, as its Node object has it; default: the host name.
    pub node_name: Option<String>,
    /// `egressIPSupport`: whose annotations count, `EnabledPerNamespaceOrPerPod` (the default) or
    /// `EnabledPerNamespace`.
    #[serde(rename = "egressIPSupport")]
    pub egress_ip_support: EgressSupport,
    /// `clusterCIDRs`: a list of ranges that are never sent to a gateway (pods, services, nodes), beside those of the
    /// Node, ServiceCIDR and IPPool objects; default none.
    #[serde(rename = "clusterCIDRs")]
    pub cluster_cidrs: Vec<Cidr>,
    /// `adopt`: a list of `calico` and `cilium`, whose kinds of objects are served in `mode: cluster` if that project is not at work
    /// there itself; default none. Embedded, all are served.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub adopt: BTreeSet<Project>,
    /// `underlay`: a map, see [`Underlay`].
    pub underlay: Underlay,
    /// `announce`: a map, see [`AnnounceOn`].
    pub announce: AnnounceOn,
    /// `multipathHash`: `l4` (the default: flows spread over several gateways by addresses and ports; sets
    /// `fib_multipath_hash_policy=1` for the whole host, and puts it back at uninstall) or `leave` (as the host has it;
    /// with the kernel's default one pod's flows to one destination all take one gateway).
    pub multipath_hash: MultipathHash,
    /// `markMask`: bits of the packet mark that are Egret's, a number or a text such as `"0x7f"`: seven adjacent bits
    /// that nobody else uses; default 0x7f.
    pub mark_mask: u32,
    /// `lockTimeout`: milliseconds to wait for another call's lock, 0 to 120000; default 10000.
    pub lock_timeout: u64,
    /// `log`: what goes to standard error: a level (`error`, `warn`, `info`, `debug`, `trace`, `off`), or several of
    /// `TARGET=LEVEL`, separated by commas; default `warn`.
    pub log: String,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            mode: Mode::Embedded,
            state_dir: "/var/lib/egret".into(),
            run_dir: RUN_DIR.into(),
            node_name: None,
            egress_ip_support: EgressSupport::default(),
            cluster_cidrs: Vec::new(),
            adopt: BTreeSet::new(),
            underlay: Underlay::default(),
            announce: AnnounceOn::default(),
            multipath_hash: MultipathHash::default(),
            mark_mask: 0x7f,
            lock_timeout: 10_000,
            log: "warn".to_owned(),
        }
    }
}
