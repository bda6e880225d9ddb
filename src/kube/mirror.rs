//! What a cluster's objects are, as far as they were heard of. Pure.
//!
//! In: lists and events, one kind at a time. Out: whether anything changed, readings for [`crate::store::objects::Objects::of`], and
//! endpoints. A kind that we may no longer see, or that the server no longer knows, keeps what was last heard: nothing is
//! removed because of it, and [`Mirror::lost`] says why. Neither does an object go with its definition: what is deleted because
//! the definition was, and what is not there because it was made anew, stays in force.

mod kept;
mod object;
mod records;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::egress::serving::Life;
use crate::kube::foreign;
use crate::kube::watched::{Reach, Watched};
use kept::Kept;
pub use object::{ids, made};
use object::{life, name, names_a_server, pruned, told};
pub use records::NodeSpec;

/// The namespace that no cluster loses: by its UID it is known.
const OF_THE_CLUSTER: &str = "kube-system";

/// The objects of a cluster, as far as somebody needs them.
#[derive(Debug, Default)]
pub struct Mirror {
    reach: Reach,
    kinds: BTreeMap<Watched, Kept>,
    /// How pods are. Apart from the objects: nothing else depends on it, and a pod that becomes ready is no reason to plan.
    lives: BTreeMap<String, (Vec<String>, Life)>,
}

/// What is kept of an object.
#[derive(Debug)]
pub struct Seen {
    name: String,
    now: Value,
    told: Option<String>,
    life: (Vec<String>, Life),
}

impl Seen {
    /// Of this object, as far as somebody needs it.
    pub fn of(reach: &Reach, kind: Watched, object: &Value) -> Seen {
        Seen {
            name: name(object),
            now: pruned(reach, kind, object),
            told: told(object),
            life: (ids(object).map(str::to_owned).collect(), life(object)),
        }
    }
}

impl Mirror {
    /// Nothing yet.
    pub fn of(reach: Reach) -> Mirror {
        Mirror { reach, ..Mirror::default() }
    }

    /// Whose it is.
    pub fn reach(&self) -> &Reach {
        &self.reach
    }

    /// A whole list, of the version that was [`reached`](Mirror::reached): what is not in it is gone. Says whether anything changed.
    pub fn listed(&mut self, kind: Watched, items: &[Value]) -> bool {
        let seen = items.iter().map(|item| Seen::of(&self.reach, kind, item)).collect();
        self.seen(kind, seen)
    }

    /// The same, of what was kept of each object as it came.
    pub fn seen(&mut self, kind: Watched, items: Vec<Seen>) -> bool {
        let mut lives = BTreeMap::new();
        let (mut objects, mut told) = (BTreeMap::new(), BTreeMap::new());
        for item in items {
            if kind == Watched::Pods {
                lives.insert(item.name.clone(), item.life);
            }
            told.extend(item.told.map(|text| (item.name.clone(), text)));
            objects.insert(item.name, item.now);
        }
        if kind == Watched::ApiServers && !objects.values().any(names_a_server) {
            objects = self.objects(kind).map(|(name, known)| (name.to_owned(), known.clone())).collect();
        }
        if kind == Watched::Namespaces && self.is_another_cluster(&objects) {
            // The node was in that one before. Definitions are younger here than what is remembered, and none of it waits to be made again.
            self.kinds.values_mut().for_each(Kept::is_elsewhere);
        }
        let changed = self.kept(kind).listed(objects, told);
        if kind == Watched::Pods {
            // What is ahead of the list is there, and is as it was when it was asked for.
            let ahead = self.kinds.get(&kind).into_iter().flat_map(Kept::ahead);
            lives.extend(ahead.filter_map(|name| Some((name.clone(), self.lives.get(name)?.clone()))));
        }
        let lived = kind == Watched::Pods && lives != self.lives;
        if lived {
            self.lives = lives;
        }
        changed || lived
    }

    fn is_another_cluster(&self, namespaces: &BTreeMap<String, Value>) -> bool {
        let uid = |namespace: &'_ Value| namespace["metadata"]["uid"].as_str().map(str::to_owned);
        let known = self.object(Watched::Namespaces, OF_THE_CLUSTER).and_then(uid);
        known.is_some() && namespaces.get(OF_THE_CLUSTER).and_then(uid).is_some_and(|now| Some(now) != known)
    }

    /// A watch begins.
    pub fn watched(&mut self, kind: Watched) {
        self.kept(kind).watches += 1;
    }

