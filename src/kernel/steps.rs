//! The steps from what is to what shall be.
//!
//! In: observed and desired state, and the saved originals of the host's settings. Out: steps in an order in which nothing leaks
//! and nothing fails. Pure: each step is carried out on a copy (`effect`) before the next one is chosen.
//!
//! The order. First what is in the way (shapes we never make, keys that collide). Then additions, each after what it needs:
//! devices, settings, addresses, neighbours and forwarding, nexthops, groups, routes, rules, proxies. Then nftables, in one
//! transaction. Then removals the other way round. So a decision never points to a path that is not there yet or no longer.
//! In a table the `unreachable` belt comes first and goes last; among rules likewise.

mod obstacles;
mod rules;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::net::IpAddr;

use rules::{fits, looseness, turn};

use super::effect::{carry_out, place_of};
use super::nft::{diff, table::Chain};
use super::state::{Address, Fault, IPV6_METRIC, Nexthop, Removal, Route, Rule, State, Via};
use super::step::Step;
use super::sysctl::{self, Saved};
use crate::addr::Family;

/// Rounds of additions and removals. A removal can take with it what shall stay (the last IPv4 address of a device takes its
/// routes), so the second round puts that back; a third finds nothing to do.
const ROUNDS: usize = 3;

/// What to do, in order. Empty exactly when nothing is to be done.
pub fn steps(observed: &State, desired: &State, saved: &Saved) -> Vec<Step> {
    let desired = &*in_the_kernels_words(desired);
    let mut plan = Plan { observed, desired, now: observed.clone(), steps: Vec::new() };
    plan.clear_the_way();
    for round in 0..ROUNDS {
        let before = plan.steps.len();
        plan.additions();
        if round == 0 {
            plan.tables();
        }
        plan.removals();
        if plan.steps.len() == before {
            break;
        }
    }
    plan.restore(saved);
    plan.steps
}

/// How many entries are as they shall be already.
pub fn unchanged(observed: &State, desired: &State) -> usize {
    let desired = &*in_the_kernels_words(desired);
    fn same<'a, K: Ord + 'a, V: PartialEq + 'a>(
        one: &std::collections::BTreeMap<K, V>,
        other: &std::collections::BTreeMap<K, V>,
    ) -> usize {
        other.iter().filter(|(key, value)| one.get(key) == Some(value)).count()
    }
    same(&observed.links, &desired.links)
        + desired.addresses.intersection(&observed.addresses).count()
        + same(&observed.neighbours, &desired.neighbours)
        + desired.proxies.intersection(&observed.proxies).count()
        + same(&observed.fdb, &desired.fdb)
        + same(&observed.nexthops, &desired.nexthops)
        + desired.routes.intersection(&observed.routes).count()
        + desired.rules.intersection(&observed.rules).count()
        + same(&observed.sysctls, &desired.sysctls)
        + same(&observed.tables, &desired.tables)
}

/// Whether a setting outlives our devices, so that its original must be kept.
pub fn is_the_hosts(path: &str, observed: &State, desired: &State) -> bool {
    sysctl::device_of(path)
        .is_none_or(|device| !observed.links.contains_key(device) && !desired.links.contains_key(device))
}

/// The steps from a state that was brought about to another, for who believes that it stands as it was meant.
pub fn steps_believing(brought_about: &State, desired: &State, saved: &Saved) -> Vec<Step> {
    steps(&in_the_kernels_words(brought_about), desired, saved)
}

/// Says what is desired as the kernel will say it back, where it has two words for one thing.
fn in_the_kernels_words(desired: &State) -> Cow<'_, State> {
    let scope = |a: &Address| match a.ip {
        IpAddr::V4(_) => a.link_scope,
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    let metric = |r: &Route| match r.to.family() {
        Family::V6 if r.metric == IPV6_METRIC => 0,
        _ => r.metric,
    };
    let plain = desired.sysctls.values().all(|value| sysctl::plain(value) == *value);
    if plain
        && desired.addresses.iter().all(|a| a.link_scope == scope(a))
        && desired.routes.iter().all(|r| r.metric == metric(r))
    {
        return Cow::Borrowed(desired);
    }
    let mut said = desired.clone();
    said.addresses =
        desired.addresses.iter().map(|a| Address { link_scope: scope(a), ..a.clone() }).collect();
    said.routes = desired.routes.iter().map(|r| Route { metric: metric(r), ..r.clone() }).collect();
    for value in said.sysctls.values_mut() {
        *value = sysctl::plain(value);
    }
    Cow::Owned(said)
}

