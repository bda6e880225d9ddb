//! Follows the objects that a node or the controller needs: list, watch from there, and again, for as long as somebody has the [`Following`].
//!
//! In: a client, and how far to look. Out: a [`Mirror`] that is kept true, and a notice after each change. One thread per kind, which
//! waits in a read. An API server that is away is asked again after 0.2 s, then ever more rarely, at most every 10 s, each
//! thread at a time of its own, so that its return is no storm.

use std::hash::{BuildHasher, RandomState};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::client::Client;
use super::error::ApiError;
use super::events::Event;
use super::mirror::{Mirror, Seen, made};
use super::pace::{Pace, Paces};
use super::watched::{Reach, Watched};

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
/// How long the server lets a watch live at most, and at least half of it; then it is begun anew from where it was. Not as long as the others:
/// all that begin together when a server comes back, of every kind on every node, would end together ever after.
const WATCH_SECONDS: u64 = 300;
/// The same while objects are in force that went with their definition: at its end the list is asked for again.
const WATCH_SECONDS_OUTLIVED: u64 = 60;
/// A watch that ended sooner and said nothing is no watch: what stands between ends it, and would again at once.
const SHORT: Duration = Duration::from_secs(1);
/// Seconds by which the clocks of a cluster's API servers differ at most: an object that came right after its definition is not older than it.
const CLOCKS: i64 = 10;
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// A mirror that is kept true, and the end at which its changes are heard.
#[derive(Debug)]
pub struct Following {
    mirror: Arc<Mutex<Mirror>>,
    /// One notice stands for any number of changes: who hears it looks at everything.
    notices: Receiver<()>,
    bell: SyncSender<()>,
    paces: Arc<Paces>,
    /// Without it the threads end, at the next event or with their watch: nobody wakes who waits in a read.
    _alive: Arc<()>,
}

impl Following {
    /// Begins to follow as far as somebody needs, the foreign kinds that `adopted` names as closely as our own; the others as `kube::pace` has
    /// it.
    ///
    /// # Errors
    /// If no thread can be started.
    pub fn with(
        client: &Arc<Client>,
        reach: Reach,
        adopted: impl Fn(Watched) -> bool,
    ) -> std::io::Result<Following> {
        Following::from(client, Mirror::of(reach), adopted)
    }

    /// From what is known already: nobody who is asked has answered before.
    ///
    /// # Errors
    /// If no thread can be started.
    pub fn from(
        client: &Arc<Client>,
        mirror: Mirror,
        adopted: impl Fn(Watched) -> bool,
    ) -> std::io::Result<Following> {
        let reach = mirror.reach().clone();
        let mirror = Arc::new(Mutex::new(mirror));
        let (sender, notices) = sync_channel(1);
        let foreign = reach.kinds().filter(|kind| kind.is_foreign() && adopted(*kind));
        let paces = Arc::new(Paces::adopting(foreign.collect()));
        let alive = Arc::new(());
        for kind in reach.kinds() {
            let follower = Follower {
                client: client.clone(),
                kind,
                paces: paces.clone(),
                path: kind.path(&reach),
                mirror: mirror.clone(),
                notice: sender.clone(),
                heard: Arc::downgrade(&alive),
            };
            // It parses JSON and speaks TLS, no more.
            let thread = thread::Builder::new().name(format!("watch-{kind:?}")).stack_size(256 << 10);
            thread.spawn(move || follower.run())?;
        }
        Ok(Following { mirror, notices, bell: sender, paces, _alive: alive })
    }

    /// What is known now.
    pub fn mirror(&self) -> MutexGuard<'_, Mirror> {
        self.mirror.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The same mirror for other threads.
    pub fn shared(&self) -> Arc<Mutex<Mirror>> {
        self.mirror.clone()
    }

    /// Wakes whoever waits for a change, by something that did not come from the server.
    pub fn bell(&self) -> SyncSender<()> {
        self.bell.clone()
    }

    /// From now on these foreign kinds are followed as closely as our own, and no others but for what they decide.
    pub fn adopt(&self, adopted: impl Fn(Watched) -> bool) {
        let reach = self.mirror().reach().clone();
        let foreign = reach.kinds().filter(|kind| kind.is_foreign() && adopted(*kind));
        self.paces.adopt(foreign.collect());
    }

    /// Waits until something has changed; `false`: nothing did in this time.
    pub fn changed(&self, patience: Duration) -> bool {
        self.notices.recv_timeout(patience).is_ok()
    }
}

/// The definition of a kind, as an object that is gone has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Definition {
    /// It is there, so somebody meant the object.
    Stands,
    /// It is there again; the object went with the one before.
    MadeAnew,
    /// It goes, or is gone.
    Gone,
}

/// Follows one kind.
struct Follower {
    client: Arc<Client>,
    kind: Watched,
    paces: Arc<Paces>,
    path: String,
    mirror: Arc<Mutex<Mirror>>,
    notice: SyncSender<()>,
    /// Whether anybody has the [`Following`].
    heard: Weak<()>,
}

