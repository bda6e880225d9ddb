//! One change to one object, as a value: printed as the `ip` command line that would do the same.
//!
//! In: made by [`steps`](fn@super::steps). Out: carried out by [`apply`](fn@super::apply), shown by `--dry-run` and CHECK.
//! The printed form leaves out what every object of ours has (protocol number, link group).

use std::fmt;
use std::net::IpAddr;

use serde::{Serialize, Serializer};

use super::state::{Action, Address, Link, LinkKind, Match, Nexthop, Remote, Removal, Route, Rule, Via};
use crate::addr::{Family, Mac};
use crate::kernel::nft::diff::Change;

/// A change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Removes something of ours that has a shape we never make.
    RemoveOdd {
        /// What it is.
        what: String,
        /// How.
        removal: Removal,
    },
    /// Makes a device, up; or takes the home end of a veth, which another namespace's reconcile made, into our group.
    AddLink {
        /// Device name.
        name: String,
        /// What it shall be.
        link: Link,
    },
    /// Changes MAC, MTU or ARP of a device in place; only what differs, because setting the same MAC once more already makes
    /// the kernel forget the device's neighbours.
    ChangeLink {
        /// Device name.
        name: String,
        /// What it is.
        from: Link,
        /// What it shall be.
        to: Link,
    },
    /// Brings a device up.
    RaiseLink {
        /// Device name.
        name: String,
        /// With ARP, or without.
        arp: bool,
    },
    /// Deletes a device, and everything that hangs on it.
    DelLink(String),
    /// Writes a kernel setting.
    SetSysctl {
        /// Path below `/proc/sys`.
        path: String,
        /// New value.
        value: String,
    },
    /// Writes back what a kernel setting was before us.
    RestoreSysctl {
        /// Path below `/proc/sys`.
        path: String,
        /// The old value.
        value: String,
    },
    /// Changes our nftables tables, in one transaction.
    Nft(Change),
    /// Puts an address on a device.
    AddAddress(Address),
    /// Takes an address off a device.
    DelAddress(Address),
    /// Makes or replaces a permanent neighbour.
    SetNeighbour {
        /// Device name.
        dev: String,
        /// Its address.
        ip: IpAddr,
        /// Its MAC.
        mac: Mac,
    },
    /// Forgets a neighbour.
    DelNeighbour {
        /// Device name.
        dev: String,
        /// Its address.
        ip: IpAddr,
    },
    /// Makes or replaces a forwarding entry.
    SetFdb {
        /// Device name.
        dev: String,
        /// Inner destination.
        mac: Mac,
        /// Outer destination.
        remote: Remote,
    },
    /// Deletes a forwarding entry.
    DelFdb {
        /// Device name.
        dev: String,
        /// Inner destination.
        mac: Mac,
    },
    /// Makes a nexthop object.
    AddNexthop {
        /// Its id.
        id: u32,
        /// What it does.
        nexthop: Nexthop,
    },
    /// Replaces a nexthop object in place, under the routes and groups that use it.
    ReplaceNexthop {
        /// Its id.
        id: u32,
        /// What it does from now on.
        nexthop: Nexthop,
    },
    /// Deletes a nexthop object.
    DelNexthop(u32),
    /// Makes a route where there is none.
    AddRoute(Route),
    /// Replaces a route of ours in place.
    ReplaceRoute(Route),
    /// Deletes a route.
    DelRoute(Route),
    /// Adds a policy rule behind those of its priority.
    AddRule(Rule),
    /// Deletes the first policy rule that fits.
    DelRule(Rule),
    /// Answers for an address on a device.
    AddProxy {
        /// Device name.
        dev: String,
        /// The address answered for.
        ip: IpAddr,
    },
    /// Answers no longer.
    DelProxy {
        /// Device name.
        dev: String,
        /// The address answered for.
        ip: IpAddr,
    },
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::RemoveOdd { what, .. } => write!(f, "remove {what}"),
            Step::AddLink { name, link: Link { kind: LinkKind::VethPeer, mac, mtu, arp } } => {
                write!(f, "ip link set {name} address {mac} mtu {mtu}{} up", no_arp(*arp))
            }
            Step::AddLink { name, link } => write!(f, "ip link add {name} {}", device(link)),
            Step::ChangeLink { name, from, to } => f.write_str(&change_line(name, from, to)),
            Step::RaiseLink { name, .. } => write!(f, "ip link set {name} up"),
            Step::DelLink(name) => write!(f, "ip link del {name}"),
            Step::SetSysctl { path, value } => write!(f, "sysctl -w {path}=\"{value}\""),
            Step::RestoreSysctl { path, value } => {
                write!(f, "sysctl -w {path}=\"{value}\" (as it was before)")
            }
            Step::Nft(change) => {
                let lines: Vec<String> = change.commands.iter().map(ToString::to_string).collect();
                write!(f, "nft {}", lines.join("; "))
            }
            Step::AddAddress(address) => write!(f, "ip address add {}", address_on(address)),
            Step::DelAddress(address) => write!(f, "ip address del {}", address_on(address)),
            Step::SetNeighbour { dev, ip, mac } => {
                write!(f, "ip neigh replace {ip} lladdr {mac} dev {dev} nud permanent")
            }
            Step::DelNeighbour { dev, ip } => write!(f, "ip neigh del {ip} dev {dev}"),
            Step::SetFdb { dev, mac, remote } => {
                write!(f, "bridge fdb replace {mac} dev {dev} dst {} vni {}", remote.node, remote.vni)
            }
            Step::DelFdb { dev, mac } => write!(f, "bridge fdb del {mac} dev {dev}"),
            Step::AddNexthop { id, nexthop } => write!(f, "ip {}", nexthop_line("add", *id, nexthop)),
            Step::ReplaceNexthop { id, nexthop } => write!(f, "ip {}", nexthop_line("replace", *id, nexthop)),
            Step::DelNexthop(id) => write!(f, "ip nexthop del id {id}"),
            Step::AddRoute(route) => write!(f, "ip {}", route_line("add", route)),
            Step::ReplaceRoute(route) => write!(f, "ip {}", route_line("replace", route)),
            Step::DelRoute(route) => write!(f, "ip {}", route_line("del", route)),
            Step::AddRule(rule) => write!(f, "ip {}", rule_line("add", rule)),
            Step::DelRule(rule) => write!(f, "ip {}", rule_line("del", rule)),
            Step::AddProxy { dev, ip } => write!(f, "ip neigh add proxy {ip} dev {dev}"),
            Step::DelProxy { dev, ip } => write!(f, "ip neigh del proxy {ip} dev {dev}"),
        }
    }
}

