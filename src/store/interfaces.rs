//! Interfaces of nodes in the directory: `interfaces/NODE.json`.
//!
//! In: files, each written by its node, or by a person who put there what `ip -j address` printed. Out: [`Interfaces`] by node; a file
//! that cannot be read is a problem that names it. Never: guesses; what a node's kernel says now is the caller's.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::IpAddr;

use serde::Deserialize;

use super::record::{file_name, replace_file};
use super::{Dir, DirError, read_whole};
use crate::egress::interfaces::{Interface, Interfaces};
use crate::egress::numbers::LINK_GROUP;
use crate::problem::Problem;

/// What the folder says.
#[derive(Debug, Default)]
pub struct Said {
    /// By node.
    pub interfaces: BTreeMap<String, Interfaces>,
    /// Nodes whose file cannot be understood, with the reason. What they said last may still hold.
    pub torn: BTreeMap<String, Problem>,
}

/// Everything that nodes say. No folder: nobody has said anything.
///
/// # Errors
/// The folder cannot be listed. Never taken for "nobody says anything": that would hold pods.
pub fn list(dir: &Dir) -> Result<Said, DirError> {
    let folder = dir.interfaces();
    let unlisted = |source| DirError::Unusable { path: folder.clone(), source };
    let mut said = Said::default();
    let entries = match fs::read_dir(&folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(said),
        entries => entries.map_err(unlisted)?,
    };
    for entry in entries {
        let path = entry.map_err(unlisted)?.path();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let Some(node) = name.strip_suffix(".json").filter(|node| !node.starts_with('.')) else { continue };
        match read_whole(&path).map_err(|e| e.to_string()).and_then(|text| parse(&text)) {
            Ok(found) => drop(said.interfaces.insert(node.to_owned(), found)),
            Err(why) => {
                let message = format!(
                    "interfaces/{name} cannot be read: {why}. What it said last is believed, if anything: write there what \
                     `ip -j address` prints on node {node}, or run `egret reconcile` there"
                );
                said.torn.insert(
                    node.to_owned(),
                    Problem::new(format!("Node {node}"), "InterfacesUnreadable", message),
                );
            }
        }
    }
    Ok(said)
}

/// Writes what a node says of itself, if the file says anything else; whether it was written. A person's file about a live node is
/// replaced: the kernel knows better, and every node must read the same.
///
/// # Errors
/// It cannot be written; the old content stays.
pub fn put(dir: &Dir, node: &str, now: &Interfaces) -> io::Result<bool> {
    let path = dir.interfaces().join(format!("{}.json", file_name(node)));
    if read_whole(&path).is_ok_and(|text| parse(&text).as_ref() == Ok(now)) {
        return Ok(false);
    }
    fs::create_dir_all(dir.interfaces())?;
    replace_file(&path, now)?;
    Ok(true)
}

/// Ours is an object, `ip -j address` prints a list.
fn parse(text: &[u8]) -> Result<Interfaces, String> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Either {
        Ours(Interfaces),
        Printed(Vec<Printed>),
    }
    match serde_json::from_slice::<serde_json::Value>(text).map_err(|e| e.to_string())? {
        value @ (serde_json::Value::Object(_) | serde_json::Value::Array(_)) => {
            let unlike = "it is neither what `egret reconcile` writes nor what `ip -j address` prints";
            match serde_json::from_value(value).map_err(|_| unlike.to_owned())? {
                Either::Ours(interfaces) => Ok(interfaces),
                Either::Printed(links) => Ok(printed(links)),
            }
        }
        _ => Err("it is neither an object nor a list".to_owned()),
    }
}

/// One link of `ip -j address`, as far as it matters.
#[derive(Deserialize)]
struct Printed {
    ifname: Option<String>,
    #[serde(default)]
    altnames: Vec<String>,
    #[serde(default)]
    flags: Vec<String>,
    #[serde(default)]
    group: String,
    #[serde(default)]
    addr_info: Vec<PrintedAddress>,
}

#[derive(Deserialize)]
struct PrintedAddress {
    local: Option<IpAddr>,
    #[serde(default)]
    scope: String,
    #[serde(default)]
    temporary: bool,
    #[serde(default)]
    deprecated: bool,
    #[serde(default)]
    dadfailed: bool,
}

