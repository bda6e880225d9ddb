//! Telling a link that an address is here now, and asking it whether somebody else has it.
//!
//! In: a device and addresses. Out: frames on the device, MACs that answered. Never: decides who owns an address; repeats by itself.
//! Everything happens in the network namespace of the calling thread.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::time::Instant;

mod frame;
#[cfg(test)]
mod tests;
mod wire;

use crate::addr::{Family, Mac};
use wire::Wire;

/// Why nothing could be announced or asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No such device.
    #[error("there is no device {dev} in this network namespace")]
    NoDevice {
        /// Its name.
        dev: String,
    },
    /// Its addresses are no MACs.
    #[error(
        "{dev} is no Ethernet device: addresses cannot be announced there, use a device of the hosts' subnet"
    )]
    NotEthernet {
        /// Its name.
        dev: String,
    },
    /// One cannot ask for an IPv6 address with an IPv4 address, or the other way round.
    #[error("{source_address} cannot ask for {target}: they are of different families")]
    Families {
        /// The asker's address.
        source_address: IpAddr,
        /// The address asked for.
        target: IpAddr,
    },
    /// The packet socket failed.
    #[error("could not {doing} {dev}: {source}")]
    Socket {
        /// The device.
        dev: String,
        /// What we were about to do, as in `send on`.
        doing: &'static str,
        /// Why.
        source: io::Error,
    },
}

/// Tells everybody on the link that `ip` is at this device, once, in every form that receivers follow.
///
/// A lost announcement costs half a minute (a stale neighbour entry), so callers repeat it: at once, after a second, after three.
pub fn announce(dev: &str, ip: IpAddr) -> Result<(), Error> {
    let wire = Wire::open(dev, ethertype(ip), &frame::filter(ip))?;
    frame::announcements(wire.mac, ip).iter().try_for_each(|announcement| wire.send(announcement))
}

/// A question on its way: *who else has this address?*
///
/// It is asked as an ordinary host asks, with the node's own address, because the kernel does not answer RFC 5227 probes
/// (sender 0.0.0.0) for proxied addresses, and so not for leases of other nodes.
#[derive(Debug)]
pub struct Question {
    wire: Wire,
    target: IpAddr,
}

impl Question {
    /// Asks. From now on answers are collected, whatever the caller does meanwhile.
    pub fn ask(dev: &str, our_source: IpAddr, target: IpAddr) -> Result<Question, Error> {
        let wire = Wire::open(dev, ethertype(target), &frame::filter(target))?;
        let question = frame::question(wire.mac, our_source, target)
            .ok_or(Error::Families { source_address: our_source, target })?;
        wire.send(&question)?;
        Ok(Question { wire, target })
    }

    /// Who has answered, ourselves left out. Returns with the first answers, or with none at the deadline; a deadline that is over
    /// gives what has come in. It sleeps while it waits.
    pub fn answers(&self, deadline: Instant) -> Result<BTreeSet<Mac>, Error> {
        let mut owners = BTreeSet::new();
        let mut buffer = [0; 2048];
        let mut until = deadline;
        while let Some(frame) = self.wire.receive(until, &mut buffer)? {
            let answer = frame::answer(frame, self.target).filter(|mac| *mac != self.wire.mac);
            if let Some(mac) = answer {
                owners.insert(mac);
                until = Instant::now();
            }
        }
        Ok(owners)
    }
}

fn ethertype(ip: IpAddr) -> u16 {
    match Family::of(ip) {
        Family::V4 => frame::ETHERTYPE_ARP,
        Family::V6 => frame::ETHERTYPE_IPV6,
    }
}
