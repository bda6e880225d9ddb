//! From what is known to what each pod's traffic does.
//!
//! In: a view and the pods asked for. Out: one decision per pod, with its reason, and the problems met on the way. Never:
//! guesses. What cannot be obeyed is held, never leaked, and one bad object never changes another pod's decision.
//!
//! Precedence: host-network pods and gateways are never redirected; then the pod's annotations, else its namespace's;
//! what none decides goes direct. Policies will enter beside [`ClientAnnotations`], as further things that a pod's
//! rules come from, tier by tier; `rules` then makes one outcome per written prefix instead of one per family.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use crate::addr::{Cidr, Family};
use crate::egress::annotations::{self, ClientAnnotations, GatewayQuery};
use crate::egress::candidates::{Gateways, Lack};
use crate::egress::gateway;
use crate::egress::model::{
    Action, Decision, EgressSupport, Outcome, Pod, PodName, Resolution, Role, Source, View,
};
use crate::problem::Problem;

/// Decides for each of the pods. A pod without an object is one without labels and annotations: its namespace's count.
pub fn resolve(view: &View, pods: impl IntoIterator<Item = PodName>) -> Resolution {
    let mut resolver = Resolver::of(view);
    let decisions: Vec<(PodName, Decision)> =
        pods.into_iter().map(|pod| (pod.clone(), resolver.decide(pod))).collect();
    Resolution {
        decisions: decisions.into_iter().collect(),
        node_gateways: BTreeMap::new(),
        problems: resolver.said.problems,
    }
}

/// What a client lacks that is held for want of a gateway; `None` if it is held for another reason, or not at all.
pub(super) fn lack(view: &View, pod: &PodName, family: Family) -> Option<Lack> {
    let mut resolver = Resolver::of(view);
    let decision = resolver.decide(pod.clone());
    let outcome = decision.rules.get(&family.everything())?;
    if decision.role != Role::Client || decision.binding == HELD || !matches!(outcome.action, Action::Held(_))
    {
        return None;
    }
    let query = resolver.wish(pod, view.pods.get(pod))?.annotations.query().ok()?;
    Some(resolver.gateways.lack(&query, &outcome.candidates, &pod.namespace, family))
}

/// The binding of every pod whose traffic is held because its objects cannot be obeyed.
const HELD: &str = "held";

struct Resolver<'a> {
    view: &'a View,
    gateways: Gateways<'a>,
    namespaces: HashMap<String, ClientNamespace<'a>>,
    sought: HashMap<ClientAnnotations<'a>, Result<Sought<'a>, Problem>>,
    said: Said,
}

/// What the pods of one namespace share.
struct ClientNamespace<'a> {
    /// The namespace's own wish.
    annotations: Option<ClientAnnotations<'a>>,
    /// Its object exists and cannot be understood.
    broken: Option<Answer>,
    /// What each wish comes to here. The namespace is part of the question: it is where gateways are sought unless the
    /// wish says otherwise, and pools admit clients by it.
    answers: HashMap<ClientAnnotations<'a>, Answer>,
}

/// What a wish finds, as far as it is the same for clients of every namespace.
struct Sought<'a> {
    query: GatewayQuery,
    /// Gateways, and the pools of their addresses; `None` if they are sought in the client's own namespace.
    everywhere: Option<(Vec<usize>, BTreeSet<&'a str>)>,
    /// The rules of those whom all these pools admit: thousands of namespaces have the same.
    admitted: Option<Rules>,
}

type Rules = Arc<BTreeMap<Cidr, Outcome>>;

/// What a wish comes to.
#[derive(Clone)]
struct Answer {
    rules: Rules,
    binding: String,
    problem: Option<Problem>,
}

