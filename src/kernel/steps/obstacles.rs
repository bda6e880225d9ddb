//! What must go before anything is added: shapes we never make, and keys that collide with what is wanted.
//!
//! In: a [`Plan`] that has no step yet. Out: its first steps. Never: takes away what is only not wanted; that comes last.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::super::effect::device_of;
use super::super::state::{Address, Fault, Link, LinkKind, Nexthop, Route, Via};
use super::super::step::Step;
use super::Plan;
use crate::addr::Family;

/// The table the kernel asks whether an IPv6 gateway is reachable some other way.
pub(super) const MAIN: u32 = 254;

impl Plan<'_> {
    /// What must go before anything is added.
    pub(super) fn clear_the_way(&mut self) {
        for fault in self.observed.faults.clone() {
            match fault {
                Fault::Odd { what, removal } => self.push(Step::RemoveOdd { what, removal }),
                Fault::Twice(rule) => {
                    self.delete_rule(&rule);
                    self.now.faults.remove(&Fault::Twice(rule));
                }
                Fault::Down(_) => {}
            }
        }
        for name in self.links_in_the_way() {
            self.push(Step::DelLink(name));
        }
        for wanted in &self.desired.addresses {
            let other = Address { link_scope: !wanted.link_scope, ..wanted.clone() };
            if self.now.addresses.contains(&other) {
                self.push(Step::DelAddress(other)); // the scope of an address cannot be changed
            }
        }
        for (id, wanted) in &self.desired.nexthops {
            if self.now.nexthops.get(id).is_some_and(|have| kind_of(have) != kind_of(wanted)) {
                self.push(Step::DelNexthop(*id));
            }
        }
        for route in self.routes_in_the_way() {
            self.push(Step::DelRoute(route));
        }
    }

    /// Devices whose kind cannot be changed into what is wanted, and unwanted ones that hold a name or a VNI that is wanted.
    fn links_in_the_way(&self) -> Vec<String> {
        let stays = |name: &String, have: &Link| {
            self.desired.links.get(name).is_some_and(|want| same_kind(&have.kind, &want.kind))
        };
        let new: Vec<(&String, &Link)> = self
            .desired
            .links
            .iter()
            .filter(|(name, _)| !self.now.links.get(*name).is_some_and(|have| stays(name, have)))
            .collect();
        let new_names: BTreeSet<&str> = new.iter().flat_map(|(name, link)| names_of(name, link)).collect();
        let new_tunnels: BTreeSet<(u32, u16)> = new.iter().filter_map(|(_, link)| tunnel_of(link)).collect();
        let in_the_way = |name: &String, have: &Link| {
            names_of(name, have).any(|name| new_names.contains(name))
                || tunnel_of(have).is_some_and(|tunnel| new_tunnels.contains(&tunnel))
        };
        let gone = self.now.links.iter().filter(|(name, have)| !stays(name, have) && in_the_way(name, have));
        gone.map(|(name, _)| name.clone()).collect()
    }

    /// IPv6 refuses a gateway, `onlink` or not, that `main` reaches through another device ("device mismatch"): the host route
    /// of a lease that moves from this node to another must go before its nexthop changes.
    fn routes_in_the_way(&self) -> Vec<Route> {
        let mut gateways: Vec<(IpAddr, &str)> = Vec::new();
        for (id, wanted) in &self.desired.nexthops {
            if let Nexthop::Via { gateway, dev } = wanted
                && self.now.nexthops.get(id) != Some(wanted)
            {
                gateways.push((*gateway, dev));
            }
        }
        for route in self.desired.routes.difference(&self.now.routes) {
            if let Via::Gateway { gateway, dev } = &route.via {
                gateways.push((*gateway, dev));
            }
        }
        gateways.retain(|(gateway, _)| gateway.is_ipv6());
        let mismatch = |route: &Route| {
            let covers = |ip: &IpAddr| route.to.prefix() > 0 && route.to.contains(*ip);
            gateways.iter().any(|(ip, dev)| covers(ip) && device_of(route) != Some(dev))
        };
        let stale = self.now.routes.difference(&self.desired.routes);
        stale.filter(|route| route.table == MAIN && mismatch(route)).cloned().collect()
    }
}

/// What cannot be changed about a nexthop under its id: single or group, discarding or not, and the family.
fn kind_of(nexthop: &Nexthop) -> (u8, Family) {
    match nexthop {
        Nexthop::Via { gateway, .. } => (0, Family::of(*gateway)),
        Nexthop::Group { family, .. } => (1, *family),
        Nexthop::Blackhole { family } => (2, *family),
    }
}

/// Whether one device can be changed into the other in place; the MAC of a veth's other end can.
fn same_kind(have: &LinkKind, want: &LinkKind) -> bool {
    match (have, want) {
        (LinkKind::Veth { peer: have, .. }, LinkKind::Veth { peer: want, .. }) => have == want,
        (have, want) => have == want,
    }
}

fn names_of<'a>(name: &'a str, link: &'a Link) -> impl Iterator<Item = &'a str> {
    let other = match &link.kind {
        LinkKind::Veth { peer, .. } => Some(peer.as_str()),
        LinkKind::Vxlan { .. } | LinkKind::VethPeer => None,
    };
    std::iter::once(name).chain(other)
}

fn tunnel_of(link: &Link) -> Option<(u32, u16)> {
    match link.kind {
        LinkKind::Vxlan { vni, port, .. } => Some((vni, port)),
        LinkKind::Veth { .. } | LinkKind::VethPeer => None,
    }
}
