//! One network namespace: what it holds of ours, what it should hold, and the steps between.
//!
//! Knows links, routes and nftables; nothing of egress.

pub mod nft;
pub mod state;
