//! A node that works on a directory: the embedded mode. What it is made of, and the locks it takes.
//!
//! In: the configuration. Out: an [`Embedded`] that the verbs work with. Never: decides or programs anything by itself.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::clock;
use crate::cni::reply::{CniError, Code};
use crate::config::Config;
use crate::egress::model::{Endpoint, PodName, View};
use crate::ipam::IpamError;
use crate::kernel::KernelError;
use crate::kernel::netns::{Netns, NetnsError};
use crate::node::attachment::{Attachments, Listing};
use crate::node::books::Books;
use crate::node::facts::FactsError;
use crate::node::kept::Kept;
use crate::node::memory::{LOCK, Memory};
use crate::node::records::node_name;
use crate::node::sweeps::Sweep;
use crate::problem::Problem;
use crate::store::RecordError;
use crate::store::endpoints::{self, EndpointError};
use crate::store::nodes::{self, NodeError as NumberError, NodeRecord};
use crate::store::objects::{Objects, ObjectsError};
use crate::store::{Dir, DirError, advice};
use crate::store::{Guard, LockError, lock, wait_for_writers};

/// A node on a directory.
pub struct Embedded {
    /// The configuration.
    pub config: Config,
    /// This node's name.
    pub name: String,
    /// The directory of objects and records, which other nodes may share.
    pub dir: Dir,
    /// What this node remembers on tmpfs.
    pub memory: Memory,
    /// What was wired here.
    pub records: Attachments,
    /// Print steps, do none; write nothing at all.
    pub dry_run: bool,
    /// How long to wait for a lock.
    pub patience: Duration,
    /// Where leases are, if not in the directory.
    pub books: Option<Arc<dyn Books>>,
    /// What is kept between updates, by who makes many.
    pub kept: Option<Arc<Kept>>,
    /// What becomes of the past of addresses whose pod sends nothing: begun before this call had a lock.
    pub swept: Vec<Arc<Sweep>>,
}

/// Why a node could not be brought to its plan.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// Another call holds a lock.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The state directory cannot be used.
    #[error(transparent)]
    Dir(#[from] DirError),
    /// Its objects cannot be read at all.
    #[error(transparent)]
    Objects(#[from] ObjectsError),
    /// A record cannot be read or written.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// An endpoint cannot be written.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// A node has no number.
    #[error(transparent)]
    Number(#[from] NumberError),
    /// Leases cannot be read or written.
    #[error("{0}")]
    Ipam(String),
    /// What a gateway has is not in the books.
    #[error("the lease of {ip} for {tenant} is not written again yet: {source}")]
    Unheld {
        /// Its address.
        ip: IpAddr,
        /// Whose.
        tenant: String,
        /// Why.
        source: Box<IpamError>,
    },
    /// What this machine is cannot be found out.
    #[error(transparent)]
    Facts(#[from] FactsError),
    /// A namespace cannot be entered.
    #[error(transparent)]
    Netns(#[from] NetnsError),
    /// Pods or gateways here are wired under another name.
    #[error(
        "pods or gateways of this machine are wired as node `{wired}`, and none as `{asked}`, so this would undo their rules: name `{wired}` \
         (--node, `nodeName`, or the host name). If the machine was renamed, end these pods, replace Node `{wired}` by Node `{asked}` if it is \
         a gateway itself, and `{asked}` takes over; `egret uninstall --node {wired}` gives them up at once, with their own addresses"
    )]
    OtherName {
        /// The name that was said, or is the host's.
        asked: String,
        /// The name that they have.
        wired: String,
    },
    /// Pods here are wired by another directory.
    #[error(
        "pods of this node are wired by the state directory {}, and not by {}, which may know nothing of them: name the first, or \
         leave --state out. If the directory was moved, set `stateDir` in the network list, and the next pod's start takes it up",
        wired.display(), asked.display()
    )]
    OtherDirectory {
        /// The directory that was said.
        asked: PathBuf,
        /// The one that the plugin was last called with.
        wired: PathBuf,
    },
    /// The node's own files on tmpfs cannot be read or written.
    #[error("cannot use the node's own files below {}: {}{}", .0, .1, advice(.1))]
    Memory(String, io::Error),
    /// The kernel cannot be read.
    #[error("cannot read this node's kernel: {0}")]
    Observe(String),
    /// The kernel lacks something, or somebody else uses what is ours.
    #[error("{}", .0.join("; "))]
    Unfit(Vec<String>),
    /// Some steps failed; the rest was done.
    #[error("{}", .0.join("; "))]
    Steps(Vec<String>),
}

