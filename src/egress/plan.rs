//! What one node must hold, as a value: the plan. It is kept on disk, so that DEL needs no objects and CHECK can compare.
//!
//! In: made by `planning::plan`, or read back from the node's own file. Out: lowered to kernel words by `lower` and
//! `gateway_state`; edited by one attachment at a time. Never: decides who may use what; that was `resolve`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use serde::{Deserialize, Serialize};

use crate::addr::{Cidr, Family, Mac};
pub use crate::egress::here::{Door, Here, Uplink};
use crate::egress::model::PodName;
use crate::egress::numbers;
use crate::egress::own_address::OwnAddresses;
use crate::egress::peers::Peers;

/// A pod wired on this node, as its attachment record says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalPod {
    /// `NETWORK/CONTAINERID/IFNAME`.
    pub attachment: String,
    /// The pod, where a name is known.
    pub pod: Option<PodName>,
    /// Its addresses on our interface.
    pub addresses: Vec<IpAddr>,
    /// The subnets that its primary plugin put it in: other pods, so inside.
    pub networks: Vec<Cidr>,
}

/// Desired state of one node in the words of egress.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodePlan {
    /// What the node is.
    pub here: Here,
    /// Every node that may send or receive tunnel traffic, this one too.
    pub nodes: Peers,
    /// Addresses at which nodes of gateways are reached, this one too, that are not in `nodes`: no Node object names them, or they have no number.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub unnamed: BTreeSet<IpAddr>,
    /// Client addresses. The only state per pod.
    pub clients: BTreeMap<IpAddr, Client>,
    /// Bindings by chain name.
    pub bindings: BTreeMap<String, Binding>,
    /// Gateways that this node's clients use or have live flows on, by number.
    pub gateways: BTreeMap<u32, Gateway>,
    /// Gateway sets by mark number.
    pub sets: BTreeMap<u8, BTreeSet<u32>>,
    /// Pod gateways that run on this node, by attachment.
    pub locals: BTreeMap<String, LocalGateway>,
    /// Node gateways of this very node, by index.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub exits: BTreeMap<u16, Exit>,
    /// Destinations that never go to a gateway.
    pub inside: BTreeSet<Cidr>,
}

/// A node on the wire.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// Its number, 1–0x3fff.
    pub number: u16,
    /// Its four wire bytes.
    pub wire: Ipv4Addr,
    /// Its underlay addresses.
    pub underlay: Vec<IpAddr>,
}

/// A client address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Client {
    /// Whose it is.
    pub attachment: String,
    /// Its binding's chain.
    pub binding: String,
}

/// One distinct set of rules.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Binding {
    /// The rules as written; what the chain's name is the hash of.
    pub key: String,
    /// Destination → verdict; the longest prefix wins; none: direct.
    pub rules: BTreeMap<Cidr, Verdict>,
}

/// What a binding does with a destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Verdict {
    /// As if we were not there.
    Direct,
    /// Refused and told so.
    Held,
    /// To the gateway set with this mark number.
    Set(u8),
}

/// A gateway as a client node sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gateway {
    /// Its attachment.
    pub attachment: String,
    /// Its MAC on the wire.
    pub mac: Mac,
    /// Its egress addresses, at most one per family.
    pub addresses: Vec<IpAddr>,
    /// How to reach it.
    pub place: Place,
    /// Whether it takes new flows; a draining one keeps those it has.
    pub takes_new_flows: bool,
}

impl Gateway {
    /// Its egress address of a family.
    pub fn address(&self, family: Family) -> Option<IpAddr> {
        self.addresses.iter().copied().find(|ip| Family::of(*ip) == family)
    }

    /// The next hops that stand for it, one per address.
    pub fn next_hops(&self) -> impl Iterator<Item = IpAddr> {
        self.addresses.iter().map(|ip| numbers::gateway_next_hop(self.mac, *ip))
    }
}

/// Where a gateway is, seen from this node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Place {
    /// On this node, behind a veth; pinned packets find it by this mark number.
    Local {
        /// The node's end of the veth.
        veth: String,
        /// Mark number, 0x60–0x7d.
        slot: u8,
    },
    /// This very node: no tunnel, no veth.
    Exit {
        /// Index among this node's gateways.
        index: u16,
    },
    /// On another node, through the tunnel.
    Remote {
        /// Underlay address of that node, of the tunnel's family.
        underlay: IpAddr,
        /// VNI of its device.
        vni: u32,
    },
}

