//! What was heard of pods and asked for their sake, and when. Pure: time is an argument.
//!
//! In: moments at which pods were seen, questions begun, answered or refused. Out: what is newer than a pod, what is to be asked
//! next. Never: asks.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

/// So many pods and namespaces are remembered; who is forgotten is asked for again.
const MOST: usize = 4096;
/// So many questions wait for answers at once; further ones begin when one of those has ended.
const AT_ONCE: usize = 16;
/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Subject {
    Namespace(String),
    Policies,
}

/// What was heard and asked, and when.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// Pods by UID: when they were first heard of. They were made before.
    pub(super) pods: BTreeMap<String, Instant>,
    /// When the last request that was answered began.
    asked: BTreeMap<Subject, Instant>,
    /// What somebody waits for, or will.
    pub(super) wanted: BTreeSet<Subject>,
    /// What is being asked for.
    pub(super) asking: BTreeSet<Subject>,
    /// When the last request that was not answered began, and why it was not.
    failed: BTreeMap<Subject, (Instant, Refusal)>,
}

/// Why nobody answered.
#[derive(Debug, Clone)]
pub(super) struct Refusal {
    pub(super) sentence: String,
    /// Nobody was there; else the server said no.
    pub(super) is_away: bool,
}

impl Known {
    pub(super) fn is_newer(&self, namespace: &str, seen: Instant) -> bool {
        let since = |subject: &Subject| self.asked.get(subject).is_some_and(|asked| *asked >= seen);
        since(&Subject::Policies) && since(&Subject::Namespace(namespace.to_owned()))
    }

    pub(super) fn want(&mut self, namespace: &str, seen: Instant) {
        for subject in [Subject::Policies, Subject::Namespace(namespace.to_owned())] {
            if self.asked.get(&subject).is_none_or(|asked| *asked < seen) {
                self.wanted.insert(subject);
            }
        }
    }

    pub(super) fn first_seen(&mut self, uid: &str, now: Instant) -> Instant {
        if self.pods.len() >= MOST {
            self.pods.clear();
        }
        *self.pods.entry(uid.to_owned()).or_insert(now)
    }

    pub(super) fn note(&mut self, subject: Subject, began: Instant) {
        if self.asked.len() >= MOST {
            self.asked.clear();
        }
        self.failed.remove(&subject);
        self.asked.insert(subject, began);
    }

    pub(super) fn note_failure(&mut self, subject: Subject, began: Instant, refusal: Refusal) {
        if self.failed.len() >= MOST {
            self.failed.clear();
        }
        self.failed.insert(subject, (began, refusal));
    }

    /// Why nobody has answered since then what a pod of this namespace waits for.
    pub(super) fn refusal(&self, namespace: &str, since: Instant) -> Option<Refusal> {
        let of = |subject: &Subject| self.failed.get(subject).filter(|(began, _)| *began >= since);
        let found = of(&Subject::Policies).or_else(|| of(&Subject::Namespace(namespace.to_owned())));
        found.map(|(_, refusal)| refusal.clone())
    }

    /// What may be asked for now. Of one subject a question at a time: what began before a pod was seen says nothing of it, and what
    /// follows tells of all that waited meanwhile.
    pub(super) fn take(&mut self) -> Option<Subject> {
        if self.asking.len() >= AT_ONCE {
            return None;
        }
        let subject = self.wanted.iter().find(|subject| !self.asking.contains(*subject)).cloned()?;
        self.wanted.remove(&subject);
        self.asking.insert(subject.clone());
        Some(subject)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_was_asked_for_after_a_pod_was_seen_is_newer_than_the_pod_and_serves_all_before() {
        let mut known = Known::default();
        let at = |millis: u64| Instant::now() + Duration::from_millis(millis);
        let (first, asked, second) = (at(0), at(10), at(20));
        assert_eq!(known.first_seen("a", first), first);
        assert_eq!(known.first_seen("a", second), first, "it was made before it was first heard of");
        known.want("shop", first);
        assert_eq!(known.wanted.len(), 2);
        known.wanted.clear();
        known.note(Subject::Policies, asked);
        assert!(!known.is_newer("shop", first), "the namespace may have been annotated meanwhile");
        known.note(Subject::Namespace("shop".to_owned()), asked);
        assert!(known.is_newer("shop", first) && !known.is_newer("shop", second));
        known.want("shop", first);
        assert!(known.wanted.is_empty(), "one answer serves all pods before it");
    }

    #[test]
    fn of_one_subject_one_question_waits_and_a_question_that_hangs_stops_no_other() {
        let mut known = Known::default();
        let now = Instant::now();
        known.want("shop", now);
        assert_eq!(known.take(), Some(Subject::Namespace("shop".to_owned())));
        assert_eq!(known.take(), Some(Subject::Policies));
        known.want("shop", now);
        known.want("bank", now);
        assert_eq!(known.take(), Some(Subject::Namespace("bank".to_owned())), "and nothing twice");
        assert_eq!(
            (known.take(), known.wanted.len()),
            (None, 2),
            "they are asked for again when those have ended"
        );
        let refusal = Refusal { sentence: "silence".to_owned(), is_away: true };
        known.note_failure(Subject::Namespace("shop".to_owned()), now, refusal);
        assert!(known.refusal("shop", now).is_some() && known.refusal("bank", now).is_none());
        for n in 0..2 * AT_ONCE {
            known.want(&format!("n{n}"), now);
        }
        while known.take().is_some() {}
        assert_eq!(known.asking.len(), AT_ONCE);
    }
}
