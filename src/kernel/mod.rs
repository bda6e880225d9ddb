//! One network namespace: what it holds of ours, what it should hold, and the steps between.
//!
//! Knows links, routes and nftables; nothing of egress.

pub mod announce;
pub mod conntrack;
pub(crate) mod nfnetlink;
pub mod nft;
#[cfg(test)]
mod sandbox;
pub mod state;
