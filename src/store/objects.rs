//! The user's objects: every YAML and JSON file below `objects/`, compiled once and decoded as asked for.
//!
//! In: the state directory. Out: objects by name, what is wrong with them, and views for the resolver.
//! Never: writes below `objects/`, or knows leases, endpoints and node numbers (`Node.number` and `.wire` stay `None`).
//!
//! An open looks at every file with one `stat` and parses only what changed since the cache was written. A file that
//! cannot be read, or not to its end, keeps what it last held in force: a slip of the pen in one file must not send pods
//! out with their own addresses. A directory that cannot be listed is an error, never an empty one.

mod bytes;
mod cache;
mod compile;
mod file;
pub mod folder;
mod follow;
mod image;
mod placed;
mod scan;
mod stamp;
#[cfg(test)]
mod tests;
mod views;

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use nix::errno::Errno;
use serde::de::DeserializeOwned;

use crate::addr::Cidr;
use crate::api::{Kind, Reading};
use crate::egress::model::{Namespace, Node, Pod, PodName, Pool};
use crate::egress::policy::Policy;
use crate::problem::Problem;
use file::{read, unread};
use follow::refilled;
use image::{FileRecord, Image, ObjectRow, slot};
use scan::Survey;
pub use scan::names_objects;
use stamp::Stamp;

/// Reasons of problems that a file has as such, when more may be in it than was read. `WrongType` is a list whose members are none.
const IN_DOUBT: [&str; 8] =
    ["EmptyFile", "NestedList", "NotAnObject", "NotJson", "NotYaml", "PassedOver", "Unreadable", "WrongType"];

/// All objects of a state directory at one moment. A copy costs nothing.
#[derive(Clone)]
pub struct Objects {
    image: Arc<Image>,
}

/// Why the objects as a whole are unknown. None of this is the same as "there are none".
#[derive(Debug, thiserror::Error)]
pub enum ObjectsError {
    /// There is no `objects` directory.
    #[error(
        "there is no directory {0}; create it, mount what should be there, or set `stateDir` to where it is"
    )]
    Missing(PathBuf),
    /// A directory cannot be listed.
    #[error(
        "cannot list {path}: {source}; objects that cannot be seen are not taken as absent, so make it readable"
    )]
    Unlisted {
        /// The directory.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// Somebody else had a hand in files that this process alone writes.
    #[error(
        "{0} is not as this agent wrote it, so what was just read counts for nothing; it is written again"
    )]
    Lost(PathBuf),
    /// More than 4 GiB of objects.
    #[error("{0} holds more than 4 GiB of objects; remove those that have nothing to do with egress")]
    TooLarge(PathBuf),
}

impl Objects {
    /// Opens the objects below `state_dir`, reading only the files that changed since the cache was written. For a moment: who keeps
    /// them begins with [`Objects::open_again`].
    ///
    /// # Errors
    /// If `objects/` or a directory in it cannot be listed. Everything else is a problem, see [`Objects::problems`].
    pub fn open(state_dir: &Path) -> Result<Objects, ObjectsError> {
        Objects::read(state_dir, true, None, cache::glance)
    }

    /// The same, for who has opened them before: while nothing changed, nothing is read but what files look like.
    ///
    /// # Errors
    /// As [`Objects::open`].
    pub fn open_again(state_dir: &Path, last: Option<&Objects>) -> Result<Objects, ObjectsError> {
        Objects::read(state_dir, true, last, cache::load)
    }

    /// The same, and the cache stays as it is.
    ///
    /// # Errors
    /// As [`Objects::open`].
    pub fn look(state_dir: &Path) -> Result<Objects, ObjectsError> {
        Objects::read(state_dir, false, None, cache::glance)
    }

