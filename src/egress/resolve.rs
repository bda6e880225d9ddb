//! From what is known to what each pod's traffic does.
//!
//! In: a view and the pods asked for. Out: one decision per pod, with its reason, and the problems met on the way. Never:
//! guesses. What cannot be obeyed is held, never leaked, and one bad object never changes another pod's decision.
//!
//! Precedence: host-network pods and gateways are never redirected. Then three tiers: enforced policies that select the pod; its
//! annotations, else its namespace's; other policies that select it. What none decides goes direct.
//!
//! [`Live`] keeps what it knows while pods come, change and go that are no gateways: nothing that it remembers depends on them.

use std::borrow::Borrow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use crate::addr::{Cidr, Family};
use crate::egress::annotations;
use crate::egress::candidates::{Gateways, Lack};
use crate::egress::gateway;
use crate::egress::model::{
    Action, Decision, NodeGateway, Outcome, Pod, PodName, Resolution, Role, Source, View,
};
use crate::egress::node_gateways;
use crate::egress::policy::Policy;
use crate::problem::Problem;

mod answers;
mod asked;
mod goals;
mod live;
mod policies;
mod standing;
mod tiers;
mod wishes;

use answers::{Answer, Blend};
use asked::Asked;
use goals::Goals;
pub use live::Live;
use policies::{Policies, Selecting};
use standing::Standing;
use tiers::Goal;
use wishes::{Asking, ClientNamespace, Wish};

/// Decides for each of the pods. A pod without an object is one without labels and annotations: its namespace's count.
pub fn resolve(view: &View, pods: impl IntoIterator<Item = PodName>) -> Resolution {
    let mut resolver = Resolver::of(view);
    let decisions: Vec<(PodName, Decision)> =
        pods.into_iter().map(|pod| (pod.clone(), resolver.decide(&pod))).collect();
    let node_gateways = resolver.known.goals.node_gateways().clone();
    Resolution { decisions: decisions.into_iter().collect(), node_gateways, problems: resolver.said.problems }
}

/// Every node gateway that any policy asks for, used or not, by key; and what is wrong with those that cannot be. Each node wires
/// those whose `node` is itself.
pub fn node_gateways(view: &View) -> (BTreeMap<String, NodeGateway>, Vec<Problem>) {
    node_gateways::all(view)
}

/// What a client lacks that is held for want of a gateway; `None` if the rule is held for another reason, or not at all.
pub(super) fn lack(view: &View, pod: &PodName, rule: Cidr) -> Option<Lack> {
    let mut known = Known::of(view);
    let (decision, _) = known.decide(view, pod);
    let outcome = decision.rules.get(&rule).filter(|outcome| matches!(outcome.action, Action::Held(_)))?;
    // Every pod that has rules has a blend, unless an object cannot be read: then there is none at all.
    let goal = known.blends.last()?.rules.get(&rule)?.goal.clone();
    match goal {
        Goal::Gateways(goal) => known.goals.lack(view, goal, &outcome.candidates, pod, rule.family()),
        _ => None,
    }
}

/// The binding of every pod all of whose traffic is held because its objects cannot be obeyed.
const HELD: &str = "held";

/// Reason of the problem that a selected pod shares its node's network.
pub const HOST_NETWORK_SELECTED: &str = "HostNetworkSelected";

/// Decides pod by pod, and remembers what pods have in common. `V` is a [`View`], owned or lent.
pub struct Resolver<V> {
    view: V,
    known: Known,
    said: Said,
}

/// What decisions have in common, for who has the view by turns with others.
pub struct Common {
    known: Known,
    decided: usize,
    asks_for_nodes: bool,
}

impl Common {
    /// So many, and what is remembered of labels and annotations is forgotten.
    const MOST: usize = 2_000;

    /// Reads a view's policies.
    pub fn of(view: &View) -> Common {
        Common { known: Known::of(view), decided: 0, asks_for_nodes: view.asks_for_nodes() }
    }

    /// As [`View::asks_for_nodes`].
    pub fn asks_for_nodes(&self) -> bool {
        self.asks_for_nodes
    }

    /// What one pod does, by a view that differs from the first one in pods without endpoints alone, and in which namespaces it has of those
    /// that there are.
    pub fn decide(&mut self, view: &View, pod: &PodName) -> Decision {
        if self.decided == Common::MOST {
            *self = Common::of(view);
        }
        self.decided += 1;
        self.known.decide(view, pod).0
    }
}

