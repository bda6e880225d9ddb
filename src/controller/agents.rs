//! On which nodes an agent is at work, by the signs of life that agents write. Pure; the clock is an argument.
//!
//! In: nodes' Leases as they are now, nodes that have an agent's pod, the time since this process began. Out: for each node whether an
//! agent is heard, was or ought to be, or never; or that nobody can say yet.
//! Never: compares the time in a Lease with a clock: what counts is how long *we* have not seen it change. Nor takes a Lease that it
//! finds for a sign of life: one of a node that burnt last year looks the same as one of a moment ago.

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
    /// It may be any of the three: we have not listened for long enough. What was said before is neither taken back nor repeated.
    Unknown,
}

impl Agent {
    /// All that it may be.
    pub const ALL: [Agent; 4] = [Agent::Here, Agent::Away, Agent::Never, Agent::Unknown];

    /// As it is counted.
    pub fn word(self) -> &'static str {
        match self {
            Agent::Here => "heard",
            Agent::Away => "away",
            Agent::Never => "never",
            Agent::Unknown => "unknown",
        }
    }
}

/// Signs of life as they were heard.
#[derive(Debug)]
pub struct Agents {
    /// After so long without a sign of life an agent is away.
    patience: Duration,
    /// When all Leases were known for the first time.
    began: Option<Duration>,
    /// What each node's Lease says, and since when it has said that as far as we know.
    heard: BTreeMap<String, (String, Duration)>,
    /// Nodes that have an agent's pod, and since when we know.
    meant: BTreeMap<String, Duration>,
}

impl Agents {
    /// Nobody was heard yet.
    pub fn new(patience: Duration) -> Agents {
        Agents { patience, began: None, heard: BTreeMap::new(), meant: BTreeMap::new() }
    }

