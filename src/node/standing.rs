//! What pods may do while nobody can be asked about them: `namespaces.NODE.json` in the state directory.
//!
//! In: the agent's last view. Out: whether a pod of a namespace may start now, with a sentence if not. On disk, not on tmpfs: after a
//! reboot the node's first pods come before its agent.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::egress::annotations::{GatewayRequest, is_ours};
use crate::egress::model::{EgressSupport, Pairs, PodName, View};
use crate::egress::standing::{Standing, hosts, standing};

/// Pods that must start before anything else does. They may use no gateway while the agent is away.
pub const EXEMPT: [&str; 2] = ["kube-system", "egret-system"];

const UNTOLD: &str =
    "the runtime does not pass its annotations (capability io.kubernetes.cri.pod-annotations)";

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
    /// Those among all whose pods pools take as gateways; `None`: a release before this one wrote it, which did not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hosts: Option<BTreeSet<String>>,
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

    /// What is known now.
    pub fn of(view: &View) -> Standings {
        Standings {
            support: view.support,
            exempt: EXEMPT.map(str::to_owned).into(),
            namespaces: standing(view),
            hosts: Some(hosts(view)),
        }
    }

    /// The same where less was heard since: that can keep pods waiting, and lets none go. Of a namespace that only it knows nobody can say
    /// what was lost.
    #[must_use]
    pub fn no_laxer_than(mut self, heard: &Standings) -> Standings {
        self.support = heard.support;
        for (name, standing) in &mut self.namespaces {
            *standing = heard.namespaces.get(name).map_or(*standing, |heard| *heard.max(standing));
        }
        if let (Some(hosts), Some(heard)) = (&mut self.hosts, &heard.hosts) {
            hosts.extend(heard.iter().cloned());
        }
        self
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
        match (annotations, self.support) {
            (Some(all), EgressSupport::EnabledPerNamespace) => match GatewayRequest::on(all) {
                Ok(None) => Ok(()),
                // An ordinary pod where Calico is the primary; a gateway it could not be.
                Ok(Some(request)) if request.is_in_calicos_words() && !self.may_host(&pod.namespace) => {
                    Ok(())
                }
                Ok(Some(_)) => Err("its annotations ask to be a gateway".to_owned()),
                Err(problem) => Err(format!("its annotations may ask to be a gateway: {problem}")),
            },
            (Some(all), EgressSupport::EnabledPerNamespaceOrPerPod) => {
                match all.keys().find(|key| is_ours(key)) {
                    Some(key) => Err(format!("it has the annotation {key}")),
                    None => Ok(()),
                }
            }
            (None, EgressSupport::EnabledPerNamespace) if !self.may_host(&pod.namespace) => Ok(()),
            (None, EgressSupport::EnabledPerNamespace) => {
                Err(format!("pools may take pods of namespace {} as gateways, and {UNTOLD}", pod.namespace))
            }
            (None, EgressSupport::EnabledPerNamespaceOrPerPod) => Err(UNTOLD.to_owned()),
        }
    }

    /// Whether a pod of a namespace could be a gateway, if it asked for it.
    fn may_host(&self, namespace: &str) -> bool {
        self.hosts.as_ref().is_none_or(|hosts| hosts.contains(namespace))
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
            hosts: Some(BTreeSet::new()),
        };
        let none = Pairs::new();
        let ours = Pairs::from([("egret.dev/egressGatewayPolicy".to_owned(), "p".to_owned())]);
        let may = |namespace: &str, annotations: Option<&Pairs>| {
            standings.may_start(&PodName::new(namespace, "p"), annotations).err().unwrap_or_default()
        };
        assert_eq!((may("plain", Some(&none)), may("kube-system", None)), (String::new(), String::new()));
        let wired = Pairs::from([("cni.projectcalico.org/podIP".to_owned(), "10.64.1.7/32".to_owned())]);
        assert_eq!(
            may("plain", Some(&wired)),
            "",
            "what Calico's plugin wrote of an earlier sandbox asks for nothing"
        );
        for (namespace, annotations, why) in [
            ("plain", Some(&ours), "the annotation egret.dev/egressGatewayPolicy"),
            ("plain", None, "does not pass its annotations"),
            ("some", Some(&none), "by their labels"),
            ("shop", Some(&none), "go through gateways"),
            ("new", Some(&none), "never heard of namespace new"),
        ] {
            assert!(may(namespace, annotations).contains(why), "{}", may(namespace, annotations));
        }
    }

    #[test]
    fn what_is_heard_after_something_was_lost_keeps_pods_waiting_and_lets_none_go() {
        let (never, always) = (Standing::Never, Standing::Always);
        let known = |rows: &[(&str, Standing)], hosts: &[&str]| Standings {
            support: EgressSupport::EnabledPerNamespace,
            namespaces: rows.iter().map(|(name, standing)| ((*name).to_owned(), *standing)).collect(),
            hosts: Some(hosts.iter().map(|&name| name.to_owned()).collect()),
            ..Standings::default()
        };
        let last = known(&[("plain", never), ("shop", always), ("gone", never), ("some", never)], &["net"]);
        let heard = known(&[("plain", never), ("shop", never), ("some", always), ("new", never)], &["plain"]);
        let both = [("plain", never), ("shop", always), ("gone", never), ("some", always)];
        assert_eq!(last.no_laxer_than(&heard), known(&both, &["net", "plain"]));
    }

    #[test]
    fn where_pods_own_annotations_select_nothing_those_that_ask_to_be_gateways_wait_all_the_same() {
        let standings = Standings {
            support: EgressSupport::EnabledPerNamespace,
            namespaces: ["plain", "net"].map(|name| (name.to_owned(), Standing::Never)).into(),
            hosts: Some(BTreeSet::from(["net".to_owned()])),
            ..Standings::default()
        };
        let may = |standings: &Standings, namespace: &str, annotations: &[(&str, &str)]| {
            let all =
                annotations.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
            standings.may_start(&PodName::new(namespace, "p"), Some(&all)).err().unwrap_or_default()
        };
        for harmless in [
            ("egret.dev/egressGatewayPolicy", "p"),
            ("egress.projectcalico.org/selector", "all()"),
            ("egret.dev/gateway", "false"),
        ] {
            assert_eq!(may(&standings, "net", &[harmless]), "", "{harmless:?}");
        }
        for gateway in [
            ("cni.projectcalico.org/ipv4pools", "[\"p\"]"),
            ("egret.dev/ipv6pools", "p"),
            ("egret.dev/gateway", "true"),
            ("egret.dev/address", "10.0.0.1"),
        ] {
            assert!(may(&standings, "net", &[gateway]).contains("ask to be a gateway"), "{gateway:?}");
        }
        let slip = may(&standings, "net", &[("egret.dev/gateway", "yes")]);
        assert!(slip.contains("may ask to be a gateway") && slip.contains("`yes`"), "{slip}");

        // Where no pool would take the pod, Calico's words can only say where its own address comes from.
        let calicos = [("cni.projectcalico.org/ipv4pools", "[\"default-ipv4-ippool\"]")];
        assert_eq!(may(&standings, "plain", &calicos), "");
        for ours in
            [("egret.dev/ipv4pools", "p"), ("egret.dev/gateway", "true"), ("egret.dev/address", "10.0.0.1")]
        {
            let said = may(&standings, "plain", &[calicos[0], ours]);
            assert!(said.contains("ask to be a gateway"), "{ours:?}");
        }

        // What the runtime does not pass may be anything, where a pool would take the pod.
        let untold = |standings: &Standings, namespace: &str| {
            standings.may_start(&PodName::new(namespace, "p"), None).err().unwrap_or_default()
        };
        assert_eq!(untold(&standings, "plain"), "");
        assert!(untold(&standings, "net").contains("pools may take pods of namespace net as gateways"));
        // A file of a release that did not write of pools.
        let mut older = serde_json::to_value(&standings).unwrap();
        older.as_object_mut().unwrap().remove("hosts").unwrap();
        let older: Standings = serde_json::from_value(older).unwrap();
        assert_eq!(may(&older, "plain", &[]), "");
        assert!(may(&older, "plain", &calicos).contains("ask to be a gateway"), "it may host gateways");
        assert!(untold(&older, "plain").contains("does not pass its annotations"));
    }
}
