//! On which nodes an agent is at work, by the signs of life that agents write. Pure; the clock is an argument.
//!
//! In: nodes' Leases as they are now, the time since this process began. Out: for each node whether an agent is heard, was, or never.
//! Never: compares the time in a Lease with a clock: what counts is how long *we* have not seen it change.

use std::collections::BTreeMap;
use std::time::Duration;

/// Whether an agent is at work on a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Agent {
    /// It gives signs of life.
    Here,
    /// It was there once, and has been silent for too long.
    Away,
    /// Nobody ever heard of one.
    Never,
}

/// Signs of life as they were heard.
#[derive(Debug)]
pub struct Agents {
    /// After so long without a sign of life an agent is away.
    patience: Duration,
    heard: BTreeMap<String, (String, Duration)>,
}

impl Agents {
    /// Nobody was heard yet.
    pub fn new(patience: Duration) -> Agents {
        Agents { patience, heard: BTreeMap::new() }
    }

    /// What nodes' Leases say now: by node, a text that changes with each sign of life. A node whose Lease is gone is forgotten.
    pub fn hear<'a>(&mut self, beats: impl IntoIterator<Item = (&'a str, &'a str)>, now: Duration) {
        let mut next = BTreeMap::new();
        for (node, beat) in beats {
            let known = self.heard.remove(node).filter(|(known, _)| known == beat);
            next.insert(node.to_owned(), known.unwrap_or_else(|| (beat.to_owned(), now)));
        }
        self.heard = next;
    }

    /// Whether a node has an agent. `hears_since`: since when the API server answers us; silence before that was ours.
    pub fn of(&self, node: &str, now: Duration, hears_since: Duration) -> Agent {
        match self.heard.get(node) {
            None => Agent::Never,
            Some((_, at)) if now < (*at).max(hears_since) + self.patience => Agent::Here,
            Some(_) => Agent::Away,
        }
    }

    /// When the next agent will be away if nothing is heard of it.
    pub fn due(&self, now: Duration, hears_since: Duration) -> Option<Duration> {
        let ends = self.heard.values().map(|(_, at)| (*at).max(hears_since) + self.patience);
        ends.filter(|end| *end > now).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn an_agent_is_away_when_its_lease_has_not_changed_for_30_s_of_ours() {
        let mut agents = Agents::new(at(30));
        let zero = Duration::ZERO;
        agents.hear([("one", "2999-01-01"), ("two", "a")], at(0));
        agents.hear([("one", "2999-01-01"), ("two", "b")], at(20));
        assert_eq!(agents.due(at(20), zero), Some(at(30)));
        assert_eq!(agents.of("one", at(29), zero), Agent::Here);
        assert_eq!(agents.of("one", at(30), zero), Agent::Away);
        assert_eq!(agents.of("two", at(30), zero), Agent::Here);
        assert_eq!(agents.of("three", at(30), zero), Agent::Never);
        agents.hear([("one", "1970-01-01"), ("two", "b")], at(60));
        assert_eq!(
            (agents.of("one", at(60), zero), agents.of("two", at(60), zero)),
            (Agent::Here, Agent::Away)
        );
    }

    #[test]
    fn while_we_could_not_hear_nobody_was_silent() {
        let mut agents = Agents::new(at(30));
        agents.hear([("one", "a")], at(0));
        assert_eq!(agents.of("one", at(1000), at(990)), Agent::Here);
        assert_eq!(agents.of("one", at(1020), at(990)), Agent::Away);
    }
}
