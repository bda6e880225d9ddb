//! Conformance with the CNI specification, as a black box: the built program, called as runtimes call it.
//!
//! Each case is named by its row in `rows::SECTIONS`: `row_4_18_…` is row 4.18. A row without a case fails.
//! Sections 1–8 call the program directly; section 9 goes through the real libcni (`cnitool`) behind real primaries.

#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

mod bypass;
mod call;
mod libcni;
mod rows;
mod s1_environment;
mod s2_stdin;
mod s3_version;
mod s4_add;
mod s4_add_concurrently;
mod s4_add_results;
mod s5_del;
mod s6_check;
mod s7_gc;
mod s8_status;
mod s9_runtime;
mod underlay;
mod world;
