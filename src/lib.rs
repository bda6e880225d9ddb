//! Egret gives Kubernetes pods a fixed, known source address when they leave the cluster, on any CNI.
//!
//! Data flows one way: objects → view → decisions → plan → desired kernel state → steps → apply → report.
//! `docs/architecture.md` has the picture and the reasons.

pub mod addr;
pub mod config;
pub mod egress;
pub mod kernel;
pub mod problem;
#[cfg(feature = "testbed")]
pub mod testbed;
