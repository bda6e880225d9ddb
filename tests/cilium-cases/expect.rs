//! What is listed, in the words of Cilium's map, beside what a step expects.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use egret::addr::{Cidr, Family};
use egret::egress::explain::Verdict;
use egret::egress::inside::flatten;
use egret::egress::list::{Row, list};
use egret::egress::model::{PodName, View};
use egret::egress::resolve::node_gateways;
use egret::problem::Problem;

use crate::case::{Entry, Node, Pod, Step};

/// What is seen after a step.
#[derive(Default)]
pub(crate) struct Seen {
    local: String,
    rows: Vec<Row>,
    /// UIDs of pods for which a policy decides.
    matched: BTreeSet<String>,
    /// Interfaces by which this node is a gateway.
    doors: BTreeSet<String>,
    problems: Vec<Problem>,
}

impl Seen {
    /// Resolves for these pods.
    pub(crate) fn add(&mut self, view: &View, problems: Vec<Problem>, pods: &[Pod], local: &str) {
        local.clone_into(&mut self.local);
        self.problems.extend(problems);
        for pod in pods {
            let listing = list(view, [PodName::new(&pod.namespace, &pod.name)]);
            let rows: Vec<Row> = listing.items.into_iter().filter(|row| row.decided_by.is_some()).collect();
            if !rows.is_empty() {
                self.matched.insert(pod.uid.clone());
            }
            self.rows.extend(rows);
            self.problems.extend(listing.problems);
        }
        let gateways = node_gateways(view).0.into_values();
        self.doors.extend(gateways.filter(|gateway| gateway.node == local).map(|gateway| gateway.interface));
    }

