//! Whether what is known is new enough for an ADD: an annotation that was there before the pod was made must be obeyed.
//!
//! In: a request, the mirror. Out: the mirror and its copy, provably newer than the pod; or a sentence. Never: asks twice for what
//! one answer tells: whatever was asked for after a pod was seen tells of everything before it, so a hundred pods of a namespace that start
//! together need one request, or a few.

use std::collections::BTreeMap;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use super::Cluster;
use crate::cni::reply::{CniError, Code};
use crate::cni::request::Request;
use crate::egress::model::PodName;
use crate::kube::{ApiError, Watched};
use crate::node::standing::EXEMPT;

/// A pod that is known for longer than any watch lags may start while the API server is away: its sandbox is made again.
const LONG_KNOWN: Duration = Duration::from_secs(10);
/// So many pods and namespaces are remembered; who is forgotten is asked for again.
const MOST: usize = 4096;

/// When what was known.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// Pods by UID: when they were first heard of. They were made before.
    pods: BTreeMap<String, Instant>,
    /// Namespaces: when the last request that was answered began.
    namespaces: BTreeMap<String, Instant>,
}

impl Cluster {
    pub(super) fn make_fresh(&self, request: &Request) -> Result<(), CniError> {
        let Some(pod) = &request.pod else { return Ok(()) };
        if EXEMPT.contains(&pod.namespace.as_str()) {
            return self.copied();
        }
        let uid = request.pod_uid.clone().unwrap_or_default();
        let seen = self.first_seen(&uid);
        if !self.is_known(pod, &uid) {
            self.ask_pod(pod, &uid)?;
        }
        if self.asked(&pod.namespace).is_none_or(|asked| asked < seen) {
            let began = Instant::now();
            let path = format!("/api/v1/namespaces/{}", pod.namespace);
            match self.client.get(&path) {
                Ok(object) => {
                    self.mirror().learn(Watched::Namespaces, &object);
                    self.note_namespace(&pod.namespace, began);
                }
                Err(error) => self.stale(pod, seen, &error)?,
            }
        }
        self.copied()
    }

    fn copied(&self) -> Result<(), CniError> {
        self.copy().map_err(|error| CniError::new(Code::TryAgainLater, error))
    }

    /// Whether the mirror has this very pod: any version of it is newer than its making.
    fn is_known(&self, pod: &PodName, uid: &str) -> bool {
        let mirror = self.mirror();
        let known = mirror.object(Watched::Pods, &pod.to_string());
        known.is_some_and(|object| uid.is_empty() || object["metadata"]["uid"] == uid)
    }

    fn ask_pod(&self, pod: &PodName, uid: &str) -> Result<(), CniError> {
        let path = format!("/api/v1/namespaces/{}/pods/{}", pod.namespace, pod.name);
        let later = |why: String| CniError::new(Code::TryAgainLater, format!("{why}; it is tried again"));
        match self.client.get(&path) {
            // A static pod's UID is that of its file; its mirror pod has another.
            Ok(object) => {
                let found = object["metadata"]["uid"].as_str().unwrap_or_default();
                let file = object["metadata"]["annotations"]["kubernetes.io/config.hash"].as_str();
                if !uid.is_empty() && found != uid && file != Some(uid) {
                    return Err(later(format!("pod {pod} is another one by now (UID {found}, not {uid})")));
                }
                self.mirror().learn(Watched::Pods, &object);
                Ok(())
            }
            Err(error) if error.is_absent() => Err(later(format!("there is no pod {pod} in the cluster"))),
            Err(error) => Err(later(format!("nothing is known of pod {pod} yet, and {error}"))),
        }
    }

    /// The namespace could not be asked for: what is known of it counts only for a pod that is known for long.
    fn stale(&self, pod: &PodName, seen: Instant, error: &ApiError) -> Result<(), CniError> {
        let known = self.mirror().object(Watched::Namespaces, &pod.namespace).is_some();
        if known && error.status().is_none() && seen.elapsed() > LONG_KNOWN {
            tracing::info!(%pod, "started by what was known before the API server went away");
            return Ok(());
        }
        let msg = format!(
            "nobody can say whether namespace {} was annotated before pod {pod} was made: {error}; it is tried again",
            pod.namespace
        );
        Err(CniError::new(Code::TryAgainLater, msg))
    }

    /// When a pod was first heard of; it was made before.
    fn first_seen(&self, uid: &str) -> Instant {
        let now = Instant::now();
        if uid.is_empty() {
            return now;
        }
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.pods.len() >= MOST {
            known.pods.clear();
        }
        *known.pods.entry(uid.to_owned()).or_insert(now)
    }

    /// Every pod of the mirror was made before now.
    pub(super) fn see_pods(&self) {
        let uids: Vec<String> = {
            let mirror = self.mirror();
            let uid = |object: &serde_json::Value| object["metadata"]["uid"].as_str().map(str::to_owned);
            mirror.objects(Watched::Pods).filter_map(|(_, object)| uid(object)).collect()
        };
        for uid in uids {
            self.first_seen(&uid);
        }
    }

    fn asked(&self, namespace: &str) -> Option<Instant> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).namespaces.get(namespace).copied()
    }

    fn note_namespace(&self, namespace: &str, began: Instant) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.namespaces.len() >= MOST {
            known.namespaces.clear();
        }
        let noted = known.namespaces.entry(namespace.to_owned()).or_insert(began);
        *noted = (*noted).max(began);
    }
}
