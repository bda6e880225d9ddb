//! From what selects a pod to its rules, once for all that are selected alike.
//!
//! In: the policies that select, and what is asked for. Out: a [`Blend`] of rules as written, and for pods of one standing their
//! [`Answer`]. Never: looks at a pod beyond its standing.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::standing::{self, Needs, Standing};
use super::tiers::{self, Goal, Rule};
use super::wishes::Asking;
use super::{HELD, Known, Rules, Selecting, position, selected_by, unfit_sentence};
use crate::addr::Family;
use crate::egress::model::{Action, Outcome, Pod, PodName, Source, View};
use crate::problem::Problem;

/// Rules of pods that are selected alike, before anyone asks which gateways there are.
pub(super) struct Blend {
    pub(super) rules: tiers::Rules,
    /// The rules as written, in words.
    pub(super) words: String,
    /// The first policy that selects the pod by itself.
    pub(super) selected_by: Option<Source>,
    pub(super) needs: Needs,
    /// Prefixes that lost against another policy's.
    pub(super) lost: Arc<Vec<Problem>>,
}

/// What pods of one standing get.
#[derive(Clone)]
pub(super) struct Answer {
    pub(super) rules: Rules,
    pub(super) binding: String,
}

impl Known {
    /// The rules of pods that these policies select and that ask for this.
    pub(super) fn blend(&mut self, view: &View, selecting: Arc<Selecting>, asked: Option<u32>) -> u32 {
        let key = (selecting, asked);
        if let Some(known) = self.alike.get(&key) {
            return *known;
        }
        let (selecting, _) = &key;
        let asking = asked.map(|asked| Arc::clone(&self.asked[asked as usize]));
        let mut words = Vec::new();
        let mut lost = Vec::new();
        let enforced = self.tier(view, &selecting.enforced, &mut words, &mut lost);
        let annotated = match asking.as_deref() {
            None => tiers::Rules::new(),
            Some(Ok(Asking::Policies(policies))) => self.tier(view, policies, &mut words, &mut lost),
            Some(Ok(Asking::Gateways { goal, words: gateways })) => {
                words.push(gateways.clone());
                let goal = Goal::Gateways(*goal);
                let rule = Rule { goal, source: None, holds_other_family: true, by_default: false };
                Family::BOTH.into_iter().map(|family| (family.everything(), rule.clone())).collect()
            }
            Some(Err(problem)) => {
                words.push(HELD.to_owned());
                tiers::nothing(&problem.sentence(), None)
            }
        };
        let others = self.tier(view, &selecting.others, &mut words, &mut lost);
        let rules = tiers::blend([enforced, annotated, others]);
        let first = selecting.first().and_then(|first| self.policies.get(view, first));
        let needs = self.goals.needs(rules.values().map(|rule| &rule.goal));
        let selected_by = first.map(selected_by);
        let blend = Blend { rules, words: words.join("; then "), selected_by, needs, lost: Arc::new(lost) };
        let number = position(self.blends.len());
        self.blends.push(Arc::new(blend));
        self.alike.insert(key, number);
        number
    }

    /// The rules of some policies together. One that cannot be obeyed holds what all of them decide.
    fn tier(
        &mut self,
        view: &View,
        policies: &[u32],
        words: &mut Vec<String>,
        lost: &mut Vec<Problem>,
    ) -> tiers::Rules {
        let mut policies: Vec<u32> = policies.to_vec();
        policies.sort_unstable();
        let written: Vec<_> = policies.iter().filter_map(|policy| self.policies.get(view, *policy)).collect();
        if written.is_empty() {
            return tiers::Rules::new();
        }
        words.push(written.iter().map(|policy| policy.object()).collect::<Vec<_>>().join(", "));
        if let Some((policy, problem)) =
            written.iter().find_map(|policy| Some((policy, policy.unfit.first()?)))
        {
            let object = policy.object();
            let why = unfit_sentence(&object, problem);
            let source = Source { object, field: problem.field.clone(), value: problem.value.clone() };
            return tiers::nothing(&why, Some(Arc::new(source)));
        }
        let goals = &mut self.goals;
        tiers::tier(
            written.into_iter().map(|policy| (policy, tiers::rules_of(policy, |to| goals.of(view, to)))),
            lost,
        )
    }

    pub(super) fn answer(
        &mut self,
        view: &View,
        number: u32,
        blend: &Blend,
        pod: &PodName,
        object: Option<&Pod>,
    ) -> Answer {
        let namespace = self.namespaces.get(&pod.namespace).map_or(u32::MAX, |namespace| namespace.number);
        let standing = self.goals.standing(&blend.needs, namespace, pod, object);
        let key = (number, standing);
        if let Some(known) = self.answers.get(&key) {
            return known.clone();
        }
        let (_, standing) = &key;
        let binding = standing::binding(&blend.words, standing, &pod.namespace);
        let mut common = standing.clone();
        if self.goals.admit(view, &self.gateways, &blend.needs, &pod.namespace) {
            common.namespace = None;
        }
        let rules = match self.shared.get(&(number, common.clone())) {
            Some(rules) => Arc::clone(rules),
            None => {
                let rules = self.outcomes(view, blend, standing, pod);
                self.shared.insert((number, common), Arc::clone(&rules));
                rules
            }
        };
        let answer = Answer { rules, binding };
        self.answers.insert(key, answer.clone());
        answer
    }

    fn outcomes(&mut self, view: &View, blend: &Blend, standing: &Standing, pod: &PodName) -> Rules {
        let mut outcomes = BTreeMap::new();
        for (cidr, rule) in &blend.rules {
            let (action, candidates) = match &rule.goal {
                Goal::Direct => (Action::Direct, Arc::default()),
                Goal::Held(why) => (Action::Held(why.to_string()), Arc::default()),
                Goal::Gateways(goal) => {
                    self.goals.outcome(view, &self.gateways, *goal, standing, &pod.namespace, cidr.family())
                }
            };
            outcomes.insert(*cidr, Outcome { action, candidates, decided_by: rule.source.clone() });
        }
        Arc::new(outcomes)
    }
}
