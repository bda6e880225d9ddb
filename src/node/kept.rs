//! What a node that lives on keeps from one update to the next, so that a change costs what it touches.
//!
//! In: each situation's view and pods; each plan's inputs; the directory. Out: the decisions and the plan that would be made from
//! nothing, the objects that a new reader would find. Never: trusts that it knows what changed; whatever is not as it was, but for
//! decisions about one pod, is a new beginning.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use crate::addr::Cidr;
use crate::config::Config;
use crate::egress::model::{Endpoint, Namespace, PodName, Resolution, View};
use crate::egress::numbering::Numbering;
use crate::egress::plan::{Here, LocalPod, NodePlan};
use crate::egress::planning::{Inputs, Planned};
use crate::egress::resolve::{Common, Live};
use crate::kernel::conntrack;
use crate::node::attachment::LastRecords;
use crate::node::memory::LastPlans;
use crate::node::sweeps::Sweeps;
use crate::node::unborne::Unborne;
use crate::problem::Problem;
use crate::store::nodes::{self, NodeRecord};
use crate::store::objects::{Objects, ObjectsError};
use crate::store::{Dir, Inventory, RecordError, endpoints, looks};

/// Objects as they were last read; decisions and plan of the last update.
#[derive(Default)]
pub struct Kept {
    last: Mutex<Last>,
    objects: Mutex<Option<Objects>>,
    /// How often files of objects were written by this process, where nobody else writes them; 0: others do.
    written: AtomicU64,
    /// Those files, where this process alone writes them.
    own: OnceLock<Arc<Inventory>>,
    /// Which directory was last looked at whole, and how often that had been then.
    looked_at: Mutex<Option<(PathBuf, u64)>>,
    outline: Mutex<Option<Outline>>,
    records: Records<NodeRecord>,
    endpoints: Records<Endpoint>,
    /// Records of attachments.
    pub(crate) attachments: Arc<LastRecords>,
    pub(super) sweeps: Arc<Sweeps>,
    pub(super) unborne: Unborne,
    /// Plans as they lie in the node's own directory.
    pub(crate) plans: Arc<LastPlans>,
}

/// What every decision needs, of objects with these fingerprints. A cluster's pods come and go; what is not a pod stays.
struct Outline {
    fingerprint: u64,
    without_pods: u64,
    /// Of what the view is made of.
    own: u64,
    config: Config,
    view: View,
    /// Those that were decoded for earlier pods.
    namespaces: BTreeMap<String, Namespace>,
    /// What decisions by this view have in common, once one was made; they depend on namespaces, too.
    common: Option<Common>,
}

/// What was made of a folder's records, for as long as the folder looks so.
type Records<T> = Mutex<Option<(u64, Arc<Vec<T>>)>>;

/// Made again when a file came, went or was replaced. A folder with anything that is no record is read each time.
fn unless_changed<T>(
    last: &Records<T>,
    folder: &Path,
    list: impl FnOnce() -> Result<(Vec<T>, Vec<Problem>), RecordError>,
) -> Result<(Arc<Vec<T>>, Vec<Problem>), RecordError> {
    let looks = looks(folder);
    let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, known)) = last.as_ref().filter(|(seen, _)| *seen == looks) {
        return Ok((Arc::clone(known), Vec::new()));
    }
    let (records, problems) = list()?;
    let records = Arc::new(records);
    *last = problems.is_empty().then(|| (looks, Arc::clone(&records)));
    Ok((records, problems))
}

#[derive(Default)]
struct Last {
    live: Option<Live>,
    /// Pods that were decided about otherwise since the plan was made.
    changed: BTreeSet<PodName>,
    made: Option<Made>,
}

/// A plan, and what else it was made from.
struct Made {
    here: Here,
    locals: Vec<LocalPod>,
    inside: Vec<Cidr>,
    planned: Planned,
}

impl Kept {
    /// The objects. Of many who ask at once one reads, and while nothing changed nobody does.
    ///
    /// # Errors
    /// As [`Objects::open`].
    pub fn objects(&self, state_dir: &Path) -> Result<Objects, ObjectsError> {
        let written = self.written.load(Ordering::Acquire);
        let mut last = self.objects.lock().unwrap_or_else(PoisonError::into_inner);
        let objects = self.as_written(|| Objects::open_again(state_dir, last.as_ref()))?;
        *last = Some(objects.clone());
        *self.looked_at() = Some((state_dir.to_owned(), written));
        Ok(objects)
    }

    /// The same for a call that needs what this process wrote, and no more: in a cluster the API says what objects there are, and their
    /// files are the agent's own. Should somebody write one of them all the same, the loop hears of it.
    ///
    /// # Errors
    /// As [`Objects::open`].
    pub fn objects_as_written(&self, state_dir: &Path) -> Result<Objects, ObjectsError> {
        let written = self.written.load(Ordering::Acquire);
        let is_current = |(dir, seen): &(PathBuf, u64)| written > 0 && *seen == written && dir == state_dir;
        let is_current = self.looked_at().as_ref().is_some_and(is_current);
        let known = is_current.then(|| self.objects.lock().unwrap_or_else(PoisonError::into_inner).clone());
        known.flatten().map_or_else(|| self.objects(state_dir), Ok)
    }

