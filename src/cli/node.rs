//! `egret reconcile` and `egret uninstall`: one node, once.
//!
//! In: the common flags. Out: every step that was taken, or would be. Never: decides; `node` does.

use std::fmt::Write;

use clap::Args;
use serde::Serialize;

use super::install::Folders;
use super::{Common, Refused};
use crate::agent::cluster::lacking;
use crate::config::Mode;
use crate::egress::explain::Shown;
use crate::install::{Change, InstallError, Place};
use crate::kernel::step::CUT;
use crate::kernel::{Report, Step};
use crate::node::embedded::{Embedded, NodeError};
use crate::node::update::Outcome;
use crate::problem::Problem;

/// Flags of both.
#[derive(Debug, Clone, Args)]
pub struct NodeArgs {
    /// Print the steps, take none
    #[arg(long)]
    dry_run: bool,
}

/// Flags of `egret uninstall`.
#[derive(Debug, Clone, Args)]
pub struct UninstallArgs {
    #[command(flatten)]
    node: NodeArgs,
    /// Also the entry in the network list, first, and the plugin, last
    #[arg(long)]
    cni: bool,
    #[command(flatten)]
    folders: Folders,
}

/// What was done to a node, as one JSON document.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub(super) struct ReconcileReport<'a> {
    api_version: &'static str,
    kind: &'static str,
    /// Its name.
    node: &'a str,
    /// The node's own namespace, and those of its gateways that were looked at.
    items: Vec<Item<'a>>,
    /// With `--cni`: network lists whose entry, and the plugin whose file, was removed, or with `--dry-run` would be.
    #[serde(skip_serializing_if = "<[Change]>::is_empty")]
    files: &'a [Change],
    problems: &'a [Problem],
}

/// One namespace.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
struct Item<'a> {
    /// `node`, or a gateway's attachment.
    place: &'a str,
    #[serde(flatten)]
    report: &'a Report,
}

/// Brings this node to its plan.
///
/// # Errors
/// A sentence; then nothing was printed.
pub fn reconcile(common: &Common, args: &NodeArgs) -> Result<(String, bool), Refused> {
    // One that is not there says nothing of any pod: it would be made for nothing, and by a slip of the pen.
    act(common, args, Directory::Present, |node, done| {
        node.must_be_its_directory()?;
        // An agent waits until what its copy of the cluster lacks is there again; by the rest its pods would be let go.
        if node.config.mode == Mode::Cluster
            && let Some(lost) = lacking(&node.dir, &node.name)
        {
            let sentence = format!(
                "{} is missing or damaged, and by the rest of this node's copy of the cluster pods would be let go; its agent writes it \
                 again, and does then what this would do",
                lost.display()
            );
            return Err(NodeError::Unfit(vec![sentence]));
        }
        done.outcome = node.reconcile()?;
        Ok(())
    })
}

/// Takes everything of ours out of this node.
///
/// # Errors
/// As [`reconcile`].
pub fn uninstall(common: &Common, args: &UninstallArgs) -> Result<(String, bool), Refused> {
    let place = args.cni.then(|| args.folders.place(None));
    // Who has lost it must be able to leave.
    let named = common.state.is_some() || args.node.dry_run;
    let directory = if named { Directory::Present } else { Directory::Any };
    act(common, &args.node, directory, |node, done| {
        // It would wire again what is taken away.
        match crate::agent::run::running(&node.memory) {
            Some(busy) if !node.dry_run => {
                let sentence = format!(
                    "an agent runs on this node{} and would wire again what is taken away; end it first",
                    busy.process()
                );
                return Err(NodeError::Unfit(vec![sentence]));
            }
            _ => {}
        }
        node.must_be_this_node()?;
        node.must_reach_its_endpoints()?;
        let unfit = |e: InstallError| NodeError::Unfit(vec![e.to_string()]);
        // Before the kernel: no further pod is wired.
        let take = if node.dry_run { Place::entries_to_take } else { Place::take_entries };
        if let Some(place) = &place {
            take(place, &mut done.files).map_err(unfit)?;
        }
        done.outcome = node.uninstall()?;
        if let Some(place) = place.as_ref().filter(|_| done.outcome.is_well()) {
            let binary = if node.dry_run { Ok(place.binary_to_take()) } else { place.take_binary() };
            done.files.extend(binary.map_err(unfit)?);
        }
        Ok(())
    })
}