/// Steps for a line of a log or an answer to a runtime: the first eight, each in short, and how many more there are.
pub fn in_short<'a>(steps: impl IntoIterator<Item = &'a Step>) -> String {
    const SHOWN: usize = 8;
    let mut steps = steps.into_iter();
    let mut shown: Vec<String> = steps.by_ref().take(SHOWN).map(Step::in_short).collect();
    match steps.count() {
        0 => {}
        more => shown.push(format!("{more} more")),
    }
    shown.join("; ")
}

/// A step as it prints, cut where it is too long to be read.
pub fn cut(whole: String) -> String {
    const SHOWN: usize = 160;
    if whole.len() <= SHOWN { whole } else { format!("{}{CUT}", &whole[..whole.floor_char_boundary(SHOWN)]) }
}

/// How a step ends that was cut.
pub const CUT: &str = " …";

impl Step {
    /// As it prints, cut: a table in one transaction is pages long, and who reads an error wants to know what stood in the way.
    pub fn in_short(&self) -> String {
        cut(self.to_string())
    }

    /// Whether the namespace must have been looked at before: devices and settings are others' as well, and go of themselves.
    pub fn needs_a_look(&self) -> bool {
        matches!(
            self,
            Step::RemoveOdd { .. }
                | Step::AddLink { .. }
                | Step::ChangeLink { .. }
                | Step::RaiseLink { .. }
                | Step::DelLink(_)
                | Step::SetSysctl { .. }
                | Step::RestoreSysctl { .. }
        )
    }

