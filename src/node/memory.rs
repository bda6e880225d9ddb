//! What a node remembers between two calls, in files on tmpfs: the plan last applied, settings to give back, addresses just
//! announced. It dies with the pods, at a reboot, so nothing here is fsynced.
//!
//! In: values. Out: the same values, or nothing when the file is missing or torn: then the kernel is read instead.
//! Never: holds what cannot be found again.

mod apart;
mod forget;
mod last;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::config::Config;
use crate::egress::interfaces::Interfaces;
use crate::egress::plan::{LocalGateway, NodePlan};
use crate::fault;
use crate::problem::Problem;
use crate::store::{read_whole, read_with_look};
pub use last::LastPlans;
use last::Look;

/// The node's own directory, `/run/egret/NODE`.
#[derive(Debug, Clone)]
pub struct Memory {
    dir: PathBuf,
    /// Plans that this process need not decode again.
    pub(in crate::node) last: Option<Arc<LastPlans>>,
}

/// The plan last applied, and what it was made from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Applied {
    /// Fingerprint of everything read to make it; equal means that reading again would give the same plan.
    pub inputs: u64,
    /// The plan itself.
    pub plan: NodePlan,
}

/// The node's lock.
pub(super) const LOCK: &str = "lock";

/// Here as long as the kernel may differ from the plan last applied.
const INTENDED: &str = "intended.json";

/// The plan last applied.
pub const PLAN: &str = "plan.json";

/// What the plugin was last called with.
const CONFIG: &str = "config.json";

/// Originals of the host's settings.
const SETTINGS: &str = "settings.json";

/// An address that this node took over a short while ago.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Announced {
    /// Device.
    pub dev: String,
    /// Address.
    pub ip: IpAddr,
    /// When it was taken over, in Unix seconds.
    pub since: u64,
}

/// Values of host-wide settings before we changed them.
pub type SavedSettings = BTreeMap<String, String>;

impl Memory {
    /// The memory of a node below the run directory; nothing is made yet.
    pub fn new(run_dir: &Path, node: &str) -> Memory {
        Memory { dir: run_dir.join(node), last: None }
    }

    /// The same for who lives on, and keeps what was read or written last.
    #[must_use]
    pub fn keeping(self, last: &Arc<LastPlans>) -> Memory {
        Memory { last: Some(Arc::clone(last)), ..self }
    }

    /// The directory itself.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The plan last applied; `None` when this node was never wired, or the file is torn.
    pub fn applied(&self) -> Option<Applied> {
        self.applied_shared().map(Arc::unwrap_or_clone)
    }

    /// The same for who only looks at it: while the file is the one that was read or written last, nothing is read.
    pub fn applied_shared(&self) -> Option<Arc<Applied>> {
        let Some(last) = &self.last else { return self.read_plan(PLAN).map(Arc::new) };
        let path = self.dir.join(PLAN);
        if let Some(known) = last.of(Look::of(&fs::metadata(&path).ok()?)) {
            return Some(known);
        }
        let (look, bytes) = read_with_look(&path).ok()?;
        let Some(applied) = self.whole(serde_json::from_slice(&bytes).ok()?) else {
            return self.read_plan(PLAN).map(Arc::new);
        };
        let applied = Arc::new(applied);
        last.keep(Look::of(&look), Arc::clone(&applied));
        Some(applied)
    }

    /// A plan and its nodes. The file of these may go between the two, when the plan was replaced meanwhile.
    fn read_plan(&self, name: &str) -> Option<Applied> {
        let read = || self.read::<Applied>(name).and_then(|applied| self.whole(applied));
        read().or_else(read)
    }

    /// The gateways of the plan last applied, by attachment, without making values of the rest: a cluster's nodes are in it, too.
    pub fn gateways(&self) -> Option<BTreeMap<String, LocalGateway>> {
        #[derive(Deserialize)]
        struct Gateways {
            locals: BTreeMap<String, LocalGateway>,
        }
        #[derive(Deserialize)]
        struct Part {
            plan: Gateways,
        }
        self.read::<Part>(PLAN).map(|part| part.plan.locals)
    }

    /// Whether the plan last applied, or one that somebody began to apply, has clients or gateways; or nobody knows what it has: such a
    /// file may say anything.
    pub fn serves_pods(&self) -> bool {
        let applied = self.applied().map(|applied| applied.plan);
        let unread = applied.is_none() && self.was_applied();
        let (intended, torn) = self.left_half_done();
        unread || torn || applied.into_iter().chain(intended).any(|plan| !plan.is_idle())
    }

