//! The whole system in network namespaces: pods wired by the real libcni, seen from outside.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is a test's report")]

mod attacks;
mod basic;
mod crowded;
mod destinations;
mod dry_run;
mod example;
mod guard;
mod inside;
mod lab;
mod late;
mod lost;
mod mtu;
mod names;
mod nat_outgoing;
mod never;
mod node_gateway_variants;
mod node_gateways;
mod pod_address;
mod reuse;
mod running;
mod selection;
mod several;
mod startup;
mod status;
mod strays;
mod tracking;
#[path = "../belts/traffic.rs"]
#[allow(dead_code, reason = "the stories here use a part of what belts are shown with")]
mod traffic;
mod underlay;
mod uninstall;
mod variants;
mod way_back;
mod windows;
