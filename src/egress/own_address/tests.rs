//! Whether an own address serves, and what a node and a gateway hold for it.

use super::*;
use crate::egress::gateway::wanted;
use crate::egress::gateway_state::gateway_state;
use crate::egress::lower::{Belts, node_state};
use crate::egress::tests::worlds::{World as Nodes, ip};
use crate::egress::world::{World, pod_name};
use crate::kernel::state::State;

fn of_pods(pool: &mut Pool) {
    pool.source = PoolSource::PodAddress;
}

/// A gateway that names these pools; `pods` holds pods' own addresses, `red` leases.
fn world(pools: &str) -> View {
    let view =
        View::default().namespace("gw", "", &[]).pool("pods", "10.60.0.0/16").with_pool("pods", of_pods);
    view.pool("red", "10.10.10.0/28").pod("gw/g", "", &[("egret.dev/ipv4pools", pools)])
}

fn own(view: &View, addresses: &[&str]) -> OwnAddress {
    let wish = wanted(view, &pod_name("gw/g"), "n1").unwrap().unwrap();
    let addresses: Vec<IpAddr> = addresses.iter().map(|text| ip(text)).collect();
    wish.own_address(view, Family::V4, &addresses)
}

fn pods_own() -> EgressAddress {
    EgressAddress::of_the_pod(ip("10.60.1.3"), "pods")
}

#[test]
fn the_order_of_preference_says_whether_the_own_address_or_a_lease_comes_first() {
    let both = ["fd00::3", "10.60.1.3"];
    assert_eq!(own(&world("[\"pods\"]"), &both), OwnAddress::First(pods_own()));
    assert_eq!(own(&world("[\"pods\", \"red\"]"), &both), OwnAddress::First(pods_own()));
    assert_eq!(own(&world("[\"red\", \"pods\"]"), &both), OwnAddress::InNeed(pods_own()));
    assert_eq!(own(&world("[\"red\"]"), &both), OwnAddress::No);
    assert_eq!(own(&world("[\"pods\", \"red\"]"), &["10.99.0.1"]), OwnAddress::No, "a lease, then");
}

#[test]
fn an_address_outside_the_pool_is_no_gateways_and_the_sentence_says_both() {
    let OwnAddress::Nowhere(why) = own(&world("[\"pods\"]"), &["10.99.0.1", "fd00::3"]) else { panic!() };
    assert!(
        why.starts_with("the pod has 10.99.0.1, and must have an address of pool `pods` (10.60.0.0/16)"),
        "{why}"
    );
    let disabled = world("[\"pods\"]").with_pool("pods", |pool| pool.disabled = true);
    let OwnAddress::Nowhere(why) = own(&disabled, &["10.60.1.3"]) else { panic!() };
    assert!(why.contains("`pods` (10.60.0.0/16, disabled)"), "{why}");
}

#[test]
fn calico_takes_pods_addresses_from_its_pools_so_an_own_one_is_never_doubled_by_a_lease() {
    let calico = world("[\"pods\"]").with_pool("pods", |pool| {
        (pool.kind, pool.source) = (PoolKind::IPPool, PoolSource::Pool);
    });
    assert_eq!(own(&calico, &["10.60.1.3"]), OwnAddress::First(pods_own()));
    assert_eq!(own(&calico, &["10.99.0.1"]), OwnAddress::No);
}

/// The text of every rule.
fn rules(state: &State) -> String {
    let chains = state.tables.values().flat_map(|table| table.chains.values());
    chains.flat_map(|chain| &chain.rules).map(|rule| format!("{}\n", rule.text)).collect()
}

/// A world with a gateway and a client on node 1, and the gateway's IPv4 address its own.
fn planned() -> (crate::egress::plan::NodePlan, State, State) {
    let mut world = Nodes::new().gateway(1, 1).client(7, &[1]);
    let endpoint = world.endpoint(1);
    endpoint.addresses[0] = EgressAddress::of_the_pod(ip("10.60.1.200"), "pods");
    let plan = world.plan();
    let node = node_state(&plan, Belts::of_this_build());
    let gateway = plan.locals.values().next().unwrap();
    let inside = gateway_state(&plan, gateway, Belts::of_this_build());
    (plan, node, inside)
}

#[test]
fn a_node_neither_routes_nor_announces_an_own_address_and_no_masquerade_hides_it() {
    let (plan, node, _) = planned();
    let gateway = plan.locals.values().next().unwrap();
    let text = rules(&node);
    assert!(gateway.announced.iter().all(|(_, ip)| ip.is_ipv6()), "{:?}", gateway.announced);
    assert!(
        !node.routes.iter().any(|route| route.to == crate::addr::Cidr::host(ip("10.60.1.200"))),
        "{text}"
    );
    assert!(text.contains("ip saddr 10.60.1.200 ip daddr != @direct4 snat ip to 10.60.1.200"), "{text}");
    assert!(text.contains("ip saddr 10.60.1.200 fib saddr . iif oif missing counter drop"), "{text}");
    let leases = &node.tables.values().find_map(|table| table.maps.get("lease4")).unwrap().elements;
    assert!(leases.is_empty(), "nothing with that address comes by our devices: {leases:?}");
}

#[test]
fn a_gateway_sends_an_own_family_by_the_primarys_device_and_the_leased_one_by_ours() {
    let (_, _, inside) = planned();
    let text = rules(&inside);
    let both = "iifname { \"vxlan0\", \"egress0\" }";
    assert!(text.contains(&format!("oifname \"eth0\" {both} snat ip to 10.60.1.200")), "{text}");
    assert!(text.contains(&format!("oifname \"egress0\" {both} snat ip6 to")), "{text}");
    assert!(
        text.contains("iifname \"eth0\" ct mark 0 counter drop"),
        "it forwards for clients alone: {text}"
    );
    assert_eq!(inside.sysctls["net/ipv4/conf/eth0/forwarding"], "1");
    assert!(!inside.addresses.iter().any(|address| address.ip == ip("10.60.1.200")), "{text}");
    assert!(!inside.routes.iter().any(|route| route.table == crate::egress::numbers::TABLE_MAIN), "{text}");
}
