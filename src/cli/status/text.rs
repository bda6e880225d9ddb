//! A node's status for people.
//!
//! In: the status, the time. Out: a head of a few lines and a table per thing that there is. Pure.

use std::fmt::Write;

use super::Item;
use crate::agent::state as agent;
use crate::cli::node::of_what_is_cut;
use crate::cli::paint::Paint;
use crate::cli::table::{Table, age};
use crate::egress::explain::Shown;
use crate::egress::model::PodName;
use crate::kernel::step::cut;
use crate::node::status::{Health, NodeStatus, RuleHere};
use crate::problem::Problem;

/// `now`: Unix seconds.
pub(super) fn text(item: &Item, problems: &[Problem], now: u64, paint: Paint) -> String {
    let mut text = String::new();
    let status = &item.node;
    head(&mut text, status, problems, paint);
    if status.tunnel.is_some() || item.agent_runs || item.agent.is_some() {
        agent(&mut text, item, now, paint);
    }
    let tables = [
        gateways(status),
        exits(status),
        clients(status),
        bindings(status),
        sets(status),
        firewall(status),
        drops(status),
    ];
    for table in tables.into_iter().filter(|table| !table.is_empty()) {
        let _ = write!(text, "\n{table}");
    }
    if !status.differences.is_empty() {
        let _ = writeln!(text, "\nto do, `egret reconcile` does it:");
        let mut steps = String::new();
        for missing in &status.differences {
            let place = if missing.place == "node" { String::new() } else { format!("{}: ", missing.place) };
            let _ = writeln!(steps, "  {place}{}", cut(missing.step.clone()));
        }
        text += &steps;
        text += of_what_is_cut(&steps);
    }
    if !problems.is_empty() {
        let _ = writeln!(text, "\nproblems:");
        for line in problems
            .iter()
            .flat_map(|problem| Shown(problem).to_string().lines().map(str::to_owned).collect::<Vec<_>>())
        {
            let _ = writeln!(text, "  {line}");
        }
    }
    text
}

fn head(text: &mut String, status: &NodeStatus, problems: &[Problem], paint: Paint) {
    let count = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
    let health = match status.health {
        Health::Idle => "nothing of Egret is wired here".to_owned(),
        Health::Well => paint.good("well: the kernel holds the plan"),
        Health::Degraded => {
            paint.doubtful(&format!("the kernel holds the plan, {}", count(problems.len(), "problem")))
        }
        Health::Differs => paint
            .bad(&format!("the kernel differs from the plan by {}", count(status.differences.len(), "step"))),
        Health::Unknown => paint.bad("nobody can say whether the kernel holds the plan"),
    };
    let _ = writeln!(text, "node {}: {health}", status.node);
    if let Some(tunnel) = &status.tunnel {
        let uplink = tunnel.uplink.as_ref().map(|dev| format!(" on {dev}")).unwrap_or_default();
        let _ = writeln!(text, "  underlay  {}{uplink}", tunnel.underlay);
        let _ = writeln!(
            text,
            "  tunnel    {}, VNI {}, UDP {}, MTU {}",
            tunnel.device, tunnel.vni, tunnel.port, tunnel.mtu
        );
    }
    let settings = &status.settings;
    if let (Some(ports), Some(value)) = (settings.hash_ports, &settings.hash_policy) {
        let wish = match (ports, value.as_str()) {
            (true, "1") => "flows are spread by addresses and ports",
            (true, _) => "as the host has it: no gateway set has several members",
            (false, _) => "left as the host has it",
        };
        let _ = writeln!(text, "  hash      {wish} (net.ipv4.fib_multipath_hash_policy is {value})");
    }
    for (i, (path, value)) in settings.saved.iter().enumerate() {
        let lead = if i == 0 { "saved" } else { "" };
        let _ = writeln!(
            text,
            "  {lead:9} {} was {value}, and will be again after `egret uninstall`",
            path.replace('/', ".")
        );
    }
    let pods = status.clients.len();
    if pods > 0 {
        let bindings = count(status.bindings.len(), "binding");
        let _ = writeln!(text, "  clients   {} in {bindings}", count(pods, "pod"));
    }
}

/// What the agent says of itself, in a line or three.
fn agent(text: &mut String, item: &Item, now: u64, paint: Paint) {
    let Some(agent) = &item.agent else {
        let line = if item.agent_runs { "runs, and has said nothing yet" } else { "none" };
        let _ = writeln!(text, "  agent     {line}");
        return;
    };
    let ago = |at: u64| age(now.saturating_sub(at));
    let health = match (item.agent_runs, agent.health) {
        (true, agent::Health::Well) => paint.good("well"),
        (true, agent::Health::Failing) => paint.bad("failing"),
        (true, health) => paint.doubtful(&format!("{health:?}").to_lowercase()),
        (false, agent::Health::Stopped) => "stopped".to_owned(),
        (false, _) => paint.bad("gone: it ended without a word, last"),
    };
    let since = ago(agent.since);
    let who = format!("process {}, release {}, started {} ago", agent.pid, agent.version, ago(agent.started));
    let _ = writeln!(text, "  agent     {health} since {since} ({who})");
    let updates = &agent.updates;
    if let Some(last) = updates.last {
        let (times, took, most) = (updates.changed, updates.last_millis, updates.longest_millis);
        let _ = writeln!(
            text,
            "  changes   {times} taken up, the last {} ago in {took} ms, the longest in {most} ms",
            ago(last)
        );
    }
    if !agent.repairs.is_empty() {
        let kinds = agent.repairs.iter().map(|(kind, repairs)| format!("{kind} {}", repairs.times));
        let last = agent.repairs.values().map(|repairs| repairs.last).max().unwrap_or_default();
        let _ = writeln!(text, "  repairs   {}; the last {} ago", list(kinds), ago(last));
    }
    let flushes = &agent.ruleset_flushes;
    if let Some(last) = flushes.last {
        let (times, most) = (flushes.times, flushes.longest_micros.div_ceil(1000));
        let said = format!("{times} by others, the last {} ago; at most {most} ms without rules", ago(last));
        let _ = writeln!(text, "  flushes   {}", paint.doubtful(&said));
    }
    if let Some(failure) = &agent.last_error {
        let _ = writeln!(text, "  failed    {} ago: {}", ago(failure.at), failure.message);
    }
}

