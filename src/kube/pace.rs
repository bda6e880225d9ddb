//! How closely foreign kinds are followed: as our own, at short intervals, or now and then.
//!
//! In: what the configuration adopts, what was heard. Out: a kind's pace, and rests that end when it changes. Never: asks anybody.
//!
//! Most clusters have nothing of another project, and 500 agents need no watch to know that. Where Calico is at work its pools
//! are ranges of the cluster, so a new one is heard of at once. A project's DaemonSet is looked at and not watched, adopted or not: an event
//! of it is as long as the DaemonSet, and every pod of it that becomes ready, on whichever node, would send one to every agent.

use std::collections::BTreeSet;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::foreign::at_work;
use super::mirror::Mirror;
use super::watched::Watched;
use crate::config::Project;

/// How often a kind is looked for that is adopted, but unknown to the server.
const MISSING: Duration = Duration::from_secs(10);
const SOON: Duration = Duration::from_secs(30);
const SELDOM: Duration = Duration::from_secs(300);
/// So many looks at Calico are soon ones: where all is installed at once it may come after us.
const FIRST_LOOKS: u64 = 10;

/// How closely a kind is followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pace {
    /// By a watch.
    Watched,
    /// By lists, with a rest of about this length between them.
    Looked(Duration),
}

/// What is followed how, for all kinds together.
#[derive(Debug, Default)]
pub(super) struct Paces {
    known: Mutex<Known>,
    changed: Condvar,
}

#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Known {
    adopted: BTreeSet<Watched>,
    calico: Calico,
    /// Pools of Calico are there, in whichever of its ways.
    has_pools: bool,
}

const POOLS: [Watched; 2] = [Watched::CalicoPools, Watched::StoredCalicoPools];

/// What was heard of Calico.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Calico {
    #[default]
    Absent,
    /// Its DaemonSet or a pool is there, or it may come any moment.
    Near,
    AtWork,
}

impl Calico {
    fn of(mirror: &Mirror) -> Calico {
        let is_there = has_pools(mirror) || mirror.objects(Watched::CalicoAgents).next().is_some();
        match at_work(mirror, Project::Calico) {
            Some(_) => Calico::AtWork,
            None if is_there || mirror.begun(Watched::CalicoAgents).0 < FIRST_LOOKS => Calico::Near,
            None => Calico::Absent,
        }
    }
}

fn has_pools(mirror: &Mirror) -> bool {
    POOLS.into_iter().any(|kind| mirror.objects(kind).next().is_some())
}

impl Known {
    fn pace(&self, kind: Watched) -> Pace {
        let is_agents = matches!(kind, Watched::CalicoAgents | Watched::CiliumAgents);
        match self.calico {
            _ if is_agents && self.adopted.contains(&kind) => Pace::Looked(SOON),
            _ if !kind.is_foreign() || self.adopted.contains(&kind) => Pace::Watched,
            Calico::AtWork if POOLS.contains(&kind) => Pace::Watched,
            Calico::AtWork | Calico::Near if kind == Watched::CalicoAgents => Pace::Looked(SOON),
            _ => Pace::Looked(SELDOM),
        }
    }

    /// How long a kind rests that would be watched if there were one.
    fn missing(&self, kind: Watched) -> Duration {
        match self.adopted.contains(&kind) || !kind.is_foreign() {
            true => MISSING,
            // What is not served in one of Calico's ways is in the other: nobody waits for it, once it is there.
            false if self.has_pools => SELDOM,
            false => SOON,
        }
    }
}

impl Paces {
    /// These foreign kinds are followed as our own.
    pub(super) fn adopting(adopted: BTreeSet<Watched>) -> Paces {
        let known = Known { adopted, calico: Calico::Near, has_pools: false };
        Paces { known: Mutex::new(known), changed: Condvar::new() }
    }

    /// From now on these are.
    pub(super) fn adopt(&self, adopted: BTreeSet<Watched>) {
        self.set(|known| known.adopted = adopted);
    }

    /// More was heard of foreign kinds.
    pub(super) fn hear(&self, mirror: &Mirror) {
        let (calico, has_pools) = (Calico::of(mirror), has_pools(mirror));
        self.set(|known| (known.calico, known.has_pools) = (calico, has_pools));
    }

    /// Whether somebody asked for this kind: ours, or a foreign one that is adopted.
    pub(super) fn is_wanted(&self, kind: Watched) -> bool {
        !kind.is_foreign() || self.known().adopted.contains(&kind)
    }

