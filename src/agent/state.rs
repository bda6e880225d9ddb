//! What the agent says about itself, in `RUNDIR/NODE/agent.json`: for `egret status`, and for whoever is on call.
//!
//! In: what happened. Out: counts and sentences, in a file that is replaced whole. Never: read by the agent itself, so a file
//! that is torn or gone costs a line of history and nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::kernel::Step;
use crate::problem::Problem;

/// File in the node's own directory.
pub const FILE: &str = "agent.json";
/// Lock in the node's own directory, held as long as the agent lives.
pub const LOCK: &str = "agent.lock";

/// The directory, or a part of it, is not there or cannot be listed.
pub const DIRECTORY_UNREADABLE: &str = "DirectoryUnreadable";
/// Another directory than before stands there, and it is empty.
pub const DIRECTORY_EMPTIED: &str = "DirectoryEmptied";

/// The agent of one node. Only additions to come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct AgentState {
    /// `egret.dev/v1alpha1`.
    pub api_version: String,
    /// `AgentState`.
    pub kind: String,
    /// The node.
    pub node: String,
    /// The agent's process. That it lives is said by the lock `agent.lock`, not by this file.
    pub pid: u32,
    /// Its release.
    pub version: String,
    /// When it was started, Unix seconds.
    pub started: u64,
    /// How it is.
    pub health: Health,
    /// Since when, Unix seconds.
    pub since: u64,
    /// How it learns of changed files.
    pub watching: Watching,
    /// Changes of the directory that were taken up.
    pub updates: Updates,
    /// What was put back because somebody else had taken it away: `rule`, `route`, `nexthop`, `nftables`, `device`, …
    #[serde(default)]
    pub repairs: BTreeMap<String, Repairs>,
    /// The windows in which this node had no rules of ours.
    #[serde(default)]
    pub ruleset_flushes: Windows,
    /// Their beginnings, until clients were stopped by policy rules: only then packets could leave as if nobody had selected them.
    #[serde(default)]
    pub unguarded: Windows,
    /// The last thing that did not work, whether or not it did later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<Failure>,
    /// What is wrong now: in objects, in the directory, around addresses.
    #[serde(default)]
    pub problems: Vec<Problem>,
}

/// How an agent is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub enum Health {
    /// It has not yet compared everything once.
    Starting,
    /// The kernel holds what the directory asks for.
    Well,
    /// The kernel holds the last plan, but the directory cannot be read, or something else is not as it should be.
    Degraded,
    /// The kernel could not be brought to the plan.
    Failing,
    /// It ended as it was told to. What is wired stays.
    Stopped,
}

/// How changed files are noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub enum Watching {
    /// The kernel says (inotify).
    Notified,
    /// By looking several times a second: the limit of inotify watches is reached.
    Polling,
}

/// Changes taken up.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Updates {
    /// How often the directory was read and planned from.
    pub times: u64,
    /// How often the kernel had to change.
    pub changed: u64,
    /// When it last changed, Unix seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<u64>,
    /// How long the last change took from its first notice to the kernel's last step, milliseconds.
    #[serde(default)]
    pub last_millis: u64,
    /// The longest of them.
    #[serde(default)]
    pub longest_millis: u64,
}

/// How often one kind of thing was put back.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Repairs {
    /// Repairs.
    pub times: u64,
    /// Objects put back by them.
    pub objects: u64,
    /// When last, Unix seconds.
    pub last: u64,
    /// From notice to repair, milliseconds.
    pub last_millis: u64,
    /// The longest.
    pub longest_millis: u64,
}

/// Windows of time.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Windows {
    /// How many.
    pub times: u64,
    /// When the last one was, Unix seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<u64>,
    /// How long it was, microseconds, from the kernel's notice on.
    #[serde(default)]
    pub last_micros: u64,
    /// The longest, microseconds.
    #[serde(default)]
    pub longest_micros: u64,
    /// All together, microseconds.
    #[serde(default)]
    pub total_micros: u64,
}

