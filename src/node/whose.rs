//! Whose this kernel is: one machine is one node, by one name and one state directory, for as long as pods of it are wired.
//!
//! In: the run directory. Out: a refusal where a node that has nothing here would undo what stands under another name, or by another
//! directory: what follows from nothing is that no pod is selected, and each would leave with its own address; and the end of what is provably
//! over under another name. Never: guesses which name was meant.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use crate::kernel::netns::Netns;
use crate::node::attachment::{Attachment, AttachmentId, Attachments};
use crate::node::embedded::{Embedded, NodeError};
use crate::node::memory::Memory;
use crate::store::read_whole;

/// Which kernel a plan was made for. Nodes of one machine may share a run directory, each in a network namespace of its own, and a run
/// directory that is no tmpfs outlives the kernel. Without the file, or with one that cannot be read, a plan counts as this kernel's.
const KERNEL: &str = "kernel";

impl Memory {
    /// Remembers that this kernel is the one that is planned for. Who lives on does so once: a file that goes later says the same.
    pub(super) fn belongs_here(&self) {
        if self.last.as_ref().is_some_and(|last| last.is_of_this_kernel.swap(true, Ordering::Relaxed)) {
            return;
        }
        let here = this_kernel();
        if here.is_some() && self.kernel() != here {
            // Without it a plan counts as this kernel's, which it is.
            let _ = self.tell(KERNEL, &here);
        }
    }

    fn kernel(&self) -> Option<String> {
        serde_json::from_slice(&read_whole(&self.dir().join(KERNEL)).ok()?).ok()
    }

    /// Whether pods of it may be wired in this kernel; a plan that cannot be read may say anything.
    fn wires_this_kernel(&self, here: Option<&str>) -> bool {
        let elsewhere = || self.kernel().is_some_and(|known| here.is_some_and(|here| here != known));
        (self.was_applied() || self.is_unfinished()) && !elsewhere() && self.serves_pods()
    }
}

/// The boot and the network namespace. `None`: it cannot be told, and every plan counts.
fn this_kernel() -> Option<String> {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let (dev, inode) = Netns::current().ok()?.id();
    Some(format!("{} {dev}:{inode}", boot.trim()))
}

impl Embedded {
    /// Other names under which pods or gateways are wired in this kernel. Almost always there is no other folder, and nothing is read.
    fn other_names(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(&self.config.run_dir) else { return Vec::new() };
        let folders = entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        let mut names: Vec<String> =
            folders.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.retain(|name| *name != self.name);
        if names.is_empty() {
            return names;
        }
        let here = this_kernel();
        names.retain(|name| Memory::new(&self.config.run_dir, name).wires_this_kernel(here.as_deref()));
        names.sort_unstable();
        names
    }

    /// Refuses for a node of which nothing is wired here while another's pods are: a name that was mistyped, a machine that was renamed.
    ///
    /// # Errors
    /// A sentence that names both.
    pub fn must_be_this_node(&self) -> Result<(), NodeError> {
        // An agent has the plan in hand.
        if self.kept.is_some() && self.memory.applied_shared().is_some_and(|applied| !applied.plan.is_idle())
        {
            return Ok(());
        }
        let others = self.other_names();
        if others.is_empty() || self.memory.serves_pods() {
            return Ok(());
        }
        Err(NodeError::OtherName { asked: self.name.clone(), wired: others.join("`, `") })
    }

    /// Refuses another state directory than the one by which pods of this node are wired.
    ///
    /// # Errors
    /// A sentence that names both.
    pub fn must_be_its_directory(&self) -> Result<(), NodeError> {
        match self.other_directory() {
            Some(wired) => Err(NodeError::OtherDirectory { asked: self.dir.path().to_owned(), wired }),
            None => Ok(()),
        }
    }

    /// The same for who takes everything away: only where the other one is still there, because that is where the endpoints of this
    /// node's gateways are, and whoever lost it must be able to leave all the same.
    ///
    /// # Errors
    /// A sentence that names both.
    pub fn must_reach_its_endpoints(&self) -> Result<(), NodeError> {
        match self.other_directory().filter(|wired| wired.join("objects").is_dir()) {
            Some(wired) => Err(NodeError::OtherDirectory { asked: self.dir.path().to_owned(), wired }),
            None => Ok(()),
        }
    }

