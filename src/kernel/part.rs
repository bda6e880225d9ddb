//! Looking at a part of a namespace: what else stands there is taken to be as it shall be.
//!
//! In: what was observed, what shall be of the part and of the whole. Out: a state that differs from the whole only where the
//! part does. Pure; never knows why something belongs to a part.

use std::collections::{BTreeMap, BTreeSet};

use crate::kernel::nft::table::{Map, Table};
use crate::kernel::state::{Fault, Removal, Route, Rule, State};

impl State {
    /// What was observed, as far as it concerns the part; the rest as the whole has it. `steps(result, whole)` are then the
    /// steps that the part lacks. `part` holds keys of `whole`; which values count is the whole's affair, where a shared thing
    /// says more than the part alone would.
    #[must_use]
    pub fn confined(self, part: &State, whole: &State) -> State {
        let here = Places::of(part);
        State {
            links: entries(self.links, &part.links, &whole.links),
            addresses: members(self.addresses, &whole.addresses, |a| part.links.contains_key(&a.dev)),
            neighbours: entries(self.neighbours, &part.neighbours, &whole.neighbours),
            proxies: members(self.proxies, &whole.proxies, |proxy| part.proxies.contains(proxy)),
            fdb: entries(self.fdb, &part.fdb, &whole.fdb),
            nexthops: entries(self.nexthops, &part.nexthops, &whole.nexthops),
            routes: members(self.routes, &whole.routes, |route| here.has_route(route)),
            rules: members(self.rules, &whole.rules, |rule| here.has_rule(rule)),
            sysctls: entries(self.sysctls, &part.sysctls, &whole.sysctls),
            tables: tables(self.tables, part, whole),
            faults: self.faults.into_iter().filter(|fault| here.has_fault(fault)).collect(),
        }
    }
}

/// A map: the part's keys as they are, the others as they shall be.
fn entries<K: Ord + Clone, V: Clone>(
    mut observed: BTreeMap<K, V>,
    part: &BTreeMap<K, V>,
    whole: &BTreeMap<K, V>,
) -> BTreeMap<K, V> {
    let mut all = whole.clone();
    for key in part.keys() {
        match observed.remove(key) {
            Some(value) => drop(all.insert(key.clone(), value)),
            None => drop(all.remove(key)),
        }
    }
    all
}

/// A set: what lies in the part's places as it is, surplus too, the others as they shall be.
fn members<T: Ord + Clone>(
    observed: BTreeSet<T>,
    whole: &BTreeSet<T>,
    inside: impl Fn(&T) -> bool,
) -> BTreeSet<T> {
    let elsewhere = whole.iter().filter(|one| !inside(one)).cloned();
    elsewhere.chain(observed.into_iter().filter(|one| inside(one))).collect()
}

fn tables(
    mut observed: crate::kernel::nft::table::Tables,
    part: &State,
    whole: &State,
) -> crate::kernel::nft::table::Tables {
    let mut all = whole.tables.clone();
    for (key, of_part) in &part.tables {
        let of_whole = whole.tables.get(key).unwrap_or(of_part);
        match observed.remove(key) {
            Some(table) => drop(all.insert(key.clone(), confined_table(table, of_part, of_whole))),
            None => drop(all.remove(key)),
        }
    }
    all
}

fn confined_table(mut observed: Table, part: &Table, whole: &Table) -> Table {
    let mut maps = whole.maps.clone();
    for (name, of_part) in &part.maps {
        let of_whole = whole.maps.get(name).unwrap_or(of_part);
        match observed.maps.remove(name) {
            Some(map) => {
                let elements = entries(map.elements, &of_part.elements, &of_whole.elements);
                maps.insert(name.clone(), Map { elements, ..map });
            }
            None => drop(maps.remove(name)),
        }
    }
    Table { chains: entries(observed.chains, &part.chains, &whole.chains), maps }
}

/// Where a surplus thing would be in the part's way.
struct Places<'a> {
    part: &'a State,
    tables: BTreeSet<u32>,
}

