//! What an earlier agent heard of, for the next one to go on with: the copy on disk, read back before anybody is asked.
//!
//! In: the files that [`copy`](super::copy) writes, its marker, and the versions that it had come to. Out: objects in the mirror, in force until their kind is listed, or if it cannot be.
//! Never: counts as heard by this agent. Without it an agent that starts while a definition is gone, or the API server, knows less
//! than lies on its disk, and what it hears first would be copied over all the rest.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::copy::GATEWAY_PODS;
use super::marker;
use crate::api::NOT_SERVED;
use crate::kube::{Mirror, Watched, foreign};
use crate::node::standing::Standings;
use crate::store::{Dir, Inventory, Stamp, read_whole};

/// The last line of a marker; without it somebody wrote less than all.
const END: &str = "\nthese are all\n";

/// What the marker says of these files.
pub(super) fn marking(names: &[String]) -> String {
    names.join("\n") + END
}

/// The names of the files that an earlier agent left; `None`: none was here that had heard of everything. Where the marker does not say
/// which they are, or is gone while pods go by what its writer said of namespaces, it left all.
pub(super) fn left(dir: &Dir, node: &str) -> Option<BTreeSet<String>> {
    let said = read_whole(&marker(dir)).ok().map(|said| String::from_utf8_lossy(&said).into_owned());
    match said.as_deref().and_then(|said| said.strip_suffix(END)) {
        Some(names) => Some(names.lines().map(str::to_owned).collect()),
        None if said.is_some() || Standings::read(dir.path(), node).is_some() => Some(all()),
        None => None,
    }
}

/// A file of this node's copy of a cluster that is not there, or no whole file: by the rest nobody may decide which pods go through gateways.
/// Without a marker nobody has heard of everything here.
pub fn lacking(dir: &Dir, node: &str) -> Option<PathBuf> {
    let folder = dir.objects().join("cluster");
    let left = if marker(dir).exists() { left(dir, node)? } else { return None };
    left.into_iter().map(|name| folder.join(name)).find(|path| list(path).is_none())
}

/// The list of a file that is there, and whole.
fn list(path: &Path) -> Option<Value> {
    let list: Value = serde_json::from_slice(&read_whole(path).ok()?).ok()?;
    list["items"].is_array().then_some(list)
}

fn all() -> BTreeSet<String> {
    let names = Watched::of_a_node().filter_map(file).chain([GATEWAY_PODS]);
    names.map(|name| format!("{name}.json")).collect()
}

/// Reads it back, and says of which kinds; what cannot be read was never heard of. `marked`: the names of all files that the earlier agent
/// left. One of those that is not there, or no whole file, is lost.
pub(super) fn recall(
    mirror: &mut Mirror,
    own: &Inventory,
    marked: &BTreeSet<String>,
) -> BTreeMap<Watched, u64> {
    let mut files: BTreeMap<String, Value> = BTreeMap::new();
    for name in all() {
        let path = own.folder().join(&name);
        let stamp = Stamp::of(&path).ok();
        match list(&path) {
            Some(list) => {
                own.inherit(&name, stamp);
                files.insert(name, list);
            }
            None if marked.contains(&name) => own.inherit(&name, None),
            None => {}
        }
    }
    let mut recalled = BTreeMap::new();
    for kind in Watched::of_a_node() {
        if let Some(list) = file(kind).and_then(|name| files.get(&format!("{name}.json"))) {
            mirror.remember(kind, objects(list, kind));
            recalled.insert(kind, 0);
        }
    }
    recalled
}

/// How far each kind was heard of, as text: a line each, `v1/Namespace 1234`.
pub(super) fn versions(mirror: &Mirror) -> String {
    let known = Watched::of_a_node().map(|kind| (word(kind), mirror.newest(kind)));
    known.filter(|(_, version)| *version > 0).map(|(word, version)| format!("{word} {version}\n")).collect()
}

/// Whoever asks from now on is not told less than the earlier agent had heard: an API server whose memory lags answers with what was true
/// before, and clients of a policy that it does not know yet would be let go.
pub(super) fn go_on_from(mirror: &mut Mirror, versions: &str) {
    for kind in Watched::of_a_node() {
        let said = versions.lines().find_map(|line| line.strip_prefix(&word(kind))?.strip_prefix(' '));
        if let Some(version) = said.and_then(|version| version.parse().ok()) {
            mirror.stood(kind, version);
        }
    }
}

fn word(kind: Watched) -> String {
    let (version, word) = kind.typed();
    format!("{version}/{word}")
}

/// Where a kind's objects are; `None`: they are no objects that anybody decides by.
fn file(kind: Watched) -> Option<&'static str> {
    foreign::file(kind).or_else(|| kind.is_read().then(|| kind.typed().1))
}

fn objects(list: &Value, kind: Watched) -> Vec<Value> {
    let (version, word) = kind.typed();
    // Of what was not served nothing is in force; both of Calico's stores share a file.
    let is_it = |object: &&Value| {
        object["apiVersion"] == version
            && object["kind"] == word
            && object["metadata"]["annotations"][NOT_SERVED].is_null()
    };
    list["items"].as_array().into_iter().flatten().filter(is_it).cloned().collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kube::Reach;

    #[test]
    fn the_next_agent_goes_on_from_the_versions_that_were_reached_and_from_no_others() {
        let mirror = || Mirror::of(Reach::Node("node1".to_owned()));
        let (mut before, mut after) = (mirror(), mirror());
        before.reached(Watched::Namespaces, "812");
        before.reached(Watched::Pods, "97");
        let asked_for = json!({"metadata": {"namespace": "shop", "name": "cart", "resourceVersion": "99"}});
        before.learn(Watched::Pods, &asked_for);
        let written = versions(&before);
        assert_eq!(written.lines().count(), 2, "{written}");
        go_on_from(&mut after, &format!("{written}v1/Node none\nv1/Other 5\n"));
        let versions = Watched::of_a_node().map(|kind| (kind, after.version(kind)));
        let known: Vec<_> = versions.filter(|(_, version)| *version > 0).collect();
        assert_eq!(BTreeMap::from_iter(known), [(Watched::Namespaces, 812), (Watched::Pods, 99)].into());
        // A store that was put back counts anew, and the list that said so is the newest there is.
        after.is_put_back(Watched::Namespaces, "40");
        assert_eq!(after.version(Watched::Namespaces), 40);
    }
}
