//! Which gateways a client may use, and why it may not use the others.

use super::*;
use crate::problem::Problem;

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
    let mut of_a_file = replaced.clone();
    let object = of_a_file.pods.get_mut(&pod_name("red/gw-0")).unwrap();
    object.annotations.insert(STATIC_POD_UID.into(), "a".into());
    let conflict =
        Problem::new("EgressEndpoint x", "AddressInUse", "10.10.10.0 is answered for by 02:00:00:00:00:09");
    for (view, expected) in [
        (world(), "usable"),
        (
            state(EndpointState::Starting),
            "it is starting: its pod is not ready yet, or node n1 has not wired it; see to the pod's readiness and events",
        ),
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
        (of_a_file, "usable"), // a static pod's endpoint has the UID of its file
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
