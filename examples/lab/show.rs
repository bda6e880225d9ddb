//! What a lab holds, as tables, and what to try next.

use std::fmt::Write as _;
use std::io::Write as _;

use egret::addr::Family;
use egret::testbed::{Outside, Pod, World, node_address, node_lease_address, pod_network};

/// Asks the outside about every pod and prints it all. `lab`: how the script is called for this one.
pub(super) fn status(world: &World, lab: &str) {
    let mut out = String::new();
    let topology = world.topology();
    let chained = if topology.egret.is_some() { ", then egret" } else { "" };
    let _ = writeln!(out, "{:?}{chained}; masquerade {:?}\n", topology.primary, topology.masquerade);
    let mut table = vec![["NODE", "ADDRESS", "LEASE SUBNET", "PODS"].map(str::to_owned).to_vec()];
    for n in topology.node_numbers() {
        let family = Family::V4;
        let cells = [node_address(n, family).to_string(), node_lease_address(n, family).to_string()];
        let pods = pod_network(n, family).to_string();
        table.push(vec![format!("node{n}"), cells[0].clone(), cells[1].clone(), pods]);
    }
    print_table(&mut out, &table);
    out.push('\n');
    let mut table =
        vec![["POD", "NODE", "ADDRESS", "SEEN OUTSIDE", "SEEN OUTSIDE, IPV6"].map(str::to_owned).to_vec()];
    for pod in world.pods() {
        let address = pod.address(Family::V4).or(pod.address(Family::V6));
        let seen = Family::BOTH.map(|f| seen(&pod, f));
        let (name, node) = (pod.name.to_string(), format!("node{}", pod.node));
        let address = address.map_or_else(|| "-".to_owned(), |ip| ip.to_string());
        table.push([vec![name, node, address], seen.to_vec()].concat());
    }
    print_table(&mut out, &table);
    let [v4, v6] = Family::BOTH.map(|f| Outside::Near.address(f));
    let mut tries = vec![format!("{lab} exec demo/plain curl -s http://{v4}/        (or http://[{v6}]/)")];
    if topology.egret.is_some() {
        tries.push(format!("{lab} exec node1 egret explain demo/client1"));
        tries.push(format!("{lab} del demo/gateway; {lab} status"));
        tries
            .push(format!("{lab} add 1 demo/more -a \"egress.projectcalico.org/selector=app == 'gateway'\""));
    }
    tries.push(format!("{lab} exec router tcpdump -ni eth0"));
    let _ = writeln!(out, "\nTry:  {}", tries.join("\n      "));
    // A reader that went away (`| head`) is no failure.
    let _ = std::io::stdout().write_all(out.as_bytes());
}

fn seen(pod: &Pod, family: Family) -> String {
    if pod.address(family).is_none() {
        return "-".to_owned();
    }
    match pod.http(Outside::Near.address(family)) {
        Ok(ip) => ip.to_string(),
        Err(error) => format!("nothing ({})", error.kind()),
    }
}

fn print_table(out: &mut String, rows: &[Vec<String>]) {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width =
        |c: usize| rows.iter().filter_map(|r| r.get(c)).map(|cell| cell.chars().count()).max().unwrap_or(0);
    for row in rows {
        let cells = (0..columns).zip(row).map(|(c, cell)| format!("{cell:<0$}", width(c)));
        let _ = writeln!(out, "{}", cells.collect::<Vec<_>>().join("  ").trim_end());
    }
}