fn printed(links: Vec<Printed>) -> Interfaces {
    let ours = LINK_GROUP.to_string();
    // An old `ip` prints an empty object for a device that it filtered out.
    let serves = |link: &Printed| {
        let up = link.flags.iter().any(|flag| flag == "UP");
        up && link.group != ours && link.ifname.as_deref() != Some("lo")
    };
    let interface = |link: Printed| {
        // As `kernel::devices` has them: what passes comes last.
        let mut reachable: Vec<_> = link.addr_info.into_iter().filter(|a| a.scope == "global").collect();
        reachable.sort_by_key(|a| a.temporary || a.deprecated || a.dadfailed);
        let addresses: Vec<IpAddr> = reachable.into_iter().filter_map(|a| a.local).collect();
        let name = link.ifname.filter(|_| !addresses.is_empty())?;
        Some(Interface { name, altnames: link.altnames, addresses, ways: None })
    };
    let links = links.into_iter().filter(serves).filter_map(interface).collect();
    Interfaces { links, ..Interfaces::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRINTED: &str = r#"[{"ifindex":1,"ifname":"lo","flags":["LOOPBACK","UP"],"group":"default","addr_info":[{"family":"inet","local":"127.0.0.1","prefixlen":8,"scope":"host"}]},
        {},
        {"ifname":"eth1","altnames":["enp1s0"],"flags":["BROADCAST","UP","LOWER_UP"],"group":"default","addr_info":[
            {"family":"inet","local":"192.0.2.7","prefixlen":24,"scope":"global","label":"eth1"},
            {"family":"inet6","local":"2001:db8::99","prefixlen":64,"scope":"global","temporary":true},
            {"family":"inet6","local":"2001:db8::7","prefixlen":64,"scope":"global"},
            {"family":"inet6","local":"fe80::7","prefixlen":64,"scope":"link"}]},
        {"ifname":"egress.vxlan","flags":["UP"],"group":"4097","addr_info":[{"local":"169.254.77.1","scope":"global"}]},
        {"ifname":"eth2","flags":["BROADCAST"],"group":"default","addr_info":[{"local":"192.0.2.8","scope":"global"}]}]"#;

    fn folder(name: &str) -> (std::path::PathBuf, Dir) {
        let path = std::env::temp_dir().join(format!("egret-interfaces-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        let dir = Dir::open(&path).unwrap();
        (path, dir)
    }

    #[test]
    fn what_ip_prints_is_read_without_what_leads_nowhere() {
        let read = parse(PRINTED.as_bytes()).unwrap();
        let addresses = ["192.0.2.7", "2001:db8::7", "2001:db8::99"].map(|ip| ip.parse().unwrap()).to_vec();
        let eth1 = Interface { name: "eth1".into(), altnames: vec!["enp1s0".into()], addresses, ways: None };
        assert_eq!(read, Interfaces { links: vec![eth1], default4: None, default6: None });
    }

    #[test]
    fn what_a_node_says_is_read_back_and_written_only_when_it_changed() {
        let (path, dir) = folder("put");
        let mut now = parse(PRINTED.as_bytes()).unwrap();
        now.default4 = Some("eth1".into());
        assert!(put(&dir, "n1", &now).unwrap() && !put(&dir, "n1", &now).unwrap());
        assert_eq!(list(&dir).unwrap().interfaces["n1"], now);
        now.links[0].ways = Some(vec!["192.0.2.0/24".parse().unwrap(), "0.0.0.0/0".parse().unwrap()]);
        assert!(put(&dir, "n1", &now).unwrap() && !put(&dir, "n1", &now).unwrap());
        assert_eq!(list(&dir).unwrap().interfaces["n1"], now);
        now.links.clear();
        assert!(put(&dir, "n1", &now).unwrap());
        assert_eq!(list(&dir).unwrap().interfaces["n1"], now);
        fs::remove_dir_all(path).unwrap();
    }

    #[test]
    fn what_a_node_of_an_older_release_says_is_read() {
        let older = br#"{"links": [{"name": "eth1", "addresses": ["192.0.2.7"]}], "default4": "eth1"}"#;
        let read = parse(older).unwrap();
        assert_eq!((read.links[0].name.as_str(), &read.links[0].ways), ("eth1", &None));
    }

    #[test]
    fn a_torn_file_is_named_and_the_others_are_read() {
        let (path, dir) = folder("torn");
        assert!(list(&dir).unwrap().interfaces.is_empty(), "nobody has said anything");
        put(&dir, "n1", &Interfaces::default()).unwrap();
        for (node, text) in [("n2", "[{\"ifname\":"), ("n3", "7"), ("n4", "{\"links\": 1}"), ("n5", "")] {
            fs::write(dir.interfaces().join(format!("{node}.json")), text).unwrap();
        }
        let said = list(&dir).unwrap();
        assert_eq!(said.interfaces.keys().collect::<Vec<_>>(), ["n1"]);
        assert_eq!(said.torn.keys().collect::<Vec<_>>(), ["n2", "n3", "n4", "n5"]);
        assert!(said.torn["n2"].message.contains("interfaces/n2.json"));
        fs::remove_dir_all(path).unwrap();
    }
}
