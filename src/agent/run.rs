//! The agent's loop: listen, do what is due, wait.
//!
//! In: how to be configured. Out: nothing, until it is told to end. Never: decides what is due ([`Schedule`]) or does it
//! (`work`). One thread: every job is short, and two at once would wait for the same lock.

mod looking;
mod start;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signalfd::SignalFd;

use crate::agent::brakes::Brakes;
use crate::agent::calls::Calls;
use crate::agent::cluster::Cluster;
use crate::agent::door::{Door, Gate, Open};
use crate::agent::families::FAMILIES;
use crate::agent::files::Files;
use crate::agent::health::Known;
use crate::agent::in_force::InForce;
use crate::agent::schedule::{Job, Schedule};
use crate::agent::state::{Failure, Health, LOCK};
use crate::agent::work::{Agent, Configure};
use crate::config::Config;
use crate::egress::numbers;
use crate::kernel::watch::Watch;
use crate::kube::Access;
use crate::node::embedded::now;
use crate::node::memory::Memory;
use crate::node::thin::door;
use crate::probes::metrics::Metrics;
use crate::probes::turns::Loop;
use crate::probes::web;
use crate::signals;
use crate::store::{Guard, LockError, lock};
use start::{first_heard, open, take_turn};

/// How long a job waits for the node's lock before it lets the others go first.
const PATIENCE: Duration = Duration::from_millis(250);
/// How often namespaces and the directory are looked at.
const OFTEN: Duration = Duration::from_secs(1);
/// The same while something is wrong with the directory.
const IMPATIENT: Duration = Duration::from_millis(100);
/// How often everything is looked at, whatever was heard: links may lead out of the directory.
const REGULARLY: Duration = Duration::from_secs(10);
/// How often files are looked at where they cannot be watched.
const POLLING: Duration = Duration::from_millis(500);
/// How often owners are asked.
const ASKING: Duration = Duration::from_secs(5);
/// How long a job makes way for the plugin's calls at most; one that brings the kernel to new objects.
const LONGEST_WAY: Duration = Duration::from_millis(500);
const LONGEST_WAY_OF_PLANS: Duration = Duration::from_millis(50);
/// When it looks again whether they are over.
const AGAIN: Duration = Duration::from_millis(5);
/// How long they have for an answer.
const ANSWERING: Duration = Duration::from_millis(100);

/// Why an agent does not run.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// Another one does.
    #[error("an agent runs on this node already{}; for another one, end that first", .0.process())]
    Another(LockError),
    /// Something that it cannot do without is missing.
    #[error("{0}")]
    Unable(String),
}

impl From<String> for AgentError {
    fn from(sentence: String) -> AgentError {
        AgentError::Unable(sentence)
    }
}

/// Runs until SIGTERM or SIGINT. `configure` is asked again whenever the plugin may have been called otherwise; `access`: the cluster
/// that the state directory is a copy of, if it is one; `listen`: where health and metrics are served.
///
/// # Errors
/// Another agent runs here, or the kernel gives no notices.
pub fn run(
    configure: &dyn Fn() -> Result<Config, String>,
    access: Option<Access>,
    listen: Option<Vec<SocketAddr>>,
) -> Result<(), AgentError> {
    let mut node = open(&configure()?)?;
    let turn = take_turn(&node.memory)?;
    let signals = signals::of_the_end()?;
    let here = node.netns().map_err(|e| e.to_string())?;
    let watch = Watch::open(&here, &numbers::node_scope()).map_err(|e| e.to_string())?;
    let files = Files::open()
        .map_err(|e| format!("no notices of files (inotify): {e}; raise fs.inotify.max_user_instances"))?;
    tracing::info!(node = node.name, state = %node.dir.path().display(), pid = std::process::id(), "the agent begins");
    let config = InForce::of(node.config.clone());
    let metrics = Arc::new(Metrics::of(FAMILIES));
    let calls = Calls::heard_by(files.ear());
    let cluster = match access {
        None => None,
        Some(access) => {
            let (dir, config) = (node.dir.clone(), config.clone());
            let shared = (node.kept.clone(), metrics.clone(), calls.clone());
            let cluster = Cluster::follow(access, dir, config, &node.name, shared);
            let cluster = cluster.map_err(|e| e.to_string())?;
            node.books = Some(cluster.clone());
            Some(cluster)
        }
    };
    let known = Arc::new(Known::new(metrics.clone(), cluster.clone()));
    if let Some(addresses) = listen {
        let doctor = known.clone();
        web::serve(addresses, doctor).map_err(|e| format!("health and metrics cannot be served: {e}"))?;
    }
    let gate: Arc<dyn Gate> = cluster.clone().map_or_else(|| Arc::new(Open) as _, |cluster| cluster as _);
    let path = door(&node.config.run_dir, &node.name);
    let door =
        Door::new(config.clone(), node.books.clone(), node.kept.clone(), gate, (metrics, calls.clone()));
    Arc::new(door).open(path).map_err(|e| format!("the plugin cannot be answered: {e}"))?;
    if let Some(cluster) = &cluster
        && !first_heard(cluster, &signals, &calls)
    {
        return Ok(());
    }
    let mut run = Run {
        agent: Agent::new(
            configure as Configure<'_>,
            node,
            config,
            Brakes::start(&here),
            known,
            cluster.clone(),
        ),
        schedule: Schedule::default(),
        files,
        watch,
        signals,
        turn,
        calls,
        put_off: BTreeMap::new(),
        clock: Instant::now(),
        looked: Duration::ZERO,
        flushed: None,
        failing: BTreeMap::new(),
        began: false,
    };
    if let Some(cluster) = &cluster {
        cluster.tell_of(run.agent.passing());
    }
    run.begin();
    run.serve()
}