    /// What all nodes' Leases say now: by node, a text that changes with each sign of life. A node whose Lease is gone is forgotten.
    /// Says whether an agent came (back) to life.
    pub fn hear<'a>(&mut self, beats: impl IntoIterator<Item = (&'a str, &'a str)>, now: Duration) -> bool {
        let began = *self.began.get_or_insert(now);
        let (mut next, mut came) = (BTreeMap::new(), false);
        for (node, beat) in beats {
            let was = self.heard.remove(node);
            let known = was.clone().filter(|(known, _)| known == beat);
            came |= known.is_none() && now > began && !was.is_some_and(|(_, at)| self.is_here(at, now));
            next.insert(node.to_owned(), known.unwrap_or_else(|| (beat.to_owned(), now)));
        }
        self.heard = next;
        came
    }

    /// Nodes that have an agent's pod now, whether it starts or not: they are meant to have an agent.
    pub fn expect<'a>(&mut self, nodes: impl IntoIterator<Item = &'a str>, now: Duration) {
        let since = |node: &str| self.meant.get(node).copied().unwrap_or(now);
        self.meant = nodes.into_iter().map(|node| (node.to_owned(), since(node))).collect();
    }

    /// Whether a node has an agent. One whose agent never spoke, though it has a pod, is as one whose agent went away, but only where
    /// agents can live at all: should none be heard anywhere, Egret does not work here yet, and no node is to be closed for it. `hears_since`: since when the API server answers us; silence before that was ours.
    ///
    /// A change that was seen is a sign of life for as long as any other, also if we heard nothing in between. Without one, silence that was
    /// ours says nothing, in neither direction.
    pub fn of(&self, node: &str, now: Duration, hears_since: Duration) -> Agent {
        let is_late = |at: Duration| self.is_late(at, now, hears_since);
        let is_ours = |at: Duration| at <= self.began.unwrap_or(now).max(hears_since);
        match (self.heard.get(node), self.meant.get(node)) {
            (Some((_, at)), _) if self.is_here(*at, now) => Agent::Here,
            (Some((_, at)), _) if !is_late(*at) => Agent::Unknown,
            (Some(_), _) => Agent::Away,
            (None, Some(since)) if !is_late(*since) && is_ours(*since) => Agent::Unknown,
            (None, Some(since)) if is_late(*since) && !self.heard.values().all(|(_, at)| is_late(*at)) => {
                Agent::Away
            }
            (None, _) => Agent::Never,
        }
    }

    /// What a node's Lease said when it was last heard of.
    pub fn last(&self, node: &str) -> Option<&str> {
        self.heard.get(node).map(|(beat, _)| beat.as_str())
    }

    /// Nodes whose agent is silent, or has not spoken yet: whom a list may prove to be alive.
    pub fn silent(&self, now: Duration, hears_since: Duration) -> BTreeSet<String> {
        let since = |node: &String| self.heard.get(node).map(|(_, at)| at).or_else(|| self.meant.get(node));
        let is_silent = |node: &&String| since(node).is_some_and(|at| self.is_late(*at, now, hears_since));
        self.heard.keys().chain(self.meant.keys()).filter(is_silent).cloned().collect()
    }

    /// When the next agent will be away if nothing is heard of it.
    pub fn due(&self, now: Duration, hears_since: Duration) -> Option<Duration> {
        let since = self.heard.values().map(|(_, at)| at).chain(self.meant.values());
        let ends = since.map(|at| (*at).max(hears_since) + self.patience);
        ends.filter(|end| *end > now).min()
    }

    /// What was there when we began to listen is no sign of life; what changed or came since then is.
    fn is_here(&self, at: Duration, now: Duration) -> bool {
        self.began.is_some_and(|began| at > began) && now < at + self.patience
    }

    fn is_late(&self, at: Duration, now: Duration, hears_since: Duration) -> bool {
        now >= at.max(hears_since) + self.patience
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ZERO: Duration = Duration::ZERO;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// One who began to listen when there was no Lease.
    fn listening() -> Agents {
        let mut agents = Agents::new(at(30));
        agents.hear([], ZERO);
        agents
    }

    #[test]
    fn an_agent_is_away_when_its_lease_has_not_changed_for_30_s_of_ours() {
        let mut agents = listening();
        agents.hear([("one", "2999-01-01"), ("two", "a")], at(1));
        agents.hear([("one", "2999-01-01"), ("two", "b")], at(20));
        assert_eq!(agents.due(at(20), ZERO), Some(at(31)));
        assert_eq!(agents.of("one", at(30), ZERO), Agent::Here);
        assert_eq!(agents.of("one", at(31), ZERO), Agent::Away);
        assert_eq!(agents.of("two", at(31), ZERO), Agent::Here);
        assert_eq!(
            (agents.silent(at(30), ZERO).len(), agents.silent(at(31), ZERO)),
            (0, ["one".to_owned()].into())
        );
        assert_eq!(agents.of("three", at(31), ZERO), Agent::Never);
        assert!(agents.hear([("one", "1970-01-01"), ("two", "b")], at(60)), "one is back");
        assert_eq!(
            (agents.of("one", at(60), ZERO), agents.of("two", at(60), ZERO)),
            (Agent::Here, Agent::Away)
        );
        assert!(!agents.hear([("one", "1970-01-02"), ("two", "b")], at(70)), "it never went");
    }

    #[test]
    fn a_lease_that_was_there_when_we_began_says_nothing_until_it_changes() {
        let mut agents = Agents::new(at(30));
        assert!(!agents.hear([("dead", "a"), ("alive", "a")], at(5)));
        let of = |agents: &Agents, now| ["dead", "alive", "new"].map(|node| agents.of(node, at(now), ZERO));
        assert_eq!(of(&agents, 6), [Agent::Unknown, Agent::Unknown, Agent::Never]);
        assert!(agents.hear([("dead", "a"), ("alive", "b"), ("new", "a")], at(14)));
        assert_eq!(of(&agents, 34), [Agent::Unknown, Agent::Here, Agent::Here]);
        assert_eq!(agents.due(at(34), ZERO), Some(at(35)));
        assert_eq!(of(&agents, 35), [Agent::Away, Agent::Here, Agent::Here]);
    }

    #[test]
    fn a_node_with_an_agents_pod_and_no_sign_of_life_is_as_one_whose_agent_went_away() {
        let mut agents = listening();
        let of = |agents: &Agents, node: &str, now| agents.of(node, at(now), ZERO);
        agents.expect(["new"], at(10));
        assert_eq!(of(&agents, "new", 11), Agent::Never, "what starts there meanwhile is served by nobody");
        assert_eq!(of(&agents, "new", 100), Agent::Never, "no agent lives anywhere: nothing works here yet");
        agents.hear([("one", "a")], at(100));
        assert_eq!((of(&agents, "new", 101), of(&agents, "other", 101)), (Agent::Away, Agent::Never));
        agents.expect(["new", "newer"], at(110));
        assert_eq!((of(&agents, "newer", 120), of(&agents, "new", 120)), (Agent::Never, Agent::Away));
        assert_eq!(agents.due(at(120), ZERO), Some(at(130)));
        agents.hear([("one", "b"), ("newer", "a")], at(139));
        assert_eq!(of(&agents, "newer", 140), Agent::Here);
        agents.expect([], at(141));
        assert_eq!(of(&agents, "new", 141), Agent::Never, "it is meant to have none any more");
    }

    #[test]
    fn while_we_could_not_hear_nobody_fell_silent_and_nobody_came_back() {
        let mut agents = listening();
        agents.hear([("dead", "a"), ("one", "a")], at(10));
        agents.hear([("dead", "a"), ("one", "b")], at(985));
        agents.expect(["mute"], at(10));
        let of =
            |now, hears_since| ["dead", "one", "mute"].map(|node| agents.of(node, at(now), at(hears_since)));
        assert_eq!(of(989, 0), [Agent::Away, Agent::Here, Agent::Away]);
        assert_eq!(of(991, 990), [Agent::Unknown, Agent::Here, Agent::Unknown]);
        assert_eq!(of(1019, 990), [Agent::Unknown; 3]);
        // Nobody is heard any more.
        assert_eq!(of(1020, 990), [Agent::Away, Agent::Away, Agent::Never]);
    }
}
