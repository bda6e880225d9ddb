//! Says to people what [`telling`](crate::agent::telling) finds worth saying: annotations and events of this node's pods.
//!
//! In: the node's own directory, the mirror. Out: requests, on a thread of its own, so that nothing that packets need waits for them. Never:
//! what anybody decides by: the annotation is not read back but to compare it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use super::Cluster;
use crate::agent::passing::Passing;
use crate::agent::telling::{Subject, Telling, Word, standings};
use crate::egress::annotations::EGRESS_ADDRESSES;
use crate::egress::list::list;
use crate::egress::model::PodName;
use crate::egress::serving::Life;
use crate::hash;
use crate::kube::{ApiError, Watched, lease};
use crate::node::embedded::{Embedded, now};

/// How often is looked whether anything changed.
const LOOK: Duration = Duration::from_millis(500);
/// How often is looked whether something may be said by now.
const WAITING: Duration = Duration::from_secs(1);
/// The longest pause after something could not be said.
const LONGEST: Duration = Duration::from_secs(30);
/// How long talking makes way for the plugin's calls at most, and how often it looks whether they are over: fifty annotations are work for
/// this node's processors and the server's, while a hundred pods wait to start.
const LONGEST_WAY: Duration = Duration::from_secs(2);
const AGAIN: Duration = Duration::from_millis(20);

/// Begins to tell, for as long as the process lives.
///
/// # Errors
/// No thread can be started.
pub(super) fn start(cluster: Arc<Cluster>) -> std::io::Result<()> {
    thread::Builder::new().name("telling".to_owned()).spawn(move || run(&cluster)).map(drop)
}

fn run(cluster: &Cluster) -> ! {
    let began = Instant::now();
    let mut telling = Telling::default();
    let (mut seen, mut waits, mut pause) = ((Vec::new(), BTreeMap::new()), false, LOOK);
    loop {
        thread::sleep(if waits { pause.max(WAITING) } else { pause });
        // What was copied is what the node acts on; what is newer comes with the next look.
        let copied: Vec<u64> =
            cluster.copied.lock().unwrap_or_else(PoisonError::into_inner).kinds.values().copied().collect();
        let bypassed = cluster.passing.get().map(Passing::bypassed).unwrap_or_default();
        let is_due = waits || telling.is_rested(began.elapsed());
        if !cluster.is_synced() || ((&copied, &bypassed) == (&seen.0, &seen.1) && !is_due) {
            continue;
        }
        cluster.make_way();
        let subjects = match cluster.subjects(&bypassed) {
            Ok(subjects) => subjects,
            Err(error) => {
                tracing::debug!(error, "nothing can be told of pods");
                continue;
            }
        };
        seen = (copied, bypassed);
        let words = telling.due(began.elapsed(), &subjects);
        let trouble = say(
            &mut telling,
            || began.elapsed(),
            words,
            |word| {
                cluster.make_way();
                cluster.utter(word)
            },
        );
        let unwired = telling.unwired(began.elapsed(), &subjects).into_iter().cloned().collect();
        *cluster.unwired.lock().unwrap_or_else(PoisonError::into_inner) = unwired;
        waits = trouble || telling.waits(began.elapsed(), &subjects);
        pause = if trouble { (pause * 2).min(LONGEST) } else { LOOK };
    }
}

/// Says each word. One that is refused for itself keeps no other from being said; once the server has no time, what was not tried yet is left
/// for another round. Whether it had none.
fn say(
    telling: &mut Telling,
    now: impl Fn() -> Duration,
    words: Vec<Word>,
    utter: impl Fn(&Word) -> Result<(), ApiError>,
) -> bool {
    let mut words = words.into_iter();
    while let Some(word) = words.next() {
        let Err(error) = utter(&word) else { continue };
        // What is gone needs no telling.
        if error.is_absent() {
            continue;
        }
        // An event that we may not make, we may not a second later either. An annotation is what the pod has, so it is tried until it is taken.
        let again = matches!(word, Word::Annotate { .. }) || error.is_away();
        // A word may take the server ten seconds, and rests from then on.
        if !again || telling.refused(now(), word) {
            tracing::warn!(error = %error, "people are not told of a pod");
        }
        if error.is_of_the_server() {
            words.for_each(|word| telling.unsaid(&word));
            return true;
        }
    }
    false
}

