//! A cluster, looked at once: for a person's question, where nothing need be followed.
//!
//! In: a client. Out: the same [`Mirror`] that an agent keeps, of all nodes, with what could not be seen. Never: watches, or writes.

use std::collections::BTreeMap;

use serde_json::Value;

use super::client::Client;
use super::error::ApiError;
use super::mirror::Mirror;
use super::watched::{Reach, Watched};

/// Where `deploy/` puts the configuration of the nodes.
const CONFIG: &str = "/api/v1/namespaces/egret-system/configmaps/egret";

/// What was seen.
#[derive(Debug)]
pub struct Looked {
    /// Objects, of all nodes.
    pub mirror: Mirror,
    /// Whether an agent's pod is ready, by node. Empty: none is installed as `deploy/` does it.
    pub agents: BTreeMap<String, bool>,
    /// What plugin and agents of the nodes go by, if it is there; why it cannot be seen. With a configuration in hand that is no loss.
    pub config: Result<Option<Value>, String>,
    /// What we may not see and can do without, as sentences.
    pub unseen: Vec<String>,
}

impl Looked {
    /// Lists everything that decisions are made of, once.
    ///
    /// # Errors
    /// What decides cannot be seen: an answer without it would be wrong, not short.
    pub fn at(client: &Client) -> Result<Looked, ApiError> {
        let mut looked = Looked {
            mirror: Mirror::default(),
            agents: BTreeMap::new(),
            config: Ok(None),
            unseen: Vec::new(),
        };
        for kind in Watched::of_a_node() {
            match client.list(&kind.path(&Reach::Cluster)) {
                Ok((items, version)) => {
                    if kind == Watched::Pods {
                        looked.agents = agents(&items);
                    }
                    looked.mirror.reached(kind, &version);
                    looked.mirror.listed(kind, &items);
                }
                Err(error) if error.is_absent() && (kind.is_foreign() || kind.definition().is_none()) => {}
                Err(error) if error.is_forbidden() && kind.is_dispensable() => {
                    looked.unseen.push(error.to_person());
                }
                Err(error) => return Err(error),
            }
        }
        looked.config = match client.get(CONFIG) {
            Ok(map) => configuration(&map).map(Some),
            // Nodes that are not installed as `deploy/` does it; what is inside is then said by objects alone.
            Err(error) if error.is_absent() => Ok(None),
            Err(error) if error.is_forbidden() => Err(error.to_person()),
            Err(error) => return Err(error),
        };
        Ok(looked)
    }
}

/// What the ConfigMap says.
fn configuration(map: &Value) -> Result<Value, String> {
    let no = |why: &str| {
        format!("ConfigMap egret-system/egret: {why}; `deploy/config.yaml` has one as it should be")
    };
    let text = map["data"]["egret.json"].as_str().ok_or_else(|| no("it has no `egret.json`"))?;
    serde_json::from_str(text).map_err(|e| no(&format!("its `egret.json` is no JSON ({e})")))
}

impl Watched {
    /// An answer without it is short, not wrong: which addresses are inside is said by the configuration, too.
    fn is_dispensable(self) -> bool {
        let is_ours = matches!(self, Watched::ServiceCidrs | Watched::NodeRecords | Watched::ApiServers);
        self.is_foreign() || self == Watched::Nodes || is_ours
    }
}

/// Nodes with an agent, and whether it is ready.
fn agents(pods: &[Value]) -> BTreeMap<String, bool> {
    let mut agents = BTreeMap::new();
    for pod in pods.iter().filter(|pod| {
        pod["metadata"]["namespace"] == "egret-system"
            && pod["metadata"]["labels"]["app.kubernetes.io/name"] == "egret-agent"
    }) {
        let Some(node) = pod["spec"]["nodeName"].as_str() else { continue };
        let conditions = pod["status"]["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
        let ready = conditions.iter().any(|c| c["type"] == "Ready" && c["status"] == "True");
        // While one is replaced there may be two.
        *agents.entry(node.to_owned()).or_insert(false) |= ready;
    }
    agents
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_configuration_that_cannot_be_read_is_said_and_not_taken_as_empty() {
        let said = |data: Value| configuration(&json!({"data": data}));
        assert_eq!(said(json!({"egret.json": "{\"mode\": \"cluster\"}"})), Ok(json!({"mode": "cluster"})));
        for (data, why) in [
            (json!({"egret": "{}"}), "it has no `egret.json`"),
            (
                json!({"egret.json": "{"}),
                "its `egret.json` is no JSON (EOF while parsing an object at line 1 column 1)",
            ),
        ] {
            let error = said(data).unwrap_err();
            assert!(error.starts_with(&format!("ConfigMap egret-system/egret: {why}; ")), "{error}");
        }
    }

    #[test]
    fn an_agent_is_ready_if_any_pod_of_it_on_the_node_is() {
        let pod = |node: &str, name: &str, ready: &str| {
            json!({"metadata": {"namespace": "egret-system", "labels": {"app.kubernetes.io/name": name}},
                "spec": {"nodeName": node}, "status": {"conditions": [{"type": "Ready", "status": ready}]}})
        };
        let pods = [
            pod("one", "egret-agent", "False"),
            pod("one", "egret-agent", "True"),
            pod("two", "egret-agent", "False"),
            pod("three", "egret-controller", "True"),
        ];
        let expected = BTreeMap::from([("one".to_owned(), true), ("two".to_owned(), false)]);
        assert_eq!(agents(&pods), expected);
    }
}
