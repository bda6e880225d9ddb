//! What the kernel tells of its own accord: devices, addresses, routes, rules, nexthops, neighbours and nftables that changed.
//!
//! In: the marks of ownership. Out: [`Notices`]: whether something of ours, or something of the machine, is not what it was.
//! Never: says what exactly; whoever is told looks for himself, because a notice is only ever late. Never keeps a namespace
//! alive: the sockets belong to the node's own.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use netlink_sys::protocols::{NETLINK_NETFILTER, NETLINK_ROUTE};
use netlink_sys::{Socket, SocketAddr};

use super::netlink::attributes::{behind, text, u32_of};
use super::netlink::{link, neighbour};
use super::netns::Netns;
use super::observe::{KernelError, open, reading};
use super::state::Scope;

/// Room in the kernel for notices that were not yet read: a burst of some ten thousand.
const RECEIVE_BUFFER: u32 = 4 << 20;
const DATAGRAM: usize = 32 * 1024;
const HEADER: usize = 16;

/// Groups of rtnetlink (linux/rtnetlink.h) about this namespace.
const HERE: [u32; 11] = [
    1,  // RTNLGRP_LINK
    3,  // RTNLGRP_NEIGH
    5,  // RTNLGRP_IPV4_IFADDR
    7,  // RTNLGRP_IPV4_ROUTE
    8,  // RTNLGRP_IPV4_RULE
    9,  // RTNLGRP_IPV6_IFADDR
    11, // RTNLGRP_IPV6_ROUTE
    19, // RTNLGRP_IPV6_RULE
    24, // RTNLGRP_IPV4_NETCONF
    25, // RTNLGRP_IPV6_NETCONF
    32, // RTNLGRP_NEXTHOP
];
/// The same about the namespaces of gateways, whose neighbours and addresses are left to the regular look.
const ELSEWHERE: [u32; 6] = [1, 7, 8, 11, 19, 32];
/// `NFNLGRP_NFTABLES` of linux/netfilter/nfnetlink.h.
pub(super) const NFTABLES: u32 = 7;
const NFNL_SUBSYS_NFTABLES: u16 = 10;

/// What was heard since one last listened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Notices {
    /// Something of ours was changed or deleted, by whomever.
    pub ours: bool,
    /// A whole table of ours was deleted: the decision itself is gone.
    pub tables_gone: bool,
    /// A device, an address or a default route that is not ours changed.
    pub machine: bool,
    /// The kernel had more to say than there was room for: anything may have happened.
    pub lost: bool,
}

/// Sockets that listen. Each can be polled for reading.
pub struct Watch {
    scope: Scope,
    /// Indexes of our devices in the node's namespace.
    devices: BTreeSet<u32>,
    here: Socket,
    elsewhere: Socket,
    nftables: Socket,
    buffer: Vec<u8>,
}

impl Watch {
    /// Listens in a namespace from now on, and in all that it has an id of: a gateway's veth and tunnel give it one.
    ///
    /// # Errors
    /// The namespace cannot be entered, or the kernel refuses a group.
    pub fn open(netns: &Netns, scope: &Scope) -> Result<Watch, KernelError> {
        let failed = |error| KernelError::Enter { netns: netns.path().to_owned(), error };
        let sockets = || -> io::Result<(Socket, Socket, Socket)> {
            let here = listener(NETLINK_ROUTE, &HERE)?;
            let elsewhere = listener(NETLINK_ROUTE, &ELSEWHERE)?;
            let nftables = listener(NETLINK_NETFILTER, &[NFTABLES])?;
            // Needs CAP_NET_BROADCAST; without it the gateways' namespaces are left to the regular look.
            for socket in [&elsewhere, &nftables] {
                if let Err(error) = socket.set_listen_all_namespaces(true) {
                    tracing::debug!(%error, "gateways' namespaces are looked at now and then only");
                }
            }
            Ok((here, elsewhere, nftables))
        };
        let (here, elsewhere, nftables) = netns.run(sockets).map_err(failed)?.map_err(failed)?;
        let mut socket = open(netns)?;
        let dump = socket.dump(&link::list()).map_err(reading("devices"))?;
        let found = dump.iter().filter_map(link::read);
        let devices = found.filter(|d| d.group == scope.link_group).map(|d| d.index).collect();
        Ok(Watch { scope: scope.clone(), devices, here, elsewhere, nftables, buffer: vec![0; DATAGRAM] })
    }

    /// What to poll for reading.
    pub fn descriptors(&self) -> [BorrowedFd<'_>; 3] {
        [&self.here, &self.elsewhere, &self.nftables].map(|socket| {
            // SAFETY: the socket is open, and outlives what is borrowed from `self`.
            unsafe { BorrowedFd::borrow_raw(socket.as_raw_fd()) }
        })
    }

    /// Takes in everything that was said until now. Does not wait.
    pub fn listen(&mut self) -> Notices {
        let mut heard = Notices::default();
        let Watch { scope, devices, here, elsewhere, nftables, buffer } = self;
        drain(here, buffer, &mut heard, |message, heard| heard_here(message, scope, devices, heard));
        drain(elsewhere, buffer, &mut heard, |message, heard| {
            heard.ours |= is_ours(message, scope);
        });
        drain(nftables, buffer, &mut heard, |message, heard| heard_of_tables(message, scope, heard));
        heard
    }
}

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptors()[0]
    }
}

fn listener(protocol: isize, groups: &[u32]) -> io::Result<Socket> {
    let mut socket = Socket::new(protocol)?;
    socket.bind(&SocketAddr::new(0, 0))?;
    // Beyond the system's limit only for the privileged; the default holds some hundred notices, and a loss is noticed.
    let _ = socket.set_rx_buf_sz(RECEIVE_BUFFER);
    socket.set_non_blocking(true)?;
    for group in groups {
        socket.add_membership(*group)?;
    }
    Ok(socket)
}

