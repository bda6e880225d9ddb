//! Which files are watched, and what a change of them calls for.
//!
//! In: the state directory, the node's own directory, the folders that namespaces lie in. Out: jobs. Never: reads an object.
//!
//! A file counts when its writer closes it, or when it is renamed, linked or removed: what is half written is nobody's business
//! yet. A mount over the directory makes no notice at all, and a link may lead out of it; for both there is the regular look.

mod folders;
mod told;

use std::collections::{BTreeSet, HashMap};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, InotifyEvent, WatchDescriptor};

use crate::agent::ear::Ear;
use crate::agent::schedule::Job;
use crate::store::Dir;
use crate::store::objects::names_objects;
use folders::Folders;
pub use told::Told;

/// Directories inside directories, as `store::objects` reads them.
const DEPTH: usize = 32;

/// Device and inode of a directory: which one it is, whatever its name.
pub type Identity = (u64, u64);

/// What stands at a path.
pub fn identity(path: &Path) -> io::Result<Identity> {
    fs::metadata(path).map(|found| (found.dev(), found.ino()))
}

/// What lies in a watched folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// The state directory: only the coming and going of its parts matters.
    State,
    /// Objects, records of endpoints and nodes.
    Input,
    /// The node's own directory.
    Memory,
    /// Records of attachments.
    Attachments,
    /// A folder with namespaces.
    Namespaces,
}

impl Kind {
    fn flags(self) -> AddWatchFlags {
        let moves = AddWatchFlags::IN_MOVED_TO | AddWatchFlags::IN_MOVED_FROM;
        let names = moves | AddWatchFlags::IN_CREATE | AddWatchFlags::IN_DELETE;
        let itself = AddWatchFlags::IN_DELETE_SELF | AddWatchFlags::IN_MOVE_SELF | AddWatchFlags::IN_ONLYDIR;
        match self {
            Kind::State => names | itself,
            Kind::Input => names | itself | AddWatchFlags::IN_CLOSE_WRITE | AddWatchFlags::IN_ATTRIB,
            Kind::Memory => moves | AddWatchFlags::IN_DELETE | AddWatchFlags::IN_CREATE | itself,
            Kind::Attachments => names | itself,
            Kind::Namespaces => AddWatchFlags::IN_DELETE | AddWatchFlags::IN_ONLYDIR,
        }
    }
}

/// What was watched is not there any more.
const GONE: AddWatchFlags = AddWatchFlags::IN_DELETE_SELF
    .union(AddWatchFlags::IN_MOVE_SELF)
    .union(AddWatchFlags::IN_UNMOUNT)
    .union(AddWatchFlags::IN_IGNORED);

/// The watches.
pub struct Files {
    inotify: Arc<Inotify>,
    ear: Arc<Ear>,
    kinds: HashMap<WatchDescriptor, Kind>,
    /// Folders of objects by their path below `objects/`; `None` where several lead to one.
    places: HashMap<WatchDescriptor, Option<PathBuf>>,
    /// Files of objects that were told of.
    pub told: Told,
    folders: Folders,
    /// Whether all that was last heard of objects was renamed into its place: nobody is about to go on writing it.
    pub whole: bool,
    /// Why not everything is watched.
    short: Option<String>,
}

impl Files {
    /// No watch yet.
    ///
    /// # Errors
    /// The kernel has no inotify instance left (`fs.inotify.max_user_instances`).
    pub fn open() -> io::Result<Files> {
        let inotify = Arc::new(Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?);
        Ok(Files {
            ear: Ear::of(inotify.clone())?,
            inotify,
            kinds: HashMap::new(),
            places: HashMap::new(),
            told: Told::default(),
            folders: Folders::default(),
            whole: false,
            short: None,
        })
    }

    /// What to wait at for news.
    pub fn ear(&self) -> &Arc<Ear> {
        &self.ear
    }

    /// Why not everything is watched, as a sentence; then somebody must look now and then.
    pub fn short(&self) -> Option<&str> {
        self.short.as_deref()
    }

    /// Watches everything anew; watches on what was watched already stay the same ones. Says whether there is a new one: then
    /// something may have changed unheard.
    pub fn watch(&mut self, state: &Dir, memory: &Path, namespaces: &BTreeSet<PathBuf>) -> bool {
        self.short = None;
        let before = std::mem::take(&mut self.kinds);
        self.places.clear();
        self.add(state.path(), Kind::State);
        self.folders.begin();
        self.tree(&state.objects(), PathBuf::new(), &mut Vec::new());
        for part in ["endpoints", "nodes", "interfaces"] {
            self.add(&state.path().join(part), Kind::Input);
        }
        self.add(memory, Kind::Memory);
        let attachments = memory.join("attachments");
        self.add(&attachments, Kind::Attachments);
        for network in self.folders.of(&attachments) {
            self.add(&network, Kind::Attachments);
        }
        for folder in namespaces {
            self.add(folder, Kind::Namespaces);
        }
        let news = self.kinds.keys().any(|watch| !before.contains_key(watch));
        if news || self.short.is_some() {
            self.told.of_anything();
        }
        for old in before.into_keys().filter(|old| !self.kinds.contains_key(old)) {
            let _ = self.inotify.rm_watch(old); // gone with its directory, most often
        }
        news
    }