/// The process that holds the agent's lock of a node; `None` if there is no agent.
pub fn running(memory: &Memory) -> Option<LockError> {
    let path = memory.dir().join(LOCK);
    if !path.exists() {
        return None;
    }
    lock(&path, "a look", Duration::ZERO).err()
}

struct Run<'a> {
    agent: Agent<'a>,
    schedule: Schedule,
    files: Files,
    watch: Watch,
    signals: SignalFd,
    turn: Guard,
    /// Who is answered just now.
    calls: Calls,
    /// Jobs that make way for them, and since when.
    put_off: BTreeMap<Job, Duration>,
    clock: Instant,
    /// When all files were looked at.
    looked: Duration,
    /// When the loss of our tables was heard.
    flushed: Option<Instant>,
    /// Jobs that fail, and how.
    failing: BTreeMap<Job, String>,
    /// Whether kernel and directory were both looked at once.
    began: bool,
}

impl Run<'_> {
    fn now(&self) -> Duration {
        self.clock.elapsed()
    }

    fn begin(&mut self) {
        let all = [
            Job::Recall,
            Job::Folder,
            Job::Check,
            Job::Update,
            Job::Look,
            Job::Unannounced,
            Job::Namespaces,
            Job::Leases,
            Job::Ask,
        ];
        for job in all {
            self.schedule.at(job, Duration::ZERO);
        }
        // Before anything is compared: who was wired here, and by which plan.
        if let Err(error) = self.agent.recall() {
            tracing::warn!(error, "the node's own files cannot be read yet");
        }
        self.rewatch();
    }

    fn serve(&mut self) -> Result<(), AgentError> {
        loop {
            while let Some((job, wanted)) = self.schedule.take(self.now()) {
                if self.makes_way(job) {
                    self.schedule.put_off(job, wanted, self.now() + AGAIN);
                    continue;
                }
                self.carry_out(job, wanted)?;
                self.listen();
                if self.told_to_end() {
                    return Ok(());
                }
            }
            self.agent.known.turns.at(Loop::Node, "wait");
            self.wait()?;
            self.agent.known.turns.at(Loop::Node, "listen");
            self.listen();
            if self.told_to_end() {
                return Ok(());
            }
        }
    }

    /// Whether a job waits until the plugin's calls are over: it would hold the node's lock, which they need, for as long as a look at
    /// the whole kernel takes, to find out what they themselves have changed. Not for long, and not where packets wait for it.
    fn makes_way(&mut self, job: Job) -> bool {
        let most = match job {
            Job::Check if self.flushed.is_some() => return false,
            Job::Check | Job::Recall | Job::Namespaces => LONGEST_WAY,
            Job::Update => LONGEST_WAY_OF_PLANS,
            _ => return false,
        };
        let now = self.now();
        let since = *self.put_off.entry(job).or_insert(now);
        let waits = self.calls.are_coming() && now - since < most;
        if !waits {
            self.put_off.remove(&job);
        }
        waits
    }

    fn wait(&self) -> Result<(), AgentError> {
        let pause = self.schedule.pause(self.now()).unwrap_or(REGULARLY);
        let millis = u16::try_from(pause.as_micros().div_ceil(1000)).unwrap_or(u16::MAX);
        let ([notices, clock], [a, b, c]) = (self.files.ear().descriptors(), self.watch.descriptors());
        let all = [notices, clock, self.signals.as_fd(), a, b, c];
        let mut all = all.map(|fd| PollFd::new(fd, PollFlags::POLLIN));
        match poll(&mut all, PollTimeout::from(millis)) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => Ok(()),
            Err(errno) => Err(AgentError::Unable(format!("cannot wait for notices: {errno}"))),
        }
    }

    fn listen(&mut self) {
        let now = self.now();
        self.files.ear().open(self.calls.are_running());
        self.calls.finish();
        for job in self.files.listen() {
            match job {
                Job::Update if self.files.whole => self.schedule.want_soon(job, now),
                _ => self.schedule.want(job, now),
            }
        }
        let heard = self.watch.listen();
        if heard.tables_gone {
            self.flushed.get_or_insert_with(Instant::now);
            self.schedule.hurry(Job::Check, now);
        }
        if (heard.ours || heard.lost) && !heard.tables_gone {
            self.schedule.want(Job::Check, now);
        }
        if heard.machine || heard.lost {
            self.schedule.want(Job::Look, now);
        }
    }

    fn told_to_end(&mut self) -> bool {
        let Ok(Some(signal)) = self.signals.read_signal() else { return false };
        self.calls.finish();
        tracing::info!(signal = signal.ssi_signo, "the agent ends; what is wired stays");
        self.agent.state.is(Health::Stopped, now());
        self.agent.write();
        true
    }

    fn carry_out(&mut self, job: Job, wanted: Option<Duration>) -> Result<(), AgentError> {
        let began = self.now();
        self.agent.known.turns.at(Loop::Node, job.word());
        let heard = wanted.map(|at| self.clock + at);
        let result = match job {
            Job::Check => {
                let flushed = self.flushed.take();
                let checked = self.agent.check(heard.unwrap_or_else(Instant::now), flushed);
                if checked.is_err() {
                    self.flushed = flushed; // it goes on
                }
                checked
            }
            Job::Folder => self.folder()?,
            Job::Recall => self.recall(),
            Job::Update => self.update(heard),
            Job::Look => self.agent.look().map(|changed| {
                if changed {
                    self.schedule.want(Job::Update, began);
                    // The kernel takes next hops with a carrier and never brings them back.
                    self.schedule.want(Job::Check, began);
                }
            }),
            Job::Unannounced => self.agent.unannounced().map(|differs| {
                if differs {
                    self.schedule.want(Job::Check, began);
                }
            }),
            Job::Namespaces => self.agent.namespaces(),
            Job::Leases => self.agent.leases(),
            Job::Announce => {
                self.agent.announce(began);
                Ok(())
            }
            Job::Ask => {
                if self.agent.ask() {
                    self.schedule.at(Job::Answers, began + ANSWERING);
                }
                Ok(())
            }
            Job::Answers => self.agent.answers(),
        };
        self.account(job, began, result);
        Ok(())
    }

    /// Notes how a job went, and when it comes again by the clock.
    fn account(&mut self, job: Job, began: Duration, result: Result<(), String>) {
        let ended = self.now();
        self.agent.count(job.word(), (ended - began).as_secs_f64(), result.is_err());
        match result {
            Ok(()) => {
                self.schedule.done(job, began, ended);
                if self.failing.remove(&job).is_some() {
                    tracing::info!(?job, "works again");
                }
            }
            Err(error) => {
                self.schedule.failed(job, ended);
                if self.failing.get(&job) != Some(&error) {
                    tracing::warn!(?job, error, "failed; tried again");
                }
                self.agent.state.last_error = Some(Failure { at: now(), message: error.clone() });
                self.failing.insert(job, error);
            }
        }
        let again = match job {
            Job::Namespaces | Job::Unannounced => Some(OFTEN),
            Job::Folder => Some(if self.agent.is_groundless() { IMPATIENT } else { OFTEN }),
            Job::Update if self.files.short().is_some() => Some(POLLING),
            Job::Update => Some((self.looked + REGULARLY).saturating_sub(ended)),
            Job::Check | Job::Look | Job::Recall | Job::Leases => Some(REGULARLY),
            Job::Ask => Some(ASKING),
            Job::Announce | Job::Answers => None,
        };
        if let Some(pause) = again {
            self.schedule.at(job, ended + pause);
        }
        if let Some(next) = self.agent.announcing.next() {
            self.schedule.at(Job::Announce, next);
        }
        self.began |= job == Job::Update;
        let failing =
            [Job::Check, Job::Update, Job::Namespaces].iter().any(|job| self.failing.contains_key(job));
        self.agent.tell(failing, self.began, self.files.short());
    }
}
