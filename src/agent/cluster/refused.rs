//! Writes that the server refuses for what they say, each for itself: a gateway that it does not take silences no other.
//!
//! In: what is to be written and how, the time. Out: what came of it, problems. Never: more requests than the pauses allow, unless
//! something else is to be said.

use std::collections::BTreeMap;
use std::sync::{MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{Cluster, LONGEST, RETRY};
use crate::kube::ApiError;
use crate::problem::Problem;

/// The server does not take what this node says of one of its gateways, or of itself.
pub(super) const NOT_TAKEN: &str = "NotTaken";

/// What is to be written: the key by which it is known here, the object that people know it by, and its content.
pub(super) struct Saying<'a> {
    pub(super) key: &'a str,
    pub(super) object: String,
    pub(super) content: &'a Value,
}

/// What was refused last, by key.
#[derive(Debug, Default)]
pub(super) struct Refusals(BTreeMap<String, Refusal>);

#[derive(Debug)]
struct Refusal {
    content: Value,
    problem: Problem,
    pause: Duration,
    until: Instant,
}

impl Refusals {
    /// Writes; `None`: it is refused, or it was a moment ago. What fails for another reason than what it says is the caller's affair.
    pub(super) fn write<T>(
        &mut self,
        saying: Saying<'_>,
        now: Instant,
        write: impl FnOnce() -> Result<T, ApiError>,
    ) -> Result<Option<T>, ApiError> {
        let before = self.0.get(saying.key).filter(|before| before.content == *saying.content);
        if before.is_some_and(|before| now < before.until) {
            return Ok(None);
        }
        let error = match write() {
            Ok(made) => {
                self.forget(saying.key);
                return Ok(Some(made));
            }
            Err(error) if error.is_about_content() => error,
            Err(error) => return Err(error),
        };
        let pause = before.map_or(RETRY, |before| (before.pause * 2).min(LONGEST));
        let message =
            format!("{error}. Until it is taken, other nodes go by what was said last; it is tried again");
        let problem = Problem::new(saying.object, NOT_TAKEN, message);
        if self.0.get(saying.key).is_none_or(|before| before.problem != problem) {
            tracing::warn!(object = problem.object, why = problem.message, "the API server does not take it");
        }
        let refusal = Refusal { content: saying.content.clone(), problem, pause, until: now + pause };
        self.0.insert(saying.key.to_owned(), refusal);
        Ok(None)
    }

    /// There is nothing to say of it any more.
    pub(super) fn forget(&mut self, key: &str) {
        self.0.remove(key);
    }

    /// Only of these there may be something to say.
    pub(super) fn retain(&mut self, is: impl Fn(&str) -> bool) {
        self.0.retain(|key, _| is(key));
    }

    /// Whether one is to be tried again.
    pub(super) fn are_due(&self, now: Instant) -> bool {
        self.0.values().any(|refusal| refusal.until <= now)
    }

    pub(super) fn problems(&self) -> Vec<Problem> {
        self.0.values().map(|refusal| refusal.problem.clone()).collect()
    }
}

/// What others do not hear of this node.
#[derive(Debug, Default)]
pub(super) struct Unsaid {
    /// The server does not take it.
    pub(super) refused: Vec<Problem>,
    /// Labels of gateways here.
    pub(super) left_out: Vec<Problem>,
}

impl Cluster {
    pub(super) fn unsaid(&self) -> MutexGuard<'_, Unsaid> {
        self.unsaid.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use serde_json::json;

    use super::*;

    fn refused(status: u16) -> ApiError {
        let (path, reason, message) = ("/p".to_owned(), "R".to_owned(), "no".to_owned());
        ApiError::Refused { verb: "POST", path, status, reason, message }
    }

    #[test]
    fn what_is_refused_is_tried_again_ever_more_seldom_and_at_once_when_it_says_something_else() {
        let (mut refusals, began, tries) = (Refusals::default(), Instant::now(), Cell::new(0));
        let say = |refusals: &mut Refusals, content: &Value, seconds: u64, outcome: Result<(), ApiError>| {
            let saying = Saying { key: "k", object: "Pod a/b".to_owned(), content };
            refusals.write(saying, began + Duration::from_secs(seconds), || {
                tries.set(tries.get() + 1);
                outcome
            })
        };
        let (one, other) = (json!(1), json!(2));
        for second in 0..120 {
            assert!(say(&mut refusals, &one, second, Err(refused(422))).unwrap().is_none());
        }
        assert!((12..20).contains(&tries.get()), "{} times", tries.get());
        assert_eq!(refusals.problems().len(), 1);
        let before = tries.get();
        assert!(say(&mut refusals, &other, 119, Err(refused(403))).unwrap().is_none());
        assert_eq!(tries.get(), before + 1);
        assert!(!refusals.are_due(began + Duration::from_secs(119)));
        assert!(refusals.are_due(began + Duration::from_secs(120)));
        // It is the server's state and not what is said.
        assert_eq!(say(&mut refusals, &other, 130, Err(refused(503))).unwrap_err().status(), Some(503));
        assert_eq!(refusals.problems().len(), 1, "that it was refused is as true as before");
        assert!(say(&mut refusals, &other, 140, Ok(())).unwrap().is_some());
        assert!(refusals.problems().is_empty());
    }
}
