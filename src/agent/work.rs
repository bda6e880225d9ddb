//! What the agent does, job by job, with the verbs that the plugin uses too.
//!
//! In: a job that is due. Out: the node as it shall be, and what is told of it. Never: waits for anything but a lock, and for
//! that a moment only; says when a job is due.

mod addresses;
mod counts;
mod ground;
mod kernel;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use crate::agent::announcing::Announcing;
use crate::agent::brakes::Brakes;
use crate::agent::cluster::Cluster;
use crate::agent::files::{Identity, Told};
use crate::agent::health::Known;
use crate::agent::in_force::InForce;
use crate::agent::passing::Passing;
use crate::agent::state::{AgentState, DIRECTORY_UNREADABLE, FILE, Health};
use crate::config::Config;
use crate::kernel::devices::Device;
use crate::kernel::nft::ahead::{self, Ahead, Sides};
use crate::kernel::state::State;
use crate::kernel::unannounced::Unannounced;
use crate::node::announce::{ANOTHER_OWNER, Asked};
use crate::node::attachment::Attachment;
use crate::node::embedded::{Embedded, NodeError, now};
use crate::node::memory::Applied;
use crate::node::standing::Standings;
use crate::node::update::{Outcome, Thoroughness};
use crate::problem::Problem;
use crate::store::Stamp;
use crate::store::objects::Objects;

/// Where configurations come from: flags, a file, or what the plugin was last called with.
pub(super) type Configure<'a> = &'a dyn Fn() -> Result<Config, String>;

/// The agent of one node.
pub(super) struct Agent<'a> {
    configure: Configure<'a>,
    pub(super) node: Embedded,
    pub(super) state: AgentState,
    /// What the file says.
    told: Option<AgentState>,
    /// Attachments, as they were last read: should their records be deleted under running pods, they are written again.
    attachments: BTreeMap<String, Attachment>,
    /// The plan last applied, by whomever.
    applied: Option<Applied>,
    brakes: Brakes,
    pub(super) announcing: Announcing,
    asked: Vec<Asked>,
    /// Who else answers for our addresses.
    owners: Vec<Problem>,
    /// How the folder of endpoints looked when that was written to them.
    endpoints_told: Option<Stamp>,
    /// Which directory the objects in force came from, and whether there were any.
    ground: Option<(Identity, bool)>,
    /// Why the directory is not read; what was last read stays in force.
    groundless: Option<Problem>,
    /// Addresses that the books have as somebody else's.
    unheld: Vec<Problem>,
    /// What is wrong with objects and records.
    wrong: Vec<Problem>,
    /// Clients whose traffic passes this node by.
    passing: Passing,
    machine: Option<Vec<Device>>,
    /// What of the plan last applied the kernel gives no notice of.
    desired: Option<State>,
    /// How that is looked at.
    unannounced: Option<Unannounced>,
    /// The node's configuration, for who answers the plugin.
    config: InForce,
    /// What is told to who asks from outside.
    pub(super) known: Arc<Known>,
    cluster: Option<Arc<Cluster>>,
    /// Steps of the job that runs.
    steps: usize,
    /// The objects last read, by their fingerprint.
    objects_told: Option<u64>,
    /// Of pools, as they were last read.
    block_sizes: BTreeMap<String, u8>,
}

