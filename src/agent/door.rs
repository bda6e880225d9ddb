//! Where the thin plugin asks: a socket that root alone may use, one question and one answer to a connection.
//!
//! In: connections. Out: what `node`'s verbs say, the very ones that the embedded plugin carries out. Never: decides anything. Each
//! question has a thread of its own; those that change something take turns, STATUS waits for nobody.

mod caller;
mod hands;

use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use std::{fs, thread};

use nix::sys::socket::{getsockopt, sockopt};

use crate::agent::calls::{Calls, Places};
use crate::agent::crowd::Crowd;
use crate::agent::in_force::InForce;
use crate::cni::environment::Verb;
use crate::cni::relay::{LONGEST, Question};
use crate::cni::reply::{CniError, Code};
use crate::cni::request::{Configurations, Request};
use crate::cni::{Node, carry_out};
use crate::config::Config;
use crate::egress::model::Role;
use crate::node::awake::Awake;
use crate::node::books::Books;
use crate::node::kept::Kept;
use crate::node::plugin::{Here, Leaving};
use crate::node::standing::Standings;
use crate::node::unasked;
use crate::node::verbs::{Call as Change, Ended, together};
use crate::probes::metrics::Metrics;
use caller::{Caller, Success};
use hands::Hands;

/// How long a plugin may take to say what it wants.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often it is made sure that the socket is still where plugins look for it.
const LOOK: Duration = Duration::from_millis(250);
/// Bytes of a usual question: one read takes it.
const USUAL: usize = 8192;

/// What must be so before a call is answered.
pub trait Gate: Send + Sync {
    /// Whether anything can be answered at all yet.
    ///
    /// # Errors
    /// Why not.
    fn ready(&self) -> Result<(), CniError>;

    /// Whether what is known is new enough for this request; may ask elsewhere, and wait for it.
    ///
    /// # Errors
    /// 11: it is not, and cannot be had now.
    fn fresh(&self, request: &Request) -> Result<(), CniError>;

    /// What an earlier agent knew and this one does not, as a sentence. Until it is heard again calls are answered as if no agent were here:
    /// to refuse more would be worse for the node than to end.
    fn lacks(&self) -> Option<String> {
        None
    }

    /// What was heard all the same.
    fn heard(&self) -> Option<Standings> {
        None
    }

    /// Something was changed that concerns others than the pod: a gateway came or went.
    fn changed(&self);
}

/// A directory is always ready and as new as it can be.
#[derive(Debug, Clone, Copy)]
pub struct Open;

impl Gate for Open {
    fn ready(&self) -> Result<(), CniError> {
        Ok(())
    }

    fn fresh(&self, _: &Request) -> Result<(), CniError> {
        Ok(())
    }

    fn changed(&self) {}
}

/// Everything that an answer is made from.
pub struct Door {
    /// The node's configuration, as the loop last adopted it.
    pub config: InForce,
    /// Where leases are, if not in the state directory.
    pub books: Option<Arc<dyn Books>>,
    /// What the loop and all calls keep.
    pub kept: Option<Arc<Kept>>,
    /// What comes before an answer.
    pub gate: Arc<dyn Gate>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Whom the loop makes way for.
    pub calls: Calls,
    /// What calls have in common.
    configurations: Configurations,
    /// Not all ADDs are looked into at once.
    places: Places,
    /// Changes take turns: their files would be drafted under one name.
    turn: Mutex<()>,
    /// Those that wait for the same turn and can share it.
    crowd: Crowd<(Change, Success), Ended>,
}

impl Door {
    /// Not open yet.
    pub fn new(
        config: InForce,
        books: Option<Arc<dyn Books>>,
        kept: Option<Arc<Kept>>,
        gate: Arc<dyn Gate>,
        (metrics, calls): (Arc<Metrics>, Calls),
    ) -> Door {
        let (places, turn, crowd) = (Places::default(), Mutex::default(), Crowd::default());
        let configurations = Configurations::default();
        Door { config, books, kept, gate, metrics, calls, configurations, places, turn, crowd }
    }

