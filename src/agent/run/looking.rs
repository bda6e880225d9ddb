//! The loop's jobs on files: which of them are looked at, and what is watched.
//!
//! In: what was told of, and what the clock says. Out: the jobs done, others wanted. Never: reads an object itself.

use std::time::Instant;

use super::{AgentError, REGULARLY, Run, take_turn};
use crate::agent::files::identity;
use crate::agent::schedule::Job;
use crate::agent::state::{LOCK, Watching};

impl Run<'_> {
    /// Looks at what was told of; at everything when only the clock calls for it, or it has called for long.
    pub(super) fn update(&mut self, heard: Option<Instant>) -> Result<(), String> {
        let began = self.now();
        if heard.is_none() || began > self.looked + 2 * REGULARLY {
            self.files.told.of_anything();
        }
        let everything = self.files.told.is_anything();
        self.agent.update(heard, &mut self.files.told)?;
        self.agent.number_ahead();
        if everything {
            self.looked = began;
        }
        Ok(())
    }

    pub(super) fn recall(&mut self) -> Result<(), String> {
        let before = self.agent.namespace_folders();
        self.agent.recall()?;
        self.agent.hold_addresses(self.now());
        if self.agent.namespace_folders() != before {
            self.rewatch();
        }
        Ok(())
    }

    /// Whether what is watched is still what lies at the paths. Outer error: another agent took this one's place.
    pub(super) fn folder(&mut self) -> Result<Result<(), String>, AgentError> {
        let path = self.agent.node.memory.dir().join(LOCK);
        if identity(&path).ok() != self.turn.identity() {
            tracing::warn!(path = %path.display(), "the node's own directory was deleted under the agent");
            self.turn = take_turn(&self.agent.node.memory)?;
            self.schedule.want(Job::Recall, self.now());
        }
        let groundless = self.agent.is_groundless();
        if self.rewatch() || groundless {
            self.schedule.want(Job::Update, self.now());
        }
        Ok(Ok(()))
    }

    /// Watches everything anew; whether anything is watched that was not.
    pub(super) fn rewatch(&mut self) -> bool {
        let folders = self.agent.namespace_folders();
        let node = &self.agent.node;
        let news = self.files.watch(&node.dir, node.memory.dir(), &folders);
        self.agent.state.watching =
            if self.files.short().is_some() { Watching::Polling } else { Watching::Notified };
        news
    }
}
