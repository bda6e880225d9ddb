//! The mirror on disk: a file per kind, records of endpoints and nodes.
//!
//! In: the mirror. Out: files in the state directory, written when their kind has changed, and again when somebody else had a hand in
//! them. Never: writes a kind of which less is known than lies there, so that what an earlier agent knew stays in force until it was
//! listed.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::PathBuf;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use serde_json::{Value, json};

use super::{Cluster, PATIENCE, marker, recall, versions};
use crate::egress::model::{Endpoint, Pairs};
use crate::kube::{NodeSpec, Watched, foreign};
use crate::node::kept::Kept;
use crate::store::nodes::NodeRecord;
use crate::store::record::replace_text;
use crate::store::{Dir, Guard, Stamp, endpoints, interfaces, nodes};

/// The file of gateways' pods elsewhere; every other one has the name of a kind.
pub(super) const GATEWAY_PODS: &str = "GatewayPod";

/// What was copied.
#[derive(Debug, Default)]
pub(super) struct Copied {
    /// Generation of each kind that lies on disk; 0: as an earlier agent left it.
    pub(super) kinds: BTreeMap<Watched, u64>,
    /// How often files were found lost when that was so.
    losses: u64,
    /// Folders of records, as they were when their kinds were last compared with them.
    records: BTreeMap<PathBuf, Option<Stamp>>,
    /// What the marker says.
    marked: Option<String>,
    /// What is written of versions.
    versions: String,
}

impl Copied {
    /// Of these kinds an earlier agent left what it knew.
    pub(super) fn by_an_earlier_one(kinds: BTreeMap<Watched, u64>) -> Copied {
        Copied { kinds, ..Copied::default() }
    }
}

/// How closely the disk is looked at before anything is copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    /// By one question, because a call waits for it; what that does not tell is seen when the files are read.
    Glance,
    /// At every file.
    Close,
}

pub(super) struct Written<'a>(Option<&'a Kept>);

impl Drop for Written<'_> {
    fn drop(&mut self) {
        self.0.iter().for_each(|kept| kept.wrote());
    }
}

impl Cluster {
    /// Makes what was copied outlast the machine: after those who wait for it have it.
    pub(super) fn settle(&self) {
        let written = std::mem::take(&mut *self.unsettled.lock().unwrap_or_else(PoisonError::into_inner));
        for path in written {
            // What cannot be opened was replaced or is gone.
            if let Err(error) = File::open(&path).and_then(|file| file.sync_all()) {
                tracing::debug!(%error, path = %path.display(), "not made durable");
            }
        }
    }

    /// Brings the disk to what the mirror says. Whoever returns from here finds everything there that was in the mirror before.
    pub(super) fn copy(&self, look: Look) -> Result<(), String> {
        let mut copied = self.copied.lock().unwrap_or_else(PoisonError::into_inner);
        if self.adopts_others() {
            copied.kinds.retain(|kind, _| !kind.is_foreign());
        }
        if look == Look::Close {
            self.look_at_records(&mut copied)?;
        }
        let mut due = self.due(&copied);
        if look == Look::Close || !self.own.glance() {
            self.own.check();
            if self.take_back(&mut copied)? {
                due = self.due(&copied);
            }
        }
        if !due.is_empty() {
            self.note_versions(&mut copied)?;
        }
        for (kind, generation) in &due {
            self.copy_kind(*kind)?;
            copied.kinds.insert(*kind, *generation);
        }
        if let Some(lost) = self.own.lost() {
            let why = "was removed or changed by somebody, and nothing was heard yet from which it could be written again";
            return Err(format!("{} {why}", lost.display()));
        }
        if look == Look::Close || !due.is_empty() { self.mark(&mut copied) } else { Ok(()) }
    }

    /// Nothing is planned by less than was copied: says whether all of it lies on disk. What does not is written again first.
    pub(in crate::agent) fn restore(&self) -> Result<(), String> {
        if self.own.check() {
            return Ok(());
        }
        let copied = self.copy(Look::Close);
        match self.own.lost() {
            None => Ok(()),
            Some(lost) => copied.and_then(|()| Err(format!("{} was lost again", lost.display()))),
        }
    }

    /// Kinds of which something else is known than lies on disk.
    fn due(&self, copied: &Copied) -> Vec<(Watched, u64)> {
        let mirror = self.mirror();
        mirror.editions().filter(|(kind, edition)| copied.kinds.get(kind) != Some(edition)).collect()
    }

    /// Forgets what was copied, if any of it is lost: says whether it was.
    fn take_back(&self, copied: &mut Copied) -> Result<bool, String> {
        let losses = self.own.losses();
        if losses == copied.losses {
            return Ok(false);
        }
        // Whoever removed files may have removed all the rest.
        Dir::open(self.dir.path()).map_err(|e| e.to_string())?;
        copied.losses = losses;
        copied.kinds.clear();
        Ok(true)
    }

