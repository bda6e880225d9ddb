//! Did a selected pod show an address that it must not show? As values: packets in, verdict out.
//!
//! "No leak" needs evidence: every selected pod was heard, and the capture lost nothing. A window without either is a
//! failure, not a success.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::ops::Range;

use super::packet::{Packet, Spot};
use crate::addr::Cidr;

/// Outside ports of pods: each has its own few, so that a packet says whose it is whatever its source became.
pub(super) const POD_PORTS: Range<u16> = 20000..32000;
/// How many each pod has.
pub(super) const PORTS_PER_POD: u16 = 4;
/// Source ports of connections that the outside opens: packets to them are answers, with the pod's own address.
pub(super) const INBOUND_PORTS: Range<u16> = 10000..20000;

/// A pod whose packets are judged.
#[derive(Debug, Clone)]
pub(super) struct Suspect {
    pub(super) name: String,
    pub(super) ports: Range<u16>,
    pub(super) addresses: Vec<IpAddr>,
}

/// A clean window: for each selected pod, the sources the outside saw, with counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Clean {
    /// By pod (`namespace/name`).
    pub sources: BTreeMap<String, BTreeMap<IpAddr, usize>>,
    /// Packets in the window, of all pods.
    pub packets: usize,
}

/// Why a window is not clean.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
pub enum Leak {
    /// The capture lost packets, so it cannot tell.
    #[error("the capture lost {0} packets: this window proves nothing; send less or run it again")]
    Dropped(u64),
    /// Packets with addresses that must not be seen.
    #[error("{} of {} packets left with an address that must not be seen:\n{}", .0.len(), .1, list(.0))]
    Forbidden(Vec<Packet>, usize),
    /// A pod that was never heard proves nothing.
    #[error("no good packet of {} reached the outside: this window proves nothing", .0.join(", "))]
    Unheard(Vec<String>),
}

