//! What Egret is to a real Kubernetes API server: its definitions, and the store of blocks over the API.
//!
//! `scripts/cluster` raises etcd and kube-apiserver in namespaces of their own, once for all tests of this process, and they end
//! with it. Getting the programs takes about 6 minutes, once.

#![allow(clippy::print_stdout, reason = "figures are to be read")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic in a test is its report")]

mod absence;
mod again;
mod anew;
mod apart;
mod bad;
mod blocks;
mod controller;
mod damaged;
mod definitions;
mod emptied;
mod explaining;
mod follower;
mod following;
mod foreign;
mod hanging;
#[path = "../stores/holding.rs"]
mod holding;
mod installation;
mod leading;
mod leases;
mod lost;
mod others;
mod pages;
mod proxy;
mod questions;
mod rebooted;
mod refused;
mod rotated;
mod server;
mod silent;
#[path = "../stores/suite.rs"]
mod suite;
mod telling;
mod trouble;
mod ways;
mod wired;
mod world;