    /// Others write records, too, so all that is seen from outside is that there is something to be compared.
    fn look_at_records(&self, copied: &mut Copied) -> Result<(), String> {
        let dir = &self.dir;
        // Into a folder that somebody removed nothing can be copied, and then no call is answered.
        if !(dir.endpoints().is_dir() && dir.nodes().is_dir()) {
            Dir::open(dir.path()).map_err(|e| e.to_string())?;
        }
        for (kind, folder) in [
            (Watched::Endpoints, dir.endpoints()),
            (Watched::NodeRecords, dir.nodes()),
            (Watched::NodeRecords, dir.interfaces()),
        ] {
            let now = Stamp::of(&folder).ok();
            if copied.records.get(&folder) != Some(&now) {
                copied.kinds.remove(&kind);
                copied.records.insert(folder, now);
            }
        }
        Ok(())
    }

    fn copy_kind(&self, kind: Watched) -> Result<(), String> {
        let _written = self.writing();
        match kind {
            Watched::Endpoints => {
                self.copy_gateway_pods()?; // first: an endpoint without its pod is nobody's gateway
                self.copy_endpoints()
            }
            Watched::NodeRecords => self.copy_nodes(),
            kind if kind.is_foreign() => self.copy_foreign(kind),
            _ => {
                let text = listing(self.mirror().objects(kind).map(|(_, object)| object))?;
                self.copy_text(kind.typed().1, &text)?;
                if kind == Watched::Pods { self.copy_gateway_pods() } else { Ok(()) }
            }
        }
    }

    /// How far all that is copied was heard of. Before it is: a version that is ahead of its copy asks for a newer list than needed, one behind
    /// it for an older one.
    fn note_versions(&self, copied: &mut Copied) -> Result<(), String> {
        let text = recall::versions(&self.mirror());
        if copied.versions != text {
            self.keep(versions(&self.dir), &text)?;
            copied.versions = text;
        }
        Ok(())
    }

    /// A file in the node's own directory, which outlasts the machine a moment later.
    fn keep(&self, file: PathBuf, text: &str) -> Result<(), String> {
        replace_text(&file, text.as_bytes()).map_err(|e| format!("{}: {e}", file.display()))?;
        let folder = self.dir.path().to_owned();
        self.unsettled.lock().unwrap_or_else(PoisonError::into_inner).extend([file, folder]);
        Ok(())
    }

    /// Says for other programs and the next agent that everything was heard once, and by its files' names what that was.
    fn mark(&self, copied: &mut Copied) -> Result<(), String> {
        // What an earlier agent knew is whole again: its successor needs no more than it would have begun with.
        let all =
            || self.inherits || copied.kinds.len() == Watched::of_a_node().count() && self.is_numbered();
        if !self.is_synced() && !all() {
            return Ok(());
        }
        let (marker, text) = (marker(&self.dir), recall::marking(&self.own.names()));
        if copied.marked.as_ref() != Some(&text) || !marker.exists() {
            self.keep(marker, &text)?;
            copied.marked = Some(text);
        }
        if !self.synced.swap(true, Ordering::AcqRel) {
            tracing::info!("everything was heard of once");
        }
        Ok(())
    }

