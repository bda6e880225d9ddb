//! How a process is, for those who ask from outside: the pages of the agent and of the controller.
//!
//! [`web`] answers, whoever the doctor is; [`metrics`] is what was counted, of the [`families`] that a program says; [`turns`] whether its
//! loops turn; [`followed`] what both count of the cluster that they follow.
//!
//! In: what a program says of itself. Out: three pages. Never: knows whose they are; waits for a loop; changes anything.

pub mod families;
pub mod followed;
pub mod metrics;
pub mod turns;
pub mod web;
