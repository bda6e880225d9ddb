//! What the kernel does of its own accord when a step is carried out, on a copy of the state.
//!
//! In: a state and a step. Out: the state afterwards. Pure. Steps are planned against this copy: so nothing is deleted that has
//! vanished already, and what the kernel dropped on the way is made again. All of it was seen on kernel 6.18, and the property
//! test in `tests/kernel` runs it against the real one.

use std::net::IpAddr;

use super::state::{Address, Fault, Link, LinkKind, Nexthop, Removal, Route, State, Via};
use super::step::Step;
use super::sysctl;
use crate::addr::Cidr;

/// `main`: the only table whose IPv4 routes go with the address that is their preferred source.
const MAIN: u32 = 254;

/// Carries out a step on the copy.
pub(super) fn carry_out(state: &mut State, step: &Step) {
    match step {
        // Its outcome is the desired tables, which `steps` sets at once.
        Step::Nft(_) => {}
        Step::RemoveOdd { removal, .. } => remove_odd(state, removal),
        Step::AddLink { name, link } => {
            state.links.insert(name.clone(), link.clone());
        }
        Step::ChangeLink { name, to, .. } => change_link(state, name, to),
        Step::RaiseLink { name, .. } => {
            state.faults.remove(&Fault::Down(name.clone()));
        }
        Step::DelLink(name) => lose_link(state, name),
        Step::SetSysctl { path, value } => {
            state.sysctls.insert(path.clone(), value.clone());
        }
        Step::RestoreSysctl { path, .. } => {
            state.sysctls.remove(path);
        }
        Step::AddAddress(address) => {
            state.addresses.insert(address.clone());
        }
        Step::DelAddress(address) => lose_address(state, address),
        Step::SetNeighbour { dev, ip, mac } => {
            state.neighbours.insert((dev.clone(), *ip), *mac);
        }
        Step::DelNeighbour { dev, ip } => {
            state.neighbours.remove(&(dev.clone(), *ip));
        }
        Step::SetFdb { dev, mac, remote } => {
            state.fdb.insert((dev.clone(), *mac), remote.clone());
        }
        Step::DelFdb { dev, mac } => {
            state.fdb.remove(&(dev.clone(), *mac));
        }
        Step::AddNexthop { id, nexthop } | Step::ReplaceNexthop { id, nexthop } => {
            state.nexthops.insert(*id, nexthop.clone());
        }
        Step::DelNexthop(id) => lose_nexthop(state, *id),
        Step::AddRoute(route) | Step::ReplaceRoute(route) => {
            state.routes.retain(|other| place_of(other) != place_of(route));
            state.routes.insert(route.clone());
        }
        Step::DelRoute(route) => {
            state.routes.remove(route);
        }
        Step::AddRule(rule) => {
            state.rules.insert(rule.clone());
        }
        Step::DelRule(rule) => {
            state.rules.remove(rule);
        }
        Step::AddProxy { dev, ip } => {
            state.proxies.insert((dev.clone(), *ip));
        }
        Step::DelProxy { dev, ip } => {
            state.proxies.remove(&(dev.clone(), *ip));
        }
    }
}

/// Where a route stands: two cannot stand in one place.
pub(super) fn place_of(route: &Route) -> (u32, Cidr, u32) {
    (route.table, route.to, route.metric)
}

fn remove_odd(state: &mut State, removal: &Removal) {
    match removal {
        Removal::Link(name) => lose_link(state, name),
        Removal::Nexthop(id) => lose_nexthop(state, *id),
        Removal::Address { dev, ip, .. } => after_address(state, dev, *ip),
        Removal::Route(_) | Removal::Rule(_) => {}
    }
    state.faults.retain(|fault| !matches!(fault, Fault::Odd { removal: other, .. } if other == removal));
}

/// Another MAC, or ARP switched, makes the kernel forget all neighbours of the device, permanent ones too. It is up afterwards.
fn change_link(state: &mut State, name: &str, link: &Link) {
    let forgets = state.links.get(name).is_some_and(|old| (old.mac, old.arp) != (link.mac, link.arp));
    if forgets {
        state.neighbours.retain(|(dev, _), _| dev != name);
    }
    state.links.insert(name.to_owned(), link.clone());
    state.faults.remove(&Fault::Down(name.to_owned()));
}

