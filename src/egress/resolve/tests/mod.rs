//! One example for each row of the precedence, then properties over random worlds.

mod policies;

use proptest::prelude::*;

use super::*;
use crate::egress::model::{Endpoint, EndpointState};
use crate::egress::world::{World, pairs, pod_name};
use crate::problem::Problem;

const SELECTOR: &str = "egress.projectcalico.org/selector";
const NAMESPACES: &str = "egress.projectcalico.org/namespaceSelector";
/// A client's annotations that find the gateways of `world`.
const EGRESS: [(&str, &str); 2] = [(SELECTOR, "role == 'egress'"), (NAMESPACES, "team == 'net'")];

/// Two dual-stack gateways of namespace `red` on two nodes, and an unselected namespace `shop`.
fn world() -> View {
    View::default()
        .node("n1", &["192.168.0.1"])
        .node("n2", &["192.168.0.2"])
        .namespace("red", "team=net", &[])
        .namespace("shop", "", &[])
        .pool("p4", "10.10.10.0/28")
        .pool("p6", "fd00:10::/120")
        .pod("red/gw-0", "role=egress", &[])
        .pod("red/gw-1", "role=egress", &[])
        .gateway("red/gw-0", "n1", &["10.10.10.0", "fd00:10::"])
        .gateway("red/gw-1", "n2", &["10.10.10.1", "fd00:10::1"])
}

fn decide(view: &View, pod: &str) -> Decision {
    resolve(view, [pod_name(pod)]).decisions.remove(&pod_name(pod)).unwrap()
}

fn outcome(decision: &Decision, family: Family) -> &Outcome {
    &decision.rules[&family.everything()]
}

/// What a pod does, in a word per family: `direct`, `red/gw-0+red/gw-1`, or the sentence that holds it.
fn actions(view: &View, pod: &str) -> [String; 2] {
    let decision = decide(view, pod);
    if decision.rules.is_empty() {
        return ["direct".to_owned(), "direct".to_owned()];
    }
    Family::BOTH.map(|family| match &outcome(&decision, family).action {
        Action::Direct => "direct".to_owned(),
        Action::Held(why) => format!("held: {why}"),
        Action::Through(gateways) => gateways.iter().cloned().collect::<Vec<_>>().join("+"),
    })
}

fn v4(view: &View, pod: &str) -> String {
    let [v4, _] = actions(view, pod);
    v4
}

fn problems(view: &View, pod: &str) -> Vec<String> {
    resolve(view, [pod_name(pod)]).problems.iter().map(ToString::to_string).collect()
}

const BOTH_GATEWAYS: &str = "net/red-gw-0/eth0+net/red-gw-1/eth0";

// --- who is a client -------------------------------------------------------------------------------------------------

#[test]
fn what_nothing_selects_goes_direct() {
    let view = world().pod("shop/cart", "", &[]);
    let decision = decide(&view, "shop/cart");
    assert_eq!(decision.role, Role::Unselected);
    assert!(decision.rules.is_empty() && decision.binding.is_empty() && decision.decided_by.is_none());
}

#[test]
fn a_pods_annotation_selects_gateways_in_the_namespaces_it_says() {
    let view = world().pod("shop/cart", "", &EGRESS);
    let decision = decide(&view, "shop/cart");
    assert_eq!(decision.role, Role::Client);
    assert_eq!(actions(&view, "shop/cart"), [BOTH_GATEWAYS, BOTH_GATEWAYS]);
    let source = decision.decided_by.unwrap();
    assert_eq!((source.object.as_str(), source.field.as_str()), ("Pod shop/cart", SELECTOR));
    assert_eq!(source.value, "role == 'egress'");
    assert_eq!(
        decision.binding,
        "namespace shop: pods role == \"egress\" in namespaces team == \"net\" for 0.0.0.0/0, ::/0"
    );
}

#[test]
fn a_namespaces_annotation_selects_all_its_pods_even_those_without_an_object() {
    let view = world().namespace("shop", "", &EGRESS).pod("shop/cart", "", &[]);
    for pod in ["shop/cart", "shop/without-object"] {
        assert_eq!(v4(&view, pod), BOTH_GATEWAYS);
        assert_eq!(decide(&view, pod).decided_by.unwrap().object, "Namespace shop");
    }
}

