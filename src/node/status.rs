//! How this node is: what it was wired for, whether its kernel still holds that, what was dropped, who announces what.
//!
//! In: the node's own files, the directory, the kernel. Out: a [`NodeStatus`]. Never: changes anything; what cannot be read without
//! rights is left out, and a problem says so.

mod counts;
mod pods;
mod shape;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;

use crate::addr::Cidr;
use crate::egress::model::Announce;
use crate::egress::numbers;
use crate::egress::plan::{Exit, NodePlan, Uplink, Verdict};
use crate::node::embedded::{Embedded, NodeError};
use crate::problem::Problem;
use crate::store::endpoints;
use counts::{counted, drops, firewall};
use pods::Names;
pub use shape::*;

/// Path below `/proc/sys` of the one setting of the whole host that is a matter of choice.
const HASH_POLICY: &str = "net/ipv4/fib_multipath_hash_policy";

/// Everything about this node.
pub fn status(node: &Embedded) -> (NodeStatus, Vec<Problem>) {
    let mut problems = Vec::new();
    let attachments = node.listing(None).unwrap_or_else(|error| {
        problems.push(unread(&error));
        Default::default()
    });
    let (endpoints, torn) = endpoints::list(&node.dir).unwrap_or_else(|error| {
        problems.push(unread(&error.into()));
        Default::default()
    });
    problems.extend(torn);
    let plan = node.memory.applied().map(|applied| applied.plan);
    let names = Names { attachments: &attachments.attachments, endpoints: &endpoints };
    let wired = plan.as_ref().is_some_and(|plan| !plan.is_idle());
    let (differences, kernel_read) = differences(node, &mut problems);
    let counted = if wired { counted(plan.as_ref(), &names, &mut problems) } else { Vec::new() };
    let health = match (kernel_read, differences.is_empty(), problems.is_empty()) {
        (false, ..) => Health::Unknown,
        (true, false, _) => Health::Differs,
        (true, true, false) => Health::Degraded,
        (true, true, true) if wired => Health::Well,
        (true, true, true) => Health::Idle,
    };
    let plan = plan.as_ref();
    let status = NodeStatus {
        node: node.name.clone(),
        health,
        tunnel: plan.map(tunnel),
        gateways: plan.map(|plan| names.gateways(plan, &pools(node))).unwrap_or_default(),
        node_gateways: plan.map(exits).unwrap_or_default(),
        clients: plan.map(|plan| names.clients(plan)).unwrap_or_default(),
        bindings: plan.map(bindings).unwrap_or_default(),
        sets: plan.map(|plan| names.sets(plan)).unwrap_or_default(),
        differences,
        settings: Settings {
            hash_ports: plan.map(|plan| plan.here.hash_ports),
            hash_policy: setting(HASH_POLICY),
            saved: node.memory.saved_settings(),
        },
        firewall: firewall(&counted),
        drops: drops(&counted),
    };
    problems.dedup();
    (status, problems)
}

fn unread(error: &NodeError) -> Problem {
    Problem::new("", "Unreadable", error.to_string())
}

fn setting(path: &str) -> Option<String> {
    let text = std::fs::read_to_string(Path::new("/proc/sys").join(path)).ok()?;
    Some(text.trim().to_owned())
}

/// Pools whose addresses somebody else routes to the node.
fn pools(node: &Embedded) -> BTreeSet<String> {
    let objects = node.objects().ok();
    let quiet = objects
        .iter()
        .flat_map(crate::store::objects::Objects::pools)
        .filter(|(_, p)| p.announce == Announce::None);
    quiet.map(|(name, _)| name).collect()
}

/// Steps that a reconcile would take, and whether that could be found out.
fn differences(node: &Embedded, problems: &mut Vec<Problem>) -> (Vec<Difference>, bool) {
    let outcome = match node.must_be_its_directory().and_then(|()| node.reconcile()) {
        Ok(outcome) => outcome,
        Err(error) => {
            let root = nix::unistd::geteuid().is_root();
            let hint = if root { "" } else { "; run it as root to compare the kernel with its plan" };
            problems.push(Problem::new(
                format!("Node {}", node.name),
                "NotCompared",
                format!("{error}{hint}"),
            ));
            return (Vec::new(), false);
        }
    };
    problems.extend(outcome.problems);
    let missing = outcome.reports.iter().flat_map(|(place, report)| {
        report.pending.iter().map(move |step| Difference { place: place.clone(), step: step.to_string() })
    });
    (missing.collect(), true)
}

fn tunnel(plan: &NodePlan) -> Tunnel {
    let here = &plan.here;
    let holds = |uplink: &&Uplink| uplink.addresses.iter().any(|(ip, _)| *ip == here.underlay);
    Tunnel {
        device: numbers::TUNNEL,
        underlay: here.underlay,
        uplink: here.uplinks.iter().find(holds).map(|uplink| uplink.dev.clone()),
        vni: here.vni,
        port: here.port,
        mtu: here.tunnel_mtu,
    }
}

fn exits(plan: &NodePlan) -> Vec<ExitHere> {
    let exit = |exit: &Exit| {
        let wanted = exit.key.rsplit('/').next().unwrap_or_default().split(',');
        let wanted = wanted.filter_map(|ip| ip.parse::<IpAddr>().ok());
        ExitHere {
            key: exit.key.clone(),
            interface: exit.interface.clone(),
            addresses: exit.addresses.clone(),
            missing: wanted.filter(|ip| !exit.addresses.contains(ip)).collect(),
        }
    };
    plan.exits.values().map(exit).collect()
}

fn bindings(plan: &NodePlan) -> Vec<BindingHere> {
    let rule = |(destination, verdict): (&Cidr, &Verdict)| {
        let (action, set) = match verdict {
            Verdict::Direct => ("direct", None),
            Verdict::Held => ("held", None),
            Verdict::Set(mark) => ("gateway", Some(*mark)),
        };
        RuleHere { destination: *destination, action, set }
    };
    let clients = |chain: &str| {
        let of_chain = plan.clients.values().filter(|client| client.binding == *chain);
        of_chain.map(|client| &client.attachment).collect::<BTreeSet<_>>().len()
    };
    let here = plan.bindings.iter().map(|(chain, binding)| BindingHere {
        binding: chain.clone(),
        clients: clients(chain),
        rules: binding.rules.iter().map(rule).collect(),
    });
    here.collect()
}