    /// Files of objects that this process alone writes. From now on nothing is believed that was read while one of them was not there
    /// as it was written.
    pub fn owns(&self, own: Arc<Inventory>) {
        let _ = self.own.set(own); // Err: it was told already
    }

    fn as_written(
        &self,
        read: impl FnOnce() -> Result<Objects, ObjectsError>,
    ) -> Result<Objects, ObjectsError> {
        let Some(own) = self.own.get() else { return read() };
        let losses = own.losses();
        let objects = read()?;
        match own.held_since(losses) {
            true => Ok(objects),
            false => Err(ObjectsError::Lost(own.lost().unwrap_or_else(|| own.folder().to_owned()))),
        }
    }

    /// Files of objects were written just now, by who alone does.
    pub fn wrote(&self) {
        self.written.fetch_add(1, Ordering::AcqRel);
    }

    fn looked_at(&self) -> MutexGuard<'_, Option<(PathBuf, u64)>> {
        self.looked_at.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The objects, for who was told of every change since anybody read them: only these files are read, and the cache is left to
    /// [`Objects::keep`]. `None`: all must be looked at.
    pub fn follow(&self, state_dir: &Path, told: &BTreeSet<PathBuf>) -> Option<Objects> {
        let mut last = self.objects.lock().unwrap_or_else(PoisonError::into_inner);
        let told = told.iter().map(PathBuf::as_path);
        let follow = || Objects::follow(state_dir, last.as_ref()?, told);
        let objects =
            self.as_written(|| follow().ok_or_else(|| ObjectsError::Missing(state_dir.to_owned()))).ok()?;
        *last = Some(objects.clone());
        Some(objects)
    }

    /// What every decision needs of these objects.
    pub fn outline(&self, objects: &Objects, config: &Config) -> View {
        let mut last = self.outline.lock().unwrap_or_else(PoisonError::into_inner);
        Outline::current(&mut last, objects, config).clone()
    }

    /// The same with some pods, lent for a moment, because a copy of five hundred nodes takes longer than a decision about one pod; and
    /// what earlier decisions found out about policies. Who has it may change pods, namespaces and interfaces, and nothing else.
    pub fn lend<T>(
        &self,
        objects: &Objects,
        config: &Config,
        pods: &[PodName],
        decide: impl FnOnce(&mut View, &mut Option<Common>) -> T,
    ) -> T {
        let mut last = self.outline.lock().unwrap_or_else(PoisonError::into_inner);
        let mut outline = std::mem::take(Outline::current(&mut last, objects, config));
        // What a panic leaves half-changed is not found again.
        let mut known = last.take();
        let namespaces = known
            .iter_mut()
            .flat_map(|known| pods.iter().filter_map(|pod| known.namespaces.remove_entry(&pod.namespace)));
        outline.namespaces.extend(namespaces);
        let mut view = objects.with_pods(outline, pods, Vec::new());
        let mut common = known.as_mut().and_then(|known| known.common.take());
        let decided = decide(&mut view, &mut common);
        let none = View::default();
        let namespaces = std::mem::take(&mut view.namespaces);
        let view = View { pods: none.pods, interfaces: none.interfaces, endpoints: none.endpoints, ..view };
        if let Some(mut known) = known {
            known.namespaces.extend(namespaces);
            *last = Some(Outline { view, common, ..known });
        }
        decided
    }

    /// The numbers of nodes; read again when a file came, went or was replaced.
    ///
    /// # Errors
    /// As [`nodes::list`].
    pub fn records(&self, dir: &Dir) -> Result<(Arc<Vec<NodeRecord>>, Vec<Problem>), RecordError> {
        unless_changed(&self.records, &dir.nodes(), || nodes::list(dir))
    }

    /// The endpoints, by the same rule.
    ///
    /// # Errors
    /// As [`endpoints::list`].
    pub fn endpoints(&self, dir: &Dir) -> Result<(Vec<Endpoint>, Vec<Problem>), RecordError> {
        let (endpoints, problems) =
            unless_changed(&self.endpoints, &dir.endpoints(), || endpoints::list(dir))?;
        Ok((Arc::unwrap_or_clone(endpoints), problems))
    }