/// All that is remembered of a view.
struct Known {
    gateways: Gateways,
    policies: Policies,
    goals: Goals,
    namespaces: HashMap<String, ClientNamespace>,
    /// Positions in `asked`, by the annotations' texts.
    texts: HashMap<String, u32>,
    asked: Vec<Arc<Result<Asking, Problem>>>,
    alike: HashMap<(Arc<Selecting>, Option<u32>), u32>,
    blends: Vec<Arc<Blend>>,
    answers: HashMap<(u32, Standing), Answer>,
    /// Rules that are the same in namespaces that all pools admit.
    shared: HashMap<(u32, Standing), Rules>,
    /// What is wrong with the objects that the decision being made depends on.
    notes: Notes,
}

/// Problems, in lists that many decisions have in common.
type Notes = Vec<Arc<Vec<Problem>>>;

type Rules = Arc<BTreeMap<Cidr, Outcome>>;

impl<V: Borrow<View>> Resolver<V> {
    /// Reads a view's policies and gateways; pods only when they are asked for.
    pub fn of(view: V) -> Resolver<V> {
        let known = Known::of(view.borrow());
        Resolver { view, known, said: Said::default() }
    }

    /// What one pod does.
    pub fn decide(&mut self, pod: &PodName) -> Decision {
        let (decision, notes) = self.known.decide(self.view.borrow(), pod);
        self.said.say(&notes);
        decision
    }

    /// Problems met so far, each once, in the order found.
    pub fn problems(&self) -> &[Problem] {
        &self.said.problems
    }
}

impl Known {
    fn of(view: &View) -> Known {
        Known {
            gateways: Gateways::of(view),
            policies: Policies::of(view),
            goals: Goals::default(),
            namespaces: HashMap::new(),
            texts: HashMap::new(),
            asked: Vec::new(),
            alike: HashMap::new(),
            blends: Vec::new(),
            answers: HashMap::new(),
            shared: HashMap::new(),
            notes: Notes::new(),
        }
    }

    /// A pod's decision, and what is wrong with the objects that it depends on.
    fn decide(&mut self, view: &View, pod: &PodName) -> (Decision, Notes) {
        let decision = self.decision(view, pod);
        (decision, std::mem::take(&mut self.notes))
    }

    fn note(&mut self, problems: &Arc<Vec<Problem>>) {
        if !problems.is_empty() {
            self.notes.push(Arc::clone(problems));
        }
    }

    fn say(&mut self, problem: &Problem, object: &str) {
        self.notes.push(Arc::new(vec![named(problem, object)]));
    }

    fn decision(&mut self, view: &View, pod: &PodName) -> Decision {
        let object = view.pods.get(pod);
        self.meet_namespace(view, &pod.namespace);
        // Whose annotations do not concern us is asked none of the questions about them.
        let annotated = object.filter(|object| annotations::concern_us(&object.annotations));
        let wish = self.wish(view, pod, annotated);
        let selecting = self.policies.selecting(view, pod, object);
        self.say_what_a_gateway_lacks(view, pod, annotated);
        if object.is_some_and(|object| object.host_network) {
            let policy = selecting.first().and_then(|first| self.policies.get(view, first));
            let selected_by = wish.map(|wish| wish.source).or(policy.map(selected_by));
            return self.host_network(pod, selected_by);
        }
        // Only who holds an endpoint is exempt. Asking alone would let a running client annotate its way past its namespace's
        // rules; a pod that may become a gateway gets its endpoint within its own ADD.
        if self.gateways.holds(pod) {
            return outside_of_rules(pod, Role::Gateway, None);
        }
        if let Some(object) = self.unreadable(view, pod) {
            let why = format!("{object} cannot be read, so nobody knows where this pod may send: correct it");
            let answer = Answer { rules: held(&why), binding: HELD.to_owned() };
            return client(pod, answer, Some(Source { object, field: String::new(), value: String::new() }));
        }
        if wish.is_none() && *selecting == Selecting::default() {
            return outside_of_rules(pod, Role::Unselected, None);
        }
        self.selected(view, pod, object, wish, selecting)
    }

