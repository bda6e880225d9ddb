//! Whether what is known is new enough for an ADD: an annotation or a policy that was there before the pod was made must be obeyed.
//!
//! In: a request, the mirror. Out: the mirror and its copy, provably newer than the pod; or a sentence. Never: asks twice for what
//! one answer tells: whatever was asked for after a pod was seen tells of everything before it, so a hundred pods of a namespace that start
//! together need one round of questions, or a few.
//!
//! Questions begin when the watch tells of a new pod: the kubelet has yet to make its sandbox, so at its ADD the answers are
//! there, and nobody waits for the API server. An ADD that comes first waits for that round; it asks nothing itself. Each subject is asked for
//! by a thread of its own, once at a time: a server that lets one question wait delays only who waits for that answer.

mod known;

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::Cluster;
use super::copy::Look;
use crate::cni::reply::{CniError, Code};
use crate::cni::request::Request;
use crate::egress::model::PodName;
use crate::kube::mirror::{Mirror, ids};
use crate::kube::{ApiError, Reach, Watched, foreign};
use crate::node::standing::EXEMPT;
use known::{Known, Refusal, Subject};

/// A pod that has run, and is known for longer than any watch lags, may start while the API server is away: its sandbox is made again.
const LONG_KNOWN: Duration = Duration::from_secs(10);
/// The kubelet heard of the pod by a watch, so ours is about to: that is waited for before anybody asks.
const WATCH: Duration = Duration::from_secs(1);
/// How long an ADD waits for an answer; a request is given up before.
const PATIENCE: Duration = Duration::from_secs(25);
/// Policies in one answer.
const PAGE: usize = 500;

/// What is known since when.
#[derive(Debug, Default)]
pub(super) struct Fresh {
    known: Mutex<Known>,
    news: Condvar,
}

/// How an ADD came to know enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    /// Everything had been asked for since the pod was made.
    Known,
    /// It waited for an answer.
    Answer,
    /// The pod is known for long, and nobody answers.
    Memory,
}

impl Fresh {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&'a self, known: MutexGuard<'a, Known>, patience: Duration) -> MutexGuard<'a, Known> {
        self.news.wait_timeout(known, patience).unwrap_or_else(PoisonError::into_inner).0
    }
}

impl Cluster {
    pub(super) fn make_fresh(&self, request: &Request) -> Result<(), CniError> {
        let Some(pod) = &request.pod else { return Ok(()) };
        if EXEMPT.contains(&pod.namespace.as_str()) {
            return self.copied();
        }
        let came = Instant::now();
        let uid = request.pod_uid.clone().unwrap_or_default();
        self.hear_of(pod, &uid)?;
        let seen = if uid.is_empty() { came } else { self.fresh.known().first_seen(&uid, came) };
        let by = self.newer_than(pod, seen, came);
        self.metrics.add("egret_cni_freshness_total", &[by.as_ref().map_or("none", |by| by.word())], 1);
        by?;
        self.copied()
    }

    fn copied(&self) -> Result<(), CniError> {
        self.copy(Look::Glance).map_err(|error| CniError::new(Code::TryAgainLater, error))
    }

