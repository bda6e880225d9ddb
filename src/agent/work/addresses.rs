//! The agent's jobs on addresses that this node answers for: saying again that they are here, asking who else has them.
//!
//! In: the plan last applied. Out: frames on uplinks, problems of endpoints. Never: takes an address over or gives one up.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::Agent;
use crate::agent::announcing::Announced;
use crate::kernel::announce as wire;
use crate::node::announce::{ANOTHER_OWNER, ask};
use crate::node::embedded::{NodeError, now};
use crate::problem::Problem;
use crate::store::{Stamp, endpoints};

impl Agent<'_> {
    /// The plan may announce other addresses now.
    pub(in crate::agent) fn hold_addresses(&mut self, at: Duration) {
        let plan = self.applied.as_ref().map(|applied| &applied.plan);
        let announced: BTreeSet<Announced> = plan
            .into_iter()
            .flat_map(|plan| plan.locals.values())
            .flat_map(|g| g.announced.clone())
            .collect();
        let remembered = if announced.is_empty() { Vec::new() } else { self.node.memory.announced() };
        let unix = now();
        self.announcing.hold(&announced, at, |(dev, ip)| {
            let taken = remembered.iter().find(|one| one.dev == *dev && one.ip == *ip)?;
            Some(Duration::from_secs(unix.saturating_sub(taken.since)))
        });
    }

    pub(in crate::agent) fn announce(&mut self, at: Duration) {
        for (dev, ip) in self.announcing.take(at) {
            match wire::announce(&dev, ip) {
                Ok(()) => tracing::debug!(%ip, dev, "announced again"),
                Err(error) => tracing::warn!(%ip, dev, %error, "not announced"),
            }
        }
    }

    /// Asks who else has our addresses; whether there is anything to wait for.
    pub(in crate::agent) fn ask(&mut self) -> bool {
        let Some(applied) = &self.applied else { return false };
        self.asked = ask(&applied.plan.here, &self.announcing.all());
        !self.asked.is_empty()
    }

    /// Collects the answers. A change is written to the endpoints concerned.
    pub(in crate::agent) fn answers(&mut self) -> Result<(), String> {
        let asked = std::mem::take(&mut self.asked);
        let over = Instant::now();
        let owners: Vec<Problem> = asked.iter().flat_map(|asked| asked.owners(over)).collect();
        for problem in owners.iter().filter(|problem| !self.owners.contains(problem)) {
            tracing::warn!("{problem}");
        }
        for problem in self.owners.iter().filter(|problem| !owners.contains(problem)) {
            tracing::info!(object = %problem.object, "no other owner answers any more");
        }
        let known = owners == self.owners;
        self.owners = owners;
        // Endpoints are what they were when this was told last: asked every few seconds, of every gateway's file.
        let told = Stamp::of(&self.node.dir.endpoints()).ok().filter(|stamp| stamp.is_settled());
        if !known || told.is_none() || told != self.endpoints_told {
            self.endpoints_told = None;
            self.tell_endpoints().map_err(|e| e.to_string())?;
            self.endpoints_told = told;
        }
        Ok(())
    }

    fn tell_endpoints(&self) -> Result<(), NodeError> {
        let (known, _) = endpoints::list(&self.node.dir)?;
        let mut changed = Vec::new();
        for endpoint in known.into_iter().filter(|e| e.node == self.node.name) {
            let mut next = endpoint.clone();
            next.problems.retain(|problem| problem.reason != ANOTHER_OWNER);
            let names: Vec<String> = next.addresses.iter().map(|a| format!("Address {}", a.ip)).collect();
            next.problems.extend(self.owners.iter().filter(|p| names.contains(&p.object)).cloned());
            if next.problems != endpoint.problems {
                changed.push(next);
            }
        }
        if changed.is_empty() {
            return Ok(());
        }
        let guard = self.node.lock_store("problems of endpoints")?;
        for next in changed {
            // Only the problems are ours to say here; whoever wrote anything else meanwhile is left in peace.
            if let Some((mut endpoint, _)) = endpoints::get(&self.node.dir, &next.attachment)? {
                endpoint.problems = next.problems;
                endpoints::put(&self.node.dir, &guard, &endpoint)?;
            }
        }
        Ok(())
    }
}