fn lose_link(state: &mut State, name: &str) {
    let kind = state.links.remove(name).map(|link| link.kind);
    let lost = |dev: &String| dev == name;
    state.neighbours.retain(|(dev, _), _| !lost(dev));
    state.proxies.retain(|(dev, _)| !lost(dev));
    state.fdb.retain(|(dev, _), _| !lost(dev));
    state.sysctls.retain(|path, _| sysctl::device_of(path) != Some(name));
    state.faults.remove(&Fault::Down(name.to_owned()));
    let gone = |nexthop: &Nexthop| matches!(nexthop, Nexthop::Via { dev, .. } if lost(dev));
    let ids: Vec<u32> = state.nexthops.iter().filter(|(_, n)| gone(n)).map(|(id, _)| *id).collect();
    for id in ids {
        lose_nexthop(state, id);
    }
    state.routes.retain(|route| device_of(route) != Some(name));
    let addresses: Vec<Address> = state.addresses.iter().filter(|a| lost(&a.dev)).cloned().collect();
    for address in addresses {
        lose_address(state, &address);
    }
    lose_other_end(state, name, kind.as_ref());
}

/// Both ends of a veth go together; both are ours where a pair stands in one namespace.
fn lose_other_end(state: &mut State, name: &str, kind: Option<&LinkKind>) {
    let other = match kind {
        Some(LinkKind::Veth { peer, .. }) => state.links.contains_key(peer).then(|| peer.clone()),
        Some(LinkKind::VethPeer) => {
            let ends_here = |kind: &LinkKind| matches!(kind, LinkKind::Veth { peer, .. } if peer == name);
            state.links.iter().find(|(_, link)| ends_here(&link.kind)).map(|(name, _)| name.clone())
        }
        _ => None,
    };
    if let Some(other) = other {
        lose_link(state, &other);
    }
}

fn lose_address(state: &mut State, address: &Address) {
    state.addresses.remove(address);
    after_address(state, &address.dev, address.ip);
}

/// The last IPv4 address of a device takes the device's plain IPv4 routes, neighbours and proxies with it (nexthop objects and
/// the routes through them stay). An address that is nowhere left takes the IPv4 routes of `main` that prefer it as source;
/// IPv6 routes of its own device only lose the preference.
fn after_address(state: &mut State, name: &str, ip: IpAddr) {
    if ip.is_ipv4() && !state.addresses.iter().any(|a| a.dev == name && a.ip.is_ipv4()) {
        state.routes.retain(|route| !(route.to.first().is_ipv4() && device_of(route) == Some(name)));
        state.neighbours.retain(|(dev, ip), _| !(dev == name && ip.is_ipv4()));
        state.proxies.retain(|(dev, ip)| !(dev == name && ip.is_ipv4()));
    }
    let elsewhere = state.addresses.iter().any(|a| a.ip == ip);
    let prefers = |route: &Route| matches!(&route.via, Via::Device { source, .. } if *source == Some(ip));
    if ip.is_ipv4() && !elsewhere {
        state.routes.retain(|route| !(route.table == MAIN && prefers(route)));
    }
    if ip.is_ipv6() {
        let changed: Vec<Route> =
            state.routes.iter().filter(|r| prefers(r) && device_of(r) == Some(name)).cloned().collect();
        for mut route in changed {
            state.routes.remove(&route);
            route.via = Via::Device { dev: name.to_owned(), source: None };
            state.routes.insert(route);
        }
    }
}

/// A group loses the member; without members it goes too; routes go with the object they use.
fn lose_nexthop(state: &mut State, id: u32) {
    state.nexthops.remove(&id);
    state.routes.retain(|route| route.via != Via::Nexthop(id));
    let mut empty = Vec::new();
    for (group, nexthop) in &mut state.nexthops {
        if let Nexthop::Group { members, .. } = nexthop
            && members.remove(&id)
            && members.is_empty()
        {
            empty.push(*group);
        }
    }
    for group in empty {
        lose_nexthop(state, group);
    }
}

/// The device a route names itself, not through a nexthop object.
pub(super) fn device_of(route: &Route) -> Option<&str> {
    match &route.via {
        Via::Device { dev, .. } | Via::Gateway { dev, .. } => Some(dev),
        Via::Nexthop(_) | Via::Unreachable => None,
    }
}