    /// Waits until the mirror has this very pod: any version of it is newer than its making.
    fn hear_of(&self, pod: &PodName, uid: &str) -> Result<(), CniError> {
        let until = Instant::now() + WATCH;
        let mut known = self.fresh.known();
        while !self.is_known(pod, uid) {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                drop(known);
                return self.ask_pod(pod, uid);
            }
            known = self.fresh.wait(known, left.min(Duration::from_millis(50)));
        }
        Ok(())
    }

    fn is_known(&self, pod: &PodName, uid: &str) -> bool {
        let mirror = self.mirror();
        mirror.generation(Watched::Pods) > 0 && is_remembered(&mirror, pod, uid)
    }

    fn ask_pod(&self, pod: &PodName, uid: &str) -> Result<(), CniError> {
        let path = format!("/api/v1/namespaces/{}/pods/{}", pod.namespace, pod.name);
        let later = |why: String| CniError::new(Code::TryAgainLater, format!("{why}; it is tried again"));
        self.metrics.add("egret_kube_fresh_reads_total", &["pod"], 1);
        match self.client.get(&path) {
            Ok(object) if is_of(&object, uid) => {
                self.mirror().learn(Watched::Pods, &object);
                Ok(())
            }
            Ok(object) => {
                let found = object["metadata"]["uid"].as_str().unwrap_or_default();
                Err(later(format!("pod {pod} is another one by now (UID {found}, not {uid})")))
            }
            Err(error) if error.is_absent() => Err(later(format!("there is no pod {pod} in the cluster"))),
            // Its sandbox is made again, and what an earlier agent knew of it is on disk.
            Err(error) if error.is_away() && is_remembered(&self.mirror(), pod, uid) => Ok(()),
            Err(error) => Err(later(format!("nothing is known of pod {pod} yet, and {error}"))),
        }
    }

    /// Waits until namespace and policies were asked for after the pod was made.
    fn newer_than(&self, pod: &PodName, seen: Instant, came: Instant) -> Result<By, CniError> {
        let mut known = self.fresh.known();
        if known.is_newer(&pod.namespace, seen) && self.may_be_copied() {
            return Ok(By::Known);
        }
        known.want(&pod.namespace, seen);
        self.fresh.news.notify_all();
        let mut refusal = None;
        while refusal.is_none() && came.elapsed() < PATIENCE {
            let copied = self.may_be_copied();
            if known.is_newer(&pod.namespace, seen) && copied {
                return Ok(By::Answer);
            }
            let pause = if copied { PATIENCE } else { Duration::from_millis(20) };
            known = self.fresh.wait(known, pause.min(PATIENCE.saturating_sub(came.elapsed())));
            refusal = known.refusal(&pod.namespace, came);
        }
        drop(known);
        let refusal = refusal.unwrap_or_else(|| Refusal {
            sentence: format!("the API server has not answered within {} s", PATIENCE.as_secs()),
            is_away: true,
        });
        self.stale(pod, seen, &refusal)
    }

    /// Whether answers come to the disk, from where the verb reads them: not of kinds of which less is known than lies there.
    fn may_be_copied(&self) -> bool {
        let foreign = !self.to_adopt().is_empty();
        let mirror = self.mirror();
        let decides = |kind: &Watched| kind.is_read() || foreign && kind.is_foreign();
        Watched::of_a_node().filter(decides).all(|kind| mirror.is_whole_or_lost(kind))
    }

    /// Nobody answered: what is known counts only for a pod that is known for long.
    fn stale(&self, pod: &PodName, seen: Instant, refusal: &Refusal) -> Result<By, CniError> {
        let known = {
            let mirror = self.mirror();
            // One that never started may have been selected by the last thing that nobody heard before the server went.
            mirror.object(Watched::Namespaces, &pod.namespace).is_some()
                && mirror.object(Watched::Pods, &pod.to_string()).is_some_and(has_run)
        };
        if known && refusal.is_away && seen.elapsed() > LONG_KNOWN {
            tracing::info!(%pod, "started by what was known before the API server went away");
            return Ok(By::Memory);
        }
        let msg = format!(
            "nobody can say whether namespace {} was annotated, or a policy made, before pod {pod} was: {}; it is tried again",
            pod.namespace, refusal.sentence
        );
        Err(CniError::new(Code::TryAgainLater, msg))
    }

    /// Every pod of the mirror was made before now; for one that is about to start, questions are asked at once.
    pub(super) fn see_pods(&self) {
        let pods: Vec<(String, String, bool)> = {
            let mirror = self.mirror();
            let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let row = |(_, object): (&str, &Value)| {
                let metadata = &object["metadata"];
                (word(&metadata["uid"]), word(&metadata["namespace"]), starts(object))
            };
            mirror.objects(Watched::Pods).map(row).collect()
        };
        let now = Instant::now();
        let mut known = self.fresh.known();
        for (uid, namespace, starts) in pods {
            if !known.pods.contains_key(&uid) {
                known.first_seen(&uid, now);
                if starts {
                    known.want(&namespace, now);
                }
            }
        }
        drop(known);
        self.fresh.news.notify_all();
    }

    /// Asks what is wanted, for as long as the process lives.
    pub(super) fn ask(self: &Arc<Cluster>) -> ! {
        loop {
            let subject = {
                let mut known = self.fresh.known();
                loop {
                    match known.take() {
                        Some(subject) => break subject,
                        None => known = self.fresh.wait(known, Duration::from_secs(60)),
                    }
                }
            };
            let (own, of) = (self.clone(), subject.clone());
            // It parses JSON and speaks TLS, no more.
            let thread = thread::Builder::new().name("question".to_owned()).stack_size(256 << 10);
            if let Err(error) = thread.spawn(move || own.answer(of)) {
                tracing::debug!(%error, "no thread for a question; asked here");
                self.answer(subject);
            }
        }
    }

    fn answer(&self, subject: Subject) {
        let began = Instant::now();
        let answer = self.read(&subject);
        let mut known = self.fresh.known();
        known.asking.remove(&subject);
        match answer {
            Ok(()) => known.note(subject, began),
            Err(error) => {
                let refusal = Refusal { is_away: error.is_away(), sentence: error.to_string() };
                known.note_failure(subject, began, refusal);
            }
        }
        drop(known);
        self.fresh.news.notify_all();
    }

    /// Reads it as it is now, and not as a cache of the server has it.
    fn read(&self, subject: &Subject) -> Result<(), ApiError> {
        match subject {
            Subject::Namespace(name) => {
                self.metrics.add("egret_kube_fresh_reads_total", &["namespace"], 1);
                let object = self.client.get(&format!("/api/v1/namespaces/{name}"))?;
                self.learn(Watched::Namespaces, &object);
            }
            Subject::Policies => {
                self.metrics.add("egret_kube_fresh_reads_total", &["policies"], 1);
                let adopted = self.to_adopt();
                let is_adopted = |kind: &Watched| foreign::of(*kind).is_some_and(|of| adopted.contains(&of));
                for kind in
                    Watched::POLICIES.into_iter().filter(|kind| !kind.is_foreign() || is_adopted(kind))
                {
                    self.read_policies(kind)?;
                }
            }
        }
        Ok(())
    }

    fn read_policies(&self, kind: Watched) -> Result<(), ApiError> {
        let mut next = String::new();
        loop {
            let path = kind.path(&Reach::Cluster);
            let list = match self.client.get(&format!("{path}limit={PAGE}&continue={next}")) {
                // Nothing newer than what stays in force can be there.
                Err(error) if error.is_absent() => return Ok(()),
                list => list?,
            };
            for object in list["items"].as_array().into_iter().flatten() {
                self.learn(kind, object);
            }
            match list["metadata"]["continue"].as_str() {
                Some(token) if !token.is_empty() => token.clone_into(&mut next),
                _ => return Ok(()),
            }
        }
    }

    fn learn(&self, kind: Watched, object: &Value) {
        let news = self.mirror().learn(kind, object);
        if news {
            let _ = self.bell.try_send(()); // full: it rings already
        }
    }
}

