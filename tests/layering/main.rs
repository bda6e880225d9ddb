//! The shape of the source, held by a test: which way arrows point, what pure parts may know, and that documents are current.
//!
//! In: the files of the repository. Out: every line that breaks a rule of `docs/architecture.md`, named.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is a test's report")]

mod arrows;
mod documents;
mod quiet;
mod reasons;
mod scenarios;
mod source;
