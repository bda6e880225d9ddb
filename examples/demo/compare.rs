//! Predictions beside what the outside saw.
//!
//! In: a world and its pods. Out: a table, and how many of its rows differ. Both halves come from where a user would take
//! them: `egret explain -o json` on the pod's node, and servers outside that say whom they saw.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind, IsTerminal};
use std::net::IpAddr;

use egret::addr::Family;
use egret::cli::table::Table;
use egret::egress::explain::{Explanation, Verdict};
use egret::testbed::{Outside, Pod, World, node_address};
use serde_json::Value;

use super::Stopped;

/// A table and its verdict.
pub(super) struct Compared {
    pub(super) text: String,
    /// Rows whose prediction did not come true.
    pub(super) differences: usize,
}

/// Every pod but the gateways, in both families.
pub(super) fn table(world: &World, pods: &[Pod]) -> Result<Compared, Stopped> {
    let mut table = Table::new(&["POD", "RAN ON", "EXPLAIN SAYS", "PREDICTED", "SEEN OUTSIDE", ""]);
    let mut differences = 0;
    for pod in pods.iter().filter(|pod| pod.name.namespace != "gw") {
        for family in Family::BOTH {
            let to = Outside::Near.address(family);
            let (says, predicted) = prediction(world, pod, to)?;
            let seen = seen(pod, to);
            let right = comes_true(&predicted, &seen);
            differences += usize::from(!right);
            table.row([
                pod.name.to_string(),
                format!("node{}", pod.node),
                says,
                list(&predicted),
                shown(&seen),
                verdict(right),
            ]);
        }
    }
    Ok(Compared { text: table.to_string(), differences })
}

/// What explain says of a pod and an address, and the sources that follow from it. None: nothing leaves.
fn prediction(world: &World, pod: &Pod, to: IpAddr) -> Result<(String, BTreeSet<IpAddr>), Stopped> {
    let (name, to_text) = (pod.name.to_string(), to.to_string());
    let explanation: Explanation =
        serde_json::from_value(json(world, pod.node, &["explain", &name, &to_text])?)?;
    let [item] = explanation.items.as_slice() else {
        return Err(format!("explain {name} {to} has {} answers", explanation.items.len()).into());
    };
    Ok(match item.action {
        Verdict::Gateway => ("gateway".to_owned(), item.sources.iter().copied().collect()),
        // "As the primary network does": here the primary hides pods behind their node.
        Verdict::Direct => ("direct".to_owned(), BTreeSet::from([node_address(pod.node, Family::of(to))])),
        Verdict::Held => ("held".to_owned(), BTreeSet::new()),
    })
}

/// By each means: the source that the outside saw, or why nothing came.
type Seen = [(&'static str, io::Result<IpAddr>); 4];

fn seen(pod: &Pod, to: IpAddr) -> Seen {
    [("TCP", pod.tcp(to)), ("UDP", pod.udp(to)), ("HTTP", pod.http(to)), ("ICMP", pod.ping(to))]
}

fn comes_true(predicted: &BTreeSet<IpAddr>, seen: &Seen) -> bool {
    seen.iter().all(|(_, seen)| match seen {
        Ok(source) => predicted.contains(source),
        // Held is said at once; silence would be a lost packet, and that nobody predicted.
        Err(error) => predicted.is_empty() && !is_silence(error),
    })
}

fn is_silence(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock)
}

/// `10.10.10.0 (TCP, ICMP), 10.10.10.1 (UDP, HTTP)`; without the means where all saw the same.
fn shown(seen: &Seen) -> String {
    let mut means: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for (by, seen) in seen {
        let what = match seen {
            Ok(source) => source.to_string(),
            Err(error) if is_silence(error) => "silence".to_owned(),
            // How a refusal reads differs by means and family; that it came counts.
            Err(_) => "refused".to_owned(),
        };
        means.entry(what).or_default().push(by);
    }
    let all = means.len() == 1;
    let part = |(what, by): (&String, &Vec<&str>)| {
        if all { what.clone() } else { format!("{what} ({})", by.join(", ")) }
    };
    means.iter().map(part).collect::<Vec<_>>().join(", ")
}

fn list(predicted: &BTreeSet<IpAddr>) -> String {
    let texts: Vec<String> = predicted.iter().map(ToString::to_string).collect();
    if texts.is_empty() { "nothing".to_owned() } else { texts.join(" or ") }
}

/// The last column, so that colours on a terminal move nothing.
fn verdict(right: bool) -> String {
    let (word, colour) = if right { ("as predicted", 32) } else { ("DIFFERS", 31) };
    if io::stdout().is_terminal() { format!("\x1b[{colour}m{word}\x1b[0m") } else { word.to_owned() }
}

/// Who leases what, from `egret ipam show`.
pub(super) fn leases(world: &World) -> Result<String, Stopped> {
    let mut table = Table::new(&["GATEWAY", "RUNS ON", "EGRESS ADDRESS", "POOL"]);
    let row = |lease: &Value| {
        [&lease["pod"], &lease["holder"]["node"], &lease["address"], &lease["pool"]].map(word)
    };
    let mut rows: Vec<[String; 4]> = items(world)?.iter().map(row).collect();
    rows.sort();
    for row in rows {
        table.row(row);
    }
    Ok(table.to_string())
}

/// How many addresses the books do not call free.
pub(super) fn addresses_in_use(world: &World) -> Result<usize, Stopped> {
    Ok(items(world)?.len())
}

fn items(world: &World) -> Result<Vec<Value>, Stopped> {
    Ok(json(world, 1, &["ipam", "show"])?["items"].as_array().cloned().unwrap_or_default())
}

fn word(value: &Value) -> String {
    match (value.as_str(), value["namespace"].as_str(), value["name"].as_str()) {
        (Some(text), ..) => text.to_owned(),
        (None, Some(namespace), Some(name)) => format!("{namespace}/{name}"),
        _ => String::new(),
    }
}

/// Runs `egret …` on node 1 and gives what it printed.
pub(super) fn command(world: &World, arguments: &[&str]) -> Result<String, Stopped> {
    run(world, 1, arguments)
}

fn json(world: &World, node: u8, arguments: &[&str]) -> Result<Value, Stopped> {
    Ok(serde_json::from_str(&run(world, node, &[arguments, &["-o", "json"]].concat())?)?)
}

fn run(world: &World, node: u8, arguments: &[&str]) -> Result<String, Stopped> {
    let list = world.conflist_path(node).display().to_string();
    let output = world.egret(node, &[arguments, &["--config", &list]].concat())?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("node{node}: egret {} failed: {}", arguments.join(" "), said.trim()).into());
    }
    Ok(String::from_utf8(output.stdout)?)
}
