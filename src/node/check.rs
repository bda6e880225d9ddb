//! CHECK: whether the kernel still holds what was last applied for one attachment.
//!
//! In: an attachment. Out: nothing, or the steps that would mend it. Never: changes anything, or answers for other pods: their
//! broken gateways are their own CHECK's affair. A plan that is newer than the one applied is no difference.

use std::collections::{BTreeMap, BTreeSet};

use crate::cni::reply::{CniError, Code};
use crate::egress::gateway_state::gateway_state;
use crate::egress::lower::{Belts, node_state};
use crate::egress::numbers;
use crate::egress::plan::NodePlan;
use crate::egress::transition::binds;
use crate::kernel::netns::Netns;
use crate::kernel::state::{Scope, State};
use crate::kernel::{self, Place, Step, step};
use crate::node::attachment::{Attachment, AttachmentId};
use crate::node::embedded::{Embedded, NodeError};
use crate::node::passage::{bypass, unbound};

impl Embedded {
    /// Compares the kernel with the plan last applied, as far as it concerns this attachment.
    ///
    /// # Errors
    /// 103 with the steps that would mend it.
    pub fn compare(&self, id: &AttachmentId) -> Result<(), CniError> {
        let has_no_part = |record: Option<&Attachment>| {
            record.is_none_or(|record| record.host_interface.is_none())
                && !self.memory.may_concern(id).unwrap_or(false)
        };
        // Whatever somebody does to the kernel now, or under whichever name, it is not about a pod that nothing selects.
        if has_no_part(self.records.read(id).ok().flatten().as_ref()) {
            return Ok(());
        }
        // Whoever works on the kernel now would be seen half way.
        let _guard = self.lock(&format!("CHECK {id}"))?;
        let record = self.records.read(id).ok().flatten();
        let applied = match self.memory.applied() {
            Some(applied) => applied,
            None if record.is_some_and(|record| record.host_interface.is_some()) => {
                let msg = "this node's plan is lost or torn; `egret reconcile` makes it anew";
                return Err(CniError::new(Code::CheckDifference, msg));
            }
            None => return Ok(()),
        };
        let (whole, name) = (&applied.plan, id.to_string());
        if !whole.concerns(&name) {
            return Ok(());
        }
        let belts = Belts::of_this_build();
        let node_ns = self.netns()?;
        if binds(whole, &name) {
            still_passes(&node_ns, record.as_ref(), whole)?;
        }
        let place = Place::node(&node_ns);
        let (whole_state, part) = (node_state(whole, belts), node_state(&part_of(whole, &name), belts));
        let mut steps = difference(&place, &numbers::node_scope(), &part, &whole_state)?;
        if let Some(gateway) = whole.locals.get(&name) {
            let path = record.map(|record| record.netns).unwrap_or_default();
            let here = Netns::open(&path).map_err(NodeError::from)?;
            let place = Place { here: &here, home: &node_ns };
            let desired = gateway_state(whole, gateway, belts);
            steps.extend(difference(&place, &numbers::gateway_scope(), &desired, &desired)?);
        }
        match steps.len() {
            0 => Ok(()),
            count => {
                let lacking = step::in_short(&steps);
                let steps = if count == 1 { "1 step is".to_owned() } else { format!("{count} steps are") };
                let msg = format!(
                    "{steps} missing between this node's kernel and its plan for this pod; `egret reconcile` takes what is missing"
                );
                Err(CniError::new(Code::CheckDifference, msg).details(lacking))
            }
        }
    }
}

/// Whether a client's packets still come here, from every address it has.
fn still_passes(node_ns: &Netns, record: Option<&Attachment>, plan: &NodePlan) -> Result<(), CniError> {
    let Some(record) = record else { return Ok(()) };
    let pod = Netns::open(&record.netns).map_err(NodeError::from)?;
    let device = (record.ifname.as_str(), record.host_interface.as_deref());
    let why = match bypass(node_ns, &pod, device, &record.addresses)? {
        None => unbound(&pod, &record.ifname, plan)?,
        why => why,
    };
    match why {
        None => Ok(()),
        Some(why) => Err(CniError::new(Code::TrafficBypassesNode, why)),
    }
}

/// The plan as if this attachment were the only one: as a client its addresses, its binding, and the gateways that the binding
/// leads to; as a gateway its own veth. What all pods share stays: the tunnel, the nodes, the inside ranges.
fn part_of(whole: &NodePlan, attachment: &str) -> NodePlan {
    let mut part = whole.clone();
    part.clients.retain(|_, client| client.attachment == attachment);
    part.sweep();
    let led_to: BTreeSet<&str> = part.gateways.values().map(|gateway| gateway.attachment.as_str()).collect();
    part.locals.retain(|name, _| name == attachment || led_to.contains(name.as_str()));
    part
}

fn difference(place: &Place<'_>, scope: &Scope, part: &State, whole: &State) -> Result<Vec<Step>, NodeError> {
    let keys = part.sysctls.keys().map(String::as_str);
    let observed = kernel::observe(place, scope, keys).map_err(|e| NodeError::Observe(e.to_string()))?;
    Ok(kernel::steps(&observed.confined(part, whole), whole, &BTreeMap::new()))
}