impl<'a> Resolver<'a> {
    fn of(view: &'a View) -> Resolver<'a> {
        let (namespaces, sought) = (HashMap::new(), HashMap::new());
        Resolver { view, gateways: Gateways::of(view), namespaces, sought, said: Said::default() }
    }

    fn decide(&mut self, pod: PodName) -> Decision {
        let object = self.view.pods.get(&pod);
        if !self.namespaces.contains_key(&pod.namespace) {
            let namespace = self.client_namespace(&pod.namespace);
            self.namespaces.insert(pod.namespace.clone(), namespace);
        }
        // Whose annotations do not concern us is asked none of the questions about them.
        let annotated = object.filter(|object| annotations::concern_us(&object.annotations));
        let wish = self.wish(&pod, annotated);
        if object.is_some_and(|object| object.host_network) {
            let selected_by = wish.map(|wish| wish.source(&pod));
            return self.host_network(pod, selected_by);
        }
        // Only who holds an endpoint is exempt. Asking alone would let a running client annotate its way past its namespace's
        // rules; a pod that may become a gateway gets its endpoint within its own ADD.
        self.say_what_a_gateway_lacks(&pod, annotated);
        if self.gateways.holds(&pod) {
            return outside_of_rules(pod, Role::Gateway, None);
        }
        if let Some((object, answer)) = self.unreadable(&pod) {
            let source = Source { object, field: String::new(), value: String::new() };
            return client(pod, answer, source);
        }
        match wish {
            None => outside_of_rules(pod, Role::Unselected, None),
            Some(wish) => {
                let answer = self.answer(&pod.namespace, wish.annotations);
                let source = wish.source(&pod);
                if let Some(problem) = &answer.problem {
                    self.said.say(problem, &source.object);
                }
                client(pod, answer, source)
            }
        }
    }

    /// The pod's annotations, which replace its namespace's as a whole, or the namespace's.
    fn wish(&mut self, pod: &PodName, object: Option<&'a Pod>) -> Option<Wish<'a>> {
        if let Some(object) = object {
            for problem in annotations::unread(&object.annotations) {
                self.said.say(&problem, &format!("Pod {pod}"));
            }
            if self.view.support == EgressSupport::EnabledPerNamespaceOrPerPod
                && let Some(annotations) = ClientAnnotations::on(&object.annotations)
            {
                return Some(Wish { annotations, of_pod: true });
            }
        }
        let annotations = self.namespaces.get(&pod.namespace)?.annotations?;
        Some(Wish { annotations, of_pod: false })
    }

    fn client_namespace(&mut self, name: &str) -> ClientNamespace<'a> {
        let object = format!("Namespace {name}");
        let namespace = self.view.namespaces.get(name);
        for problem in
            namespace.map(|namespace| annotations::unread(&namespace.annotations)).unwrap_or_default()
        {
            self.said.say(&problem, &object);
        }
        ClientNamespace {
            annotations: namespace.and_then(|namespace| ClientAnnotations::on(&namespace.annotations)),
            broken: self.view.broken.contains(&object).then(|| unreadable_answer(&object)),
            answers: HashMap::new(),
        }
    }

    fn host_network(&mut self, pod: PodName, selected_by: Option<Source>) -> Decision {
        if let Some(source) = &selected_by {
            let message = format!(
                "shares its node's network, so it cannot be given an egress address, and leaves as the node: it is \
                 selected by {} `{}`; leave it out, or remove spec.hostNetwork",
                source.object, source.field
            );
            self.said.say(&Problem::new("", "HostNetworkSelected", message), &format!("Pod {pod}"));
        }
        outside_of_rules(pod, Role::HostNetwork, selected_by)
    }

    /// What is wrong with a pod's wish to be a gateway.
    fn say_what_a_gateway_lacks(&mut self, pod: &PodName, object: Option<&Pod>) {
        let Some(object) = object else { return };
        match gateway::wanted(self.view, pod, object.node.as_deref().unwrap_or_default()) {
            Ok(wish) => {
                let problems = wish.iter().flat_map(|wish| &wish.problems);
                problems.for_each(|problem| self.said.say(problem, &problem.object));
            }
            Err(problem) => self.said.say(&problem, &problem.object),
        }
    }

    /// The object that exists, matters for this pod and cannot be understood.
    fn unreadable(&self, pod: &PodName) -> Option<(String, Answer)> {
        let broken = || self.namespaces.get(&pod.namespace)?.broken.clone();
        if let Some(answer) = broken() {
            return Some((format!("Namespace {}", pod.namespace), answer));
        }
        if self.view.broken.is_empty() {
            return None;
        }
        let object = format!("Pod {pod}");
        self.view.broken.contains(&object).then(|| (object.clone(), unreadable_answer(&object)))
    }

    fn answer(&mut self, namespace: &str, annotations: ClientAnnotations<'a>) -> Answer {
        let known = self.namespaces.get(namespace).and_then(|shared| shared.answers.get(&annotations));
        if let Some(answer) = known {
            return answer.clone();
        }
        let answer = self.new_answer(namespace, annotations);
        if let Some(shared) = self.namespaces.get_mut(namespace) {
            shared.answers.insert(annotations, answer.clone());
        }
        answer
    }

    fn new_answer(&mut self, namespace: &str, annotations: ClientAnnotations<'a>) -> Answer {
        let gateways = &self.gateways;
        let sought = self.sought.entry(annotations).or_insert_with(|| {
            let query = annotations.query()?;
            let everywhere = query.namespaces.is_some().then(|| gateways.matching(&query, namespace));
            let everywhere = everywhere.map(|found| {
                let pools = gateways.pools_of(&found);
                (found, pools)
            });
            Ok(Sought { query, everywhere, admitted: None })
        });
        let sought = match sought {
            Ok(sought) => sought,
            Err(problem) => {
                let sentence = format!("{}: {}", problem.field, problem.message);
                return Answer {
                    rules: held(&sentence),
                    binding: HELD.into(),
                    problem: Some(problem.clone()),
                };
            }
        };
        let query = &sought.query;
        let rules = match &sought.everywhere {
            None => rules(gateways, query, &gateways.matching(query, namespace), namespace),
            Some((found, pools)) if gateways.admit(pools, namespace) => {
                let new = || rules(gateways, query, found, namespace);
                sought.admitted.get_or_insert_with(new).clone()
            }
            Some((found, _)) => rules(gateways, query, found, namespace),
        };
        Answer { rules, binding: binding(namespace, query), problem: None }
    }
}

/// A selector stands for the whole internet, each family on its own merits.
fn rules(gateways: &Gateways<'_>, query: &GatewayQuery, found: &[usize], namespace: &str) -> Rules {
    let prefixes = Family::BOTH.map(Family::everything);
    let outcomes =
        prefixes.map(|prefix| (prefix, outcome(gateways, query, found, namespace, prefix.family())));
    Arc::new(outcomes.into())
}

fn outcome(
    gateways: &Gateways<'_>,
    query: &GatewayQuery,
    found: &[usize],
    namespace: &str,
    family: Family,
) -> Outcome {
    let candidates = gateways.candidates(found, namespace, family);
    let usable = candidates.iter().filter(|candidate| candidate.unusable.is_none());
    let usable: BTreeSet<String> = usable.map(|candidate| candidate.key.clone()).collect();
    let action = if usable.is_empty() {
        Action::Held(gateways.lack(query, &candidates, namespace, family).to_string())
    } else {
        Action::Through(usable)
    };
    Outcome { action, candidates, decided_by: None }
}

/// An object's annotations that make its pods clients.
struct Wish<'a> {
    annotations: ClientAnnotations<'a>,
    of_pod: bool,
}