/// What was done, whatever came after it.
#[derive(Default)]
struct Done {
    files: Vec<Change>,
    outcome: Outcome,
}

/// Whether the state directory must be there.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Directory {
    Present,
    Any,
}

fn act(
    common: &Common,
    args: &NodeArgs,
    directory: Directory,
    verb: impl Fn(&Embedded, &mut Done) -> Result<(), NodeError>,
) -> Result<(String, bool), Refused> {
    if !nix::unistd::geteuid().is_root() {
        return Err(Refused::failed(
            "this changes the node's network: run it as root (CAP_NET_ADMIN and CAP_SYS_ADMIN)",
        ));
    }
    let config = match directory {
        Directory::Present => common.of_present_node()?,
        Directory::Any => common.of_node()?,
    };
    let node = if args.dry_run { Embedded::look(&config) } else { Embedded::open(&config) };
    let node = node.map_err(|e| e.to_string())?;
    let mut done = Done::default();
    let failure = verb(&node, &mut done).err();
    let Done { files, mut outcome } = done;
    let well = failure.is_none() && outcome.is_well();
    match failure {
        None => {}
        Some(error) if files.is_empty() && outcome.reports.is_empty() => return Err(refusal(common, &error)),
        Some(error) => {
            let object = format!("Node {}", node.name);
            outcome.problems.push(Problem::new(object, "NotFinished", error.to_string()));
        }
    }
    let text = match common.output {
        super::Output::Json => json(&node.name, &files, &outcome)?,
        super::Output::Text => text(&node, &files, &outcome),
    };
    Ok((text, well))
}

fn refusal(common: &Common, error: &NodeError) -> Refused {
    match error {
        NodeError::OtherName { .. } if common.node.is_some() => Refused::misused(error.to_string()),
        NodeError::OtherDirectory { .. } if common.state.is_some() => Refused::misused(error.to_string()),
        _ => Refused::failed(error.to_string()),
    }
}

fn json(node: &str, files: &[Change], outcome: &Outcome) -> Result<String, String> {
    let items = outcome.reports.iter().map(|(place, report)| Item { place, report }).collect();
    let report = ReconcileReport {
        api_version: "egret.dev/v1alpha1",
        kind: "ReconcileReport",
        node,
        items,
        files,
        problems: &outcome.problems,
    };
    serde_json::to_string_pretty(&report).map(|text| text + "\n").map_err(|e| e.to_string())
}

fn text(node: &Embedded, files: &[Change], outcome: &Outcome) -> String {
    let (dry_run, node) = (node.dry_run, &node.name);
    let (mut text, mut all) = (String::new(), String::new());
    for change in files {
        let what = if dry_run { &change.what.replace("removed", "to be removed") } else { change.what };
        let _ = writeln!(text, "{}: {what}", change.file);
    }
    for (place, report) in &outcome.reports {
        let place = if place == "node" { format!("node {node}") } else { format!("gateway {place}") };
        let counts =
            [(report.done.len(), "done"), (report.pending.len(), "to do"), (report.failed.len(), "failed")];
        let counts: Vec<String> =
            counts.iter().filter(|(n, _)| *n > 0).map(|(n, word)| format!("{n} {word}")).collect();
        let counts = if counts.is_empty() { "nothing to do".to_owned() } else { counts.join(", ") };
        let _ = writeln!(text, "{place}: {counts}, {} unchanged", report.unchanged);
        let mut said = String::new();
        steps(&mut said, "+", &report.done);
        steps(&mut said, "~", &report.pending);
        for (step, why) in &report.failed {
            let _ = writeln!(said, "  ! {}: {why}", step.in_short());
        }
        text += &said;
        all += &said;
    }
    text += of_what_is_cut(&all);
    if outcome.reports.is_empty() && files.is_empty() {
        let _ = writeln!(text, "node {node}: nothing to do: no pod here is a client or a gateway");
    }
    for problem in &outcome.problems {
        let _ = writeln!(text, "problem: {}", Shown(problem));
    }
    text
}

fn steps(text: &mut String, sign: &str, steps: &[Step]) {
    for step in steps {
        let _ = writeln!(text, "  {sign} {}", step.in_short());
    }
}

/// A line for below steps, if one of them was cut: a first table is ten thousand characters, and hides what stands beside it.
pub(super) fn of_what_is_cut(steps: &str) -> &'static str {
    if steps.contains(CUT) { "(… was cut: `-o json` has every step whole)\n" } else { "" }
}
