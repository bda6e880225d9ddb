//! `egret explain POD [DESTINATION]`.
//!
//! In: a pod's name, perhaps a destination. Out: text or JSON. Never: changes anything.

use std::net::{IpAddr, SocketAddr};

use clap::Args;

use super::known::Known;
use super::{Common, Output, Refused, json};
use crate::addr::Family;
use crate::egress::explain::{Explanation, Item, UNKNOWN_NAMESPACE, UNKNOWN_POD, explain};
use crate::egress::model::PodName;
use crate::problem::Problem;

/// Its arguments.
#[derive(Debug, Clone, Args)]
pub struct ExplainArgs {
    /// The pod, as NAMESPACE/NAME, or NAME with -n
    #[arg(value_name = "POD")]
    pod: String,
    /// An address outside; without it, every rule is shown
    #[arg(value_name = "DESTINATION", value_parser = destination)]
    destination: Option<IpAddr>,
}

/// Explains one pod; `false` if neither it nor its namespace is known, or not it, where every pod is.
///
/// # Errors
/// Nothing is known.
pub fn run(common: &Common, args: &ExplainArgs) -> Result<(String, bool), Refused> {
    let known = Known::look(common)?;
    let pod = pod(&args.pod, &known.namespace)?;
    let mut explanation = explain(&known.view, &pod, args.destination);
    explanation.doubt(&known.objects.unread());
    for item in &mut explanation.items {
        forget_assumed(&known, item);
    }
    let items = &explanation.items;
    let concerned = |pod: &PodName| {
        let mut gateways = items.iter().flat_map(|item| &item.gateways);
        gateways.any(|gateway| gateway.pod.as_ref() == Some(pod))
    };
    let note = known.note(concerned);
    explanation.notes.extend(note);
    let placed = explanation.problems.into_iter().map(|problem| known.objects.placed(problem));
    explanation.problems = placed.collect();
    // A machine without a cluster may have no Pod objects; in one a pod has its own before it has traffic.
    let is_missing = |problem: &Problem| known.of_cluster && problem.reason == UNKNOWN_POD;
    for problem in explanation.problems.iter_mut().filter(|problem| is_missing(problem)) {
        let next = format!("; `kubectl egret list -n {}` shows the pods that are there", pod.namespace);
        problem.message.push_str(&next);
    }
    explanation.problems.extend(known.problems);
    explanation.problems.dedup();
    // A name that nothing is known of is a slip of the pen: scripts must not take the answer for one about their pod.
    let is_slip = |problem: &Problem| problem.reason == UNKNOWN_NAMESPACE || is_missing(problem);
    let known = !explanation.items.is_empty() && !explanation.problems.iter().any(is_slip);
    Ok((print(&explanation, common.output)?, known))
}

/// The pod that a person means.
fn pod(word: &str, namespace: &str) -> Result<PodName, Refused> {
    let (namespace, name) = word.split_once('/').unwrap_or((namespace, word));
    let plain = |part: &str| {
        !part.is_empty() && !part.contains(|c: char| c == '/' || c.is_whitespace() || c.is_control())
    };
    if plain(namespace) && plain(name) {
        return Ok(PodName::new(namespace, name));
    }
    let sentence = format!("{word:?} names no pod; write NAMESPACE/NAME, or NAME with -n NAMESPACE");
    Err(Refused::misused(sentence))
}

/// The address that a person means; an IPv4 address in IPv6 clothes goes out as IPv4.
fn destination(word: &str) -> Result<IpAddr, String> {
    if let Ok(ip) = word.parse::<IpAddr>() {
        return Ok(ip.to_canonical());
    }
    let bare = word.split_once("://").map_or(word, |(_, rest)| rest);
    let bare = bare.split_once('/').map_or(bare, |(host, _)| host);
    let host = bare.parse::<SocketAddr>().map(|socket| socket.ip()).ok().or_else(|| {
        let host = bare.trim_start_matches('[').trim_end_matches(']');
        host.split_once('%').map_or(host, |(ip, _)| ip).parse().ok()
    });
    let bits = word.split_once('/').map(|(_, bits)| bits);
    Err(match host {
        Some(ip) if bits.is_some_and(|bits| bits.parse::<u8>().is_ok()) => format!(
            "it is a prefix, and the answer may differ inside it; write one address of it, as {ip}, or none, and every rule is shown"
        ),
        Some(ip) => format!("rules are by address alone; write {ip}"),
        None if bare.contains(|c: char| matches!(c.to_ascii_lowercase(), 'g'..='z')) => {
            "rules are by address, not by name; write an address that the name leads to".to_owned()
        }
        None => "it is no address; write one, as 203.0.113.9 or 2001:db8::9".to_owned(),
    })
}

/// Takes back the addresses that nobody has leased yet.
fn forget_assumed(known: &Known, item: &mut Item) {
    let address = item.destination.split('/').next().and_then(|text| text.parse().ok());
    let Some(family) = address.map(|ip: IpAddr| Family::of(ip)) else { return };
    for gateway in &mut item.gateways {
        let address = gateway.egress_address;
        known.forget_assumed(gateway, family);
        if gateway.egress_address.is_none() {
            item.sources.retain(|source| Some(*source) != address);
        }
    }
}

fn print(explanation: &Explanation, output: Output) -> Result<String, Refused> {
    match output {
        Output::Json => Ok(json(explanation)?),
        _ => Ok(explanation.to_string()),
    }
}
