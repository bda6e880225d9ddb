//! What pods and namespaces ask for by their annotations.
//!
//! In: an object's annotations. Out: a [`Wish`], or what is wrong with it; equal texts are one position in [`Known::asked`]. Never: says
//! what comes of it, since policies that select by themselves have a word in that too.

use std::sync::Arc;

use super::{Asked, Known, asked, goals, named, position, unfit_sentence};
use crate::addr::Family;
use crate::egress::annotations::{self, ClientAnnotations};
use crate::egress::model::{EgressSupport, Pod, PodName, Source, View};
use crate::problem::Problem;
use crate::spelling;

/// What the pods of one namespace share.
pub(super) struct ClientNamespace {
    pub(super) number: u32,
    /// The namespace's own wish.
    pub(super) wish: Option<Wish>,
    /// Its object exists and cannot be understood.
    pub(super) broken: bool,
    /// What is wrong with its annotations.
    pub(super) problems: Arc<Vec<Problem>>,
}

/// An object's annotations that make its pods clients.
#[derive(Debug, Clone)]
pub(super) struct Wish {
    /// Position in `asked`.
    pub(super) asked: u32,
    pub(super) source: Source,
}

/// What annotations ask for, found.
pub(super) enum Asking {
    Gateways { goal: u32, words: String },
    Policies(Vec<u32>),
}

impl Known {
    pub(super) fn meet_namespace(&mut self, view: &View, name: &str) {
        if let Some(known) = self.namespaces.get(name) {
            let problems = Arc::clone(&known.problems);
            return self.note(&problems);
        }
        let object = format!("Namespace {name}");
        let namespace = view.namespaces.get(name);
        let unread =
            namespace.map(|namespace| annotations::unread(&namespace.annotations)).unwrap_or_default();
        let problems = Arc::new(unread.iter().map(|problem| named(problem, &object)).collect());
        self.note(&problems);
        let broken = view.broken.contains(&object);
        let annotations = namespace.and_then(|namespace| ClientAnnotations::on(&namespace.annotations));
        let wish = annotations.map(|annotations| self.wish_of(view, object, &annotations));
        let number = position(self.namespaces.len());
        self.namespaces.insert(name.to_owned(), ClientNamespace { number, wish, broken, problems });
    }

    /// The pod's annotations, which replace its namespace's as a whole, or the namespace's.
    pub(super) fn wish(&mut self, view: &View, pod: &PodName, object: Option<&Pod>) -> Option<Wish> {
        if let Some(object) = object {
            let name = format!("Pod {pod}");
            for problem in annotations::unread(&object.annotations) {
                self.say(&problem, &name);
            }
            if view.support == EgressSupport::EnabledPerNamespaceOrPerPod
                && let Some(annotations) = ClientAnnotations::on(&object.annotations)
            {
                return Some(self.wish_of(view, name, &annotations));
            }
        }
        self.namespaces.get(&pod.namespace)?.wish.clone()
    }

    fn wish_of(&mut self, view: &View, object: String, annotations: &ClientAnnotations<'_>) -> Wish {
        let (field, value) = annotations.first().map(|found| (found.name, found.value)).unwrap_or_default();
        let source = Source { object, field: field.to_owned(), value: value.to_owned() };
        let mut text = String::new();
        let all = [
            annotations.selector,
            annotations.namespace_selector,
            annotations.max_next_hops,
            annotations.policy,
        ];
        for found in all {
            text.push_str(found.map(|found| found.name).unwrap_or_default());
            text.push('\0');
            text.push_str(found.map(|found| found.value).unwrap_or_default());
            text.push('\0');
        }
        if let Some(asked) = self.texts.get(&text) {
            return Wish { asked: *asked, source };
        }
        let asking = self.asking(view, annotations);
        let asked = position(self.asked.len());
        self.asked.push(Arc::new(asking));
        self.texts.insert(text, asked);
        Wish { asked, source }
    }

    fn asking(&mut self, view: &View, annotations: &ClientAnnotations<'_>) -> Result<Asking, Problem> {
        match asked::asked(annotations)? {
            Asked::Gateways(query, most) => {
                let everything = Family::BOTH.map(|family| family.everything().to_string()).join(", ");
                let words = format!("{} for {everything}", goals::words(&query, most));
                Ok(Asking::Gateways { goal: self.goals.pods(query, most, false), words })
            }
            Asked::Policies(names) => {
                let found = annotations.policy.map(|found| (found.name, found.value)).unwrap_or_default();
                let problem = |(reason, message): (&str, String)| {
                    Problem::new("", reason, message).at(annotations::field(found.0)).value(found.1)
                };
                let policies = names.iter().map(|name| self.policy(view, name)).collect::<Result<_, _>>();
                policies.map(Asking::Policies).map_err(problem)
            }
        }
    }

    /// The policy of this name, if it can be obeyed.
    fn policy(&self, view: &View, name: &str) -> Result<u32, (&'static str, String)> {
        let Some(policy) = self.policies.named(name) else {
            let object = format!("EgressGatewayPolicy {name}");
            if view.broken.contains(&object) {
                return Err(("PolicyUnfit", format!("{object} cannot be read: correct it")));
            }
            let hint = match view.cilium_policies.contains_key(name) {
                true => {
                    "; CiliumEgressGatewayPolicy of that name selects its pods itself and cannot be named"
                        .to_owned()
                }
                false => {
                    let names: Vec<&str> = view.policies.keys().map(String::as_str).collect();
                    match spelling::nearest(name, &names) {
                        Some(near) => format!("; did you mean `{near}`?"),
                        None => ": create it, or name one that exists".to_owned(),
                    }
                }
            };
            return Err(("UnknownPolicy", format!("there is no EgressGatewayPolicy `{name}`{hint}")));
        };
        let unfit = self.policies.get(view, policy).and_then(|policy| policy.unfit.first());
        match unfit {
            Some(problem) => {
                Err(("PolicyUnfit", unfit_sentence(&format!("EgressGatewayPolicy {name}"), problem)))
            }
            None => Ok(policy),
        }
    }
}