#[test]
fn a_pods_annotations_replace_its_namespaces_as_a_whole() {
    // The namespace's namespaceSelector is not inherited: the pod's own namespace counts, and it has no gateway.
    let view = world().namespace("shop", "", &EGRESS).pod("shop/cart", "", &[(SELECTOR, "role == 'egress'")]);
    assert!(
        v4(&view, "shop/cart").starts_with("held: no gateway matches role == \"egress\" in namespace `shop`")
    );
    assert_eq!(decide(&view, "shop/cart").decided_by.unwrap().object, "Pod shop/cart");
}

#[test]
fn in_mode_enabled_per_namespace_a_pods_annotations_are_not_read() {
    let mut view = world().pod("shop/cart", "", &EGRESS).namespace("db", "", &EGRESS).pod(
        "db/a",
        "",
        &[(SELECTOR, "=")],
    );
    view.support = EgressSupport::EnabledPerNamespace;
    assert_eq!(decide(&view, "shop/cart").role, Role::Unselected);
    assert_eq!(v4(&view, "db/a"), BOTH_GATEWAYS);
}

#[test]
fn without_a_namespace_selector_gateways_are_those_of_the_clients_own_namespace() {
    let view = world()
        .pod("shop/gw", "role=egress", &[])
        .gateway("shop/gw", "n1", &["10.10.10.2"])
        .pod("shop/cart", "", &[(SELECTOR, "role == 'egress'")])
        .pod("red/cart", "", &[(SELECTOR, "role == 'egress'")]);
    assert_eq!(v4(&view, "shop/cart"), "net/shop-gw/eth0");
    assert_eq!(v4(&view, "red/cart"), BOTH_GATEWAYS);
}

#[test]
fn a_namespace_selector_without_selector_takes_every_gateway_there() {
    let view = world().pod("shop/cart", "", &[(NAMESPACES, "projectcalico.org/name == 'red'")]);
    assert_eq!(v4(&view, "shop/cart"), BOTH_GATEWAYS);
}

#[test]
fn namespaces_are_selected_by_their_names_even_without_an_object() {
    let mut view = world()
        .pod("shop/a", "", &[(SELECTOR, "all()"), (NAMESPACES, "projectcalico.org/name == 'red'")])
        .pod("shop/b", "", &[(SELECTOR, "all()"), (NAMESPACES, "kubernetes.io/metadata.name in {'red'}")])
        .pod("shop/c", "", &[(SELECTOR, "all()"), (NAMESPACES, "global()")]);
    view.namespaces.clear();
    assert_eq!(v4(&view, "shop/a"), BOTH_GATEWAYS);
    assert_eq!(v4(&view, "shop/b"), BOTH_GATEWAYS);
    assert!(v4(&view, "shop/c").starts_with("held: no gateway matches all() in namespaces global()"));
}

#[test]
fn host_network_pods_are_never_redirected_and_a_problem_if_selected() {
    let mut view = world().pod("shop/cart", "", &EGRESS).pod("shop/quiet", "", &[]);
    for pod in ["shop/cart", "shop/quiet"] {
        view.pods.get_mut(&pod_name(pod)).unwrap().host_network = true;
        let decision = decide(&view, pod);
        assert_eq!((decision.role, decision.rules.is_empty()), (Role::HostNetwork, true));
    }
    assert_eq!(problems(&view, "shop/quiet"), Vec::<String>::new());
    let said = problems(&view, "shop/cart");
    assert_eq!(said.len(), 1);
    assert!(said[0].starts_with("Pod shop/cart: shares its node's network"), "{}", said[0]);
}

#[test]
fn a_gateway_is_never_redirected_and_a_wish_alone_makes_none() {
    let view = world()
        .namespace("red", "team=net", &EGRESS)
        .pod("red/new", "", &[("cni.projectcalico.org/ipv4pools", "[\"p4\"]")])
        .pod("red/plain", "", &[]);
    assert_eq!(decide(&view, "red/gw-0").role, Role::Gateway);
    assert_eq!(decide(&view, "red/new").role, Role::Client, "else a running pod could annotate its way out");
    assert_eq!(decide(&view, "red/plain").role, Role::Client);
}

#[test]
fn a_pod_that_asks_in_vain_to_be_a_gateway_is_redirected_like_any_other() {
    let view = world()
        .namespace("shop", "", &EGRESS)
        .with_pool("p4", |pool| pool.gateway_namespaces = Some("team == 'net'".into()))
        .pod("shop/sly", "", &[("egret.dev/ipv4pools", "p4")]);
    assert_eq!(v4(&view, "shop/sly"), BOTH_GATEWAYS);
    let said = resolve(&view, [pod_name("shop/sly")]).problems;
    assert_eq!((said.len(), said[0].reason.as_str()), (1, "NotPermitted"));
}