struct Plan<'a> {
    observed: &'a State,
    desired: &'a State,
    now: State,
    steps: Vec<Step>,
}

impl Plan<'_> {
    fn push(&mut self, step: Step) {
        carry_out(&mut self.now, &step);
        self.steps.push(step);
    }

    /// What is missing, each thing after those it needs.
    fn additions(&mut self) {
        let desired = self.desired;
        for (name, link) in &desired.links {
            let down = self.now.faults.contains(&Fault::Down(name.clone()));
            let name = name.clone();
            match self.now.links.get(&name) {
                None => self.push(Step::AddLink { name, link: link.clone() }),
                Some(have) if have != link => {
                    let from = have.clone();
                    self.push(Step::ChangeLink { name, from, to: link.clone() });
                }
                Some(_) if down => self.push(Step::RaiseLink { name, arp: link.arp }),
                Some(_) => {}
            }
        }
        for (path, value) in &desired.sysctls {
            if self.now.sysctls.get(path) != Some(value) {
                self.push(Step::SetSysctl { path: path.clone(), value: value.clone() });
            }
        }
        for address in &desired.addresses {
            if !self.now.addresses.contains(address) {
                self.push(Step::AddAddress(address.clone()));
            }
        }
        for ((dev, ip), mac) in &desired.neighbours {
            if self.now.neighbours.get(&(dev.clone(), *ip)) != Some(mac) {
                self.push(Step::SetNeighbour { dev: dev.clone(), ip: *ip, mac: *mac });
            }
        }
        for ((dev, mac), remote) in &desired.fdb {
            if self.now.fdb.get(&(dev.clone(), *mac)) != Some(remote) {
                self.push(Step::SetFdb { dev: dev.clone(), mac: *mac, remote: remote.clone() });
            }
        }
        self.add_nexthops(|nexthop| !is_group(nexthop));
        self.add_nexthops(is_group);
        self.add_routes(|route| route.via == Via::Unreachable);
        self.add_routes(|route| route.via != Via::Unreachable);
        self.add_rules();
        for (dev, ip) in &desired.proxies {
            if !self.now.proxies.contains(&(dev.clone(), *ip)) {
                self.push(Step::AddProxy { dev: dev.clone(), ip: *ip });
            }
        }
    }

    fn add_nexthops(&mut self, which: impl Fn(&Nexthop) -> bool) {
        for (id, nexthop) in self.desired.nexthops.iter().filter(|(_, nexthop)| which(nexthop)) {
            let (id, nexthop) = (*id, nexthop.clone());
            match self.now.nexthops.get(&id) {
                None => self.push(Step::AddNexthop { id, nexthop }),
                Some(have) if *have != nexthop => self.push(Step::ReplaceNexthop { id, nexthop }),
                Some(_) => {}
            }
        }
    }

    /// A route where one of ours stood is put there with *replace*: right also where the kernel has kept it against
    /// expectation. Where none of ours was, *add*: it refuses to overwrite somebody else's.
    fn add_routes(&mut self, which: impl Fn(&Route) -> bool) {
        let desired = self.desired;
        let stood = self.observed.routes.iter().chain(&self.now.routes);
        let places: BTreeSet<_> = stood.map(place_of).collect();
        for route in desired.routes.iter().filter(|route| which(route)) {
            if self.now.routes.contains(route) {
                continue;
            }
            let was_ours = places.contains(&place_of(route));
            let route = route.clone();
            self.push(if was_ours { Step::ReplaceRoute(route) } else { Step::AddRoute(route) });
        }
    }

    fn add_rules(&mut self) {
        let mut missing: Vec<Rule> = self.desired.rules.difference(&self.now.rules).cloned().collect();
        missing.sort_by_key(turn);
        for rule in missing {
            self.push(Step::AddRule(rule));
        }
    }

    /// nftables, in one transaction, between additions and removals: a rule that marks packets is loaded when the routes for
    /// the mark stand, and is gone before they go.
    fn tables(&mut self) {
        let mut is = Cow::Borrowed(&self.observed.tables);
        for step in &self.steps {
            // The kernel deletes a netdev chain with its device.
            if let Step::DelLink(name) | Step::RemoveOdd { removal: Removal::Link(name), .. } = step {
                let on = |chain: &Chain| chain.hook.as_ref().is_some_and(|h| h.device.as_ref() == Some(name));
                is.to_mut().values_mut().for_each(|table| table.chains.retain(|_, chain| !on(chain)));
            }
        }
        let change = diff::change(&is, &self.desired.tables);
        self.now.tables.clone_from(&self.desired.tables);
        self.steps.extend(change.map(Step::Nft));
    }

    /// What is there and not wanted, in the reverse order of additions.
    fn removals(&mut self) {
        let desired = self.desired;
        for (dev, ip) in self.now.proxies.difference(&desired.proxies).cloned().collect::<Vec<_>>() {
            self.push(Step::DelProxy { dev, ip });
        }
        let mut rules: Vec<Rule> = self.now.rules.difference(&desired.rules).cloned().collect();
        rules.sort_by_key(|rule| (Reverse(turn(rule)), looseness(rule)));
        for rule in rules {
            self.delete_rule(&rule);
        }
        let wanted: BTreeSet<_> = desired.routes.iter().map(place_of).collect();
        let kept = |route: &Route| wanted.contains(&place_of(route));
        let mut routes: Vec<Route> = self.now.routes.iter().filter(|route| !kept(route)).cloned().collect();
        routes.sort_by_key(|route| route.via == Via::Unreachable);
        for route in routes {
            self.push(Step::DelRoute(route));
        }
        self.remove_nexthops(is_group);
        self.remove_nexthops(|nexthop| !is_group(nexthop));
        // What stands on a device that goes, goes with it.
        let stays = |dev: &String| desired.links.contains_key(dev);
        for (dev, mac) in absent(&self.now.fdb, &desired.fdb).into_iter().filter(|(dev, _)| stays(dev)) {
            self.push(Step::DelFdb { dev, mac });
        }
        for (dev, ip) in
            absent(&self.now.neighbours, &desired.neighbours).into_iter().filter(|(dev, _)| stays(dev))
        {
            self.push(Step::DelNeighbour { dev, ip });
        }
        let addresses: Vec<Address> = self.now.addresses.difference(&desired.addresses).cloned().collect();
        for address in addresses.into_iter().filter(|address| stays(&address.dev)) {
            self.push(Step::DelAddress(address));
        }
        for name in absent(&self.now.links, &desired.links) {
            if self.now.links.contains_key(&name) {
                self.push(Step::DelLink(name));
            }
        }
    }

    fn remove_nexthops(&mut self, which: impl Fn(&Nexthop) -> bool) {
        for id in absent(&self.now.nexthops, &self.desired.nexthops) {
            if self.now.nexthops.get(&id).is_some_and(&which) {
                self.push(Step::DelNexthop(id));
            }
        }
    }

    /// Deletes one rule for sure.
    ///
    /// The kernel deletes the *first* rule that fits the fields given, where "mark 0" means any mark and `not` is not looked
    /// at: so it may take one that shall stay. Each such one is first added once more, at the end of its priority, and
    /// as many rules are deleted as then fit before those copies. What shall stay stands at every moment.
    fn delete_rule(&mut self, rule: &Rule) {
        let stay: Vec<Rule> = self
            .now
            .rules
            .intersection(&self.desired.rules)
            .filter(|other| fits(rule, other))
            .cloned()
            .collect();
        let times = 1 + stay.len();
        for other in &stay {
            self.push(Step::AddRule(other.clone()));
        }
        for _ in 0..times {
            self.push(Step::DelRule(rule.clone()));
        }
        self.now.rules.extend(stay);
    }

    /// The host's own settings, once nobody wants ours any more.
    fn restore(&mut self, saved: &Saved) {
        for (path, value) in saved {
            if !self.desired.sysctls.contains_key(path) {
                self.push(Step::RestoreSysctl { path: path.clone(), value: value.clone() });
            }
        }
    }
}

fn absent<K: Ord + Clone, V>(
    have: &std::collections::BTreeMap<K, V>,
    want: &std::collections::BTreeMap<K, V>,
) -> Vec<K> {
    have.keys().filter(|key| !want.contains_key(key)).cloned().collect()
}

fn is_group(nexthop: &Nexthop) -> bool {
    matches!(nexthop, Nexthop::Group { .. })
}
