//! Destinations that never go to a gateway, and prefixes as ranges.
//!
//! In: the view; rules by prefix. Out: the inside prefixes, each with its source, or merged; and [`flatten`], which turns
//! longest-prefix rules into ranges that do not overlap, because nft's maps know no longest prefix. Never: asks the kernel.
//!
//! A Calico `IPPool` is inside even if gateways lease from it: in Calico every pool is a range of the cluster, and who
//! brings such a manifest brings that meaning. The range of an `EgressPool` is outside, as any address is that others see.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::addr::{Cidr, Family, address_bits, address_from_bits};
use crate::egress::model::{PodName, PoolKind, View};

/// What is never redirected anywhere, with its reason. 169.254.0.0/16 holds the metadata services of AWS, Google, Azure,
/// Oracle and others; the single addresses are what clouds put beside it, each served by the machine's own host.
const EVERYWHERE: [(&str, &str); 12] = [
    ("0.0.0.0/8", "this network (RFC 6890)"),
    ("127.0.0.0/8", "loopback"),
    ("168.63.129.16/32", "Azure's host"),
    ("169.254.0.0/16", "link-local and cloud metadata"),
    ("224.0.0.0/4", "multicast"),
    ("255.255.255.255/32", "broadcast"),
    ("::/128", "no address"),
    ("::1/128", "loopback"),
    ("fd00:ec2::254/128", "AWS metadata"),
    ("fd20:ce::254/128", "Google Cloud metadata"),
    ("fe80::/10", "link-local"),
    ("ff00::/8", "multicast"),
];

/// One inside prefix.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Inside {
    /// The prefix.
    pub cidr: Cidr,
    /// Where it was said: `clusterCIDRs`, `podCIDRs of Node n1`, `IPPool pods`, `loopback`.
    pub source: String,
}

/// Every inside prefix with its source, IPv4 first, by address, then from wide to narrow. Prefixes that two sources name
/// stand twice.
pub fn sources(view: &View) -> Vec<Inside> {
    let inside = |cidr: Cidr, source: String| Inside { cidr, source };
    let mut all: Vec<Inside> = Vec::new();
    all.extend(view.cluster_cidrs.iter().map(|cidr| inside(*cidr, "clusterCIDRs".to_owned())));
    for (name, node) in &view.nodes {
        all.extend(node.pod_cidrs.iter().map(|cidr| inside(*cidr, format!("podCIDRs of Node {name}"))));
        let addresses = node.internal_ips.iter().chain(&node.other_ips);
        all.extend(addresses.map(|ip| inside(Cidr::host(*ip), format!("address of Node {name}"))));
    }
    all.extend(view.service_cidrs.iter().map(|cidr| inside(*cidr, "ServiceCIDR".to_owned())));
    all.extend(view.api_servers.iter().map(|cidr| inside(*cidr, "address of the API server".to_owned())));
    let pools = view.pools.values().filter(|pool| pool.kind == PoolKind::IPPool);
    all.extend(pools.map(|pool| inside(pool.cidr, format!("IPPool {}", pool.name))));
    let fixed = EVERYWHERE.iter().filter_map(|(cidr, source)| Some((cidr.parse().ok()?, *source)));
    all.extend(fixed.map(|(cidr, source)| inside(cidr, source.to_owned())));
    all.sort();
    all.dedup();
    all
}

/// What is inside besides for the pods of a node: the subnets of those that run there, by node. Only a node knows, and only of itself.
pub fn subnets(view: &View) -> BTreeMap<&str, Vec<Inside>> {
    let inside =
        |(whose, cidr): &(String, Cidr)| Inside { cidr: *cidr, source: format!("subnet of {whose}") };
    view.subnets.iter().map(|(node, all)| (node.as_str(), all.iter().map(inside).collect())).collect()
}

/// Every inside prefix for one pod.
pub fn sources_for(view: &View, pod: &PodName) -> Vec<Inside> {
    let mut all = sources(view);
    let node = view.pods.get(pod).and_then(|pod| pod.node.as_deref());
    all.extend(node.and_then(|node| subnets(view).remove(node)).unwrap_or_default());
    all.sort();
    all
}

/// The inside prefixes, merged to as few as hold the same addresses; sorted, IPv4 first.
pub fn inside(view: &View) -> Vec<Cidr> {
    let rules: BTreeMap<Cidr, ()> = sources(view).into_iter().map(|inside| (inside.cidr, ())).collect();
    flatten(&rules).into_iter().flat_map(|(first, last, ())| prefixes(first, last)).collect()
}