#[test]
fn an_endpoint_of_an_earlier_pod_makes_nobody_a_gateway() {
    let mut view =
        world().namespace("red", "team=net", &EGRESS).with_gateway("red/gw-0", |e| e.uid = Some("a".into()));
    view.pods.get_mut(&pod_name("red/gw-0")).unwrap().uid = Some("b".into());
    assert_eq!(decide(&view, "red/gw-0").role, Role::Client);
    assert_eq!(v4(&view, "red/gw-0"), "net/red-gw-1/eth0");
}

// --- what is held ----------------------------------------------------------------------------------------------------

#[test]
fn what_cannot_be_obeyed_is_held_in_both_families_and_named() {
    for (annotations, reason) in [
        (vec![(SELECTOR, "role = 'egress'")], "SelectorSyntax"),
        (vec![(SELECTOR, "all()"), (NAMESPACES, "((")], "SelectorSyntax"),
        (
            vec![(SELECTOR, "all()"), ("egress.projectcalico.org/egressGatewayPolicy", "p")],
            "SelectorAndPolicy",
        ),
        (vec![("egret.dev/egressGatewayPolicy", "p")], "UnknownPolicy"),
        (vec![("egret.dev/egressGatewayPolicy", "a,,b")], "BadValue"),
        (vec![("egret.dev/egressGatewayPolicy", "[\"a\"")], "BadValue"),
        (vec![(SELECTOR, "all()"), ("egress.projectcalico.org/maxNextHops", "two")], "BadValue"),
        (vec![("egress.projectcalico.org/maxNextHops", "2")], "MaxNextHopsAlone"),
    ] {
        let of_pod = world().pod("shop/cart", "", &annotations);
        let of_namespace = world().namespace("shop", "", &annotations).pod("shop/cart", "", &[]);
        for (view, object) in [(of_pod, "Pod shop/cart"), (of_namespace, "Namespace shop")] {
            let resolution = resolve(&view, [pod_name("shop/cart"), pod_name("shop/other")]);
            let decision = &resolution.decisions[&pod_name("shop/cart")];
            assert_eq!((decision.role, decision.binding.as_str()), (Role::Client, "held"));
            for family in Family::BOTH {
                assert!(matches!(outcome(decision, family).action, Action::Held(_)), "{annotations:?}");
            }
            let [problem] = resolution.problems.as_slice() else { panic!("{:?}", resolution.problems) };
            assert_eq!((problem.object.as_str(), problem.reason.as_str()), (object, reason));
            assert!(!problem.field.is_empty() && !problem.value.is_empty());
        }
    }
}

#[test]
fn pods_of_objects_that_cannot_be_read_are_held_and_nobody_else() {
    let view = world().pod("shop/cart", "", &[]).broken("Pod shop/torn").broken("Namespace blue");
    assert!(v4(&view, "shop/torn").starts_with("held: Pod shop/torn cannot be read"));
    assert!(v4(&view, "blue/any").starts_with("held: Namespace blue cannot be read"));
    assert_eq!(decide(&view, "blue/any").decided_by.unwrap().object, "Namespace blue");
    assert_eq!(v4(&view, "shop/cart"), "direct");
}

#[test]
fn each_family_stands_on_its_own() {
    let view = View::default()
        .pool("p4", "10.10.10.0/28")
        .pool("p6", "fd00:10::/120")
        .gateway("shop/gw4", "n1", &["10.10.10.0"])
        .gateway("shop/both", "n1", &["10.10.10.1", "fd00:10::1"])
        .pod("shop/cart", "", &[(SELECTOR, "all()")])
        .gateway("red/gw4", "n1", &["10.10.10.2"])
        .pod("red/cart", "", &[(SELECTOR, "all()")]);
    assert_eq!(actions(&view, "shop/cart"), ["net/shop-both/eth0+net/shop-gw4/eth0", "net/shop-both/eth0"]);
    assert_eq!(
        actions(&view, "red/cart"),
        [
            "net/red-gw4/eth0",
            "held: the one gateway that matches all() in namespace `red` is out of use for IPv6: red/gw4: \
             it has no IPv6 egress address: name an IPv6 pool in its `egret.dev/ipv6pools`"
        ]
    );
}