    /// Nothing of ours stands any more: what was intended once is past, and so is a plan that nobody can read.
    ///
    /// # Errors
    /// The directory cannot be written.
    pub fn nothing_stands(&self) -> io::Result<()> {
        if self.applied().is_none() {
            self.remove(PLAN)?;
        }
        self.intend_nothing()
    }

    /// The fingerprint alone: a few bytes, for calls that only ask whether anything changed.
    pub fn inputs(&self) -> Option<u64> {
        let text = read_whole(&self.dir.join("inputs")).ok()?;
        u64::from_str_radix(str::from_utf8(&text).ok()?.trim(), 16).ok()
    }

    /// A plan that somebody began to apply and did not finish: killed on the way, or a step failed. The kernel may hold any
    /// part of it.
    pub fn intended(&self) -> Option<NodePlan> {
        self.read_plan(INTENDED).map(|intended| intended.plan)
    }

    /// The same, and whether somebody began to apply a plan that nobody can read: another release's, or torn. Then the plan before it does not
    /// say what the kernel holds.
    pub fn left_half_done(&self) -> (Option<NodePlan>, bool) {
        let intended = if self.is_unfinished() { Some(self.intended()) } else { None };
        let torn = intended.as_ref().is_some_and(Option::is_none);
        (intended.flatten(), torn)
    }

    /// Says what the kernel will hold, before it is touched.
    ///
    /// # Errors
    /// The directory cannot be written.
    pub fn intend(&self, inputs: u64, plan: &NodePlan) -> io::Result<()> {
        // From the first wiring on the file is there, if only to say that there is nothing to give back: then its loss is noticed.
        if !self.was_wired() && !self.dir.join(SETTINGS).exists() {
            self.write(SETTINGS, &SavedSettings::new())?;
        }
        self.belongs_here();
        let look = self.replace(INTENDED, &self.text_of(inputs, plan)?)?;
        if let Some(last) = &self.last {
            last.keep(look, Arc::new(Applied { inputs, plan: plan.clone() }));
        }
        Ok(())
    }

    fn was_wired(&self) -> bool {
        [PLAN, INTENDED].iter().any(|name| self.dir.join(name).exists())
    }

    /// The plan intended is now the plan applied. The fingerprint is written first, while the intention still keeps everybody from believing
    /// it: an old one beside a new plan would say of what was taken back meanwhile that nothing is new.
    ///
    /// # Errors
    /// The directory cannot be written.
    pub fn applied_as_intended(&self, inputs: u64, idle: bool) -> io::Result<()> {
        if idle { self.remove("inputs") } else { self.remember_inputs(inputs) }?;
        fault::point("update.after-inputs");
        fs::rename(self.dir.join(INTENDED), self.dir.join(PLAN))?;
        fault::point("update.after-plan");
        Ok(())
    }

    /// The same plan follows from what is read now.
    ///
    /// # Errors
    /// The directory cannot be written.
    pub fn remember_inputs(&self, inputs: u64) -> io::Result<()> {
        // To look costs less than to write, and most plans differ by a pod, not by what they were made from.
        if self.inputs() == Some(inputs) {
            return Ok(());
        }
        self.replace("inputs", format!("{inputs:016x}\n").as_bytes()).map(drop)
    }

    /// Nothing was done of what was intended, or all of it was undone.
    ///
    /// # Errors
    /// The directory cannot be written.
    pub fn intend_nothing(&self) -> io::Result<()> {
        self.remove(INTENDED)
    }

    /// Whether an address or an attachment may be in the plan last applied, without understanding all of it: a plan speaks of
    /// each in quotes. A plan that cannot be read may say anything; `None` where there is none.
    pub fn may_concern(&self, name: impl std::fmt::Display) -> Option<bool> {
        if self.last.is_some()
            && let Some(applied) = self.applied_shared()
        {
            return Some(applied.plan.names(&name.to_string()));
        }
        let Ok(quoted) = serde_json::to_string(&name.to_string()) else { return Some(true) };
        match read_whole(&self.dir.join(PLAN)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(_) => Some(true),
            Ok(plan) => Some(str::from_utf8(&plan).map_or(true, |plan| plan.contains(&quoted))),
        }
    }

    /// Whether a plan was applied, without reading it.
    pub fn was_applied(&self) -> bool {
        self.dir.join(PLAN).exists()
    }

    /// Whether somebody began to apply a plan and did not finish, without reading it.
    pub fn is_unfinished(&self) -> bool {
        self.dir.join(INTENDED).exists()
    }

