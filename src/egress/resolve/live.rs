//! Decisions that follow one change after another, without asking everyone anew.
//!
//! In: a view and the pods that are asked for; then pods' objects as they change. Out: at any time the [`Resolution`] that
//! [`super::resolve`] would give from nothing, and which decisions a change touched. Never: follows changes of other kinds; a new
//! policy, pool, node or endpoint means a new `Live`.
//!
//! What is remembered of policies and gateways depends on no client, so a client costs its own decision alone. A gateway's pod is
//! another matter: its labels are what others find it by.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::{Known, Notes, Rules};
use crate::egress::model::{Action, Decision, Pod, PodName, Resolution, View};
use crate::problem::Problem;

/// A resolution that is kept.
pub struct Live {
    view: View,
    known: Known,
    resolution: Resolution,
    notes: BTreeMap<PodName, Notes>,
    rules: InUse<Rules>,
    problems: InUse<Arc<Vec<Problem>>>,
}

/// Shared values by their place in memory, and how many decisions have each.
struct InUse<T>(HashMap<usize, (T, usize)>);

impl<T: Clone> InUse<T> {
    /// Whether it is the first.
    fn take(&mut self, place: usize, value: &T) -> bool {
        let (_, count) = self.0.entry(place).or_insert_with(|| (value.clone(), 0));
        *count += 1;
        *count == 1
    }

    /// Whether it was the last.
    fn leave(&mut self, place: usize) -> bool {
        let Some((_, count)) = self.0.get_mut(&place) else { return false };
        *count -= 1;
        let last = *count == 0;
        if last {
            self.0.remove(&place);
        }
        last
    }

    fn values(&self) -> impl Iterator<Item = &T> {
        self.0.values().map(|(value, _)| value)
    }
}

fn place<T>(shared: &Arc<T>) -> usize {
    Arc::as_ptr(shared).addr()
}

impl Live {
    /// Decides for these pods.
    pub fn of(view: View, pods: impl IntoIterator<Item = PodName>) -> Live {
        let mut live = Live {
            known: Known::of(&view),
            view,
            resolution: Resolution::default(),
            notes: BTreeMap::new(),
            rules: InUse(HashMap::new()),
            problems: InUse(HashMap::new()),
        };
        for pod in pods {
            live.put(&pod);
        }
        live.tell(true, true);
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

    /// Puts another object, or none, in place of a pod's; the pods among those asked for whose decisions are others now.
    pub fn replace_pod(&mut self, pod: &PodName, object: Option<Pod>) -> BTreeSet<PodName> {
        match object {
            Some(object) => drop(self.view.pods.insert(pod.clone(), object)),
            None => drop(self.view.pods.remove(pod)),
        }
        if self.known.gateways.concern(pod) {
            return self.again();
        }
        if !self.resolution.decisions.contains_key(pod) {
            return BTreeSet::new();
        }
        let before = self.resolution.decisions.get(pod).cloned();
        let (rules, problems) = self.put(pod);
        self.tell(rules, problems);
        let changed = before.as_ref() != self.resolution.decisions.get(pod);
        changed.then(|| pod.clone()).into_iter().collect()
    }

    /// Everyone anew.
    fn again(&mut self) -> BTreeSet<PodName> {
        let before = std::mem::take(&mut self.resolution.decisions);
        *self = Live::of(std::mem::take(&mut self.view), before.keys().cloned());
        let now = &self.resolution.decisions;
        before
            .into_iter()
            .filter(|(pod, decision)| now.get(pod) != Some(decision))
            .map(|(pod, _)| pod)
            .collect()
    }

    /// Decides for one pod; whether rules came into use or out of it, and whether problems did.
    fn put(&mut self, pod: &PodName) -> (bool, bool) {
        let (decision, notes) = self.known.decide(&self.view, pod);
        let mut rules =
            !decision.rules.is_empty() && self.rules.take(place(&decision.rules), &decision.rules);
        let mut problems = false;
        for note in &notes {
            problems |= self.problems.take(place(note), note);
        }
        let before: Option<Decision> = self.resolution.decisions.insert(pod.clone(), decision);
        if let Some(before) = before.filter(|before| !before.rules.is_empty()) {
            rules |= self.rules.leave(place(&before.rules));
        }
        let before =
            if notes.is_empty() { self.notes.remove(pod) } else { self.notes.insert(pod.clone(), notes) };
        for note in before.iter().flatten() {
            problems |= self.problems.leave(place(note));
        }
        (rules, problems)
    }

    /// Brings up to date what is said of all decisions together.
    fn tell(&mut self, rules: bool, problems: bool) {
        if rules {
            let outcomes = self.rules.values().flat_map(|rules| rules.values());
            let through = outcomes.filter_map(|outcome| match &outcome.action {
                Action::Through(keys) => Some(keys),
                Action::Direct | Action::Held(_) => None,
            });
            let known = self.known.goals.node_gateways();
            let spoken: BTreeSet<&String> = if known.is_empty() {
                BTreeSet::new()
            } else {
                through.flat_map(|keys| keys.iter()).collect()
            };
            let used = known.iter().filter(|(key, _)| spoken.contains(key));
            self.resolution.node_gateways =
                used.map(|(key, gateway)| (key.clone(), gateway.clone())).collect();
        }
        if problems {
            let all: BTreeSet<&Problem> = self.problems.values().flat_map(|list| list.iter()).collect();
            self.resolution.problems = all.into_iter().cloned().collect();
        }
    }
}