/// `explain` goes further and names the pods that match and are no gateways.
#[test]
fn no_gateway_at_all_says_what_to_do() {
    let view = world().pod("shop/cart", "", &[(SELECTOR, "app == 'web'")]);
    assert_eq!(
        v4(&view, "shop/cart"),
        "held: no gateway matches app == \"web\" in namespace `shop`: \
         start a gateway with these labels, or change the selector"
    );
}

// --- which gateways are usable ---------------------------------------------------------------------------------------

/// Why `red/gw-0` is out for a client in `shop`; `usable` if it is not.
fn why_not(view: View) -> String {
    let view = view.pod("shop/cart", "", &EGRESS);
    let decision = decide(&view, "shop/cart");
    let outcome = outcome(&decision, Family::V4);
    let gateway =
        outcome.candidates.iter().find(|c| c.pod == Some(pod_name("red/gw-0"))).expect("a candidate");
    let used = match &outcome.action {
        Action::Through(used) => used.contains(&gateway.key),
        _ => false,
    };
    assert_eq!(used, gateway.unusable.is_none());
    assert_eq!(decision.rules[&Family::V4.everything()].candidates.len(), 2);
    gateway.unusable.clone().unwrap_or_else(|| "usable".to_owned())
}

#[test]
fn every_reason_why_a_gateway_is_out_is_a_sentence() {
    let state = |state| world().with_gateway("red/gw-0", |gateway| gateway.state = state);
    let clients =
        |text: Option<&str>| world().with_pool("p4", |pool| pool.client_namespaces = text.map(Into::into));
    let gateways =
        |text: Option<&str>| world().with_pool("p4", |pool| pool.gateway_namespaces = text.map(Into::into));
    let mut gone = world();
    gone.pools.remove("p4");
    let mut replaced = world().with_gateway("red/gw-0", |gateway| gateway.uid = Some("a".into()));
    replaced.pods.get_mut(&pod_name("red/gw-0")).unwrap().uid = Some("b".into());
    let conflict =
        Problem::new("EgressEndpoint x", "AddressInUse", "10.10.10.0 is answered for by 02:00:00:00:00:09");
    for (view, expected) in [
        (world(), "usable"),
        (state(EndpointState::Starting), "it is starting: wait until node n1 has wired it"),
        (state(EndpointState::Draining), "it is draining: it keeps its flows and takes no new ones"),
        (state(EndpointState::Failed), "it has failed: see to the pod or to node n1"),
        (
            state(EndpointState::Failed).with_gateway("red/gw-0", |gateway| gateway.problems.push(conflict)),
            "it has failed (10.10.10.0 is answered for by 02:00:00:00:00:09): see to the pod or to node n1",
        ),
        (
            clients(None),
            "pool `p4` serves clients of the gateway's own namespace alone: set its clientNamespaces to take \
             namespace `shop`",
        ),
        (clients(Some("projectcalico.org/name == 'shop'")), "usable"),
        (
            clients(Some("team == 'net'")),
            "pool `p4`: its clientNamespaces team == \"net\" does not take namespace `shop`",
        ),
        (
            gateways(Some("team == 'db'")),
            "pool `p4`: its gatewayNamespaces team == \"db\" does not take namespace `red`",
        ),
        (
            gateways(None),
            "pool `p4` lets no namespace's pods be gateways: set its gatewayNamespaces, for example \
             projectcalico.org/name == 'red'",
        ),
        (gone.clone(), "its pool `p4` is gone: create it again, or restart the gateway with another"),
        (
            gone.broken("IPPool p4"),
            "IPPool p4 cannot be used, so nobody knows who may use its addresses: correct it",
        ),
        (replaced, "its endpoint belongs to an earlier pod of this name (UID a, now b): wait for its node"),
        (
            world().broken("Pod red/gw-0"),
            "Pod red/gw-0 cannot be read, so nobody knows its labels: correct it",
        ),
    ] {
        assert_eq!(why_not(view), expected);
    }
}

#[test]
fn a_gateway_that_does_not_match_is_no_candidate() {
    let view = world().pod("red/db", "role=db", &[]).gateway("red/db", "n1", &["10.10.10.5"]);
    assert_eq!(why_not(view), "usable", "and there are two candidates");
}

