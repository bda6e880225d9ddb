//! What a node that lives on keeps from one update to the next, so that a change costs what it touches.
//!
//! In: each situation's view and pods; each plan's inputs. Out: the decisions and the plan that would be made from nothing. Never:
//! trusts that it knows what changed; whatever is not as it was, but for decisions about one pod, is a new beginning.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use crate::addr::Cidr;
use crate::egress::model::{PodName, Resolution, View};
use crate::egress::numbering::Numbering;
use crate::egress::plan::{Here, LocalPod, NodePlan};
use crate::egress::planning::{Inputs, Planned};
use crate::egress::resolve::Live;

/// Decisions and plan of the last update.
#[derive(Default)]
pub struct Kept(Mutex<Last>);

#[derive(Default)]
struct Last {
    live: Option<Live>,
    /// Pods that were decided about otherwise since the plan was made.
    changed: BTreeSet<PodName>,
    made: Option<Made>,
}

/// A plan, and what else it was made from.
struct Made {
    here: Here,
    locals: Vec<LocalPod>,
    inside: Vec<Cidr>,
    planned: Planned,
}

impl Kept {
    /// Decisions about these pods, by this view.
    pub fn resolution(&self, view: &Arc<View>, pods: BTreeSet<PodName>) -> Resolution {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Taken out: what a panic leaves half-changed is not found again.
        let (live, changed) = match last.live.take() {
            Some(mut live) => {
                let changed = live.follow(Arc::clone(view), &pods);
                (live, changed)
            }
            None => (Live::of(Arc::clone(view), pods), None),
        };
        match changed {
            Some(changed) => last.changed.extend(changed),
            None => last.made = None,
        }
        last.live.insert(live).resolution().clone()
    }

    /// The plan from these inputs, with the numbers of `before`, the plan last applied.
    pub fn plan(&self, before: Option<&NodePlan>, inputs: &Inputs<'_>, numbering: &mut Numbering) -> Planned {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = std::mem::take(&mut last.changed);
        let made = last.made.take().filter(|made| before == Some(&made.planned.plan) && made.serves(inputs));
        // Who changed the view after the decisions were made has another copy of it.
        let ours = last.live.as_ref().is_some_and(|live| std::ptr::eq(live.view(), inputs.view));
        let planned = match made.filter(|made| ours && changed.len() < 2 && made.planned.problems.is_empty())
        {
            Some(Made { mut planned, .. }) => {
                let anew = cfg!(debug_assertions).then(|| Planned::of(inputs, &mut numbering.clone()));
                changed.iter().for_each(|pod| planned.follow(inputs, pod, numbering));
                debug_assert_eq!(
                    Some(&planned),
                    anew.as_ref(),
                    "a plan that followed is not that from nothing"
                );
                planned
            }
            None => Planned::of(inputs, numbering),
        };
        last.made = ours.then(|| Made {
            here: inputs.here.clone(),
            locals: inputs.locals.to_vec(),
            inside: inputs.inside.to_vec(),
            planned: planned.clone(),
        });
        planned
    }
}

impl Made {
    fn serves(&self, inputs: &Inputs<'_>) -> bool {
        self.here == *inputs.here && self.locals == inputs.locals && self.inside == inputs.inside
    }
}
