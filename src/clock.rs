//! The time, asked of the kernel itself. The library finds its way through pages that the kernel lends for that, which is quicker from
//! the second time on; the first takes three faults and six thousand instructions, and a call of the plugin asks once or twice.
//!
//! In: which clock (clock_gettime(2)). Out: its time. Never: a value that a later call of the same clock undercuts, but where the clock
//! itself was set back.

use std::time::Duration;

/// What this clock shows; zero where there is no such clock, or it shows a time before its beginning.
pub fn now(clock: libc::clockid_t) -> Duration {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel writes one time, and there is room for it.
    unsafe { libc::syscall(libc::SYS_clock_gettime, clock, &raw mut now) };
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(now.tv_nsec).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    #[test]
    fn it_is_what_the_library_says_and_zero_where_there_is_no_such_clock() {
        let librarys = || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        let (before, here, after) = (librarys(), now(libc::CLOCK_REALTIME), librarys());
        assert!(before <= here && here <= after, "{before:?} {here:?} {after:?}");
        assert_eq!(now(99), Duration::ZERO);
    }
}
