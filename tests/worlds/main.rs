//! Random clusters raised in the lab: whatever users write, the outside sees what `egret explain` said, and nothing else.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is a test's report")]

mod annotations;
mod dice;
mod judge;
#[path = "../scenarios/lab.rs"]
#[allow(dead_code, reason = "the worlds here use a part of what scenarios share")]
mod lab;
mod policies;
mod stand;
mod story;
mod tally;
mod written;
