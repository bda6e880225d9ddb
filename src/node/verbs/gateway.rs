//! ADD of a gateway: leases, wiring, and only then a word to the cluster.
//!
//! In: what the pod is, and what was claimed for it. Out: a gateway that serves, or nothing of one. Never: tells of a gateway that does not
//! serve yet.

use std::sync::Arc;

use super::{Asking, refused};
use crate::cni::reply::{CniError, Code};
use crate::egress::gateway;
use crate::egress::model::{Endpoint, PodName};
use crate::fault;
use crate::node::ahead::Ahead;
use crate::node::attachment::AttachmentId;
use crate::node::embedded::Embedded;
use crate::node::first::Early;
use crate::node::gateways::GATEWAY_UNREACHABLE;
use crate::node::ground::Ground;
use crate::node::lease::Leased;
use crate::node::situation::{Situation, resolved};
use crate::node::update::Thoroughness;

impl Embedded {
    /// Leases, wires the pod and the node, and only then lets the cluster know.
    pub(super) fn add_gateway(&self, asking: &Asking, ahead: Option<&Ahead>) -> Result<(), CniError> {
        let id = asking.attachment.id();
        let mut early = self.is_bare().then(|| {
            let gateway = self.kept.is_some().then_some(asking.attachment.netns.as_path());
            Early::start(gateway)
        });
        let mut situation = self.situation_of(asking.objects_now(self)?)?;
        let name = asking.attachment.pod.clone().unwrap_or_default();
        let wish = gateway::wanted(&situation.view, &name, &self.name)
            .map_err(|problem| refused(&asking.objects.placed(problem)))?
            .ok_or_else(|| {
                CniError::new(Code::TryAgainLater, format!("pod {name} stopped asking to be a gateway"))
            })?;
        let lease =
            |ground: Option<&_>| self.lease(&situation.view, &asking.attachment, &wish, ahead, ground);
        let (leased, ground) =
            self.while_laying(&situation, (&wish, &asking.attachment), early.as_mut(), lease);
        let leased = leased?;
        let _waiting = early.map(Early::finish);
        let wired = self.wire_gateway(&mut situation, &leased, &id, ground.as_ref());
        if wired.is_err() {
            self.give_back(&leased, &id);
        }
        wired
    }

    fn wire_gateway(
        &self,
        situation: &mut Situation,
        leased: &Leased,
        id: &AttachmentId,
        ground: Option<&Ground>,
    ) -> Result<(), CniError> {
        let stays = |e: &Endpoint| e.attachment != leased.endpoint.attachment && !leased.supersedes(e);
        let view = Arc::make_mut(&mut situation.view);
        view.endpoints.retain(stays);
        view.endpoints.push(leased.endpoint.clone());
        let pods: Vec<PodName> = situation.attachments.iter().filter_map(|a| a.pod.clone()).collect();
        situation.resolution = resolved(&situation.view, pods);
        let asleep = [id.to_string()];
        let outcome = self.update_upon(ground, situation, Thoroughness::Quick, &asleep)?.check()?;
        let object = format!("Attachment {id}");
        if let Some(problem) =
            outcome.problems.iter().find(|p| p.reason == GATEWAY_UNREACHABLE && p.object == object)
        {
            return Err(CniError::new(Code::WiringFailed, problem.to_string()));
        }
        fault::point("add.after-wiring");
        self.publish(leased)?;
        fault::point("add.after-endpoint");
        self.finish(outcome)
    }
}
