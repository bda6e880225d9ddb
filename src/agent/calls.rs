//! Whether the plugin is being answered just now: then the loop's own looks at kernel and records, which hold the node's lock and
//! concern nobody who waits, make way.
//!
//! In: when calls begin and end. Out: yes or no. Never: lets anything wait for long; how long is the loop's affair.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// After a call another one is about to come: a runtime starts pods together, and a process for each takes its time.
const MOMENT: Duration = Duration::from_millis(10);

/// Calls that are being answered, or were a moment ago.
#[derive(Debug, Clone, Default)]
pub struct Calls(Arc<Mutex<Now>>);

#[derive(Debug, Default)]
struct Now {
    running: usize,
    ended: Option<Instant>,
}

/// A call; over with this value.
#[derive(Debug)]
pub struct Call(Calls);

impl Calls {
    /// One begins.
    pub fn begin(&self) -> Call {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).running += 1;
        Call(self.clone())
    }

    /// Whether one is being answered, or was a moment ago.
    pub fn are_coming(&self) -> bool {
        let now = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        now.running > 0 || now.ended.is_some_and(|ended| ended.elapsed() < MOMENT)
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let mut now = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        now.running -= 1;
        now.ended = Some(Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_coming_until_a_moment_after_the_last() {
        let calls = Calls::default();
        assert!(!calls.are_coming());
        let (one, two) = (calls.begin(), calls.begin());
        drop(one);
        assert!(calls.are_coming());
        drop(two);
        assert!(calls.are_coming());
        std::thread::sleep(MOMENT);
        assert!(!calls.are_coming());
    }
}