    /// Listens there for as long as the process lives. What was left at the path by an earlier process is taken away.
    ///
    /// # Errors
    /// The socket or the threads cannot be made.
    pub fn open(self: Arc<Door>, path: PathBuf) -> io::Result<()> {
        let listener = listen(&path)?;
        let here = inode(&path);
        let hands = Hands::of(listener, move |stream| self.serve(stream));
        hands.some_wait()?;
        thread::Builder::new().name("door".to_owned()).spawn(move || keep(&hands, &path, here)).map(drop)
    }

    fn serve(&self, stream: UnixStream) {
        if let Err(error) = self.converse(Arc::new(stream)) {
            tracing::warn!(%error, "a call of the plugin was not answered");
        }
    }

    fn converse(&self, stream: Arc<UnixStream>) -> io::Result<()> {
        let who = getsockopt(&*stream, sockopt::PeerCredentials)?;
        if who.uid() != 0 {
            return Err(io::Error::other(format!(
                "process {} of user {} asked, not root",
                who.pid(),
                who.uid()
            )));
        }
        let question = match question(&stream)? {
            Ok(question) => question,
            Err(error) => return caller::refuse(&stream, error),
        };
        let caller = Caller::of(stream, question);
        let request = caller.question().request(&self.configurations);
        let changes = request.as_ref().is_ok_and(|request| request.verb != Verb::Status);
        let call = changes.then(|| self.calls.begin());
        let began = Instant::now();
        let outcome =
            request.as_ref().map_err(Clone::clone).and_then(|request| self.answer(request, &caller, began));
        let (code, took) = (outcome.as_ref().err().map(|error| error.code as u16), began.elapsed());
        let told = caller.tell(request.as_ref().ok(), outcome);
        drop(call);
        if let Ok(request) = &request {
            self.leave(request.verb, code, took);
        }
        match request {
            // Whoever asked is gone and will take the pod for one that never started.
            Ok(request) if told.is_err() && code.is_none() && request.verb == Verb::Add => {
                let config = self.config.now();
                let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
                let undone = self.here(&config).del(&request);
                tracing::warn!(
                    container = request.container_id,
                    ?undone,
                    "ADD was done and nobody waited for it"
                );
            }
            _ => {}
        }
        told
    }

    fn here<'a>(&self, config: &'a Config) -> Here<'a> {
        Here { config, books: self.books.clone(), kept: self.kept.clone() }
    }

    /// Nobody waits for bookkeeping, nor for the file that the next record is drafted in.
    fn leave(&self, verb: Verb, code: Option<u16>, took: Duration) {
        let (metrics, kept) = (self.metrics.clone(), self.kept.clone());
        self.calls.leave(move || {
            kept.iter().for_each(|kept| kept.attachments.tidy());
            let result = code.map_or_else(|| "ok".to_owned(), |code| code.to_string());
            metrics.add("egret_cni_requests_total", &[verb.name(), &result], 1);
            metrics.took("egret_cni_request_duration_seconds", &[verb.name()], took.as_secs_f64());
        });
    }

    fn answer(&self, request: &Request, caller: &Caller, began: Instant) -> Result<(), CniError> {
        let config = self.config.now();
        let node = self.here(&config);
        if request.verb == Verb::Status {
            return match self.gate.lacks() {
                Some(why) => unasked::status(&config, &why),
                None => self.gate.ready().and_then(|()| carry_out(&node, request)),
            };
        }
        let outcome = match request.verb {
            Verb::Add => self.add(&node, request, caller),
            Verb::Del => node.leaving(request).and_then(|leaving| match leaving {
                Leaving::Planned(id) => self.change(&node, Change::Del(id), caller.success(request)),
                Leaving::Recorded(node, id) => node.forget_telling(&id, || caller.say(request)),
            }),
            _ => {
                let outcome = self.in_turn(|| carry_out(&node, request));
                self.gate.changed();
                outcome
            }
        };
        tracing::debug!(
            verb = request.verb.name(),
            pod = request.pod.as_ref().map(tracing::field::display),
            container = request.container_id,
            micros = began.elapsed().as_micros(),
            ?outcome,
            "answered"
        );
        outcome
    }
}

