//! Writes what was decided, and asks once more before anything is taken from anybody.
//!
//! In: a client, one thing to do. Out: it is done, or was no longer to be done, or an error. Every write names the version that was read
//! just before; nothing is done that is done already.

use serde_json::Value;

use super::agents::Agent;
use super::reclaim::{EMPTY, Remnant};
use super::status::Write;
use super::taints;
use super::world::{AGENT, is_out_of_service, ordinals};
use crate::egress::model::PodName;
use crate::ipam::{self, After, Block, Freed, Owner, Store, StoreError};
use crate::kube::mirror::ids;
use crate::kube::{ApiError, Client, ClusterStore, HOME, Watched, lease};

/// Why something was not done.
#[derive(Debug, thiserror::Error)]
pub enum ActError {
    /// The API server.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// The books.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl ActError {
    /// Somebody else wrote first: what is to be done is decided anew.
    pub fn is_conflict(&self) -> bool {
        matches!(self, ActError::Api(error) if error.is_conflict())
    }
}

/// Writes a status; the object as it is then, `None` if it is another or gone by now.
///
/// # Errors
/// The server does not answer, or says no.
pub fn write(client: &Client, write: &Write) -> Result<Option<Value>, ActError> {
    let path = format!("{}/{}", write.kind.collection(), write.name);
    let Some(mut object) = found(client, &path)? else { return Ok(None) };
    // What was decided is about another generation: it is decided again when that one is heard of.
    if object["metadata"]["generation"] != write.status["observedGeneration"]
        || object["status"] == write.status
    {
        return Ok(None);
    }
    object["status"] = write.status.clone();
    match client.replace(&format!("{path}/status"), &object) {
        // Its definition is of an earlier release, where it had none.
        Err(error) if error.is_absent() => Ok(None),
        outcome => Ok(Some(outcome?)),
    }
}

