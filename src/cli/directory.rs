//! The directory that a command about a node means.
//!
//! In: the common flags. Out: the configuration with a state directory that can be meant; else a refusal of the arguments, status 2, the
//! same for every command. Never: makes anything, or takes a folder of manifests for a state directory: it would be made one.

use std::path::Path;

use super::known::RECORDS;
use super::{Common, Refused, manifests};
use crate::config::Config;
use crate::store::Dir;

impl Common {
    /// For those who may make what is missing.
    ///
    /// # Errors
    /// A cluster is asked; it is a folder of manifests.
    pub fn of_node(&self) -> Result<Config, Refused> {
        // Who asks by kubectl sits anywhere, perhaps on a node whose pods nobody means.
        if self.names_cluster() {
            return Err(Refused::misused(
                "this is about the machine that it runs on, and not about a cluster: run it on the node, as `egret` and without --kubeconfig \
                 and --context; docs/kubernetes.md has how Egret leaves a cluster",
            ));
        }
        let config = self.config()?;
        if is_manifests(&config.state_dir) {
            let folder = config.state_dir.display();
            return Err(Refused::misused(format!(
                "{folder} is a folder of manifests, and they do not say how a node is or what is leased. `egret list --state {folder}` says where \
                 their pods would leave, `egret lint -f {folder}` what is wrong; for a node, name its state directory"
            )));
        }
        Ok(config)
    }

    /// For those who only read, or do what it says.
    ///
    /// # Errors
    /// The same, or there is none.
    pub fn of_present_node(&self) -> Result<Config, Refused> {
        let config = self.of_node()?;
        match Dir::at(&config.state_dir) {
            Ok(_) => Ok(config),
            Err(missing) => Err(Refused::misused(missing.to_string())),
        }
    }
}

/// As [`Known`](super::known::Known) tells them apart.
fn is_manifests(folder: &Path) -> bool {
    let state = ["objects", "ipam"].iter().any(|part| folder.join(part).exists());
    !state && manifests::folder(folder, &RECORDS).is_ok_and(|texts| !texts.is_empty())
}