    fn other_directory(&self) -> Option<PathBuf> {
        let wired = self.memory.config()?.state_dir;
        let real = |path: &Path| fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        (real(&wired) != real(self.dir.path()) && self.memory.serves_pods()).then_some(wired)
    }

    /// The node that recorded an attachment: this one, but for pods that were started before the machine was renamed. They end under
    /// the name by which they are wired, or their rules would wait for whoever gets their addresses.
    pub(super) fn who_recorded(self, id: &AttachmentId) -> Embedded {
        if self.records.has(id) {
            return self;
        }
        let Some(other) = self.others().into_iter().find(|other| other.records.has(id)) else { return self };
        tracing::info!(attachment = %id, node = other.name, "was started when this machine had another name");
        other
    }

    /// This machine as the nodes that it is by other names. What is kept from call to call is of this name's plan: the numbers that no flow
    /// carries, the records as they were last read.
    pub(super) fn others(&self) -> Vec<Embedded> {
        let run_dir = &self.config.run_dir;
        let named = |name: String| Embedded {
            config: self.config.clone(),
            dir: self.dir.clone(),
            memory: Memory::new(run_dir, &name),
            records: Attachments::of_node(run_dir, &name),
            name,
            dry_run: self.dry_run,
            patience: self.patience,
            books: self.books.clone(),
            kept: None,
            swept: Vec::new(),
        };
        self.other_names().into_iter().map(named).collect()
    }

    /// Ends what stands under another name and is over, because nobody calls by that name any more: pods whose namespace is gone without a
    /// DEL; and the machine as a gateway, once its Node object has gone and the one of this name has come. A name that was mistyped has
    /// none.
    pub(super) fn end_what_is_over(&self) {
        let objects = self.objects();
        let is_node = |name: &str| objects.as_ref().map(|objects| objects.node(name).is_some()).ok();
        for other in self.others() {
            let renamed = is_node(&self.name) == Some(true) && is_node(&other.name) == Some(false);
            let ended = other.end_lost().and_then(|()| if renamed { other.end_exits() } else { Ok(()) });
            if let Err(error) = ended {
                tracing::warn!(%error, node = other.name, "what is over of this machine's other name still stands");
            }
        }
    }

    fn end_lost(&self) -> Result<(), NodeError> {
        let lost = self.listing(None)?.attachments.into_iter().filter(Attachment::netns_is_gone);
        for id in lost.map(|attachment| attachment.id()) {
            self.remove(&id).map_err(|error| NodeError::Steps(vec![error.to_string()]))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::egress::tests::worlds::World;
    use crate::node::kept::Kept;
    use std::sync::Arc;

    /// Numbers that no flow carries are of the agent's own plan; by them another plan's flows would be left in place.
    #[test]
    fn a_machines_other_name_has_nothing_of_what_its_agent_keeps() {
        let root = std::env::temp_dir().join(format!("egret-whose-{}", std::process::id()));
        let config = Config {
            run_dir: root.join("run"),
            state_dir: root.join("state"),
            node_name: Some("new".to_owned()),
            ..Config::default()
        };
        let old = Memory::new(&config.run_dir, "old");
        old.intend(1, &World::new().gateway(2, 0).client(10, &[0]).plan()).unwrap();
        let id: AttachmentId = "net/c10/eth0".parse().unwrap();
        let file = Attachments::of_node(&config.run_dir, "old").folder().join("net/c10:eth0.json");
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, "torn").unwrap();

        let agent = Embedded::at(&config).unwrap().keeping(&Arc::new(Kept::default()));
        let other = agent.who_recorded(&id);
        assert_eq!(
            (other.name.as_str(), other.kept.is_none(), other.memory.last.is_none()),
            ("old", true, true)
        );
        let agent = Embedded::at(&config).unwrap().keeping(&Arc::new(Kept::default()));
        let own = agent.who_recorded(&"net/another/eth0".parse().unwrap());
        assert_eq!((own.name.as_str(), own.kept.is_some()), ("new", true));
        fs::remove_dir_all(root).unwrap();
    }
}
