//! `egret agent`: one process per node that keeps this node's kernel true, beside the plugin.
//!
//! [`watch`](files) and the kernel's notices say *that* something happened; [`schedule`] says when which job is due; `work` does
//! it, under the node's lock, with the verbs that the plugin uses; [`state`] is what is told about it all, [`families`] what is counted, and [`probes`](crate::probes) where both are asked for. Every job looks for
//! itself: a notice that is missed, doubled or late costs time, never truth.
//!
//! In: a directory, the node's own files, the kernel's notices, the clock. Out: the same kernel that the plugin and `egret
//! reconcile` would make. Never: decides anything that `egress` could; empties a node because something could not be read; holds
//! the node's lock across a wait.

pub mod announcing;
pub mod brakes;
pub mod calls;
pub mod cluster;
pub mod crowd;
pub mod door;
pub mod ear;
pub mod families;
pub mod files;
mod health;
pub mod in_force;
mod passing;
pub mod run;
pub mod schedule;
pub mod state;
pub mod telling;
mod work;
