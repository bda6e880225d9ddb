//! Faults and seat belts: whatever of ours is missing, no selected pod shows its own or its node's address.
#![allow(clippy::unwrap_used, reason = "a panic is a test's report")]

mod cheats;
mod deletion;
mod endings;
mod faults;
mod lab;
mod matrix;
mod traffic;