impl Wish<'_> {
    fn source(&self, pod: &PodName) -> Source {
        let object = if self.of_pod { format!("Pod {pod}") } else { format!("Namespace {}", pod.namespace) };
        let (field, value) =
            self.annotations.first().map(|found| (found.name, found.value)).unwrap_or_default();
        Source { object, field: field.to_owned(), value: value.to_owned() }
    }
}

fn client(pod: PodName, answer: Answer, source: Source) -> Decision {
    Decision {
        pod,
        role: Role::Client,
        rules: answer.rules,
        decided_by: Some(source),
        binding: answer.binding,
    }
}

/// A pod that no rule concerns.
fn outside_of_rules(pod: PodName, role: Role, decided_by: Option<Source>) -> Decision {
    Decision { pod, role, rules: Arc::default(), decided_by, binding: String::new() }
}

fn held(sentence: &str) -> Rules {
    let outcome =
        || Outcome { action: Action::Held(sentence.to_owned()), candidates: Vec::new(), decided_by: None };
    Arc::new(Family::BOTH.into_iter().map(|family| (family.everything(), outcome())).collect())
}

fn unreadable_answer(object: &str) -> Answer {
    let sentence = format!("{object} cannot be read, so nobody knows where this pod may send: correct it");
    Answer { rules: held(&sentence), binding: HELD.to_owned(), problem: None }
}

/// Names the rules as written. The client's namespace is always in it, because pools admit clients by namespace: were it
/// left out, pods with one binding could differ in their gateways after a change of a pool.
fn binding(namespace: &str, query: &GatewayQuery) -> String {
    let everything = Family::BOTH.map(|family| family.everything().to_string()).join(", ");
    let place = match &query.namespaces {
        None => "its own namespace".to_owned(),
        Some(namespaces) => format!("namespaces {namespaces}"),
    };
    format!("namespace {namespace}: pods {} in {place} for {everything}", query.pods)
}

/// Problems in the order found, each once.
#[derive(Default)]
struct Said {
    problems: Vec<Problem>,
    known: BTreeSet<Problem>,
}

impl Said {
    fn say(&mut self, problem: &Problem, object: &str) {
        let problem = Problem { object: object.to_owned(), ..problem.clone() };
        if self.known.insert(problem.clone()) {
            self.problems.push(problem);
        }
    }
}

#[cfg(test)]
mod tests;
