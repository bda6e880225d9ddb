//! Who carries a call out: the node itself, or whoever asks its agent.
//!
//! In: a [`Request`] and a configuration. Out: what the verbs say. Never: a verb's own work.

use std::sync::Arc;

use crate::cni::Node;
use crate::cni::environment::Environment;
use crate::cni::reply::{CniError, Reply};
use crate::cni::request::Request;
use crate::config::{Config, Mode};
use crate::node::attachment::{Attachment, AttachmentId};
use crate::node::books::Books;
use crate::node::embedded::Embedded;
use crate::node::kept::Kept;
use crate::node::records::{self, attachment_id};
use crate::node::thin::Thin;
use crate::node::verbs::Prepared;
use crate::node::{removal, verbs};

/// The node that the plugin's own configuration means, opened anew at each call; in `mode: cluster`, whoever asks its agent.
#[derive(Debug, Default)]
pub struct Plugin {
    thin: Thin,
}

impl Plugin {
    /// One call's.
    pub const fn new() -> Plugin {
        Plugin { thin: Thin::new() }
    }

    fn of<'a>(&'a self, request: &'a Request) -> Box<dyn Node + 'a> {
        match request.config.mode {
            Mode::Embedded => Box::new(Here { config: &request.config, books: None, kept: None }),
            Mode::Cluster => Box::new(&self.thin),
        }
    }
}

impl Node for Plugin {
    fn pass_on(&self, environment: &Environment, stdin: &[u8]) -> Option<Reply> {
        (&self.thin).pass_on(environment, stdin)
    }

    fn add(&self, request: &Request) -> Result<(), CniError> {
        self.of(request).add(request)
    }

    fn del(&self, request: &Request) -> Result<(), CniError> {
        self.of(request).del(request)
    }

    fn del_unread(&self, container_id: &str, ifname: &str) {
        // The node's files lie where the default says, unless `runDir` was moved; there, the last call's configuration.
        let Ok(node) = Embedded::look(&Config::default()) else { return };
        let config = node.memory.config().unwrap_or_default();
        if config.mode == Mode::Embedded {
            Here { config: &config, books: None, kept: None }.del_unread(container_id, ifname);
        }
    }

    fn check(&self, request: &Request) -> Result<(), CniError> {
        self.of(request).check(request)
    }

    fn gc(&self, request: &Request) -> Result<(), CniError> {
        self.of(request).gc(request)
    }

    fn status(&self, request: &Request) -> Result<(), CniError> {
        self.of(request).status(request)
    }
}

/// The node itself, by a configuration: what the embedded plugin and the agent carry verbs out with.
#[derive(Clone)]
pub struct Here<'a> {
    /// The node's, whatever the caller's request says.
    pub config: &'a Config,
    /// Where leases are, if not in the state directory.
    pub books: Option<Arc<dyn Books>>,
    /// What is kept from call to call, by who answers many.
    pub kept: Option<Arc<Kept>>,
}

impl Here<'_> {
    fn with(&self, node: Result<Embedded, CniError>) -> Result<Embedded, CniError> {
        node.map(|node| {
            let node = Embedded { books: self.books.clone(), ..node };
            self.kept.iter().fold(node, Embedded::keeping)
        })
    }

    /// The node, whether its state directory is there or not.
    pub(super) fn node(&self) -> Result<Embedded, CniError> {
        self.with(Embedded::at(self.config))
    }

    /// What a DEL is about, before it has a lock. If the node must be changed for it, its pod is cut off.
    ///
    /// # Errors
    /// The node cannot be opened.
    pub fn leaving(&self, request: &Request) -> Result<Leaving, CniError> {
        let id = attachment_id(request);
        let node = self.node()?.who_recorded(&id);
        if node.memory.may_concern(&id).unwrap_or(false) {
            node.cut_off(&id);
        } else if !node.memory.is_unfinished() {
            return Ok(Leaving::Recorded(Box::new(node), id));
        }
        Ok(Leaving::Planned(id))
    }

    /// Undoes an attachment.
    ///
    /// # Errors
    /// As [`Node::del`].
    pub(super) fn remove(&self, id: &AttachmentId) -> Result<(), CniError> {
        self.node()?.who_recorded(id).remove(id)
    }

    /// What an ADD is about; the claim, which may wait for others, and what waits for nobody follow.
    ///
    /// # Errors
    /// As [`Node::add`].
    pub fn prepare(&self, request: &Request) -> Result<Prepared, CniError> {
        verbs::prepare(self.node()?, request)
    }
}

/// What stands for an attachment that goes.
pub enum Leaving {
    /// The plan speaks of it, or may.
    Planned(AttachmentId),
    /// Its record, and nothing else of the node but a gateway's leases.
    Recorded(Box<Embedded>, AttachmentId),
}

impl Node for Here<'_> {
    fn add(&self, request: &Request) -> Result<(), CniError> {
        let mut prepared = self.prepare(request)?;
        prepared.claim()?;
        let outcome = prepared.carry_out();
        prepared.settle(outcome)
    }

    fn del(&self, request: &Request) -> Result<(), CniError> {
        self.remove(&attachment_id(request))
    }

    fn del_unread(&self, container_id: &str, ifname: &str) {
        let Ok(node) = self.with(Embedded::open(self.config)) else { return };
        let Ok(listing) = node.records.list(None) else { return };
        let torn = listing.torn.into_iter().map(|(id, _)| id);
        for id in listing.attachments.iter().map(Attachment::id).chain(torn) {
            if id.container_id == container_id && id.ifname == ifname {
                let _ = node.remove(&id); // the caller gets an error as it is
            }
        }
    }

    fn check(&self, request: &Request) -> Result<(), CniError> {
        let id = attachment_id(request);
        records::check(&self.node()?.who_recorded(&id).records, request)?;
        self.with(Embedded::open(self.config))?.who_recorded(&id).compare(&id)
    }

    fn gc(&self, request: &Request) -> Result<(), CniError> {
        removal::gc(&self.with(Embedded::open(self.config))?, request)
    }

    fn status(&self, _: &Request) -> Result<(), CniError> {
        records::status(self.config)
    }
}