    /// Objects that lie in no state directory, as if each reading were a file of one: manifests before they are applied.
    ///
    /// # Errors
    /// They are more than 4 GiB.
    pub fn of(mut readings: Vec<(String, Reading)>) -> Result<Objects, ObjectsError> {
        readings.sort_by(|(a, _), (b, _)| a.cmp(b));
        let record = |(name, reading): (String, Reading)| {
            let path = CString::new(name.replace('\0', "?")).unwrap_or_default();
            compile::read(Cow::Owned(path), Stamp::NEVER, reading, None).into()
        };
        let records: Vec<_> = readings.into_iter().map(record).collect();
        let image =
            image::encode([].into_iter(), &records, &compile::verdict(&records)).and_then(Image::parse);
        image.map(Objects::from).ok_or_else(|| ObjectsError::TooLarge(PathBuf::from("-")))
    }

    /// `cached`: how the cache is read where there is nothing of last time.
    fn read(
        state_dir: &Path,
        renews_cache: bool,
        last: Option<&Objects>,
        cached: fn(&Path) -> Option<Image>,
    ) -> Result<Objects, ObjectsError> {
        let path = state_dir.join("objects");
        let root = open_root(&path).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => ObjectsError::Missing(path.clone()),
            _ => ObjectsError::Unlisted { path: path.clone(), source },
        })?;
        // Taken before anything is read: its clock bounds the time of reading from below.
        let pen = || renews_cache.then(|| cache::Pen::take(state_dir)).and_then(Result::ok);
        let last = last.map(|objects| Arc::clone(&objects.image));
        let Some(image) = last.or_else(|| cached(state_dir).map(Arc::new)) else {
            return renew(pen(), &path, &root, None);
        };
        let survey = scan::survey(root.as_fd(), &image);
        if survey.is_current() {
            return Ok(Objects { image });
        }
        renew(pen(), &path, &root, Some((image, survey)))
    }

    /// A pod, if it is there and right.
    pub fn pod(&self, name: &PodName) -> Option<Pod> {
        self.decode(Kind::Pod, &name.to_string())
    }

    /// A namespace, if it is there and right.
    pub fn namespace(&self, name: &str) -> Option<Namespace> {
        self.decode(Kind::Namespace, name)
    }

    /// A node, if it is there and right.
    pub fn node(&self, name: &str) -> Option<Node> {
        self.decode(Kind::Node, name)
    }

    /// All pods that are right, by namespace and name.
    pub fn pods(&self) -> impl Iterator<Item = (PodName, Pod)> {
        self.image.of(slot(Kind::Pod)).filter_map(|row| {
            let (namespace, name) = row.name.split_once('/')?;
            Some((PodName::new(namespace, name), parsed(row)?))
        })
    }

    /// Pods that share the network of this node, while they have its addresses. Of the others none is decoded.
    pub fn on_the_network_of(&self, node: &str) -> impl Iterator<Item = PodName> {
        self.image.of(slot(Kind::Pod)).filter(|row| row.shares).filter_map(move |row| {
            let pod: Pod = parsed(row)?;
            let (namespace, name) = row.name.split_once('/')?;
            let here = pod.node.as_deref() == Some(node) && !pod.ips.is_empty();
            here.then(|| PodName::new(namespace, name))
        })
    }

    /// All namespaces that are right, by name.
    pub fn namespaces(&self) -> impl Iterator<Item = (String, Namespace)> {
        self.all(Kind::Namespace)
    }

    /// All nodes that are right, by name.
    pub fn nodes(&self) -> impl Iterator<Item = (String, Node)> {
        self.all(Kind::Node)
    }

    /// All pools that are right, of both kinds, by name.
    pub fn pools(&self) -> impl Iterator<Item = (String, Pool)> {
        self.all(Kind::EgressPool)
    }

    /// All `EgressGatewayPolicy` objects, ours and Calico's, by name; also those that cannot be obeyed (`unfit`).
    pub fn policies(&self) -> impl Iterator<Item = (String, Policy)> {
        self.all(Kind::EgressGatewayPolicy)
    }

    /// All `CiliumEgressGatewayPolicy` objects by name, also those that cannot be obeyed (`unfit`).
    pub fn cilium_policies(&self) -> impl Iterator<Item = (String, Policy)> {
        self.all(Kind::CiliumEgressGatewayPolicy)
    }

    /// The ranges of all `ServiceCIDR` objects, sorted, without doubles.
    pub fn service_cidrs(&self) -> Vec<Cidr> {
        self.prefixes(Kind::ServiceCIDR)
    }

    /// The ranges of all `EgressRange` objects, sorted, without doubles.
    pub fn ranges(&self) -> Vec<Cidr> {
        self.prefixes(Kind::EgressRange)
    }

    /// Where the API server is, sorted, without doubles.
    pub fn api_servers(&self) -> Vec<Cidr> {
        self.prefixes(Kind::EndpointSlice)
    }

    fn prefixes(&self, kind: Kind) -> Vec<Cidr> {
        let found: BTreeSet<Cidr> = self.all::<Vec<Cidr>>(kind).flat_map(|(_, cidrs)| cidrs).collect();
        found.into_iter().collect()
    }

    /// All that is wrong: first within files, by file name, then between them.
    pub fn problems(&self) -> Vec<Problem> {
        let lists = self.image.files().map(|file| file.problems).chain([self.image.problems()]);
        lists.flat_map(json_list::<Problem>).collect()
    }

    /// Files of which nobody knows all that they hold: not read, or not to their end. Any object may be in them.
    pub fn unread(&self) -> Vec<String> {
        let in_doubt = |problem: &Problem| problem.object.is_empty() && IN_DOUBT.contains(&&*problem.reason);
        let doubtful = |file: &image::FileRow<'_>| {
            !file.problems.is_empty() && json_list::<Problem>(file.problems).iter().any(in_doubt)
        };
        let files = self.image.files().filter(doubtful);
        files.map(|file| file.path.to_string_lossy().into_owned()).collect()
    }

    /// Objects that exist but cannot be understood or used, as `Kind name` or `Kind namespace/name`.
    pub fn broken(&self) -> BTreeSet<String> {
        json_list(self.image.broken()).into_iter().collect()
    }

    /// Changes if, and but for chance only if, an object in force or the list of the broken changes.
    pub fn fingerprint(&self) -> u64 {
        self.image.fingerprint()
    }

    /// The same of all objects but pods, and of the list of the broken, pods or not. Takes a look at each object.
    pub fn fingerprint_without_pods(&self) -> u64 {
        self.fingerprint_without(&[Kind::Pod])
    }

    /// The same of what [`Objects::outline`] is made of: not of pods and namespaces, of which there are many and which change often.
    pub fn fingerprint_of_outline(&self) -> u64 {
        self.fingerprint_without(&[Kind::Namespace, Kind::Pod])
    }

    fn fingerprint_without(&self, kinds: &[Kind]) -> u64 {
        let kept = Kind::ALL.into_iter().filter(|kind| !kinds.contains(kind));
        let slots: BTreeSet<u8> = kept.map(slot).collect();
        let objects = slots.into_iter().flat_map(|slot| self.image.of(slot));
        compile::fingerprint(objects.map(|object| object.digest), self.image.broken())
    }

    /// The file that an object in force came from, relative to `objects/`.
    pub fn file(&self, kind: Kind, name: &str) -> Option<String> {
        let number = self.image.find(slot(kind), name)?;
        Some(self.image.file_of(number)?.path.to_string_lossy().into_owned())
    }

    fn decode<T: DeserializeOwned>(&self, kind: Kind, name: &str) -> Option<T> {
        let number = self.image.find(slot(kind), name)?;
        parsed(self.image.object(number))
    }

    fn all<T: DeserializeOwned>(&self, kind: Kind) -> impl Iterator<Item = (String, T)> {
        self.image.of(slot(kind)).filter_map(|row| Some((row.name.to_owned(), parsed(row)?)))
    }
}

