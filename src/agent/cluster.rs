//! A cluster as the agent sees it: what is followed goes into the state directory, what this node says goes to the API.
//!
//! In: a client, the node's directory. Out: files that the loop reads like any user's, so that planning, "never empty by mistake" and a
//! start without an API server are one piece of code with the embedded mode; objects that other nodes' agents follow.
//! Never: touches a kernel, or removes a file because something could not be asked.

mod beat;
mod copy;
mod fresh;
mod gate;
mod held;
mod lives;
mod owed;
mod part;
mod recall;
mod refused;
mod say;
mod tell;
mod told;

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::agent::calls::Calls;
use crate::agent::in_force::InForce;
use crate::agent::passing::Passing;
use crate::config::Project;
use crate::egress::model::PodName;
use crate::ipam::{Holder, Store};
use crate::kube::{Access, ApiError, Client, ClusterStore, Following, Mirror, Reach, foreign};
use crate::node::books::Books;
use crate::node::kept::Kept;
use crate::probes::metrics::Metrics;
use crate::probes::turns::{Loop, Turns};
use crate::problem::Problem;
use crate::store::{Dir, Inventory, read_whole};
use copy::{Copied, Look};
use fresh::Fresh;
use held::Ledger;
use lives::Gateways;
use owed::Owed;
use part::Part;
pub use recall::lacking;
use refused::Unsaid;
use say::Said;
pub use told::NOT_SEEN;

/// How often this node's own files are looked at, should nobody have rung.
const LOOK: Duration = Duration::from_millis(250);
/// How often gateways are looked at, should nothing have changed: their wiring may have. And every file of the copy.
const SELDOM: Duration = Duration::from_secs(1);
/// How often everything is compared, whatever it looks like.
const REGULARLY: Duration = Duration::from_secs(10);
/// Pause after something could not be said; each further one doubles it.
const RETRY: Duration = Duration::from_millis(500);
/// The longest pause.
const LONGEST: Duration = Duration::from_secs(10);
/// How long the directory's lock is waited for.
const PATIENCE: Duration = Duration::from_secs(10);

/// A cluster, followed.
pub struct Cluster {
    client: Arc<Client>,
    mirror: Arc<Mutex<Mirror>>,
    bell: SyncSender<()>,
    dir: Dir,
    config: InForce,
    node: String,
    /// What was adopted when foreign kinds were last copied.
    adopted: Mutex<BTreeSet<Project>>,
    /// An earlier agent of this node had heard of everything.
    inherits: bool,
    copied: Mutex<Copied>,
    /// The files of objects among them.
    own: Arc<Inventory>,
    /// Who keeps what was read of the files.
    kept: Option<Arc<Kept>>,
    /// Files that were written, and that the disk may not have yet.
    unsettled: Mutex<BTreeSet<PathBuf>>,
    fresh: Fresh,
    /// What is counted.
    metrics: Arc<Metrics>,
    synced: AtomicBool,
    turns: Arc<Turns>,
    /// Rings for the thread that says.
    voice: SyncSender<()>,
    /// Addresses of gateways here that the books have as somebody else's.
    unheld: Mutex<Vec<Problem>>,
    /// What others do not hear of this node.
    unsaid: Mutex<Unsaid>,
    /// Leases to be given back.
    owed: Mutex<Owed>,
    /// Who knows of clients whose traffic passes by.
    passing: Arc<OnceLock<Passing>>,
    /// Whom talking makes way for.
    calls: Calls,
    /// Endpoints on disk say what this agent found. Until then one may be of a life before the machine's last start.
    seen_gateways: AtomicBool,
    /// Selected pods that were started without us.
    unwired: Arc<Mutex<BTreeSet<PodName>>>,
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cluster({:?}, node {})", self.client.access(), self.node)
    }
}