impl Cluster {
    /// Waits until the plugin's calls are over, but not for long.
    fn make_way(&self) {
        let began = Instant::now();
        while self.calls.are_coming() && began.elapsed() < LONGEST_WAY {
            thread::sleep(AGAIN);
        }
    }

    /// This node's pods, with what they do and what they are annotated with. One that is leaving is not among them: its wiring goes before
    /// its object, and nobody is left to be told.
    fn subjects(&self, bypassed: &BTreeMap<PodName, String>) -> Result<Vec<Subject>, String> {
        let config = self.config.now();
        let node = Embedded::at(&config).map_err(|e| e.to_string())?;
        let (view, ..) = node.whole_view().map_err(|e| e.to_string())?;
        let wired: BTreeSet<PodName> = node
            .records
            .list(None)
            .map_err(|e| e.to_string())?
            .attachments
            .into_iter()
            .filter_map(|attachment| attachment.pod)
            .collect();
        let here: Vec<PodName> = view
            .pods
            .iter()
            .filter(|(_, pod)| pod.node.as_ref() == Some(&self.node))
            .map(|(n, _)| n.clone())
            .collect();
        let rows = list(&view, here.iter().cloned()).items;
        let mut standings = standings(&rows, &wired, bypassed);
        let mirror = self.mirror();
        let subject = |pod: PodName| {
            let (_, life) = mirror.life(&pod.to_string())?;
            if life == Life::Leaving {
                return None;
            }
            let object = mirror.object(Watched::Pods, &pod.to_string())?;
            Some(Subject {
                uid: object["metadata"]["uid"].as_str()?.to_owned(),
                standing: standings.remove(&pod),
                annotated: mirror.told(&pod.to_string()).map(str::to_owned),
                pod,
            })
        };
        Ok(here.into_iter().filter_map(subject).collect())
    }

    fn utter(&self, word: &Word) -> Result<(), ApiError> {
        match word {
            Word::Annotate { pod, value } => {
                let path = format!("/api/v1/namespaces/{}/pods/{}/status", pod.namespace, pod.name);
                self.client
                    .merge(&path, &json!({"metadata": {"annotations": {EGRESS_ADDRESSES: value}}}))
                    .map(drop)
            }
            Word::Event { pod, uid, warning, reason, message } => {
                let path = format!("/api/v1/namespaces/{}/events", pod.namespace);
                let which = hash::stable32(format!("{uid} {reason} {message}").as_bytes());
                let name = event_name(&pod.name, which);
                let at = lease::time(now());
                let event = json!({
                    "apiVersion": "v1", "kind": "Event", "metadata": {"name": name, "namespace": pod.namespace},
                    "involvedObject": {"apiVersion": "v1", "kind": "Pod", "namespace": pod.namespace, "name": pod.name, "uid": uid},
                    "type": if *warning { "Warning" } else { "Normal" }, "reason": reason, "message": message,
                    "source": {"component": "egret", "host": self.node},
                    "reportingComponent": "egret.dev/agent", "reportingInstance": self.node,
                    "firstTimestamp": at, "lastTimestamp": at, "count": 1,
                });
                match self.client.create(&path, &event) {
                    // The same again, within the hour that events are kept.
                    Err(error) if error.is_conflict() => {
                        let again = json!({"lastTimestamp": at, "count": 2});
                        self.client.merge(&format!("{path}/{name}"), &again).map(drop)
                    }
                    outcome => outcome.map(drop),
                }
            }
        }
    }
}

/// The longest name that the API takes.
const LONGEST_NAME: usize = 253;

