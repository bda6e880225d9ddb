//! The kernel reconciler against the real kernel, each test in a namespace of its own. Needs root, iproute2 and Linux 5.19.

#![allow(unreachable_pub, reason = "a test has no interface")]
#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

mod begun;
mod conflicts;
mod devices;
mod foreign;
mod passage;
mod places;
mod property;
mod repair;
mod roundtrip;
mod settings;
mod world;
