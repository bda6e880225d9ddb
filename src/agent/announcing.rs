//! Which address is announced again when.
//!
//! In: what the plan announces, the clock. Out: addresses to announce now. Pure. Who takes an address over announces it at once
//! (`node::announce`); a lost announcement costs a neighbour half a minute of its stale entry, so it is said again.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

/// Seconds after a takeover at which it is announced again.
pub const AGAIN: [u64; 4] = [1, 2, 4, 8];

/// A device and an address announced there.
pub type Announced = (String, IpAddr);

/// What is announced, and the times still to come.
#[derive(Debug, Clone, Default)]
pub struct Announcing {
    coming: BTreeMap<Announced, Vec<Duration>>,
}

impl Announcing {
    /// The plan announces these now. Those that are new were taken over `age` ago, as far as somebody knows; an address that
    /// nobody remembers was taken over long ago.
    pub fn hold(
        &mut self,
        announced: &BTreeSet<Announced>,
        now: Duration,
        age: impl Fn(&Announced) -> Option<Duration>,
    ) {
        self.coming.retain(|known, _| announced.contains(known));
        for new in announced.iter().filter(|a| !self.coming.contains_key(*a)).cloned().collect::<Vec<_>>() {
            let times = age(&new).map(|age| {
                let left = AGAIN.iter().map(|s| Duration::from_secs(*s)).filter(|after| *after >= age);
                left.map(|after| now + after - age).collect()
            });
            self.coming.insert(new, times.unwrap_or_default());
        }
    }

    /// All addresses that are announced.
    pub fn all(&self) -> BTreeSet<Announced> {
        self.coming.keys().cloned().collect()
    }

    /// The addresses whose time has come.
    pub fn take(&mut self, now: Duration) -> Vec<Announced> {
        let mut due = Vec::new();
        for (address, times) in &mut self.coming {
            let before = times.len();
            times.retain(|at| *at > now);
            if times.len() < before {
                due.push(address.clone());
            }
        }
        due
    }

    /// When the next one comes.
    pub fn next(&self) -> Option<Duration> {
        self.coming.values().flatten().min().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(list: &[&str]) -> BTreeSet<Announced> {
        list.iter().map(|ip| ("eth0".to_owned(), ip.parse().unwrap())).collect()
    }

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn a_takeover_is_said_again_after_1_2_4_and_8_seconds() {
        let mut announcing = Announcing::default();
        announcing.hold(&set(&["10.10.10.4"]), seconds(100), |_| Some(seconds(0)));
        let mut said = Vec::new();
        while let Some(next) = announcing.next() {
            said.push(next.as_secs());
            assert_eq!(announcing.take(next).len(), 1);
        }
        assert_eq!(said, [101, 102, 104, 108]);
    }

    #[test]
    fn an_agent_that_starts_in_between_says_what_is_left_and_of_old_addresses_nothing() {
        let mut announcing = Announcing::default();
        announcing.hold(&set(&["10.10.10.4", "10.10.10.5"]), seconds(0), |(_, ip)| {
            (ip.to_string() == "10.10.10.4").then(|| seconds(3))
        });
        assert_eq!(announcing.next(), Some(seconds(1)));
        assert_eq!(announcing.take(seconds(1)), [("eth0".to_owned(), "10.10.10.4".parse().unwrap())]);
        assert_eq!(announcing.next(), Some(seconds(5)));
        assert_eq!(announcing.all().len(), 2);
    }

    #[test]
    fn an_address_that_goes_is_not_announced_any_more_and_begins_anew_when_it_comes_back() {
        let mut announcing = Announcing::default();
        announcing.hold(&set(&["10.10.10.4"]), seconds(0), |_| Some(seconds(0)));
        announcing.hold(&set(&[]), seconds(1), |_| None);
        assert_eq!(announcing.next(), None);
        announcing.hold(&set(&["10.10.10.4"]), seconds(60), |_| Some(seconds(0)));
        assert_eq!(announcing.next(), Some(seconds(61)));
    }
}
