//! The difference between two sets of tables, as the commands that turn one into the other in one transaction.
//!
//! In: tables as the kernel has them, tables as they should be. Out: a [`Change`], or nothing. Never: applies it.
//!
//! Order inside: whatever points is emptied first (rules of changed chains, elements), then what was pointed to goes (maps, chains),
//! then the new chains, maps, elements and last the rules. A transaction has no in-between, so packets see none of this;
//! the order only keeps every single command legal.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use super::table::{Atom, Chain, Hook, Key, Map, Rule, Table, Tables, Value};
use crate::kernel::state::NftFamily;

/// A non-empty list of commands that belong together. Prints as a script for `nft -f -`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// In this order, in one transaction.
    pub commands: Vec<Command>,
}

/// One command at one table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    /// Family of the table.
    pub family: NftFamily,
    /// Name of the table.
    pub table: String,
    /// What to do there.
    pub verb: Verb,
}

/// What a command does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verb {
    /// Makes the table.
    AddTable,
    /// Deletes the table with all that is in it.
    DeleteTable,
    /// Makes an empty chain, at a hook or not.
    AddChain(String, Option<Hook>),
    /// Deletes all rules of a chain.
    FlushChain(String),
    /// Deletes a chain nothing points to.
    DeleteChain(String),
    /// Appends a rule to a chain.
    AddRule(String, Rule),
    /// Makes an empty set or map; the elements in the value are not looked at.
    AddMap(String, Map),
    /// Deletes all elements.
    FlushMap(Noun, String),
    /// Deletes a set or map nothing refers to.
    DeleteMap(Noun, String),
    /// Adds elements.
    AddElements(String, Vec<(Key, Option<Value>)>),
    /// Deletes elements.
    DeleteElements(String, Vec<Key>),
}

/// What nft calls it; it insists on the right word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Noun {
    /// Keys alone.
    Set,
    /// Keys with values.
    Map,
}

impl fmt::Display for Noun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Noun::Set => "set",
            Noun::Map => "map",
        })
    }
}

/// One element that differs, in a set or map without intervals.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ElementChange {
    /// Family of the table.
    pub family: NftFamily,
    /// Name of the table.
    pub table: String,
    /// Name of the set or map.
    pub map: String,
    /// Which element.
    pub key: Key,
    /// What to do with it.
    pub to: Edit,
}

/// What happens to an element.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Edit {
    /// It is new; the value is `None` in a set. An equal one already there is no error; one with another value is.
    Add(Option<Value>),
    /// It gets another value, without a moment between.
    Replace(Option<Value>),
    /// It goes.
    Remove,
}

impl fmt::Display for ElementChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let command = |verb| Command { family: self.family, table: self.table.clone(), verb };
        let add = |value: &Option<Value>| {
            command(Verb::AddElements(self.map.clone(), vec![(self.key.clone(), value.clone())]))
        };
        let delete = || command(Verb::DeleteElements(self.map.clone(), vec![self.key.clone()]));
        match &self.to {
            Edit::Add(value) => write!(f, "{}", add(value)),
            Edit::Replace(value) => write!(f, "{}; {}", delete(), add(value)),
            Edit::Remove => write!(f, "{}", delete()),
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.commands.iter().try_for_each(|command| writeln!(f, "{command}"))
    }
}

/// What turns `observed` into `desired`; `None` if they are equal. Applying it and observing again gives `desired`.
///
/// Whatever is in `observed` and not in `desired` is deleted, so `observed` must hold tables of ours only.
pub fn change(observed: &Tables, desired: &Tables) -> Option<Change> {
    let mut commands = Vec::new();
    for (family, name) in observed.keys().chain(desired.keys()).collect::<BTreeSet<_>>() {
        let place = (*family, name.clone());
        let verbs = match (observed.get(&place), desired.get(&place)) {
            (Some(_), None) => vec![Verb::DeleteTable],
            (Some(is), Some(should)) if is.is_dormant() => {
                // Waking a table up and changing its base chains do not mix in one transaction; deleting and loading do.
                let anew = table_verbs(&Table::default(), should);
                [Verb::DeleteTable, Verb::AddTable].into_iter().chain(anew).collect()
            }
            (Some(is), Some(should)) => table_verbs(is, should),
            (None, Some(should)) => {
                [Verb::AddTable].into_iter().chain(table_verbs(&Table::default(), should)).collect()
            }
            (None, None) => Vec::new(),
        };
        let here = verbs.into_iter().map(|verb| Command { family: *family, table: name.clone(), verb });
        commands.extend(here);
    }
    (!commands.is_empty()).then_some(Change { commands })
}

impl Change {
    /// The same as single elements, if nothing but elements of sets and maps without intervals differs.
    pub fn elements_only(&self) -> Option<Vec<ElementChange>> {
        let mut edits: BTreeMap<(NftFamily, &str, &str, &Key), Edit> = BTreeMap::new();
        for command in &self.commands {
            let at = |map, key| (command.family, command.table.as_str(), map, key);
            match &command.verb {
                Verb::DeleteElements(map, keys) => {
                    edits.extend(keys.iter().map(|key| (at(map.as_str(), key), Edit::Remove)));
                }
                Verb::AddElements(map, elements) => {
                    for (key, value) in elements {
                        if key.iter().any(|atom| matches!(atom, Atom::Range(..))) {
                            return None;
                        }
                        let place = at(map.as_str(), key);
                        let edit = match edits.get(&place) {
                            Some(Edit::Remove) => Edit::Replace(value.clone()),
                            _ => Edit::Add(value.clone()),
                        };
                        edits.insert(place, edit);
                    }
                }
                _ => return None,
            }
        }
        let change = |((family, table, map, key), to): ((NftFamily, &str, &str, &Key), Edit)| ElementChange {
            family,
            table: table.to_owned(),
            map: map.to_owned(),
            key: key.clone(),
            to,
        };
        Some(edits.into_iter().map(change).collect())
    }
}

