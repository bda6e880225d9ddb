//! The second resolver: what `docs/policies.md` and the documents of Calico and Cilium say, in the order in which they say it, one pod
//! and one destination at a time. It knows nothing of ours.

use std::collections::BTreeSet;
use std::net::IpAddr;

use egret::addr::{Cidr, Family};

use crate::cidr;
use crate::world::{By, Clients, Gateway, Gateways, Kind, NodeWish, Pod, Policy, To, Wish, World};

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Outcome {
    Direct,
    Held,
    /// Seen outside as one of these, and all of them are used.
    Through(BTreeSet<IpAddr>),
    /// So many of these, whichever.
    Some(usize, BTreeSet<IpAddr>),
}

impl Outcome {
    pub(crate) fn admits(&self, other: &Outcome) -> bool {
        match (self, other) {
            (Outcome::Some(n, of), Outcome::Through(these)) => these.len() == *n && these.is_subset(of),
            (all, other) => all == other,
        }
    }
}

/// A rule of a tier; `None`: held. And whether its policy keeps the other family from leaving.
type Rule<'a> = (Cidr, Option<&'a To>, bool);

pub(crate) fn decide(world: &World, pod: &Pod, destination: IpAddr) -> Outcome {
    if pod.host_network {
        return Outcome::Direct;
    }
    let annotated = annotations(world, pod).map(|wish| match wish {
        Wish::Gateways(gateways) => vec![To::Pods(gateways.clone())],
        _ => Vec::new(),
    });
    let tiers = [
        policies(&selecting(world, pod, true)),
        annotations(world, pod).map_or(Vec::new(), |wish| match (wish, annotated.as_deref()) {
            (Wish::Gateways(_), Some([to])) => everywhere(Some(to), true),
            (Wish::Policies(names), _) => {
                let named: Option<Vec<(usize, &Policy)>> =
                    names.iter().map(|n| Some((*n, world.policies.get(*n)?))).collect();
                match named.filter(|named| named.iter().all(|(_, p)| p.kind != Kind::Cilium)) {
                    Some(named) => policies(&named),
                    None => everywhere(None, false),
                }
            }
            _ => everywhere(None, false),
        }),
        policies(&selecting(world, pod, false)),
    ];
    // The first tier with a rule for the destination decides, the longest prefix within it.
    for tier in &tiers {
        let holding = tier.iter().filter(|(cidr, ..)| cidr.contains(destination));
        // A family's whole internet is where the other family's rule may stand in for it, see below.
        if let Some((_, to, _)) = holding.max_by_key(|(cidr, ..)| cidr.prefix()) {
            return to.map_or(Outcome::Held, |to| follow(world, pod, to, Family::of(destination)));
        }
    }
    // Nothing is said of this family's rest, while all of the other goes to gateways: held, unless Cilium's kind said so.
    let whole = |family: Family| {
        tiers.iter().flat_map(move |tier| tier.iter().find(|(cidr, ..)| *cidr == family.everything())).next()
    };
    let other = if Family::of(destination) == Family::V4 { Family::V6 } else { Family::V4 };
    match whole(other) {
        Some((_, Some(To::Pods(_) | To::Nodes(_)), true)) => Outcome::Held,
        _ => Outcome::Direct,
    }
}

/// The pod's annotations replace its namespace's, where pods' are read.
fn annotations<'a>(world: &'a World, pod: &'a Pod) -> Option<&'a Wish> {
    let namespace = world.namespaces.iter().find(|namespace| namespace.name == pod.namespace).unwrap();
    let own = pod.wish.as_ref().filter(|_| !world.namespaces_only);
    own.or(namespace.wish.as_ref())
}

fn everywhere(to: Option<&To>, keeps: bool) -> Vec<Rule<'_>> {
    vec![(cidr("0.0.0.0/0"), to, keeps), (cidr("::/0"), to, keeps)]
}

/// Policies that select the pod by themselves. Cilium's are left out if they cannot be read.
fn selecting<'a>(world: &'a World, pod: &Pod, enforced: bool) -> Vec<(usize, &'a Policy)> {
    let team = world.namespaces.iter().find(|namespace| namespace.name == pod.namespace).unwrap().team;
    let zone = pod.node.and_then(|node| world.nodes[node].zone);
    let is = |wanted: Option<char>, has: Option<char>| wanted.is_none() || wanted == has;
    let all = world.policies.iter().enumerate().filter(|(_, policy)| policy.enforced == enforced);
    all.filter(|(_, policy)| !(policy.kind == Kind::Cilium && policy.garbled))
        .filter(|(_, policy)| {
            let zones: Vec<char> = policy.selections.iter().filter_map(|s| s.zone).collect();
            let pooled = zones.is_empty() || zones.iter().any(|wanted| Some(*wanted) == zone);
            policy.selections.iter().any(|selection| {
                let node = if policy.kind == Kind::Cilium { pooled } else { is(selection.zone, zone) };
                is(selection.app, pod.app) && is(selection.team, team) && node
            })
        })
        .collect()
}

