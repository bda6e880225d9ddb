//! nftables: a table as a value, its text, its read-back, and the difference between two.

pub mod table;
