//! Why there is no lease, in sentences.
//!
//! In: what a claim or release met. Out: variants for the caller's choice, text with figures for people.

use std::fmt;
use std::net::IpAddr;

use super::block::State;
use super::fill::Fill;
use super::lease::{Holder, Owner};
use super::store::StoreError;
use crate::addr::Cidr;

/// How often a claim is tried while others are faster.
pub(super) const ATTEMPTS: usize = 100;

/// Why there is no lease.
#[derive(Debug, thiserror::Error)]
pub enum IpamError {
    /// No pool has an address to give.
    #[error(
        "no address for {tenant}: {}. Add a pool or a larger range, or see `egret ipam show`",
        list(pools)
    )]
    Full {
        /// Who asked.
        tenant: String,
        /// Each pool, and why it gave nothing.
        pools: Vec<Refused>,
    },
    /// The address asked for is in none of the pools.
    #[error("address {address}, asked for by {tenant}, is in none of its pools ({})", pools.join(", "))]
    Outside {
        /// The address.
        address: IpAddr,
        /// Who asked.
        tenant: String,
        /// Pools with their prefixes.
        pools: Vec<String>,
    },
    /// The address asked for belongs to another owner.
    #[error("address {address}, asked for by {tenant}, is {state} for {owner}{}. See `egret ipam show`", holder.as_ref().map(|h| format!(", held by {h}")).unwrap_or_default())]
    Taken {
        /// The address.
        address: IpAddr,
        /// Who asked.
        tenant: String,
        /// Leased, reserved or cooling.
        state: State,
        /// Who has it.
        owner: Box<Owner>,
        /// Which container has it.
        holder: Option<Box<Holder>>,
    },
    /// The address asked for is in use according to another pool's books.
    #[error("address {address}, asked for by {tenant}, is in use from another pool. See `egret ipam check`")]
    TakenElsewhere {
        /// The address.
        address: IpAddr,
        /// Who asked.
        tenant: String,
    },
    /// The address asked for is another gateway's, although no lease says so.
    #[error(
        "address {address}, asked for by {tenant}, {whose}, although no lease says so. See `egret ipam check`"
    )]
    InUse {
        /// The address.
        address: IpAddr,
        /// Who asked.
        tenant: String,
        /// Whose it is.
        whose: String,
    },
    /// The address asked for would serve nobody.
    #[error(
        "address {address}, asked for by {tenant}, {why}: replies to it would not come back. Ask for another one"
    )]
    Unservable {
        /// The address.
        address: IpAddr,
        /// Who asked.
        tenant: String,
        /// What it is instead.
        why: String,
    },
    /// The address asked for lies in a block of another node, and the pool does not lend.
    #[error(
        "address {address}, asked for by {tenant}, lies in block {block} of node {node}, and pool `{pool}` has strictAffinity"
    )]
    Strict {
        /// The address.
        address: IpAddr,
        /// Who asked.
        tenant: String,
        /// Its block.
        block: Cidr,
        /// The node that claimed the block.
        node: String,
        /// The pool.
        pool: String,
    },
    /// There is no lease at that address.
    #[error("{0} is not leased, reserved or cooling in any pool. See `egret ipam show`")]
    Unknown(String),
    /// A container has the address, and nobody said to take it away.
    #[error("{address} is held by {holder}. Delete that container, or say --force if it is gone")]
    Held {
        /// The address.
        address: IpAddr,
        /// Who has it.
        holder: Box<Holder>,
    },
    /// The owner's earlier container has it on another node, which has not said that it is gone.
    #[error(
        "address {address} of {tenant} is held by {holder}: that node may still answer for it. It is given up when the agent there says so, \
         or by the controller once that agent is silent and the node's object deleted or tainted node.kubernetes.io/out-of-service; if you \
         know that nothing runs there any more, say `egret ipam release {address} --force`"
    )]
    Elsewhere {
        /// The address.
        address: IpAddr,
        /// Who asked.
        tenant: String,
        /// The earlier container.
        holder: Box<Holder>,
    },
    /// Others were faster every time.
    #[error("no address for {0}: other writers were faster {ATTEMPTS} times. Try again")]
    Contended(String),
    /// The store did not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl IpamError {
    /// Whether the same claim may succeed later without anybody changing an object: CNI error 11.
    pub fn try_again(&self) -> bool {
        matches!(
            self,
            IpamError::Full { .. }
                | IpamError::Contended(_)
                | IpamError::Taken { .. }
                | IpamError::TakenElsewhere { .. }
                | IpamError::InUse { .. }
                | IpamError::Elsewhere { .. }
                | IpamError::Store(StoreError::Remote(_))
        )
    }
}

/// Why a pool gave nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The pool.
    pub pool: String,
    /// Its addresses.
    pub cidr: Cidr,
    /// How full it is.
    pub fill: Fill,
    /// What keeps it from giving the free ones, if any.
    pub because: Option<String>,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pool `{}` ({}): {}", self.pool, self.cidr, self.fill)?;
        self.because.as_ref().map_or(Ok(()), |because| write!(f, " ({because})"))
    }
}

fn list(pools: &[Refused]) -> String {
    if pools.is_empty() {
        return "no pool serves it".to_owned();
    }
    pools.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}
