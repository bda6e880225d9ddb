//! Policies made ready to be asked, once: who comes before whom, and which of a thousand select a pod.
//!
//! In: a view's policies. Out: for a pod, the enforced ones and the others that select it, the first to decide first. Never: what
//! their rules come to.
//!
//! A thousand policies are not asked one by one. Most name a label that their pods must have, so they are found by it; and pods
//! that agree in namespace and in all labels that any policy asks for are asked about once.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use crate::egress::model::{Namespace, Pairs, Pod, PodName, View};
use crate::egress::policy::{Policy, PolicyKind};
use crate::egress::selector::{Labels, NamespaceLabels, Selector};

/// Label under which a policy's pod selector sees the pod's namespace.
const POD_NAMESPACE: [&str; 2] = ["io.kubernetes.pod.namespace", "projectcalico.org/namespace"];
/// Prefix under which Cilium's pod selectors see the labels of the pod's namespace.
const NAMESPACE_LABELS: &str = "io.cilium.k8s.namespace.labels.";

/// All policies of a view. A policy is a position here; the smaller decides before the greater.
pub(super) struct Policies {
    order: Vec<(PolicyKind, String)>,
    named: HashMap<String, u32>,
    entries: Vec<Entry>,
    /// Entries by a label and value of pods that they need.
    by_pod: HashMap<(String, String), Vec<u32>>,
    /// The same of the namespace.
    by_namespace: HashMap<(String, String), Vec<u32>>,
    /// Entries that need nothing that can be looked up.
    others: Vec<u32>,
    /// Labels of pods that entries ask for.
    labels: HashSet<String>,
    /// Whether an entry asks for the pod's node.
    nodes: bool,
    known: HashMap<String, Arc<Selecting>>,
    distinct: HashMap<Arc<Selecting>, Arc<Selecting>>,
}

/// One entry of a policy's `selectors`.
struct Entry {
    policy: u32,
    enforced: bool,
    pods: Option<Selector>,
    namespaces: Option<Selector>,
    /// One must take the pod's node; empty: any node will do.
    nodes: Arc<Vec<Selector>>,
}

/// Policies that select a pod by themselves, ascending.
#[derive(Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Selecting {
    pub(super) enforced: Vec<u32>,
    pub(super) others: Vec<u32>,
}

impl Selecting {
    pub(super) fn first(&self) -> Option<u32> {
        self.enforced.first().or(self.others.first()).copied()
    }
}

impl Policies {
    pub(super) fn of(view: &View) -> Policies {
        let mut all: Vec<&Policy> = view.policies.values().chain(view.cilium_policies.values()).collect();
        // The older first; who has no age is younger than all who have one.
        all.sort_by_key(|policy| (policy.created.is_none(), policy.created, &policy.name, policy.kind));
        let mut policies = Policies {
            order: all.iter().map(|policy| (policy.kind, policy.name.clone())).collect(),
            named: HashMap::new(),
            entries: Vec::new(),
            by_pod: HashMap::new(),
            by_namespace: HashMap::new(),
            others: Vec::new(),
            labels: HashSet::new(),
            nodes: false,
            known: HashMap::new(),
            distinct: HashMap::new(),
        };
        for (i, policy) in (0..).zip(all) {
            if policy.kind != PolicyKind::Cilium {
                policies.named.insert(policy.name.clone(), i);
            }
            // Cilium itself leaves out what it cannot read.
            if policy.kind != PolicyKind::Cilium || policy.unfit.is_empty() {
                policies.add(i, policy);
            }
        }
        policies
    }

    fn add(&mut self, policy: u32, written: &Policy) {
        let parse = |text: &Option<String>| text.as_ref().map(|text| Selector::parse(text)).transpose();
        let nodes = |texts: &mut dyn Iterator<Item = &String>| -> Vec<Selector> {
            texts.filter_map(|text| Selector::parse(text).ok()).collect()
        };
        // Cilium pools the node selectors of all entries: any of them is enough for a pod that any entry matches.
        let pooled = Arc::new(nodes(&mut written.selectors.iter().filter_map(|entry| entry.nodes.as_ref())));
        for selection in &written.selectors {
            let (Ok(pods), Ok(namespaces)) = (parse(&selection.pods), parse(&selection.namespaces)) else {
                continue; // the reader checked it: such a policy is unfit, with a problem
            };
            let nodes = match written.kind {
                PolicyKind::Cilium => Arc::clone(&pooled),
                _ => Arc::new(nodes(&mut selection.nodes.iter())),
            };
            self.nodes |= !nodes.is_empty();
            let entry = u32::try_from(self.entries.len()).unwrap_or(u32::MAX);
            let labels = pods.iter().flat_map(Selector::labels).map(ToOwned::to_owned);
            self.labels.extend(labels);
            let index = |map: &mut HashMap<(String, String), Vec<u32>>, selector: &Option<Selector>| {
                let needs = selector.as_ref().and_then(Selector::needs);
                let needs =
                    needs.filter(|needs| needs.iter().all(|(label, _)| !label.starts_with(NAMESPACE_LABELS)));
                let pairs: Option<BTreeSet<(&str, &str)>> = needs.map(|needs| needs.into_iter().collect());
                let Some(pairs) = pairs else { return false };
                for (label, value) in pairs {
                    map.entry((label.to_owned(), value.to_owned())).or_default().push(entry);
                }
                true
            };
            if !index(&mut self.by_pod, &pods) && !index(&mut self.by_namespace, &namespaces) {
                self.others.push(entry);
            }
            self.entries.push(Entry { policy, enforced: written.enforced, pods, namespaces, nodes });
        }
    }