    /// A sentence for everything that is not as the step expects.
    pub(crate) fn differences(&self, step: &Step, local: Option<&Node>) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut differs = |what: &str, expected: String, found: String| {
            if expected != found {
                wrong.push(format!("{what}\nexpected {expected}\nfound    {found}"));
            }
        };
        // With an `egressIP` Cilium's map says no interface (0): its routing look-up finds it, and we name it all the same.
        let indexed = step.expect.iter().any(|entry| entry.egress_ifindex.is_some_and(|index| index > 0));
        let mut found: Vec<Entry> =
            self.rows.iter().filter_map(|row| self.entry(row, local, indexed)).collect();
        let mut expected = step.expect.clone();
        expected
            .iter_mut()
            .for_each(|entry| entry.egress_ifindex = entry.egress_ifindex.filter(|index| *index > 0));
        found.sort();
        expected.sort();
        differs("the table", lines(&expected), lines(&found));
        if let Some(error) = &step.expect_error {
            // Cilium says it in its own words; that something is said of the policy is what counts.
            let said = self.problems.iter().any(|problem| problem.file.starts_with("policy-"));
            differs(
                &format!("rejection ({error})"),
                "a problem".into(),
                if said { "a problem" } else { "none" }.into(),
            );
        }
        if let Some(uids) = &step.expect_matched_pods {
            let uids: BTreeSet<String> = uids.iter().cloned().collect();
            differs("matched pods", format!("{uids:?}"), format!("{:?}", self.matched));
        }
        for (interface, value) in step.expect_rp_filter.iter().flatten() {
            // Loose where traffic leaves that came by the tunnel; elsewhere as the host has it.
            let loose = if self.doors.contains(interface) { "2" } else { "1" };
            differs(&format!("rp_filter of {interface}"), value.clone(), loose.into());
        }
        if let Some(interface) = &step.expect_egress_interface {
            let found: BTreeSet<Option<&String>> = self.rows.iter().filter_map(own_gateway).collect();
            differs("interface", format!("{:?}", BTreeSet::from([Some(interface)])), format!("{found:?}"));
        }
        for lookup in &step.expect_lookup {
            let (expected, found) = self.look_up(lookup, local);
            differs("look-up", expected, found);
        }
        for (source, cidrs) in step.expect_effective.iter().flatten() {
            let cidrs: BTreeSet<Cidr> = cidrs.iter().map(|cidr| cidr.parse().unwrap()).collect();
            differs("effective prefixes", format!("{cidrs:?}"), format!("{:?}", self.effective(*source)));
        }
        wrong
    }

    /// A row as an entry of the map on the local node.
    fn entry(&self, row: &Row, local: Option<&Node>, indexed: bool) -> Option<Entry> {
        let source = row.address?;
        let family = row.destination.family();
        let (gateway, egress, interface) = match row.action {
            // "No gateway, the node's normal path".
            Verdict::Direct => (IpAddr::from([0, 0, 0, 1]), self.beside(row), None),
            Verdict::Gateway | Verdict::Held => {
                let chosen = row.gateways.first();
                let gateway = chosen.and_then(|chosen| chosen.node_address);
                let here = chosen.filter(|chosen| chosen.node == self.local && chosen.usable);
                let interface = here.and_then(|here| here.interface.clone());
                (gateway.unwrap_or(NONE), here.and_then(|here| here.egress_address), interface)
            }
        };
        let index = |name: &str| local?.interfaces.iter().find(|interface| interface.name == name)?.index;
        Some(Entry {
            source,
            destination: row.destination.to_string(),
            egress: egress.unwrap_or_else(|| family.everything().first()),
            gateway,
            egress_ifindex: interface.filter(|_| indexed).and_then(|name| index(&name)),
        })
    }

    /// An excluded prefix carries the egress address of its policy's other prefixes, though nobody reads it there.
    fn beside(&self, excluded: &Row) -> Option<IpAddr> {
        let policy = |row: &Row| row.decided_by.as_ref().map(|by| by.object.clone());
        let of_policy = |row: &&Row| {
            row.address == excluded.address
                && policy(row) == policy(excluded)
                && row.action == Verdict::Gateway
        };
        let gateway = self.rows.iter().find(of_policy)?.gateways.first()?;
        gateway.egress_address.filter(|_| gateway.node == self.local)
    }

    /// Which entry a packet finds: `sourceIP`, `destinationIP`, then any fields of an entry, or `null` for none.
    fn look_up(&self, lookup: &serde_json::Value, local: Option<&Node>) -> (String, String) {
        let ip = |keys: &[&str]| -> IpAddr {
            let text = keys.iter().find_map(|key| lookup[*key].as_str());
            text.unwrap_or_else(|| panic!("{lookup} has none of {keys:?}")).parse().unwrap()
        };
        let (source, destination) = (ip(&["sourceIP", "source"]), ip(&["destinationIP", "destination"]));
        let rows = self
            .rows
            .iter()
            .filter(|row| row.address == Some(source) && row.destination.contains(destination));
        let found =
            rows.max_by_key(|row| row.destination.prefix()).and_then(|row| self.entry(row, local, false));
        let asked = |key: &str| lookup[key].as_str().or_else(|| lookup["expect"][key].as_str());
        let says = |entry: &Entry, key: &str| match key {
            "destinationCIDR" => entry.destination.clone(),
            "egressIP" => entry.egress.to_string(),
            _ => entry.gateway.to_string(),
        };
        let keys: Vec<&str> = ["destinationCIDR", "egressIP", "gatewayIP"]
            .into_iter()
            .filter(|key| asked(key).is_some())
            .collect();
        if keys.is_empty() {
            return (
                format!("{lookup} finds nothing"),
                found.map_or(format!("{lookup} finds nothing"), |e| format!("{e:?}")),
            );
        }
        let expected: Vec<String> = keys.iter().filter_map(|key| asked(key)).map(ToOwned::to_owned).collect();
        let found: Vec<String> =
            found.iter().flat_map(|entry| keys.iter().map(|key| says(entry, key))).collect();
        (format!("{expected:?}"), format!("{found:?}"))
    }

    /// What really goes to gateways, as prefixes that do not overlap.
    fn effective(&self, source: IpAddr) -> BTreeSet<Cidr> {
        let rows = self.rows.iter().filter(|row| row.address == Some(source));
        let rules: BTreeMap<Cidr, bool> =
            rows.map(|row| (row.destination, row.action != Verdict::Direct)).collect();
        let ranges = flatten(&rules).into_iter().filter(|(_, _, gated)| *gated);
        ranges.flat_map(|(first, last, _)| prefixes(first, last)).collect()
    }
}

const NONE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED);

fn own_gateway(row: &Row) -> Option<Option<&String>> {
    let gateway = row.gateways.first()?;
    Some(gateway.interface.as_ref())
}

fn lines(entries: &[Entry]) -> String {
    entries.iter().map(|entry| format!("\n  {entry:?}")).collect()
}

fn prefixes(first: IpAddr, last: IpAddr) -> Vec<Cidr> {
    let bits = Family::of(first).bits();
    let mut found = Vec::new();
    let mut next = first;
    while next <= last {
        let fits = |cidr: &Cidr| cidr.first() == next && cidr.last() <= last;
        let widest = (0..=bits).map(|length| Cidr::covering(next, length)).find(fits).unwrap();
        found.push(widest);
        let Some(after) = Cidr::covering(next, 0).nth(number(widest.last()) + 1) else { break };
        next = after;
    }
    found
}

fn number(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => u32::from(ip).into(),
        IpAddr::V6(ip) => ip.into(),
    }
}
