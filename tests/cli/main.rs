//! The built program as a person or a script uses it: arguments, manifests and standard input in; text, JSON and an exit status
//! out.
//!
//! Nothing here needs a node, a privilege or a network.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is a test's report")]

mod answers;
mod colours;
mod convert;
mod directories;
mod documents;
mod install;
mod lint;
mod list;
mod misused;
mod probes;
mod random;
mod world;