/// A test that unwraps shall show the packets as people write them.
impl fmt::Debug for Leak {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn list(packets: &[Packet]) -> String {
    let lines: Vec<String> = packets.iter().take(20).map(|p| format!("  {p}")).collect();
    let more = packets.len().saturating_sub(lines.len());
    let more = if more > 0 { format!("\n  … and {more} more") } else { String::new() };
    lines.join("\n") + &more
}

/// Judges a window. `forbidden`: sources that no selected pod may show.
///
/// A packet is a selected pod's when it goes to one of its ports or comes from its own address. A packet that nobody
/// accounts for (no ports, strange ports) counts against the window when its source is forbidden: it may well be theirs.
/// A node's ICMP error about a packet to an address that the outside may know, such as a lease that is gone, is a router's
/// own word; one that quotes an inner address is a leak.
pub(super) fn judge(
    packets: &[Packet],
    dropped: u64,
    suspects: &[Suspect],
    forbidden: &[Cidr],
) -> Result<Clean, Leak> {
    if dropped > 0 {
        return Err(Leak::Dropped(dropped));
    }
    let is_forbidden = |ip: IpAddr| forbidden.iter().any(|c| c.contains(ip));
    let mut leaked = Vec::new();
    let mut sources: BTreeMap<String, BTreeMap<IpAddr, usize>> = BTreeMap::new();
    for packet in packets.iter().filter(|p| !answers_the_outside(p)) {
        let own = suspects.iter().find(|s| s.addresses.contains(&packet.source));
        let owner = suspects.iter().find(|s| packet.service.is_some_and(|port| s.ports.contains(&port)));
        let accounted = packet.service.is_some_and(is_known_service);
        // A node or router speaks for itself about an address that the outside may know.
        let of_a_router = packet.about.is_some_and(|ip| !is_forbidden(ip)) && is_forbidden(packet.source);
        if own.is_none() && of_a_router {
            continue;
        }
        if own.is_some() || (is_forbidden(packet.source) && (owner.is_some() || !accounted)) {
            leaked.push(packet.clone());
        } else if let Some(owner) = owner
            && packet.spot != Spot::Router
        {
            *sources.entry(owner.name.clone()).or_default().entry(packet.source).or_default() += 1;
        }
    }
    if !leaked.is_empty() {
        return Err(Leak::Forbidden(leaked, packets.len()));
    }
    let unheard: Vec<String> =
        suspects.iter().filter(|s| !sources.contains_key(&s.name)).map(|s| s.name.clone()).collect();
    if !unheard.is_empty() {
        return Err(Leak::Unheard(unheard));
    }
    Ok(Clean { sources, packets: packets.len() })
}

/// Ports of pods, and the fixed ones, which no selected pod's probes use.
fn is_known_service(port: u16) -> bool {
    POD_PORTS.contains(&port) || [super::LINES_PORT, super::HTTP_PORT].contains(&port)
}

fn answers_the_outside(packet: &Packet) -> bool {
    packet.ports.is_some_and(|(_, to)| INBOUND_PORTS.contains(&to))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(source: &str, service: Option<u16>) -> Packet {
        Packet {
            spot: Spot::Outside,
            source: source.parse().unwrap(),
            destination: "198.51.100.100".parse().unwrap(),
            protocol: 17,
            ports: service.map(|to| (40000, to)),
            flags: 0,
            hops: 62,
            service,
            about: None,
        }
    }

    fn cart() -> Suspect {
        let addresses = vec!["10.60.1.2".parse().unwrap()];
        Suspect { name: "shop/cart".to_owned(), ports: 20000..20004, addresses }
    }

    fn verdict(packets: &[Packet], dropped: u64) -> Result<Clean, Leak> {
        judge(packets, dropped, &[cart()], &super::super::Topology::default().forbidden())
    }

    #[test]
    fn a_lease_is_clean_and_counted() {
        let lease = packet("10.10.10.0", Some(20001));
        let clean = verdict(&[lease.clone(), lease], 0).unwrap();
        assert_eq!(clean.sources["shop/cart"][&"10.10.10.0".parse().unwrap()], 2);
    }

    #[test]
    fn a_window_that_proves_nothing_fails() {
        assert!(matches!(verdict(&[], 0), Err(Leak::Unheard(_))));
        assert!(matches!(verdict(&[packet("10.10.10.0", Some(20001))], 1), Err(Leak::Dropped(1))));
        let mut at_router = packet("10.10.10.0", Some(20001));
        at_router.spot = Spot::Router;
        assert!(matches!(verdict(&[at_router], 0), Err(Leak::Unheard(_))));
    }

    #[test]
    fn each_kind_of_leak_is_found() {
        let good = packet("10.10.10.0", Some(20001));
        for (source, service) in [
            ("172.30.0.1", Some(20001)),   // the node's, on the pod's port
            ("10.60.2.9", Some(20003)),    // another pod's, on the pod's port
            ("10.60.1.2", Some(20500)),    // the pod's own, on another's port
            ("10.60.1.2", None),           // … on none
            ("172.30.0.1", None),          // nobody knows whose
            ("172.30.0.1", Some(51000)),   // a strange port
            ("169.254.77.1", Some(20000)), // a device's
        ] {
            let leak = verdict(&[good.clone(), packet(source, service)], 0);
            assert!(
                matches!(leak, Err(Leak::Forbidden(ref p, 2)) if p.len() == 1),
                "{source} {service:?}: {leak:?}"
            );
        }
    }

    #[test]
    fn a_node_may_say_that_a_lease_is_gone_but_not_name_a_pod() {
        let good = packet("10.10.10.0", Some(20001));
        let error = |about: &str| Packet {
            about: Some(about.parse().unwrap()),
            protocol: 1,
            ..packet("172.30.0.1", Some(20001))
        };
        verdict(&[good.clone(), error("10.10.10.1")], 0).unwrap();
        assert!(verdict(&[good, error("10.60.1.2")], 0).is_err());
    }

    #[test]
    fn others_may_show_their_node_and_answers_the_pod() {
        let good = packet("10.10.10.0", Some(20001));
        let other = packet("172.30.0.1", Some(20500));
        let answer = packet("10.60.1.2", Some(10001));
        verdict(&[good, other, answer], 0).unwrap();
    }
}
