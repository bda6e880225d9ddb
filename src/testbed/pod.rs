//! A pod: a namespace that a runtime wired, and what a process in it sees of the outside.
//!
//! In: made by [`World`](super::World). Out: probes, held flows, commands. The value holds no open file of the
//! namespace, so a pod can be lost while a test still knows its name. Never: wires itself.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Weak;
use std::time::Duration;

use serde_json::{Map, Value};

use super::flow::Flow;
use super::place::Place;
use super::service::Service;
use super::topology::Outside;
use super::verdict::{PORTS_PER_POD, Suspect};
use super::{Trouble, netns, probe};
use crate::addr::Family;
use crate::egress::model::PodName;
use crate::kernel::netns::Netns;

/// What cnitool said when it failed.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[error("cnitool {verb} of {pod} failed: {said}")]
pub struct CnitoolError {
    /// `add`, `check`, `del`; `reconcile` when that failed after a good verb.
    pub verb: String,
    /// The pod.
    pub pod: String,
    /// Its standard error: libcni's sentence with the plugin's inside.
    pub said: String,
}

/// A test that unwraps shall show the sentence.
impl fmt::Debug for CnitoolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Servers behind the router.
#[derive(Debug)]
pub(super) struct Outsiders {
    pub(super) services: [Service; 2],
}

/// A pod on a node.
#[derive(Debug, Clone)]
pub struct Pod {
    /// `namespace/name`.
    pub name: PodName,
    /// Its node's number.
    pub node: u8,
    /// `K8S_POD_UID`.
    pub uid: String,
    /// Addresses of the primary interface, as the last ADD said.
    pub addresses: Vec<IpAddr>,
    /// Result of the last ADD, as the runtime got it.
    pub result: Value,
    /// Capability arguments (`CAP_ARGS`): pod annotations, port mappings. Change them between `sandbox` and `wire`.
    pub capabilities: Map<String, Value>,
    /// How long probes wait.
    pub patience: Duration,
    pub(super) place: Place,
    pub(super) port: u16,
    pub(super) outsiders: Weak<Outsiders>,
}

impl Pod {
    /// Its namespace, as a place for commands.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// Outside port on which it sends lines, datagrams and (as the id) echo requests; no other pod uses it.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The container id that cnitool derives: SHA-512 of the namespace's path, first ten bytes.
    pub fn container_id(&self) -> Result<String, Trouble> {
        let path = self.place.path();
        let sum = self.place.feed("sha512sum", &["-"], &path.to_string_lossy())?;
        Ok(format!("cnitool-{}", sum.get(..20).unwrap_or_default()))
    }

    /// Its address of a family, if the primary gave one.
    pub fn address(&self, family: Family) -> Option<IpAddr> {
        self.addresses.iter().copied().find(|ip| Family::of(*ip) == family)
    }

    /// The source that a server saw on a new TCP connection.
    pub fn tcp(&self, to: IpAddr) -> io::Result<IpAddr> {
        probe::tcp(&self.netns()?, (to, self.port).into(), self.patience)
    }

    /// The source of one datagram from a new socket: the first packet a process sends.
    pub fn udp(&self, to: IpAddr) -> io::Result<IpAddr> {
        self.udp_of(to, 1)
    }

    /// The same with a datagram of this many bytes.
    pub fn udp_of(&self, to: IpAddr, bytes: usize) -> io::Result<IpAddr> {
        probe::udp(&self.netns()?, (to, self.port).into(), bytes, self.patience)
    }

    /// The source that an HTTP server saw.
    pub fn http(&self, to: IpAddr) -> io::Result<IpAddr> {
        probe::http(&self.netns()?, (to, self.http_port()).into(), self.patience)
    }

    /// The source that the outside saw on an echo request which was answered.
    pub fn ping(&self, to: IpAddr) -> io::Result<IpAddr> {
        let number = probe::ping(&self.netns()?, to, self.port, self.patience)?;
        let outsiders = self.outsiders.upgrade();
        let at = Outside::BOTH.iter().position(|at| at.address(Family::of(to)) == to);
        let saw = outsiders.zip(at).and_then(|(o, at)| o.services[at].pinged(number));
        saw.ok_or_else(|| {
            io::Error::other(format!("{to} answered the ping, but no outside of this world saw it"))
        })
    }

    /// Whether anything (a node, a pod) answers a ping; it need not be outside.
    pub fn reaches(&self, to: IpAddr) -> io::Result<()> {
        probe::ping(&self.netns()?, to, self.port, self.patience).map(drop)
    }

    /// The same with an echo id of the caller's choice: to a node's connection tracking each id is a flow of its own.
    pub fn reaches_as(&self, to: IpAddr, id: u16) -> io::Result<()> {
        probe::ping(&self.netns()?, to, id, self.patience).map(drop)
    }

    /// A TCP connection to keep. It has heard the greeting.
    pub fn tcp_flow(&self, to: IpAddr) -> io::Result<Flow> {
        Flow::tcp(probe::tcp_connect(&self.netns()?, (to, self.port).into(), self.patience)?, self.patience)
    }

    /// A UDP flow to keep.
    pub fn udp_flow(&self, to: IpAddr) -> io::Result<Flow> {
        let socket = probe::udp_connect(&self.netns()?, (to, self.port).into())?;
        Ok(Flow::udp(socket, self.patience))
    }

    /// A TCP connection to any server that speaks lines: another pod's, a node's.
    pub fn tcp_flow_to(&self, to: SocketAddr) -> io::Result<Flow> {
        Flow::tcp(probe::tcp_connect(&self.netns()?, to, self.patience)?, self.patience)
    }

    /// Starts servers inside it, as the pod's own process.
    pub fn serve(&self) -> Result<Service, Trouble> {
        Service::start(&self.place.netns()?)
    }

    pub(super) fn http_port(&self) -> u16 {
        if self.port == super::LINES_PORT { super::HTTP_PORT } else { self.port + 1 }
    }

    pub(super) fn suspect(&self) -> Suspect {
        let ports = self.port..self.port + PORTS_PER_POD;
        Suspect { name: self.name.to_string(), ports, addresses: self.addresses.clone() }
    }

    fn netns(&self) -> io::Result<Netns> {
        netns::open(&self.place.path())
    }
}

/// Addresses in a CNI result.
pub(super) fn addresses(result: &Value) -> Vec<IpAddr> {
    let ips = result["ips"].as_array().map(Vec::as_slice).unwrap_or_default();
    let text = ips.iter().filter_map(|ip| ip["address"].as_str());
    text.filter_map(|a| a.split('/').next()?.parse().ok()).collect()
}
