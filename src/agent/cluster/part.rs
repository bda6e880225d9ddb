//! One part of what a node says, held back after it failed and no other part with it. The clock is an argument.
//!
//! In: what came of it, the time. Out: whether it is due; a line of the log for each trouble that is new.

use std::time::{Duration, Instant};

use super::{LONGEST, RETRY};

/// A part, and how it fares.
#[derive(Debug)]
pub(super) struct Part {
    pause: Duration,
    /// Not before.
    next: Option<Instant>,
    trouble: String,
}

impl Part {
    /// It was not tried yet.
    pub(super) fn new() -> Part {
        Part { pause: RETRY, next: None, trouble: String::new() }
    }

    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.next.is_none_or(|next| next <= now)
    }

    /// It was tried.
    pub(super) fn came(&mut self, outcome: Result<(), String>, now: Instant) {
        let Err(error) = outcome else {
            *self = Part::new();
            return;
        };
        if self.trouble != error {
            tracing::warn!(error, "what this node has to say is not said yet; tried again");
            self.trouble = error;
        }
        self.next = Some(now + self.pause);
        self.pause = (self.pause * 2).min(LONGEST);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fails_is_tried_ever_more_seldom_and_what_went_well_at_once() {
        let (mut part, mut now) = (Part::new(), Instant::now());
        let mut tries = 0;
        for _ in 0..600 {
            if part.is_due(now) {
                part.came(Err("no".to_owned()), now);
                tries += 1;
            }
            now += Duration::from_millis(200);
        }
        assert!((12..20).contains(&tries), "{tries} times in two minutes");
        assert!(!part.is_due(now));
        part.came(Ok(()), now);
        assert!(part.is_due(now));
        part.came(Err("no".to_owned()), now);
        assert!(part.is_due(now + RETRY), "its pauses begin anew");
    }
}
