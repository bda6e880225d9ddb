//! What is known of one kind: its objects, how it was heard of, and what may not be taken back. Pure.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::object::{name, told, version};
use crate::kube::watched::Watched;

/// The objects of one kind, by `namespace/name` or name.
#[derive(Debug, Default)]
pub(super) struct Kept {
    /// It was listed once.
    pub(super) synced: bool,
    /// Why it cannot be seen just now.
    lost: Option<String>,
    /// Its definition went, and nothing was listed since.
    undefined: bool,
    /// An earlier process heard of these objects, and nothing was listed since.
    remembered: bool,
    /// It heard of them in another cluster.
    elsewhere: bool,
    /// Objects that went with their definition, and are in force all the same.
    pub(super) outlived: BTreeSet<String>,
    /// Lists that were read, watches that were begun.
    pub(super) lists: u64,
    pub(super) watches: u64,
    /// Raised with every change.
    pub(super) generation: u64,
    /// Version that list and watch have come to.
    pub(super) reached: u64,
    /// Version that an earlier process had come to.
    pub(super) stood: u64,
    /// As far as they are read.
    pub(super) objects: BTreeMap<String, Value>,
    /// Versions of objects that were asked for by themselves, and are ahead of the watch.
    ahead: BTreeMap<String, u64>,
    /// What we have told people in an annotation: no part of the objects, or each word would be a change.
    pub(super) told: BTreeMap<String, String>,
}

impl Kept {
    /// What an earlier process knew when it ended; nothing of this process is overwritten.
    pub(super) fn remember(&mut self, objects: BTreeMap<String, Value>) {
        if !self.synced && self.objects.is_empty() {
            (self.remembered, self.objects) = (true, objects);
        }
    }

    /// This is another cluster than an earlier process was in: what is known from there is nothing that was lost here.
    pub(super) fn is_elsewhere(&mut self) {
        self.elsewhere = !self.synced;
        for name in std::mem::take(&mut self.outlived) {
            self.objects.remove(&name);
            self.generation += 1;
        }
    }

    /// Whether a list that lacks objects says that they are gone, and not that somebody is about to make them again.
    pub(super) fn is_from_elsewhere(&self) -> bool {
        self.elsewhere
    }

    /// Whether all is known that was ever heard of, here or by an earlier process.
    pub(super) fn is_whole(&self) -> bool {
        self.synced || self.remembered
    }

    /// Taken as listed: objects of an earlier process go on as those of this one do.
    pub(super) fn goes_on(&mut self) {
        self.generation += u64::from(!self.synced);
        self.synced = true;
    }

    /// A whole list, of the version that was reached: what is not in it is gone. Says whether anything changed.
    pub(super) fn listed(
        &mut self,
        mut objects: BTreeMap<String, Value>,
        told: BTreeMap<String, String>,
    ) -> bool {
        self.told = told;
        // What is ahead of the list is not taken back by it.
        let reached = self.reached;
        self.ahead.retain(|_, seen| *seen > reached);
        for name in self.ahead.keys() {
            objects.extend(self.objects.remove_entry(name));
        }
        // Objects come back one by one: those that are not there yet are not let go meanwhile. An empty list says no more than
        // that the definition is there.
        let anew = self.undefined || (objects.is_empty() && !self.outlived.is_empty());
        self.outlived = match anew {
            true => self.objects.keys().filter(|name| !objects.contains_key(*name)).cloned().collect(),
            false => BTreeSet::new(),
        };
        let outlived = self.outlived.iter().filter_map(|name| self.objects.get_key_value(name));
        objects.extend(outlived.map(|(name, object)| (name.clone(), object.clone())));
        let changed = !self.synced || self.lost.is_some() || self.objects != objects;
        self.generation += u64::from(changed);
        self.lists += 1;
        (self.synced, self.undefined, self.lost, self.objects) = (true, false, None, objects);
        self.elsewhere = false;
        changed
    }

    /// List or watch have come to this version.
    pub(super) fn reached(&mut self, version: &str) {
        self.reached = self.reached.max(version.parse().unwrap_or_default());
    }

    /// Objects that were asked for by themselves, and that the watch has not come to yet.
    pub(super) fn ahead(&self) -> impl Iterator<Item = &String> {
        self.ahead.keys()
    }

    /// The newest version that anything known here is of.
    pub(super) fn newest(&self) -> u64 {
        self.ahead.values().copied().fold(self.reached.max(self.stood), u64::max)
    }

    /// The store has come to this version only.
    pub(super) fn is_put_back(&mut self, version: &str) {
        let version = version.parse().unwrap_or_default();
        if version < self.reached {
            self.reached = version;
            self.ahead.clear();
        }
        self.stood = self.stood.min(version);
    }

    /// An object as the watch tells of it, and as much of it as is read. Says whether that changed; `None`: something newer is known.
    pub(super) fn heard(&mut self, object: &Value, now: Value) -> Option<bool> {
        let name = name(object);
        if self.is_ahead(&name, object) {
            return None;
        }
        self.ahead.remove(&name);
        Some(self.put(name, object, now))
    }

    /// An object as somebody asked for it by itself. Says whether it changed; `None`: the watch has passed it already.
    pub(super) fn learnt(&mut self, object: &Value, now: Value) -> Option<bool> {
        let (name, seen) = (name(object), version(object));
        if seen <= self.reached {
            return None;
        }
        self.ahead.insert(name.clone(), seen);
        Some(self.put(name, object, now))
    }

    /// An object that the watch says is gone. Says whether it was known; `None`: something newer is.
    pub(super) fn gone(&mut self, object: &Value) -> Option<bool> {
        let name = name(object);
        if self.is_ahead(&name, object) {
            return None;
        }
        self.ahead.remove(&name);
        self.told.remove(&name);
        let changed = self.objects.remove(&name).is_some();
        self.generation += u64::from(changed);
        Some(changed)
    }

    fn is_ahead(&self, name: &str, object: &Value) -> bool {
        self.ahead.get(name).is_some_and(|seen| *seen > version(object))
    }

    fn put(&mut self, name: String, object: &Value, now: Value) -> bool {
        self.outlived.remove(&name);
        match told(object) {
            Some(told) => _ = self.told.insert(name.clone(), told),
            None => _ = self.told.remove(&name),
        }
        let changed = self.objects.get(&name) != Some(&now);
        self.generation += u64::from(changed);
        self.objects.insert(name, now);
        changed
    }

    /// It cannot be seen any more. Says whether that is news.
    pub(super) fn cannot_be_seen(&mut self, why: &str, may_be_new: bool) -> bool {
        let changed = self.lost.as_deref() != Some(why);
        self.lost = Some(why.to_owned());
        // Definitions and roles of an earlier release know nothing of it: then there are none, until somebody says otherwise.
        let unknown = may_be_new && !self.synced;
        self.synced |= unknown;
        self.generation += u64::from(unknown);
        changed
    }

    /// Its definition goes, or is gone.
    pub(super) fn is_undefined(&mut self) {
        self.undefined = true;
    }

    /// Why it cannot be seen, or which objects of it stay in force although they are not there.
    pub(super) fn lost(&self, kind: Watched) -> Option<String> {
        let outlived = || {
            let names: Vec<&str> = self.outlived.iter().map(String::as_str).collect();
            let (_, word) = kind.typed();
            let advice = "apply them again; a minute after the first of the kind is there, the others go";
            format!(
                "the definition of {word} was deleted and made anew, and {} stay in force: {advice}",
                names.join(", ")
            )
        };
        self.lost.clone().or_else(|| (!self.outlived.is_empty()).then(outlived))
    }
}
