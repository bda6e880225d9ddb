//! How full a pool is: a number for each state of its addresses, and the sentence that people read.

use std::fmt;

use serde::Serialize;

/// How full a pool is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Fill {
    /// Addresses in the pool.
    pub size: u128,
    /// In use.
    pub leased: u64,
    /// Freed a moment ago.
    pub cooling: u64,
    /// Kept for owners without a container.
    pub reserved: u64,
    /// When the first cooling address is free, in Unix seconds.
    #[serde(skip)]
    pub next_free: Option<u64>,
}

impl Fill {
    /// Addresses that anybody may have.
    pub fn free(&self) -> u128 {
        self.size.saturating_sub(u128::from(self.leased + self.cooling + self.reserved))
    }
}

impl fmt::Display for Fill {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} of {} leased, {} cooling, {} reserved",
            self.leased, self.size, self.cooling, self.reserved
        )
    }
}
