//! What an earlier agent heard of, for the next one to go on with: the copy on disk, read back before anybody is asked.
//!
//! In: the files that [`copy`](super::copy) writes. Out: objects in the mirror, in force until their kind is listed, or if it cannot be.
//! Never: counts as heard by this agent. Without it an agent that starts while a definition is gone, or the API server, knows less
//! than lies on its disk, and what it hears first would be copied over all the rest.

use std::path::Path;

use serde_json::Value;

use crate::api::NOT_SERVED;
use crate::kube::{Mirror, Watched, foreign};
use crate::store::{Dir, read_whole};

/// Reads it back; what cannot be read was never heard of.
pub(super) fn recall(dir: &Dir, mirror: &mut Mirror) {
    let folder = dir.objects().join("cluster");
    for kind in Watched::of_a_node() {
        if let Some(objects) = file(kind).and_then(|name| read(&folder.join(format!("{name}.json")), kind)) {
            mirror.remember(kind, objects);
        }
    }
}

/// Where a kind's objects are; `None`: they are no objects that anybody decides by.
fn file(kind: Watched) -> Option<&'static str> {
    foreign::file(kind).or_else(|| kind.is_read().then(|| kind.typed().1))
}

fn read(path: &Path, kind: Watched) -> Option<Vec<Value>> {
    let mut list: Value = serde_json::from_slice(&read_whole(path).ok()?).ok()?;
    let (version, word) = kind.typed();
    let Value::Array(items) = list["items"].take() else { return None };
    // Of what was not served nothing is in force; both of Calico's stores share a file.
    let is_it = |object: &Value| {
        object["apiVersion"] == version
            && object["kind"] == word
            && object["metadata"]["annotations"][NOT_SERVED].is_null()
    };
    Some(items.into_iter().filter(is_it).collect())
}
