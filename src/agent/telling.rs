//! What is told about a node's pods, and when. Pure.
//!
//! In: what each pod does with its traffic, what its annotation says already, the time. Out: words: an annotation to write, an event to
//! make. Never: more than a budget of them, however many pods there are and however often gateways change; what could not be said
//! is said later, as it is then, or not at all if it is past.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use crate::egress::explain::{GatewayRow, Verdict};
use crate::egress::list::Row;
use crate::egress::model::{PodName, Role};

/// Events at once, and how long until there may be one more. A cluster of 500 nodes makes at most 100 a second for long.
const EVENTS: Budget = Budget::new(20, Duration::from_secs(5));
/// The same of annotations.
const ANNOTATIONS: Budget = Budget::new(50, Duration::from_millis(200));
/// Between two events of one pod, but for the first warning.
const PAUSE: Duration = Duration::from_secs(30);
/// How long a pod must have been without wiring before anybody is told: one that ends, or whose sandbox is made anew (after a reboot all of a
/// node's are), has none for a moment.
pub const LASTING: Duration = Duration::from_secs(30);
/// How long a word rests that was not taken; each further time it is twice as long.
const REST: Duration = Duration::from_secs(1);
const LONGEST_REST: Duration = Duration::from_secs(30);
/// Gateways that a sentence names.
const NAMED: usize = 3;

/// What a pod does with its traffic, as far as people are told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Standing {
    /// Addresses that the outside may see.
    pub addresses: BTreeSet<IpAddr>,
    /// Gateways in use, in words.
    pub gateways: BTreeSet<String>,
    /// The first destination that is held, and why.
    pub held: Option<(String, String)>,
    /// Selected, and started before Egret was in its node's network list: nothing holds it.
    pub unwired: bool,
    /// Selected, and on its node's network: nothing can hold it. By which object.
    pub of_the_node: Option<String>,
    /// Its traffic does not pass its node's forwarding: nothing of this is done to it. Why, as a sentence.
    pub bypassed: Option<String>,
}

/// A pod that something is told of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// The pod.
    pub pod: PodName,
    /// Its UID: a pod of the same name that comes later is another one.
    pub uid: String,
    /// What it does; `None`: nothing that concerns us.
    pub standing: Option<Standing>,
    /// What its annotation says.
    pub annotated: Option<String>,
}

impl Subject {
    fn annotate(&self, value: Option<String>) -> Option<Word> {
        (value != self.annotated).then(|| Word::Annotate { pod: self.pod.clone(), value })
    }

    fn event(&self, warning: bool, reason: &'static str, message: String) -> Word {
        Word::Event { pod: self.pod.clone(), uid: self.uid.clone(), warning, reason, message }
    }
}

/// Something to say.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Word {
    /// Write the annotation, or take it away.
    Annotate {
        /// The pod.
        pod: PodName,
        /// Its new value.
        value: Option<String>,
    },
    /// Make an event.
    Event {
        /// The pod.
        pod: PodName,
        /// Its UID.
        uid: String,
        /// `Warning`, or `Normal`.
        warning: bool,
        /// One word.
        reason: &'static str,
        /// A sentence.
        message: String,
    },
}

impl Word {
    fn is_warning(&self) -> bool {
        matches!(self, Word::Event { warning: true, .. })
    }
}

/// What each selected pod does, by the rows that `egret list` prints. `wired`: pods that this node's plugin was called for; `bypassed`: those
/// whose traffic was seen not to pass the node, and why.
pub fn standings(
    rows: &[Row],
    wired: &BTreeSet<PodName>,
    bypassed: &BTreeMap<PodName, String>,
) -> BTreeMap<PodName, Standing> {
    let mut all: BTreeMap<PodName, Standing> = BTreeMap::new();
    // A pod without an address has no traffic yet.
    for row in rows.iter().filter(|row| row.role == Role::Client && row.address.is_some()) {
        let standing = all.entry(row.pod.clone()).or_default();
        standing.unwired = !wired.contains(&row.pod);
        standing.bypassed = bypassed.get(&row.pod).cloned();
        match row.action {
            Verdict::Direct => {}
            Verdict::Gateway => {
                for gateway in row.gateways.iter().filter(|gateway| gateway.usable) {
                    standing.addresses.extend(gateway.egress_address);
                    standing.gateways.insert(word(gateway));
                }
            }
            Verdict::Held if standing.held.is_some() => {}
            Verdict::Held => standing.held = Some((row.destination.to_string(), row.reason.clone())),
        }
    }
    let of_the_node = |row: &&Row| row.role == Role::HostNetwork && row.address.is_some();
    for row in rows.iter().filter(of_the_node) {
        if let Some(by) = &row.decided_by {
            all.entry(row.pod.clone()).or_default().of_the_node =
                Some(format!("{} `{}`", by.object, by.field));
        }
    }
    all
}

