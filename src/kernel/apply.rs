//! Carries out steps.
//!
//! In: steps in order. Out: which were done and which failed, and why. Never: decides; stops at a failure. What is to be deleted
//! and is not there counts as done: the kernel deletes much of its own accord, and others may be faster.

use std::collections::HashMap;
use std::os::fd::AsFd;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};

use super::netlink::route::Echo;
use super::netlink::{Refusal, Socket, address, link, neighbour, nexthop, route, rule};
use super::observe::{KernelError, open};
use super::state::{Link, LinkKind, Nexthop, Removal, Route, Scope};
use super::step::Step;
use super::{Netns, Place, Report, behind, effect, sysctl};

const MAKE: u16 = NLM_F_CREATE | NLM_F_EXCL;
const MAKE_OR_REPLACE: u16 = NLM_F_CREATE | NLM_F_REPLACE;
const RTM_DELROUTE: u16 = 25;
const RTM_DELRULE: u16 = 33;

/// Carries out the steps one by one.
pub fn apply(place: &Place<'_>, scope: &Scope, steps: &[Step]) -> Result<Report, KernelError> {
    let mut report = Report::default();
    if steps.is_empty() {
        return Ok(report);
    }
    // Tables are loaded another way: a client's ADD is one element of a map, and the socket would be opened for nothing.
    let loads_alone = steps.iter().all(|step| matches!(step, Step::Nft(_)));
    let here = if loads_alone { None } else { Some(open(place.here)?) };
    let mut hands = Hands { place, scope, here, home: None, indexes: HashMap::new() };
    for step in steps {
        crate::fault::pause();
        match hands.carry_out(step) {
            Ok(()) => report.done.push(step.clone()),
            Err(why) => report.failed.push((step.clone(), why)),
        }
    }
    Ok(report)
}

struct Hands<'a> {
    place: &'a Place<'a>,
    scope: &'a Scope,
    here: Option<Socket>,
    /// Opened when first needed: most steps are about one namespace.
    home: Option<Socket>,
    indexes: HashMap<String, u32>,
}

/// Why a step failed: the kernel's refusal, or a sentence of our own.
enum Failure {
    Refused(Refusal),
    Said(String),
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Failure {
        Failure::Refused(refusal)
    }
}

