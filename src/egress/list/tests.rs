//! What `egret list` says of every pod.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::net::IpAddr;

use super::*;
use crate::egress::world::{World, pod_name};

const SELECTOR: &str = "egress.projectcalico.org/selector";

fn world() -> View {
    View::default()
        .node("n1", &["192.168.0.1", "fd00::1"])
        .pool("red", "10.10.10.0/28")
        .namespace("shop", "", &[(SELECTOR, "gw == 'red'")])
        .pod("shop/gw", "gw=red", &[])
        .pod("shop/cart", "", &[])
        .gateway("shop/gw", "n1", &["10.10.10.1"])
}

fn with_addresses(mut view: View, pod: &str, ips: &[&str]) -> View {
    view.pods.get_mut(&pod_name(pod)).unwrap().ips = ips.iter().map(|ip| ip.parse().unwrap()).collect();
    view
}

fn rows(view: &View, pod: &str) -> Vec<Row> {
    list(view, [pod_name(pod)]).items
}

#[test]
fn each_address_of_a_pod_has_a_row_for_each_prefix_of_its_family() {
    let view = with_addresses(world(), "shop/cart", &["10.1.0.5", "fd00:1::5"]);
    let [v4, v6] = <[Row; 2]>::try_from(rows(&view, "shop/cart")).unwrap();
    assert_eq!((v4.address, v4.destination), (Some("10.1.0.5".parse().unwrap()), Family::V4.everything()));
    assert_eq!((v4.action, v4.gateways.len()), (Verdict::Gateway, 1));
    assert_eq!(v4.gateways[0].egress_address, Some("10.10.10.1".parse::<IpAddr>().unwrap()));
    assert_eq!(v4.gateways[0].node_address, Some("192.168.0.1".parse::<IpAddr>().unwrap()));
    assert_eq!(v4.decided_by.unwrap().object, "Namespace shop");
    assert_eq!((v6.action, v6.gateways[0].usable), (Verdict::Held, false));
}

#[test]
fn a_pod_of_unknown_address_is_listed_for_both_families() {
    let rows = rows(&world(), "shop/cart");
    assert_eq!(rows.iter().map(|row| row.address).collect::<Vec<_>>(), [None, None]);
}

#[test]
fn who_is_not_selected_goes_direct_and_a_gateway_too() {
    let view = with_addresses(world().pod("other/p", "", &[]), "shop/gw", &["10.1.0.6"]);
    let gateway = &rows(&view, "shop/gw")[0];
    assert_eq!((gateway.role, gateway.action), (Role::Gateway, Verdict::Direct));
    let other = &rows(&view, "other/p")[0];
    assert_eq!((other.role, other.action, &other.decided_by), (Role::Unselected, Verdict::Direct, &None));
}

#[test]
fn a_pool_that_leaves_with_the_nodes_address_shows_the_nodes_address() {
    let view = world().with_pool("red", |pool| pool.nat_outgoing = true);
    let row = &rows(&view, "shop/cart")[0];
    assert_eq!(row.gateways[0].egress_address, Some("192.168.0.1".parse::<IpAddr>().unwrap()));
}
