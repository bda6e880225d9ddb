//! What the three kinds of policy share: destinations, gateways, and the step from findings to a policy that is fit or not.
//!
//! A policy is right by construction: its prefixes are masked and stand once each, its selectors parse. What is wrong with
//! one makes it *unfit*: it is handed on without rules and with the reasons, so that its pods are held and told why.

use std::collections::HashMap;

use super::Object;
use super::fields::{Findings, Section};
use super::{pool, timestamp};
use crate::addr::{Cidr, CidrError, Family};
use crate::egress::policy::{PodSelection, Policy, PolicyKind, PolicyRule, To};

/// A policy that is being read.
pub(super) struct Draft {
    policy: Policy,
    /// Which rule has a prefix.
    taken: HashMap<Cidr, usize>,
    /// The rule without a destination, and where it goes.
    everything: Option<(String, To)>,
}

impl Draft {
    /// With what `metadata` says.
    pub(super) fn new(
        name: &str,
        kind: PolicyKind,
        root: &Section<'_>,
        findings: &mut Findings<'_>,
    ) -> Draft {
        let metadata = root.section("metadata", findings);
        metadata.pairs("labels", findings);
        metadata.pairs("annotations", findings);
        let policy = Policy {
            name: name.to_owned(),
            kind,
            created: timestamp::created(&metadata, "policy", findings),
            enforced: false,
            selectors: Vec::new(),
            rules: Vec::new(),
            deny_others: false,
            ignores_other_family: kind == PolicyKind::Cilium,
            unfit: Vec::new(),
        };
        Draft { policy, taken: HashMap::new(), everything: None }
    }

    pub(super) fn enforce(&mut self, enforced: bool) {
        self.policy.enforced = enforced;
    }

    pub(super) fn deny_others(&mut self, deny: bool) {
        self.policy.deny_others = deny;
    }

    pub(super) fn ignore_other_family(&mut self, ignore: bool) {
        self.policy.ignores_other_family = ignore;
    }

    pub(super) fn select(&mut self, selectors: Vec<PodSelection>) {
        self.policy.selectors = selectors;
    }

    /// Adds where a prefix goes. Twice the same prefix is wrong, whatever the order of the rules.
    ///
    /// `field`: the rule; `at`: where the prefix is written.
    pub(super) fn rule(
        &mut self,
        field: &str,
        at: &str,
        destination: Cidr,
        to: To,
        findings: &mut Findings<'_>,
    ) {
        if let Some(earlier) = self.taken.get(&destination).and_then(|i| self.policy.rules.get(*i)) {
            return same_destination(at, destination, &earlier.field, findings);
        }
        self.put(field, destination, to);
    }

    /// Adds a rule without a destination: where all goes that no other rule names.
    pub(super) fn rest(&mut self, field: &str, to: To, findings: &mut Findings<'_>) {
        if let Some((earlier, _)) = &self.everything {
            let message = format!(
                "{field} and {earlier} both have no destination, so both are for everything; keep one of them"
            );
            return findings.wrong(&format!("{field}.destination"), "", "SameDestination", message);
        }
        self.everything = Some((field.to_owned(), to));
    }

    /// Adds a prefix of a plain list, in which a prefix may be repeated.
    pub(super) fn listed(&mut self, field: &str, destination: Cidr, to: To) {
        if !self.taken.contains_key(&destination) {
            self.put(field, destination, to);
        }
    }

    /// Lets a prefix go direct; it wins over a rule for the same prefix.
    pub(super) fn exclude(&mut self, field: &str, excluded: Cidr, findings: &mut Findings<'_>) {
        let Some(rule) = self.taken.get(&excluded).and_then(|i| self.policy.rules.get_mut(*i)) else {
            return self.put(field, excluded, To::Direct);
        };
        if rule.to != To::Direct {
            let message = format!(
                "{excluded} is excluded by {field}, which wins, so {} has no effect on it; remove one",
                rule.field
            );
            findings.doubt(&rule.field, excluded, "Excluded", message);
            rule.to = To::Direct;
            field.clone_into(&mut rule.field);
        }
    }

    fn put(&mut self, field: &str, destination: Cidr, to: To) {
        self.taken.insert(destination, self.policy.rules.len());
        self.policy.rules.push(PolicyRule { destination, field: field.to_owned(), to });
    }