impl Windows {
    fn count(&mut self, window: Duration, now: u64) {
        let micros = u64::try_from(window.as_micros()).unwrap_or(u64::MAX);
        self.times += 1;
        self.last = Some(now);
        self.last_micros = micros;
        self.longest_micros = self.longest_micros.max(micros);
        self.total_micros += micros;
    }
}

/// Something that did not work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Failure {
    /// When, Unix seconds.
    pub at: u64,
    /// A sentence.
    pub message: String,
}

impl AgentState {
    /// An agent that begins.
    pub fn starting(node: &str, pid: u32, now: u64) -> AgentState {
        AgentState {
            api_version: "egret.dev/v1alpha1".to_owned(),
            kind: "AgentState".to_owned(),
            node: node.to_owned(),
            pid,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started: now,
            health: Health::Starting,
            since: now,
            watching: Watching::Notified,
            updates: Updates::default(),
            repairs: BTreeMap::new(),
            ruleset_flushes: Windows::default(),
            unguarded: Windows::default(),
            last_error: None,
            problems: Vec::new(),
        }
    }

    /// Counts what one repair put back.
    pub fn repaired(&mut self, steps: &[&Step], took: Duration, now: u64) {
        let kinds: BTreeSet<&str> = steps.iter().filter_map(|step| kind(step)).collect();
        let millis = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        for name in kinds {
            let objects = steps.iter().filter(|step| kind(step) == Some(name)).count() as u64;
            let repairs = self.repairs.entry(name.to_owned()).or_default();
            repairs.times += 1;
            repairs.objects += objects;
            repairs.last = now;
            repairs.last_millis = millis;
            repairs.longest_millis = repairs.longest_millis.max(millis);
        }
    }

    /// Counts a window without rules of ours.
    pub fn flushed(&mut self, window: Duration, now: u64) {
        self.ruleset_flushes.count(window, now);
    }

    /// Counts the time that passed in it before clients were stopped.
    pub fn unguarded(&mut self, window: Duration, now: u64) {
        self.unguarded.count(window, now);
    }

    /// Counts a change of the kernel that the directory asked for.
    pub fn updated(&mut self, changed: bool, took: Duration, now: u64) {
        self.updates.times += 1;
        if changed {
            let millis = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
            self.updates.changed += 1;
            self.updates.last = Some(now);
            self.updates.last_millis = millis;
            self.updates.longest_millis = self.updates.longest_millis.max(millis);
        }
    }

    /// How it is from now on.
    pub fn is(&mut self, health: Health, now: u64) {
        if self.health != health {
            (self.health, self.since) = (health, now);
        }
    }
}

/// What an agent said of itself last; `None` if none ever did. Errors are sentences.
pub fn read(path: &Path) -> Result<Option<AgentState>, String> {
    let text = match crate::store::read_whole(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(format!("cannot read {}: {error}", path.display())),
    };
    let said = serde_json::from_slice(&text);
    said.map(Some).map_err(|e| format!("{} is not understood; another release wrote it? {e}", path.display()))
}

/// What a step is about, in an operator's word; nothing for steps that take something away: those are no repairs.
fn kind(step: &Step) -> Option<&'static str> {
    match step {
        Step::AddLink { .. } | Step::ChangeLink { .. } | Step::RaiseLink { .. } => Some("device"),
        Step::SetSysctl { .. } | Step::RestoreSysctl { .. } => Some("setting"),
        Step::Nft(_) => Some("nftables"),
        Step::AddAddress(_) => Some("address"),
        Step::SetNeighbour { .. } => Some("neighbour"),
        Step::SetFdb { .. } => Some("forwarding entry"),
        Step::AddNexthop { .. } | Step::ReplaceNexthop { .. } => Some("nexthop"),
        Step::AddRoute(_) | Step::ReplaceRoute(_) => Some("route"),
        Step::AddRule(_) => Some("rule"),
        Step::AddProxy { .. } => Some("proxy neighbour"),
        Step::RemoveOdd { .. } => Some("foreign change"),
        _ => None,
    }
}