fn word(gateway: &GatewayRow) -> String {
    match &gateway.pod {
        Some(pod) => pod.to_string(),
        None => format!("node {}", gateway.node),
    }
}

impl Standing {
    /// As the annotation has it: addresses, or `none` while everything is held.
    fn annotation(&self) -> Option<String> {
        if self.unwired || self.of_the_node.is_some() || self.bypassed.is_some() {
            return None;
        }
        let addresses: Vec<String> = self.addresses.iter().map(ToString::to_string).collect();
        match (addresses.is_empty(), &self.held) {
            (false, _) => Some(addresses.join(",")),
            (true, Some(_)) => Some("none".to_owned()),
            (true, None) => None,
        }
    }

    /// As an event: whether it is a warning, its reason, its sentence.
    fn sentence(&self) -> Option<(bool, &'static str, String)> {
        if self.unwired {
            let message = "a rule selects this pod, but it was started without Egret and leaves with its node's address: delete it, \
                           so that it starts again";
            return Some((true, "EgressUnprotected", message.to_owned()));
        }
        if let Some(by) = &self.of_the_node {
            let message = format!(
                "{by} selects this pod, but it shares its node's network and leaves with its node's address: leave it out, or \
                 remove spec.hostNetwork"
            );
            return Some((true, "EgressUnprotected", message));
        }
        if let Some(why) = &self.bypassed {
            return Some((true, "EgressUnprotected", format!("a rule selects this pod, but {why}")));
        }
        if let Some((destination, why)) = &self.held {
            return Some((true, "EgressHeld", format!("traffic to {destination} is held: {why}")));
        }
        if self.gateways.is_empty() {
            return None;
        }
        let some = |all: Vec<String>| match all.len() {
            0..=NAMED => all.join(", "),
            more => format!("{} and {} more", all[..NAMED].join(", "), more - NAMED),
        };
        let addresses = some(self.addresses.iter().map(ToString::to_string).collect());
        let gateways = some(self.gateways.iter().cloned().collect());
        Some((false, "EgressGateway", format!("leaves with {addresses} through {gateways}")))
    }
}

/// Remembers what was told.
#[derive(Debug, Default)]
pub struct Telling {
    told: BTreeMap<String, Told>,
    /// Pods without wiring, by UID, and since when.
    unwired: BTreeMap<String, Duration>,
    /// Words that were not taken, and are still to be said.
    refused: BTreeMap<Word, Rest>,
    events: Spent,
    annotations: Spent,
}

/// Until when a word rests, and for how long in all.
#[derive(Debug)]
struct Rest {
    pause: Duration,
    until: Duration,
}

/// What was told of one pod, by its UID.
#[derive(Debug, Default)]
struct Told {
    /// The last sentence; `None`: it could not be said, and neither has an earlier agent said it.
    sentence: Option<String>,
    warning: bool,
    at: Option<Duration>,
}

impl Telling {
    /// What is to be said now; warnings come before what is well, and what was refused before comes last. Say it, and call
    /// [`Telling::refused`] or [`Telling::unsaid`] if that did not work.
    pub fn due(&mut self, now: Duration, subjects: &[Subject]) -> Vec<Word> {
        let here: BTreeSet<&str> = subjects.iter().map(|subject| subject.uid.as_str()).collect();
        self.told.retain(|uid, _| here.contains(uid.as_str()));
        let unwired =
            subjects.iter().filter(|s| s.standing.as_ref().is_some_and(|standing| standing.unwired));
        let since = |uid: &String| self.unwired.get(uid).copied().unwrap_or(now);
        self.unwired = unwired.map(|subject| (subject.uid.clone(), since(&subject.uid))).collect();
        let (mut words, mut events) = (Vec::new(), Vec::new());
        for subject in subjects {
            let wanted = subject.standing.as_ref().and_then(Standing::annotation);
            events.extend(self.event(now, subject, wanted.as_ref()));
            words.extend(subject.annotate(wanted));
        }
        self.refused.retain(|word, _| words.contains(word) || events.contains(word));
        words.sort_by_key(|word| self.refused.contains_key(word));
        words.retain(|word| !self.rests(now, word) && self.annotations.take(ANNOTATIONS, now));
        events.retain(|word| !self.rests(now, word));
        events.sort_by_key(|word| (self.refused.contains_key(word), !word.is_warning()));
        for word in events {
            let Word::Event { uid, warning, message, .. } = &word else { continue };
            if !self.events.take(EVENTS, now) {
                // When its turn comes, its annotation is as an earlier agent would have left it.
                self.told.entry(uid.clone()).or_default();
                continue;
            }
            let told = Told { sentence: Some(message.clone()), warning: *warning, at: Some(now) };
            self.told.insert(uid.clone(), told);
            words.push(word);
        }
        words
    }