/// A pod gateway on this node, as far as its own wiring goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocalGateway {
    /// The node's end of its veth.
    pub veth: String,
    /// VNI of its VXLAN device.
    pub vni: u32,
    /// Its MAC on the wire.
    pub mac: Mac,
    /// Its egress addresses.
    pub addresses: Vec<IpAddr>,
    /// Devices on which each address is announced.
    pub announced: BTreeSet<(String, IpAddr)>,
    /// Leases of pools with `natOutgoing`, each with the node's address that the outside sees instead; without one, what carries the
    /// lease is dropped.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub hidden: BTreeMap<IpAddr, Option<IpAddr>>,
    /// Which of the addresses are the pod's own, and where it has them. `None`: all are leased.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub own: Option<OwnAddresses>,
}

/// A gateway that this node itself is: who it is on the wire, and how its packets leave.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// Its key (`NodeGateway::key`).
    pub key: String,
    /// Its MAC on the wire.
    pub mac: Mac,
    /// Interface it leaves by, and by no other.
    pub interface: String,
    /// Addresses it leaves with that the interface really has, at most one per family. A family without is dropped here.
    pub addresses: Vec<IpAddr>,
    /// Mark number of the interface.
    pub slot: u8,
}

impl NodePlan {
    /// A plan of a node that has nothing to do.
    pub fn empty(here: Here) -> NodePlan {
        NodePlan {
            here,
            nodes: Peers::default(),
            unnamed: BTreeSet::new(),
            clients: BTreeMap::new(),
            bindings: BTreeMap::new(),
            gateways: BTreeMap::new(),
            sets: BTreeMap::new(),
            locals: BTreeMap::new(),
            exits: BTreeMap::new(),
            inside: BTreeSet::new(),
        }
    }

    /// Whether there is nothing to hold in the kernel: no client and no gateway here.
    pub fn is_idle(&self) -> bool {
        self.clients.is_empty() && self.locals.is_empty() && self.exits.is_empty()
    }

    /// What a flow of this node's clients carries in its connection mark, shifted, once it has gone by a gateway: the gateway's number,
    /// or what this node's own gateways write.
    pub fn pin(&self, number: u32, gateway: &Gateway) -> u32 {
        match gateway.place {
            Place::Exit { index } => {
                let own = self.nodes.get(&self.here.node).map_or(0, |peer| peer.number);
                (numbers::exit_mark(index) | numbers::client_mark(own)) >> numbers::PIN_SHIFT
            }
            Place::Local { .. } | Place::Remote { .. } => number,
        }
    }

    /// Mark numbers of the interfaces by which this node's own gateways leave.
    pub fn doors(&self) -> BTreeMap<&str, u8> {
        self.exits.values().map(|exit| (exit.interface.as_str(), exit.slot)).collect()
    }

    /// This plan with a client's addresses bound to a binding that it already has; `None` when it has not.
    pub fn with_client(&self, pod: &LocalPod, binding: &str) -> Option<NodePlan> {
        let mut next = self.clone();
        if !next.bind(pod, binding) {
            return None;
        }
        next.sweep();
        Some(next)
    }

    /// The same in place, for many, and without the last step: [`NodePlan::sweep`] follows. `false`: nothing was changed.
    pub(crate) fn bind(&mut self, pod: &LocalPod, binding: &str) -> bool {
        if !self.bindings.contains_key(binding) || !pod.networks.iter().all(|net| self.is_inside(*net)) {
            return false;
        }
        self.drop_client(&pod.attachment);
        for ip in &pod.addresses {
            let client = Client { attachment: pod.attachment.clone(), binding: binding.to_owned() };
            self.clients.insert(*ip, client);
        }
        true
    }

