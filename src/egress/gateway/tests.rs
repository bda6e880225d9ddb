//! Who becomes a gateway, of which pools, and each reason why not.

use super::*;
use crate::egress::world::{World, pairs, pod_name};

/// Two nodes, an IPv4 pool that nobody gets unasked, one for all of both families, and a gateway pod `red/gw`.
fn world(annotations: &[(&str, &str)]) -> View {
    View::default()
        .node("n1", &["192.168.0.1"])
        .namespace("red", "team=net", &[])
        .pool("named", "10.10.10.0/31")
        .with_pool("named", |pool| pool.node_selector = "!all()".into())
        .pool("open4", "10.10.20.0/28")
        .pool("open6", "fd00:10::/124")
        .pod("red/gw", "role=egress", annotations)
}

fn wish(view: &View) -> GatewayWish {
    wanted(view, &pod_name("red/gw"), "n1").unwrap().unwrap()
}

fn refused(view: &View) -> String {
    let problem = wanted(view, &pod_name("red/gw"), "n1").unwrap_err();
    assert_eq!(problem.object, "Pod red/gw");
    assert!(!problem.field.is_empty() && !problem.value.is_empty(), "{problem:?}");
    format!("{}: {}", problem.reason, problem.message)
}

fn names(wish: &GatewayWish, family: Family) -> Vec<&str> {
    wish.pools.get(&family).map(|pools| pools.iter().map(String::as_str).collect()).unwrap_or_default()
}

const V4: &str = "cni.projectcalico.org/ipv4pools";
const V6: &str = "cni.projectcalico.org/ipv6pools";
const ANY: (&str, &str) = ("egret.dev/gateway", "true");

#[test]
fn a_pod_that_asks_for_nothing_is_no_gateway() {
    assert_eq!(wanted(&world(&[]), &pod_name("red/gw"), "n1"), Ok(None));
    assert_eq!(wanted(&world(&[]), &pod_name("red/unknown"), "n1"), Ok(None));
}

