//! Wiring this node's gateways, each in its own namespace.
//!
//! In: a change of plans. Out: what was begun in each namespace, and then who could not be wired. Never: waits for one gateway's tables
//! before it turns to the next one.

use std::collections::BTreeMap;
use std::path::Path;

use crate::egress::belts::Belts;
use crate::egress::gateway_state::gateway_state;
use crate::egress::lower_clients::alike_but_for_clients;
use crate::egress::numbers;
use crate::egress::plan::NodePlan;
use crate::kernel::netns::Netns;
use crate::kernel::state::State;
use crate::kernel::{self, Begun, Place};
use crate::node::change::Change;
use crate::node::embedded::Embedded;
use crate::node::update::{Outcome, Thoroughness};
use crate::problem::Problem;

/// Reason of the problem that a gateway's namespace cannot be wired.
pub(super) const GATEWAY_UNREACHABLE: &str = "GatewayUnreachable";

/// A gateway whose tables are being loaded.
pub(super) struct Wiring<'a> {
    attachment: &'a str,
    path: &'a Path,
    /// It did not serve before.
    is_new: bool,
    begun: Result<Begun, String>,
}

impl Embedded {
    /// Begins to wire this node's gateways. [`end_gateways`] must follow.
    pub(super) fn begin_gateways<'a>(&self, change: &'a Change<'a>, node_ns: &Netns) -> Vec<Wiring<'a>> {
        if change.how() == Thoroughness::Quick && alike_but_for_clients(change.before, change.next) {
            return Vec::new(); // a gateway does not know who its node's clients are
        }
        let state = |plan: &NodePlan, gateway| gateway_state(plan, gateway, Belts::of_this_build());
        let mut wiring = Vec::new();
        for (attachment, gateway) in &change.next.locals {
            let desired = state(change.next, gateway);
            let old = change.before.locals.get(attachment);
            let unchanged = |old| state(change.before, old) == desired;
            if change.how() == Thoroughness::Quick && old.is_some_and(unchanged) {
                continue;
            }
            let Some(path) = change.namespaces.get(attachment) else { continue };
            let begun = self.begin_gateway(path, node_ns, &desired);
            wiring.push(Wiring { attachment, path, is_new: old.is_none(), begun });
        }
        wiring
    }

    fn begin_gateway(&self, path: &Path, node_ns: &Netns, desired: &State) -> Result<Begun, String> {
        let here = Netns::open(path).map_err(|e| e.to_string())?;
        let (place, scope) = (Place { here: &here, home: node_ns }, numbers::gateway_scope());
        // No originals: the settings of a pod's namespace are nobody else's, and die with it.
        if self.dry_run {
            let report = kernel::reconcile(&place, &scope, desired, &mut BTreeMap::new(), true);
            return report.map(Begun::from).map_err(|e| e.to_string());
        }
        kernel::begin_reconcile(&place, &scope, desired).map_err(|e| e.to_string())
    }
}

/// Waits for what was begun. Returns the gateways that are not wired: clients must not choose them. One that served before and only
/// cannot be changed is not among them.
pub(super) fn end_gateways(wiring: Vec<Wiring<'_>>, outcome: &mut Outcome) -> Vec<String> {
    let mut unwired = Vec::new();
    for Wiring { attachment, path, is_new, begun } in wiring {
        let done = begun.map(Begun::end);
        let failed = done.as_ref().map_or(true, |report| !report.failed.is_empty());
        if failed && (is_new || !path.exists()) {
            unwired.push(attachment.to_owned());
        }
        match done {
            Ok(report) => outcome.reports.push((attachment.to_owned(), report)),
            Err(why) => outcome.problems.push(Problem::new(
                format!("Attachment {attachment}"),
                GATEWAY_UNREACHABLE,
                format!("the gateway's namespace {} cannot be wired: {why}", path.display()),
            )),
        }
    }
    unwired
}