    /// Something is being written: with this value it is, however far it came, and whoever has read the files before reads them again.
    pub(super) fn writing(&self) -> Written<'_> {
        Written(self.kept.as_deref())
    }

    /// Takes up what the configuration adopts; says whether that is something else than before.
    fn adopts_others(&self) -> bool {
        let wanted = self.to_adopt();
        let mut adopted = self.adopted.lock().unwrap_or_else(PoisonError::into_inner);
        if *adopted == wanted {
            return false;
        }
        tracing::info!(?wanted, "other objects of Calico and Cilium are adopted");
        *adopted = wanted;
        true
    }

    /// Without its own number a node cannot plan.
    fn is_numbered(&self) -> bool {
        nodes::get(&self.dir, &self.node).is_ok_and(|record| record.is_some())
    }

    fn copy_objects(&self, name: &str, objects: &[Value]) -> Result<(), String> {
        self.copy_text(name, &listing(objects)?)
    }

    fn copy_text(&self, name: &str, text: &[u8]) -> Result<(), String> {
        let folder = self.own.folder();
        fs::create_dir_all(folder).map_err(|e| format!("cannot make {}: {e}", folder.display()))?;
        let file = folder.join(format!("{name}.json"));
        // Written for many reasons, and read again only if it says something else.
        let written = self.own.put(&format!("{name}.json"), text);
        if written.map_err(|e| format!("cannot write {}: {e}", file.display()))? {
            let folder = folder.to_owned();
            self.unsettled.lock().unwrap_or_else(PoisonError::into_inner).extend([file, folder]);
        }
        Ok(())
    }

    /// What of a project's kinds is served, and what is not, with the reason. Nothing before all of them were heard of once.
    fn copy_foreign(&self, kind: Watched) -> Result<(), String> {
        let project = || Watched::of_a_node().filter(|other| foreign::of(*other) == foreign::of(kind));
        let served = {
            let mirror = self.mirror();
            if project().any(|kind| !mirror.is_whole(kind)) {
                return Ok(());
            }
            foreign::served(&mirror, &self.adopted.lock().unwrap_or_else(PoisonError::into_inner))
        };
        let mut ours =
            served.into_iter().filter(|(name, _)| project().any(|kind| foreign::file(kind) == Some(name)));
        ours.try_for_each(|(name, objects)| self.copy_objects(name, &objects))
    }

    /// Gateways' pods elsewhere, by what their nodes' agents say of them: their labels are what selectors look at.
    fn copy_gateway_pods(&self) -> Result<(), String> {
        let pods: Vec<Value> = {
            let mirror = self.mirror();
            if mirror.generation(Watched::Pods) == 0 || mirror.generation(Watched::Endpoints) == 0 {
                return Ok(());
            }
            let elsewhere = |(e, _): &(Endpoint, Pairs)| {
                // A pod of this name that is here now is another one.
                e.node != self.node && mirror.object(Watched::Pods, &e.pod.to_string()).is_none()
            };
            let mut pods: BTreeMap<String, Value> = BTreeMap::new();
            for (endpoint, labels) in mirror.gateways().into_iter().filter(elsewhere) {
                let metadata = json!({
                    "namespace": endpoint.pod.namespace, "name": endpoint.pod.name, "uid": endpoint.uid, "labels": labels,
                });
                let spec = json!({"nodeName": endpoint.node});
                let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec});
                pods.insert(endpoint.pod.to_string(), pod);
            }
            pods.into_values().collect()
        };
        self.copy_objects(GATEWAY_PODS, &pods)
    }

    fn guard(&self) -> Result<Guard, String> {
        self.dir.lock("the copy of the cluster", PATIENCE).map_err(|e| e.to_string())
    }

    /// Others' endpoints as they say. Our own lie there before anybody is told.
    fn copy_endpoints(&self) -> Result<(), String> {
        let said = self.mirror().endpoints();
        let guard = self.guard()?;
        let (known, _) = endpoints::list(&self.dir).map_err(|e| e.to_string())?;
        let theirs = |e: &&Endpoint| e.node != self.node;
        for gone in known.iter().filter(theirs).filter(|k| !said.iter().any(|s| s.attachment == k.attachment))
        {
            endpoints::remove(&self.dir, &guard, &gone.attachment).map_err(|e| e.to_string())?;
        }
        for endpoint in said.iter().filter(theirs).filter(|said| !known.contains(said)) {
            endpoints::hear(&self.dir, &guard, endpoint).map_err(|e| e.to_string())?;
        }
        Ok(())
    }

    fn copy_nodes(&self) -> Result<(), String> {
        let said = self.mirror().nodes();
        let guard = self.guard()?;
        let (known, _) = nodes::list(&self.dir).map_err(|e| e.to_string())?;
        let known: BTreeMap<String, NodeRecord> = known.into_iter().map(|r| (r.name.clone(), r)).collect();
        for gone in known.keys().filter(|name| !said.contains_key(*name) && **name != self.node) {
            nodes::remove(&self.dir, &guard, gone).map_err(|e| e.to_string())?;
            let _ = fs::remove_file(self.dir.interfaces().join(format!("{gone}.json")));
        }
        for NodeSpec { node, number, wire, interfaces } in said.into_values() {
            let last = known.get(&node);
            let next_vni = last.map_or(nodes::FIRST_VNI, |record| record.next_vni);
            let record = NodeRecord { name: node.clone(), number, wire, next_vni };
            if last != Some(&record) {
                nodes::hear(&self.dir, &guard, &record).map_err(|e| e.to_string())?;
            }
            if let Some(interfaces) = interfaces.filter(|_| node != self.node) {
                interfaces::put(&self.dir, &node, &interfaces).map_err(|e| e.to_string())?;
            }
        }
        Ok(())
    }
}

/// A list of objects as a file has it, a line for each. Made of what is lent: a thousand namespaces are not copied to be written.
fn listing<'a>(objects: impl IntoIterator<Item = &'a Value>) -> Result<Vec<u8>, String> {
    let mut text = br#"{"apiVersion": "v1", "kind": "List", "items": ["#.to_vec();
    for (n, object) in objects.into_iter().enumerate() {
        text.extend_from_slice(if n == 0 { b"\n" } else { b",\n" });
        serde_json::to_writer(&mut text, object).map_err(|e| e.to_string())?;
    }
    text.extend_from_slice(b"\n]}\n");
    Ok(text)
}