/// Rules of policies of one tier: of one prefix the older's, then the smaller name's. One that cannot be obeyed holds the tier.
fn policies<'a>(policies: &[(usize, &'a Policy)]) -> Vec<Rule<'a>> {
    if policies.iter().any(|(_, policy)| policy.garbled) {
        return everywhere(None, false);
    }
    let mut order = policies.to_vec();
    order.sort_by_key(|(name, policy)| (policy.created.is_none(), policy.created, *name));
    let named = order.iter().flat_map(|(_, policy)| {
        let keeps = policy.kind != Kind::Cilium;
        let excluded = policy.excluded.iter().map(move |cidr| (*cidr, Some(&To::Direct), keeps));
        excluded.chain(policy.rules.iter().map(move |(cidr, to)| (*cidr, Some(to), keeps)))
    });
    // `Deny` is for what none of them names.
    let denied =
        if order.iter().any(|(_, policy)| policy.deny) { everywhere(None, false) } else { Vec::new() };
    let mut rules: Vec<Rule<'a>> = Vec::new();
    for rule in named.chain(denied) {
        if rules.iter().all(|(cidr, ..)| *cidr != rule.0) {
            rules.push(rule);
        }
    }
    rules
}

fn follow(world: &World, pod: &Pod, to: &To, family: Family) -> Outcome {
    match to {
        To::Direct => Outcome::Direct,
        To::Pods(gateways) => through_pods(world, pod, gateways, family),
        To::Nodes(wishes) => through_node(world, pod, wishes, family),
    }
}

fn through_pods(world: &World, pod: &Pod, wanted: &Gateways, family: Family) -> Outcome {
    let index = usize::from(family == Family::V6);
    let team = |namespace: &str| world.namespaces.iter().find(|n| n.name == namespace).unwrap().team;
    let usable = |gateway: &&Gateway| {
        let found = gateway.colour == wanted.colour
            && match wanted.namespaces {
                None => gateway.namespace == pod.namespace,
                Some(None) => true,
                Some(wanted) => team(&gateway.namespace) == wanted,
            };
        let admitted = match world.pools[index] {
            Clients::All => true,
            Clients::OwnNamespace => gateway.namespace == pod.namespace,
            Clients::Team(wanted) => team(&pod.namespace) == Some(wanted),
        };
        found && admitted && gateway.ready && gateway.addresses[index].is_some()
    };
    let mut usable: Vec<&Gateway> = world.gateways.iter().filter(usable).collect();
    if wanted.prefer_local && usable.iter().any(|gateway| Some(gateway.node) == pod.node) {
        usable.retain(|gateway| Some(gateway.node) == pod.node);
    }
    let addresses: BTreeSet<IpAddr> = usable.iter().filter_map(|gateway| gateway.addresses[index]).collect();
    match wanted.most.filter(|most| *most > 0 && *most < addresses.len()) {
        _ if addresses.is_empty() => Outcome::Held,
        Some(most) => Outcome::Some(most, addresses),
        None => Outcome::Through(addresses),
    }
}

fn through_node(world: &World, pod: &Pod, wishes: &[NodeWish], family: Family) -> Outcome {
    // The first by name that matches and has an address of the tunnel's family; without any IPv4 in the cluster there is no IPv4.
    let first = |wish: &NodeWish| {
        world.nodes.iter().find(|node| (wish.zone.is_none() || node.zone == wish.zone) && node.ip.is_some())
    };
    let mut found: Vec<(IpAddr, _, &NodeWish)> =
        wishes.iter().filter_map(|wish| first(wish).map(|node| (node.ip.unwrap(), node, wish))).collect();
    found.sort_by_key(|(ip, ..)| *ip);
    let hash = pod.uid.bytes().fold(2_166_136_261_u32, |h, b| (h ^ u32::from(b)).wrapping_mul(16_777_619));
    let Some((_, node, wish)) = found.get(hash as usize % found.len().max(1)) else { return Outcome::Held };
    let Some(interfaces) = &node.interfaces else { return Outcome::Held };
    let interface = match wish.by {
        By::Interface(n) => Some(&interfaces[n]),
        By::Address(ip) => interfaces.iter().find(|addresses| addresses.contains(&ip)),
        By::DefaultRoute => {
            interfaces.iter().find(|addresses| node.ip.is_some_and(|ip| addresses.contains(&ip)))
        }
    };
    let asked = match wish.by {
        By::Address(ip) if interface.is_some() && Family::of(ip) == family => Some(ip),
        _ => None,
    };
    let derived =
        interface.and_then(|addresses| addresses.iter().copied().find(|ip| Family::of(*ip) == family));
    asked.or(derived).map_or(Outcome::Held, |ip| Outcome::Through(BTreeSet::from([ip])))
}
