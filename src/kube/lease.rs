//! Leases of coordination.k8s.io: a sign of life that one process writes and others look at.
//!
//! In: what to say. Out: the object's fields, read and written, with texts of time as Kubernetes has them. Never: believes a
//! time that somebody else wrote; who looks at a Lease measures by its own clock how long it has not changed.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::client::Client;
use super::error::ApiError;

/// Their list, in [`super::HOME`].
pub const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/egret-system/leases";

/// Annotation of an agent's Lease: clients whose traffic passes its node by.
pub const BYPASSED: &str = "egret.dev/bypassed";
/// The same, of clients that were started without Egret.
pub const UNWIRED: &str = "egret.dev/unwired";

/// Clients that an agent does not serve: `namespace/name`, separated by commas.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Noted {
    /// Their traffic passes the node by.
    pub bypassed: String,
    /// They were started before Egret was in their node's network list.
    pub unwired: String,
}

/// `spec` of a Lease. A field that is missing is empty.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LeaseSpec {
    /// Who has it; empty: nobody.
    pub holder_identity: String,
    /// Seconds after which others may take it, if it has not changed meanwhile. At least 1.
    pub lease_duration_seconds: u32,
    /// When its holder took it, by the holder's clock.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub acquire_time: Option<String>,
    /// When its holder last said that it lives, by the holder's clock.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub renew_time: Option<String>,
    /// How often it went from one holder to another.
    pub lease_transitions: u32,
}

/// A Lease and its version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// What it says.
    pub spec: LeaseSpec,
    /// `metadata.resourceVersion`.
    pub version: String,
}

/// Reads a Lease; `None`: there is none.
///
/// # Errors
/// If the server does not answer, or says no.
pub fn read(client: &Client, name: &str) -> Result<Option<Found>, ApiError> {
    match client.get(&format!("{LEASES}/{name}")) {
        Ok(object) => Ok(Some(found(&object))),
        Err(error) if error.is_absent() => Ok(None),
        Err(error) => Err(error),
    }
}

/// Writes a Lease over the version that was seen, or makes it. What is there now.
///
/// # Errors
/// [`ApiError::is_conflict`] if somebody else was faster, and the others.
pub fn write(client: &Client, name: &str, spec: &LeaseSpec, seen: Option<&str>) -> Result<Found, ApiError> {
    noting(client, name, spec, &Noted::default(), seen)
}

/// The same, with the clients that an agent knows not to be served.
///
/// # Errors
/// As [`write()`].
pub fn noting(
    client: &Client,
    name: &str,
    spec: &LeaseSpec,
    noted: &Noted,
    seen: Option<&str>,
) -> Result<Found, ApiError> {
    let mut object = json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": name}, "spec": spec,
    });
    for (key, pods) in [(BYPASSED, &noted.bypassed), (UNWIRED, &noted.unwired)] {
        if !pods.is_empty() {
            object["metadata"]["annotations"][key] = pods.as_str().into();
        }
    }
    let written = match seen {
        None => client.create(LEASES, &object)?,
        Some(version) => {
            object["metadata"]["resourceVersion"] = version.into();
            client.replace(&format!("{LEASES}/{name}"), &object)?
        }
    };
    Ok(found(&written))
}

/// What the Lease is called that the agent of a node writes.
pub fn beat_of(node: &str) -> String {
    format!("agent.{node}")
}

/// The node whose agent writes the Lease of this name, its namespace before it or not.
pub fn node_of(lease: &str) -> Option<&str> {
    lease.rsplit('/').next()?.strip_prefix("agent.")
}

fn found(object: &Value) -> Found {
    let version = object["metadata"]["resourceVersion"].as_str().unwrap_or_default().to_owned();
    Found { spec: serde_json::from_value(object["spec"].clone()).unwrap_or_default(), version }
}

/// RFC 3339 with microseconds, as `MicroTime` is written.
pub fn micro_time(since_1970: std::time::Duration) -> String {
    format!("{}.{:06}Z", date(since_1970.as_secs()), since_1970.subsec_micros())
}

/// RFC 3339 without fractions, as `Time` is written.
pub fn time(seconds: u64) -> String {
    format!("{}Z", date(seconds))
}

/// `2026-08-21T10:00:00` of seconds since 1970. The year is taken to begin in March, so that the leap day is its last.
fn date(seconds: u64) -> String {
    let (days, second) = (seconds / 86_400 + 719_468, seconds % 86_400);
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let (day, month) = (day - (153 * month + 2) / 5 + 1, if month < 10 { month + 3 } else { month - 9 });
    let year = year + era * 400 + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}", second / 3600, second / 60 % 60, second % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_kubernetes_reads_them() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_825_600, "2000-02-29T12:00:00Z"),
            (1_787_306_400, "2026-08-21T10:00:00Z"),
            (4_107_542_399, "2100-02-28T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(time(seconds), text);
        }
        assert_eq!(micro_time(std::time::Duration::new(0, 5_000)), "1970-01-01T00:00:00.000005Z");
    }

    #[test]
    fn a_lease_that_somebody_left_half_empty_is_read() {
        let spec: LeaseSpec = serde_json::from_value(json!({"holderIdentity": "a"})).unwrap();
        assert_eq!((spec.holder_identity.as_str(), spec.lease_duration_seconds), ("a", 0));
        assert_eq!(node_of(&beat_of("n.1")), Some("n.1"));
        assert_eq!(node_of("egret-controller"), None);
    }
}
