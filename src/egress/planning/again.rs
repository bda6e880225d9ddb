//! A plan that follows the change of one pod's decision, without planning for everyone.
//!
//! In: the plan as it was, and inputs that differ from those it was made from in one pod's decision. Out: the plan that [`Planned::of`] would
//! make with the old plan's numbers. Never: guesses at other changes; endpoints, nodes, pods wired or ranges mean a new plan.

use std::mem;
use std::net::IpAddr;

use super::{Inputs, Work};
use crate::egress::model::{PodName, Role};
use crate::egress::numbering::Numbering;
use crate::egress::plan::{Client, LocalPod, NodePlan, binding_chain};
use crate::problem::Problem;

/// A plan, and what was met while it was made.
#[derive(Debug, Clone, PartialEq)]
pub struct Planned {
    /// The plan.
    pub plan: NodePlan,
    /// What is wrong.
    pub problems: Vec<Problem>,
    /// Some gateway set got no number; a problem says so, too.
    pub lacks_sets: bool,
}

impl Planned {
    /// A plan from nothing.
    pub fn of(inputs: &Inputs<'_>, numbering: &mut Numbering) -> Planned {
        Work::of(inputs, numbering, NodePlan::empty(inputs.here.clone())).all()
    }

    /// Brings the plan up to date for one pod. `numbering` is the old plan's.
    pub fn follow(&mut self, inputs: &Inputs<'_>, pod: &PodName, numbering: &mut Numbering) {
        let mut own = inputs.locals.iter().filter(|local| local.pod.as_ref() == Some(pod));
        let local = match (own.next(), own.next()) {
            (None, _) => return,
            (Some(local), None) => Some(local),
            (Some(_), Some(_)) => None,
        };
        match local.filter(|local| self.may_follow(local)) {
            Some(local) => self.follow_one(inputs, local, numbering),
            None => *self = Planned::of(inputs, numbering),
        }
    }

    fn may_follow(&self, local: &LocalPod) -> bool {
        // What could not have a number may have one now. Each such case is a problem.
        self.problems.is_empty()
            // The first client, or the last, changes what a draining gateway stays for.
            && self.plan.clients.keys().any(|ip| !local.addresses.contains(ip))
    }

    fn follow_one(&mut self, inputs: &Inputs<'_>, local: &LocalPod, numbering: &mut Numbering) {
        let before = mem::replace(&mut self.plan, NodePlan::empty(inputs.here.clone()));
        let mut work = Work::of(inputs, numbering, before);
        if !inputs.resolution.node_gateways.is_empty() || !work.plan.exits.is_empty() {
            work.exits();
        }
        work.unnamed();
        work.one(local);
        *self = work.planned();
    }
}

impl Work<'_> {
    fn one(&mut self, pod: &LocalPod) {
        // Who was wired later has the address.
        let owner = |ip: &IpAddr| self.inputs.locals.iter().rev().find(|local| local.addresses.contains(ip));
        let owns = |ip: &&IpAddr| owner(ip).is_some_and(|owner| owner.attachment == pod.attachment);
        let own: Vec<IpAddr> = pod.addresses.iter().filter(owns).copied().collect();
        if own.is_empty() {
            return;
        }
        let decision = pod.pod.as_ref().and_then(|name| self.inputs.resolution.decisions.get(name));
        let mut new = false;
        let chain = match decision {
            Some(decision) if decision.role == Role::Client => {
                // Made anew: rules of one name may lead elsewhere now.
                let before = self.plan.bindings.remove(&binding_chain(&decision.binding));
                let chain = self.binding(decision);
                new = before.as_ref() != self.plan.bindings.get(&chain);
                Some(chain)
            }
            _ => None,
        };
        let mut left = Vec::new();
        for ip in own {
            let before = match &chain {
                Some(binding) => {
                    let client = Client { attachment: pod.attachment.clone(), binding: binding.clone() };
                    self.plan.clients.insert(ip, client)
                }
                None => self.plan.clients.remove(&ip),
            };
            left.extend(before.map(|client| client.binding));
        }
        left.sort_unstable();
        left.dedup();
        left.retain(|chain| !self.plan.clients.values().any(|client| client.binding == *chain));
        for chain in &left {
            self.plan.bindings.remove(chain);
        }
        if !left.is_empty() || new {
            self.plan.hold_what_has_no_gateway();
            self.plan.sweep_sets();
        }
    }
}
