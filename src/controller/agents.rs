//! On which nodes an agent is at work, by the signs of life that agents write. Pure; the clock is an argument.
//!
//! In: nodes' Leases as they are now, nodes that have an agent's pod, the time since this process began. Out: for each node whether an
//! agent is heard, was or ought to be, or never.
//! Never: compares the time in a Lease with a clock: what counts is how long *we* have not seen it change.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Whether an agent is at work on a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Agent {
    /// It gives signs of life.
    Here,
    /// It was there once, or its pod is, and it has been silent for too long.
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
    /// Nodes that have an agent's pod, and since when we know.
    meant: BTreeMap<String, Duration>,
}

impl Agents {
    /// Nobody was heard yet.
    pub fn new(patience: Duration) -> Agents {
        Agents { patience, heard: BTreeMap::new(), meant: BTreeMap::new() }
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

    /// Nodes that have an agent's pod now, whether it starts or not: they are meant to have an agent.
    pub fn expect<'a>(&mut self, nodes: impl IntoIterator<Item = &'a str>, now: Duration) {
        let since = |node: &str| self.meant.get(node).copied().unwrap_or(now);
        self.meant = nodes.into_iter().map(|node| (node.to_owned(), since(node))).collect();
    }

    /// Whether a node has an agent. One whose agent never spoke, though it has a pod, is as one whose agent went away, but only where
    /// agents can live at all: should none be heard anywhere, Egret does not work here yet, and no node is to be closed for it. `hears_since`: since when the API server answers us; silence before that was ours.
    pub fn of(&self, node: &str, now: Duration, hears_since: Duration) -> Agent {
        let is_late = |at: &Duration| now >= (*at).max(hears_since) + self.patience;
        match (self.heard.get(node), self.meant.get(node)) {
            (Some((_, at)), _) if !is_late(at) => Agent::Here,
            (Some(_), _) => Agent::Away,
            (None, Some(since)) if is_late(since) && !self.heard.values().all(|(_, at)| is_late(at)) => {
                Agent::Away
            }
            (None, _) => Agent::Never,
        }
    }

    /// Nodes whose agent is silent, or has not spoken yet: whom a list may prove to be alive.
    pub fn silent(&self, now: Duration, hears_since: Duration) -> BTreeSet<String> {
        let known = self.heard.keys().chain(self.meant.keys());
        known.filter(|node| self.is_silent(node, now, hears_since)).cloned().collect()
    }

    fn is_silent(&self, node: &str, now: Duration, hears_since: Duration) -> bool {
        let since = self.heard.get(node).map(|(_, at)| at).or_else(|| self.meant.get(node));
        since.is_some_and(|at| now >= (*at).max(hears_since) + self.patience)
    }

    /// When the next agent will be away if nothing is heard of it.
    pub fn due(&self, now: Duration, hears_since: Duration) -> Option<Duration> {
        let since = self.heard.values().map(|(_, at)| at).chain(self.meant.values());
        let ends = since.map(|at| (*at).max(hears_since) + self.patience);
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
        assert_eq!(
            (agents.silent(at(29), zero).len(), agents.silent(at(30), zero)),
            (0, ["one".to_owned()].into())
        );
        assert_eq!(agents.of("three", at(30), zero), Agent::Never);
        agents.hear([("one", "1970-01-01"), ("two", "b")], at(60));
        assert_eq!(
            (agents.of("one", at(60), zero), agents.of("two", at(60), zero)),
            (Agent::Here, Agent::Away)
        );
    }

    #[test]
    fn a_node_with_an_agents_pod_and_no_sign_of_life_is_as_one_whose_agent_went_away() {
        let mut agents = Agents::new(at(30));
        let of = |agents: &Agents, node: &str, now| agents.of(node, at(now), Duration::ZERO);
        agents.expect(["new"], at(10));
        assert_eq!(of(&agents, "new", 100), Agent::Never, "no agent lives anywhere: nothing works here yet");
        agents.hear([("one", "a")], at(100));
        assert_eq!((of(&agents, "new", 101), of(&agents, "other", 101)), (Agent::Away, Agent::Never));
        agents.expect(["new", "newer"], at(110));
        assert_eq!((of(&agents, "newer", 120), of(&agents, "new", 120)), (Agent::Never, Agent::Away));
        assert_eq!(agents.due(at(120), Duration::ZERO), Some(at(130)));
        agents.hear([("one", "b"), ("newer", "a")], at(139));
        assert_eq!(of(&agents, "newer", 140), Agent::Here);
        agents.expect([], at(141));
        assert_eq!(of(&agents, "new", 141), Agent::Never, "it is meant to have none any more");
    }

    #[test]
    fn while_we_could_not_hear_nobody_was_silent() {
        let mut agents = Agents::new(at(30));
        agents.hear([("one", "a")], at(0));
        assert_eq!(agents.of("one", at(1000), at(990)), Agent::Here);
        assert_eq!(agents.of("one", at(1020), at(990)), Agent::Away);
    }
}