    /// Whether an attachment or an address of a pod is anywhere in it: a client's, a gateway's, here or elsewhere.
    pub fn names(&self, name: &str) -> bool {
        let ip: Option<IpAddr> = name.parse().ok();
        let is_of = |all: &[IpAddr]| ip.is_some_and(|ip| all.contains(&ip));
        self.concerns(name)
            || ip.is_some_and(|ip| self.clients.contains_key(&ip))
            || self.gateways.values().any(|gateway| gateway.attachment == name || is_of(&gateway.addresses))
            || self.locals.values().any(|local| {
                is_of(&local.addresses)
                    || local.own.as_ref().is_some_and(|own| ip.is_some_and(|ip| own.addresses.contains(&ip)))
            })
    }

    /// Whether anything here is of this attachment: a client, or a gateway of this node.
    pub fn concerns(&self, attachment: &str) -> bool {
        self.locals.contains_key(attachment)
            || self.clients.values().any(|client| client.attachment == attachment)
    }

    /// This plan without anything of one attachment: as a client, and as a gateway of this node. A gateway that is gone has
    /// failed: it leaves sets and maps at once, and a set that loses its last member holds its clients.
    #[must_use]
    pub fn without(&self, attachment: &str) -> NodePlan {
        let mut next = self.clone();
        next.drop_client(attachment);
        next.locals.remove(attachment);
        let gone: Vec<u32> =
            next.gateways.iter().filter(|(_, g)| g.attachment == attachment).map(|(n, _)| *n).collect();
        for number in gone {
            next.gateways.remove(&number);
            next.sets.values_mut().for_each(|members| {
                members.remove(&number);
            });
        }
        next.hold_what_has_no_gateway();
        next.sweep();
        next
    }

    pub(crate) fn drop_client(&mut self, attachment: &str) {
        self.clients.retain(|_, client| client.attachment != attachment);
    }

    fn is_inside(&self, net: Cidr) -> bool {
        self.inside.iter().any(|inside| inside.covers(net))
    }

    /// A set without members for a rule's family cannot be routed: the rule becomes Held.
    pub(crate) fn hold_what_has_no_gateway(&mut self) {
        let served = |set: &u8, family: Family| {
            self.sets.get(set).is_some_and(|members| {
                members.iter().filter_map(|n| self.gateways.get(n)).any(|g| g.address(family).is_some())
            })
        };
        for binding in self.bindings.values_mut() {
            for (prefix, verdict) in &mut binding.rules {
                if let Verdict::Set(set) = verdict
                    && !served(set, prefix.family())
                {
                    *verdict = Verdict::Held;
                }
            }
        }
    }

    /// Drops bindings without clients, sets without bindings, and gateways that take new flows but are in no set. A draining
    /// gateway stays: it has flows.
    pub(crate) fn sweep(&mut self) {
        let used: BTreeSet<&String> = self.clients.values().map(|c| &c.binding).collect();
        self.bindings.retain(|chain, _| used.contains(chain));
        self.sweep_sets();
    }

    /// The same where it is known that every binding has clients.
    pub(crate) fn sweep_sets(&mut self) {
        let sets: BTreeSet<u8> =
            self.bindings.values().flat_map(|b| b.rules.values()).filter_map(set_of).collect();
        self.sets.retain(|mark, _| sets.contains(mark));
        let members: BTreeSet<u32> = self.sets.values().flatten().copied().collect();
        let draining = !self.clients.is_empty();
        self.gateways
            .retain(|number, gateway| members.contains(number) || (draining && !gateway.takes_new_flows));
    }
}

fn set_of(verdict: &Verdict) -> Option<u8> {
    match verdict {
        Verdict::Set(mark) => Some(*mark),
        Verdict::Direct | Verdict::Held => None,
    }
}

/// Name of a binding's chain: a stable hash of its rules as written, so that equal rules find the same chain on every node
/// and after every restart.
pub fn binding_chain(key: &str) -> String {
    format!("binding_{:016x}", fnv64(key))
}

/// Name of the node's end of a gateway's veth.
pub fn veth_name(attachment: &str) -> String {
    format!("{}{:09x}", numbers::VETH_PREFIX, fnv64(attachment) & 0xf_ffff_ffff)
}

/// 64-bit FNV-1a: stable between builds, which Rust's own hasher is not.
fn fnv64(text: &str) -> u64 {
    text.bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}
