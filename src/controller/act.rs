//! Writes what was decided, and asks once more before anything is taken from anybody.
//!
//! In: a client, one thing to do. Out: it is done, or was no longer to be done, or an error. Every write names the version that was read
//! just before; nothing is done that is done already.

use serde_json::Value;

use super::agents::Agent;
use super::reclaim::Remnant;
use super::status::Write;
use super::taints;
use super::world::ordinals;
use crate::ipam::{self, After, Freed, Owner, StoreError};
use crate::kube::{ApiError, Client, ClusterStore, Watched, lease};

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
    let mut object = match client.get(&path) {
        Err(error) if error.is_absent() => return Ok(None),
        other => other?,
    };
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
    let path = format!("/api/v1/nodes/{node}");
    let mut object = match client.get(&path) {
        Err(error) if error.is_absent() => return Ok(None),
        other => other?,
    };
    let Some(taints) = taints::wanted(&object["spec"]["taints"], agent, on) else { return Ok(None) };
    object["spec"]["taints"] = taints;
    Ok(Some(client.replace(&path, &object)?))
}

/// Frees what is left of something that is gone. It is asked for once more first: a mirror may lag.
///
/// # Errors
/// The server does not answer, or says no.
pub fn reclaim(client: &Client, remnant: &Remnant, now: u64) -> Result<Vec<Freed>, ActError> {
    if !is_still_gone(client, remnant)? {
        return Ok(Vec::new());
    }
    let store = ClusterStore::new(client);
    match remnant {
        Remnant::Node(node) => {
            // Clients first: nobody shall choose a gateway whose address is being given away.
            forget_endpoints(client, node)?;
            let freed = ipam::forget_node(&store, node, now)?;
            forget_records(client, node)?;
            Ok(freed)
        }
        Remnant::OutOfService(node) => {
            forget_endpoints(client, node)?;
            Ok(ipam::retain(&store, None, node, now, &|_, _| Some(After::Owner))?)
        }
        Remnant::Owner(owner) => Ok(ipam::forget_owners(&store, &|other| other == owner, now)?),
    }
}

fn is_still_gone(client: &Client, remnant: &Remnant) -> Result<bool, ActError> {
    let is_absent = |path: &str| match client.get(path) {
        Ok(_) => Ok(false),
        Err(error) if error.is_absent() => Ok(true),
        Err(error) => Err(error),
    };
    Ok(match remnant {
        Remnant::Node(node) => is_absent(&format!("/api/v1/nodes/{node}"))?,
        Remnant::Owner(Owner::Ordinal { namespace, stateful_set, ordinal }) => {
            match client.get(&format!("/apis/apps/v1/namespaces/{namespace}/statefulsets/{stateful_set}")) {
                Ok(set) => !ordinals(&set).contains(&u64::from(*ordinal)),
                Err(error) if error.is_absent() => true,
                Err(error) => return Err(error.into()),
            }
        }
        // All pods are followed, and no pod comes back under a UID that was gone.
        Remnant::Owner(_) | Remnant::OutOfService(_) => true,
    })
}

/// Endpoints of a node that is gone: its clients then know that there is no gateway.
fn forget_endpoints(client: &Client, node: &str) -> Result<(), ApiError> {
    forget(client, Watched::Endpoints, node)
}

/// What a node said of itself, and its agent's sign of life.
fn forget_records(client: &Client, node: &str) -> Result<(), ApiError> {
    forget(client, Watched::NodeRecords, node)?;
    absent_is_well(client.delete(&format!("{}/{}", lease::LEASES, lease::beat_of(node))))
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