    fn selected(
        &mut self,
        view: &View,
        pod: &PodName,
        object: Option<&Pod>,
        wish: Option<Wish>,
        selecting: Arc<Selecting>,
    ) -> Decision {
        let asked = wish.as_ref().map(|wish| wish.asked);
        if let Some(Wish { asked, source }) = &wish
            && let Err(problem) = &*self.asked[*asked as usize]
        {
            let problem = named(problem, &source.object);
            self.notes.push(Arc::new(vec![problem]));
        }
        let number = self.blend(view, selecting, asked);
        let blend = Arc::clone(&self.blends[number as usize]);
        self.note(&blend.lost);
        let source = wish.map(|wish| wish.source).or(blend.selected_by.clone());
        if blend.rules.is_empty() {
            return outside_of_rules(pod, Role::Unselected, source);
        }
        client(pod, self.answer(view, number, &blend, pod, object), source)
    }

    fn host_network(&mut self, pod: &PodName, selected_by: Option<Source>) -> Decision {
        if let Some(source) = &selected_by {
            let message = format!(
                "shares its node's network, so it cannot be given an egress address, and leaves as the node: it is \
                 selected by {} `{}`; leave it out, or remove spec.hostNetwork",
                source.object, source.field
            );
            self.say(&Problem::new("", HOST_NETWORK_SELECTED, message), &format!("Pod {pod}"));
        }
        outside_of_rules(pod, Role::HostNetwork, selected_by)
    }

    /// What is wrong with a pod's wish to be a gateway.
    fn say_what_a_gateway_lacks(&mut self, view: &View, pod: &PodName, object: Option<&Pod>) {
        let Some(object) = object else { return };
        match gateway::wanted(view, pod, object.node.as_deref().unwrap_or_default()) {
            Ok(wish) => {
                let problems = wish.iter().flat_map(|wish| &wish.problems);
                problems.for_each(|problem| self.say(problem, &problem.object));
            }
            Err(problem) => self.say(&problem, &problem.object),
        }
    }

    /// The object that exists, matters for this pod and cannot be understood.
    fn unreadable(&self, view: &View, pod: &PodName) -> Option<String> {
        if view.broken.is_empty() {
            return None;
        }
        if self.namespaces.get(&pod.namespace).is_some_and(|namespace| namespace.broken) {
            return Some(format!("Namespace {}", pod.namespace));
        }
        let object = format!("Pod {pod}");
        view.broken.contains(&object).then_some(object)
    }
}

fn position(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

fn selected_by(policy: &Policy) -> Source {
    Source { object: policy.object(), field: "spec.selectors".to_owned(), value: String::new() }
}

fn unfit_sentence(object: &str, problem: &Problem) -> String {
    format!("{object} cannot be obeyed, so what it should decide is held: {}", problem.sentence())
}

fn client(pod: &PodName, answer: Answer, source: Option<Source>) -> Decision {
    let Answer { rules, binding } = answer;
    Decision { pod: pod.clone(), role: Role::Client, rules, decided_by: source, binding }
}

/// A pod that no rule concerns.
fn outside_of_rules(pod: &PodName, role: Role, decided_by: Option<Source>) -> Decision {
    Decision { pod: pod.clone(), role, rules: Arc::default(), decided_by, binding: String::new() }
}

fn held(sentence: &str) -> Rules {
    let action = || Action::Held(sentence.to_owned());
    let outcome = || Outcome { action: action(), candidates: Arc::default(), decided_by: None };
    Arc::new(Family::BOTH.into_iter().map(|family| (family.everything(), outcome())).collect())
}

fn named(problem: &Problem, object: &str) -> Problem {
    Problem { object: object.to_owned(), ..problem.clone() }
}

/// Problems in the order found, each once.
#[derive(Default)]
struct Said {
    problems: Vec<Problem>,
    known: BTreeSet<Problem>,
    /// Lists that were said already, by their place in memory; they are kept, so that no other takes the place.
    lists: HashMap<*const Vec<Problem>, Arc<Vec<Problem>>>,
}

impl Said {
    fn say(&mut self, notes: &Notes) {
        for list in notes {
            if self.lists.insert(Arc::as_ptr(list), Arc::clone(list)).is_some() {
                continue;
            }
            for problem in list.iter() {
                if self.known.insert(problem.clone()) {
                    self.problems.push(problem.clone());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