    /// The policy of ours or Calico's with this name.
    pub(super) fn named(&self, name: &str) -> Option<u32> {
        self.named.get(name).copied()
    }

    /// A policy by its position, in the view that these are of.
    pub(super) fn get<'a>(&self, view: &'a View, policy: u32) -> Option<&'a Policy> {
        let (kind, name) = self.order.get(policy as usize)?;
        match kind {
            PolicyKind::Cilium => view.cilium_policies.get(name),
            _ => view.policies.get(name),
        }
    }

    /// The policies that select a pod by themselves.
    pub(super) fn selecting(&mut self, view: &View, name: &PodName, pod: Option<&Pod>) -> Arc<Selecting> {
        if self.entries.is_empty() {
            return Arc::default();
        }
        let alike = self.alike(name, pod);
        if let Some(known) = self.known.get(&alike) {
            return Arc::clone(known);
        }
        let found = Arc::new(self.ask(view, name, pod));
        let found = Arc::clone(self.distinct.entry(Arc::clone(&found)).or_insert(found));
        self.known.insert(alike, Arc::clone(&found));
        found
    }

    /// A text that pods have in common whom no policy can tell apart.
    fn alike(&self, name: &PodName, pod: Option<&Pod>) -> String {
        let mut text = name.namespace.clone();
        let mut add = |part: &str| {
            text.push('\0');
            text.push_str(part);
        };
        let Some(pod) = pod else { return text };
        if self.nodes {
            add(pod.node.as_deref().unwrap_or_default());
        }
        for (label, value) in pod.labels.iter().filter(|(label, _)| self.labels.contains(*label)) {
            add(label);
            add(value);
        }
        text
    }

    fn ask(&self, view: &View, name: &PodName, pod: Option<&Pod>) -> Selecting {
        let namespace = view.namespaces.get(&name.namespace);
        let labels = Selected { name, labels: pod.map(|pod| &pod.labels), namespace };
        let of_namespace = NamespaceLabels::of(view, &name.namespace);
        let nowhere = Pairs::new();
        let node = pod.and_then(|pod| pod.node.as_ref()).and_then(|node| view.nodes.get(node));
        let node = node.map_or(&nowhere, |node| &node.labels);
        let takes = |entry: &Entry| {
            entry.pods.as_ref().is_none_or(|selector| selector.matches(&labels))
                && entry.namespaces.as_ref().is_none_or(|selector| selector.matches(&of_namespace))
                && (entry.nodes.is_empty() || entry.nodes.iter().any(|selector| selector.matches(node)))
        };
        let (mut enforced, mut others) = (BTreeSet::new(), BTreeSet::new());
        for entry in self.candidates(name, pod, namespace) {
            let entry = &self.entries[entry as usize];
            if takes(entry) {
                if entry.enforced { &mut enforced } else { &mut others }.insert(entry.policy);
            }
        }
        Selecting { enforced: enforced.into_iter().collect(), others: others.into_iter().collect() }
    }

    /// The entries that may take a pod.
    fn candidates(&self, name: &PodName, pod: Option<&Pod>, namespace: Option<&Namespace>) -> Vec<u32> {
        let mut found = self.others.clone();
        let mut look = |map: &HashMap<(String, String), Vec<u32>>, label: &str, value: &str| {
            found.extend(map.get(&(label.to_owned(), value.to_owned())).into_iter().flatten());
        };
        pod.iter().flat_map(|pod| &pod.labels).for_each(|(label, value)| look(&self.by_pod, label, value));
        POD_NAMESPACE.iter().for_each(|label| look(&self.by_pod, label, &name.namespace));
        look(&self.by_pod, "projectcalico.org/orchestrator", "k8s");
        let labels = namespace.into_iter().flat_map(|namespace| &namespace.labels);
        labels.for_each(|(label, value)| look(&self.by_namespace, label, value));
        NamespaceLabels::NAME.iter().for_each(|label| look(&self.by_namespace, label, &name.namespace));
        found
    }
}

/// A pod as a policy's selector sees it.
struct Selected<'a> {
    name: &'a PodName,
    labels: Option<&'a Pairs>,
    namespace: Option<&'a Namespace>,
}

impl Labels for Selected<'_> {
    fn label(&self, label: &str) -> Option<&str> {
        if POD_NAMESPACE.contains(&label) {
            return Some(&self.name.namespace);
        }
        if label == "projectcalico.org/orchestrator" {
            return Some("k8s");
        }
        match label.strip_prefix(NAMESPACE_LABELS) {
            Some(label) if NamespaceLabels::NAME.contains(&label) => Some(&self.name.namespace),
            Some(label) => self.namespace?.labels.get(label).map(String::as_str),
            None => self.labels?.get(label).map(String::as_str),
        }
    }
}
