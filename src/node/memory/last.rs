//! Plans as this process last read or wrote them, so that who lives on does not decode its own file at every call.
//!
//! In: how a file looks, and what it holds. Out: the same for a file that looks so. Never: believed of another file: what somebody else
//! wrote, edited or deleted looks otherwise and is read.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};

use super::Applied;
use crate::config::Config;
use crate::egress::peers::Peers;

/// The plan applied, and one that is intended.
const KEPT: usize = 2;

/// What files held that looked so.
#[derive(Debug, Default)]
pub struct LastPlans {
    plans: Mutex<Vec<(Look, Arc<Applied>)>>,
    /// Nodes, by the name of their file, which says nothing else as long as it has this name.
    nodes: Mutex<Option<(String, Peers)>>,
    pub(super) config: LastConfig,
    /// It was written down that the plan is this kernel's.
    pub(in crate::node) is_of_this_kernel: AtomicBool,
}

/// The same of the configuration.
#[derive(Debug, Default)]
pub(super) struct LastConfig(Mutex<Option<(Look, Config)>>);

impl LastConfig {
    pub(super) fn is(&self, look: Look, config: &Config) -> bool {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.as_ref().is_some_and(|(seen, known)| *seen == look && known == config)
    }

    pub(super) fn keep(&self, look: Look, config: &Config) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((look, config.clone()));
    }
}

/// A file that is never written twice, only replaced. Not the time of its inode: a new name changes that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Look {
    file: (u64, u64),
    length: u64,
    written: (i64, i64),
}

impl Look {
    pub(super) fn of(meta: &Metadata) -> Look {
        Look {
            file: (meta.dev(), meta.ino()),
            length: meta.size(),
            written: (meta.mtime(), meta.mtime_nsec()),
        }
    }
}

impl LastPlans {
    pub(super) fn nodes(&self, name: &str) -> Option<Peers> {
        let known = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        known.as_ref().filter(|(seen, _)| seen == name).map(|(_, nodes)| nodes.clone())
    }

    pub(super) fn keep_nodes(&self, name: &str, nodes: &Peers) {
        *self.nodes.lock().unwrap_or_else(PoisonError::into_inner) = Some((name.to_owned(), nodes.clone()));
    }

    pub(super) fn of(&self, look: Look) -> Option<Arc<Applied>> {
        let known = self.plans.lock().unwrap_or_else(PoisonError::into_inner);
        known.iter().find(|(seen, _)| *seen == look).map(|(_, plan)| Arc::clone(plan))
    }

    pub(super) fn keep(&self, look: Look, plan: Arc<Applied>) {
        let mut known = self.plans.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|(seen, _)| seen.file != look.file);
        known.truncate(KEPT - 1);
        known.insert(0, (look, plan));
    }
}
