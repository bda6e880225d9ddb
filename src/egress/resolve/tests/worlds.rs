//! What holds in every world.

use proptest::prelude::*;

use super::policies::{ours, selecting, to_red, with};
use super::*;

/// One line of a random world.
#[derive(Debug, Clone)]
enum Line {
    Namespace(String, String, Vec<(&'static str, &'static str)>),
    Pod(String, String, Vec<(&'static str, &'static str)>),
    Gateway(String, u8, EndpointState),
    Broken(String),
}

impl Line {
    fn add(&self, view: View) -> View {
        match self {
            Line::Namespace(name, labels, annotations) => view.namespace(name, labels, annotations),
            Line::Pod(name, labels, annotations) => view.pod(name, labels, annotations),
            Line::Gateway(pod, i, state) => {
                let ips = [format!("10.10.10.{i}"), format!("fd00:10::{i:x}")];
                let ips: Vec<&str> = ips.iter().map(String::as_str).take(1 + usize::from(i % 2)).collect();
                let mut view = view.gateway(pod, "n1", &ips);
                let last = view.endpoints.last_mut().unwrap();
                last.attachment = format!("{}/{i}", last.attachment);
                last.state = *state;
                view
            }
            Line::Broken(object) => view.broken(object),
        }
    }
}

fn wishes() -> impl Strategy<Value = Vec<(&'static str, &'static str)>> {
    let selector =
        prop::sample::select(vec!["", "role == 'egress'", "has(x)", "all()", "role =", "!has(role)"]);
    let namespaces = prop::sample::select(vec![
        "all()",
        "team == 'net'",
        "projectcalico.org/name == 'a'",
        "(",
        "global()",
    ]);
    let gateway = prop::sample::select(vec![
        ("egret.dev/gateway", "true"),
        ("egret.dev/ipv4pools", "p4"),
        ("egret.dev/ipv4pools", "q"),
    ]);
    prop_oneof![
        3 => Just(Vec::new()),
        2 => selector.clone().prop_map(|s| vec![(SELECTOR, s)]),
        3 => (selector, namespaces).prop_map(|(s, n)| vec![(SELECTOR, s), (NAMESPACES, n)]),
        1 => gateway.prop_map(|g| vec![g]),
        1 => Just(vec![(SELECTOR, "all()"), ("egret.dev/egressGatewayPolicy", "p")]),
    ]
}

fn line() -> impl Strategy<Value = Line> {
    let namespace = || prop::sample::select(vec!["a", "b", "c"]);
    let pod = || (namespace(), 0..4u8).prop_map(|(ns, i)| format!("{ns}/p{i}"));
    let labels =
        || prop::sample::select(vec!["", "role=egress", "x=1", "team=net"]).prop_map(ToOwned::to_owned);
    let state =
        prop::sample::select(vec![EndpointState::Ready, EndpointState::Failed, EndpointState::Draining]);
    prop_oneof![
        2 => (namespace(), labels(), wishes()).prop_map(|(n, l, w)| Line::Namespace(n.to_owned(), l, w)),
        6 => (pod(), labels(), wishes()).prop_map(|(p, l, w)| Line::Pod(p, l, w)),
        4 => (pod(), 0..16u8, state).prop_map(|(p, i, s)| Line::Gateway(p, i, s)),
        1 => pod().prop_map(|p| Line::Broken(format!("Pod {p}"))),
    ]
}

fn build(lines: &[Line]) -> View {
    let start = View::default()
        .pool("p4", "10.10.10.0/28")
        .pool("p6", "fd00:10::/120")
        .with_pool("p4", |pool| pool.gateway_namespaces = Some("projectcalico.org/name != 'c'".into()))
        .with_pool("p4", |pool| pool.client_namespaces = Some("projectcalico.org/name != 'b'".into()))
        .with_pool("p6", |pool| pool.client_namespaces = None);
    lines.iter().fold(start, |view, line| line.add(view))
}

/// What the data path sees of a decision.
fn effect(decision: &Decision) -> Vec<(Cidr, Option<Arc<BTreeSet<String>>>)> {
    let effect = |action: &Action| match action {
        Action::Through(gateways) => Some(gateways.clone()),
        _ => None,
    };
    decision.rules.iter().map(|(prefix, outcome)| (*prefix, effect(&outcome.action))).collect()
}