impl Follower {
    fn run(&self) {
        let mut pause = FIRST_PAUSE;
        let mut version: Option<String> = None;
        let (mut trouble, mut was_away) = (String::new(), false);
        while self.heard.strong_count() > 0 {
            let (began, from) = (Instant::now(), version.clone());
            let result = match &mut version {
                None => self.list(),
                Some(reached) if was_away && self.is_ahead(reached) => Ok(None),
                Some(reached) => self.watch(reached),
            };
            was_away = result.as_ref().is_err_and(ApiError::is_of_the_server);
            match result {
                Ok(next) => {
                    trouble.clear();
                    let pace = self.paces.of(self.kind);
                    let looked = pace != Pace::Watched;
                    let next = next.filter(|_| !looked);
                    let said_nothing = from.is_some() && from == next && began.elapsed() < SHORT;
                    if said_nothing {
                        rest(&mut pause);
                    } else if from.is_some() || looked {
                        // A list alone is no beginning: a watch from there may be refused, and then it is listed again.
                        pause = FIRST_PAUSE;
                    }
                    version = next;
                    if looked {
                        self.paces.rest(self.kind, pace, 0.5 + random());
                    }
                }
                Err(error) if self.is_nobodys(&error) => {
                    let pace = self.paces.of(self.kind);
                    let (wanted, why) = (self.paces.is_wanted(self.kind), error.to_string());
                    self.change(|mirror| match error.is_absent() {
                        true => mirror.has_none(self.kind, &why, wanted),
                        false => mirror.may_not_see(self.kind, &why),
                    });
                    version = None;
                    self.paces.rest(self.kind, pace, 0.5 + random());
                }
                // Older than the server remembers: begin with a list, which changes nothing that did not change. After a rest: it may
                // have forgotten for all nodes at once, or go on to forget.
                Err(error) if error.is_expired() => {
                    version = None;
                    rest(&mut pause);
                }
                Err(error) => {
                    if error.is_forbidden() || error.is_absent() {
                        self.cannot_see(&error);
                        version = None;
                    }
                    let why = error.to_string();
                    if why == trouble {
                        tracing::debug!(kind = ?self.kind, why, "cannot follow objects yet");
                    } else {
                        tracing::warn!(kind = ?self.kind, why, "cannot follow objects; tried again");
                        trouble = why;
                    }
                    rest(&mut pause);
                }
            }
        }
    }

    fn cannot_see(&self, error: &ApiError) {
        let (kind, why) = (self.kind, error.to_string());
        self.change(|mirror| match error.is_absent() {
            true if kind.is_optional() && mirror.generation(kind) == 0 => mirror.listed(kind, &[]),
            true => mirror.is_undefined(kind, &why),
            false => mirror.cannot_see(kind, &why),
        });
    }

    /// Nobody brought this foreign kind here, or nobody asked us to look at it. Whose credentials are refused hears nothing of the kind.
    fn is_nobodys(&self, error: &ApiError) -> bool {
        self.kind.is_foreign()
            && (error.is_absent() || !self.paces.is_wanted(self.kind) && error.status() == Some(403))
    }

    /// Every object; the version that they are of. From the server's memory, not older than what was heard already: what an ADD goes by
    /// is asked for by itself, and 500 agents that start at once do not read every pod of the cluster from its store.
    fn list(&self) -> Result<Option<String>, ApiError> {
        let (reach, heard) = {
            let mirror = self.mirror();
            (mirror.reach().clone(), mirror.version(self.kind))
        };
        let mut keep = |item: Value| Seen::of(&reach, self.kind, &item);
        let (items, version) = match self.client.list_of(&self.path, Some(heard), &mut keep) {
            // Its store was put back to an earlier state, or another server lags: what is in the store counts.
            Err(error) if error.is_ahead() => {
                let listed = self.client.list_of(&self.path, None, &mut keep)?;
                self.mirror().is_put_back(self.kind, &listed.1);
                listed
            }
            listed => listed?,
        };
        let lost = self.mirror().would_lose(self.kind, &items);
        let definition = lost.map_or(Ok(Definition::Stands), |oldest| self.definition_of(oldest))?;
        if definition == Definition::Gone {
            return Err(self.undefined());
        }
        self.change(|mirror| {
            if definition == Definition::MadeAnew {
                mirror.is_undefined(self.kind, &self.undefined().to_string());
            }
            mirror.reached(self.kind, &version);
            mirror.seen(self.kind, items)
        });
        Ok(Some(version))
    }

    /// Whether the server has not come to this version. Its store was put back to an earlier state then: it lets a watch begin from a version that
    /// is yet to come, and tells nothing until it has come there, which may be in weeks. Any object says so: to find one of this node's pods
    /// the server might read all.
    fn is_ahead(&self, version: &str) -> bool {
        let newer = format!("limit=1&resourceVersionMatch=NotOlderThan&resourceVersion={version}");
        let path = format!("{}?{newer}", self.kind.collection());
        self.client.get(&path).is_err_and(|error| error.is_ahead())
    }

