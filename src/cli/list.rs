//! `egret list`: where every pod's traffic leaves.
//!
//! In: what is known, and which pods are asked for. Out: a table, or JSON. Never: changes anything.

use std::net::IpAddr;

use clap::Args;
use serde::Serialize;

use super::known::Known;
use super::paint::Paint;
use super::table::Table;
use super::{API_VERSION, Common, Output, Refused, json};
use crate::addr::Family;
use crate::egress::explain::{GatewayRow, Shown, Verdict};
use crate::egress::list::{Row, everyone, list};
use crate::egress::model::PodName;
use crate::egress::selector::Selector;
use crate::problem::Problem;
use crate::spelling;

/// Its arguments.
#[derive(Debug, Clone, Default, Args)]
pub struct ListArgs {
    /// Only these pods, as NAME or NAMESPACE/NAME
    #[arg(value_name = "POD")]
    pods: Vec<String>,
    /// Only pods whose labels this selector matches, as in app == 'cart'
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    selector: Option<String>,
    /// More columns: nodes, interfaces, reasons
    #[arg(short, long)]
    wide: bool,
}

/// The table as one JSON document.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub(super) struct ListReport {
    api_version: &'static str,
    kind: &'static str,
    /// One per pod address and destination prefix.
    items: Vec<Row>,
    /// What is true of gateways whatever the row.
    notes: Vec<String>,
    problems: Vec<Problem>,
}

/// Lists pods.
///
/// # Errors
/// Nothing is known, or a pod that was named is not there.
pub fn run(common: &Common, args: &ListArgs) -> Result<(String, bool), Refused> {
    let known = Known::look(common)?;
    let pods = asked(&known, common, args)?;
    let mut listing = list(&known.view, pods);
    for row in &mut listing.items {
        let family = row.destination.family();
        row.gateways.iter_mut().for_each(|gateway| known.forget_assumed(gateway, family));
    }
    let items = listing.items;
    let mut problems: Vec<Problem> =
        listing.problems.into_iter().map(|problem| known.objects.placed(problem)).collect();
    problems.extend(known.problems.iter().cloned());
    let mut seen = std::collections::BTreeSet::new();
    problems.retain(|problem| seen.insert(problem.clone()));
    let shown = |pod: &PodName| {
        let mut gateways = items.iter().flat_map(|row| &row.gateways);
        gateways.any(|gateway| gateway.usable && gateway.pod.as_ref() == Some(pod))
    };
    let notes: Vec<String> = known.note(shown).into_iter().collect();
    let report = ListReport { api_version: API_VERSION, kind: "List", items, notes, problems };
    let text = match common.output {
        Output::Json => json(&report)?,
        _ => report.text(&known, args.wide, Paint::of_stdout()),
    };
    Ok((text, true))
}

/// The pods that are meant.
fn asked(known: &Known, common: &Common, args: &ListArgs) -> Result<Vec<PodName>, Refused> {
    let selector = args.selector.as_deref().map(Selector::parse).transpose();
    let selector = selector.map_err(|error| Refused::misused(format!("--selector: {}", error.sentence())))?;
    let view = &known.view;
    let (node, namespace) = (common.node.as_deref(), common.cluster.namespace.as_ref());
    // A pod that exists and cannot be read is held, and nobody knows its labels or its node.
    let everyone = everyone(view);
    for named in &args.pods {
        if !everyone.iter().any(|pod| names(named, pod)) {
            let all: Vec<String> = everyone.iter().map(|pod| shortened(named, pod)).collect();
            let hint = spelling::nearest(named, &all.iter().map(String::as_str).collect::<Vec<_>>());
            let hint = hint.map_or_else(
                || "; `egret list` without a name shows those that are known".to_owned(),
                |near| format!("; did you mean {near}?"),
            );
            return Err(Refused::failed(format!("there is no pod {named}{hint}")));
        }
    }
    let meant = |pod: &PodName| {
        let object = view.pods.get(pod);
        // Who has ended has no traffic; by its name it is shown all the same.
        (args.pods.is_empty() && !known.ended.contains(pod)
            || args.pods.iter().any(|named| names(named, pod)))
            && namespace.is_none_or(|namespace| *namespace == pod.namespace)
            && selector.as_ref().is_none_or(|selector| object.is_some_and(|o| selector.matches(&o.labels)))
            && node.is_none_or(|node| object.is_some_and(|o| o.node.as_deref() == Some(node)))
    };
    Ok(everyone.into_iter().filter(meant).collect())
}