#[test]
fn of_two_records_of_one_attachment_the_later_counts_whatever_their_order() {
    let mut view = world().with_gateway("red/gw-0", |gateway| gateway.generation = 7);
    let earlier = Endpoint { generation: 6, state: EndpointState::Failed, ..view.endpoints[0].clone() };
    view.endpoints.push(earlier);
    assert_eq!(why_not(view.clone()), "usable");
    view.endpoints.reverse();
    assert_eq!(why_not(view), "usable");
}

#[test]
fn a_client_in_the_gateways_own_namespace_needs_no_client_namespaces() {
    let view = world().with_pool("p4", |pool| pool.client_namespaces = None).pod(
        "red/cart",
        "",
        &[(SELECTOR, "role == 'egress'")],
    );
    assert_eq!(v4(&view, "red/cart"), BOTH_GATEWAYS);
}

#[test]
fn one_wish_in_two_namespaces_comes_to_what_the_pools_grant_to_each() {
    let view = world()
        .with_pool("p4", |pool| pool.client_namespaces = Some("projectcalico.org/name == 'shop'".into()))
        .pod("shop/cart", "", &EGRESS)
        .pod("db/pg", "", &EGRESS);
    for pods in [["shop/cart", "db/pg"], ["db/pg", "shop/cart"]] {
        let resolution = resolve(&view, pods.map(pod_name));
        let through = |pod| {
            let decision = &resolution.decisions[&pod_name(pod)];
            Family::BOTH.map(|family| matches!(outcome(decision, family).action, Action::Through(_)))
        };
        assert_eq!(through("shop/cart"), [true, true]);
        assert_eq!(through("db/pg"), [false, true]);
        let binding = |pod| resolution.decisions[&pod_name(pod)].binding.clone();
        assert_ne!(binding("shop/cart"), binding("db/pg"), "they do different things");
    }
}

// --- bindings --------------------------------------------------------------------------------------------------------

#[test]
fn a_binding_names_the_rules_as_written_and_outlives_its_gateways() {
    let view = world()
        .pod("shop/a", "", &[(SELECTOR, "role=='egress'"), (NAMESPACES, "team == \"net\"")])
        .pod("shop/b", "", &[("egret.dev/selector", " role == 'egress'"), (NAMESPACES, "(team=='net')")])
        .pod("shop/c", "", &[(SELECTOR, "role != 'egress'"), (NAMESPACES, "team == 'net'")]);
    let binding = |view: &View, pod| decide(view, pod).binding;
    assert_eq!(binding(&view, "shop/a"), binding(&view, "shop/b"));
    assert_ne!(binding(&view, "shop/a"), binding(&view, "shop/c"));
    let mut without = view.clone();
    without.endpoints.clear();
    assert_eq!(binding(&without, "shop/a"), binding(&view, "shop/a"));
}

#[test]
fn the_unread_annotation_of_a_namespace_is_said_once() {
    let view = world().namespace("shop", "", &[("egret.dev/selektor", "x")]);
    let resolution = resolve(&view, ["a", "b", "c"].map(|name| PodName::new("shop", name)));
    let said: Vec<String> = resolution.problems.iter().map(ToString::to_string).collect();
    assert_eq!(
        said,
        ["Namespace shop: metadata.annotations[\"egret.dev/selektor\"]: \
          nobody reads this annotation; did you mean `egret.dev/selector`?"]
    );
}

// --- properties ------------------------------------------------------------------------------------------------------

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

fn all_pods(view: &View) -> Vec<PodName> {
    view.pods.keys().cloned().collect()
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

#[test]
fn ten_thousand_pods_share_what_is_equal() {
    let mut view = world();
    for namespace in 0..50 {
        view = view.namespace(&format!("ns{namespace}"), "", &EGRESS);
    }
    let labels = pairs("app=web");
    for i in 0..10_000 {
        let pod = Pod { labels: labels.clone(), ..Pod::default() };
        view.pods.insert(PodName::new(format!("ns{}", i % 50), format!("p{i}")), pod);
    }
    let resolution = resolve(&view, all_pods(&view));
    assert_eq!(resolution.decisions.len(), 10_002);
    let distinct: BTreeSet<*const _> = resolution.decisions.values().map(|d| Arc::as_ptr(&d.rules)).collect();
    assert!(distinct.len() <= 50 + 2, "{} sets of rules for 50 namespaces", distinct.len());
}
