//! One plan replaces another: what both say, and how far the first is believed.
//!
//! In: the plan that the kernel holds, the one that it shall hold. Out: whether anything is to do, and what happens to running flows.
//! Never: does it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::egress::plan::NodePlan;
use crate::egress::prefixes;
use crate::egress::transition::{Transition, transition};
use crate::kernel::state::State;
use crate::node::ground::Ground;
use crate::node::update::Thoroughness;

/// One plan replaces another.
#[derive(Clone, Copy)]
pub struct Change<'a> {
    /// What the kernel is believed to hold.
    pub before: &'a NodePlan,
    /// What somebody began to apply and did not finish: then nothing is believed.
    pub unfinished: Option<&'a NodePlan>,
    /// What it shall hold.
    pub next: &'a NodePlan,
    /// Whether to believe.
    pub how: Thoroughness,
    /// Attachments whose pod sends nothing.
    pub asleep: &'a [String],
    /// Addresses of all pods that run here, clients or not. Asked for only where the plan before is an idle one.
    pub running: &'a BTreeSet<IpAddr>,
    /// What the kernel was just seen to hold, where nothing else told.
    pub seen: Option<&'a State>,
    /// What was begun before this change was known.
    pub ground: Option<&'a Ground>,
    /// Network namespaces by attachment.
    pub namespaces: &'a BTreeMap<String, std::path::PathBuf>,
}

impl Change<'_> {
    /// How thorough it must be.
    pub(super) fn how(&self) -> Thoroughness {
        if self.unfinished.is_some() { Thoroughness::Whole } else { self.how }
    }

    /// Whether the kernel holds the next plan already, as far as it is believed.
    pub(super) fn is_nothing(&self) -> bool {
        self.how() == Thoroughness::Quick && self.before == self.next
    }

    /// Whether a pod may send from this address meanwhile.
    pub(super) fn is_awake(&self, ip: &IpAddr) -> bool {
        let unfinished = self.unfinished.and_then(|plan| plan.clients.get(ip));
        let owners = [self.before.clients.get(ip), unfinished, self.next.clients.get(ip)];
        owners.into_iter().flatten().any(|client| !self.asleep.contains(&client.attachment))
    }

    /// Whether this is an address of pods that are all known to send nothing.
    pub(super) fn sleeps(&self, ip: &IpAddr) -> bool {
        let plans = || [Some(self.before), self.unfinished, Some(self.next)].into_iter().flatten();
        let clients = plans().filter_map(|plan| plan.clients.get(ip)).map(|client| &client.attachment);
        let gateways = plans().flat_map(|plan| &plan.locals).filter_map(|(attachment, gateway)| {
            gateway.own.as_ref().filter(|own| own.addresses.contains(ip)).map(|_| attachment)
        });
        let mut owners = clients.chain(gateways).peekable();
        owners.peek().is_some() && owners.all(|owner| self.asleep.contains(owner))
    }

    /// What must happen to running flows, from wherever they were left.
    pub(super) fn flows(&self) -> Transition {
        let mut flows = transition(self.before, self.next);
        if let Some(unfinished) = self.unfinished {
            let more = transition(unfinished, self.next);
            flows.rebound.extend(more.rebound);
            flows.moved.extend(more.moved);
            flows.begun.extend(more.begun);
            flows.exits_begun.extend(more.exits_begun);
            flows.exits_ended.extend(more.exits_ended);
            flows.rebuilt.extend(more.rebuilt);
            for (ip, changes) in more.released {
                let gone = changes.into_iter().filter(|(_, change)| *change == prefixes::Change::Released);
                flows.released.entry(ip).or_default().extend(gone);
            }
        }
        flows
    }
}