proptest! {
    /// As an agent asks: each pod by a view that has it alone, and its namespace, and no endpoints.
    #[test]
    fn what_earlier_decisions_found_out_changes_no_later_one(lines in prop::collection::vec(line(), 0..20)) {
        let by_labels = selecting("x == '1'", ours("q", &[("192.0.2.0/24", to_red())]));
        let whole = with(build(&lines), [ours("p", &[("198.51.100.0/24", to_red())]), by_labels]);
        let mut common = None;
        for name in all_pods(&whole).into_iter().chain(all_pods(&whole)) {
            let mut view = View { endpoints: Vec::new(), ..whole.clone() };
            view.pods.retain(|other, _| *other == name);
            view.namespaces.retain(|other, _| *other == name.namespace);
            let alone = resolve(&view, [name.clone()]);
            let decision = common.get_or_insert_with(|| Common::of(&view)).decide(&view, &name);
            prop_assert_eq!(&decision, &alone.decisions[&name]);
        }
    }

    #[test]
    fn an_unrelated_object_changes_nobodys_decision(lines in prop::collection::vec(line(), 0..20), wish in wishes()) {
        let view = build(&lines);
        let before = resolve(&view, all_pods(&view));
        // A namespace that no line mentions, with pods that carry no label a selector of these lines finds: only `all()`
        // and `!has(role)` over all namespaces reach it, and only endpoints count there.
        let more = view.clone()
            .namespace("zz", "", &wish)
            .pod("zz/p0", "", &wish)
            .pod("zz/broken", "", &[(SELECTOR, "((")])
            .broken("Namespace yy")
            .broken("EgressPool zz");
        let after = resolve(&more, all_pods(&view));
        for (pod, decision) in &before.decisions {
            let after = &after.decisions[pod];
            prop_assert_eq!(effect(decision), effect(after));
            prop_assert_eq!((decision.role, &decision.binding, &decision.decided_by), (after.role, &after.binding, &after.decided_by));
        }
        prop_assert_eq!(&before.problems, &after.problems);
    }

    #[test]
    fn the_order_of_objects_and_questions_is_irrelevant(
        lines in prop::collection::vec(line(), 0..20),
        turned in any::<prop::sample::Index>(),
    ) {
        let view = build(&lines);
        let forth = resolve(&view, all_pods(&view));
        let mut other = view.clone();
        other.endpoints.reverse();
        if !other.endpoints.is_empty() {
            let middle = turned.index(other.endpoints.len());
            other.endpoints.rotate_left(middle);
        }
        let back = resolve(&other, all_pods(&view).into_iter().rev());
        prop_assert_eq!(&forth.decisions, &back.decisions);
        let sorted = |resolution: &Resolution| resolution.problems.iter().cloned().collect::<BTreeSet<_>>();
        prop_assert_eq!(sorted(&forth), sorted(&back));
        for pod in all_pods(&view) {
            let alone = resolve(&view, [pod.clone()]);
            prop_assert_eq!(&alone.decisions[&pod], &forth.decisions[&pod], "asked alone");
        }
    }

    #[test]
    fn a_decision_is_whole(lines in prop::collection::vec(line(), 0..20)) {
        let view = build(&lines);
        let resolution = resolve(&view, all_pods(&view));
        let mut bindings: BTreeMap<&str, Vec<_>> = BTreeMap::new();
        for decision in resolution.decisions.values() {
            let client = decision.role == Role::Client;
            prop_assert_eq!(client, decision.rules.len() == 2, "a client has a rule for each family, others none");
            prop_assert_eq!(client, !decision.binding.is_empty());
            prop_assert!(!client || decision.decided_by.is_some());
            for outcome in decision.rules.values() {
                let usable = outcome.candidates.iter().filter(|c| c.unusable.is_none());
                let usable: BTreeSet<String> = usable.map(|c| c.key.clone()).collect();
                match &outcome.action {
                    Action::Through(gateways) => prop_assert_eq!(&**gateways, &usable),
                    Action::Held(why) => prop_assert!(usable.is_empty() && !why.is_empty()),
                    Action::Direct => prop_assert!(false, "annotations never say direct"),
                }
            }
            if client {
                bindings.entry(&decision.binding).or_default().push(effect(decision));
            }
        }
        for (binding, effects) in bindings {
            prop_assert!(effects.windows(2).all(|two| two[0] == two[1]), "{} does two things", binding);
        }
    }
}