    /// The configuration that the plugin was last called with here, so that a person need not repeat it.
    pub fn config(&self) -> Option<Config> {
        self.read(CONFIG)
    }

    /// Remembers the configuration, if it is another one.
    ///
    /// # Errors
    /// The directory cannot be written.
    pub fn remember_config(&self, config: &Config) -> io::Result<()> {
        // Who lives on need not read what it wrote itself.
        let known = self.last.as_ref().map(|last| &last.config);
        let look = known.and_then(|_| fs::metadata(self.dir.join(CONFIG)).ok()).map(|found| Look::of(&found));
        if let (Some(known), Some(look)) = (known, look)
            && known.is(look, config)
        {
            return Ok(());
        }
        let look = match self.config() {
            Some(written) if written == *config => look,
            _ => Some(self.replace(CONFIG, &serde_json::to_vec(config)?)?),
        };
        if let (Some(known), Some(look)) = (known, look) {
            known.keep(look, config);
        }
        Ok(())
    }

    /// Settings to give back at uninstall. Values of our own are never among them, whatever was lost: an original is kept when
    /// a setting is changed, and one that has our value already is not.
    pub fn saved_settings(&self) -> SavedSettings {
        self.read(SETTINGS).unwrap_or_default()
    }

    /// A problem if there may be settings to give back and nobody can read which: the one thing here that cannot be found again.
    pub fn torn_settings(&self) -> Option<Problem> {
        let file = self.dir.join(SETTINGS);
        let what = match file.exists() {
            true if self.read::<SavedSettings>(SETTINGS).is_some() => return None,
            true => "cannot be read",
            false if self.was_wired() => "are lost (the file is gone)",
            false => return None,
        };
        let message = format!(
            "settings of the host from before Egret {what}, so uninstall will not give them back: compare fib_multipath_hash_policy, \
             and proxy_delay and proxy_ndp of the uplinks, with another machine's"
        );
        Some(Problem::new("", "TornRecord", message).file(file.display().to_string()))
    }

    /// Remembers them. A file that cannot be read is kept under another name.
    ///
    /// # Errors
    /// The directory cannot be written.
    pub fn save_settings(&self, settings: &SavedSettings) -> io::Result<()> {
        let file = self.dir.join(SETTINGS);
        if self.torn_settings().is_some() && file.exists() {
            fs::rename(file, self.dir.join("settings.torn"))?;
        }
        self.write(SETTINGS, settings)
    }

    /// What nodes said of their interfaces when it could last be read.
    pub fn interfaces(&self) -> BTreeMap<String, Interfaces> {
        self.read("interfaces.json").unwrap_or_default()
    }

    /// Remembers it.
    ///
    /// # Errors
    /// The directory cannot be written.
    pub fn remember_interfaces(&self, interfaces: &BTreeMap<String, Interfaces>) -> io::Result<()> {
        self.write("interfaces.json", interfaces)
    }

    /// Addresses taken over within the last minute.
    pub fn announced(&self) -> Vec<Announced> {
        self.read("announced.json").unwrap_or_default()
    }

    /// Remembers them.
    ///
    /// # Errors
    /// The directory cannot be written.
    pub fn remember_announced(&self, announced: &[Announced]) -> io::Result<()> {
        if announced.is_empty() {
            self.remove("announced.json")
        } else {
            self.write("announced.json", &announced)
        }
    }

    /// Writes a file that only people and other programs read.
    ///
    /// # Errors
    /// The directory cannot be written.
    pub fn tell<T: Serialize>(&self, name: &str, value: &T) -> io::Result<()> {
        self.write(name, value)
    }

    fn read<T: DeserializeOwned>(&self, name: &str) -> Option<T> {
        serde_json::from_slice(&read_whole(&self.dir.join(name)).ok()?).ok()
    }

    fn write<T: Serialize>(&self, name: &str, value: &T) -> io::Result<()> {
        self.replace(name, &serde_json::to_vec(value)?).map(drop)
    }

    /// Whole or not at all, as any reader sees it. How it looks.
    fn replace(&self, name: &str, bytes: &[u8]) -> io::Result<Look> {
        let temporary = self.dir.join(format!(".{name}.{}", nix::unistd::gettid()));
        let write = || {
            let mut file = File::create(&temporary)?;
            file.write_all(bytes)?;
            file.metadata()
        };
        let written = write().or_else(|_| {
            fs::create_dir_all(&self.dir)?;
            write()
        })?;
        fs::rename(&temporary, self.dir.join(name))?;
        Ok(Look::of(&written))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        match fs::remove_file(self.dir.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