    /// Whether something may be waiting for its time; what was refused has [`Telling::is_rested`].
    pub fn waits(&self, now: Duration, subjects: &[Subject]) -> bool {
        subjects.iter().any(|subject| {
            let standing = subject.standing.as_ref();
            let told = self.told.get(&subject.uid).and_then(|told| told.sentence.as_ref());
            let sentence = standing.and_then(Standing::sentence);
            let event = sentence.filter(|(.., message)| Some(message) != told);
            let event = event.map(|(warning, reason, message)| subject.event(warning, reason, message));
            let annotation = subject.annotate(standing.and_then(Standing::annotation));
            event.into_iter().chain(annotation).any(|word| !self.rests(now, &word))
        })
    }

    /// Whether something that was refused may be said again.
    pub fn is_rested(&self, now: Duration) -> bool {
        self.refused.values().any(|rest| rest.until <= now)
    }

    /// Pods that a rule selects and that have had no wiring for so long that it is no passing state.
    pub fn unwired<'a>(&self, now: Duration, subjects: &'a [Subject]) -> BTreeSet<&'a PodName> {
        let lasts = |subject: &&Subject| self.has_lasted(now, &subject.uid);
        subjects.iter().filter(lasts).map(|subject| &subject.pod).collect()
    }

    fn has_lasted(&self, now: Duration, uid: &str) -> bool {
        self.unwired.get(uid).is_some_and(|since| now.saturating_sub(*since) >= LASTING)
    }

    /// A word was not taken, and may be another time: it rests, and keeps no other waiting, should it be the only one. Whether that is news.
    pub fn refused(&mut self, now: Duration, word: Word) -> bool {
        self.was_not_told(&word);
        let before = self.refused.get(&word).map(|rest| rest.pause);
        let pause = before.map_or(REST, |pause| (pause * 2).min(LONGEST_REST));
        self.refused.insert(word, Rest { pause, until: now + pause });
        before.is_none()
    }

    /// A word was not even tried: it is due as before, and nothing was spent.
    pub fn unsaid(&mut self, word: &Word) {
        self.was_not_told(word);
        match word {
            Word::Annotate { .. } => self.annotations.give_back(),
            Word::Event { .. } => self.events.give_back(),
        }
    }

    fn was_not_told(&mut self, word: &Word) {
        if let Word::Event { uid, .. } = word {
            self.told.insert(uid.clone(), Told::default());
        }
    }

    fn rests(&self, now: Duration, word: &Word) -> bool {
        self.refused.get(word).is_some_and(|rest| now < rest.until)
    }

    fn event(&mut self, now: Duration, subject: &Subject, annotation: Option<&String>) -> Option<Word> {
        let sentence = subject.standing.as_ref().and_then(Standing::sentence);
        let Some((warning, reason, message)) = sentence else {
            // Whoever is selected again is told again.
            self.told.remove(&subject.uid);
            return None;
        };
        if self.unwired.contains_key(&subject.uid) && !self.has_lasted(now, &subject.uid) {
            return None;
        }
        let Some(told) = self.told.get(&subject.uid) else {
            // An agent that starts anew finds on the pods what the one before has told.
            if annotation.is_some() && annotation == subject.annotated.as_ref() {
                self.told.insert(subject.uid.clone(), Told { sentence: Some(message), warning, at: None });
                return None;
            }
            return Some(subject.event(warning, reason, message));
        };
        // That something went wrong is told at once; that it went well again when it has lasted.
        let news = warning && !told.warning;
        let rested = news || told.at.is_none_or(|at| now.saturating_sub(at) >= PAUSE);
        (rested && told.sentence.as_ref() != Some(&message)).then(|| subject.event(warning, reason, message))
    }
}

/// How much may be said: so many at once, and one more after each pause.
#[derive(Debug, Clone, Copy)]
struct Budget {
    most: u32,
    each: Duration,
}

impl Budget {
    const fn new(most: u32, each: Duration) -> Budget {
        Budget { most, each }
    }
}

/// What was spent of a budget.
#[derive(Debug, Default)]
struct Spent {
    count: u32,
    since: Duration,
}

impl Spent {
    fn take(&mut self, budget: Budget, now: Duration) -> bool {
        while self.count > 0 && now.saturating_sub(self.since) >= budget.each {
            self.count -= 1;
            self.since += budget.each;
        }
        if self.count == 0 {
            self.since = now;
        }
        let may = self.count < budget.most;
        self.count += u32::from(may);
        may
    }

    fn give_back(&mut self) {
        self.count = self.count.saturating_sub(1);
    }
}

#[cfg(test)]
mod tests;