    pub(super) fn of(&self, kind: Watched) -> Pace {
        self.known().pace(kind)
    }

    /// Rests as this pace has it, but no longer than the kind has this pace. `by`: how much of the rest, 1 is all.
    pub(super) fn rest(&self, kind: Watched, pace: Pace, by: f64) {
        let pause = match pace {
            Pace::Looked(pause) => pause,
            Pace::Watched => self.known().missing(kind),
        };
        let rested = self
            .changed
            .wait_timeout_while(self.known(), pause.mul_f64(by), |known| known.pace(kind) == pace);
        drop(rested.unwrap_or_else(PoisonError::into_inner));
    }

    fn set(&self, change: impl FnOnce(&mut Known)) {
        let mut known = self.known();
        let before = known.clone();
        change(&mut known);
        if *known != before {
            self.changed.notify_all();
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// The pace of a kind where somebody needs all of it.
    pub(in crate::kube) fn at_most(kind: Watched) -> Pace {
        Known { adopted: [kind].into(), calico: Calico::AtWork, has_pools: true }.pace(kind)
    }

    fn set(nodes: u32) -> Value {
        json!({"metadata": {"namespace": "kube-system", "name": "calico-node"}, "status": {"desiredNumberScheduled": nodes}})
    }

    /// DaemonSet, pools, and what else there is, where these DaemonSets were listed so often.
    fn paces(sets: &[Value], pools: &[Value], looks: u64, adopted: &[Watched]) -> [Pace; 3] {
        let mut mirror = Mirror::default();
        mirror.listed(Watched::StoredCalicoPools, pools);
        for _ in 0..looks {
            mirror.listed(Watched::CalicoAgents, sets);
        }
        let paces = Paces::adopting(adopted.iter().copied().collect());
        paces.hear(&mirror);
        [Watched::CalicoAgents, Watched::CalicoPools, Watched::CiliumPolicies].map(|kind| paces.of(kind))
    }

    #[test]
    fn what_is_not_there_costs_a_look_now_and_then_and_what_decides_is_followed() {
        let (seldom, soon) = (Pace::Looked(SELDOM), Pace::Looked(SOON));
        let pool = json!({"metadata": {"name": "pods"}, "spec": {"cidr": "10.0.0.0/16"}});
        assert_eq!(paces(&[], &[], FIRST_LOOKS, &[]), [seldom, seldom, seldom]);
        assert_eq!(paces(&[], &[], 1, &[]), [soon, seldom, seldom], "it may come after us");
        assert_eq!(paces(&[], &[pool], FIRST_LOOKS, &[]), [soon, seldom, seldom], "it may come back");
        assert_eq!(paces(&[set(0)], &[], FIRST_LOOKS, &[]), [soon, seldom, seldom]);
        assert_eq!(paces(&[set(3)], &[], FIRST_LOOKS, &[]), [soon, Pace::Watched, seldom]);
        // Adopted, a project's kinds are all watched, but for the DaemonSet by which it is at work.
        let all = [Watched::CalicoAgents, Watched::CalicoPools, Watched::CiliumPolicies];
        for sets in [&[][..], &[set(3)]] {
            assert_eq!(paces(sets, &[], FIRST_LOOKS, &all), [soon, Pace::Watched, Pace::Watched]);
        }
        let mut known = Known { adopted: [Watched::CiliumAgents].into(), ..Known::default() };
        assert_eq!(known.pace(Watched::CiliumAgents), soon);
        known.adopted.clear();
        assert_eq!(known.pace(Watched::CiliumAgents), seldom);
    }

    #[test]
    fn where_calico_has_no_api_server_of_its_own_that_is_asked_for_now_and_then() {
        let pool = json!({"metadata": {"name": "pods"}, "spec": {"cidr": "10.0.0.0/16"}});
        let missing = |pools: &[Value], adopted: &[Watched]| {
            let mut mirror = Mirror::default();
            mirror.listed(Watched::CalicoAgents, &[set(3)]);
            mirror.listed(Watched::StoredCalicoPools, pools);
            let paces = Paces::adopting(adopted.iter().copied().collect());
            paces.hear(&mirror);
            assert_eq!(paces.of(Watched::CalicoPools), Pace::Watched);
            paces.known().missing(Watched::CalicoPools)
        };
        assert_eq!(missing(&[], &[]), SOON, "its pools are in neither way yet");
        assert_eq!(missing(std::slice::from_ref(&pool), &[]), SELDOM);
        assert_eq!(missing(&[pool], &[Watched::CalicoPools]), MISSING, "somebody waits for it");
    }
}
