//! A pod that becomes a client while it runs: nobody looked at its interface when it was added.
//!
//! In: the situation, and the plan before. Out: the situation with what such pods' interfaces have now, and their records with it. Never: fails
//! the call, whose own pod may be another one; believes the pod.
//!
//! At ADD the primary plugin alone has had its hands on the interface. By now the pod's processes may have written any address there, a
//! neighbour's or a gateway's, and clients are known by their address alone: whoever has it would be sent where this pod goes. So one counts
//! only if no other pod has it on record, and the node's own routes lead to it by this interface: else no answer could come there either. Its
//! subnet does not count at all, because what is inside is so for every pod of the node.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::egress::model::Role;
use crate::egress::plan::NodePlan;
use crate::egress::transition::bound;
use crate::kernel::devices::{End, interface_of, led_to};
use crate::kernel::netns::Netns;
use crate::node::attachment::Attachment;
use crate::node::embedded::Embedded;
use crate::node::facts::is_routable;
use crate::node::situation::Situation;

/// Further addresses of one pod. A pod that writes more there does not make the node's plan as long as it likes; the rest is named.
const MOST: usize = 64;

impl Embedded {
    /// Looks at the interfaces of pods that are clients now and were none in the plan before. `asleep`: the call's own, which were looked at.
    pub(super) fn meet_late<'a>(
        &self,
        situation: &'a Situation,
        before: Option<&NodePlan>,
        asleep: &[String],
    ) -> Cow<'a, Situation> {
        let is_client = |attachment: &Attachment| {
            let decision = attachment.pod.as_ref().and_then(|pod| situation.resolution.decisions.get(pod));
            decision.is_some_and(|decision| decision.role == Role::Client)
        };
        let is_late = |attachment: &Attachment| {
            let was = |ip| before.and_then(|plan| bound(plan, ip));
            let was = |ip: &IpAddr| was(*ip).is_some_and(|was| attachment.is_named(&was.attachment));
            !attachment.addresses.iter().any(was) && !asleep.iter().any(|name| attachment.is_named(name))
        };
        let is_late = |attachment: &Attachment| is_client(attachment) && is_late(attachment);
        let late = |number: &usize| is_late(&situation.attachments[*number]);
        let late: Vec<usize> = (0..situation.attachments.len()).filter(late).collect();
        let mut met = Cow::Borrowed(situation);
        if late.is_empty() {
            return met;
        }
        let mut taken: BTreeSet<IpAddr> =
            situation.attachments.iter().flat_map(|attachment| &attachment.addresses).copied().collect();
        taken.extend(before.iter().flat_map(|plan| plan.clients.keys()));
        for number in late {
            let attachment = &situation.attachments[number];
            let Some((end, more)) = self.look_at(attachment, &taken) else { continue };
            if more.is_empty() && attachment.host_end().as_ref() == Some(&end) {
                continue;
            }
            let learn = |known: &mut Attachment| {
                known.addresses.extend(&more);
                known.is_wired_by(end.clone());
            };
            let id = attachment.id();
            if !self.dry_run
                && let Err(error) = self.records.revise(&id, learn)
            {
                tracing::warn!(%error, %id, "this pod's interface is not on record");
            }
            learn(&mut met.to_mut().attachments[number]);
            taken.extend(&more);
        }
        met
    }

    /// The node's end of an interface, and addresses of it that are not on record and nobody else's. Nothing where it cannot be entered, or
    /// has no other end here.
    fn look_at(&self, attachment: &Attachment, taken: &BTreeSet<IpAddr>) -> Option<(End, Vec<IpAddr>)> {
        let (node_ns, pod) = (self.netns().ok()?, Netns::open(&attachment.netns).ok()?);
        let found = interface_of(&node_ns, &pod, &attachment.ifname).ok()??;
        let end = found.peer?;
        let unknown = found.addresses.into_iter().map(|(ip, _)| ip);
        let mut more: Vec<IpAddr> = unknown.filter(|ip| is_routable(ip) && !taken.contains(ip)).collect();
        more.truncate(MOST);
        more = led_to(&node_ns, &end, more).ok()?;
        Some((end, more))
    }
}