/// Whether a person's word for a pod means this one.
fn names(word: &str, pod: &PodName) -> bool {
    match word.split_once('/') {
        Some((namespace, name)) => namespace == pod.namespace && name == pod.name,
        None => word == pod.name,
    }
}

fn shortened(like: &str, pod: &PodName) -> String {
    if like.contains('/') { pod.to_string() } else { pod.name.clone() }
}

const NARROW: [&str; 7] =
    ["POD", "ADDRESS", "DESTINATION", "ACTION", "GATEWAY", "EGRESS ADDRESS", "DECIDED BY"];
const WIDE: [&str; 11] = [
    "POD",
    "ADDRESS",
    "DESTINATION",
    "ACTION",
    "GATEWAY",
    "EGRESS ADDRESS",
    "NODE",
    "NODE ADDRESS",
    "INTERFACE",
    "DECIDED BY",
    "REASON",
];

impl ListReport {
    fn text(&self, known: &Known, wide: bool, paint: Paint) -> String {
        if self.items.is_empty() {
            let none = match everyone(&known.view).len() {
                0 => "no pod\n".to_owned(),
                all => format!("no pod: of {all} that are known, none is what was asked for\n"),
            };
            return none + &self.below();
        }
        let mut table = Table::new(if wide { &WIDE } else { &NARROW });
        for row in &self.items {
            table.row(cells(row, known, wide, paint));
        }
        table.to_string() + &self.below()
    }

    /// What stands below the table.
    fn below(&self) -> String {
        let mut text = String::new();
        for note in &self.notes {
            text += &format!("note: {note}\n");
        }
        if !self.problems.is_empty() {
            text += "\nproblems:\n";
        }
        for problem in &self.problems {
            text += &Shown(problem).to_string().lines().map(|line| format!("  {line}\n")).collect::<String>();
        }
        text
    }
}

fn cells(row: &Row, known: &Known, wide: bool, paint: Paint) -> Vec<String> {
    let action = match row.action {
        Verdict::Gateway => paint.good("gateway"),
        Verdict::Direct => "direct".to_owned(),
        Verdict::Held => paint.bad("held"),
    };
    // Gateways that were only looked at are the reason's affair.
    let used: Vec<&GatewayRow> = row.gateways.iter().filter(|gateway| gateway.usable).collect();
    let family = row.destination.family();
    let gateway = |g: &GatewayRow| {
        g.pod.as_ref().map_or_else(|| "node".to_owned() + " " + &g.node, ToString::to_string)
    };
    let mut cells = vec![
        row.pod.to_string(),
        row.address.map(|ip| ip.to_string()).unwrap_or_default(),
        row.destination.to_string(),
        action,
        joined(&used, gateway),
        joined(&used, |g| egress(known, g, family)),
    ];
    let source = row.decided_by.as_ref();
    let object = source.map(|source| source.object.clone()).unwrap_or_default();
    if !wide {
        cells.push(object);
        return cells;
    }
    let written = |ip: Option<IpAddr>| ip.map(|ip| ip.to_string()).unwrap_or_default();
    cells.push(joined(&used, |g| g.node.clone()));
    cells.push(joined(&used, |g| written(g.node_address)));
    cells.push(joined(&used, |g| g.interface.clone().unwrap_or_default()));
    let field = source.map(|source| source.field.as_str()).filter(|field| !field.is_empty());
    cells.push(field.map_or(object.clone(), |field| format!("{object}: {field}")));
    cells.push(row.reason.chars().map(|c| if c.is_control() { '·' } else { c }).collect());
    cells
}

/// The address, or the pool that it will be of.
fn egress(known: &Known, gateway: &GatewayRow, family: Family) -> String {
    match (gateway.egress_address, known.pool(gateway, family)) {
        (Some(ip), _) => ip.to_string(),
        (None, Some(pool)) => format!("of {pool}"),
        (None, None) => String::new(),
    }
}

/// What gateways have, in one cell, each once.
fn joined(gateways: &[&GatewayRow], of: impl Fn(&GatewayRow) -> String) -> String {
    let mut texts: Vec<String> = Vec::new();
    for text in gateways.iter().map(|gateway| of(gateway)) {
        if !text.is_empty() && !texts.contains(&text) {
            texts.push(text);
        }
    }
    texts.join(", ")
}
