//! One case: its files become a state directory, its expected parts what is seen there.

use std::collections::BTreeSet;
use std::net::IpAddr;

use egret::addr::Mac;
use egret::cli::table::Table;
use egret::config::Config;
use egret::egress::list::{Row, everyone, list};
use egret::egress::model::{EgressAddress, Endpoint, EndpointState, PodName, View};
use egret::problem::Problem;

use crate::archive::Archive;
use crate::directory::Directory;

/// Parts of a case that are no files of the directory: the gateways that run, the configuration, and what is expected.
const PARTS: [&str; 4] = ["gateways", "config", "list", "problems"];

/// The case with what is seen in its expected parts. Pods of `common` are no clients and are not listed.
pub(crate) fn play(common: &Archive, mut case: Archive) -> Archive {
    let mut directory = Directory::of("n1");
    if let Some(config) = case.file("config") {
        let known = directory.config().clone();
        let asked = Config::from_json(&serde_json::from_str(config).unwrap()).unwrap();
        *directory.config() = Config {
            state_dir: known.state_dir,
            run_dir: known.run_dir,
            node_name: known.node_name,
            ..asked
        };
    }
    let before = furnish(&directory, common);
    let manifests = case.files.iter().filter(|(name, _)| !PARTS.contains(&name.as_str()));
    manifests.for_each(|(name, text)| directory.write(name, text));
    let (view, _) = directory.view();
    gateways(&directory, &view, case.file("gateways").unwrap_or_default());
    let (view, problems) = directory.view();
    let pods: Vec<PodName> = everyone(&view).into_iter().filter(|pod| !before.contains(pod)).collect();
    let listing = list(&view, pods);
    case.put("list", table(&listing.items));
    let said: BTreeSet<Problem> = problems.into_iter().chain(listing.problems).collect();
    let said: String = said.iter().map(|problem| format!("{}: {problem}\n", problem.reason)).collect();
    match said.as_str() {
        "" => case.files.retain(|(name, _)| name != "problems"),
        _ => case.put("problems", said),
    }
    case
}

/// Nodes, pools and gateways that all cases have.
fn furnish(directory: &Directory, common: &Archive) -> BTreeSet<PodName> {
    let manifests = common.files.iter().filter(|(name, _)| !PARTS.contains(&name.as_str()));
    manifests.for_each(|(name, text)| directory.write(name, text));
    let (view, problems) = directory.view();
    assert!(problems.is_empty(), "common.txt: {problems:?}");
    gateways(directory, &view, common.file("gateways").unwrap());
    view.pods.keys().cloned().collect()
}

/// `NAMESPACE/POD NODE STATE ADDRESS[,ADDRESS]`: what the gateway's node says of it. A later line replaces an earlier.
fn gateways(directory: &Directory, view: &View, lines: &str) {
    for line in lines.lines().filter(|line| !line.trim().is_empty()) {
        let [pod, node, state, ips] =
            <[&str; 4]>::try_from(line.split_whitespace().collect::<Vec<_>>()).unwrap();
        let (namespace, name) = pod.split_once('/').unwrap();
        let pool = |ip: IpAddr| view.pools.values().find(|pool| pool.cidr.contains(ip)).unwrap().name.clone();
        let ips = ips.split(',').map(|ip| ip.parse().unwrap());
        directory.endpoint(&Endpoint {
            pod: PodName::new(namespace, name),
            uid: None,
            attachment: format!("pods/{namespace}-{name}/eth0"),
            node: node.to_owned(),
            underlay: view.nodes[node].internal_ips.clone(),
            vni: 5000,
            mac: Mac([2, 0x67, 0, 0, 0, 1]),
            addresses: ips.map(|ip| EgressAddress::leased(ip, pool(ip))).collect(),
            state: state_of(state),
            generation: 0,
            problems: Vec::new(),
        });
    }
}

fn state_of(word: &str) -> EndpointState {
    serde_json::from_value(word.into()).unwrap()
}

fn table(rows: &[Row]) -> String {
    let mut table = Table::new(&[
        "POD",
        "ADDRESS",
        "DESTINATION",
        "ACTION",
        "GATEWAY",
        "NODE",
        "NODE ADDRESS",
        "EGRESS ADDRESS",
        "INTERFACE",
        "DECIDED BY",
        "WHY",
    ]);
    for row in rows {
        let action = serde_json::to_value(row.action).unwrap().as_str().unwrap().to_owned();
        let usable: Vec<_> = row.gateways.iter().filter(|gateway| gateway.usable).collect();
        let ip = |ip: Option<IpAddr>| ip.map(|ip| ip.to_string()).unwrap_or_default();
        let several = |cells: Vec<String>| cells.join(",");
        let by =
            row.decided_by.as_ref().map(|by| format!("{} {}", by.object, by.field).trim_end().to_owned());
        let held = action == "held";
        table.row([
            row.pod.to_string(),
            ip(row.address),
            row.destination.to_string(),
            action,
            several(
                usable
                    .iter()
                    .map(|g| g.pod.as_ref().map_or_else(|| "(node)".into(), ToString::to_string))
                    .collect(),
            ),
            several(usable.iter().map(|gateway| gateway.node.clone()).collect()),
            several(usable.iter().map(|gateway| ip(gateway.node_address)).collect()),
            several(usable.iter().map(|gateway| ip(gateway.egress_address)).collect()),
            several(usable.iter().filter_map(|gateway| gateway.interface.clone()).collect()),
            by.unwrap_or_default(),
            if held { row.reason.clone() } else { String::new() },
        ]);
    }
    table.to_string()
}
