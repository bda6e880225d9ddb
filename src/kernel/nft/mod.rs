//! nftables: a table as a value, its text, its read-back, and the difference between two.
//!
//! `observe` → [`table::Tables`]; `diff::change(observed, desired)` → [`diff::Change`], which prints as a script;
//! `Change::apply` → by netlink if only elements differ, else by the program `nft`. Everything happens in the network namespace of
//! the calling thread.

use std::io;

pub mod ahead;
pub mod counters;
pub mod diff;
pub mod elements;
mod intervals;
pub mod load;
pub mod observe;
mod render;
pub mod table;
#[cfg(test)]
mod tests;
pub mod tracking;

use diff::ElementChange;

/// Why nftables could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No `nft` on this machine.
    #[error(
        "nft is not installed: looked in {searched}; install the package `nftables` (version {} or later)",
        load::REQUIRED
    )]
    NotInstalled {
        /// The directories, as a list with colons.
        searched: String,
    },
    /// An `nft` that lacks what the rules use.
    #[error(
        "nft {found} is too old: it cannot load a chain at the egress hook; install nftables {} or later",
        load::REQUIRED
    )]
    TooOld {
        /// What `nft --version` said.
        found: load::Version,
    },
    /// `nft` could not be started or talked to.
    #[error("could not run {program}: {source}")]
    NotRun {
        /// Path of the program.
        program: String,
        /// Why.
        source: io::Error,
    },
    /// `nft` or the kernel behind it refused the script; nothing was changed.
    #[error("nft refused the change{}: {message}; nothing was changed", line.as_ref().map(|l| format!(" at `{l}`")).unwrap_or_default())]
    Refused {
        /// The command it complained about, cut to a readable length.
        line: Option<String>,
        /// Its words.
        message: String,
    },
    /// The kernel refused elements; of the transaction they were in, nothing was changed.
    #[error("{}", sentences(.0))]
    Elements(Vec<ElementRefusal>),
    /// The ruleset could not be read.
    #[error("could not read nftables {what}: {reason}{}", hint(*errno))]
    NotRead {
        /// Which objects.
        what: String,
        /// The kernel's words.
        reason: String,
        /// The kernel's error number.
        errno: Option<i32>,
    },
    /// Somebody kept changing nftables while we read.
    #[error(
        "nftables changed {attempts} times while it was read; find out what rewrites it all the time, or try again"
    )]
    Unsettled {
        /// How often we tried.
        attempts: u32,
    },
}

/// The kernel's refusal of one element.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ElementRefusal {
    /// What was asked; `None` when the kernel refused the transaction as a whole.
    pub change: Option<ElementChange>,
    /// Error number: `ENOENT` means that the table, the set, the element to remove or the chain to go to is missing;
    /// `EEXIST` that the key is there with another value.
    pub errno: i32,
    /// The kernel's own words, if it had some.
    pub words: Option<String>,
}

fn sentences(refusals: &[ElementRefusal]) -> String {
    let first = refusals.first().map(ElementRefusal::to_string).unwrap_or_default();
    match refusals.len() {
        0 | 1 => first,
        more => format!("{first} (and {} more)", more - 1),
    }
}

impl std::fmt::Display for ElementRefusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let reason = io::Error::from_raw_os_error(self.errno);
        match &self.change {
            Some(change) => write!(f, "the kernel refused `{change}`: {reason}")?,
            None => write!(f, "the kernel refused a transaction of set elements: {reason}")?,
        }
        self.words.as_ref().map_or(Ok(()), |words| write!(f, ": {words}"))
    }
}

fn hint(errno: Option<i32>) -> &'static str {
    match errno {
        Some(libc::EPERM) => "; this needs CAP_NET_ADMIN in the network namespace's user namespace",
        Some(libc::EPROTONOSUPPORT) => "; this kernel has no netfilter netlink, load the module nfnetlink",
        Some(libc::EINVAL) => "; does this kernel have nftables (module nf_tables)?",
        _ => "",
    }
}
