//! The node's configuration as the loop last adopted it, for all threads of an agent.
//!
//! In: what the loop adopts. Out: what is in force now; who has it keeps it, whatever is adopted meanwhile. Never: reads it from anywhere.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::config::Config;

/// One configuration, shared.
#[derive(Debug, Clone)]
pub struct InForce(Arc<Mutex<Arc<Config>>>);

impl InForce {
    /// This one, at first.
    pub fn of(config: Config) -> InForce {
        InForce(Arc::new(Mutex::new(Arc::new(config))))
    }

    /// The one that is now.
    pub fn now(&self) -> Arc<Config> {
        self.held().clone()
    }

    /// From now on it is this one.
    pub fn adopt(&self, config: Config) {
        *self.held() = Arc::new(config);
    }

    fn held(&self) -> MutexGuard<'_, Arc<Config>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
