//! Gateways whose egress address is the pod's own (`source: PodAddress`): nothing is leased, and the primary network routes the
//! answers.
//!
//! In: a gateway's wish and its pod's addresses; an endpoint; a gateway of the plan. Out: whether an own address serves, and the rules
//! by which a node leaves it alone. Never: looks at a kernel. What the gateway's own namespace needs for it says `gateway_state`.

use std::collections::BTreeSet;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::addr::Family;
use crate::egress::belts::Belts;
use crate::egress::gateway::GatewayWish;
use crate::egress::lower_nft::{WITHOUT_ENTRY, digit, rule, word};
use crate::egress::model::{EgressAddress, Endpoint, Pool, PoolKind, PoolSource, View};
use crate::egress::plan::LocalGateway;
use crate::kernel::nft::table::Rule;

impl GatewayWish {
    /// What a family gets without a lease: the pod's own address. `own` are its addresses; `lease` are the pools, of those wished,
    /// that lease. A pool of pods' own addresses counts from its place in the order of preference: behind one that leases it is
    /// for when that one is full.
    pub fn own_address(&self, view: &View, family: Family, own: &[IpAddr]) -> OwnAddress {
        let pools = self.pools.get(&family).into_iter().flatten().filter_map(|name| view.pools.get(name));
        let pools: Vec<&Pool> = pools.collect();
        let serves = |pool: &&Pool| {
            let ip = own.iter().copied().find(|ip| pool.cidr.contains(*ip))?;
            let asked = self.addresses.get(&family).is_none_or(|asked| *asked == ip);
            // Whoever takes pods' addresses from a range, Egret must not lease from it: Calico's pools are that in Calico.
            let own = pool.source == PoolSource::PodAddress || pool.kind == PoolKind::IPPool;
            (own && asked && !pool.disabled).then(|| EgressAddress::of_the_pod(ip, pool.name.as_str()))
        };
        let found = pools.iter().enumerate().find_map(|(at, pool)| Some((at, serves(pool)?)));
        let lease = pools.iter().position(|pool| pool.source.is_pool());
        match (found, lease) {
            (Some((at, address)), Some(first)) if at > first => OwnAddress::InNeed(address),
            (Some((_, address)), _) => OwnAddress::First(address),
            (None, Some(_)) => OwnAddress::No,
            (None, None) => OwnAddress::Nowhere(not_its_own(&pools, own, family)),
        }
    }
}

/// Whether a gateway's own address is the one that its clients leave with.
#[derive(Debug, Clone, PartialEq)]
pub enum OwnAddress {
    /// It is.
    First(EgressAddress),
    /// If no lease is to be had.
    InNeed(EgressAddress),
    /// No: an address is leased.
    No,
    /// It would have to be, and is not in the pools. The sentence says so.
    Nowhere(String),
}

fn not_its_own(pools: &[&Pool], own: &[IpAddr], family: Family) -> String {
    let pools: Vec<String> = pools
        .iter()
        .map(|pool| {
            let disabled = if pool.disabled { ", disabled" } else { "" };
            format!("`{}` ({}{disabled})", pool.name, pool.cidr)
        })
        .collect();
    let own: Vec<String> =
        own.iter().filter(|ip| Family::of(**ip) == family).map(ToString::to_string).collect();
    let own = if own.is_empty() { format!("no {family} address") } else { own.join(" and ") };
    format!(
        "the pod has {own}, and must have an address of pool {} to be a gateway of it, because the pool leases none (source PodAddress): \
         let the primary network give the pod one of that range, or name another pool",
        pools.join(" or ")
    )
}

/// Addresses of a gateway that the primary plugin gave its pod (`source: PodAddress`). What its clients send leaves as the pod's
/// own traffic does, and the primary routes the answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnAddresses {
    /// The primary's interface in the pod.
    pub device: String,
    /// At most one per family, never empty.
    pub addresses: BTreeSet<IpAddr>,
}

impl LocalGateway {
    /// Whether an address is the pod's own.
    pub fn is_own(&self, ip: IpAddr) -> bool {
        self.own.as_ref().is_some_and(|own| own.addresses.contains(&ip))
    }

    /// Whether the family's address is the pod's own.
    pub fn owns(&self, family: Family) -> bool {
        self.addresses.iter().any(|ip| Family::of(*ip) == family && self.is_own(*ip))
    }

    /// The addresses that were leased.
    pub fn leases(&self) -> impl Iterator<Item = IpAddr> {
        self.addresses.iter().copied().filter(|ip| !self.is_own(*ip))
    }
}

impl OwnAddresses {
    /// Those of an endpoint that the primary plugin gave the pod. An attachment ends in the interface that was wired.
    pub fn of(endpoint: &Endpoint) -> Option<OwnAddresses> {
        let own = endpoint.addresses.iter().filter(|address| address.source == PoolSource::PodAddress);
        let addresses: BTreeSet<IpAddr> = own.map(|address| address.ip).collect();
        let device = endpoint.attachment.rsplit('/').next().unwrap_or_default().to_owned();
        (!addresses.is_empty()).then_some(OwnAddresses { device, addresses })
    }
}

/// The address that a gateway's pod has of its primary is not masqueraded where it leaves the cluster. What the pod itself sends
/// there cannot be told from what its clients send, and keeps it too. Inside nothing is touched: a Service may need its own NAT.
pub(super) fn kept(gateway: &LocalGateway) -> impl Iterator<Item = Rule> {
    let own = gateway.own.iter().flat_map(|own| &own.addresses);
    own.filter_map(|ip| {
        let seen = match gateway.hidden.get(ip) {
            None => *ip,
            Some(seen) => (*seen)?,
        };
        let (word, n) = (word(Family::of(*ip)), digit(Family::of(*ip)));
        let text = format!("{word} saddr {ip} {word} daddr != @direct{n} snat {word} to {seen}");
        Some(rule("a gateway's own address", text))
    })
}

/// What such an address sends is not masqueraded, so nobody else may send with it. And what leaves with the node's address leaves by a
/// NAT binding, and what conntrack cannot place has none: the late FIN of a connection whose entry is gone would show what is hidden.
pub(super) fn guarded(gateway: &LocalGateway, belts: Belts) -> impl Iterator<Item = Rule> {
    let own = gateway.own.iter().flat_map(|own| &own.addresses).filter(move |_| belts.spoof);
    let own = own.map(|ip| {
        let text = format!("{} saddr {ip} fib saddr . iif oif missing counter drop", word(Family::of(*ip)));
        rule("belt: somebody else's address", text)
    });
    let hidden = gateway.hidden.keys().filter(move |_| belts.invalid).map(|ip| {
        let (word, n) = (word(Family::of(*ip)), digit(Family::of(*ip)));
        let text = format!("{word} saddr {ip} {word} daddr != @direct{n} {WITHOUT_ENTRY}");
        rule("belt: without an entry there is no NAT", text)
    });
    own.chain(hidden)
}

#[cfg(test)]
mod tests;