impl Hands<'_> {
    fn carry_out(&mut self, step: &Step) -> Result<(), String> {
        let result = match step {
            Step::RemoveOdd { removal, .. } => gone(self.remove_odd(removal)),
            Step::AddLink { name, link } => self.add_link(name, link),
            Step::ChangeLink { name, from, to } => self.change_link(name, from, to),
            Step::RaiseLink { name, arp } => {
                self.here().and_then(|here| Ok(here.change(link::raise(name, *arp), 0)?))
            }
            Step::DelLink(name) => gone(self.delete_link(name)),
            Step::SetSysctl { path, value } => {
                sysctl::write(self.place.here, path, value).map_err(Failure::Said)
            }
            Step::RestoreSysctl { path, value } => {
                sysctl::restore(self.place.here, path, value).map_err(Failure::Said)
            }
            Step::Nft(change) => match self.place.here.run(|| change.apply()) {
                Ok(applied) => applied.map_err(|e| Failure::Said(e.to_string())),
                Err(error) => Err(Failure::Said(error.to_string())),
            },
            Step::DelAddress(_)
            | Step::DelNeighbour { .. }
            | Step::DelFdb { .. }
            | Step::DelProxy { .. }
            | Step::DelNexthop(_)
            | Step::DelRoute(_)
            | Step::DelRule(_) => gone(self.delete(step)),
            _ => self.add(step),
        };
        result.map_err(|failure| match failure {
            Failure::Said(words) => words,
            Failure::Refused(refusal) => why(step, &refusal),
        })
    }

    fn add(&mut self, step: &Step) -> Result<(), Failure> {
        let protocol = self.scope.protocol;
        match step {
            Step::AddAddress(a) => {
                let index = self.index(&a.dev)?;
                self.here()?.change(address::add(index, a.ip, a.link_scope), MAKE)?;
            }
            Step::SetNeighbour { dev, ip, mac } => {
                let index = self.index(dev)?;
                self.here()?.change(neighbour::set(index, *ip, *mac), MAKE_OR_REPLACE)?;
            }
            Step::SetFdb { dev, mac, remote } => {
                let index = self.index(dev)?;
                self.here()?.change(neighbour::set_fdb(index, *mac, remote), MAKE_OR_REPLACE)?;
            }
            Step::AddProxy { dev, ip } => {
                let index = self.index(dev)?;
                self.here()?.change(neighbour::set_proxy(index, *ip, protocol), MAKE_OR_REPLACE)?;
            }
            Step::AddNexthop { id, nexthop } => self.set_nexthop(*id, nexthop, MAKE)?,
            Step::ReplaceNexthop { id, nexthop } => self.set_nexthop(*id, nexthop, MAKE_OR_REPLACE)?,
            Step::AddRoute(r) => self.set_route(r, MAKE)?,
            Step::ReplaceRoute(r) => self.set_route(r, MAKE_OR_REPLACE)?,
            // Not exclusively: `steps` adds a rule a second time on purpose before it deletes one that looks alike.
            Step::AddRule(r) => self.here()?.change(rule::add(r, protocol), NLM_F_CREATE)?,
            _ => {}
        }
        Ok(())
    }

    fn set_nexthop(&mut self, id: u32, nexthop: &Nexthop, flags: u16) -> Result<(), Failure> {
        let index = match nexthop {
            Nexthop::Via { dev, .. } => self.index(dev)?,
            Nexthop::Group { .. } | Nexthop::Blackhole { .. } => 0,
        };
        let protocol = self.scope.protocol;
        Ok(self.here()?.change(nexthop::set(id, nexthop, index, protocol), flags)?)
    }

    fn set_route(&mut self, route: &Route, flags: u16) -> Result<(), Failure> {
        let index = self.index_of_route(route)?;
        let protocol = self.scope.protocol;
        Ok(self.here()?.change(route::set(route, index, protocol), flags)?)
    }

    fn delete(&mut self, step: &Step) -> Result<(), Failure> {
        let protocol = self.scope.protocol;
        match step {
            Step::DelAddress(a) => {
                let index = self.index(&a.dev)?;
                self.here()?.change(address::delete(index, a.ip, crate::addr::Family::of(a.ip).bits()), 0)?;
            }
            Step::DelNeighbour { dev, ip } => {
                let index = self.index(dev)?;
                self.here()?.change(neighbour::delete(index, *ip), 0)?;
            }
            Step::DelFdb { dev, mac } => {
                let index = self.index(dev)?;
                self.here()?.change(neighbour::delete_fdb(index, *mac), 0)?;
            }
            Step::DelProxy { dev, ip } => {
                let index = self.index(dev)?;
                self.here()?.change(neighbour::delete_proxy(index, *ip), 0)?;
            }
            Step::DelNexthop(id) => self.here()?.change(nexthop::delete(*id), 0)?,
            Step::DelRoute(r) => {
                let index = self.index_of_route(r)?;
                self.here()?.change(route::delete(r, index, protocol), 0)?;
            }
            Step::DelRule(r) => self.here()?.change(rule::delete(r, protocol), 0)?,
            _ => {}
        }
        Ok(())
    }

    fn remove_odd(&mut self, removal: &Removal) -> Result<(), Failure> {
        match removal {
            Removal::Link(name) => self.delete_link(name)?,
            Removal::Address { dev, ip, prefix } => {
                let index = self.index(dev)?;
                self.here()?.change(address::delete(index, *ip, *prefix), 0)?;
            }
            Removal::Nexthop(id) => self.here()?.change(nexthop::delete(*id), 0)?,
            Removal::Route(payload) => {
                self.here()?.change(Echo { kind: RTM_DELROUTE, payload: payload.clone() }, 0)?;
            }
            Removal::Rule(payload) => {
                self.here()?.change(Echo { kind: RTM_DELRULE, payload: payload.clone() }, 0)?;
            }
        }
        Ok(())
    }

    /// Down at first, so that the device gets no link-local address, then up. One device costs three messages, and the other
    /// end of a veth two more.
    fn add_link(&mut self, name: &str, link: &Link) -> Result<(), Failure> {
        self.indexes.remove(name);
        let group = self.scope.link_group;
        match &link.kind {
            LinkKind::Vxlan { vni, port, local } => {
                let target = self.place.here.as_fd();
                let message = link::create_vxlan(name, link, group, (*vni, *port, *local), target);
                self.home()?.change(message, MAKE)?;
            }
            LinkKind::Veth { peer, peer_mac } => {
                let peer_group = (self.place.here != self.place.home).then_some(group);
                let home = self.place.home.as_fd();
                let other = (peer.as_str(), *peer_mac, peer_group);
                self.here()?.change(link::create_veth(name, link, group, other, home), MAKE)?;
                let home = self.home()?;
                silence(home, peer)?;
                home.change(link::raise(peer, link.arp), 0)?;
            }
            LinkKind::VethPeer => {
                return match self.take_in(name, link) {
                    Err(Failure::Refused(refusal)) if refusal.is_absence() => Err(Failure::Said(format!(
                        "there is no device {name}: it is one end of a veth and is made with its gateway's namespace"
                    ))),
                    result => result,
                };
            }
        }
        silence(self.here()?, name)?;
        Ok(self.here()?.change(link::raise(name, link.arp), 0)?)
    }

    fn take_in(&mut self, name: &str, link: &Link) -> Result<(), Failure> {
        let group = self.scope.link_group;
        let here = self.here()?;
        silence(here, name)?;
        Ok(here.change(link::configure(name, link, group), 0)?)
    }

    fn change_link(&mut self, name: &str, from: &Link, to: &Link) -> Result<(), Failure> {
        self.here()?.change(link::change(name, from, to), 0)?;
        if let Some((peer, mac)) = to.new_peer_mac(from) {
            self.home()?.change(link::set_mac(peer, mac), 0)?;
        }
        Ok(())
    }

    fn delete_link(&mut self, name: &str) -> Result<(), Failure> {
        self.indexes.remove(name);
        let calls = open(self.place.here).map_err(|error| Failure::Said(error.to_string()))?;
        Ok(behind::delete_link(self.here()?, calls, name)?)
    }

    fn here(&mut self) -> Result<&mut Socket, Failure> {
        opened(&mut self.here, self.place.here)
    }

    fn home(&mut self) -> Result<&mut Socket, Failure> {
        opened(&mut self.home, self.place.home)
    }

    fn index_of_route(&mut self, route: &Route) -> Result<u32, Failure> {
        effect::device_of(route).map_or(Ok(0), |dev| self.index(dev))
    }

    fn index(&mut self, name: &str) -> Result<u32, Failure> {
        if let Some(index) = self.indexes.get(name) {
            return Ok(*index);
        }
        let answer = self.here()?.ask(link::by_name(name))?;
        let index = answer.iter().find_map(link::read).map(|device| device.index);
        let index = index.ok_or(Refusal { errno: libc::ENODEV, words: String::new() })?;
        self.indexes.insert(name.to_owned(), index);
        Ok(index)
    }
}

