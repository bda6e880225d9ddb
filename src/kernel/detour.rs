//! What may take a pod's packets at the node's end of its interface, before the node's own IP layer sees them.
//!
//! In: that device. Out: every [`Detour`] at it. Never: says that packets do take it, but for a redirection that is certain; only a
//! packet that arrives, or does not, can say that ([`crate::kernel::passage`]). Changes nothing.

use std::fmt;
use std::net::IpAddr;

use crate::addr::Family;
use crate::kernel::netlink::filter::{self, Takes};
use crate::kernel::netlink::{Socket, address, link, route};
use crate::kernel::netns::Netns;
use crate::kernel::observe::{KernelError, entering, open, reading};
use crate::kernel::passage::outside;

/// `BPF_PROG_QUERY` of `linux/bpf.h` (4.16).
const PROG_QUERY: libc::c_long = 16;
/// `BPF_TCX_INGRESS` (6.6).
const TCX_INGRESS: u32 = 46;

/// One thing that may take packets away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Detour {
    /// A filter redirects to this device, some packets or all.
    Redirect(String),
    /// An eBPF program decides, by a `tc` filter: its name.
    Filter(String),
    /// An eBPF program decides, attached as `tcx` (6.6).
    Tcx,
    /// An eBPF program decides before the packet is one (XDP).
    Xdp,
    /// A netkit pair: its programs decide.
    Netkit,
    /// The device is a port of Open vSwitch, whose flows decide.
    OpenVSwitch,
    /// The device is a port of a bridge, and the pod sends what goes outside to this, which is no address of the node: by another port of the
    /// bridge it may leave below IP. `None`: to nobody in between.
    Bridge(Option<IpAddr>),
}

impl Detour {
    /// Whether packets are lost to the node's forwarding without a further look.
    pub fn is_certain(&self) -> bool {
        matches!(self, Detour::Redirect(_))
    }
}

impl fmt::Display for Detour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Detour::Redirect(to) => write!(f, "a tc filter redirects to {to}"),
            Detour::Filter(name) => write!(f, "the eBPF program {name} at its tc ingress"),
            Detour::Tcx => write!(f, "an eBPF program at its tcx ingress"),
            Detour::Xdp => write!(f, "an XDP program"),
            Detour::Netkit => write!(f, "it is a netkit device"),
            Detour::OpenVSwitch => write!(f, "it is a port of Open vSwitch"),
            Detour::Bridge(Some(gateway)) => {
                write!(f, "it is a port of a bridge, and the pod's gateway {gateway} is not this node")
            }
            Detour::Bridge(None) => write!(f, "it is a port of a bridge, and the pod has no gateway"),
        }
    }
}

/// Every detour at a device, the node's end of a pod's interface with these addresses; none where the device is gone.
///
/// # Errors
/// A namespace cannot be entered or read.
pub fn detours(
    node: &Netns,
    pod: &Netns,
    name: &str,
    addresses: &[IpAddr],
) -> Result<Vec<Detour>, KernelError> {
    let mut socket = open(node)?;
    let answer = match socket.ask(link::by_name(name)) {
        Ok(answer) => answer,
        Err(refusal) if refusal.is_absence() => return Ok(Vec::new()),
        Err(refusal) => return Err(reading("the node's end of a pod's interface")(refusal)),
    };
    let Some(device) = answer.iter().find_map(link::read) else {
        return Ok(Vec::new());
    };
    let mut found = Vec::new();
    found.extend((device.kind == "netkit").then_some(Detour::Netkit));
    found.extend((device.port_of == "openvswitch").then_some(Detour::OpenVSwitch));
    found.extend(device.xdp.then_some(Detour::Xdp));
    if device.port_of == "bridge" {
        found.extend(bridged(&mut socket, pod, addresses)?);
    }
    let dump =
        socket.dump(&filter::at_ingress(device.index)).map_err(reading("filters of a pod's interface"))?;
    for takes in dump.iter().flat_map(filter::read) {
        found.extend(named(&mut socket, takes)?);
    }
    let tcx = node.run(|| has_tcx(device.index)).map_err(|error| entering(node, error))?;
    found.extend(tcx.then_some(Detour::Tcx));
    Ok(found)
}

/// What a bridge hands on to the node itself is a packet for the node's own MAC: that of a pod whose gateway is an address of the node.
fn bridged(socket: &mut Socket, pod: &Netns, addresses: &[IpAddr]) -> Result<Option<Detour>, KernelError> {
    let mut inside = open(pod)?;
    for family in Family::BOTH {
        let Some(own) = addresses.iter().find(|ip| Family::of(**ip) == family) else { continue };
        // Without a way outside nothing goes there.
        let Ok(way) = inside.ask(route::lookup(outside(*own))) else { continue };
        let Some(gateway) = way.iter().find_map(route::read_next_hop) else {
            return Ok(Some(Detour::Bridge(None)));
        };
        let of_the_node = socket.ask(route::lookup(gateway));
        let of_the_node = of_the_node.is_ok_and(|answer| answer.iter().any(route::is_local));
        if !of_the_node && !is_assigned(socket, gateway)? {
            return Ok(Some(Detour::Bridge(Some(gateway))));
        }
    }
    Ok(None)
}

/// Whether a device of the node has this address. An IPv6 address is no route's while duplicates are looked for, a second or two: the
/// bridge of the node's first pods is that young.
fn is_assigned(socket: &mut Socket, ip: IpAddr) -> Result<bool, KernelError> {
    let dump = socket.dump(&address::list(None)).map_err(reading("the node's addresses"))?;
    Ok(dump.iter().filter_map(address::read).any(|assigned| assigned.ip == ip && !assigned.passing))
}

/// A redirection to an `ifb` device is none: what was shaped there goes on where it was (the bandwidth plugin does that).
fn named(socket: &mut Socket, takes: Takes) -> Result<Option<Detour>, KernelError> {
    let index = match takes {
        Takes::Program(name) => return Ok(Some(Detour::Filter(name))),
        Takes::Redirect(index) => index,
    };
    let answer = match socket.ask(link::by_index(index)) {
        Ok(answer) => answer,
        // Without its target such a filter drops.
        Err(refusal) if refusal.is_absence() => return Ok(None),
        Err(refusal) => return Err(reading("the target of a tc filter")(refusal)),
    };
    let target = answer.iter().find_map(link::read);
    Ok(target.filter(|device| device.kind != "ifb").map(|device| Detour::Redirect(device.name.to_owned())))
}

/// `union bpf_attr` as `BPF_PROG_QUERY` reads it.
#[repr(C)]
#[derive(Default)]
struct Query {
    target: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    ids: u64,
    count: u32,
    reserved: u32,
    rest: [u64; 4],
}

/// Whether a program hangs at the device's tcx ingress, in this thread's namespace. A kernel without tcx, or a process that may not
/// ask, has none to show.
fn has_tcx(index: u32) -> bool {
    let mut query = Query { target: index, attach_type: TCX_INGRESS, ..Query::default() };
    // SAFETY: the kernel reads and writes `query`, whose size it is told; it has no pointer into our memory (`ids` is 0).
    let answer = unsafe { libc::syscall(libc::SYS_bpf, PROG_QUERY, &raw mut query, size_of::<Query>()) };
    answer == 0 && query.count > 0
}
