//! Leases of egress addresses: pools cut into blocks, blocks claimed by nodes, addresses leased to owners.
//!
//! ```text
//! pool (what may be given)  ─choose─►  block (what was given)  ─swap─►  Store: directory, API
//!                                      summary (what is known of all blocks without reading them)
//! ```
//! The clock is an argument everywhere: Unix seconds. `pool`, `block`, `lease` and `summary` are pure.
//!
//! **Who calls what.** Blocks are safe against any number of writers, because each is swapped only in the version that was
//! read. That one *owner* does not get two addresses from two blocks at once is the caller's part: it holds the store's lock
//! while it claims ([`DirStore::under`]), or is the only one to serve that owner (the agent of the pod's node).

mod audit;
mod block;
mod cache;
mod claim;
mod dir;
mod error;
mod fill;
mod hold;
mod lease;
mod pool;
mod release;
mod store;
mod summary;

pub use audit::{Books, audit};
pub use block::{After, Allocation, Block, State};
pub use claim::{Claim, Claimed, How, claim};
pub use dir::{DirStore, block_name, blocks_in, pools_in};
pub use error::{IpamError, Refused};
pub use fill::Fill;
pub use hold::{Held, Running, hold};
pub use lease::{Holder, Lease, Owner, Tenant};
pub use pool::{Choice, Source, choose};
pub use release::{
    Freed, cancel, forget_node, forget_owners, release, release_address, release_owner, retain,
};
pub use store::{Store, StoreError};
pub use summary::Summary;
