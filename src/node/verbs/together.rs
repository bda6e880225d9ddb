//! Calls that come together: one change of the plan, one of the kernel, for all of them.
//!
//! In: clients' ADDs and DELs of pods that the plan names, of one agent. Out: what became of each, or the call itself where it must be
//! carried out alone. Never: answers an ADD before the change stands, or lets one that is broken fail the others: whatever goes wrong with all
//! of them is undone, and each is tried by itself.
//!
//! Who called is told as soon as nothing that may still go wrong is its affair: of a pod that comes, when the kernel has its rules; of one that
//! ends, when it is cut off and nobody else's turn comes before it is gone. Whatever fails then finds record and intention, as after a crash.
//!
//! What is on file at each moment is what it would be after as many single calls: first the records of those that come, then the
//! intention, the kernel, the plan; last the records of those that went are removed.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use super::{Prepared, write};
use crate::cni::reply::CniError;
use crate::egress::model::Role;
use crate::egress::plan::NodePlan;
use crate::fault;
use crate::node::attachment::{Attachment, AttachmentId};
use crate::node::change::Change;
use crate::node::embedded::{Embedded, NodeError};
use crate::node::plugin::Here;
use crate::node::situation::local_pod;
use crate::node::sweeps::Sweep;
use crate::node::update::{Outcome, Thoroughness, namespaces};

/// A call that changes this node.
pub enum Call {
    /// A pod comes.
    Add(Box<Prepared>),
    /// One ends. Who waits for its end does not wait for a walk through the connection table, so nobody walks ahead for it.
    Del(AttachmentId),
}

/// What became of a call.
pub enum Ended {
    /// It was carried out, or failed for good.
    Done(Result<(), CniError>),
    /// Nothing was done: it is a call of its own.
    Alone(Call),
}

impl Call {
    fn id(&self) -> AttachmentId {
        match self {
            Call::Add(prepared) => prepared.asking.attachment.id(),
            Call::Del(id) => id.clone(),
        }
    }

    fn swept(&self) -> &[Arc<Sweep>] {
        match self {
            Call::Add(prepared) => &prepared.node.swept,
            Call::Del(_) => &[],
        }
    }

    /// Carries it out by itself.
    ///
    /// # Errors
    /// The verb's own.
    pub fn alone(self, here: &Here<'_>) -> Result<(), CniError> {
        match self {
            Call::Add(mut prepared) => {
                let outcome = prepared.carry_out();
                prepared.settle(outcome)
            }
            Call::Del(id) => here.remove(&id),
        }
    }
}

/// Carries calls out together. Outcomes come in the order of the calls. `tell` is called with the position of each that went well while
/// something is left to be done of it; more than once, it may be.
pub fn together(here: &Here<'_>, calls: Vec<Call>, tell: &dyn Fn(usize)) -> Vec<Ended> {
    let outcomes = at_once(here, &calls, tell);
    let ended = |(call, outcome): (Call, Option<_>)| outcome.map_or_else(|| Ended::Alone(call), Ended::Done);
    calls.into_iter().zip(outcomes).map(ended).collect()
}

type Outcomes = Vec<Option<Result<(), CniError>>>;

fn at_once(here: &Here<'_>, calls: &[Call], tell: &dyn Fn(usize)) -> Outcomes {
    let nothing = || calls.iter().map(|_| None).collect();
    let Ok(mut node) = here.node() else { return nothing() };
    node.swept = calls.iter().flat_map(Call::swept).cloned().collect();
    let who = match calls {
        [Call::Add(_)] => format!("ADD {}", calls[0].id()),
        [Call::Del(_)] => format!("DEL {}", calls[0].id()),
        _ => format!("{} calls", calls.len()),
    };
    let _guard = match node.lock(&who) {
        Ok(guard) => guard,
        // A pod that has its rules under another name ends there.
        Err(NodeError::OtherName { .. }) => return nothing(),
        Err(error) => {
            let error = CniError::from(error);
            return calls.iter().map(|_| Some(Err(error.clone()))).collect();
        }
    };
    // Whatever somebody left half done is looked into first.
    if node.memory.is_unfinished() {
        return nothing();
    }
    let last = node.memory.applied_shared().zip(node.memory.inputs());
    let gateways = node.gateways_of(last.iter().map(|(applied, _)| &applied.plan));
    if gateways.iter().any(Attachment::netns_is_gone) {
        return nothing();
    }
    let mut round = Round::of(&node, last.as_ref().map(|(applied, _)| &applied.plan), calls, tell);
    round.gather();
    if let Some((applied, inputs)) = &last {
        round.change(&applied.plan, *inputs, &gateways);
    }
    round.forget_ended();
    round.update();
    round.remember();
    round.outcomes
}

/// One round of calls.
struct Round<'a> {
    node: &'a Embedded,
    calls: &'a [Call],
    tell: &'a dyn Fn(usize),
    /// The plan as it shall be. `None`: nothing is wired yet.
    next: Option<NodePlan>,
    /// Everybody who has a part in it: they send nothing.
    asleep: Vec<String>,
    /// Addresses that somebody in it has, or had.
    addresses: BTreeSet<IpAddr>,
    /// Positions of those that are elements of the plan as it is, and of ADDs for which it must be made anew; with the record
    /// from before.
    quick: Vec<(usize, Option<Attachment>)>,
    slow: Vec<(usize, Option<Attachment>)>,
    outcomes: Outcomes,
}

