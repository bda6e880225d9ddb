//! Waiting for what comes when it comes.

use std::time::{Duration, Instant};

/// How long it took until something was so, looked at after every `pause`; `None` if it was not within `patience`.
pub fn within(patience: Duration, pause: Duration, mut so: impl FnMut() -> bool) -> Option<Duration> {
    let began = Instant::now();
    while !so() {
        if began.elapsed() > patience {
            return None;
        }
        std::thread::sleep(pause);
    }
    Some(began.elapsed())
}
