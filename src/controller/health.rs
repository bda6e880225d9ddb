//! How the controller is, for those who ask from outside: the doctor of its [pages](crate::probes::web).
//!
//! In: what its loops say of themselves. Out: as what it is ready, or why not; everything counted. Never: asks the API, or says that it
//! works by asking whether it may: who only looks does not show that the loop turns.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::agents::Agent;
use super::families::FAMILIES;
use super::lead::Leading;
use super::reclaim::Remnant;
use super::tally::{Sum, Unserved};
use super::time_of_day;
use crate::kube::{Client, Mirror};
use crate::probes::followed;
use crate::probes::metrics::Metrics;
use crate::probes::turns::{Loop, Turns};
use crate::probes::web::Doctor;

/// What is known of the controller.
pub(super) struct Known {
    metrics: Metrics,
    turns: Arc<Turns>,
    leading: Arc<Leading>,
    client: Arc<Client>,
    mirror: Arc<Mutex<Mirror>>,
    /// Everything was heard once.
    synced: AtomicBool,
}

impl Known {
    pub(super) fn new(
        client: Arc<Client>,
        mirror: Arc<Mutex<Mirror>>,
        leading: Arc<Leading>,
        turns: Arc<Turns>,
    ) -> Known {
        let metrics = Metrics::of(FAMILIES);
        metrics.set_all("egret_build_info", [(vec![env!("CARGO_PKG_VERSION").to_owned()], 1.0)]);
        metrics.set("egret_controller_start_time_seconds", &[], clock());
        Known { metrics, turns, leading, client, mirror, synced: AtomicBool::new(false) }
    }

    /// The loop begins a step.
    pub(super) fn at(&self, step: &'static str) {
        self.turns.at(Loop::Controller, step);
    }

    /// Everything was heard once.
    pub(super) fn heard(&self) {
        self.synced.store(true, Ordering::Release);
    }

    /// Another works: what this one saw when it did is not said any more.
    pub(super) fn rests(&self) {
        for name in ["egret_controller_agents", "egret_controller_unprotected_pods"] {
            self.metrics.set_all(name, []);
        }
        for name in ["egret_controller_clients", "egret_controller_held_clients", "egret_controller_undone"] {
            self.metrics.set(name, &[], 0.0);
        }
    }

    /// Everything was looked at.
    pub(super) fn looked(&self, well: bool, took: Duration, undone: usize) {
        let (metrics, took) = (&self.metrics, took.as_secs_f64());
        metrics.add("egret_controller_turns_total", &[], 1);
        metrics.add("egret_controller_turn_failures_total", &[], u64::from(!well));
        metrics.took("egret_controller_turn_duration_seconds", &[], took);
        metrics.set("egret_controller_last_turn_duration_seconds", &[], took);
        metrics.set("egret_controller_undone", &[], number(undone));
        if well {
            metrics.set("egret_controller_last_success_timestamp_seconds", &[], clock());
        }
    }

    /// How the cluster is.
    pub(super) fn counted(&self, agents: &BTreeMap<String, Agent>, sum: &Sum) {
        for state in Agent::ALL {
            let count = agents.values().filter(|agent| **agent == state).count();
            self.metrics.set("egret_controller_agents", &[state.word()], number(count));
        }
        for why in Unserved::ALL {
            let count = sum.unserved.get(&why).copied().unwrap_or_default();
            self.metrics.set("egret_controller_unprotected_pods", &[why.word()], number(count));
        }
        self.metrics.set("egret_controller_clients", &[], number(sum.clients));
        self.metrics.set("egret_controller_held_clients", &[], number(sum.held));
    }

    /// Something that was left of what is gone is given back.
    pub(super) fn reclaimed(&self, remnant: &Remnant, leases: usize) {
        self.metrics.add("egret_controller_reclaimed_total", &[remnant.word()], 1);
        self.metrics.add("egret_controller_reclaimed_leases_total", &[], leases as u64);
    }

    fn mirror(&self) -> MutexGuard<'_, Mirror> {
        self.mirror.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Doctor for Known {
    fn alive(&self) -> Result<(), String> {
        self.turns.alive()
    }

    fn ready(&self) -> Result<String, String> {
        // Before all else: whoever cannot reach the server hears of nothing, and this says why.
        self.leading.is_in_touch()?;
        let server = self.client.access().server();
        if !self.synced.load(Ordering::Acquire) {
            let why = self.mirror().lost().into_iter().map(|(_, why)| why).next();
            let why = why.unwrap_or_else(|| "it has not heard of all objects yet".to_owned());
            return Err(format!("the controller follows {server} for the first time: {why}"));
        }
        self.turns.timely()?;
        Ok(match self.leading.leads() {
            true => "ok: it leads".to_owned(),
            false => "ok: it stands by".to_owned(),
        })
    }

    fn counted(&self) -> String {
        self.metrics.set("egret_controller_leads", &[], f64::from(u8::from(self.leading.leads())));
        followed::count_objects(&self.metrics, &self.mirror());
        let _ = followed::count_requests(&self.metrics, &self.client); // conflicts are there by their status
        self.metrics.text()
    }
}

#[allow(clippy::cast_precision_loss, reason = "nobody has 2^53 pods")]
fn number(count: usize) -> f64 {
    count as f64
}

fn clock() -> f64 {
    time_of_day().as_secs_f64().floor()
}