/// Brings the taints of a node to what they should be; the node as it is then, `None` if nothing was to be done.
///
/// # Errors
/// The server does not answer, or says no.
pub fn taint(client: &Client, node: &str, agent: Agent, on: bool) -> Result<Option<Value>, ActError> {
    let path = node_path(node);
    let Some(mut object) = found(client, &path)? else { return Ok(None) };
    let Some(taints) = taints::wanted(&object["spec"]["taints"], agent, on) else { return Ok(None) };
    object["spec"]["taints"] = taints;
    Ok(Some(client.replace(&path, &object)?))
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Reclaimed {
    /// What was freed; `None`: it is not gone, and nothing was taken.
    pub freed: Option<Vec<Freed>>,
    /// Objects as the server has them: the mirror may lag behind them.
    pub learnt: Vec<(Watched, Value)>,
    /// What was deleted, as it was last.
    pub gone: Option<(Watched, Value)>,
}

/// Pods of agents as the server has them, listed once for all nodes that are left out at a time.
#[derive(Debug, Default)]
pub struct AgentsPods(Option<Vec<Value>>);

/// Frees what is left of something that is gone. It is asked for once more first: a mirror may lag. `heard`: what the node's agent said
/// last; if the server knows of more, it lives.
///
/// # Errors
/// The server does not answer, or says no.
pub fn reclaim(
    client: &Client,
    remnant: &Remnant,
    (heard, pods): (Option<&str>, &mut AgentsPods),
    now: u64,
) -> Result<Reclaimed, ActError> {
    let mut learnt = contradicted(client, remnant, heard, pods)?;
    if !learnt.is_gone {
        return Ok(Reclaimed { learnt: learnt.by, ..Reclaimed::default() });
    }
    let store = ClusterStore::new(client);
    let mut gone = None;
    let freed = match remnant {
        Remnant::Node(node) => {
            // Clients first: nobody shall choose a gateway whose address is being given away.
            forget_endpoints(client, node)?;
            let freed = ipam::forget_node(&store, node, now)?;
            forget(client, Watched::NodeRecords, node)?;
            forget_beat(client, node)?;
            freed
        }
        Remnant::OutOfService(node) => {
            forget_endpoints(client, node)?;
            ipam::retain(&store, None, node, now, &|_, _| Some(After::Owner))?
        }
        Remnant::Agent(node) => {
            // The taint first: without the Lease nobody would know any more that it is of ours, and not what the node registered with.
            let node_now = taint(client, node, Agent::Here, true)?;
            learnt.by.extend(node_now.map(|object| (Watched::Nodes, object)));
            forget_beat(client, node)?;
            Vec::new()
        }
        Remnant::Owner(owner, _) => ipam::forget_owners(&store, &|other| other == owner, now)?,
        Remnant::Block(pool, cidr, sequence) => {
            let seen = store.read(pool, *cidr)?;
            let is_so = |block: &Block| block.sequence == *sequence && block.is_vacant(now, EMPTY);
            if let Some((block, version)) = seen.filter(|(block, _)| is_so(block)) {
                // As it was read, or not at all: somebody may lease of it just now.
                gone = store.delete(&block, version)?.map(|object| (Watched::Blocks, object));
            }
            if gone.is_none() {
                return Ok(Reclaimed::default());
            }
            Vec::new()
        }
    };
    Ok(Reclaimed { freed: Some(freed), learnt: learnt.by, gone })
}

/// What the server says of something that seems to be gone.
#[derive(Debug, Default)]
struct Asked {
    is_gone: bool,
    /// What shows that it is not.
    by: Vec<(Watched, Value)>,
}

/// Asks for all that says that something is gone.
fn contradicted(
    client: &Client,
    remnant: &Remnant,
    heard: Option<&str>,
    pods: &mut AgentsPods,
) -> Result<Asked, ApiError> {
    if let Some(node) = remnant.node() {
        let beat = found(client, &beat_of(node))?;
        let says = beat.as_ref().and_then(|beat| beat["metadata"]["resourceVersion"].as_str());
        if says.is_some() && says != heard {
            let by = beat.into_iter().map(|beat| (Watched::Beats, beat)).collect();
            return Ok(Asked { is_gone: false, by });
        }
    }
    let other = match remnant {
        Remnant::Node(node) => found(client, &node_path(node))?.map(|object| (Watched::Nodes, object)),
        Remnant::OutOfService(node) => {
            let Some(object) = found(client, &node_path(node))? else { return Ok(Asked::default()) };
            let is_so = is_out_of_service(&object["spec"]["taints"]);
            (!is_so).then_some((Watched::Nodes, object))
        }
        Remnant::Agent(node) => pods.of(client, node)?.map(|object| (Watched::Pods, object)),
        Remnant::Owner(Owner::Ordinal { namespace, stateful_set, ordinal }, _) => {
            let path = format!("/apis/apps/v1/namespaces/{namespace}/statefulsets/{stateful_set}");
            let set = found(client, &path)?.filter(|set| ordinals(set).contains(&u64::from(*ordinal)));
            set.map(|object| (Watched::StatefulSets, object))
        }
        Remnant::Owner(Owner::PodUid(uid), pod) => {
            pod_of(client, uid, pod.as_ref())?.map(|object| (Watched::Pods, object))
        }
        // Read by who deletes it, because only that shows that nothing is leased in between.
        Remnant::Block(..) => None,
        // Nobody can say of the others that they are gone.
        Remnant::Owner(..) => return Ok(Asked::default()),
    };
    Ok(Asked { is_gone: other.is_none(), by: other.into_iter().collect() })
}

/// The pod that goes by a UID. Where its name was not written down every pod is looked at.
fn pod_of(client: &Client, uid: &str, pod: Option<&PodName>) -> Result<Option<Value>, ApiError> {
    let has_it = |pod: &Value| ids(pod).any(|id| id == uid);
    match pod {
        Some(PodName { namespace, name }) => {
            let pod = found(client, &format!("/api/v1/namespaces/{namespace}/pods/{name}"))?;
            Ok(pod.filter(has_it))
        }
        None => {
            let keep = |pod: Value| Some(pod).filter(has_it);
            let (pods, _) = client.list_of("/api/v1/pods?", None, &mut { keep })?;
            Ok(pods.into_iter().flatten().next())
        }
    }
}

impl AgentsPods {
    /// A pod of an agent that is on a node, or waits for room there: such a pod of a DaemonSet names its node as the only one that it may
    /// go to.
    fn of(&mut self, client: &Client, node: &str) -> Result<Option<Value>, ApiError> {
        if self.0.is_none() {
            let (key, value) = (AGENT.0.replace('/', "%2F"), AGENT.1);
            let path = format!("/api/v1/namespaces/{HOME}/pods?labelSelector={key}%3D{value}&");
            self.0 = Some(client.list(&path)?.0);
        }
        Ok(self.0.iter().flatten().find(|pod| is_for(pod, node)).cloned())
    }
}

fn is_for(pod: &Value, node: &str) -> bool {
    let required = &pod["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"];
    let fields = required["nodeSelectorTerms"].as_array().into_iter().flatten();
    let mut fields = fields.flat_map(|term| term["matchFields"].as_array().into_iter().flatten());
    let names = |field: &Value| field["values"].as_array().is_some_and(|all| all.iter().any(|v| v == node));
    pod["spec"]["nodeName"] == node || fields.any(|field| field["key"] == "metadata.name" && names(field))
}

/// An object, if there is one.
fn found(client: &Client, path: &str) -> Result<Option<Value>, ApiError> {
    match client.get(path) {
        Ok(object) => Ok(Some(object)),
        Err(error) if error.is_absent() => Ok(None),
        Err(error) => Err(error),
    }
}

fn node_path(node: &str) -> String {
    format!("/api/v1/nodes/{node}")
}

fn beat_of(node: &str) -> String {
    format!("{}/{}", lease::LEASES, lease::beat_of(node))
}

/// Endpoints of a node that is gone: its clients then know that there is no gateway.
fn forget_endpoints(client: &Client, node: &str) -> Result<(), ApiError> {
    forget(client, Watched::Endpoints, node)
}

/// A node's agent's sign of life.
fn forget_beat(client: &Client, node: &str) -> Result<(), ApiError> {
    absent_is_well(client.delete(&beat_of(node)))
}

fn forget(client: &Client, kind: Watched, node: &str) -> Result<(), ApiError> {
    let all = kind.collection();
    let list = client.get(&all)?;
    for object in list["items"].as_array().into_iter().flatten().filter(|o| o["spec"]["node"] == node) {
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        absent_is_well(client.delete(&format!("{all}/{name}")))?;
    }
    Ok(())
}

fn absent_is_well(outcome: Result<Value, ApiError>) -> Result<(), ApiError> {
    match outcome {
        Err(error) if !error.is_absent() => Err(error),
        _ => Ok(()),
    }
}