impl<'a> Places<'a> {
    fn of(part: &'a State) -> Places<'a> {
        let looked_up = part.rules.iter().filter_map(Rule::table);
        Places { part, tables: looked_up.collect() }
    }

    /// A table that the part's rules look up is the part's own. Any other, `main` above all, only for the part's destinations.
    fn has_route(&self, route: &Route) -> bool {
        let same = |own: &Route| (own.table, own.to) == (route.table, route.to);
        self.tables.contains(&route.table) || self.part.routes.iter().any(same)
    }

    fn has_rule(&self, rule: &Rule) -> bool {
        let place = |r: &Rule| (r.family, r.priority, r.matches.clone());
        self.part.rules.iter().any(|own| place(own) == place(rule))
    }

    fn has_fault(&self, fault: &Fault) -> bool {
        match fault {
            Fault::Down(dev) => self.part.links.contains_key(dev),
            Fault::Twice(rule) => self.has_rule(rule),
            Fault::Odd { removal, .. } => match removal {
                Removal::Link(dev) | Removal::Address { dev, .. } => self.part.links.contains_key(dev),
                Removal::Nexthop(id) => self.part.nexthops.contains_key(id),
                // Of what shape it is nobody knows, so neither whom it harms.
                Removal::Route(_) | Removal::Rule(_) => true,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::{Cidr, Family};
    use crate::kernel::nft::table::{Atom, KeyType, Value, ValueType};
    use crate::kernel::state::{Action, Match, NftFamily, Via};
    use crate::kernel::steps;

    /// A rule with its table's routes, and an element, for each of these numbers.
    fn state(numbers: &[u8]) -> State {
        let mut state = State::default();
        let mut map = Map {
            key: vec![KeyType::Ipv4],
            value: Some(ValueType::Verdict),
            interval: false,
            elements: BTreeMap::new(),
        };
        for n in numbers {
            let (family, table) = (Family::V4, 1000 + u32::from(*n));
            let matches = Match::Mark { value: u32::from(*n), mask: 0x7f };
            state.rules.insert(Rule { family, priority: 720, matches, action: Action::Lookup(table) });
            state.routes.insert(route(table, 0));
            map.elements.insert(vec![Atom::Ip([10, 0, 0, *n].into())], Some(Value::Accept));
        }
        let maps = BTreeMap::from([("binding4".to_owned(), map)]);
        let table = Table { maps, ..Table::default() };
        state.tables.insert((NftFamily::Inet, "egret".to_owned()), table);
        state
    }

    fn route(table: u32, metric: u32) -> Route {
        let to: Cidr = Family::V4.everything();
        Route { table, to, metric, via: Via::Unreachable }
    }

    fn lacks(observed: State, part: &State, whole: &State) -> usize {
        steps(&observed.confined(part, whole), whole, &BTreeMap::new()).len()
    }

    #[test]
    fn only_what_the_part_lacks_is_a_step() {
        let (part, whole) = (state(&[1]), state(&[1, 2, 3]));
        assert_eq!(lacks(whole.clone(), &part, &whole), 0);
        assert_eq!(lacks(state(&[1]), &part, &whole), 0, "what others lack is theirs");
        assert_eq!(lacks(state(&[2, 3]), &part, &whole), 3, "rule, route and element");
        assert_eq!(lacks(State::default(), &part, &whole), 3, "rule, route, and the table with all in it");
        assert_eq!(lacks(State::default(), &State::default(), &whole), 0);
        assert!(lacks(state(&[1]), &whole, &whole) > 0, "a part that is everything sees everything");
    }

    #[test]
    fn a_surplus_counts_where_it_is_in_the_parts_way() {
        let (part, whole) = (state(&[1]), state(&[1, 2]));
        let with = |route| {
            let mut observed = whole.clone();
            observed.routes.insert(route);
            observed
        };
        assert_eq!(lacks(with(route(1001, 7)), &part, &whole), 1);
        assert_eq!(lacks(with(route(1002, 7)), &part, &whole), 0);
        let mut observed = whole.clone();
        let (mine, other) = (part.rules.first().unwrap().clone(), whole.rules.last().unwrap().clone());
        observed.faults.insert(Fault::Twice(other));
        assert_eq!(lacks(observed.clone(), &part, &whole), 0);
        observed.faults.insert(Fault::Twice(mine));
        assert!(lacks(observed, &part, &whole) > 0);
    }
}