impl<'a> Round<'a> {
    fn of(
        node: &'a Embedded,
        last: Option<&NodePlan>,
        calls: &'a [Call],
        tell: &'a dyn Fn(usize),
    ) -> Round<'a> {
        Round {
            node,
            calls,
            tell,
            next: last.cloned(),
            asleep: Vec::new(),
            addresses: BTreeSet::new(),
            quick: Vec::new(),
            slow: Vec::new(),
            outcomes: calls.iter().map(|_| None).collect(),
        }
    }

    /// Whether nobody before it in this round has to do with the same attachment or address.
    fn admits(&mut self, name: &str, addresses: &[IpAddr]) -> bool {
        let free = !self.asleep.iter().any(|other| other == name)
            && !addresses.iter().any(|ip| self.addresses.contains(ip));
        if free {
            self.asleep.push(name.to_owned());
            self.addresses.extend(addresses);
        }
        free
    }

    fn gather(&mut self) {
        let calls = self.calls;
        for (n, call) in calls.iter().enumerate() {
            let name = call.id().to_string();
            match call {
                Call::Add(prepared) => self.comes(n, &name, prepared),
                Call::Del(_) => self.goes(n, &name),
            }
        }
        if let Some(next) = &mut self.next {
            next.sweep();
        }
        if self.calls.iter().any(|call| matches!(call, Call::Add(_))) {
            fault::point("add.after-record");
        }
    }

    fn comes(&mut self, n: usize, name: &str, prepared: &Prepared) {
        let asking = &prepared.asking;
        if asking.role != Role::Client || !self.admits(name, &asking.attachment.addresses) {
            return;
        }
        let before = self.node.records.read(&asking.attachment.id()).ok().flatten();
        if let Err(error) = write(self.node, &asking.attachment) {
            self.outcomes[n] = Some(Err(error));
            return;
        }
        let chain = asking.chain.as_deref().unwrap_or_default();
        let pod = local_pod(&asking.attachment);
        let bound = self.next.as_mut().is_some_and(|next| next.bind(&pod, chain));
        if bound { &mut self.quick } else { &mut self.slow }.push((n, before));
    }

    fn goes(&mut self, n: usize, name: &str) {
        let Some(plan) = &self.next else { return };
        let gateway = plan.locals.contains_key(name) || plan.gateways.values().any(|g| g.attachment == name);
        let own = plan.clients.iter().filter(|(_, client)| client.attachment == name);
        let addresses: Vec<IpAddr> = own.map(|(ip, _)| *ip).collect();
        if gateway || !self.admits(name, &addresses) {
            return;
        }
        if let Some(next) = &mut self.next {
            next.drop_client(name);
        }
        (self.tell)(n);
        self.quick.push((n, None));
    }

    /// Those that differ from the plan by clients.
    fn change(&mut self, before: &NodePlan, inputs: u64, gateways: &[Attachment]) {
        let Some(next) = self.next.as_ref().filter(|_| !self.quick.is_empty()) else { return };
        let change = Change {
            before,
            unfinished: None,
            next,
            how: Thoroughness::Quick,
            asleep: &self.asleep,
            namespaces: &namespaces(gateways),
            running: &BTreeSet::new(),
            seen: None,
            ground: None,
        };
        let node = self.node;
        // Of many, who is answered wants a processor while this one still has the locks that the others wait for.
        let alone = self.quick.iter().filter(|_| self.calls.len() == 1);
        let stands = || alone.clone().for_each(|(n, _)| (self.tell)(*n));
        let done = || -> Result<(), CniError> {
            let mut outcome = Outcome::default();
            node.carry_out_telling(&change, inputs, &node.netns()?, &mut outcome, Some(&stands))?;
            node.announce_again(&mut outcome);
            node.finish(outcome)
        };
        let done = done();
        let quick = std::mem::take(&mut self.quick);
        match done {
            Ok(()) => quick.iter().for_each(|(n, _)| self.outcomes[*n] = Some(Ok(()))),
            Err(error) => self.undo(quick, &error),
        }
    }

    /// Under the same lock: were the plan made anew while the record of a pod that went is still there, it would be wired again.
    fn forget_ended(&mut self) {
        let ended = self.calls.iter().zip(&mut self.outcomes);
        for (call, outcome) in ended {
            if let (Call::Del(id), Some(Ok(()))) = (call, &outcome) {
                fault::point("del.after-unwiring");
                *outcome = Some(self.node.forget(id));
            }
        }
    }

    /// Those for which the plan is made anew, once for all of them.
    fn update(&mut self) {
        let slow = std::mem::take(&mut self.slow);
        if slow.is_empty() {
            return;
        }
        let node = self.node;
        let updated = node.update(Thoroughness::Quick, &self.asleep).map_err(CniError::from);
        match updated.and_then(|outcome| node.finish(outcome)) {
            Ok(()) => slow.iter().for_each(|(n, _)| self.outcomes[*n] = Some(Ok(()))),
            Err(error) => self.undo(slow, &error),
        }
    }

    /// So that a person need not repeat it.
    fn remember(&self) {
        let calls = self.calls.iter().zip(&self.outcomes);
        let added =
            |(call, outcome): (&Call, &Option<_>)| matches!((call, outcome), (Call::Add(_), Some(Ok(()))));
        if calls.into_iter().any(added)
            && let Err(error) = self.node.memory.remember_config(&self.node.config)
        {
            tracing::warn!(%error, "the command line will not know this configuration");
        }
    }

    /// The records of those that come as before: each is tried by itself, and undone by itself.
    fn undo(&self, those: Vec<(usize, Option<Attachment>)>, error: &CniError) {
        tracing::warn!(%error, calls = those.len(), "calls that came together are carried out one by one");
        for (n, before) in those {
            if let Call::Add(prepared) = &self.calls[n] {
                self.node.restore(&prepared.asking.attachment.id(), before.as_ref());
            }
        }
    }
}