fn opened<'s>(socket: &'s mut Option<Socket>, netns: &Netns) -> Result<&'s mut Socket, Failure> {
    let open = |netns| open(netns).map_err(|error| Failure::Said(error.to_string()));
    let socket_there = socket.take().map_or_else(|| open(netns), Ok)?;
    Ok(socket.insert(socket_there))
}

/// A kernel without IPv6 has nothing to silence.
fn silence(socket: &mut Socket, name: &str) -> Result<(), Refusal> {
    match socket.change(link::silence(name), 0) {
        Err(refusal) if [libc::EAFNOSUPPORT, libc::EOPNOTSUPP].contains(&refusal.errno) => Ok(()),
        result => result,
    }
}

fn gone(result: Result<(), Failure>) -> Result<(), Failure> {
    match result {
        Err(Failure::Refused(refusal)) if refusal.is_absence() || lost_nexthop(&refusal) => Ok(()),
        other => other,
    }
}

/// A route goes with its nexthop, and that with its device: a pod's namespace that ends while we look takes them away before we
/// do. The kernel's word for it is EINVAL (net/ipv4/fib_semantics.c, `fib_nh_match`), told apart by its sentence alone.
fn lost_nexthop(refusal: &Refusal) -> bool {
    refusal.errno == libc::EINVAL && refusal.words.contains("Nexthop id does not exist")
}

fn why(step: &Step, refusal: &Refusal) -> String {
    match (refusal.errno, step) {
        (libc::EEXIST, _) => format!("something that is not Egret's is in its place: {refusal}"),
        (libc::EPERM, _) => format!("{refusal}; run as root with CAP_NET_ADMIN"),
        (libc::EOPNOTSUPP, Step::AddLink { link, .. }) => {
            let kind = if matches!(link.kind, LinkKind::Vxlan { .. }) { "vxlan" } else { "veth" };
            format!("this kernel cannot make {kind} devices ({refusal}); is the module `{kind}` there?")
        }
        (libc::ENETDOWN, Step::AddNexthop { nexthop: Nexthop::Via { dev, .. }, .. }) => {
            format!("{refusal}: {dev} or its other end is down")
        }
        _ => refusal.to_string(),
    }
}
