//! One example for each row of the precedence; beside it gateways, policies, and properties over random worlds.

mod gateways;
mod policies;
mod worlds;

use super::*;
use crate::egress::model::{EgressSupport, Endpoint, EndpointState, STATIC_POD_UID};
use crate::egress::world::{World, pairs, pod_name};

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

fn all_pods(view: &View) -> Vec<PodName> {
    view.pods.keys().cloned().collect()
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
    let object = view.pods.get_mut(&pod_name("red/gw-0")).unwrap();
    object.annotations.insert(STATIC_POD_UID.into(), "a".into());
    assert_eq!(
        decide(&view, "red/gw-0").role,
        Role::Gateway,
        "a static pod's object has another UID than its file"
    );
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
