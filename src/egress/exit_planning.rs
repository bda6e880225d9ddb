//! This node's own gateways: their index, their interface's mark number, and what is missing for them to serve.
//!
//! In: what this node is, every node gateway that policies ask for. Out: the plan's exits, and problems. Never: decides which node is a
//! gateway or with which address; that was `resolve`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::addr::Family;
use crate::egress::model::NodeGateway;
use crate::egress::numbering::Numbering;
use crate::egress::numbers::{self, LAST_EXIT, mark};
use crate::egress::plan::{Door, Exit, Here};
use crate::problem::Problem;

/// The exits of a node, by index. One that is left out for want of a number has a problem, and its clients here are held.
pub fn exits(
    here: &Here,
    asked: &BTreeMap<String, NodeGateway>,
    numbering: &mut Numbering,
) -> (BTreeMap<u16, Exit>, Vec<Problem>) {
    let mut problems = Vec::new();
    let own: Vec<&NodeGateway> = asked.values().filter(|gateway| gateway.node == here.node).collect();
    numbering.retain_exits(&own.iter().map(|gateway| numbers::exit_mac(&gateway.key())).collect());
    let mut exits: BTreeMap<u16, Exit> = BTreeMap::new();
    for gateway in own {
        let key = gateway.key();
        let mac = numbers::exit_mac(&key);
        if let Some(twin) = exits.values().find(|exit| exit.mac == mac) {
            problems.push(met(here, gateway, &twin.key));
            continue;
        }
        let Some(slot) = numbering.door(&gateway.interface) else {
            problems.push(no_slot(here, gateway));
            continue;
        };
        let Some(index) = numbering.exit(mac) else {
            problems.push(no_index(here, gateway));
            continue;
        };
        let door = here.doors.get(&gateway.interface);
        let has = |ip: &&IpAddr| door.is_some_and(|door| door.addresses.contains(ip));
        let addresses: Vec<IpAddr> = gateway.addresses.iter().filter(has).copied().collect();
        problems.extend(missing(here, gateway, &addresses, door.is_some()));
        problems.extend(door.and_then(|door| leads_nowhere(here, gateway, &addresses, door)));
        let interface = gateway.interface.clone();
        exits.insert(index, Exit { key, mac, interface, addresses, slot });
    }
    (exits, problems)
}

fn problem(here: &Here, reason: &str, message: String) -> Problem {
    Problem::new(format!("Node {}", here.node), reason, message)
}

fn list<T: ToString>(items: impl IntoIterator<Item = T>) -> String {
    items.into_iter().map(|item| item.to_string()).collect::<Vec<_>>().join(" and ")
}

fn met(here: &Here, gateway: &NodeGateway, twin: &str) -> Problem {
    let message = format!(
        "node gateways {} and {twin} have the same MAC by chance (one in 268 million), so the first is not served: give it another \
         address",
        gateway.key()
    );
    problem(here, "NodeGatewaysMeet", message)
}

fn no_slot(here: &Here, gateway: &NodeGateway) -> Problem {
    let message = format!(
        "node {} has mark numbers for {} of its own gateways' pods and interfaces, and all are taken; node gateway {} is not served: \
         let node gateways leave by fewer interfaces, or run pod gateways on other nodes",
        here.node,
        mark::LOCALS.count(),
        gateway.key()
    );
    problem(here, "TooManyExitInterfaces", message)
}

fn no_index(here: &Here, gateway: &NodeGateway) -> Problem {
    let message = format!(
        "node {} is asked to be more than {LAST_EXIT} different gateways, one per interface and addresses; node gateway {} is not \
         served: let policies share addresses, or select other nodes",
        here.node,
        gateway.key()
    );
    problem(here, "TooManyNodeGateways", message)
}

/// Declared addresses that the interface has not got.
fn missing(here: &Here, gateway: &NodeGateway, has: &[IpAddr], exists: bool) -> Option<Problem> {
    let lost: Vec<&IpAddr> = gateway.addresses.iter().filter(|ip| !has.contains(ip)).collect();
    if lost.is_empty() {
        return None;
    }
    let (node, dev) = (&here.node, &gateway.interface);
    let why = if exists { format!("{dev} has not got it") } else { format!("there is no interface {dev}") };
    let lost = list(lost);
    let message = format!(
        "node {node} shall send with {lost} by {dev}, and {why}: what comes for it is dropped, never sent with another address. \
         `ip address add {lost} dev {dev}`, or change the policy's egressIP"
    );
    Some(problem(here, "EgressAddressMissing", message))
}

/// Families that have an address and no way beyond the interface's own subnets.
fn leads_nowhere(here: &Here, gateway: &NodeGateway, has: &[IpAddr], door: &Door) -> Option<Problem> {
    let stuck = |family: &Family| !door.routes.contains_key(&family.everything());
    let families: BTreeSet<Family> = has.iter().map(|ip| Family::of(*ip)).filter(stuck).collect();
    if families.is_empty() {
        return None;
    }
    let (node, dev, families) = (&here.node, &gateway.interface, list(&families));
    let message = if door.routes.is_empty() {
        format!(
            "{dev} of node {node} is down, so node gateway {} sends nothing: `ip link set {dev} up`",
            gateway.key()
        )
    } else {
        format!(
            "no table of node {node} has a default route by {dev} for {families}, so node gateway {} reaches nothing beyond \
             {dev}'s own subnets: add one, in a table of its own if `main` shall not use it",
            gateway.key()
        )
    };
    Some(problem(here, "NoWayOut", message))
}