    fn tree(&mut self, folder: &Path, place: PathBuf, above: &mut Vec<Identity>) {
        let Ok(itself) = identity(folder) else { return };
        if above.len() >= DEPTH || above.contains(&itself) || self.short.is_some() {
            return;
        }
        if let Some(watch) = self.add(folder, Kind::Input) {
            let known = self.places.contains_key(&watch);
            self.places.insert(watch, (!known).then(|| place.clone()));
        }
        above.push(itself);
        for inner in self.folders.of(folder) {
            let place = place.join(inner.file_name().unwrap_or_default());
            self.tree(&inner, place, above);
        }
        above.pop();
    }

    fn add(&mut self, path: &Path, kind: Kind) -> Option<WatchDescriptor> {
        match self.inotify.add_watch(path, kind.flags()) {
            Ok(watch) => {
                self.kinds.insert(watch, kind);
                return Some(watch);
            }
            Err(Errno::ENOENT | Errno::ENOTDIR) => {} // whoever makes it is heard one level up
            Err(errno) => {
                let why = match errno {
                    Errno::ENOSPC => {
                        "the limit of inotify watches is reached (sysctl fs.inotify.max_user_watches); raise it"
                            .to_owned()
                    }
                    other => other.desc().to_owned(),
                };
                self.short.get_or_insert(format!("cannot watch {}: {why}", path.display()));
            }
        }
        None
    }

    /// Takes in everything that was said until now. Does not wait. A value for each job that something calls for.
    pub fn listen(&mut self) -> BTreeSet<Job> {
        let mut jobs = BTreeSet::new();
        self.whole = true;
        loop {
            match self.inotify.read_events() {
                Ok(events) => {
                    for event in &events {
                        self.hear(event, &mut jobs);
                        self.tell(event);
                    }
                }
                Err(Errno::EINTR) => {}
                Err(_) => return jobs,
            }
        }
    }

    /// Which file of objects an event is about.
    fn tell(&mut self, event: &InotifyEvent) {
        let kind = self.kinds.get(&event.wd);
        let whole = AddWatchFlags::IN_ISDIR | GONE;
        match (self.places.get(&event.wd), &event.name) {
            _ if event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW) => self.told.of_anything(),
            (Some(Some(place)), Some(name)) if !event.mask.intersects(whole) => {
                if !is_draft(Some(name)) {
                    self.told.of(place.join(name));
                }
            }
            (Some(_), _) => self.told.of_anything(),
            (None, _) if kind == Some(&Kind::State) => self.told.of_anything(),
            (None, _) => {}
        }
    }

    fn hear(&mut self, event: &InotifyEvent, jobs: &mut BTreeSet<Job>) {
        let is = |flags| event.mask.intersects(flags);
        if is(AddWatchFlags::IN_Q_OVERFLOW) {
            // Anything may have happened.
            jobs.extend([Job::Folder, Job::Recall, Job::Update, Job::Namespaces]);
            return;
        }
        let Some(kind) = self.kinds.get(&event.wd) else { return };
        let moved = is(GONE);
        let folder = is(AddWatchFlags::IN_ISDIR);
        match kind {
            Kind::State if moved || folder => jobs.extend([Job::Folder, Job::Update]),
            Kind::State => {}
            Kind::Input if moved || folder => {
                self.whole = false;
                jobs.extend([Job::Folder, Job::Update]);
            }
            Kind::Input => {
                if !is_draft(event.name.as_deref()) {
                    self.whole &= is(AddWatchFlags::IN_MOVED_TO);
                    jobs.insert(Job::Update);
                }
            }
            Kind::Memory if moved || folder => jobs.extend([Job::Folder, Job::Recall]),
            Kind::Memory => {
                if is_ours(event.name.as_ref()) {
                    jobs.insert(Job::Recall);
                }
            }
            Kind::Attachments if moved || folder => jobs.extend([Job::Folder, Job::Recall]),
            Kind::Attachments => {
                if !is_draft(event.name.as_deref()) {
                    jobs.insert(Job::Recall);
                }
            }
            Kind::Namespaces => drop(jobs.insert(Job::Namespaces)),
        }
    }
}

/// Hidden names are drafts of writers, or editors' own files, and are read by nobody. A hidden *link* may be what all others
/// lead through (`..data` of a ConfigMap), so two dots count.
fn is_draft(name: Option<&OsStr>) -> bool {
    let name = name.map(OsStr::as_encoded_bytes).unwrap_or_default();
    name.starts_with(b".") && !name.starts_with(b"..")
}

/// Files of the node's own directory that other calls write and this process goes by.
fn is_ours(name: Option<&OsString>) -> bool {
    name.is_some_and(|name| ["plan.json", "config.json", "intended.json"].iter().any(|own| name == own))
}

/// By what the listing says: ten thousand files are not asked one by one. A link is followed; it may lead to a folder of objects.
fn is_folder(entry: &fs::DirEntry) -> bool {
    match entry.file_type() {
        Ok(kind) if kind.is_dir() || kind.is_file() => kind.is_dir(),
        _ => entry.path().is_dir(),
    }
}

/// Whether a folder holds anything that looks like objects. An unreadable one may hold anything.
pub fn holds_objects(folder: &Path) -> bool {
    fn look(folder: &Path, depth: usize) -> bool {
        let Ok(entries) = fs::read_dir(folder) else { return true };
        entries.flatten().any(|entry| {
            let name = entry.file_name();
            let name = name.as_encoded_bytes();
            !name.starts_with(b".")
                && (names_objects(name)
                    || (depth < DEPTH && is_folder(&entry) && look(&entry.path(), depth + 1)))
        })
    }
    look(folder, 0)
}

#[cfg(test)]
mod tests;