/// Of an event: its pod's name, as far as there is room for it, and a number.
fn event_name(pod: &str, which: u32) -> String {
    let room = LONGEST_NAME - ".01234567".len();
    let name = pod.get(..room).unwrap_or(pod);
    // What stands before a dot ends with a letter or a digit.
    format!("{}.{which:08x}", name.trim_end_matches(['-', '.']))
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;
    use crate::agent::telling::Standing;

    fn held(name: &str) -> Subject {
        let held = Some(("0.0.0.0/0".to_owned(), "no gateway is there".to_owned()));
        let standing = Some(Standing { held, ..Standing::default() });
        Subject { pod: PodName::new("shop", name), uid: name.to_owned(), standing, annotated: None }
    }

    /// What a word is of.
    fn about(word: &Word) -> String {
        match word {
            Word::Annotate { pod, .. } => format!("{} =", pod.name),
            Word::Event { pod, .. } => pod.name.clone(),
        }
    }

    /// One round so many seconds after the first, with a server that answers this word so: what was tried, and whether all comes later.
    fn round(
        telling: &mut Telling,
        seconds: u64,
        pods: &[Subject],
        (refused, status): (&str, u16),
    ) -> (Vec<String>, bool) {
        let (now, tried) = (Duration::from_secs(seconds), RefCell::default());
        let words = telling.due(now, pods);
        let trouble = say(
            telling,
            || now,
            words,
            |word| {
                let about = about(word);
                let no = about == refused;
                Vec::push(&mut tried.borrow_mut(), about);
                let (path, reason, message) = ("/p".to_owned(), "R".to_owned(), "no".to_owned());
                if no {
                    Err(ApiError::Refused { verb: "PATCH", path, status, reason, message })
                } else {
                    Ok(())
                }
            },
        );
        (tried.into_inner(), trouble)
    }

    #[test]
    fn a_word_that_is_refused_keeps_no_other_from_being_said_and_rests() {
        for status in [403, 422, 500] {
            let (mut telling, mut pods) = (Telling::default(), [held("a"), held("b")]);
            let (tried, trouble) = round(&mut telling, 0, &pods, ("a =", status));
            assert_eq!((tried.join(" "), trouble), ("a = b = a b".to_owned(), false), "{status}");
            pods[1].annotated = Some("none".to_owned());
            let tries = |seconds| round(&mut telling, seconds, &pods, ("a =", status)).0;
            let tried: Vec<String> = (0..120).flat_map(tries).collect();
            assert!(
                (5..10).contains(&tried.len()) && tried.iter().all(|of| of == "a ="),
                "{status}: {tried:?}"
            );
        }
    }

    #[test]
    fn what_comes_after_a_word_for_which_the_server_had_no_time_is_said_when_it_has() {
        // Also where it had time for the annotations, and these are no longer to be written.
        for (refused, first) in [("a =", "a ="), ("a", "a = b = a")] {
            let (mut telling, mut pods) = (Telling::default(), [held("a"), held("b")]);
            let (tried, trouble) = round(&mut telling, 0, &pods, (refused, 503));
            assert_eq!((tried.join(" ").as_str(), trouble), (first, true));
            for pod in &mut pods {
                pod.annotated = (refused == "a").then(|| "none".to_owned());
            }
            assert!(telling.is_rested(Duration::from_secs(1)));
            let (tried, trouble) = round(&mut telling, 1, &pods, ("", 0));
            let all = if refused == "a" { "b a" } else { "b = a = a b" };
            assert_eq!((tried.join(" ").as_str(), trouble), (all, false));
        }
    }

    #[test]
    fn annotations_that_are_refused_take_no_other_s_turn() {
        let (mut telling, now) = (Telling::default(), Duration::from_secs);
        let mut pods: Vec<Subject> = (10..60).map(|n| held(&format!("a{n}"))).collect();
        for word in telling.due(now(0), &pods) {
            telling.refused(now(0), word);
        }
        pods.push(held("z"));
        // Enough for ten, of fifty that have rested, and one that was never tried.
        let words = telling.due(now(2), &pods);
        assert_eq!(words.first().map(about), Some("z =".to_owned()));
    }

    #[test]
    fn what_was_not_tried_has_cost_nothing() {
        let pods: Vec<Subject> = (10..30).map(|n| held(&n.to_string())).collect();
        let mut telling = Telling::default();
        assert_eq!(round(&mut telling, 0, &pods, ("10 =", 503)).0.len(), 1);
        // All twenty events that may be made at once.
        assert_eq!(round(&mut telling, 1, &pods, ("", 0)).0.len(), 40);
    }

    #[test]
    fn an_event_of_a_pod_with_the_longest_name_has_a_name_that_the_api_takes() {
        assert_eq!(event_name("web-0", 0xab), "web-0.000000ab");
        let longest = "a".repeat(LONGEST_NAME);
        assert_eq!(event_name(&longest, 1), format!("{}.00000001", "a".repeat(244)));
        // Where it is cut there may stand what no name ends with.
        let dashed = format!("{}.--.{}", "a".repeat(240), "b".repeat(9));
        assert_eq!(dashed.len(), LONGEST_NAME);
        assert_eq!(event_name(&dashed, 1), format!("{}.00000001", "a".repeat(240)));
    }
}
