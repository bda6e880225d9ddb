//! What the agent stands on: a directory of objects that is there, and is not an empty one where another was; in a cluster, that has all
//! which the agent wrote there.
//!
//! In: the directory, what it was, the plan last applied, the copy of the cluster. Out: which one it is, or why what was last read stays in force. Never: reads an
//! object.

use std::path::PathBuf;

use super::Agent;
use crate::agent::files::{self, Identity};
use crate::agent::state::{DIRECTORY_EMPTIED, DIRECTORY_UNREADABLE};
use crate::problem::Problem;

impl Agent<'_> {
    /// Where the objects are to be read from: that directory, or why what was last read stays in force.
    pub(super) fn stand(&self) -> Result<(Identity, bool), Problem> {
        let dir = &self.node.dir;
        let unreadable = |path: PathBuf, why: String| {
            let message = format!(
                "{} {why}; what was last read stays in force. Mount or restore it; nothing else needs to be done",
                path.display()
            );
            Problem::new("", DIRECTORY_UNREADABLE, message)
        };
        if let Some(Err(why)) = self.cluster.as_ref().map(|cluster| cluster.restore()) {
            let why = format!("is not the copy of the cluster that this agent wrote ({why})");
            return Err(unreadable(dir.objects(), why));
        }
        for part in [dir.objects(), dir.endpoints(), dir.nodes()] {
            if let Err(error) = std::fs::read_dir(&part) {
                return Err(unreadable(part, format!("cannot be listed: {error}")));
            }
        }
        let objects = dir.objects();
        let found = files::identity(&objects).map_err(|e| unreadable(objects.clone(), e.to_string()))?;
        let holds = files::holds_objects(&objects);
        let emptied = match self.ground {
            Some((known, held)) => known != found && held && !holds,
            // The agent was started anew: the plan says that there was something.
            None => !holds && self.applied.as_ref().is_some_and(|applied| !applied.plan.is_idle()),
        };
        if emptied {
            let message = format!(
                "{} is another directory than before and holds no object, as if something were not mounted; what was last read stays \
                 in force. If it shall be empty, run `egret reconcile`",
                objects.display()
            );
            return Err(Problem::new("", DIRECTORY_EMPTIED, message));
        }
        Ok((found, holds))
    }

    /// Whether the directory is not as it was, while the objects last read stay in force.
    pub(in crate::agent) fn is_groundless(&self) -> bool {
        self.groundless.is_some()
    }
}
