//! `egret install`: Egret on this node, behind the primary; and away again, for `egret uninstall --cni`.
//!
//! In: the folders of plugins and lists, the configuration that becomes our entry. Out: what was changed; with `--follow` a line per
//! change, until SIGTERM. Never: the kernel, nor an entry of another plugin.

use std::iter;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use serde::Serialize;
use serde_json::{Value, json};

use super::{API_VERSION, Common, Output, Refused, json};
use crate::config::{Config, Mode};
use crate::egress::explain::Shown;
use crate::install::follow::Follow;
use crate::install::list::TYPE;
use crate::install::place::Stamp;
use crate::install::{Change, InstallError, Place};
use crate::problem::Problem;

/// How often is looked, should nobody have rung.
const REGULARLY: Duration = Duration::from_secs(5);

/// Where a node keeps plugins and lists.
#[derive(Debug, Clone, Args)]
pub struct Folders {
    /// Folder of the plugins
    #[arg(long, value_name = "DIR", default_value = "/opt/cni/bin")]
    pub cni_bin: PathBuf,
    /// Folder of the network lists
    #[arg(long, value_name = "DIR", default_value = "/etc/cni/net.d")]
    pub cni_conf: PathBuf,
}

/// Its arguments.
#[derive(Debug, Clone, Args)]
pub struct InstallArgs {
    #[command(flatten)]
    folders: Folders,
    /// File of the primary's list [default: the first]
    #[arg(long, value_name = "NAME")]
    list: Option<String>,
    /// Stay, and put back what the primary writes over
    #[arg(long)]
    follow: bool,
}

/// What was changed, as one JSON document.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub(super) struct InstallReport {
    api_version: &'static str,
    kind: &'static str,
    /// The binary, and the lists.
    items: Vec<Change>,
    problems: Vec<Problem>,
}

impl Folders {
    /// As a place.
    pub fn place(&self, list: Option<String>) -> Place {
        Place { bin: self.cni_bin.clone(), conf: self.cni_conf.clone(), list }
    }
}

/// Installs; with `--follow`, until it is told to end.
///
/// # Errors
/// A sentence: there is no list to stand in, or a file cannot be written.
pub fn run(common: &Common, args: &InstallArgs) -> Result<(String, bool), Refused> {
    let program = std::env::current_exe().map_err(|e| format!("cannot find this program's file: {e}"))?;
    let place = args.folders.place(args.list.clone());
    if args.follow {
        return follow(common, &place, &program);
    }
    let Entry { value: entry, problems, .. } = entry(common, place.entry())?;
    place.has_room(&entry).map_err(|e| e.to_string())?;
    // The program first: a runtime starts whatever a list names.
    let binary = place.put_binary(&program).map_err(|e| e.to_string())?;
    let lists = place.put_entry(&entry).map_err(|e| e.to_string())?;
    said(iter::once(binary).chain(lists).collect(), problems, common.output).map(|text| (text, true))
}

/// What was changed, in a few words or as a document.
fn said(items: Vec<Change>, problems: Vec<Problem>, output: Output) -> Result<String, Refused> {
    match output {
        Output::Text => {
            let items = items.iter().map(|change| format!("{}: {}\n", change.file, change.what));
            let problems = problems.iter().map(|problem| format!("problem: {}\n", Shown(problem)));
            Ok(items.chain(problems).collect())
        }
        Output::Json => {
            let kind = "InstallReport";
            Ok(json(&InstallReport { api_version: API_VERSION, kind, items, problems })?)
        }
    }
}

/// Our entry, and what it says.
struct Entry {
    value: Value,
    config: Config,
    /// Keys that look like ours and have no effect, as the plugin would say at each call.
    problems: Vec<Problem>,
}