impl By {
    fn word(self) -> &'static str {
        match self {
            By::Known => "known",
            By::Answer => "answer",
            By::Memory => "memory",
        }
    }
}

/// By this agent or an earlier one.
fn is_remembered(mirror: &Mirror, pod: &PodName, uid: &str) -> bool {
    mirror.object(Watched::Pods, &pod.to_string()).is_some_and(|object| is_of(object, uid))
}

/// A static pod's UID is that of its file; its mirror pod has another.
fn is_of(object: &Value, uid: &str) -> bool {
    uid.is_empty() || ids(object).any(|id| id == uid)
}

/// Whether it had a sandbox before.
fn has_run(pod: &Value) -> bool {
    pod["status"]["phase"] != "Pending" || pod["status"]["podIP"].as_str().is_some_and(|ip| !ip.is_empty())
}

/// Whether its sandbox is to be made, and by us.
fn starts(pod: &Value) -> bool {
    let namespace = pod["metadata"]["namespace"].as_str().unwrap_or_default();
    pod["status"]["phase"] == "Pending" && pod["spec"]["hostNetwork"] != true && !EXEMPT.contains(&namespace)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_static_pod_is_known_by_its_file() {
        let mirror = serde_json::json!({"metadata": {"uid": "u", "annotations": {"kubernetes.io/config.hash": "file"}}});
        assert!(
            is_of(&mirror, "u") && is_of(&mirror, "file") && is_of(&mirror, "") && !is_of(&mirror, "other")
        );
    }
}