impl Cluster {
    /// Begins to follow. The threads live as long as the process.
    ///
    /// # Errors
    /// Credentials that cannot be used, or no thread.
    pub fn follow(
        access: Access,
        dir: Dir,
        config: InForce,
        node: &str,
        (kept, metrics, calls): (Option<Arc<Kept>>, Arc<Metrics>, Calls),
    ) -> Result<Arc<Cluster>, ApiError> {
        let client = Arc::new(Client::new(access)?);
        let unstarted = |e: std::io::Error| ApiError::Access(format!("no thread can be started: {e}"));
        let adopted = config.now().adopt.clone();
        let own = Arc::new(Inventory::of(dir.objects().join("cluster")));
        let mut mirror = Mirror::of(Reach::Node(node.to_owned()));
        // Of a first start that never heard of everything, nothing is in force.
        let left = recall::left(&dir, node);
        let recalled = left.map(|names| recall::recall(&mut mirror, &own, &names));
        if let Some(said) = read_whole(&versions(&dir)).ok().filter(|_| recalled.is_some()) {
            recall::go_on_from(&mut mirror, &String::from_utf8_lossy(&said));
        }
        // Before anybody is asked: who refuses would be heard as saying that there is nothing.
        let following =
            Following::from(&client, mirror, |kind| foreign::of(kind).is_some_and(|p| adopted.contains(&p)));
        let following = following.map_err(unstarted)?;
        // With less than the earlier agent left nothing is decided: what is lost has to be heard first.
        let synced = recalled.is_some() && own.lost().is_none();
        kept.iter().for_each(|kept| kept.owns(own.clone()));
        let passing = Arc::new(OnceLock::new());
        let turns = Arc::new(Turns::default());
        let unwired = Arc::new(Mutex::default());
        let beat = beat::Beat::new(client.clone(), node, (passing.clone(), unwired.clone()), turns.clone());
        let (voice, rung) = sync_channel(1);
        let cluster = Arc::new(Cluster {
            client,
            mirror: following.shared(),
            bell: following.bell(),
            dir,
            config,
            node: node.to_owned(),
            adopted: Mutex::new(adopted),
            inherits: recalled.is_some(),
            copied: Mutex::new(Copied::by_an_earlier_one(recalled.unwrap_or_default())),
            own,
            kept,
            unsettled: Mutex::default(),
            fresh: Fresh::default(),
            metrics,
            synced: AtomicBool::new(synced),
            turns,
            voice,
            unheld: Mutex::default(),
            unsaid: Mutex::default(),
            owed: Mutex::new(Owed::unknown()),
            passing,
            calls,
            seen_gateways: AtomicBool::new(false),
            unwired,
        });
        drop(cluster.writing()); // from here on these files are ours alone
        let (own, asking, saying) = (cluster.clone(), cluster.clone(), cluster.clone());
        let named = |name: &str| thread::Builder::new().name(name.to_owned());
        named("cluster").spawn(move || own.run(&following)).map_err(unstarted)?;
        named("saying").spawn(move || saying.speak(&rung)).map_err(unstarted)?;
        named("fresh").spawn(move || asking.ask()).map_err(unstarted)?;
        tell::start(cluster.clone()).map_err(unstarted)?;
        let heard = cluster.clone();
        beat.start(move || heard.is_synced()).map_err(unstarted)?;
        Ok(cluster)
    }

    /// Lets the controller know of clients whose traffic passes this node by.
    pub(super) fn tell_of(&self, passing: Passing) {
        let _ = self.passing.set(passing); // Err: it was told already
    }

    /// What its loops do; the node's own tells it here, too.
    pub fn turns(&self) -> Arc<Turns> {
        self.turns.clone()
    }

    /// Whether everything was heard once, by this agent or an earlier one: until then nothing can be planned.
    pub fn is_synced(&self) -> bool {
        self.synced.load(Ordering::Acquire)
    }