/// Our entry: the keys of the configuration, or else of the entry that stands, with the node's name, and what makes containerd hand over
/// pods' annotations. What the plugin would refuse is refused here, whoever said it.
fn entry(common: &Common, standing: Option<Value>) -> Result<Entry, Refused> {
    let mut value = match &common.config {
        Some(file) => Config::entry(file).map_err(|e| Refused::misused(e.to_string()))?,
        None => standing.unwrap_or_else(|| json!({})),
    };
    let (source, next) = match &common.config {
        Some(file) => (file.display().to_string(), ""),
        None => ("the entry that stands".to_owned(), "; give it others with --config FILE"),
    };
    let mut problems = Config::misspelled(&value);
    problems.iter_mut().for_each(|problem| problem.file.clone_from(&source));
    let mut flags = String::new();
    if let Some(fields) = value.as_object_mut() {
        fields.insert("type".to_owned(), TYPE.into());
        if let Some(node) = &common.node {
            fields.insert("nodeName".to_owned(), node.as_str().into());
            flags += " with --node";
        }
        if let Some(state) = &common.state {
            fields.insert("stateDir".to_owned(), state.display().to_string().into());
            flags += " with --state";
        }
        fields.entry("capabilities").or_insert_with(|| json!({"io.kubernetes.cri.pod-annotations": true}));
    }
    let wrong = |e| Refused::misused(format!("{source}{flags}: {e}{next}"));
    let config = Config::from_json(&value).map_err(wrong)?;
    Ok(Entry { value, config, problems })
}

/// Whether pods may come by this configuration already. In a cluster not before an agent of this node has heard of everything once: until
/// then no pod could start here, and a node on which the agent cannot run at all would be lost to pods that nobody selects.
fn is_ready(config: &Config) -> bool {
    config.mode == Mode::Embedded || config.state_dir.join("synced").exists()
}

fn follow(common: &Common, place: &Place, program: &Path) -> Result<(String, bool), Refused> {
    crate::log::to_stderr("info");
    let follow = Follow::new()
        .map_err(|e| format!("no notices of files (inotify): {e}; raise fs.inotify.max_user_instances"))?;
    let mut trouble = String::new();
    let mut waits = false;
    let mut put = None;
    // The primary writes its list without our entry, whose keys are known only from there where no file has them.
    let mut standing = None;
    loop {
        follow.listen(&[&place.conf, &place.bin]);
        standing = place.entry().or(standing);
        let outcome = entry(common, standing.clone())
            .map_err(|e| e.sentence)
            .and_then(|entry| once(&entry, place, program, &mut put));
        match outcome {
            Ok(true) => {
                trouble.clear();
                waits = false;
            }
            Ok(false) => {
                if !std::mem::replace(&mut waits, true) {
                    tracing::info!("waits for this node's agent to hear of everything once");
                }
            }
            Err(why) if why != trouble => {
                tracing::warn!(why, "not as it should be; tried again");
                trouble = why;
            }
            Err(_) => {}
        }
        let pause = if waits { Duration::from_millis(500) } else { REGULARLY };
        follow.wait(pause).map_err(|e| format!("cannot wait for notices: {e}"))?;
    }
}

/// Looks, and puts back what is missing; whether it may. `put`: the binary that was found to be ours.
fn once(entry: &Entry, place: &Place, program: &Path, put: &mut Option<Stamp>) -> Result<bool, String> {
    if !is_ready(&entry.config) {
        return Ok(false);
    }
    if put.is_none() {
        entry.problems.iter().for_each(|problem| tracing::warn!(%problem, "the configuration"));
    }
    if put.is_none() || place.binary_stamp() != *put {
        let binary = place.put_binary(program).map_err(|e| e.to_string())?;
        *put = place.binary_stamp();
        tell(&binary);
    }
    let lists = match place.put_entry(&entry.value) {
        // The next look comes at once: it was a notice, too.
        Err(InstallError::Raced(_)) => return Ok(true),
        other => other.map_err(|e| e.to_string())?,
    };
    lists.iter().for_each(tell);
    Ok(true)
}

fn tell(change: &Change) {
    if change.what != "unchanged" {
        tracing::info!(file = change.file, "{}", change.what);
    }
}
