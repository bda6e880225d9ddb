//! What a namespace holds of ours, read from the kernel.
//!
//! In: a place and the marks of ownership. Out: a [`State`]. Never: looks at what is not ours further than to see that; changes
//! anything. What the kernel makes of its own accord (link-local addresses, multicast, local and connected routes) is no part of it.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;

use super::netlink::{Refusal, Socket, address, link, neighbour, nexthop, route, rule};
use super::nft;
use super::state::{Address, Fault, Link, LinkKind, Nexthop, Remote, Removal, Route, Scope, State, Via};
use super::{Place, sysctl};
use crate::addr::Family;

/// Why a namespace could not be read.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// Not entered, or no socket in it.
    #[error("cannot work in network namespace {}: {error}; run as root with CAP_NET_ADMIN and CAP_SYS_ADMIN", netns.display())]
    Enter {
        /// The namespace.
        netns: PathBuf,
        /// The system's answer.
        error: io::Error,
    },
    /// A table could not be read.
    #[error("cannot read {what} from the kernel: {refusal}")]
    Read {
        /// Which objects.
        what: &'static str,
        /// The kernel's answer.
        refusal: Refusal,
    },
    /// A setting could not be read.
    #[error("cannot read a kernel setting: {0}")]
    Setting(io::Error),
    /// nftables could not be read.
    #[error("cannot read nftables: {0}")]
    Nft(nft::Error),
    /// The kernel is too old.
    #[error("this kernel has no nexthop objects; Egret needs Linux 5.19 or later")]
    NoNexthops,
}

/// A dump's error with the name of what was read.
pub(super) fn reading(what: &'static str) -> impl Fn(Refusal) -> KernelError {
    move |refusal| KernelError::Read { what, refusal }
}

/// A socket in a namespace, or why not.
pub(super) fn open(netns: &super::Netns) -> Result<Socket, KernelError> {
    Socket::open(netns).map_err(|error| entering(netns, error))
}

pub(super) fn entering(netns: &super::Netns, error: io::Error) -> KernelError {
    KernelError::Enter { netns: netns.path().to_owned(), error }
}

/// Reads everything of ours, and the settings named.
pub fn observe<'a>(
    place: &Place<'_>,
    scope: &Scope,
    settings: impl Iterator<Item = &'a str>,
) -> Result<State, KernelError> {
    let mut socket = open(place.here)?;
    let dump = socket.dump(&link::list()).map_err(reading("devices"))?;
    let devices: Vec<link::Device<'_>> = dump.iter().filter_map(link::read).collect();
    let names: HashMap<u32, &str> = devices.iter().map(|device| (device.index, device.name)).collect();
    let ours: Vec<&link::Device<'_>> = devices.iter().filter(|d| d.group == scope.link_group).collect();

    let mut state = State::default();
    let mut pairs = Pairs::of(place, &mut socket)?;
    for device in &ours {
        links(device, &devices, &mut pairs, &mut state)?;
    }
    if !ours.is_empty() {
        addresses(&mut socket, &ours, &mut state)?;
    }
    for device in &ours {
        neighbours(&mut socket, device, &mut state)?;
    }
    let named = |(index, ip): (u32, IpAddr)| Some(((*names.get(&index)?).to_owned(), ip));
    state.proxies = proxies(&mut socket, scope)?.into_iter().filter_map(named).collect();
    nexthops(&mut socket, scope, &names, &mut state)?;
    for family in Family::BOTH {
        routes(&mut socket, scope, family, &names, &mut state)?;
    }
    rules(&mut socket, scope, &mut state)?;
    state.sysctls = sysctl::read(place.here, settings).map_err(KernelError::Setting)?;
    let tables = place.here.run(|| nft::observe::observe(&scope.tables));
    state.tables = tables.map_err(|e| entering(place.here, e))?.map_err(KernelError::Nft)?;
    Ok(state)
}

/// How to tell what stands at the other end of a device.
enum Pairs {
    /// This namespace is the home namespace itself.
    Same,
    /// Home is another namespace, known here by this id, if by any.
    Apart { home: Socket, id: Option<i32> },
}

impl Pairs {
    fn of(place: &Place<'_>, here: &mut Socket) -> Result<Pairs, KernelError> {
        if place.here == place.home {
            return Ok(Pairs::Same);
        }
        let answer = here.ask(link::netns_id(place.home)).map_err(reading("the home namespace's id"))?;
        let id = answer.iter().find_map(link::read_netns_id);
        Ok(Pairs::Apart { home: open(place.home)?, id })
    }
}

