//! How closely foreign kinds are followed: as our own, at short intervals, or now and then.
//!
//! In: what the configuration adopts, what was heard. Out: a kind's pace, and rests that end when it changes. Never: asks anybody.
//!
//! Most clusters have nothing of another project, and 500 agents need no watch to know that. Where Calico is at work its pools
//! are ranges of the cluster, so a new one is heard of at once. Its DaemonSet is looked at and not watched: an event of it is as long
//! as the DaemonSet, and every pod of it that becomes ready, on whichever node, would send one to every agent.

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

#[derive(Debug, Default, PartialEq, Eq)]
struct Known {
    adopted: BTreeSet<Watched>,
    calico: Calico,
}

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
        let known = [Watched::CalicoAgents, Watched::CalicoPools, Watched::StoredCalicoPools];
        let is_there = known.into_iter().any(|kind| mirror.objects(kind).next().is_some());
        match at_work(mirror, Project::Calico) {
            Some(_) => Calico::AtWork,
            None if is_there || mirror.begun(Watched::CalicoAgents).0 < FIRST_LOOKS => Calico::Near,
            None => Calico::Absent,
        }
    }
}

impl Known {
    fn pace(&self, kind: Watched) -> Pace {
        let is_range = matches!(kind, Watched::CalicoPools | Watched::StoredCalicoPools);
        match self.calico {
            _ if !kind.is_foreign() || self.adopted.contains(&kind) => Pace::Watched,
            Calico::AtWork if is_range => Pace::Watched,
            Calico::AtWork | Calico::Near if kind == Watched::CalicoAgents => Pace::Looked(SOON),
            _ => Pace::Looked(SELDOM),
        }
    }
}

impl Paces {
    /// These foreign kinds are followed as our own.
    pub(super) fn adopting(adopted: BTreeSet<Watched>) -> Paces {
        Paces { known: Mutex::new(Known { adopted, calico: Calico::Near }), changed: Condvar::new() }
    }

    /// From now on these are.
    pub(super) fn adopt(&self, adopted: BTreeSet<Watched>) {
        self.set(|known| known.adopted = adopted);
    }

    /// More was heard of foreign kinds.
    pub(super) fn hear(&self, mirror: &Mirror) {
        let calico = Calico::of(mirror);
        self.set(|known| known.calico = calico);
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
            // What is not served in one of Calico's ways is in the other: nobody waits for it.
            Pace::Watched if self.is_wanted(kind) => MISSING,
            Pace::Watched => SOON,
        };
        let rested = self
            .changed
            .wait_timeout_while(self.known(), pause.mul_f64(by), |known| known.pace(kind) == pace);
        drop(rested.unwrap_or_else(PoisonError::into_inner));
    }

    fn set(&self, change: impl FnOnce(&mut Known)) {
        let mut known = self.known();
        let before = (known.adopted.clone(), known.calico);
        change(&mut known);
        if before != (known.adopted.clone(), known.calico) {
            self.changed.notify_all();
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

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
        let adopted = paces(&[], &[], FIRST_LOOKS, &[Watched::CalicoPools, Watched::CiliumPolicies]);
        assert_eq!(adopted, [seldom, Pace::Watched, Pace::Watched]);
    }
}
