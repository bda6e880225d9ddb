//! The Kubernetes API: access, requests, and what Egret keeps there.
//!
//! In: a kubeconfig or a pod's own credentials; requests. Out: JSON values, or an error that says what to do. Blocks over the API
//! are a [`crate::ipam::Store`] like those of a directory.
//! Never: decides anything, reads a manifest's meaning (`api` does), touches a kernel.
//!
//! Blocking, on threads: one connection per watch, one for requests. `docs/architecture.md` says why there is no runtime.

pub mod access;
mod base64;
pub mod blocks;
pub mod client;
mod connection;
mod error;
mod events;
mod exec;
pub mod foreign;
mod http;
mod items;
mod kubeconfig;
pub mod lease;
pub mod look;
pub mod mirror;
mod pace;
mod proxy;
#[cfg(test)]
mod rights;
mod trust;
pub mod watch;
pub mod watched;

/// The namespace of Egret's own pods and Leases.
pub const HOME: &str = "egret-system";

pub use access::Access;
pub use blocks::ClusterStore;
pub use client::Client;
pub use error::ApiError;
pub use mirror::{Mirror, NodeSpec};
pub use watch::Following;
pub use watched::{Reach, Watched};
