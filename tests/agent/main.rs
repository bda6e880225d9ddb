//! `egret agent`: a real agent per node beside the plugin, in the testbed's world.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is a test's report")]
#![allow(clippy::print_stdout, reason = "how long a repair took is worth a line")]

mod addresses;
mod answers;
mod attacks;
mod changes;
mod crowds;
mod directory;
mod door;
mod flushed;
mod kernel;
mod lab;
mod life;
mod live;
mod machine;
mod together;
mod witness;
