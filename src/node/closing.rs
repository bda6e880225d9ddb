//! A gateway's namespace closes: nobody's packets pass it any more.
//!
//! In: a change of plans, or one attachment. Out: what was taken out of the namespace. Never: touches what is not ours there; wonders
//! about a namespace that is gone.
//!
//! The devices that clients come by go first. Tables before them, as everywhere else, and for a moment clients' packets would
//! leave by the pod's own default route, where nothing gives them an address.

use std::collections::{BTreeMap, BTreeSet};

use crate::egress::numbers::{self, GATEWAY_TUNNEL, GATEWAY_VETH};
use crate::kernel::netns::Netns;
use crate::kernel::state::State;
use crate::kernel::{self, Place, Report, Step};
use crate::node::attachment::Attachment;
use crate::node::change::Change;
use crate::node::embedded::{Embedded, NodeError};

/// Closes the gateways that go and whose clients leave with the pod's own address: by the primary's device, which nobody takes from
/// the pod. As long as its namespace lives, clients of other nodes come by the tunnel, and once the node's rules are gone the next
/// masquerade would have them. A gateway with leases alone loses its way out with the node's end of its veth.
///
/// # Errors
/// A namespace cannot be spoken to. One that is gone is closed.
pub(super) fn close_going(change: &Change<'_>, node_ns: &Netns) -> Result<Vec<(String, Report)>, NodeError> {
    let plans = [Some(change.before), change.unfinished];
    let known = plans.into_iter().flatten().flat_map(|plan| &plan.locals);
    let own = known.filter(|(_, gateway)| gateway.own.is_some()).map(|(attachment, _)| attachment);
    let going: BTreeSet<&String> = own.filter(|name| !change.next.locals.contains_key(*name)).collect();
    let mut reports = Vec::new();
    for attachment in going {
        let Some(path) = change.namespaces.get(attachment) else { continue };
        let Ok(here) = Netns::open(path) else { continue };
        reports.push((attachment.clone(), close(&Place { here: &here, home: node_ns })?));
    }
    Ok(reports)
}

fn close(place: &Place<'_>) -> Result<Report, NodeError> {
    let doors = [GATEWAY_TUNNEL, GATEWAY_VETH].map(|name| Step::DelLink(name.to_owned()));
    kernel::apply(place, &numbers::gateway_scope(), &doors).map_err(|e| NodeError::Observe(e.to_string()))
}

impl Embedded {
    /// Takes everything of ours out of a gateway's namespace, if that is still the one of its ADD.
    pub(crate) fn clear_gateway(
        &self,
        attachment: &Attachment,
        node_ns: &Netns,
    ) -> Result<Option<Report>, NodeError> {
        if attachment.netns_is_gone() {
            return Ok(None);
        }
        let Ok(here) = Netns::open(&attachment.netns) else { return Ok(None) };
        let place = Place { here: &here, home: node_ns };
        let mut report = if self.dry_run { Report::default() } else { close(&place)? };
        let (scope, nothing) = (numbers::gateway_scope(), State::default());
        // No originals: the settings of a pod's namespace are nobody else's, and die with it.
        let rest = kernel::reconcile(&place, &scope, &nothing, &mut BTreeMap::new(), self.dry_run)
            .map_err(|e| NodeError::Observe(e.to_string()))?;
        report.done.extend(rest.done);
        report.failed.extend(rest.failed);
        Ok(Some(Report { unchanged: rest.unchanged, pending: rest.pending, ..report }))
    }
}