/// One message: its type and what stands behind its header.
pub(super) struct Message<'a> {
    pub(super) kind: u16,
    pub(super) payload: &'a [u8],
}

fn drain(
    socket: &Socket,
    buffer: &mut [u8],
    heard: &mut Notices,
    mut each: impl FnMut(&Message<'_>, &mut Notices),
) {
    loop {
        match socket.recv(&mut &mut buffer[..], 0) {
            Ok(length) => {
                let mut rest = buffer.get(..length).unwrap_or(&[]);
                while let Some((message, behind)) = next(rest) {
                    each(&message, heard);
                    rest = behind;
                }
            }
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => heard.lost = true,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}

/// The first message, and what stands behind it.
pub(super) fn next(bytes: &[u8]) -> Option<(Message<'_>, &[u8])> {
    let length = u32_of(bytes)? as usize;
    let kind = u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?);
    let payload = bytes.get(HEADER..length)?;
    Some((Message { kind, payload }, bytes.get(length.next_multiple_of(4)..).unwrap_or(&[])))
}

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
const RTM_NEWNEIGH: u16 = 28;
const RTM_DELNEIGH: u16 = 29;
const RTM_NEWRULE: u16 = 32;
const RTM_DELRULE: u16 = 33;
const RTM_NEWNETCONF: u16 = 80;
const RTM_NEWNEXTHOP: u16 = 104;
const RTM_DELNEXTHOP: u16 = 105;
/// `RTN_UNICAST`: routes that lead somewhere, in contrast to local and multicast ones.
const RTN_UNICAST: u8 = 1;

fn heard_here(message: &Message<'_>, scope: &Scope, devices: &mut BTreeSet<u32>, heard: &mut Notices) {
    let payload = message.payload;
    let index = |at: usize| payload.get(at..).and_then(u32_of).unwrap_or_default();
    match message.kind {
        RTM_NEWLINK | RTM_DELLINK => {
            let Some(device) = link::read(payload) else { return };
            if device.group == scope.link_group || devices.contains(&device.index) {
                heard.ours = true;
                let gone = message.kind == RTM_DELLINK;
                let _ = if gone { devices.remove(&device.index) } else { devices.insert(device.index) };
            } else {
                heard.machine = true;
            }
        }
        RTM_NEWADDR | RTM_DELADDR if devices.contains(&index(4)) => heard.ours = true,
        RTM_NEWADDR | RTM_DELADDR => heard.machine = true,
        RTM_NEWNEIGH | RTM_DELNEIGH => {
            let proxy = || neighbour::read(payload).is_some_and(|entry| entry.protocol == scope.protocol);
            heard.ours |= devices.contains(&index(4)) || proxy();
        }
        RTM_NEWNETCONF => {
            // NETCONFA_IFINDEX is the first attribute; -1 and -2 mean all devices and those to come.
            let of = behind(payload, 4).find(|a| a.kind == 1).and_then(|a| u32_of(a.value));
            heard.ours |= of.is_some_and(|index| devices.contains(&index));
        }
        _ if is_ours(message, scope) => heard.ours = true,
        RTM_NEWROUTE | RTM_DELROUTE => {
            // struct rtmsg: a default route of any table.
            heard.machine |= payload.get(1) == Some(&0) && payload.get(7) == Some(&RTN_UNICAST);
        }
        _ => {}
    }
}

/// Whether a message speaks of something that carries one of our marks, whichever namespace it is about.
fn is_ours(message: &Message<'_>, scope: &Scope) -> bool {
    let payload = message.payload;
    match message.kind {
        RTM_NEWLINK | RTM_DELLINK => link::read(payload).is_some_and(|d| d.group == scope.link_group),
        // struct rtmsg and struct nhmsg: the protocol stands at bytes 5 and 2. A rule names it in FRA_PROTOCOL.
        RTM_NEWROUTE | RTM_DELROUTE => payload.get(5) == Some(&scope.protocol),
        RTM_NEWNEXTHOP | RTM_DELNEXTHOP => payload.get(2) == Some(&scope.protocol),
        RTM_NEWRULE | RTM_DELRULE => {
            behind(payload, 12).any(|a| a.kind == 21 && a.value.first() == Some(&scope.protocol))
        }
        _ => false,
    }
}

/// Messages of nftables (linux/netfilter/nf_tables.h) that take something away. What is added without us harms nobody, or is
/// found by the regular look.
const DELTABLE: u16 = 2;
const TAKING: [u16; 6] = [
    DELTABLE, 5,  // NFT_MSG_DELCHAIN
    8,  // NFT_MSG_DELRULE
    11, // NFT_MSG_DELSET
    14, // NFT_MSG_DELSETELEM
    6,  // NFT_MSG_NEWRULE: a rule of somebody else's in a chain of ours
];

fn heard_of_tables(message: &Message<'_>, scope: &Scope, heard: &mut Notices) {
    let (subsystem, kind) = (message.kind >> 8, message.kind & 0xff);
    if subsystem != NFNL_SUBSYS_NFTABLES || !TAKING.contains(&kind) {
        return;
    }
    // NFTA_TABLE_NAME and the others' NFTA_…_TABLE are attribute 1 all the same.
    let table = behind(message.payload, 4).find(|a| a.kind == 1).map(|a| text(a.value));
    if table.is_some_and(|table| scope.tables.iter().any(|(_, own)| *own == table)) {
        heard.ours = true;
        heard.tables_gone |= kind == DELTABLE;
    }
}
