//! Multus in front of the primary: which of a node's lists it hands pods on to. Pure.
//!
//! In: the lists of a folder, by the order of their names. Out: the one that our entry belongs into. Never: Multus's own file, which it
//! writes anew by itself.
//!
//! Multus's file is the first by name, so the runtime starts pods with it, and what it does is another list: it keeps a copy, or the
//! file's name. Where it finds that list by itself it takes the first that is not its own. A list of ours before that one, around
//! Multus, would be what Multus hands pods on to at its next start, and with it to itself.

use serde_json::Value;

use super::place::WRAPPED;

/// What Multus is called in a list: its daemon's deputy, or all of it.
const TYPES: [&str; 2] = ["multus-shim", "multus"];

/// A list of the folder.
#[derive(Debug)]
pub struct Known {
    /// The file's name.
    pub file: String,
    /// What it says.
    pub list: Value,
}

impl Known {
    /// Multus's entry, if it is Multus's file.
    pub fn multus(&self) -> Option<&Value> {
        let is_multus = |plugin: &&Value| TYPES.iter().any(|name| plugin["type"] == *name);
        let behind = self.list["plugins"].as_array().into_iter().flatten();
        Some(&self.list).into_iter().chain(behind).find(is_multus)
    }
}

/// The file that Multus hands pods on to; `None`: it is none of these.
pub fn master<'a>(multus: &Value, lists: &'a [Known]) -> Option<&'a str> {
    let mut others = lists.iter().filter(|known| {
        let is_read = !known.file.ends_with(".json"); // by Multus
        is_read && known.file != WRAPPED && known.multus().is_none()
    });
    let named = multus["clusterNetwork"].as_str();
    // As its container sees the folder.
    let file = named.and_then(|name| Some(name.rsplit_once('/')?.1)).filter(|file| *file != WRAPPED);
    let name = match named {
        Some(name) => Some(name).filter(|name| !name.contains('/')),
        None => multus["delegates"][0]["name"].as_str(),
    };
    let found = match (file, name) {
        (Some(file), _) => others.find(|known| known.file == file),
        (None, Some(name)) => others.find(|known| known.list["name"] == name),
        (None, None) => others.next(),
    };
    found.map(|known| known.file.as_str())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn lists(files: &[(&str, Value)]) -> Vec<Known> {
        files.iter().map(|(file, list)| Known { file: (*file).to_owned(), list: list.clone() }).collect()
    }

    fn list(name: &str, plugin: &str) -> Value {
        json!({"cniVersion": "1.0.0", "name": name, "plugins": [{"type": plugin}]})
    }

    #[test]
    fn multus_is_known_alone_and_in_a_list() {
        let alone = json!({"cniVersion": "0.3.1", "name": "multus-cni-network", "type": "multus-shim"});
        let of = lists(&[("a", alone), ("b", list("n", "multus")), ("c", list("n", "calico"))]);
        let is_multus: Vec<bool> = of.iter().map(|known| known.multus().is_some()).collect();
        assert_eq!(is_multus, [true, true, false]);
    }

    #[test]
    fn the_list_is_the_one_that_multus_says_or_would_take_next() {
        let known = lists(&[
            ("00-egret.conflist", list("around", "bridge")),
            ("00-multus.conflist", list("multus-cni-network", "multus")),
            ("05-first.json", list("unread", "bridge")),
            ("10-calico.conflist", list("k8s-pod-network", "calico")),
            ("20-other.conflist", list("other", "bridge")),
        ]);
        for (multus, file) in [
            (json!({}), Some("10-calico.conflist")),
            (json!({"delegates": []}), Some("10-calico.conflist")),
            (json!({"delegates": [{"name": "other", "plugins": []}]}), Some("20-other.conflist")),
            (json!({"delegates": [{"name": "written by hand", "type": "bridge"}]}), None),
            (json!({"clusterNetwork": "/host/etc/cni/net.d/20-other.conflist"}), Some("20-other.conflist")),
            (json!({"clusterNetwork": "other"}), Some("20-other.conflist")),
            (json!({"clusterNetwork": "/host/run/multus/cni/net.d/10-ovn-kubernetes.conf"}), None),
            (json!({"clusterNetwork": "/host/etc/cni/net.d/00-egret.conflist"}), Some("10-calico.conflist")),
        ] {
            assert_eq!(master(&multus, &known), file, "{multus}");
        }
    }
}
