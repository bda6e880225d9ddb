//! Egret gives Kubernetes pods a fixed, known source address when they leave the cluster, on any CNI.
//!
//! Data flows one way: objects → view → decisions → plan → desired kernel state → steps → apply → report.
//! `docs/architecture.md` has the picture and the reasons.

pub mod addr;
pub mod agent;
pub mod api;
pub mod cli;
pub mod clock;
pub mod cni;
pub mod config;
pub mod controller;
pub mod egress;
pub mod fault;
pub mod hash;
pub mod heap;
pub mod install;
pub mod ipam;
pub mod kernel;
pub mod kube;
pub mod log;
pub mod node;
pub mod probes;
pub mod problem;
pub mod signals;
pub mod spelling;
pub mod store;
#[cfg(feature = "testbed")]
pub mod testbed;
