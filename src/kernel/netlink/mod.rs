//! Typed requests to the kernel's routing tables over one synchronous socket.
//!
//! Requests are built with `netlink-packet-route`; nexthop objects, which it does not know, by hand. Answers are read attribute
//! by attribute ([`attributes`]) and only as far as needed: a node's dump holds every pod's device with sixty attributes, nearly
//! all of them foreign, and a kernel newer than the message crate must not make a whole dump unreadable.

pub mod address;
pub mod attributes;
pub mod filter;
pub mod link;
pub mod neighbour;
pub mod nexthop;
pub mod route;
pub mod rule;
pub mod socket;

pub use socket::{Refusal, Socket};