    /// How many lists were read and watches begun.
    pub fn begun(&self, kind: Watched) -> (u64, u64) {
        self.kinds.get(&kind).map_or((0, 0), |kept| (kept.lists, kept.watches))
    }

    /// List or watch have come to this version: whatever was written before is known.
    pub fn reached(&mut self, kind: Watched, version: &str) {
        self.kept(kind).reached(version);
    }

    /// The server's store has come to this version only. If more was heard of, it was put back to an earlier state: versions count anew,
    /// or whatever is written from now on would be older than what is known.
    pub fn is_put_back(&mut self, kind: Watched, version: &str) {
        self.kept(kind).is_put_back(version);
    }

    /// The version that list and watch have come to, here or in an earlier process; 0: none was heard of. A server's memory may be older: what
    /// it says from there would take back what is known.
    pub fn version(&self, kind: Watched) -> u64 {
        self.kinds.get(&kind).map_or(0, |kept| kept.reached.max(kept.stood))
    }

    /// The newest version that anything known of a kind is of: an object that was asked for by itself may be ahead of list and watch.
    pub fn newest(&self, kind: Watched) -> u64 {
        self.kinds.get(&kind).map_or(0, Kept::newest)
    }

    /// An earlier process had come to this version.
    pub fn stood(&mut self, kind: Watched, version: u64) {
        self.kept(kind).stood = version;
    }

    /// One object is there, or has changed. Says whether in anything that matters here.
    pub fn is(&mut self, kind: Watched, object: &Value) -> bool {
        if kind == Watched::ApiServers && !names_a_server(object) {
            return false;
        }
        let now = pruned(&self.reach, kind, object);
        let Some(changed) = self.kept(kind).heard(object, now) else { return false };
        self.live(kind, object) || changed
    }

    /// One object as somebody asked for it by itself. Says whether it is news: the watch may have passed it already.
    pub fn learn(&mut self, kind: Watched, object: &Value) -> bool {
        let now = pruned(&self.reach, kind, object);
        let Some(changed) = self.kept(kind).learnt(object, now) else { return false };
        self.live(kind, object) || changed
    }

    /// One object is gone.
    pub fn gone(&mut self, kind: Watched, object: &Value) -> bool {
        if kind == Watched::ApiServers {
            return false;
        }
        let Some(changed) = self.kept(kind).gone(object) else { return false };
        if kind == Watched::Pods {
            self.lives.remove(&name(object));
        }
        changed
    }

    /// How a pod is, and the UIDs that it goes by; `None`: there is none of this name.
    pub fn life(&self, name: &str) -> Option<(&[String], Life)> {
        self.lives.get(name).map(|(ids, life)| (ids.as_slice(), *life))
    }

    fn live(&mut self, kind: Watched, object: &Value) -> bool {
        if kind != Watched::Pods {
            return false;
        }
        let now = (ids(object).map(str::to_owned).collect(), life(object));
        self.lives.insert(name(object), now.clone()) != Some(now)
    }

    /// The kind cannot be seen any more: forbidden, or unknown to the server. What is known of it stays.
    pub fn cannot_see(&mut self, kind: Watched, why: &str) -> bool {
        self.kept(kind).cannot_be_seen(why, kind.is_new())
    }

    /// The kind's definition goes, or is gone: what goes with it stays in force, now and when the definition is made anew.
    pub fn is_undefined(&mut self, kind: Watched, why: &str) -> bool {
        self.kept(kind).is_undefined();
        self.cannot_see(kind, why)
    }

    /// Objects of a kind that went with their definition, and are in force until others of the kind are there.
    pub fn outlived(&self, kind: Watched) -> impl Iterator<Item = &str> {
        self.kinds.get(&kind).into_iter().flat_map(|kept| kept.outlived.iter().map(String::as_str))
    }

    /// Whether a list would take something away that is known: when the oldest of it was [`made`], the end of time where that is not kept. Not
    /// of what stays in force without its definition already: of that nothing new is lost.
    pub fn would_lose(&self, kind: Watched, items: &[Seen]) -> Option<i64> {
        let kept = self.kinds.get(&kind).filter(|kept| !kept.is_from_elsewhere())?;
        let names: BTreeSet<&String> = items.iter().map(|item| &item.name).collect();
        let mut lost = kept.objects.iter().filter(|(known, _)| !names.contains(known)).peekable();
        lost.peek()?;
        let new = lost.filter(|(name, _)| !kept.outlived.contains(*name));
        Some(new.filter_map(|(_, object)| made(object)).min().unwrap_or(i64::MAX))
    }

