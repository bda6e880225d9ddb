//! Crashes, races, reboots: whatever happens half-way, what is left is the truth or is put right by the next call.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is a test's report")]

mod any_order;
mod bad_ground;
mod books;
mod crowd;
mod full_disk;
mod halfway;
mod killed_anywhere;
mod killed_at_points;
#[path = "../scenarios/lab.rs"]
#[allow(dead_code, reason = "the stories here use a part of what scenarios share")]
mod lab;
mod objects;
mod reboot;
