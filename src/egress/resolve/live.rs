//! Decisions that follow one change after another, without asking everyone anew.
//!
//! In: a view and the pods that are asked for; then the next view, or one pod's object. Out: at any time the [`Resolution`] that
//! [`super::resolve`] would give from nothing, and which decisions a change touched. Never: guesses at changes of other kinds; where
//! anything but clients' objects differs, everyone is decided for anew.
//!
//! What is remembered of policies and gateways depends on no client, so a client costs its own decision alone. A gateway's pod is
//! another matter: its labels are what others find it by.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::{Known, Notes, resolve};
use crate::addr::Cidr;
use crate::egress::model::{Action, Outcome, Pod, PodName, Resolution, View};
use crate::problem::Problem;

/// What is remembered of labels and annotations that nobody has any more is not forgotten one by one, but all together: after so
/// many decisions, or one for each pod where there are more.
const MOST_DECISIONS: usize = 2_000;
/// How often a debug build decides for everyone beside it, and compares.
const COMPARED: usize = 16;

/// A resolution that is kept.
pub struct Live {
    view: Arc<View>,
    known: Known,
    resolution: Resolution,
    notes: BTreeMap<PodName, Notes>,
    rules: InUse<BTreeMap<Cidr, Outcome>>,
    problems: InUse<Vec<Problem>>,
    /// Decisions made since everyone was decided for.
    decided: usize,
    followed: usize,
}

/// Shared values by their place in memory, and how many decisions have each.
struct InUse<T> {
    values: HashMap<usize, (Arc<T>, usize)>,
    /// Whether one came into use, or out of it.
    stirred: bool,
}

impl<T> InUse<T> {
    fn none() -> InUse<T> {
        InUse { values: HashMap::new(), stirred: false }
    }

    fn take(&mut self, value: &Arc<T>) {
        let (_, count) =
            self.values.entry(Arc::as_ptr(value).addr()).or_insert_with(|| (Arc::clone(value), 0));
        *count += 1;
        self.stirred |= *count == 1;
    }

    fn leave(&mut self, value: &Arc<T>) {
        let place = Arc::as_ptr(value).addr();
        let Some((_, count)) = self.values.get_mut(&place) else { return };
        *count -= 1;
        if *count == 0 {
            self.values.remove(&place);
            self.stirred = true;
        }
    }

    fn values(&self) -> impl Iterator<Item = &T> {
        self.values.values().map(|(value, _)| &**value)
    }
}

impl Live {
    /// Decides for these pods.
    pub fn of(view: impl Into<Arc<View>>, pods: impl IntoIterator<Item = PodName>) -> Live {
        let view = view.into();
        let mut live = Live {
            known: Known::of(&view),
            view,
            resolution: Resolution::default(),
            notes: BTreeMap::new(),
            rules: InUse::none(),
            problems: InUse::none(),
            decided: 0,
            followed: 0,
        };
        for pod in pods {
            live.put(&pod);
        }
        live.decided = 0;
        live.tell();
        live
    }

    /// The view that is decided by.
    pub fn view(&self) -> &View {
        &self.view
    }

    /// What is decided now. Problems are sorted.
    pub fn resolution(&self) -> &Resolution {
        &self.resolution
    }

    /// Decides by another view, for these pods and no others. Which of them had another decision, or none, and who is asked for no
    /// more; `None`: everyone was decided for anew, because the views differ in more than the objects of pods that are no gateways.
    pub fn follow(&mut self, view: Arc<View>, pods: &BTreeSet<PodName>) -> Option<BTreeSet<PodName>> {
        let touched = pods_between(&self.view, &view)
            .filter(|touched| !touched.iter().any(|pod| self.known.gateways.concern(pod)))
            .filter(|_| self.decided < MOST_DECISIONS.max(self.resolution.decisions.len()));
        let Some(touched) = touched else {
            *self = Live::of(view, pods.iter().cloned());
            return None;
        };
        self.view = view;
        let decided = &self.resolution.decisions;
        let stay = touched.into_iter().filter(|pod| pods.contains(pod) && decided.contains_key(pod));
        let asked_for = pods.iter().map(|pod| (pod, ()));
        let moved = apart(decided.keys().map(|pod| (pod, ())), asked_for, |(), ()| true);
        let (come, left): (Vec<&PodName>, Vec<&PodName>) =
            moved.into_iter().partition(|pod| pods.contains(pod));
        let left: Vec<PodName> = left.into_iter().cloned().collect();
        let asked: Vec<PodName> = stay.chain(come.into_iter().cloned()).collect();
        let mut changed: BTreeSet<PodName> = asked.into_iter().filter(|pod| self.put(pod)).collect();
        left.iter().for_each(|pod| self.forget(pod));
        changed.extend(left);
        self.tell();
        self.followed += 1;
        if cfg!(debug_assertions) && self.followed.is_multiple_of(COMPARED) {
            self.compare();
        }
        Some(changed)
    }

