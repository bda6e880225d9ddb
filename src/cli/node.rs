//! `egret reconcile` and `egret uninstall`: one node, once.
//!
//! In: the common flags. Out: every step that was taken, or would be. Never: decides; `node` does.

use std::fmt::Write;

use clap::Args;
use serde::Serialize;

use super::install::Folders;
use super::{Common, Refused};
use crate::egress::explain::Shown;
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
    act(common, args, Embedded::reconcile)
}

/// Takes everything of ours out of this node.
///
/// # Errors
/// As [`reconcile`].
pub fn uninstall(common: &Common, args: &UninstallArgs) -> Result<(String, bool), Refused> {
    let place = args.cni.then(|| args.folders.place(None));
    let outcome = act(common, &args.node, |node| {
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
        // Before the kernel: no further pod is wired.
        if let Some(place) = place.as_ref().filter(|_| !node.dry_run) {
            place.take_entries().map_err(|e| NodeError::Unfit(vec![e.to_string()]))?;
        }
        node.uninstall()
    })?;
    if let Some(place) = place.filter(|_| outcome.1 && !args.node.dry_run) {
        place.take_binary().map_err(|e| e.to_string())?;
    }
    Ok(outcome)
}

fn act(
    common: &Common,
    args: &NodeArgs,
    verb: impl Fn(&Embedded) -> Result<Outcome, NodeError>,
) -> Result<(String, bool), Refused> {
    if !nix::unistd::geteuid().is_root() {
        return Err(Refused::failed(
            "this changes the node's network: run it as root (CAP_NET_ADMIN and CAP_SYS_ADMIN)",
        ));
    }
    let node = match args.dry_run {
        true => Embedded::look(&common.of_present_node()?),
        false => Embedded::open(&common.of_node()?),
    };
    let node = node.map_err(|e| e.to_string())?;
    let outcome = verb(&node).map_err(|e| e.to_string())?;
    let well = outcome.reports.iter().all(|(_, report)| report.failed.is_empty());
    let text = match common.output {
        super::Output::Json => json(&node.name, &outcome)?,
        super::Output::Text => text(&node.name, &outcome),
    };
    Ok((text, well))
}

fn json(node: &str, outcome: &Outcome) -> Result<String, String> {
    let items = outcome.reports.iter().map(|(place, report)| Item { place, report }).collect();
    let report = ReconcileReport {
        api_version: "egret.dev/v1alpha1",
        kind: "ReconcileReport",
        node,
        items,
        problems: &outcome.problems,
    };
    serde_json::to_string_pretty(&report).map(|text| text + "\n").map_err(|e| e.to_string())
}

fn text(node: &str, outcome: &Outcome) -> String {
    let mut text = String::new();
    for (place, report) in &outcome.reports {
        let place = if place == "node" { format!("node {node}") } else { format!("gateway {place}") };
        let counts =
            [(report.done.len(), "done"), (report.pending.len(), "to do"), (report.failed.len(), "failed")];
        let counts: Vec<String> =
            counts.iter().filter(|(n, _)| *n > 0).map(|(n, word)| format!("{n} {word}")).collect();
        let counts = if counts.is_empty() { "nothing to do".to_owned() } else { counts.join(", ") };
        let _ = writeln!(text, "{place}: {counts}, {} unchanged", report.unchanged);
        steps(&mut text, "+", &report.done);
        steps(&mut text, "~", &report.pending);
        for (step, why) in &report.failed {
            let _ = writeln!(text, "  ! {step}: {why}");
        }
    }
    if outcome.reports.is_empty() {
        let _ = writeln!(text, "node {node}: nothing to do: no pod here is a client or a gateway");
    }
    for problem in &outcome.problems {
        let _ = writeln!(text, "problem: {}", Shown(problem));
    }
    text
}

fn steps(text: &mut String, sign: &str, steps: &[Step]) {
    for step in steps {
        let _ = writeln!(text, "  {sign} {step}");
    }
}