    /// Looks for numbers of gateways that no flow carries, in the calling thread's namespace, where few are left.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn number_ahead(&self, plan: &NodePlan) -> Result<(), conntrack::Error> {
        self.unborne.replenish(plan)
    }

    /// Decisions about these pods, by this view.
    pub fn resolution(&self, view: &Arc<View>, pods: BTreeSet<PodName>) -> Resolution {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        // Taken out: what a panic leaves half-changed is not found again.
        let (live, changed) = match last.live.take() {
            Some(mut live) => {
                let changed = live.follow(Arc::clone(view), &pods);
                (live, changed)
            }
            None => (Live::of(Arc::clone(view), pods), None),
        };
        match changed {
            Some(changed) => last.changed.extend(changed),
            None => last.made = None,
        }
        last.live.insert(live).resolution().clone()
    }

    /// The plan from these inputs, with the numbers of `before`, the plan last applied.
    pub fn plan(&self, before: Option<&NodePlan>, inputs: &Inputs<'_>, numbering: &mut Numbering) -> Planned {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = std::mem::take(&mut last.changed);
        let made = last.made.take().filter(|made| before == Some(&made.planned.plan) && made.serves(inputs));
        // Who changed the view after the decisions were made has another copy of it.
        let ours = last.live.as_ref().is_some_and(|live| std::ptr::eq(live.view(), inputs.view));
        let mut planned =
            match made.filter(|made| ours && changed.len() < 2 && made.planned.problems.is_empty()) {
                Some(Made { mut planned, .. }) => {
                    let anew = cfg!(debug_assertions).then(|| Planned::of(inputs, &mut numbering.clone()));
                    changed.iter().for_each(|pod| planned.follow(inputs, pod, numbering));
                    debug_assert_eq!(
                        Some(&planned),
                        anew.as_ref(),
                        "a plan that followed is not that from nothing"
                    );
                    planned
                }
                None => Planned::of(inputs, numbering),
            };
        if let Some(before) = before {
            planned.plan.nodes.share(&before.nodes);
            planned.plan.here.uplinks.share(&before.here.uplinks);
        }
        last.made = ours.then(|| Made {
            here: inputs.here.clone(),
            locals: inputs.locals.to_vec(),
            inside: inputs.inside.to_vec(),
            planned: planned.clone(),
        });
        planned
    }
}

impl Outline {
    fn current<'a>(last: &'a mut Option<Outline>, objects: &Objects, config: &Config) -> &'a mut View {
        let known = last.take().filter(|known| known.config == *config);
        let known = known.and_then(|known| known.still_of(objects)).unwrap_or_else(|| {
            let view = objects.outline(config);
            Outline {
                fingerprint: objects.fingerprint(),
                without_pods: objects.fingerprint_without_pods(),
                own: objects.fingerprint_of_outline(),
                config: config.clone(),
                view,
                namespaces: BTreeMap::new(),
                common: None,
            }
        });
        &mut last.insert(known).view
    }

    /// The same of these objects, if nothing differs that it is made of.
    fn still_of(self, objects: &Objects) -> Option<Outline> {
        let fingerprint = objects.fingerprint();
        if fingerprint == self.fingerprint {
            return Some(self);
        }
        let without_pods = objects.fingerprint_without_pods();
        if without_pods == self.without_pods {
            return Some(Outline { fingerprint, ..self });
        }
        let is_same = objects.fingerprint_of_outline() == self.own;
        is_same.then_some(Outline {
            fingerprint,
            without_pods,
            namespaces: BTreeMap::new(),
            common: None,
            ..self
        })
    }
}

impl Made {
    fn serves(&self, inputs: &Inputs<'_>) -> bool {
        self.here == *inputs.here && self.locals == inputs.locals && self.inside == inputs.inside
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::store::dir::tests::scratch;

    #[test]
    fn a_namespace_is_decoded_once_until_it_says_something_else() {
        let (dir, _clean) = scratch();
        let (kept, config, pod) = (Kept::default(), Config::default(), PodName::new("shop", "cart"));
        let write = |team: &str| {
            let text = format!(
                "apiVersion: v1\nkind: Namespace\nmetadata: {{name: shop, labels: {{team: {team}}}}}\n"
            );
            fs::create_dir_all(dir.join("objects")).unwrap();
            fs::write(dir.join("objects/shop.yaml"), text).unwrap();
        };
        let lent = || {
            let objects = kept.objects(&dir).unwrap();
            kept.lend(&objects, &config, std::slice::from_ref(&pod), |view, _| view.namespaces.clone())
        };
        let decoded = || {
            let outline = kept.outline.lock().unwrap();
            outline.iter().flat_map(|known| known.namespaces.keys().cloned()).collect::<Vec<_>>()
        };
        write("blue");
        for _ in 0..2 {
            assert_eq!(lent()["shop"].labels["team"], "blue");
            assert_eq!((lent().len(), decoded()), (1, vec!["shop".to_owned()]));
        }
        write("crimson");
        assert_eq!(lent()["shop"].labels["team"], "crimson");
        fs::remove_file(dir.join("objects/shop.yaml")).unwrap();
        assert!(lent().is_empty() && decoded().is_empty());
    }
}
