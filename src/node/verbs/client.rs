//! ADD of a client: one element, where its binding stands already; else the whole plan.
//!
//! In: what the pod is. Out: a client whose first packet obeys. Never: claims anything.

use std::collections::BTreeSet;

use super::Asking;
use crate::cni::reply::CniError;
use crate::node::change::Change;
use crate::node::embedded::Embedded;
use crate::node::situation::local_pod;
use crate::node::update::{Outcome, Thoroughness};
use crate::store::objects::Objects;

impl Embedded {
    /// A client whose binding this node has already: one map element. Else the whole plan.
    pub(super) fn add_client(&self, asking: &Asking) -> Result<(), CniError> {
        let id = asking.attachment.id().to_string();
        if let Some(outcome) = self.add_client_quickly(asking, &id)? {
            return self.finish(outcome);
        }
        let situation = self.situation_of(asking.objects_now(self)?)?;
        self.finish(self.update_from(&situation, Thoroughness::Quick, &[id])?)
    }

    fn add_client_quickly(&self, asking: &Asking, id: &str) -> Result<Option<Outcome>, CniError> {
        let Some(inputs) = self.inputs_of_plan(&asking.objects) else { return Ok(None) };
        if self.memory.is_unfinished() {
            return Ok(None);
        }
        let (Some(chain), Some(applied)) = (&asking.chain, self.memory.applied_shared()) else {
            return Ok(None);
        };
        let Some(next) = applied.plan.with_client(&local_pod(&asking.attachment), chain) else {
            return Ok(None);
        };
        let mut outcome = Outcome::default();
        let asleep = [id.to_owned()];
        let change = Change {
            before: &applied.plan,
            unfinished: None,
            next: &next,
            how: Thoroughness::Quick,
            asleep: &asleep,
            running: &BTreeSet::new(),
            seen: None,
            ground: None,
            namespaces: &Default::default(),
        };
        self.carry_out(&change, inputs, &self.netns()?, &mut outcome)?;
        self.announce_again(&mut outcome);
        Ok(Some(outcome))
    }

    /// What the plan last applied was made from, if a client may be added to it as it is. In a cluster the agent's loop follows what
    /// changed, and hears of every pod that comes: were its plan to be followed here first, each of a hundred ADDs would make it anew. A
    /// binding that the plan has is named by the rules that are in force for this pod now.
    pub(super) fn inputs_of_plan(&self, objects: &Objects) -> Option<u64> {
        let known = self.memory.inputs()?;
        (self.is_followed() || known == self.inputs(objects)).then_some(known)
    }
}
