//! What is known of each namespace's pods before anything is known of a pod: whether one that starts now may be selected.
//!
//! In: the whole view. Out: a [`Standing`] per namespace, and whose pods pools take as gateways, for the hours in which nobody can be
//! asked. Never: looks at a pod; what stands on the pod itself, its runtime says.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::annotations::{is_calicos_of_a_namespace, is_ours};
use super::model::{Namespace, View};
use super::policy::{PodSelection, Policy};
use super::selector::{Labels, NamespaceLabels, Selector};

/// How pods of a namespace stand, as far as their own annotations do not say otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Standing {
    /// Nothing selects them.
    Never,
    /// Policies select some of them, by their labels or their nodes.
    ByLabel,
    /// The namespace is annotated, or a policy selects all of them.
    Always,
}

/// How the pods of every namespace stand.
pub fn standing(view: &View) -> BTreeMap<String, Standing> {
    let policies: Vec<&Policy> = view.policies.values().chain(view.cilium_policies.values()).collect();
    let of = |(name, namespace): (&String, &Namespace)| {
        (name.clone(), of_one(&NamespaceLabels::of(view, name), namespace, &policies))
    };
    view.namespaces.iter().map(of).collect()
}

/// Namespaces whose pods are gateways if they ask to be: a pool takes them.
pub fn hosts(view: &View) -> BTreeSet<String> {
    // One that is no selector takes nobody while an agent looks, and may be mended before the next one does.
    let selectors: Vec<Option<Selector>> = view
        .pools
        .values()
        .filter_map(|pool| pool.gateway_namespaces.as_ref().map(|text| Selector::parse(text).ok()))
        .collect();
    let takes = |name: &String| {
        let labels = NamespaceLabels::of(view, name);
        selectors.iter().any(|selector| selector.as_ref().is_none_or(|selector| selector.matches(&labels)))
    };
    view.namespaces.keys().filter(|name| takes(name)).cloned().collect()
}

fn of_one(labels: &impl Labels, namespace: &Namespace, policies: &[&Policy]) -> Standing {
    // Whatever it says: a slip of the pen holds pods, it does not let them out.
    if namespace.annotations.keys().any(|key| is_ours(key) && !is_calicos_of_a_namespace(key)) {
        return Standing::Always;
    }
    let selections = policies.iter().flat_map(|policy| &policy.selectors);
    selections.map(|selection| by(selection, labels)).max().unwrap_or(Standing::Never)
}

fn by(selection: &PodSelection, labels: &impl Labels) -> Standing {
    // It was parsed when the policy was read; one that is none here may select anybody.
    let matches = |text: &String| Selector::parse(text).map_or(true, |selector| selector.matches(labels));
    if !selection.namespaces.as_ref().is_none_or(matches) {
        return Standing::Never;
    }
    if selection.pods.is_none() && selection.nodes.is_none() { Standing::Always } else { Standing::ByLabel }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::egress::model::{Pairs, Pool};
    use crate::egress::policy::PolicyKind;

    fn policy(selectors: Vec<PodSelection>) -> Policy {
        Policy {
            name: "p".to_owned(),
            kind: PolicyKind::Ours,
            created: None,
            enforced: false,
            selectors,
            rules: Vec::new(),
            deny_others: false,
            ignores_other_family: false,
            unfit: Vec::new(),
        }
    }

    fn pairs(list: &[(&str, &str)]) -> BTreeMap<String, String> {
        list.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn a_namespace_stands_as_its_annotations_and_the_policies_that_may_select_its_pods_have_it() {
        let mut view = View::default();
        let mut add = |name: &str, labels: &[(&str, &str)], annotations: &[(&str, &str)]| {
            let namespace = Namespace { labels: pairs(labels), annotations: pairs(annotations) };
            view.namespaces.insert(name.to_owned(), namespace);
        };
        add("plain", &[], &[("owner", "x"), ("cni.projectcalico.org/ipv4pools", "[\"west\"]")]);
        add("shop", &[], &[("egress.projectcalico.org/selector", "")]);
        add("some", &[("team", "a")], &[]);
        add("all", &[("team", "b")], &[]);
        let selection = |pods: Option<&str>, namespaces: &str| PodSelection {
            pods: pods.map(str::to_owned),
            namespaces: Some(namespaces.to_owned()),
            nodes: None,
        };
        let selectors = vec![
            selection(Some("app == 'x'"), "team == 'a'"),
            selection(Some("app == 'x'"), "team == 'b'"),
            selection(None, "team == 'b'"),
        ];
        view.policies.insert("p".to_owned(), policy(selectors));
        let said = standing(&view);
        let expected = [
            ("all", Standing::Always),
            ("plain", Standing::Never),
            ("shop", Standing::Always),
            ("some", Standing::ByLabel),
        ];
        assert_eq!(said, expected.map(|(name, s)| (name.to_owned(), s)).into());
        view.policies.insert(
            "q".to_owned(),
            policy(vec![PodSelection { pods: Some("x".into()), ..PodSelection::default() }]),
        );
        assert_eq!(standing(&view)["plain"], Standing::ByLabel, "a policy for pods of any namespace");
    }

    #[test]
    fn a_namespace_has_gateways_where_a_pools_own_word_takes_it() {
        let mut view = View::default();
        for (name, labels) in [("net", pairs(&[("team", "net")])), ("shop", Pairs::new())] {
            view.namespaces.insert(name.to_owned(), Namespace { labels, annotations: Pairs::new() });
        }
        let pool = |gateways: Option<&str>| Pool {
            gateway_namespaces: gateways.map(str::to_owned),
            ..Pool::new("p", "10.0.0.0/24".parse().unwrap(), 26)
        };
        for (gateways, expected) in [
            (None, &[][..]),
            (Some("!all()"), &[]),
            (Some("team == 'net'"), &["net"]),
            (Some("all()"), &["net", "shop"]),
            (Some("team =="), &["net", "shop"]),
        ] {
            view.pools.insert("p".to_owned(), pool(gateways));
            assert_eq!(
                hosts(&view),
                expected.iter().map(|name| (*name).to_owned()).collect(),
                "{gateways:?}"
            );
        }
    }
}
