//! A name that no object has: it is said, with the one that may have been meant.
//!
//! In: the view, a pod's name. Out: a problem, if there is no such pod. Never: refuses to explain it.

use crate::egress::model::{PodName, View};
use crate::problem::Problem;
use crate::spelling::nearest;

/// Reason of the problem that neither the pod nor its namespace is known: what is said then holds for any such name.
pub const UNKNOWN_NAMESPACE: &str = "UnknownNamespace";
/// The same in a namespace that is known.
pub const UNKNOWN_POD: &str = "UnknownPod";

/// A sentence for a name that no object has, with the one that may have been meant.
pub(super) fn unknown_pod(view: &View, pod: &PodName) -> Option<Problem> {
    let object = format!("Pod {pod}");
    if view.pods.contains_key(pod) || view.broken.contains(&object) {
        return None;
    }
    // Another pod of the namespace, or the same name in another namespace, is one slip away in one half of the name.
    let others = view.pods.keys().filter(|other| other.namespace == pod.namespace || other.name == pod.name);
    let others: Vec<String> = others.map(ToString::to_string).collect();
    let others: Vec<&str> = others.iter().map(String::as_str).collect();
    let meant = match nearest(&pod.to_string(), &others) {
        Some(other) => format!("; did you mean {other}?"),
        None => elsewhere(view, pod),
    };
    // A namespace may be without an object of its own where its pods have some.
    let known = view.namespaces.contains_key(&pod.namespace)
        || view.broken.contains(&format!("Namespace {}", pod.namespace))
        || view.pods.keys().any(|other| other.namespace == pod.namespace);
    let (reason, nor, own) = match known {
        true => (UNKNOWN_POD, "", " of its own"),
        false => (UNKNOWN_NAMESPACE, " nor such a namespace", ""),
    };
    let message = format!(
        "there is no such Pod object{nor}{meant} It is explained as a pod without labels and annotations{own}"
    );
    Some(Problem::new(object, reason, message))
}

/// Who forgets the namespace asks for a pod of `default`; who names a Deployment means the pods that it made.
fn elsewhere(view: &View, pod: &PodName) -> String {
    let made = format!("{}-", pod.name);
    let all = |chosen: &dyn Fn(&PodName) -> bool| view.pods.keys().filter(|other| chosen(other)).collect();
    let same: Vec<&PodName> = all(&|other| other.name == pod.name);
    let begun: Vec<&PodName> = all(&|o| o.namespace == pod.namespace && o.name.starts_with(&made));
    match (&same[..], &begun[..]) {
        ([], []) => ".".to_owned(),
        ([], begun) => format!("; with that beginning there {}.", some(begun)),
        (same, _) => format!("; of that name there {}.", some(same)),
    }
}

/// `is X`, or `are X, Y and 5 more`.
fn some(pods: &[&PodName]) -> String {
    const SHOWN: usize = 3;
    let shown: Vec<String> = pods.iter().take(SHOWN).map(ToString::to_string).collect();
    let verb = if pods.len() == 1 { "is" } else { "are" };
    match pods.len().saturating_sub(SHOWN) {
        0 => format!("{verb} {}", shown.join(", ")),
        left => format!("{verb} {} and {left} more", shown.join(", ")),
    }
}