    /// The policy, fit or not.
    pub(super) fn finish(mut self, findings: &mut Findings<'_>) -> Option<Object> {
        if let Some((field, to)) = self.everything.take() {
            for family in Family::BOTH {
                let whole = family.everything();
                match self.taken.get(&whole).and_then(|i| self.policy.rules.get(*i)) {
                    None => self.put(&field, whole, to.clone()),
                    // In Calico a rule without destination is for 0.0.0.0/0, so this is a rejection there; for ::/0 its
                    // users could not but write the second rule.
                    Some(earlier) if family == Family::V4 => {
                        same_destination(
                            &format!("{field}.destination"),
                            whole,
                            &earlier.field.clone(),
                            findings,
                        );
                    }
                    Some(_) => {}
                }
            }
        }
        self.policy.unfit = findings.unfit();
        if !self.policy.unfit.is_empty() {
            self.policy.rules.clear();
        }
        Some(Object::Policy(self.policy))
    }
}

fn same_destination(at: &str, destination: Cidr, earlier: &str, findings: &mut Findings<'_>) {
    let message = format!(
        "{destination} is the destination of {earlier} too, and one destination cannot go two ways; remove one of the rules"
    );
    findings.wrong(at, destination, "SameDestination", message);
}

/// Ranges that are never sent to a gateway, whatever a policy says.
const NEVER: [(&str, &str); 7] = [
    ("127.0.0.0/8", "loopback"),
    ("169.254.0.0/16", "link-local"),
    ("224.0.0.0/4", "multicast"),
    ("255.255.255.255/32", "broadcast"),
    ("::1/128", "loopback"),
    ("fe80::/10", "link-local"),
    ("ff00::/8", "multicast"),
];

/// A destination. Host bits are masked with a doubt, as both systems mask them; `bare`: an address alone will do.
pub(super) fn destination(at: &str, text: &str, bare: bool, findings: &mut Findings<'_>) -> Option<Cidr> {
    let cidr = match text.parse::<Cidr>() {
        Ok(cidr) if !bare && !text.contains('/') => {
            let message = format!("`{text}` has no prefix length; write {cidr}");
            findings.wrong(at, text, "CidrSyntax", message);
            return None;
        }
        Ok(cidr) => cidr,
        Err(CidrError::HostBits(_, masked)) => {
            let message =
                format!("`{text}` has bits set below its prefix length and is read as {masked}; write that");
            findings.doubt(at, text, "CidrHostBits", message);
            masked
        }
        Err(error) => {
            pool::refuse_cidr(at, text, &error, findings);
            return None;
        }
    };
    if pool::refuse_hidden(at, text, cidr, findings) {
        return None;
    }
    let within = |range: &str| range.parse::<Cidr>().is_ok_and(|range| range.covers(cidr));
    if let Some((range, what)) = NEVER.iter().find(|(range, _)| within(range)) {
        let message = format!(
            "{cidr} is {what} ({range}), which never goes to a gateway, so it has no effect; remove it"
        );
        findings.doubt(at, text, "NeverLeaves", message);
    }
    Some(cidr)
}

/// A selector that must be given; `what` says who needs it.
pub(super) fn selector(
    section: &Section<'_>,
    key: &str,
    what: &str,
    findings: &mut Findings<'_>,
) -> Option<String> {
    let path = section.path(key);
    match section.get(key).is_some().then(|| section.text(key, findings)) {
        Some(None) => None,
        Some(Some(text)) if !text.trim().is_empty() => pool::selector(&path, text, findings),
        found => {
            let (state, value) = found.flatten().map_or(("missing", ""), |text| ("empty", text));
            let message = format!("{path} is {state}; {what}; write `all()` if every one is meant");
            findings.wrong(&path, value, "EmptySelector", message);
            None
        }
    }
}

/// The interface and the address of a node gateway: at most one of them.
pub(super) fn leaves_by(
    gateway: &Section<'_>,
    findings: &mut Findings<'_>,
) -> (Option<String>, Option<std::net::IpAddr>) {
    let interface = gateway.text("interface", findings).filter(|text| !text.is_empty());
    let egress_ip = gateway.text("egressIP", findings).filter(|text| !text.is_empty());
    if let (Some(interface), Some(egress_ip)) = (interface, egress_ip) {
        let path = gateway.path("interface");
        let message = format!(
            "interface `{interface}` stands beside egressIP `{egress_ip}`, and only one of them can say the address; remove one"
        );
        findings.wrong(&path, interface, "InterfaceAndAddress", message);
    }
    if let Some(name) = interface
        && (name.len() > 127 || name.contains(|c: char| c.is_whitespace() || c == '/' || c.is_control()))
    {
        let path = gateway.path("interface");
        let message = format!(
            "`{name}` is no name of a network interface; write one as `ip link` prints it, such as eth1"
        );
        findings.wrong(&path, name, "InterfaceName", message);
    }
    let address = egress_ip.and_then(|text| {
        let address = text.parse().ok();
        if address.is_none() {
            let path = gateway.path("egressIP");
            let message = format!("`{text}` is not an address such as 192.0.2.10 or 2001:db8::10");
            findings.wrong(&path, text, "AddressSyntax", message);
        }
        address
    });
    (interface.map(str::to_owned), address)
}
