//! A cluster as the agent sees it: what is followed goes into the state directory, what this node says goes to the API.
//!
//! In: a client, the node's directory. Out: files that the loop reads like any user's, so that planning, "never empty by mistake" and a
//! start without an API server are one piece of code with the embedded mode; objects that other nodes' agents follow.
//! Never: touches a kernel, or removes a file because something could not be asked.

mod beat;
mod clock;
mod copy;
pub mod foreign;
mod fresh;
mod say;
mod tell;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::agent::door::Gate;
use crate::cni::reply::{CniError, Code};
use crate::cni::request::Request;
use crate::config::{Config, Project};
use crate::ipam::Store;
use crate::kube::{Access, ApiError, Client, ClusterStore, Following, Mirror, Watched};
use crate::node::books::Books;
use crate::node::embedded::Embedded;
use crate::store::Dir;
use fresh::Known;
use say::Said;

/// How often this node's own files are looked at, should nobody have rung.
const LOOK: Duration = Duration::from_millis(250);
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
    config: Arc<Mutex<Config>>,
    node: String,
    adopted: BTreeSet<Project>,
    /// Generation of each kind that lies on disk.
    copied: Mutex<BTreeMap<Watched, u64>>,
    known: Mutex<Known>,
    synced: AtomicBool,
    /// Leases without a holder may be there.
    owed: AtomicBool,
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
        config: Arc<Mutex<Config>>,
        node: &str,
    ) -> Result<Arc<Cluster>, ApiError> {
        let client = Arc::new(Client::new(access)?);
        let unstarted = |e: std::io::Error| ApiError::Access(format!("no thread can be started: {e}"));
        let adopted = config.lock().unwrap_or_else(PoisonError::into_inner).adopt.clone();
        let following = Following::adopting(&client, node, |kind| {
            foreign::of(kind).is_some_and(|p| adopted.contains(&p))
        });
        let following = following.map_err(unstarted)?;
        beat::start(client.clone(), node.to_owned()).map_err(unstarted)?;
        let marker = marker(&dir);
        let cluster = Arc::new(Cluster {
            client,
            mirror: following.shared(),
            bell: following.bell(),
            dir,
            config,
            node: node.to_owned(),
            adopted,
            copied: Mutex::default(),
            known: Mutex::default(),
            synced: AtomicBool::new(marker.exists()),
            owed: AtomicBool::new(true),
        });
        let own = cluster.clone();
        thread::Builder::new()
            .name("cluster".to_owned())
            .spawn(move || own.run(&following))
            .map_err(unstarted)?;
        tell::start(cluster.clone()).map_err(unstarted)?;
        Ok(cluster)
    }

    /// Whether everything was heard once, by this agent or an earlier one: until then nothing can be planned.
    pub fn is_synced(&self) -> bool {
        self.synced.load(Ordering::Acquire)
    }

    fn run(self: &Arc<Cluster>, following: &Following) {
        let mut said = Said::default();
        let (mut pause, mut next) = (RETRY, Instant::now());
        let mut trouble = String::new();
        loop {
            following.changed(LOOK);
            self.see_pods();
            if let Err(error) = self.copy() {
                tracing::warn!(error, "the copy of the cluster on disk is not current; tried again");
                thread::sleep(LOOK);
            }
            if Instant::now() < next {
                continue;
            }
            let told = self.say(&mut said).map_err(|e| e.to_string()).and_then(|()| self.give_back());
            match told {
                Ok(()) => {
                    pause = RETRY;
                    trouble.clear();
                }
                Err(error) => {
                    if trouble != error {
                        tracing::warn!(error, "what this node has to say is not said yet; tried again");
                        trouble = error;
                    }
                    next = Instant::now() + pause;
                    pause = (pause * 2).min(LONGEST);
                }
            }
        }
    }

    /// Leases whose holder is gone. Here, and not in the loop or in a call: the API server may let one wait.
    fn give_back(self: &Arc<Cluster>) -> Result<(), String> {
        if !self.is_synced() || !self.owed.swap(false, Ordering::AcqRel) {
            return Ok(());
        }
        let config = self.config.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let given = Embedded::at(&config).map_err(|e| e.to_string()).and_then(|node| {
            let node = Embedded { books: Some(self.clone()), ..node };
            node.release_lost_leases(None).map_err(|e| e.to_string())
        });
        if given.is_err() {
            self.owed.store(true, Ordering::Release);
        }
        given
    }

    fn mirror(&self) -> MutexGuard<'_, Mirror> {
        self.mirror.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Says that everything was heard once.
fn marker(dir: &Dir) -> PathBuf {
    dir.path().join("synced")
}

impl Books for Cluster {
    fn store(&self) -> Box<dyn Store + '_> {
        Box::new(ClusterStore::new(&self.client))
    }

    fn release_later(&self) {
        self.owed.store(true, Ordering::Release);
        let _ = self.bell.try_send(());
    }
}

impl Gate for Cluster {
    fn ready(&self) -> Result<(), CniError> {
        if self.is_synced() {
            return Ok(());
        }
        let lost: Vec<String> = self.mirror().lost().into_iter().map(|(_, why)| why).take(1).collect();
        let why = lost.first().map_or("it has not heard of all objects yet", String::as_str);
        let server = self.client.access().server();
        let msg = format!("the agent of node {} follows {server} for the first time: {why}", self.node);
        Err(CniError::new(Code::NotAvailable, msg))
    }

    fn fresh(&self, request: &Request) -> Result<(), CniError> {
        self.make_fresh(request)
    }

    fn changed(&self) {
        // Full: it rings already.
        let _ = self.bell.try_send(());
    }
}