    fn run(self: &Arc<Cluster>, following: &Following) {
        self.see_pods();
        let (mut gateways, mut looked, mut closely) = (Gateways::default(), Instant::now(), Instant::now());
        let mut trouble = String::new();
        loop {
            self.turns.at(Loop::Cluster, "wait");
            let rung = following.changed(LOOK);
            self.turns.at(Loop::Cluster, "copy");
            let adopted = self.to_adopt();
            following.adopt(|kind| foreign::of(kind).is_some_and(|project| adopted.contains(&project)));
            if rung {
                self.see_pods();
            }
            let look = if closely.elapsed() < SELDOM { Look::Glance } else { Look::Close };
            if look == Look::Close {
                closely = Instant::now();
            }
            match self.copy(look) {
                Ok(()) => trouble.clear(),
                Err(error) => {
                    if trouble != error {
                        tracing::warn!(error, "the copy of the cluster on disk is not current; tried again");
                        trouble = error;
                    }
                    thread::sleep(LOOK);
                }
            }
            self.settle();
            if rung || looked.elapsed() >= SELDOM {
                self.turns.at(Loop::Cluster, "gateways");
                if let Err(error) = self.see_gateways(&mut gateways) {
                    tracing::warn!(error, "states of gateways are not written; tried again");
                }
                looked = Instant::now();
            }
            if rung {
                let _ = self.voice.try_send(()); // full: it rings already
            }
        }
    }

    /// What this node has to say, on a thread of its own: what it hears does not wait for a server that lets a write wait. What fails
    /// waits by itself, unless it is the server that does.
    fn speak(self: &Arc<Cluster>, rung: &Receiver<()>) {
        let (mut said, mut ledger) = (Said::default(), Ledger::default());
        let (mut words, mut releases, mut leases) = (Part::new(), Part::new(), Part::new());
        let mut said_all = Instant::now();
        loop {
            self.turns.at(Loop::Speech, "wait");
            let _ = rung.recv_timeout(LOOK);
            if !words.is_due(Instant::now()) {
                // Which endpoints stand is not known just now, so nothing is given back.
                self.hold_in_turn(&mut leases, &mut ledger);
                continue;
            }
            self.turns.at(Loop::Speech, "endpoints");
            let told = match said_all.elapsed() < REGULARLY {
                true => self.say_what_changed(&mut said),
                false => {
                    said_all = Instant::now();
                    self.say(&mut said)
                }
            };
            let is_away = told.as_ref().is_err_and(ApiError::is_of_the_server);
            words.came(told.map_err(|e| e.to_string()), Instant::now());
            if is_away {
                continue;
            }
            // An endpoint goes before its lease: in this order. One that stands keeps its own lease only.
            self.turns.at(Loop::Speech, "releases");
            if releases.is_due(Instant::now()) {
                releases.came(self.give_back(said.standing()), Instant::now());
            }
            self.hold_in_turn(&mut leases, &mut ledger);
        }
    }

    fn hold_in_turn(self: &Arc<Cluster>, leases: &mut Part, ledger: &mut Ledger) {
        self.turns.at(Loop::Speech, "leases");
        if leases.is_due(Instant::now()) {
            leases.came(self.hold_leases(ledger), Instant::now());
        }
    }

    /// What the configuration adopts now.
    fn to_adopt(&self) -> BTreeSet<Project> {
        self.config.now().adopt.clone()
    }

    fn mirror(&self) -> MutexGuard<'_, Mirror> {
        self.mirror.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Says that everything was heard once.
fn marker(dir: &Dir) -> PathBuf {
    dir.path().join("synced")
}

/// How far the agent had heard of what it copied.
fn versions(dir: &Dir) -> PathBuf {
    dir.path().join("versions")
}

impl Books for Cluster {
    fn store(&self) -> Box<dyn Store + '_> {
        Box::new(ClusterStore::new(&self.client))
    }

    fn claimed(&self, result: &'static str) {
        self.metrics.add("egret_ipam_claims_total", &[result], 1);
    }

    fn release_later(&self, ended: Option<Holder>) {
        {
            let mut owed = self.owed();
            owed.lost |= ended.is_none();
            owed.ended.extend(ended);
        }
        let _ = self.bell.try_send(());
    }

    fn begin_claim(&self, pod: &str, attachment: &str) -> bool {
        let mut owed = self.owed();
        let free = !owed.claiming.contains_key(pod);
        if free {
            owed.claiming.insert(pod.to_owned(), attachment.to_owned());
        }
        free
    }

    fn end_claim(&self, pod: &str) {
        self.owed().claiming.remove(pod);
    }

    fn is_claiming(&self, attachment: &str) -> bool {
        self.owed().claiming.values().any(|claiming| claiming == attachment)
    }
}
