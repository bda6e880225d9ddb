//! Leases and where they are kept: one suite for every store, a model with crashes and races, and real processes that are
//! killed in the middle of a write.

#![allow(clippy::unwrap_used, reason = "a panic in a test is its report")]
#![allow(clippy::print_stdout, reason = "processes of a story talk to their parent; figures are to be read")]

mod churn;
mod crashes;
mod files;
mod holding;
mod model;
mod races;
mod speed;
mod suite;
mod world;