    /// A foreign kind is not there, and nobody asked for it: as if there were no object of it. One of which
    /// objects are known keeps them; `undefined`: they are wanted, and its definition is gone, so also when that is made anew.
    pub fn has_none(&mut self, kind: Watched, why: &str, undefined: bool) -> bool {
        match self.kinds.get(&kind) {
            Some(kept) if kept.is_whole() && !kept.objects.is_empty() && undefined => {
                self.kept(kind).goes_on();
                self.is_undefined(kind, why)
            }
            Some(kept) if kept.synced && !kept.objects.is_empty() => self.cannot_see(kind, why),
            _ => self.listed(kind, &[]),
        }
    }

    /// A foreign kind is not for us to see, and nobody asked for it: as if there were no object of it, unless some are known, also by an
    /// earlier process. Its DaemonSet no process hands down: while a project has objects here, nobody says that it is not at work.
    pub fn may_not_see(&mut self, kind: Watched, why: &str) -> bool {
        let has = |kept: &Kept| kept.is_whole() && !kept.objects.is_empty();
        let of_project = |other: Watched| foreign::of(other) == foreign::of(kind);
        let unsaid = !self.is_whole(kind) && foreign::file(kind).is_none();
        match self
            .kinds
            .iter()
            .any(|(other, kept)| has(kept) && (*other == kind || unsaid && of_project(*other)))
        {
            true => self.cannot_see(kind, why),
            false => self.listed(kind, &[]),
        }
    }

    /// What an earlier process knew of a kind when it ended, as it kept it: in force until the kind is listed, or if it cannot be.
    pub fn remember(&mut self, kind: Watched, objects: impl IntoIterator<Item = Value>) {
        let objects = objects.into_iter().map(|object| (name(&object), object)).collect();
        self.kept(kind).remember(objects);
    }

    /// Whether all is known of a kind that was ever heard of.
    pub fn is_whole(&self, kind: Watched) -> bool {
        self.kinds.get(&kind).is_some_and(Kept::is_whole)
    }

    /// Kinds of which all is known that was ever heard of, and their editions: raised with every change that an earlier process did not
    /// know of; 0: there is none.
    pub fn editions(&self) -> impl Iterator<Item = (Watched, u64)> {
        let whole = self.kinds.iter().filter(|(_, kept)| kept.is_whole());
        whole.map(|(kind, kept)| (*kind, kept.generation))
    }

    /// Whether nothing of a kind is still to be heard that was heard of before: all is known, or it cannot be seen just now.
    pub fn is_whole_or_lost(&self, kind: Watched) -> bool {
        self.kinds.get(&kind).is_some_and(|kept| kept.is_whole() || kept.lost(kind).is_some())
    }

    /// Every kind was listed once. Until then nothing may be removed.
    pub fn is_synced(&self) -> bool {
        self.reach.kinds().all(|kind| self.kinds.get(&kind).is_some_and(|kept| kept.synced))
    }

    /// Kinds that cannot be seen just now, with the reason.
    pub fn lost(&self) -> Vec<(Watched, String)> {
        self.kinds.iter().filter_map(|(kind, kept)| Some((*kind, kept.lost(*kind)?))).collect()
    }

    /// Raised with every change of a kind; 0 until it was listed.
    pub fn generation(&self, kind: Watched) -> u64 {
        self.kinds.get(&kind).filter(|kept| kept.synced).map_or(0, |kept| kept.generation)
    }

    /// The objects of a kind, as far as they are read, by `namespace/name` or name.
    pub fn objects(&self, kind: Watched) -> impl Iterator<Item = (&str, &Value)> {
        let kept = self.kinds.get(&kind).into_iter();
        kept.flat_map(|kept| kept.objects.iter().map(|(name, object)| (name.as_str(), object)))
    }

    /// One object.
    pub fn object(&self, kind: Watched, name: &str) -> Option<&Value> {
        self.kinds.get(&kind)?.objects.get(name)
    }

    /// What a pod's annotation tells people of its addresses. Nobody decides by it.
    pub fn told(&self, pod: &str) -> Option<&str> {
        self.kinds.get(&Watched::Pods)?.told.get(pod).map(String::as_str)
    }

    fn kept(&mut self, kind: Watched) -> &mut Kept {
        self.kinds.entry(kind).or_default()
    }
}