#[test]
fn a_pod_that_names_a_pool_gets_it_wherever_it_runs_in_the_order_it_says() {
    let wish = wish(&world(&[(V4, r#"["open4", "10.10.10.0/31", "open4"]"#), (V6, "open6")]));
    assert_eq!(names(&wish, Family::V4), ["open4", "named"]);
    assert_eq!(names(&wish, Family::V6), ["open6"]);
}

#[test]
fn calicos_pools_of_a_pod_that_is_a_client_by_its_own_word_are_for_its_own_address() {
    let client = ("egress.projectcalico.org/selector", "has(red)");
    let wanted = |annotations: &[(&str, &str)]| wanted(&world(annotations), &pod_name("red/gw"), "n1");
    assert_eq!(wanted(&[(V4, "open4"), (V6, "open6"), client]), Ok(None));
    assert_eq!(wanted(&[(V4, "no such pool"), ("egret.dev/egressGatewayPolicy", "p")]), Ok(None));
    for said in [ANY, ("egret.dev/ipv4pools", "open4"), ("egret.dev/address", "10.10.20.1")] {
        assert!(matches!(wanted(&[(V4, "open4"), client, said]), Ok(Some(_))), "{said:?} asks for it");
    }
    let mut view = world(&[(V4, "open4"), client]);
    view.support = EgressSupport::EnabledPerNamespace;
    assert!(!wish(&view).pools.is_empty(), "nobody reads what makes it a client");
}

#[test]
fn a_pod_that_names_none_gets_those_whose_node_selector_takes_its_node() {
    let wish = wish(&world(&[ANY]));
    assert_eq!(names(&wish, Family::V4), ["open4"]);
    assert_eq!(names(&wish, Family::V6), ["open6"]);

    let view = world(&[ANY])
        .with_pool("open4", |pool| pool.node_selector = "zone == 'a'".into())
        .with_pool("open6", |pool| pool.node_selector = "zone == 'a'".into());
    assert_eq!(
        refused(&view),
        "NoPool: no pool takes this pod: pool `named`: its nodeSelector !all() does not take node `n1`; \
         pool `open4`: its nodeSelector zone == \"a\" does not take node `n1`; \
         pool `open6`: its nodeSelector zone == \"a\" does not take node `n1`"
    );
    let mut view = view;
    view.nodes.get_mut("n1").unwrap().labels = pairs("zone=a");
    assert!(wanted(&view, &pod_name("red/gw"), "n1").unwrap().is_some());
}

#[test]
fn our_own_pools_come_before_calicos() {
    let view =
        world(&[ANY]).pool("zz", "10.10.30.0/28").with_pool("open4", |pool| pool.kind = PoolKind::IPPool);
    assert_eq!(names(&wish(&view), Family::V4), ["zz", "open4"]);
}

#[test]
fn permission_is_the_pools_and_not_the_pods() {
    let named = world(&[(V4, "named")]);
    let nobody = named.clone().with_pool("named", |pool| pool.gateway_namespaces = None);
    assert_eq!(
        refused(&nobody),
        "NotPermitted: pool `named` lets no namespace's pods be gateways: set its gatewayNamespaces, \
         for example projectcalico.org/name == 'red'"
    );
    let others =
        named.clone().with_pool("named", |pool| pool.gateway_namespaces = Some("team == 'db'".into()));
    assert_eq!(
        refused(&others),
        "NotPermitted: pool `named`: its gatewayNamespaces team == \"db\" does not take namespace `red`"
    );
    let ours = named.with_pool("named", |pool| pool.gateway_namespaces = Some("team == 'net'".into()));
    assert_eq!(names(&wish(&ours), Family::V4), ["named"]);
}

#[test]
fn what_a_pod_names_wrongly_is_said() {
    for (annotations, expected) in [
        ((V4, "open5"), "UnknownPool: there is no pool `open5`; did you mean `open4`?"),
        ((V4, "blue-pool"), "UnknownPool: there is no pool `blue-pool`: create it, or name one that exists"),
        (
            (V4, "10.10.10.0/32"),
            "UnknownPool: no pool is exactly 10.10.10.0/32: name a pool, or the whole prefix of one",
        ),
        ((V4, "open6"), "WrongFamily: pool `open6` (fd00:10::/124) has no IPv4 addresses"),
        ((V6, "open4"), "WrongFamily: pool `open4` (10.10.20.0/28) has no IPv6 addresses"),
    ] {
        assert_eq!(refused(&world(&[annotations])), expected);
    }
    let broken = world(&[(V4, "gone")]).broken("EgressPool gone");
    assert_eq!(refused(&broken), "UnknownPool: EgressPool gone cannot be used: correct it");
}

#[test]
fn a_pod_that_only_chooses_where_calico_takes_its_address_from_asks_for_nothing() {
    let of_calico = |pool: &mut Pool| {
        (pool.kind, pool.source) = (PoolKind::IPPool, PoolSource::PodAddress);
        pool.gateway_namespaces = Some("!all()".to_owned());
    };
    let calicos = world(&[("cni.projectcalico.org/ipv4pools", "[\"named\"]")]).with_pool("named", of_calico);
    assert_eq!(wanted(&calicos, &pod_name("gw/red"), "n1"), Ok(None));
    let ours = world(&[("egret.dev/ipv4pools", "[\"named\"]")]).with_pool("named", of_calico);
    assert!(refused(&ours).starts_with("NotPermitted"), "{}", refused(&ours));
}

#[test]
fn an_ip_pool_with_nat_outgoing_serves_who_names_it_and_nobody_else() {
    let view = world(&[ANY]).with_pool("open4", |pool| {
        (pool.kind, pool.nat_outgoing) = (PoolKind::IPPool, true);
    });
    assert!(!names(&wish(&view), Family::V4).contains(&"open4"));
    let named = world(&[(V4, "open4")]).with_pool("open4", |pool| {
        (pool.kind, pool.nat_outgoing) = (PoolKind::IPPool, true);
    });
    assert_eq!(names(&wish(&named), Family::V4), ["open4"]);
}

#[test]
fn a_disabled_pool_stays_for_those_who_have_an_address_of_it_and_is_said() {
    let view = world(&[(V4, r#"["named", "open4"]"#)]).with_pool("named", |pool| pool.disabled = true);
    let named = wish(&view);
    assert_eq!(names(&named, Family::V4), ["named", "open4"]);
    let said: Vec<String> = named.problems.iter().map(ToString::to_string).collect();
    assert_eq!(
        said,
        ["Pod red/gw: metadata.annotations[\"cni.projectcalico.org/ipv4pools\"]: \
          pool `named` is disabled and gives no new leases: enable it or name another"]
    );
    let view = world(&[ANY]).pool("zz", "10.10.30.0/28").with_pool("open4", |pool| pool.disabled = true);
    assert_eq!(names(&wish(&view), Family::V4), ["zz", "open4"], "and comes last where nobody named it");
}

#[test]
fn an_address_asked_for_picks_its_pool() {
    let alone = wish(&world(&[("egret.dev/address", "10.10.10.1")]));
    assert_eq!(names(&alone, Family::V4), ["named"]);
    assert_eq!(alone.addresses[&Family::V4], "10.10.10.1".parse::<IpAddr>().unwrap());
    assert!(!alone.pools.contains_key(&Family::V6));

    let any = wish(&world(&[ANY, ("egret.dev/address", "10.10.10.1")]));
    assert_eq!((names(&any, Family::V4), names(&any, Family::V6)), (vec!["named"], vec!["open6"]));

    let among = wish(&world(&[(V4, r#"["open4","named"]"#), ("egret.dev/address", "10.10.10.1")]));
    assert_eq!(names(&among, Family::V4), ["named"]);

    let outside = refused(&world(&[(V4, "open4"), ("egret.dev/address", "10.10.10.1")]));
    assert_eq!(outside, "AddressOutsidePools: no pool that this pod names holds 10.10.10.1");
    let nowhere = refused(&world(&[("egret.dev/address", "10.99.0.1")]));
    assert_eq!(nowhere, "AddressOutsidePools: no pool holds 10.99.0.1");
}

#[test]
fn a_pod_on_the_nodes_network_or_of_an_unreadable_namespace_is_refused() {
    let mut host = world(&[ANY]);
    host.pods.get_mut(&pod_name("red/gw")).unwrap().host_network = true;
    assert!(refused(&host).starts_with("HostNetwork: "), "{}", refused(&host));
    let broken = world(&[ANY]).broken("Namespace red");
    assert!(
        refused(&broken).starts_with("BrokenObject: Namespace red cannot be read"),
        "{}",
        refused(&broken)
    );
}

#[test]
fn without_any_pool_the_next_step_is_to_make_one() {
    let view = View::default().pod("red/gw", "", &[ANY]);
    assert_eq!(refused(&view), "NoPool: no pool takes this pod: there is none: create an EgressPool");
}
