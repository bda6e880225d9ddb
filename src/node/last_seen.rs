//! What a pod's object last said, kept with its attachment.
//!
//! In: a view with the pod's object, or without. Out: the pod as it is to be judged. Never: outlives the attachment.
//!
//! An object may go before its pod does: somebody deletes it by force, and the pod's processes go on for as long as their grace
//! period lasts, or for ever. Judged as one without labels and annotations, a client would be let go while it sends.

use serde::{Deserialize, Serialize};

use crate::egress::annotations::is_ours;
use crate::egress::model::{Pairs, Pod, View};
use crate::node::attachment::Attachment;
use crate::node::embedded::Embedded;
use crate::node::situation::annotations_fingerprint;

/// What selects a pod.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastSeen {
    /// Its labels.
    #[serde(default, skip_serializing_if = "Pairs::is_empty")]
    pub labels: Pairs,
    /// Its annotations, as far as egress reads them, with those that the runtime passed.
    #[serde(default, skip_serializing_if = "Pairs::is_empty")]
    pub annotations: Pairs,
}

impl LastSeen {
    fn of(pod: &Pod) -> LastSeen {
        let ours = pod.annotations.iter().filter(|(key, _)| is_ours(key));
        LastSeen {
            labels: pod.labels.clone(),
            annotations: ours.map(|(key, value)| (key.clone(), value.clone())).collect(),
        }
    }

    /// Whether nothing was said.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.annotations.is_empty()
    }
}

/// Lays what the runtime passed at ADD over the pod's annotations, unless its object was annotated anew since. Where its object is
/// gone, the pod is what it was. Gives what an object that is there says.
pub fn overlay(view: &mut View, attachment: &Attachment) -> Option<LastSeen> {
    let name = attachment.pod.as_ref()?;
    let known = view.pods.get(name);
    let newer = known.is_some_and(|pod| annotations_fingerprint(&pod.annotations) != attachment.seen);
    if known.is_none() && !attachment.gateway && !attachment.last.is_empty() {
        let LastSeen { labels, annotations } = attachment.last.clone();
        let pod = Pod { uid: attachment.uid.clone(), labels, annotations, ..Pod::default() };
        view.pods.insert(name.clone(), pod);
        return None;
    }
    let (known, passed) = (known.is_some(), attachment.annotations.as_ref().filter(|_| !newer));
    if !known && passed.is_none() {
        return None;
    }
    let pod = view.pods.entry(name.clone()).or_default();
    if let Some(passed) = passed {
        pod.annotations.extend(passed.iter().map(|(key, value)| (key.clone(), value.clone())));
        if pod.uid.is_none() {
            pod.uid.clone_from(&attachment.uid);
        }
    }
    known.then(|| LastSeen::of(pod))
}

impl Embedded {
    /// Keeps what an object says, if it says something else than before.
    pub(super) fn remember_object(&self, attachment: &Attachment, said: Option<LastSeen>) {
        let Some(said) = said.filter(|said| *said != attachment.last && !self.dry_run) else { return };
        let id = attachment.id();
        if let Err(error) = self.records.revise(&id, |record| record.last = said) {
            tracing::warn!(%error, %id, "should this pod's object go before the pod, it is not known what selected it");
        }
    }
}