impl From<Image> for Objects {
    fn from(image: Image) -> Objects {
        Objects { image: Arc::new(image) }
    }
}

fn open_root(path: &Path) -> io::Result<File> {
    std::fs::OpenOptions::new().read(true).custom_flags(libc::O_DIRECTORY | libc::O_CLOEXEC).open(path)
}

/// The body was written by this release and passed its checksum, so it decodes; a test holds the two together.
fn parsed<T: DeserializeOwned>(row: ObjectRow<'_>) -> Option<T> {
    serde_json::from_slice(row.body).ok()
}

fn json_list<T: DeserializeOwned>(bytes: &[u8]) -> Vec<T> {
    if bytes.is_empty() { Vec::new() } else { serde_json::from_slice(bytes).unwrap_or_default() }
}

/// Scans, reads what changed, compiles, and writes the cache if there is a pen.
fn renew(
    pen: Option<cache::Pen>,
    path: &Path,
    root: &File,
    cached: Option<(Arc<Image>, Survey)>,
) -> Result<Objects, ObjectsError> {
    let clock = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let clock = i64::try_from(clock.as_nanos()).unwrap_or(i64::MAX);
    let read_at = pen.as_ref().map_or(clock, |pen| clock.min(pen.now));
    // What was looked at is let go before the new image is made.
    let (cached, survey) = cached.unzip();
    let found = match (&cached, survey) {
        (Some(image), Some(survey)) => match survey.same_names(image) {
            Some(found) => Ok(found),
            None => scanned(root.as_fd(), Some((image, &survey))),
        },
        _ => scanned(root.as_fd(), None),
    };
    let found = found.map_err(|unlisted| ObjectsError::Unlisted {
        path: path.join(unlisted.path.to_string_lossy().as_ref()),
        source: unlisted.errno.into(),
    })?;
    let mut records = Vec::with_capacity(found.files.len());
    let numbered = |image| Image::files(image).enumerate().map(move |(number, row)| (image, number, row));
    let mut old = cached.as_deref().into_iter().flat_map(numbered).peekable();
    for file in found.files {
        while old.next_if(|(.., row)| row.path < file.path.as_ref()).is_some() {}
        let before = old.next_if(|(.., row)| row.path == file.path.as_ref());
        records.push(match before {
            Some((image, number, row)) if row.stamp == file.stamp => FileRecord::Kept(image, number),
            before => {
                let (stamp, reading) = match file.unfit {
                    Some(why) => (file.stamp, unread(&file.path, why)),
                    None => read(root.as_fd(), &file.path),
                };
                let before = before.map(|(image, _, row)| (image, row));
                compile::read(file.path, stamp.settled(read_at), reading, before).into()
            }
        });
    }
    let dirs = found.dirs.iter().map(|(path, stamp)| (path.as_ref(), stamp.settled(read_at)));
    let filled = cached.as_deref().and_then(|cached| refilled(cached, dirs.clone(), &records));
    let anew = || image::encode(dirs, &records, &compile::verdict(&records)).and_then(Image::parse);
    let image = filled.or_else(anew).ok_or_else(|| ObjectsError::TooLarge(path.to_owned()))?;
    // Unchanged bytes are the common case while a file is too fresh to be trusted.
    if cached.as_ref().is_none_or(|cached| cached.bytes() != image.bytes())
        && let Some(Err(error)) = pen.map(|pen| pen.write(&image))
    {
        tracing::debug!(%error, "object cache not written");
    }
    Ok(image.into())
}

/// Scans; a directory that vanishes meanwhile is a change, not an error, so it is scanned again.
fn scanned(
    root: BorrowedFd<'_>,
    last: Option<(&Image, &Survey)>,
) -> Result<scan::Found<'static>, scan::Unlisted> {
    for _ in 0..3 {
        match scan::scan(root, last) {
            Err(gone) if gone.errno == Errno::ENOENT => {}
            found => return found,
        }
    }
    scan::scan(root, last)
}
