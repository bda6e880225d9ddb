//! What pods may do while nobody can be asked about them: `namespaces.NODE.json` in the state directory.
//!
//! In: the agent's last view. Out: whether a pod of a namespace may start now, with a sentence if not. On disk, not on tmpfs: after a
//! reboot the node's first pods come before its agent.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::egress::annotations::is_ours;
use crate::egress::model::{EgressSupport, Pairs, PodName};
use crate::egress::standing::Standing;

/// Pods that must start before anything else does. They may use no gateway while the agent is away.
pub const EXEMPT: [&str; 2] = ["kube-system", "egret-system"];

/// What the agent last knew of every namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Standings {
    /// Whether a pod's own annotations count.
    #[serde(rename = "egressIPSupport")]
    pub support: EgressSupport,
    /// Namespaces whose pods start whatever is said of them.
    pub exempt: BTreeSet<String>,
    /// All the others.
    pub namespaces: BTreeMap<String, Standing>,
}

impl Standings {
    /// The file.
    pub fn file(state_dir: &Path, node: &str) -> PathBuf {
        state_dir.join(format!("namespaces.{node}.json"))
    }

    /// As it was last written; `None`: no agent was ever here, or nobody can read what it said.
    pub fn read(state_dir: &Path, node: &str) -> Option<Standings> {
        serde_json::from_slice(&crate::store::read_whole(&Standings::file(state_dir, node)).ok()?).ok()
    }

    /// Writes it, if it says something else.
    ///
    /// # Errors
    /// The state directory cannot be written.
    pub fn write(&self, state_dir: &Path, node: &str) -> std::io::Result<()> {
        if Standings::read(state_dir, node).as_ref() == Some(self) {
            return Ok(());
        }
        crate::store::record::replace_file(&Standings::file(state_dir, node), self)
    }

    /// Whether a pod may start as one without egress, as far as that can be known now. `annotations`: what the runtime passed.
    ///
    /// # Errors
    /// Why not, as the end of a sentence.
    pub fn may_start(&self, pod: &PodName, annotations: Option<&Pairs>) -> Result<(), String> {
        if self.exempt.contains(&pod.namespace) {
            return Ok(());
        }
        match self.namespaces.get(&pod.namespace) {
            None => return Err(format!("it never heard of namespace {}", pod.namespace)),
            Some(Standing::Always) => {
                return Err(format!("pods of namespace {} go through gateways", pod.namespace));
            }
            Some(Standing::ByLabel) => {
                return Err(format!("policies select pods of namespace {} by their labels", pod.namespace));
            }
            Some(Standing::Never) => {}
        }
        match annotations {
            _ if self.support == EgressSupport::EnabledPerNamespace => Ok(()),
            Some(all) => match all.keys().find(|key| is_ours(key)) {
                Some(key) => Err(format!("it has the annotation {key}")),
                None => Ok(()),
            },
            None => Err(
                "the runtime does not pass its annotations (capability io.kubernetes.cri.pod-annotations)"
                    .to_owned(),
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_is_provably_not_selected_may_start_unasked() {
        let standings = Standings {
            support: EgressSupport::EnabledPerNamespaceOrPerPod,
            exempt: BTreeSet::from(["kube-system".to_owned()]),
            namespaces: BTreeMap::from([
                ("plain".to_owned(), Standing::Never),
                ("some".to_owned(), Standing::ByLabel),
                ("shop".to_owned(), Standing::Always),
            ]),
        };
        let none = Pairs::new();
        let ours = Pairs::from([("egret.dev/egressGatewayPolicy".to_owned(), "p".to_owned())]);
        let may = |namespace: &str, annotations: Option<&Pairs>| {
            standings.may_start(&PodName::new(namespace, "p"), annotations).err().unwrap_or_default()
        };
        assert_eq!((may("plain", Some(&none)), may("kube-system", None)), (String::new(), String::new()));
        for (namespace, annotations, why) in [
            ("plain", Some(&ours), "the annotation egret.dev/egressGatewayPolicy"),
            ("plain", None, "does not pass its annotations"),
            ("some", Some(&none), "by their labels"),
            ("shop", Some(&none), "go through gateways"),
            ("new", Some(&none), "never heard of namespace new"),
        ] {
            assert!(may(namespace, annotations).contains(why), "{}", may(namespace, annotations));
        }
        let per_namespace = Standings { support: EgressSupport::EnabledPerNamespace, ..standings };
        assert_eq!(per_namespace.may_start(&PodName::new("plain", "p"), Some(&ours)), Ok(()));
    }
}
