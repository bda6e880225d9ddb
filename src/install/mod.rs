//! Egret on a node: the binary among the plugins, our entry in the primary's network list; and both away again.
//!
//! In: the folders of plugins and lists, our entry. Out: files, each replaced in one piece, and what was changed. [`list`] and
//! [`multus`] are pure and know what lists are; [`place`] knows files. Never: changes an entry that is not ours; touches the kernel.

pub mod follow;
pub mod list;
mod look;
pub mod multus;
pub mod place;

pub use place::{Change, InstallError, Place};
