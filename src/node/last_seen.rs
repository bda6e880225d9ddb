//! What a pod's object last said, kept with its attachment.
//!
//! In: a view with the pod's object, or without. Out: the pod as it is to be judged. Never: outlives the attachment.
//!
//! An object may go before its pod does: somebody deletes it by force, and the pod's processes go on for as long as their grace
//! period lasts, or for ever. Judged as one without labels and annotations, a client would be let go while it sends; and judged by the
//! object of the next pod of its name, it would be let go or moved as soon as that is made.

use std::collections::BTreeSet;

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
    /// The UID of the object that said so, where it is not the attachment's: an object that was behind at the pod's ADD and is believed
    /// until its own comes, or the one of a pod whose runtime names no UID.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
}

impl LastSeen {
    fn of(pod: &Pod, attachment: &Attachment) -> LastSeen {
        let ours = pod.annotations.iter().filter(|(key, _)| is_ours(key));
        LastSeen {
            labels: pod.labels.clone(),
            annotations: ours.map(|(key, value)| (key.clone(), value.clone())).collect(),
            by: pod.uid.clone().filter(|uid| attachment.uid.as_ref() != Some(uid)),
        }
    }

    /// Whether nothing was said.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.annotations.is_empty() && self.by.is_none()
    }
}

/// Takes their pod from attachments that outlived it: the object of its name is another pod's by now, whose words are not about them. Gives
/// what names them. To be asked before anything is laid over the view.
pub fn outlived(view: &View, attachments: &mut [Attachment]) -> BTreeSet<String> {
    let outlived = attachments.iter_mut().filter(|attachment| is_anothers(view, attachment));
    let nameless = |attachment: &mut Attachment| {
        attachment.pod = None;
        attachment.id().to_string()
    };
    outlived.map(nameless).collect()
}

/// Whether the object of a pod's name is not its own. Where either has no UID, nobody can tell.
fn is_anothers(view: &View, attachment: &Attachment) -> bool {
    let object = attachment.pod.as_ref().and_then(|name| view.pods.get(name));
    let Some(object) = object.filter(|object| object.uid.is_some()) else { return false };
    let mut own = attachment.uid.iter().chain(&attachment.last.by).peekable();
    own.peek().is_some() && !own.any(|own| object.ids().any(|id| id == own))
}

/// Lays what the runtime passed at ADD over the pod's annotations, unless its object was annotated anew since. Where its object is
/// gone, the pod is what it was. Gives what an object that is there says.
pub fn overlay(view: &mut View, attachment: &Attachment) -> Option<LastSeen> {
    let name = attachment.pod.as_ref()?;
    let known = view.pods.get(name);
    let newer = known.is_some_and(|pod| annotations_fingerprint(&pod.annotations) != attachment.seen);
    if known.is_none() && !attachment.gateway && !attachment.last.is_empty() {
        let LastSeen { labels, annotations, by } = attachment.last.clone();
        let pod = Pod { uid: attachment.uid.clone().or(by), labels, annotations, ..Pod::default() };
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
    known.then(|| LastSeen::of(pod, attachment))
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

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::egress::model::{PodName, STATIC_POD_UID};

    /// Whether an attachment's object, with this UID and file, is another pod's.
    fn is_anothers(own: Value, by: Value, (uid, file): (Option<&str>, &str)) -> bool {
        let attachment = json!({"network": "pods", "containerId": "c1", "ifname": "eth0", "netns": "/run/netns/c1", "dev": 4, "inode": 9,
            "pod": "shop/db-0", "uid": own, "addresses": [], "last": {"by": by}});
        let annotations = Pairs::from([(STATIC_POD_UID.to_owned(), file.to_owned())]);
        let pod = Pod { uid: uid.map(str::to_owned), annotations, ..Pod::default() };
        let view = View { pods: [(PodName::new("shop", "db-0"), pod)].into(), ..View::default() };
        let mut attachments = [serde_json::from_value::<Attachment>(attachment).unwrap()];
        let found = !outlived(&view, &mut attachments).is_empty();
        assert_eq!(attachments[0].pod.is_none(), found);
        found
    }

    #[test]
    fn an_object_with_another_uid_is_another_pods() {
        assert!(is_anothers(json!("u1"), json!(null), (Some("u2"), "")));
        assert!(!is_anothers(json!("u1"), json!(null), (Some("u1"), "")));
    }

    #[test]
    fn a_static_pods_object_has_a_uid_of_its_own_and_names_the_one_of_its_file() {
        assert!(!is_anothers(json!("file"), json!(null), (Some("mirror"), "file")));
        assert!(is_anothers(json!("file"), json!(null), (Some("mirror"), "another")));
    }

    #[test]
    fn without_a_uid_nobody_can_tell() {
        assert!(!is_anothers(json!(null), json!(null), (Some("u1"), "")));
        assert!(!is_anothers(json!("u1"), json!(null), (None, "")));
    }

    #[test]
    fn an_object_that_was_behind_at_add_is_believed_until_the_pods_own_comes() {
        assert!(!is_anothers(json!("u2"), json!("u1"), (Some("u1"), "")));
        assert!(!is_anothers(json!("u2"), json!("u1"), (Some("u2"), "")));
        assert!(is_anothers(json!("u2"), json!("u1"), (Some("u3"), "")));
    }
}
