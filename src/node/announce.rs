//! The way back: telling the outside that a leased address is here now, and noticing who else says so.
//!
//! In: addresses that a plan begins to announce. Out: questions asked before, answers named after, announcements in both forms.
//! Never: makes the proxy entries themselves; those are kernel state like any other.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::addr::{Family, Mac};
use crate::egress::plan::{Here, NodePlan};
use crate::kernel::announce::{self as wire, Question};
use crate::node::change::Change;
use crate::node::embedded::{Embedded, now};
use crate::node::ground::Ground;
use crate::node::memory::Announced;
use crate::node::update::{Outcome, Thoroughness};
use crate::problem::Problem;

/// How long an owner has to answer.
const PATIENCE: Duration = Duration::from_millis(10);
/// How long later calls repeat an announcement: a lost one costs a neighbour half a minute of its stale entry.
const REPEAT_SECONDS: u64 = 60;

/// A question on its way.
pub struct Asked {
    dev: String,
    ip: IpAddr,
    question: Question,
    until: Instant,
}

/// Addresses to ask about: those that the new plan takes over, and all of them when the update is whole.
fn taken_over(change: &Change<'_>) -> BTreeSet<(String, IpAddr)> {
    let announced =
        |plan: &NodePlan| plan.locals.values().flat_map(|g| g.announced.clone()).collect::<BTreeSet<_>>();
    let next = announced(change.next);
    match change.how {
        Thoroughness::Whole => next,
        Thoroughness::Quick => next.difference(&announced(change.before)).cloned().collect(),
    }
}

/// Asks about what a change takes over, but for what was asked already.
pub fn ask_about(change: &Change<'_>) -> Vec<Asked> {
    let mut asked = change.ground.map(Ground::asked).unwrap_or_default();
    let mut addresses = taken_over(change);
    addresses.retain(|(dev, ip)| !asked.iter().any(|one| one.dev == *dev && one.ip == *ip));
    asked.extend(ask(&change.next.here, &addresses));
    asked
}

/// Asks who has these addresses, with the node's own address as sender: a proxy entry does not answer RFC 5227's probe, whose
/// sender is empty. The answers are collected later, so the wiring goes on meanwhile.
pub fn ask(here: &Here, addresses: &BTreeSet<(String, IpAddr)>) -> Vec<Asked> {
    let mut asked = Vec::new();
    for (dev, ip) in addresses {
        let own = here.uplinks.iter().filter(|u| u.dev == *dev).flat_map(|u| &u.addresses);
        let own: Vec<_> = own.filter(|(own, _)| Family::of(*own) == Family::of(*ip)).collect();
        let source = own.iter().find(|(_, net)| net.contains(*ip)).or(own.first()).map(|(own, _)| *own);
        if let Some(source) = source
            && let Ok(question) = Question::ask(dev, source, *ip)
        {
            asked.push(Asked { dev: dev.clone(), ip: *ip, question, until: Instant::now() + PATIENCE });
        }
    }
    asked
}

impl Asked {
    /// Who else has it, by the answers that have come in until the deadline: a problem each.
    pub fn owners(&self, deadline: Instant) -> Vec<Problem> {
        let answers = self.question.answers(deadline).unwrap_or_default();
        answers.into_iter().map(|mac| another_owner(&self.dev, self.ip, mac)).collect()
    }
}

impl Embedded {
    /// Collects the answers, announces what is new, and repeats what was taken over within the last minute. An agent, which repeats it by
    /// its own clock, announces only when the plan announces something else: whoever called waits for the packets.
    pub fn announce(&self, change: &Change<'_>, asked: Vec<Asked>, outcome: &mut Outcome) {
        if self.dry_run {
            return;
        }
        // Their time began when they were asked: what the wiring took of it need not be waited again.
        for asked in asked {
            outcome.problems.extend(asked.owners(asked.until));
        }
        let announced =
            |plan: &NodePlan| plan.locals.values().flat_map(|g| g.announced.clone()).collect::<BTreeSet<_>>();
        let (before, next) = (announced(change.before), announced(change.next));
        if self.kept.is_some() && before == next {
            return;
        }
        let new =
            next.difference(&before).map(|(dev, ip)| Announced { dev: dev.clone(), ip: *ip, since: now() });
        let known = self.memory.announced();
        let mut remembered = known.clone();
        remembered.retain(|old| next.contains(&(old.dev.clone(), old.ip)));
        remembered.extend(new);
        self.repeat(&known, remembered, outcome);
    }

    /// Announces again what was taken over within the last minute; called by every later call on this node, where no agent does it.
    pub fn announce_again(&self, outcome: &mut Outcome) {
        if self.kept.is_some() || outcome.announced {
            return;
        }
        let remembered = self.memory.announced();
        if !remembered.is_empty() && !self.dry_run {
            self.repeat(&remembered, remembered.clone(), outcome);
        }
    }

    /// `known`: what is on file.
    fn repeat(&self, known: &[Announced], mut remembered: Vec<Announced>, outcome: &mut Outcome) {
        outcome.announced = true;
        let oldest = now().saturating_sub(REPEAT_SECONDS);
        remembered.retain(|one| one.since >= oldest);
        for one in &remembered {
            if let Err(error) = wire::announce(&one.dev, one.ip) {
                let message = format!(
                    "{} could not be announced on {}: {error}; neighbours may take half a minute to find it",
                    one.ip, one.dev
                );
                outcome.problems.push(Problem::new(format!("Address {}", one.ip), "NotAnnounced", message));
            }
        }
        if remembered != known
            && let Err(error) = self.memory.remember_announced(&remembered)
        {
            tracing::warn!(%error, "announcements will not be repeated");
        }
    }
}

/// Reason of the problem that somebody else answers for an address of ours.
pub const ANOTHER_OWNER: &str = "AnotherOwner";

fn another_owner(dev: &str, ip: IpAddr, mac: Mac) -> Problem {
    Problem::new(
        format!("Address {ip}"),
        ANOTHER_OWNER,
        format!(
            "{mac} on {dev} answers for {ip} too: two owners of one address lose each other's replies. If it is another node of \
             this cluster, run `egret reconcile` there; else take the address out of the pool or away from that host"
        ),
    )
}
