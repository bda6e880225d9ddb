//! How often a status is written. Pure; the clock is an argument.
//!
//! In: what is to be written, the time since this process began. Out: what of it is written now, and when the rest. Every write is heard by
//! every agent, as the whole object: with 500 nodes, each pod that comes or goes would be a thousand events. So an answer is written at once, and
//! a number that people look at now and then is written now and then; the last one always.

use std::collections::BTreeMap;
use std::time::Duration;

use super::status::Write;
use crate::kube::Watched;

/// Between two writes of an object that has nothing new to say but numbers and names. The first after a while is written at once.
pub const CALM: Duration = Duration::from_secs(20);

/// When objects were written last.
#[derive(Debug, Default)]
pub struct Pace {
    wrote: BTreeMap<(Watched, String), Duration>,
    next: Option<Duration>,
}

impl Pace {
    /// What is to be written now.
    pub fn due(&mut self, writes: Vec<Write>, now: Duration) -> Vec<Write> {
        self.wrote.retain(|_, at| now < *at + CALM);
        self.next = None;
        let (due, rest) = writes.into_iter().partition(|write| write.is_news || self.at(write).is_none());
        let rest: Vec<Write> = rest;
        self.next = rest.iter().filter_map(|write| Some(self.at(write)? + CALM)).min();
        due
    }

    /// One was written.
    pub fn wrote(&mut self, write: &Write, now: Duration) {
        self.wrote.insert((write.kind, write.name.clone()), now);
    }

    /// When something is to be written that was not due.
    pub fn next(&self) -> Option<Duration> {
        self.next
    }

    fn at(&self, write: &Write) -> Option<Duration> {
        self.wrote.get(&(write.kind, write.name.clone())).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// Asks, and writes what is due.
    fn written(pace: &mut Pace, name: &str, is_news: bool, now: Duration) -> bool {
        let status = serde_json::Value::Null;
        let write = Write { kind: Watched::Pools, name: name.to_owned(), status, is_news };
        let due = pace.due(vec![write], now);
        due.iter().for_each(|write| pace.wrote(write, now));
        !due.is_empty()
    }

    #[test]
    fn a_number_is_written_at_once_and_then_not_for_a_while() {
        let mut pace = Pace::default();
        assert!(written(&mut pace, "p", false, at(100)));
        assert!(!written(&mut pace, "p", false, at(101)));
        assert_eq!(pace.next(), Some(at(120)));
        assert!(written(&mut pace, "q", false, at(101)), "it is another's affair");
        assert!(!written(&mut pace, "p", false, at(119)));
        assert!(written(&mut pace, "p", false, at(120)), "the last one is written, whatever it is");
        assert_eq!(pace.next(), None);
    }

    #[test]
    fn an_answer_is_written_at_once_and_numbers_with_it() {
        let mut pace = Pace::default();
        assert!(written(&mut pace, "p", true, at(100)));
        assert!(written(&mut pace, "p", true, at(101)));
        assert!(!written(&mut pace, "p", false, at(102)));
        assert_eq!(pace.next(), Some(at(121)));
    }

    #[test]
    fn what_could_not_be_written_is_due_as_it_was() {
        let mut pace = Pace::default();
        let write = Write {
            kind: Watched::Pools,
            name: "p".to_owned(),
            status: serde_json::Value::Null,
            is_news: false,
        };
        assert_eq!(pace.due(vec![write.clone()], at(1)).len(), 1);
        assert_eq!(pace.due(vec![write], at(2)).len(), 1);
    }
}