impl<'a> Agent<'a> {
    pub(super) fn new(
        configure: Configure<'a>,
        node: Embedded,
        config: InForce,
        brakes: Brakes,
        known: Arc<Known>,
        cluster: Option<Arc<Cluster>>,
    ) -> Agent<'a> {
        let passing = Passing::default();
        if let Err(error) = passing.begin(config.clone()) {
            tracing::warn!(%error, "nobody looks whether clients' traffic passes here");
        }
        let state = AgentState::starting(&node.name, std::process::id(), now());
        Agent {
            configure,
            node,
            state,
            told: None,
            attachments: BTreeMap::new(),
            applied: None,
            brakes,
            announcing: Announcing::default(),
            asked: Vec::new(),
            owners: Vec::new(),
            endpoints_told: None,
            ground: None,
            groundless: None,
            unheld: Vec::new(),
            wrong: Vec::new(),
            passing,
            machine: None,
            desired: None,
            unannounced: None,
            config,
            known,
            cluster,
            steps: 0,
            objects_told: None,
            block_sizes: BTreeMap::new(),
        }
    }

    /// What is known of clients whose traffic passes by.
    pub(super) fn passing(&self) -> Passing {
        self.passing.clone()
    }

    /// Whether no pod and no plan is here.
    fn is_idle(&self) -> bool {
        self.attachments.is_empty() && self.applied.as_ref().is_none_or(|applied| applied.plan.is_idle())
    }

    /// Folders that the pods' namespaces lie in; those of processes come and go without notice.
    pub(super) fn namespace_folders(&self) -> BTreeSet<PathBuf> {
        let folders = self.attachments.values().filter_map(|a| a.netns.parent());
        folders.filter(|folder| !folder.starts_with("/proc")).map(PathBuf::from).collect()
    }

    // --- the directory ---------------------------------------------------------------------------------------

    /// Reads, plans, and brings the kernel there. `told`: which files of objects need to be read.
    pub(super) fn update(&mut self, heard: Option<Instant>, told: &mut Told) -> Result<(), String> {
        self.adopt_configuration();
        let idle = self.is_idle();
        let ground = match self.stand() {
            Ok(ground) => ground,
            Err(problem) if idle => {
                self.groundless = Some(problem);
                return Ok(());
            }
            Err(problem) => {
                let sentence = problem.to_string();
                self.groundless = Some(problem);
                return Err(sentence);
            }
        };
        if self.ground != Some(ground) {
            told.of_anything(); // of a mount over it nobody tells
        }
        if idle && !self.node.may_be_asked().map_err(|e| e.to_string())? {
            if let Ok(objects) = self.node.objects() {
                self.say_standings(&objects);
            }
            self.ground = Some(ground);
            self.groundless = None;
            self.wrong = self.node.shared_network().map_err(|e| e.to_string())?;
            return Ok(());
        }
        let began = Instant::now();
        let outcome = match self.bring(told) {
            Ok(outcome) => outcome,
            Err(error @ (NodeError::Objects(_) | NodeError::Dir(_) | NodeError::Record(_))) => {
                let path = self.node.dir.path().display().to_string();
                self.groundless = Some(Problem::new("", DIRECTORY_UNREADABLE, error.to_string()).file(path));
                return Err(error.to_string());
            }
            Err(error) => return Err(error.to_string()),
        };
        self.ground = Some(ground);
        self.groundless = None;
        let steps = outcome.steps().count();
        self.steps += steps;
        let took = heard.unwrap_or(began).elapsed();
        self.state.updated(steps > 0, took, now());
        if steps > 0 {
            tracing::info!(steps, millis = took.as_millis(), "the kernel follows the directory");
        }
        let result = failures(&outcome);
        self.wrong = outcome.problems;
        // Of other owners the agent knows more than one look at a time.
        self.wrong.retain(|problem| problem.reason != ANOTHER_OWNER);
        result
    }

    /// What pods may do while this agent is away.
    fn say_standings(&mut self, objects: &Objects) {
        // Without the pods, of which a cluster may have ten thousand.
        let view = self.node.namespaces_view(objects);
        self.block_sizes = view.pools.iter().map(|(name, pool)| (name.clone(), pool.block_size)).collect();
        let written = Standings::of(&view).write(&self.node.config.state_dir, &self.node.name);
        if let Err(error) = written {
            tracing::warn!(%error, "what pods may do without an agent is not written");
        }
    }

    /// Whether the kernel may need another table: only then is it worth the start of a program that loads it.
    fn starts_ahead(&mut self, objects: &Objects) -> bool {
        let fingerprint = Some(objects.fingerprint());
        let known = std::mem::replace(&mut self.objects_told, fingerprint);
        known.is_some() && known != fingerprint
    }

    fn bring(&mut self, told: &mut Told) -> Result<Outcome, NodeError> {
        let guard = self.node.lock("the agent's update")?;
        let state_dir = self.node.dir.path();
        let followed = told
            .take()
            .and_then(|files| Some((self.node.kept.as_ref()?.follow(state_dir, &files)?, !files.is_empty())));
        let (objects, keeps) = match followed {
            Some(followed) => followed,
            None => (self.node.objects().inspect_err(|_| told.of_anything())?, false),
        };
        let _ahead = self.starts_ahead(&objects).then(|| {
            ahead::start_ahead(Sides::seen_here().as_ref());
            Ahead
        });
        let situation = self.node.situation_of(objects)?;
        let outcome = self.node.update_from(&situation, Thoroughness::Quick, &[]);
        drop(guard);
        // Afterwards: no pod that runs waits for it.
        if keeps {
            situation.objects.keep(self.node.dir.path());
        }
        self.say_standings(&situation.objects);
        outcome
    }

    /// The plugin's configuration is the agent's: two programs with two configurations would undo each other's work.
    fn adopt_configuration(&mut self) {
        match (self.configure)() {
            Ok(mut config) => {
                // What is watched and locked stays until the next start.
                config.state_dir.clone_from(&self.node.config.state_dir);
                config.run_dir.clone_from(&self.node.config.run_dir);
                config.node_name.clone_from(&self.node.config.node_name);
                if config != self.node.config {
                    tracing::info!("another configuration");
                    self.node.config = config.clone();
                    self.config.adopt(config);
                }
            }
            Err(error) => tracing::warn!(%error, "the last configuration stays in force"),
        }
    }

    // --- the node's own files --------------------------------------------------------------------------------

    /// Reads what other calls left: records of attachments, the plan applied.
    ///
    /// The records are read first: who deletes one takes the attachment out of the plan before. So a record that is missing
    /// while the plan still has its attachment, and its namespace lives, was deleted by accident, and so was the plan's file
    /// while pods of it live. Both are written again: without them the next call would take the node for a deserted one.
    pub(super) fn recall(&mut self) -> Result<(), String> {
        let guard = self.node.lock("the agent's look at records").map_err(|e| e.to_string())?;
        let vanished = !self.node.records.folder().is_dir();
        let mut listing = self.node.listing(None).map_err(|e| e.to_string())?;
        let names = listing.names();
        let mut written_again = false;
        let applied = self.node.memory.applied();
        let plan = applied.as_ref().or(self.applied.as_ref()).map(|applied| &applied.plan);
        for (name, attachment) in &self.attachments {
            let here = || !attachment.netns_is_gone();
            let lost = vanished || plan.is_some_and(|plan| plan.concerns(name));
            if !names.contains(name) && lost && here() {
                tracing::warn!(attachment = %name, "the record of a running pod was deleted; written again");
                self.node.records.write(attachment).map_err(|e| e.to_string())?;
                written_again = true;
            }
        }
        if applied.is_none()
            && let Some(last) = self.applied.as_ref().filter(|last| !last.plan.is_idle())
            && !self.node.memory.is_unfinished()
        {
            tracing::warn!("the plan last applied was deleted; written again");
            let memory = &self.node.memory;
            let written = memory.intend(last.inputs, &last.plan);
            written
                .and_then(|()| memory.applied_as_intended(last.inputs, false))
                .map_err(|e| e.to_string())?;
        }
        let applied = self.node.memory.applied();
        if applied != self.applied {
            self.desired = None;
            if let Some(applied) = &applied {
                self.brakes.cover(&applied.plan);
            }
        }
        self.applied = applied;
        if written_again {
            listing = self.node.listing(None).map_err(|e| e.to_string())?;
        }
        drop(guard);
        self.attachments = listing.attachments.into_iter().map(|a| (a.id().to_string(), a)).collect();
        Ok(())
    }

    /// Forgets pods whose namespace is gone, as GC would, and lets clients everywhere know of lost gateways.
    pub(super) fn namespaces(&mut self) -> Result<(), String> {
        let lost = self.attachments.values().filter(|a| a.netns_is_gone()).count();
        if lost == 0 {
            return Ok(());
        }
        tracing::info!(lost, "namespaces are gone without a DEL");
        let forget = || -> Result<Outcome, NodeError> {
            // By memory alone first: objects that cannot be read must not keep a dead gateway in its sets.
            let guard = self.node.lock("the agent's look at namespaces")?;
            self.node.unwire(None)?;
            drop(guard);
            self.node.reconcile()
        };
        let outcome = forget().map_err(|e| e.to_string())?;
        self.steps += outcome.steps().count();
        failures(&outcome)
    }

    /// Leases of gateways here that were deleted from the directory are written again.
    pub(super) fn leases(&mut self) -> Result<(), String> {
        self.unheld = self.node.hold_all().map_err(|e| e.to_string())?;
        Ok(())
    }

    // --- what is told ----------------------------------------------------------------------------------------

    /// Writes what changed of the agent's own file. `failing`: a job on the kernel fails; `short`: why not everything is watched.
    pub(super) fn tell(&mut self, failing: bool, began: bool, short: Option<&str>) {
        let mut problems: Vec<Problem> = self.groundless.iter().cloned().collect();
        problems.extend(short.map(|why| Problem::new("", "NotWatched", why)));
        let unseen = self.cluster.as_ref().map(|cluster| cluster.problems()).unwrap_or_default();
        let degraded = self.groundless.is_some()
            || short.is_some()
            || !self.owners.is_empty()
            || !self.unheld.is_empty()
            || !unseen.is_empty();
        problems.extend(unseen);
        problems.extend(self.owners.iter().chain(&self.unheld).chain(&self.wrong).cloned());
        problems.extend(self.passing.problems());
        problems.extend(self.cluster.iter().flat_map(|cluster| cluster.remarks()));
        self.state.problems = problems;
        let health = match (began, failing, degraded) {
            (false, false, _) => Health::Starting,
            (_, _, true) if !failing || self.groundless.is_some() => Health::Degraded,
            (_, true, _) => Health::Failing,
            (true, false, _) => Health::Well,
        };
        self.state.is(health, now());
        if self.told.as_ref() != Some(&self.state) {
            self.known.is(&self.state);
        }
        self.write();
    }

    /// Writes the agent's own file, if it says something else.
    pub(super) fn write(&mut self) {
        if self.told.as_ref() == Some(&self.state) {
            return;
        }
        match self.node.memory.tell(FILE, &self.state) {
            Ok(()) => self.told = Some(self.state.clone()),
            Err(error) => tracing::warn!(%error, "the agent's state is not written"),
        }
    }
}

fn failures(outcome: &Outcome) -> Result<(), String> {
    let failures = outcome.failures();
    if failures.is_empty() { Ok(()) } else { Err(failures.join("; ")) }
}