impl From<KernelError> for NodeError {
    fn from(error: KernelError) -> NodeError {
        NodeError::Observe(error.to_string())
    }
}

impl From<NodeError> for CniError {
    fn from(error: NodeError) -> CniError {
        let code = match &error {
            NodeError::Lock(LockError::Busy { .. })
            | NodeError::Objects(ObjectsError::Lost(_))
            | NodeError::OtherName { .. }
            | NodeError::OtherDirectory { .. } => Code::TryAgainLater,
            NodeError::Lock(_) | NodeError::Dir(_) | NodeError::Objects(_) | NodeError::Memory(..) => {
                Code::Io
            }
            NodeError::Record(_)
            | NodeError::Endpoint(_)
            | NodeError::Number(_)
            | NodeError::Ipam(_)
            | NodeError::Unheld { .. } => Code::Io,
            NodeError::Netns(_) => Code::NetnsUnusable,
            NodeError::Facts(_) => Code::InvalidConfig,
            NodeError::Observe(_) | NodeError::Unfit(_) | NodeError::Steps(_) => Code::WiringFailed,
        };
        CniError::new(code, error.to_string())
    }
}

impl Embedded {
    /// The node that the configuration means.
    ///
    /// # Errors
    /// The name is no name, or the state directory cannot be made, or it is missing under running pods.
    pub fn open(config: &Config) -> Result<Embedded, CniError> {
        Embedded::on(|memory| made(config, memory), config, false)
    }

    /// The same where the state directory may be missing for now: nothing is looked at, and what is missing is made by whoever writes
    /// ([`Embedded::lock_store`]), or an error of whoever reads. A pod's end needs nothing of it to be unbound in this kernel.
    ///
    /// # Errors
    /// The name is no name.
    pub fn at(config: &Config) -> Result<Embedded, CniError> {
        Embedded::on(|_| Ok(Dir::by_path(&config.state_dir)), config, false)
    }

    /// The same for those who only read: nothing is made.
    ///
    /// # Errors
    /// The name is no name, or there is no state directory.
    pub fn look(config: &Config) -> Result<Embedded, CniError> {
        Embedded::on(|_| Ok(Dir::at(&config.state_dir)?), config, true)
    }

    fn on(
        dir: impl FnOnce(&Memory) -> Result<Dir, NodeError>,
        config: &Config,
        dry_run: bool,
    ) -> Result<Embedded, CniError> {
        let name = node_name(config)?;
        let memory = Memory::new(&config.run_dir, &name);
        Ok(Embedded {
            dir: dir(&memory)?,
            memory,
            records: Attachments::of_node(&config.run_dir, &name),
            config: config.clone(),
            name,
            dry_run,
            patience: Duration::from_millis(config.lock_timeout),
            books: None,
            kept: None,
            swept: Vec::new(),
        })
    }

    /// The same for who lives on.
    #[must_use]
    pub fn keeping(self, kept: &Arc<Kept>) -> Embedded {
        let (memory, records) = (self.memory.keeping(&kept.plans), self.records.keeping(&kept.attachments));
        Embedded { memory, records, kept: Some(Arc::clone(kept)), ..self }
    }