    /// Changes from a version on, until the server ends the watch. The version that was reached; `None`: list again. However it ends, what was
    /// heard is not heard twice: for a moment an object would be again what it was minutes ago.
    fn watch(&self, reached: &mut String) -> Result<Option<String>, ApiError> {
        let outlived = self.mirror().outlived(self.kind).next().is_some();
        let most = if outlived { WATCH_SECONDS_OUTLIVED } else { WATCH_SECONDS };
        let seconds = Duration::from_secs(most).mul_f64(0.5 + random() / 2.0).as_secs();
        let path = format!(
            "{}resourceVersion={reached}&allowWatchBookmarks=true&timeoutSeconds={seconds}",
            self.path
        );
        let from = reached.clone();
        let mut events = self.client.watch(&path)?;
        self.mirror().watched(self.kind);
        loop {
            let event = match events.next() {
                Ok(Some(event)) => event,
                Ok(None) => return Ok((!outlived).then(|| reached.clone())),
                // Cut in the middle: what was heard was heard, so go on from there. Whether anybody answers shows then.
                Err(ApiError::Unreachable { .. }) if *reached != from => return Ok(Some(reached.clone())),
                Err(error) => return Err(error),
            };
            if let Event::Gone(object) = &event {
                match self.definition_of(made(object).unwrap_or(i64::MAX)) {
                    Ok(Definition::Stands) => {}
                    Ok(Definition::Gone | Definition::MadeAnew) => return Err(self.undefined()),
                    Err(error) => return Err(error),
                }
            }
            self.take(&event, reached);
            if self.heard.strong_count() == 0 {
                return Ok(None);
            }
        }
    }

    fn take(&self, event: &Event, reached: &mut String) {
        match event {
            Event::Bookmark(version) => reached.clone_from(version),
            Event::Is(object) | Event::Gone(object) => {
                if let Some(version) = object["metadata"]["resourceVersion"].as_str() {
                    version.clone_into(reached);
                }
            }
        }
        self.change(|mirror| {
            mirror.reached(self.kind, reached);
            match event {
                Event::Bookmark(_) => false,
                Event::Is(object) => mirror.is(self.kind, object),
                Event::Gone(object) => mirror.gone(self.kind, object),
            }
        });
    }

    /// How the definition is of an object that is not there any more, and that was made then: with a definition the server deletes every
    /// object of it, one by one, and each event looks as if a person had meant that object. Once the definition is there again, only
    /// what is older than it tells so.
    fn definition_of(&self, object_made: i64) -> Result<Definition, ApiError> {
        let Some(name) = self.kind.definition() else { return Ok(Definition::Stands) };
        match self.client.get(&format!("{DEFINITIONS}/{name}")) {
            Ok(object) if !object["metadata"]["deletionTimestamp"].is_null() => Ok(Definition::Gone),
            Ok(object) if made(&object).is_some_and(|made| object_made.saturating_add(CLOCKS) < made) => {
                Ok(Definition::MadeAnew)
            }
            Ok(_) => Ok(Definition::Stands),
            // Calico's API server has its kinds without definitions.
            Err(error) if error.is_absent() && self.kind.is_foreign() && self.is_served()? => {
                Ok(Definition::Stands)
            }
            Err(error) if error.is_absent() => Ok(Definition::Gone),
            Err(error) if error.is_forbidden() => {
                // The role of an earlier release.
                tracing::warn!(%error, "whether an object was deleted with its definition cannot be asked; it goes");
                Ok(Definition::Stands)
            }
            Err(error) => Err(error),
        }
    }

    fn is_served(&self) -> Result<bool, ApiError> {
        match self.client.get(&format!("{}limit=1", self.path)) {
            Err(error) if error.is_absent() => Ok(false),
            served => served.map(|_| true),
        }
    }

    /// As if the server had said already what it will say when it is done.
    fn undefined(&self) -> ApiError {
        ApiError::Refused {
            verb: "GET",
            path: self.path.trim_end_matches('?').to_owned(),
            status: 404,
            reason: "NotFound".to_owned(),
            message: format!(
                "the definition {} is deleted, and every object with it; what was last heard stays in force",
                self.kind.definition().unwrap_or_default()
            ),
        }
    }

    fn mirror(&self) -> MutexGuard<'_, Mirror> {
        self.mirror.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut Mirror) -> bool) {
        let changed = {
            let mut mirror = self.mirror();
            let changed = change(&mut mirror);
            if self.kind.is_foreign() {
                self.paces.hear(&mirror);
            }
            changed
        };
        if changed {
            // Full: a notice is on its way already.
            let _ = self.notice.try_send(());
        }
    }
}

/// Rests so long, or up to twice as long; the next time longer.
fn rest(pause: &mut Duration) {
    thread::sleep(*pause + pause.mul_f64(random()));
    *pause = (*pause * 2).min(LONGEST_PAUSE / 2);
}

/// From 0 to 1, different in each thread and process: the standard library seeds its hashes by chance.
fn random() -> f64 {
    let bits = u32::try_from(RandomState::new().hash_one(0u8) >> 32).unwrap_or(u32::MAX);
    f64::from(bits) / f64::from(u32::MAX)
}