    /// Puts another object, or none, in place of a pod's; the pods among those asked for whose decisions are others now.
    pub fn replace_pod(&mut self, pod: &PodName, object: Option<Pod>) -> BTreeSet<PodName> {
        let view = Arc::make_mut(&mut self.view);
        match object {
            Some(object) => drop(view.pods.insert(pod.clone(), object)),
            None => drop(view.pods.remove(pod)),
        }
        if self.known.gateways.concern(pod) {
            return self.again();
        }
        if !self.resolution.decisions.contains_key(pod) {
            return BTreeSet::new();
        }
        let changed = self.put(pod);
        self.tell();
        changed.then(|| pod.clone()).into_iter().collect()
    }

    /// Everyone anew.
    fn again(&mut self) -> BTreeSet<PodName> {
        let before = std::mem::take(&mut self.resolution.decisions);
        *self = Live::of(Arc::clone(&self.view), before.keys().cloned());
        let now = &self.resolution.decisions;
        before
            .into_iter()
            .filter(|(pod, decision)| now.get(pod) != Some(decision))
            .map(|(pod, _)| pod)
            .collect()
    }

    /// Decides for one pod; whether it had another decision, or none.
    fn put(&mut self, pod: &PodName) -> bool {
        self.decided += 1;
        let (decision, notes) = self.known.decide(&self.view, pod);
        if !decision.rules.is_empty() {
            self.rules.take(&decision.rules);
        }
        notes.iter().for_each(|note| self.problems.take(note));
        let changed = self.resolution.decisions.get(pod) != Some(&decision);
        self.forget(pod);
        self.resolution.decisions.insert(pod.clone(), decision);
        if !notes.is_empty() {
            self.notes.insert(pod.clone(), notes);
        }
        changed
    }

    fn forget(&mut self, pod: &PodName) {
        if let Some(before) = self.resolution.decisions.remove(pod) {
            self.rules.leave(&before.rules);
        }
        for note in self.notes.remove(pod).iter().flatten() {
            self.problems.leave(note);
        }
    }

    /// Brings up to date what is said of all decisions together.
    fn tell(&mut self) {
        if std::mem::take(&mut self.rules.stirred) {
            let known = self.known.goals.node_gateways();
            let outcomes = self.rules.values().filter(|_| !known.is_empty()).flat_map(BTreeMap::values);
            let spoken: BTreeSet<&String> = outcomes
                .filter_map(|outcome| match &outcome.action {
                    Action::Through(keys) => Some(keys.iter()),
                    Action::Direct | Action::Held(_) => None,
                })
                .flatten()
                .collect();
            let used = known.iter().filter(|(key, _)| spoken.contains(key));
            self.resolution.node_gateways =
                used.map(|(key, gateway)| (key.clone(), gateway.clone())).collect();
        }
        if std::mem::take(&mut self.problems.stirred) {
            let all: BTreeSet<&Problem> = self.problems.values().flatten().collect();
            self.resolution.problems = all.into_iter().cloned().collect();
        }
    }

    /// That nothing was missed.
    fn compare(&self) {
        let mut anew = resolve(&self.view, self.resolution.decisions.keys().cloned());
        anew.problems.sort();
        debug_assert_eq!(self.resolution, anew, "decisions that followed are not those from nothing");
    }
}

/// The pods whose objects differ; `None` where anything else does.
fn pods_between(before: &View, now: &View) -> Option<BTreeSet<PodName>> {
    // Taken apart whole, so that what is added to a view is not forgotten here.
    let View {
        pods,
        support,
        cluster_cidrs,
        namespaces,
        nodes,
        pools,
        policies,
        cilium_policies,
        interfaces,
        service_cidrs,
        api_servers,
        endpoints,
        broken,
        subnets: _, // no decision asks
    } = before;
    let same = *support == now.support
        && *cluster_cidrs == now.cluster_cidrs
        && *service_cidrs == now.service_cidrs
        && *api_servers == now.api_servers
        && *broken == now.broken
        && *endpoints == now.endpoints
        && *nodes == now.nodes
        && *interfaces == now.interfaces
        && *pools == now.pools
        && *namespaces == now.namespaces
        && *policies == now.policies
        && *cilium_policies == now.cilium_policies;
    if !same {
        return None;
    }
    Some(apart(pods.iter(), now.pods.iter(), |before, now| before == now).into_iter().cloned().collect())
}

/// The keys of two sorted runs that only one of them has, or whose values differ. One step per key: a look into a tree of ten thousand names
/// for each of them took longer than all comparisons.
fn apart<'k, K: Ord, V: Copy>(
    before: impl Iterator<Item = (&'k K, V)>,
    now: impl Iterator<Item = (&'k K, V)>,
    same: impl Fn(V, V) -> bool,
) -> Vec<&'k K> {
    let (mut before, mut now, mut found) = (before.peekable(), now.peekable(), Vec::new());
    loop {
        let order = match (before.peek(), now.peek()) {
            (None, None) => return found,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some((one, _)), Some((other, _))) => one.cmp(other),
        };
        let one = if order.is_le() { before.next() } else { None };
        let other = if order.is_ge() { now.next() } else { None };
        match (one, other) {
            (Some((_, one)), Some((_, other))) if same(one, other) => {}
            (Some((key, _)), _) | (None, Some((key, _))) => found.push(key),
            (None, None) => {}
        }
    }
}
