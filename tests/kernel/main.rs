//! The kernel reconciler against the real kernel, each test in a namespace of its own. Needs root, iproute2 and Linux 5.16.

#![allow(unreachable_pub, reason = "a test has no interface")]

mod roundtrip;
mod world;