fn named(pod: Option<&PodName>, attachment: &str) -> String {
    pod.map_or_else(|| attachment.to_owned(), ToString::to_string)
}

fn list<T: ToString>(all: impl IntoIterator<Item = T>) -> String {
    all.into_iter().map(|one| one.to_string()).collect::<Vec<_>>().join(", ")
}

fn gateways(status: &NodeStatus) -> Table {
    let mut table = Table::new(&["GATEWAY", "STATE", "EGRESS ADDRESS", "POOL", "WAY BACK"]);
    for gateway in &status.gateways {
        for lease in &gateway.leases {
            table.row([
                named(gateway.pod.as_ref(), &gateway.attachment),
                gateway.state.map(|state| format!("{state:?}").to_lowercase()).unwrap_or_default(),
                lease.address.to_string(),
                lease.pool.clone().unwrap_or_default(),
                lease.way_back.clone(),
            ]);
        }
    }
    table
}

fn exits(status: &NodeStatus) -> Table {
    let mut table = Table::new(&["NODE GATEWAY", "EGRESS ADDRESS", "WAY BACK"]);
    for exit in &status.node_gateways {
        let have = exit.addresses.iter().map(|ip| (ip, format!("the node's own on {}", exit.interface)));
        let lack = exit.missing.iter().map(|ip| (ip, format!("none: {} has not got it", exit.interface)));
        for (ip, way_back) in have.chain(lack) {
            table.row([exit.interface.clone(), ip.to_string(), way_back]);
        }
    }
    table
}

fn clients(status: &NodeStatus) -> Table {
    let mut table = Table::new(&["CLIENT", "ADDRESS", "BINDING"]);
    for client in &status.clients {
        table.row([
            named(client.pod.as_ref(), &client.attachment),
            list(&client.addresses),
            client.binding.clone(),
        ]);
    }
    table
}

fn bindings(status: &NodeStatus) -> Table {
    let mut table = Table::new(&["BINDING", "CLIENTS", "DESTINATION", "GOES"]);
    for binding in &status.bindings {
        for (i, rule) in binding.rules.iter().enumerate() {
            // Said once; the rows below are of the same binding.
            let (name, clients) = match i {
                0 => (binding.binding.clone(), binding.clients.to_string()),
                _ => (" ".to_owned(), " ".to_owned()),
            };
            table.row([name, clients, rule.destination.to_string(), goes(rule)]);
        }
    }
    table
}

fn goes(rule: &RuleHere) -> String {
    rule.set.map_or_else(|| rule.action.to_owned(), |mark| format!("to gateway set {mark:#04x}"))
}

fn sets(status: &NodeStatus) -> Table {
    let mut table = Table::new(&["SET", "GATEWAY", "NODE", "EGRESS ADDRESS", "REACHED AT"]);
    for set in &status.sets {
        for gateway in &set.gateways {
            table.row([
                format!("{:#04x}", set.mark),
                match &gateway.node {
                    Some(node) if gateway.pod.is_none() && gateway.key.starts_with("node/") => {
                        format!("node {node}")
                    }
                    _ => named(gateway.pod.as_ref(), &gateway.key),
                },
                gateway.node.clone().unwrap_or_default(),
                list(&gateway.addresses),
                gateway.underlay.map_or_else(|| "this node".to_owned(), |ip| ip.to_string()),
            ]);
        }
    }
    table
}

fn firewall(status: &NodeStatus) -> Table {
    let mut table = Table::new(&["HOOK", "PACKETS", "WENT IN", "CAME OUT", "DROPPED BY A FIREWALL HERE"]);
    for hook in status.firewall.iter().filter(|hook| hook.lost > 0) {
        table.row([
            hook.hook.to_owned(),
            hook.direction.to_owned(),
            hook.before.to_string(),
            hook.after.to_string(),
            hook.lost.to_string(),
        ]);
    }
    table
}

fn drops(status: &NodeStatus) -> Table {
    let mut table = Table::new(&["DROPPED OR REFUSED BY", "AT", "PACKETS"]);
    for drops in &status.drops {
        table.row([drops.rule.clone(), drops.place.clone(), drops.packets.to_string()]);
    }
    table
}
