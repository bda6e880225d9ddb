//! The directory datastore: one lock, and records that are replaced whole.
//!
//! ```text
//! STATE/objects/**            the user's objects; never written here
//! STATE/ipam/POOL/BLOCK.json  blocks (written by `ipam`)
//! STATE/endpoints/*.json      gateways and where they are
//! STATE/nodes/NODE.json       numbers and wire bytes of nodes
//! STATE/lock                  who writes just now
//! STATE/interfaces/NODE.json  what a node says of its interfaces, or `ip -j address` printed
//! STATE/cache/                can be deleted at any time
//! ```
//! Reading needs no lock: a record is always whole, because a new one is renamed over it. Writing needs the [`Guard`]
//! of the directory's lock, and every record has a version that a writer must have seen.

mod advice;
pub(crate) mod dir;
pub mod endpoints;
mod exchange;
pub mod interfaces;
mod inventory;
mod lock;
pub(crate) mod looks;
pub mod nodes;
pub mod objects;
pub mod record;
mod whole;

pub use advice::advice;
pub(crate) use dir::make_folder;
pub use dir::{Dir, DirError, looks, looks_whole};
pub(crate) use exchange::exchange;
pub use inventory::Inventory;
pub use lock::{Guard, HeldBy, LockError, is_held, lock, wait_for_writers};
pub use looks::{Since, Stamp};
pub use record::{RecordError, Swap, Version};
pub use whole::{read_whole, read_with_look};