    /// Whether it changes single elements of sets and maps and nothing else, which costs microseconds.
    pub fn is_elements_only(&self) -> bool {
        matches!(self, Step::Nft(change) if change.elements_only().is_some())
    }
}

impl Serialize for Step {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

fn device(link: &Link) -> String {
    let Link { kind, mac, mtu, arp } = link;
    let rest = format!("address {mac} mtu {mtu}{} up", no_arp(*arp));
    match kind {
        LinkKind::Vxlan { vni, port, local } => {
            format!("type vxlan id {vni} dstport {port} local {local} nolearning {rest}")
        }
        LinkKind::Veth { peer, peer_mac } => format!("type veth peer name {peer} address {peer_mac} {rest}"),
        LinkKind::VethPeer => rest,
    }
}

fn change_line(name: &str, from: &Link, to: &Link) -> String {
    let mut line = format!("ip link set {name}");
    if from.mac != to.mac {
        line += &format!(" address {}", to.mac);
    }
    if from.mtu != to.mtu {
        line += &format!(" mtu {}", to.mtu);
    }
    if from.arp != to.arp {
        line += if to.arp { " arp on" } else { " arp off" };
    }
    line += " up";
    match to.new_peer_mac(from) {
        Some((peer, mac)) => format!("{line}; ip link set {peer} address {mac}"),
        None => line,
    }
}

fn no_arp(arp: bool) -> &'static str {
    if arp { "" } else { " arp off" }
}

fn address_on(address: &Address) -> String {
    let scope = if address.link_scope { " scope link" } else { "" };
    format!("{}/{} dev {}{scope}", address.ip, Family::of(address.ip).bits(), address.dev)
}

fn six(family: Family) -> &'static str {
    match family {
        Family::V4 => "",
        Family::V6 => "-6 ",
    }
}

fn nexthop_line(verb: &str, id: u32, nexthop: &Nexthop) -> String {
    match nexthop {
        Nexthop::Via { gateway, dev } => format!("nexthop {verb} id {id} via {gateway} dev {dev} onlink"),
        Nexthop::Group { members, .. } => {
            let members: Vec<String> = members.iter().map(ToString::to_string).collect();
            format!("nexthop {verb} id {id} group {}", members.join("/"))
        }
        Nexthop::Blackhole { family } => format!("{}nexthop {verb} id {id} blackhole", six(*family)),
    }
}

fn route_line(verb: &str, route: &Route) -> String {
    let family = route.to.family();
    let to = if route.to == family.everything() { "default".to_owned() } else { route.to.to_string() };
    let metric = if route.metric == 0 { String::new() } else { format!(" metric {}", route.metric) };
    let (kind, way) = match &route.via {
        Via::Device { dev, source: None } => ("", format!(" dev {dev}")),
        Via::Device { dev, source: Some(source) } => ("", format!(" dev {dev} src {source}")),
        Via::Gateway { gateway, dev } => ("", format!(" via {gateway} dev {dev} onlink")),
        Via::Nexthop(id) => ("", format!(" nhid {id}")),
        Via::Unreachable => ("unreachable ", String::new()),
    };
    format!("{}route {verb} {kind}{to}{way} table {}{metric}", six(family), route.table)
}

fn rule_line(verb: &str, rule: &Rule) -> String {
    let matches = match &rule.matches {
        Match::Mark { value, mask } => format!("fwmark {value:#x}/{mask:#x}"),
        Match::NotMark { value, mask } => format!("not fwmark {value:#x}/{mask:#x}"),
        Match::Input(device) => format!("iif {device}"),
        Match::From(ip) => format!("from {ip}"),
    };
    let does = match rule.action {
        Action::Lookup(table) => format!("lookup {table}"),
        Action::Unreachable => "unreachable".to_owned(),
        Action::Goto(priority) => format!("goto {priority}"),
        Action::Nop => "nop".to_owned(),
    };
    format!("{}rule {verb} pref {} {matches} {does}", six(rule.family), rule.priority)
}