fn links(
    device: &link::Device<'_>,
    all: &[link::Device<'_>],
    pairs: &mut Pairs,
    state: &mut State,
) -> Result<(), KernelError> {
    let kind = match device.kind {
        "vxlan" => tunnel(device, pairs),
        "veth" => veth(device, all, pairs)?,
        _ => None,
    };
    let name = device.name.to_owned();
    match (kind, device.mac) {
        (Some(kind), Some(mac)) => {
            if !device.up {
                state.faults.insert(Fault::Down(name.clone()));
            }
            state.links.insert(name, Link { kind, mac, mtu: device.mtu, arp: device.arp });
        }
        _ => {
            let what = format!(
                "device {name} ({}), which is of our link group but not as we make them",
                device.kind
            );
            state.faults.insert(Fault::Odd { what, removal: Removal::Link(name) });
        }
    }
    Ok(())
}

/// A tunnel is ours only with its socket at home: one that was moved or made from elsewhere sends from the wrong namespace.
fn tunnel(device: &link::Device<'_>, pairs: &Pairs) -> Option<LinkKind> {
    let socket_at_home = match pairs {
        Pairs::Same => device.peer_netns.is_none(),
        Pairs::Apart { id, .. } => device.peer_netns.is_some() && device.peer_netns == *id,
    };
    let vxlan = device.vxlan().filter(|vxlan| socket_at_home && !vxlan.other)?;
    Some(LinkKind::Vxlan { vni: vxlan.vni, port: vxlan.port, local: vxlan.local? })
}

/// In a gateway's namespace a veth's other end is at home; at home it is elsewhere. Where both ends stand in one namespace the
/// one that was asked for is the younger: the kernel registers the other end first.
fn veth(
    device: &link::Device<'_>,
    all: &[link::Device<'_>],
    pairs: &mut Pairs,
) -> Result<Option<LinkKind>, KernelError> {
    let Some(peer) = device.peer else { return Ok(None) };
    match pairs {
        Pairs::Same if device.peer_netns.is_some() || device.index < peer => Ok(Some(LinkKind::VethPeer)),
        Pairs::Same => Ok(all.iter().find(|other| other.index == peer).and_then(veth_to)),
        Pairs::Apart { home, id } if device.peer_netns.is_some() && device.peer_netns == *id => {
            match home.ask(link::by_index(peer)) {
                Ok(answer) => {
                    let kind = answer.iter().find_map(|object| veth_to(&link::read(object)?));
                    Ok(kind)
                }
                Err(refusal) if refusal.is_absence() => Ok(None),
                Err(refusal) => Err(reading("the other end of a veth")(refusal)),
            }
        }
        Pairs::Apart { .. } => Ok(None),
    }
}

fn veth_to(other: &link::Device<'_>) -> Option<LinkKind> {
    Some(LinkKind::Veth { peer: other.name.to_owned(), peer_mac: other.mac? })
}

fn addresses(socket: &mut Socket, ours: &[&link::Device<'_>], state: &mut State) -> Result<(), KernelError> {
    let dump = socket.dump(&address::list(None)).map_err(reading("addresses"))?;
    for found in dump.iter().filter_map(address::read) {
        let Some(device) = ours.iter().find(|device| device.index == found.index) else { continue };
        let (dev, ip) = (device.name.to_owned(), found.ip);
        if found.prefix == Family::of(ip).bits() {
            state.addresses.insert(Address { dev, ip, link_scope: found.link_scope });
        } else if !(ip.is_ipv6() && found.link_scope) {
            // fe80::/64 is what the kernel itself gives to a device; anything else here is ours to clean up.
            let what = format!("address {ip}/{} on {dev}", found.prefix);
            state
                .faults
                .insert(Fault::Odd { what, removal: Removal::Address { dev, ip, prefix: found.prefix } });
        }
    }
    Ok(())
}

fn neighbours(socket: &mut Socket, device: &link::Device<'_>, state: &mut State) -> Result<(), KernelError> {
    let dump = socket.dump(&neighbour::list(device.index)).map_err(reading("neighbours"))?;
    for entry in dump.iter().filter_map(neighbour::read) {
        if let (true, Some(ip), Some(mac)) = (entry.permanent, entry.ip, entry.mac) {
            state.neighbours.insert((device.name.to_owned(), ip), mac);
        }
    }
    let Some(vxlan) = device.vxlan() else { return Ok(()) };
    let dump = socket.dump(&neighbour::list_fdb(device.index)).map_err(reading("forwarding entries"))?;
    for entry in dump.iter().filter_map(neighbour::read) {
        if let (true, true, Some(mac), Some(node)) = (entry.permanent, entry.own, entry.mac, entry.ip) {
            // The kernel leaves the VNI out where it is the device's own.
            let remote = Remote { node, vni: entry.vni.unwrap_or(vxlan.vni) };
            state.fdb.insert((device.name.to_owned(), mac), remote);
        }
    }
    Ok(())
}

/// Proxy neighbours of ours, by their devices' indexes.
pub(super) fn proxies(socket: &mut Socket, scope: &Scope) -> Result<Vec<(u32, IpAddr)>, KernelError> {
    let dump = socket.dump(&neighbour::list_proxies()).map_err(reading("proxy neighbours"))?;
    let entries = dump.iter().filter_map(neighbour::read);
    let ours = entries.filter(|entry| entry.protocol == scope.protocol);
    Ok(ours.filter_map(|entry| Some((entry.index, entry.ip?))).collect())
}

fn nexthops(
    socket: &mut Socket,
    scope: &Scope,
    names: &HashMap<u32, &str>,
    state: &mut State,
) -> Result<(), KernelError> {
    let dump = socket.dump(&nexthop::list()).map_err(|refusal| match refusal.errno {
        libc::EOPNOTSUPP => KernelError::NoNexthops,
        _ => reading("nexthop objects")(refusal),
    })?;
    let objects: Vec<_> = dump.iter().filter_map(nexthop::read).collect();
    let family_of = |id: u32| {
        objects.iter().find(|object| object.id == id).and_then(|object| match &object.shape {
            nexthop::Shape::Via(gateway, _) => Some(Family::of(*gateway)),
            nexthop::Shape::Blackhole(family) => Some(*family),
            nexthop::Shape::Group(_) | nexthop::Shape::Other => None,
        })
    };
    let ours = |o: &&nexthop::Object| o.protocol == scope.protocol && scope.nexthop_ids.contains(&o.id);
    for object in objects.iter().filter(ours) {
        let known = match &object.shape {
            nexthop::Shape::Via(gateway, index) => {
                names.get(index).map(|dev| Nexthop::Via { gateway: *gateway, dev: (*dev).to_owned() })
            }
            nexthop::Shape::Blackhole(family) => Some(Nexthop::Blackhole { family: *family }),
            nexthop::Shape::Group(members) => {
                let family = members.iter().find_map(|id| family_of(*id));
                family.map(|family| Nexthop::Group { family, members: members.iter().copied().collect() })
            }
            nexthop::Shape::Other => None,
        };
        if let Some(known) = known {
            state.nexthops.insert(object.id, known);
        } else {
            let what = format!("nexthop object {}, which is not as we make them", object.id);
            state.faults.insert(Fault::Odd { what, removal: Removal::Nexthop(object.id) });
        }
    }
    Ok(())
}

fn routes(
    socket: &mut Socket,
    scope: &Scope,
    family: Family,
    names: &HashMap<u32, &str>,
    state: &mut State,
) -> Result<(), KernelError> {
    let dump = socket.dump(&route::list(family, scope.protocol)).map_err(reading("routes"))?;
    for object in dump.iter() {
        let Some(known) = route::read(object) else { continue };
        if known.protocol != scope.protocol {
            continue;
        }
        let name = |index: u32| names.get(&index).map(|dev| (*dev).to_owned());
        let via = match known.shape {
            route::Shape::Device(index, source) => name(index).map(|dev| Via::Device { dev, source }),
            route::Shape::Gateway(gateway, index) => name(index).map(|dev| Via::Gateway { gateway, dev }),
            route::Shape::Nexthop(id) => Some(Via::Nexthop(id)),
            route::Shape::Unreachable => Some(Via::Unreachable),
            route::Shape::Other => None,
        };
        let (table, to, metric) = (known.table, known.to, known.metric);
        if let Some(via) = via {
            state.routes.insert(Route { table, to, metric, via });
        } else {
            let what = format!("route {to} table {table} metric {metric}, which is not as we make them");
            let removal = Removal::Route(object.to_vec());
            state.faults.insert(Fault::Odd { what, removal });
        }
    }
    Ok(())
}

fn rules(socket: &mut Socket, scope: &Scope, state: &mut State) -> Result<(), KernelError> {
    let dump = socket.dump(&rule::list()).map_err(reading("policy rules"))?;
    for object in dump.iter() {
        let Some(known) = rule::read(object) else { continue };
        if known.protocol != scope.protocol || !scope.rule_priorities.contains(&known.priority) {
            continue;
        }
        if let Some(rule) = known.rule {
            if !state.rules.insert(rule.clone()) {
                state.faults.insert(Fault::Twice(rule));
            }
        } else {
            let what =
                format!("{} policy rule {}, which is not as we make them", known.family, known.priority);
            let removal = Removal::Rule(object.to_vec());
            state.faults.insert(Fault::Odd { what, removal });
        }
    }
    Ok(())
}
