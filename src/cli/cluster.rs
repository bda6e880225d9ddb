//! Which cluster a command asks, if it asks one and not this node's own directory.
//!
//! In: `--kubeconfig`, `--context`, the environment, the name that we were called by. Out: an [`Access`], or what lies there. Never: a
//! guess where a person said something: the more explicit word wins.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use clap::Args;

use super::{Common, Refused};
use crate::api::{Reading, read_member};
use crate::config::Config;
use crate::egress::model::{PodName, View};
use crate::egress::serving::Life;
use crate::kube::foreign::served;
use crate::kube::look::Looked;
use crate::kube::{Access, ApiError, Client, Watched};
use crate::node::memory::Memory;
use crate::node::records::node_name;
use crate::problem::Problem;
use crate::store::objects::Objects;

/// What kubectl calls a plugin's program.
pub const PLUGIN: &str = "kubectl-egret";

/// Which cluster.
#[derive(Debug, Clone, Default, Args)]
pub struct ClusterArgs {
    /// Ask the cluster of this kubeconfig, not this node's directory
    #[arg(long, value_name = "FILE", global = true, hide_short_help = true, display_order = 104)]
    pub kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig [default: its current one]
    #[arg(long, value_name = "NAME", global = true, hide_short_help = true, display_order = 105)]
    pub context: Option<String>,
    /// Namespace that a name without one means; for `list`: only its pods
    #[arg(short, long, value_name = "NAME", global = true, hide_short_help = true, display_order = 106)]
    pub namespace: Option<String>,
}

/// A cluster, and what lies in it now.
pub struct Cluster {
    /// Speaks to it.
    pub client: Client,
    /// What was seen.
    pub looked: Looked,
    /// The objects that were read.
    pub objects: Objects,
    /// The configuration: `--config`, else what its nodes go by.
    pub config: Config,
    /// What could not be seen.
    pub problems: Vec<Problem>,
}

/// Whether we are `kubectl egret`.
pub fn is_plugin() -> bool {
    let called = std::env::args_os().next().unwrap_or_default();
    Path::new(&called).file_name().is_some_and(|name| name == PLUGIN)
}

impl Common {
    /// Whether a cluster is meant, by a flag or by the name that we were called by.
    pub fn names_cluster(&self) -> bool {
        self.cluster.kubeconfig.is_some() || self.cluster.context.is_some() || is_plugin()
    }

    /// How a program that belongs to a cluster reaches it: by the kubeconfig that was named, or as the pod that it runs in.
    ///
    /// # Errors
    /// `nowhere`, if there is neither; what cannot be used, with why.
    pub fn member(&self, nowhere: &str) -> Result<Access, Refused> {
        let found = match &self.cluster.kubeconfig {
            Some(file) => {
                let access = Access::from_file(file, self.cluster.context.as_deref());
                return access.map_err(|e| Refused::misused(e.to_string()));
            }
            None => Access::in_cluster(),
        };
        found.map_err(|e| Refused::failed(e.to_string()))?.ok_or_else(|| Refused::failed(nowhere))
    }

    /// How to reach the cluster that is meant; `None`: this node's directory is.
    ///
    /// # Errors
    /// Two are meant, or the kubeconfig cannot be used.
    pub fn access(&self) -> Result<Option<Access>, Refused> {
        let context = self.cluster.context.as_deref();
        if self.cluster.kubeconfig.is_some() && self.state.is_some() {
            return Err(Refused::misused(
                "--state is a directory and --kubeconfig a cluster: name one of them",
            ));
        }
        if let Some(file) = &self.cluster.kubeconfig {
            return Access::from_file(file, context).map(Some).map_err(|e| Refused::misused(e.to_string()));
        }
        if self.state.is_some() {
            return Ok(None);
        }
        let said = std::env::var_os("KUBECONFIG").filter(|list| !list.is_empty());
        if !self.names_cluster() && (self.config.is_some() || (said.is_none() && self.lies_here())) {
            return Ok(None);
        }
        match found(said.as_deref(), context)? {
            // Who sets KUBECONFIG means a cluster: what this node's directory has would be an answer to another question.
            None if self.names_cluster() || said.is_some() => {
                let lost = said.map(|list| format!(" where KUBECONFIG says ({})", list.display()));
                Err(Refused::misused(format!(
                    "there is no kubeconfig{}: name one with --kubeconfig, or set KUBECONFIG",
                    lost.unwrap_or_default()
                )))
            }
            access => Ok(access),
        }
    }

