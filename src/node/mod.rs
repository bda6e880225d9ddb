//! This node: what is known here and nowhere else, and what is done here at each verb.

pub mod ahead;
pub mod announce;
pub mod attachment;
pub mod books;
pub mod change;
pub mod check;
pub mod embedded;
pub mod facts;
mod first;
pub mod flows;
pub mod intention;
pub mod kept;
pub mod lease;
pub mod memory;
pub mod netns;
pub mod passage;
pub mod plugin;
pub mod reconcile;
pub mod records;
pub mod removal;
pub mod repair;
pub mod situation;
pub mod standing;
pub mod status;
pub mod thin;
pub mod update;
pub mod verbs;
