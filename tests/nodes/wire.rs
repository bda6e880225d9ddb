//! Every packet that arrives outside for the port that selected pods call, whoever sent it.
//!
//! In: a packet socket (packet(7)) in the outside's namespace. Out: sources. Never: believes a window in which packets were dropped.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::{Arc, Mutex};

use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, recv, setsockopt, socket, sockopt};

/// What was seen since it was last forgotten.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wire(Arc<Mutex<BTreeMap<IpAddr, From>>>);

/// What one source sent.
#[derive(Debug, Clone, Default)]
pub(crate) struct From {
    /// Packets.
    pub(crate) packets: usize,
    /// TCP flags of any of them: a bare reset (4) is a node's own word, anything else somebody's flow.
    flags: BTreeSet<u8>,
}

impl Wire {
    /// Begins to look, in this thread's namespace, at TCP to this port.
    pub(crate) fn watch(&self, port: u16) {
        let all = SockProtocol::EthAll;
        let tap = socket(AddressFamily::Packet, SockType::Datagram, SockFlag::empty(), all).unwrap();
        setsockopt(&tap, sockopt::RcvBufForce, &(16 << 20)).unwrap();
        let seen = self.0.clone();
        std::thread::spawn(move || {
            let mut bytes = [0; 128];
            loop {
                let length =
                    recv(tap.as_raw_fd(), &mut bytes, nix::sys::socket::MsgFlags::MSG_TRUNC).unwrap();
                if let Some((source, flags)) = source(&bytes[..length.min(128)], port) {
                    let mut seen = seen.lock().unwrap();
                    let from = seen.entry(source).or_default();
                    from.packets += 1;
                    from.flags.insert(flags);
                }
                assert_eq!(dropped(&tap), 0, "the capture lost packets");
            }
        });
    }

    /// Sources, with what each sent.
    pub(crate) fn sources(&self) -> BTreeMap<IpAddr, From> {
        self.0.lock().unwrap().clone()
    }

    pub(crate) fn forget(&self) {
        self.0.lock().unwrap().clear();
    }
}

/// The source and the flags of a TCP packet to this port.
fn source(packet: &[u8], port: u16) -> Option<(IpAddr, u8)> {
    let first = *packet.first()?;
    let (source, protocol, header): (IpAddr, u8, usize) = match first >> 4 {
        4 => {
            let octets: [u8; 4] = packet.get(12..16)?.try_into().ok()?;
            (octets.into(), *packet.get(9)?, usize::from(first & 15) * 4)
        }
        6 => {
            let octets: [u8; 16] = packet.get(8..24)?.try_into().ok()?;
            (octets.into(), *packet.get(6)?, 40)
        }
        _ => return None,
    };
    let to = u16::from_be_bytes(packet.get(header + 2..header + 4)?.try_into().ok()?);
    let flags = packet.get(header + 13).copied().unwrap_or_default();
    (protocol == 6 && to == port).then_some((source, flags))
}

/// Packets that the kernel had no room for (`PACKET_STATISTICS`), since it was last asked.
fn dropped(tap: &OwnedFd) -> u32 {
    let mut counts = [0u32; 2];
    let mut length = libc::socklen_t::try_from(size_of_val(&counts)).unwrap();
    // SAFETY: the kernel writes at most `length` bytes into `counts`.
    let answer = unsafe {
        let into = (&raw mut counts).cast();
        libc::getsockopt(tap.as_raw_fd(), libc::SOL_PACKET, libc::PACKET_STATISTICS, into, &raw mut length)
    };
    assert_eq!(answer, 0);
    counts[1]
}