    /// Whether this machine is a node that keeps its objects in a directory.
    fn lies_here(&self) -> bool {
        let fresh = Config { node_name: self.node.clone(), ..Config::default() };
        let remembered =
            || node_name(&fresh).ok().and_then(|node| Memory::new(&fresh.run_dir, &node).config());
        fresh.state_dir.join("objects").exists() || remembered().is_some()
    }

    /// The cluster that is meant, looked at; `None`: this node's directory is.
    ///
    /// # Errors
    /// As [`Common::access`], or what decides cannot be seen.
    pub fn cluster(&self) -> Result<Option<Cluster>, Refused> {
        let Some(access) = self.access()? else { return Ok(None) };
        let failed = |e: ApiError| Refused::failed(e.to_string());
        let client = Client::new(access).map_err(failed)?;
        let looked = Looked::at(&client).map_err(|e| Refused::failed(e.to_person()))?;
        let mut unseen = looked.unseen.clone();
        let config = match (&self.config, &looked.config) {
            (Some(file), _) => Config::from_file(file).map_err(|e| Refused::misused(e.to_string()))?,
            (None, Ok(Some(said))) => Config::from_json(said).map_err(|e| Refused::failed(e.to_string()))?,
            (None, Ok(None)) => Config::default(),
            // An address that is inside by it alone is then answered as one outside.
            (None, Err(why)) => {
                unseen.push(format!(
                    "the nodes' configuration cannot be seen, so `clusterCIDRs` and `adopt` are taken as empty; name a copy of it with \
                     --config: {why}"
                ));
                Config::default()
            }
        };
        let readings = readings(&looked, &config);
        let objects = Objects::of(readings).map_err(|e| Refused::failed(e.to_string()))?;
        let mut problems: Vec<Problem> =
            unseen.into_iter().map(|why| Problem::new("", "Unseen", why)).collect();
        problems.extend(objects.problems());
        Ok(Some(Cluster { client, looked, objects, config, problems }))
    }
}

impl Cluster {
    /// Pods that have ended: they have objects, and no traffic.
    pub fn ended(&self) -> BTreeSet<PodName> {
        let pods = self.looked.mirror.objects(Watched::Pods).filter_map(|(name, _)| {
            let (namespace, pod) = name.split_once('/')?;
            let (_, life) = self.looked.mirror.life(name)?;
            (life == Life::Ended).then(|| PodName::new(namespace, pod))
        });
        pods.collect()
    }

    /// The cluster, as decisions are made of it.
    pub fn view(&self) -> View {
        let mut view = self.objects.view(&self.config, self.looked.mirror.endpoints());
        let nodes = self.looked.mirror.nodes();
        view.interfaces =
            nodes.into_iter().filter_map(|(name, said)| Some((name, said.interfaces?))).collect();
        view
    }
}

/// What the objects say; of foreign ones, what a node's agent makes of them.
pub(super) fn readings(looked: &Looked, config: &Config) -> Vec<(String, Reading)> {
    let mut all = looked.mirror.readings();
    for object in served(&looked.mirror, &config.adopt).into_iter().flat_map(|(_, objects)| objects) {
        let word = |part: &serde_json::Value, key: &str| part[key].as_str().unwrap_or_default().to_owned();
        let (version, kind) = (word(&object, "apiVersion"), word(&object, "kind"));
        let file = format!("{kind} {}", word(&object["metadata"], "name"));
        all.push((file.clone(), read_member(&file, &version, &kind, &object)));
    }
    all
}

/// A kubeconfig where kubectl would look for one: in the `list` of `KUBECONFIG`, in which empty names mean nothing, else in the home
/// directory; a pod's own credentials where no such file is.
fn found(list: Option<&OsStr>, context: Option<&str>) -> Result<Option<Access>, Refused> {
    let unusable = |e: ApiError| Refused::misused(e.to_string());
    let home = || std::env::var_os("HOME").map(|home| Path::new(&home).join(".kube/config"));
    let listed = |list| std::env::split_paths(list).filter(|file| !file.as_os_str().is_empty()).collect();
    let files: Vec<PathBuf> = list.map_or_else(|| home().into_iter().collect(), listed);
    match Access::from_files(&files, context).map_err(unusable)? {
        // A pod has no contexts.
        None if context.is_none() => Access::in_cluster().map_err(unusable),
        access => Ok(access),
    }
}
