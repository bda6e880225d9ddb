//! A plan that follows the change of one pod's decision, without planning for everyone.
//!
//! In: the plan as it was, and inputs that differ from those it was made from in one pod's decision. Out: the plan that [`plan`] would
//! make with the old plan's numbers. Never: guesses at other changes; endpoints, nodes, pods wired or ranges mean a new plan.

use std::mem;

use super::{Inputs, Work, plan};
use crate::egress::model::Role;
use crate::egress::numbering::Numbering;
use crate::egress::plan::{Client, LocalPod, NodePlan, binding_chain};
use crate::problem::Problem;

/// Brings `planned` up to date for one pod that is wired here; what is wrong with that pod's part of the plan.
pub fn replan(
    planned: &mut NodePlan,
    inputs: &Inputs<'_>,
    pod: &LocalPod,
    numbering: &mut Numbering,
) -> Vec<Problem> {
    // The first client, or the last, changes what a draining gateway stays for.
    let others = |plan: &NodePlan| plan.clients.keys().any(|ip| !pod.addresses.contains(ip));
    if !others(planned) {
        let (next, problems) = plan(inputs, numbering);
        *planned = next;
        return problems;
    }
    let here = inputs.here.clone();
    let mut work = Work::of(inputs, numbering, mem::replace(planned, NodePlan::empty(here)));
    if !inputs.resolution.node_gateways.is_empty() || !work.plan.exits.is_empty() {
        work.exits();
    }
    work.one(pod);
    let Work { plan: next, problems, .. } = work;
    *planned = next;
    problems
}

impl Work<'_> {
    fn one(&mut self, pod: &LocalPod) {
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
        for ip in &pod.addresses {
            // Who was wired later has the address.
            let owner = self.inputs.locals.iter().rev().find(|local| local.addresses.contains(ip));
            if owner.is_some_and(|owner| owner.attachment != pod.attachment) {
                continue;
            }
            let before = match &chain {
                Some(binding) => {
                    let client = Client { attachment: pod.attachment.clone(), binding: binding.clone() };
                    self.plan.clients.insert(*ip, client)
                }
                None => self.plan.clients.remove(ip),
            };
            left.extend(before.map(|client| client.binding));
        }
        left.sort_unstable();
        left.dedup();
        // The new chain may be nobody's too: its pod may have lost its address.
        let gone: Vec<String> = (left.into_iter().chain(chain))
            .filter(|chain| !self.plan.clients.values().any(|client| client.binding == *chain))
            .collect();
        for chain in &gone {
            self.plan.bindings.remove(chain);
        }
        if !gone.is_empty() || new {
            self.plan.hold_what_has_no_gateway();
            self.plan.sweep_sets();
        }
    }
}