impl Door {
    fn add(&self, node: &Here<'_>, request: &Request, caller: &Caller) -> Result<(), CniError> {
        if let Some(why) = self.gate.lacks() {
            return unasked::start(request, node.config, &why, self.gate.heard().as_ref());
        }
        self.gate.ready().map_err(|e| CniError { code: Code::TryAgainLater, ..e })?;
        self.gate.fresh(request)?;
        let place = self.places.take();
        let mut prepared = node.prepare(request)?;
        // What may wait for the API server comes before the turn: every other pod of the node would wait with it.
        drop(place);
        prepared.claim()?;
        match prepared.role() {
            Role::Client => self.change(node, Change::Add(Box::new(prepared)), caller.success(request)),
            Role::Gateway => {
                let outcome = self.in_turn(|| prepared.carry_out());
                self.gate.changed();
                prepared.settle(outcome)
            }
            // A record, and no more, as a rule.
            Role::Unselected | Role::HostNetwork => {
                let outcome = prepared.carry_out();
                prepared.settle(outcome)
            }
        }
    }

    /// With all others that wait for their turn, if that can be.
    fn change(&self, node: &Here<'_>, change: Change, success: Success) -> Result<(), CniError> {
        let round = |calls: Vec<(Change, Success)>| {
            let (changes, successes): (_, Vec<Success>) = calls.into_iter().unzip();
            together(node, changes, &|n: usize| successes.iter().skip(n).take(1).for_each(Success::tell))
        };
        match self.crowd.join((change, success), &self.turn, round) {
            Some(Ended::Done(outcome)) => outcome,
            Some(Ended::Alone(change)) => {
                let outcome = self.in_turn(|| change.alone(node));
                self.gate.changed();
                outcome
            }
            None => {
                let msg =
                    "the call that this one was carried out with ended in the middle; it is tried again";
                Err(CniError::new(Code::TryAgainLater, msg))
            }
        }
    }

    fn in_turn<T>(&self, work: impl FnOnce() -> T) -> T {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        work()
    }
}

/// What is asked, as soon as it is all there: nobody waits for the end of what the plugin may say, of which a wake-up would tell.
fn question(stream: &UnixStream) -> io::Result<Result<Question, CniError>> {
    let mut stream = Awake::of(stream, PATIENCE);
    let mut bytes = vec![0; USUAL];
    let mut length = 0;
    loop {
        if length == bytes.len() {
            bytes.resize(length * 2, 0);
        }
        let count = match stream.read(&mut bytes[length..]) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            count => count?,
        };
        length += count;
        let said = &bytes[..length];
        let refused = |why: String| Ok(Err(CniError::new(Code::Decode, why)));
        match Question::read(said) {
            Ok(Some(question)) => return Ok(Ok(question)),
            Ok(None) if count > 0 && length as u64 <= 2 * LONGEST => {}
            Ok(None) => return refused(format!("a question of Egret's plugin ends after {length} bytes")),
            Err(why) => return refused(why),
        }
    }
}

/// Makes sure that the socket is where plugins look for it, and that somebody waits there.
fn keep(hands: &Arc<Hands>, path: &Path, mut here: Option<(u64, u64)>) -> ! {
    loop {
        thread::sleep(LOOK);
        if let Err(error) = hands.some_wait() {
            tracing::warn!(%error, "calls of the plugin are left to their next try");
        }
        if inode(path) == here && here.is_some() {
            continue;
        }
        match listen(path) {
            Ok(again) => {
                tracing::warn!(path = %path.display(), "the socket was deleted under the agent; made again");
                here = inode(path);
                hands.turn_to(again);
            }
            Err(error) => tracing::debug!(%error, "the socket cannot be made again yet"),
        }
    }
}

fn inode(path: &Path) -> Option<(u64, u64)> {
    fs::symlink_metadata(path).ok().map(|found| (found.dev(), found.ino()))
}

/// The agent has its node's lock, so whatever lies there was left by one that ended.
fn listen(path: &Path) -> io::Result<UnixListener> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    // Who slips in before this line is asked who it is all the same.
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}