    /// The lock under which this node's kernel is changed. Taken before the store's.
    ///
    /// # Errors
    /// It cannot be had in time; the error names the holder. Or this kernel is another node's.
    pub fn lock(&self, who: &str) -> Result<Guard, NodeError> {
        self.must_be_this_node().or_else(|_| {
            self.end_what_is_over();
            self.must_be_this_node()
        })?;
        let folder = self.memory.dir();
        let file = folder.join(LOCK);
        match lock(&file, who, self.patience) {
            Err(LockError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
            locked => return Ok(locked?),
        }
        fs::create_dir_all(folder).map_err(|e| NodeError::Memory(folder.display().to_string(), e))?;
        Ok(lock(&file, who, self.patience)?)
    }

    /// The same for those who may only look, see `dry_run`: then nothing is written, not even who holds it.
    ///
    /// # Errors
    /// As [`Embedded::lock`].
    pub fn lock_or_look(&self, who: &str) -> Result<Option<Guard>, NodeError> {
        if !self.dry_run {
            return self.lock(who).map(Some);
        }
        self.must_be_this_node()?;
        Ok(wait_for_writers(&self.memory.dir().join(LOCK), self.patience)?)
    }

    /// The user's objects.
    ///
    /// # Errors
    /// They cannot be listed.
    pub fn objects(&self) -> Result<Objects, NodeError> {
        let dir = self.dir.path();
        if let Some(kept) = &self.kept {
            return Ok(kept.objects(dir)?);
        }
        Ok(if self.dry_run { Objects::look(dir)? } else { Objects::open(dir)? })
    }

    /// What decisions about these pods need of them.
    pub(super) fn view_for(&self, objects: &Objects, pods: &[PodName], endpoints: Vec<Endpoint>) -> View {
        match &self.kept {
            Some(kept) => objects.with_pods(kept.outline(objects, &self.config), pods, endpoints),
            None => objects.view_for(&self.config, pods, endpoints),
        }
    }

    /// What can be said of namespaces before anything is known of their pods.
    pub fn namespaces_view(&self, objects: &Objects) -> View {
        let view = self.view_for(objects, &[], Vec::new());
        View { namespaces: objects.namespaces().collect(), ..view }
    }

    /// The numbers of nodes, and what is wrong with them.
    pub(super) fn node_records(&self) -> Result<(Arc<Vec<NodeRecord>>, Vec<Problem>), RecordError> {
        match &self.kept {
            Some(kept) => kept.records(&self.dir),
            None => nodes::list(&self.dir).map(|(records, problems)| (Arc::new(records), problems)),
        }
    }

    /// The gateways' endpoints, and what is wrong with them.
    pub(super) fn endpoints(&self) -> Result<(Vec<Endpoint>, Vec<Problem>), RecordError> {
        match &self.kept {
            Some(kept) => kept.endpoints(&self.dir),
            None => endpoints::list(&self.dir),
        }
    }

    /// The user's objects, in a directory that may have to be made first.
    ///
    /// # Errors
    /// They cannot be listed, or it cannot be made, or it is missing under running pods.
    pub(super) fn first_objects(&self) -> Result<Objects, NodeError> {
        let found = match &self.kept {
            Some(kept) if self.is_followed() => {
                kept.objects_as_written(self.dir.path()).map_err(NodeError::from)
            }
            _ => self.objects(),
        };
        match found {
            // Whoever makes the directory says best what is in its place.
            Err(NodeError::Objects(_)) => {
                made(&self.config, &self.memory)?;
                self.objects()
            }
            found => found,
        }
    }

    /// The lock of the directory, which other nodes share. Held for one read and write, never across work on the kernel. What is missing
    /// of the directory is made, because who asks for this lock writes.
    ///
    /// # Errors
    /// It cannot be had in time; the error names the holder. Or the directory is missing under running pods.
    pub fn lock_store(&self, who: &str) -> Result<Guard, NodeError> {
        made(&self.config, &self.memory)?;
        Ok(self.dir.lock(&format!("{who} on node {}", self.name), self.patience)?)
    }

    /// The records of one network's attachments, or of all.
    ///
    /// # Errors
    /// A folder cannot be read. Never taken for "there are none": that would empty the node.
    pub fn listing(&self, network: Option<&str>) -> Result<Listing, NodeError> {
        let unreadable = |e| NodeError::Memory(self.records.folder().display().to_string(), e);
        self.records.list(network).map_err(unreadable)
    }

    /// The node's own namespace: the one this process was started in.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn netns(&self) -> Result<Netns, NodeError> {
        Ok(Netns::current()?)
    }
}

/// The state directory, made where it is not there yet.
fn made(config: &Config, memory: &Memory) -> Result<Dir, NodeError> {
    may_be_made(config, memory)?;
    Ok(Dir::open(&config.state_dir)?)
}

/// Not under running pods: a directory that is missing there is not mounted, and in an empty one nothing would select them any more.
pub(super) fn may_be_made(config: &Config, memory: &Memory) -> Result<(), ObjectsError> {
    let objects = Dir::by_path(&config.state_dir).objects();
    if objects.exists() || !memory.serves_pods() { Ok(()) } else { Err(ObjectsError::Missing(objects)) }
}

/// Seconds since 1970. The one place where the node asks for the time.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Nanoseconds since the machine started, to put two ADDs in order; records of them live no longer. Not of the wall clock: were it set
/// back between two pods with one address, the earlier would count as the later, and the address would have its rules. Earlier
/// releases wrote nanoseconds since 1970, which are below 2^61 until 2043: those ADDs come first.
pub fn now_nanos() -> u64 {
    const AFTER_WALL_CLOCKS: u64 = 1 << 61;
    let since = clock::now(libc::CLOCK_BOOTTIME).as_nanos();
    AFTER_WALL_CLOCKS.saturating_add(u64::try_from(since).unwrap_or(u64::MAX))
}