/// Why an address is inside: the longest of these prefixes that holds it. `None`: it is outside.
pub fn because(sources: Vec<Inside>, ip: IpAddr) -> Option<Inside> {
    let holding = sources.into_iter().filter(|inside| inside.cidr.contains(ip));
    // The first of the longest: sources are sorted, so that the answer does not depend on the order of objects.
    holding.reduce(|best, next| if next.cidr.prefix() > best.cidr.prefix() { next } else { best })
}

/// Who says of a whole prefix that it is inside; `None`: some of it is outside, or no single source holds it all. `sources` are those
/// of the view.
pub(super) fn holding(sources: &[Inside], cidr: Cidr) -> Option<&Inside> {
    sources.iter().find(|inside| inside.cidr.covers(cidr))
}

impl Inside {
    /// Why what is inside goes direct.
    pub(super) fn sentence(&self) -> String {
        format!("{} is inside ({}), and inside destinations go direct", self.cidr, self.source)
    }
}

/// Longest-prefix rules as ranges `(first, last, value)`: sorted, IPv4 first, without overlap; neighbours of equal value
/// are one. What no rule covers is in no range.
pub fn flatten<T: Clone + PartialEq>(rules: &BTreeMap<Cidr, T>) -> Vec<(IpAddr, IpAddr, T)> {
    let mut ranges = Vec::new();
    for family in Family::BOTH {
        let mut sweep = Sweep { family, next: Some(0), open: Vec::new(), ranges: &mut ranges };
        // A map of prefixes is sorted by address, then from wide to narrow: what covers comes before what it covers.
        for (cidr, value) in rules.iter().filter(|(cidr, _)| cidr.family() == family) {
            let first = address_bits(cidr.first());
            sweep.close_before(Some(first));
            sweep.fill_up_to(first);
            sweep.open.push((address_bits(cidr.last()), value));
        }
        sweep.close_before(None);
    }
    ranges
}

/// A walk through a family's addresses, from the lowest.
struct Sweep<'a, T> {
    family: Family,
    /// The first address that no range covers yet; `None` behind the last address there is.
    next: Option<u128>,
    /// Prefixes that we are in, the narrowest at the end: last address and value.
    open: Vec<(u128, &'a T)>,
    ranges: &'a mut Vec<(IpAddr, IpAddr, T)>,
}

impl<T: Clone + PartialEq> Sweep<'_, T> {
    /// Finishes the open prefixes that end before an address; all of them for `None`.
    fn close_before(&mut self, address: Option<u128>) {
        while let Some((last, value)) = self.open.last().copied() {
            if address.is_some_and(|address| last >= address) {
                return;
            }
            self.cover(last, value);
            self.open.pop();
        }
    }

    /// Covers what lies before an address with the narrowest open prefix, and goes on there.
    fn fill_up_to(&mut self, address: u128) {
        if let (Some(before), Some((_, value))) = (address.checked_sub(1), self.open.last().copied()) {
            self.cover(before, value);
        }
        self.next = Some(address);
    }

    fn cover(&mut self, last: u128, value: &T) {
        let Some(first) = self.next.filter(|first| *first <= last) else { return };
        self.next = last.checked_add(1);
        let address = |bits| address_from_bits(self.family, bits);
        if let Some((_, end, known)) = self.ranges.last_mut()
            && Family::of(*end) == self.family
            && address_bits(*end).checked_add(1) == Some(first)
            && known == value
        {
            *end = address(last);
            return;
        }
        self.ranges.push((address(first), address(last), value.clone()));
    }
}

/// The fewest prefixes that hold exactly the addresses from the first to the last.
fn prefixes(first: IpAddr, last: IpAddr) -> Vec<Cidr> {
    let family = Family::of(first);
    let (mut next, last) = (address_bits(first), address_bits(last));
    let mut found = Vec::new();
    loop {
        let start = address_from_bits(family, next);
        // The widest prefix that starts here and ends in time; a single address always does.
        let fits = |length: &u8| {
            let cidr = Cidr::covering(start, *length);
            cidr.first() == start && address_bits(cidr.last()) <= last
        };
        let cidr =
            (0..=family.bits()).find(fits).map_or(Cidr::host(start), |length| Cidr::covering(start, length));
        found.push(cidr);
        match address_bits(cidr.last()).checked_add(1) {
            Some(after) if after <= last => next = after,
            _ => return found,
        }
    }
}

#[cfg(test)]
mod tests;
