//! The agent's jobs on the kernel: what somebody else took away is put back, what the machine became is noticed.
//!
//! In: when a loss was heard. Out: repairs, counted; whether a plan is due. Never: reads an object of the user's.

use std::time::{Duration, Instant};

use super::{Agent, failures};
use crate::egress::lower::{Belts, node_state};
use crate::egress::numbers;
use crate::kernel::nft::diff::Verb;
use crate::kernel::state::State;
use crate::kernel::unannounced::Unannounced;
use crate::kernel::{Step, devices, step, sysctl};
use crate::node::embedded::now;

impl Agent<'_> {
    /// Puts back what is missing. `heard`: when its loss was noticed; `flushed`: when the rules were.
    pub(in crate::agent) fn check(&mut self, heard: Instant, flushed: Option<Instant>) -> Result<(), String> {
        let outcome = self.node.repair().map_err(|e| e.to_string())?;
        let steps: Vec<&Step> = outcome.steps().collect();
        self.steps += steps.len();
        if !steps.is_empty() {
            let took = heard.elapsed();
            self.state.repaired(&steps, took, now());
            tracing::warn!(
                steps = steps.len(),
                millis = took.as_millis(),
                what = step::in_short(steps.iter().copied()),
                "put back what somebody took away"
            );
        }
        // Whether a table had to be made anew, and not whether its loss was heard: that may be heard only after this very look.
        if outcome.steps().any(makes_a_table) {
            let window = flushed.unwrap_or(heard).elapsed();
            self.state.flushed(window, now());
            let unguarded = self.brakes.windows();
            unguarded.iter().for_each(|window| self.state.unguarded(*window, now()));
            tracing::warn!(
                micros = window.as_micros(),
                unguarded = unguarded.iter().sum::<Duration>().as_micros(),
                "nftables rules were deleted by somebody else; in the unguarded microseconds packets of clients may have left as if \
                 unselected, then they were stopped until the rules were back"
            );
        }
        failures(&outcome)
    }

    /// Has numbers for gateways at hand that no flow carries, so that no change waits until they were looked for.
    pub(in crate::agent) fn number_ahead(&self) {
        let (Some(kept), Some(applied)) = (&self.node.kept, self.node.memory.applied_shared()) else {
            return;
        };
        if let Err(error) = kept.number_ahead(&applied.plan) {
            tracing::debug!(%error, "each number of a gateway is looked for when it begins");
        }
    }

    /// Whether devices or addresses of this machine changed, so that the plan may.
    pub(in crate::agent) fn look(&mut self) -> Result<bool, String> {
        let found = self.node.netns().map_err(|e| e.to_string())?;
        let mut found = devices::list(&found).map_err(|e| e.to_string())?;
        // A pod's veth without an address is none of the plan's business.
        found.retain(|device| !device.addresses.is_empty());
        let changed = self.machine.as_ref().is_some_and(|known| *known != found);
        self.machine = Some(found);
        Ok(changed)
    }

    /// Whether something differs that the kernel gives no notice of: proxy neighbours, settings.
    pub(in crate::agent) fn unannounced(&mut self) -> Result<bool, String> {
        let Some(plan) = self.applied.as_ref().map(|applied| &applied.plan).filter(|plan| !plan.is_idle())
        else {
            return Ok(false);
        };
        let desired = self.desired.get_or_insert_with(|| {
            let State { proxies, sysctls, .. } = node_state(plan, Belts::of_this_build());
            State { proxies, sysctls, ..State::default() }
        });
        let settings = desired.sysctls.keys().map(String::as_str);
        let mut looks = match self.unannounced.take() {
            Some(looks) => looks,
            None => {
                Unannounced::of(self.node.netns().map_err(|e| e.to_string())?).map_err(|e| e.to_string())?
            }
        };
        let found = looks.look(&numbers::node_scope(), settings).map_err(|e| e.to_string())?;
        self.unannounced = Some(looks);
        // What is not there at all belongs to a device that is gone, and of that there is a notice.
        let set = |(path, value): (&String, &String)| {
            desired.sysctls.get(path).is_none_or(|wanted| sysctl::plain(value) == sysctl::plain(wanted))
        };
        Ok(!desired.proxies.is_subset(&found.proxies) || !found.sysctls.iter().all(set))
    }
}

/// In the node's own namespace or a gateway's: neither translates without.
fn makes_a_table(step: &Step) -> bool {
    matches!(step, Step::Nft(change) if change.commands.iter().any(|command| command.verb == Verb::AddTable))
}