impl Table {
    fn is_dormant(&self) -> bool {
        self.chains.values().filter_map(|chain| chain.hook.as_ref()).any(|hook| hook.kind.contains("dormant"))
    }
}

/// Commands inside one table, in groups by the order the module's head argues for.
fn table_verbs(is: &Table, should: &Table) -> Vec<Verb> {
    let mut verbs = Vec::new();
    // A map whose type differs is made anew; the chains whose rules refer to it let go of it meanwhile.
    let rebuilt = |name: &String, map: &Map| is.maps.get(name).is_some_and(|old| !old.same_type(map));
    let anew: BTreeSet<&str> =
        should.maps.iter().filter(|(name, map)| rebuilt(name, map)).map(|(name, _)| name.as_str()).collect();
    let rewritten: BTreeSet<&str> = should
        .chains
        .iter()
        .filter(|(name, chain)| is.chains.get(*name) != Some(*chain) || chain.refers_to_any(&anew))
        .map(|(name, _)| name.as_str())
        .collect();

    // Let go.
    for (name, old) in &is.chains {
        let goes = !should.chains.contains_key(name) || rewritten.contains(name.as_str());
        if goes && !old.rules.is_empty() {
            verbs.push(Verb::FlushChain(name.clone()));
        }
    }
    for (name, old) in &is.maps {
        verbs.extend(
            should.maps.get(name).filter(|new| old.same_type(new)).and_then(|new| old.emptied(name, new)),
        );
    }
    // Delete what nothing points to any more.
    let kept = |name: &String| should.maps.contains_key(name) && !anew.contains(name.as_str());
    for (name, old) in is.maps.iter().filter(|(name, _)| !kept(name)) {
        verbs.push(Verb::DeleteMap(old.noun(), name.clone()));
    }
    let moved = |name: &String, old: &Chain| should.chains.get(name).is_none_or(|new| new.hook != old.hook);
    for (name, _) in is.chains.iter().filter(|(name, old)| moved(name, old)) {
        verbs.push(Verb::DeleteChain(name.clone()));
    }
    // Make what is new, then what points to it.
    for (name, new) in &should.chains {
        if is.chains.get(name).is_none_or(|old| old.hook != new.hook) {
            verbs.push(Verb::AddChain(name.clone(), new.hook.clone()));
            // A chain at a device goes with the device in some kernels and outlives it in others (6.18): a caller that
            // has just deleted the device cannot know, and must not add rules to what is still there.
            if new.hook.as_ref().is_some_and(|hook| hook.device.is_some()) {
                verbs.push(Verb::FlushChain(name.clone()));
            }
        }
    }
    for (name, new) in &should.maps {
        let old = is.maps.get(name).filter(|old| old.same_type(new));
        if old.is_none() {
            verbs.push(Verb::AddMap(name.clone(), Map { elements: BTreeMap::new(), ..new.clone() }));
        }
        verbs.extend(new.filled(name, old));
    }
    for name in rewritten {
        let rules = should.chains.get(name).map(|chain| chain.rules.as_slice()).unwrap_or_default();
        verbs.extend(rules.iter().map(|rule| Verb::AddRule(name.to_owned(), rule.clone())));
    }
    verbs
}

impl Chain {
    fn refers_to_any(&self, maps: &BTreeSet<&str>) -> bool {
        let name_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '/' | '\\');
        self.rules
            .iter()
            .flat_map(|rule| rule.text.split('@').skip(1))
            .any(|after| maps.contains(after.split(|c| !name_part(c)).next().unwrap_or_default()))
    }
}

impl Map {
    /// What nft calls it.
    pub(super) fn noun(&self) -> Noun {
        if self.value.is_some() { Noun::Map } else { Noun::Set }
    }

    fn same_type(&self, other: &Map) -> bool {
        (&self.key, self.value, self.interval) == (&other.key, other.value, other.interval)
    }

    /// What must leave this map on its way to `new`.
    ///
    /// An interval map is emptied and filled anew: nft 1.0 judges an added range by what it saw before the transaction.
    fn emptied(&self, name: &str, new: &Map) -> Option<Verb> {
        if self.interval {
            let differs = self.elements != new.elements && !self.elements.is_empty();
            return differs.then(|| Verb::FlushMap(self.noun(), name.to_owned()));
        }
        let gone = self.elements.iter().filter(|(key, value)| new.elements.get(*key) != Some(*value));
        let keys: Vec<Key> = gone.map(|(key, _)| key.clone()).collect();
        (!keys.is_empty()).then(|| Verb::DeleteElements(name.to_owned(), keys))
    }

    /// What must enter this map, coming from `old`.
    fn filled(&self, name: &str, old: Option<&Map>) -> Option<Verb> {
        let kept = old.filter(|old| !self.interval || old.elements == self.elements);
        let there =
            |key: &Key, value: &Option<Value>| kept.is_some_and(|old| old.elements.get(key) == Some(value));
        let new = self.elements.iter().filter(|(key, value)| !there(key, value));
        let new: Vec<(Key, Option<Value>)> = new.map(|(key, value)| (key.clone(), value.clone())).collect();
        (!new.is_empty()).then(|| Verb::AddElements(name.to_owned(), new))
    }
}
