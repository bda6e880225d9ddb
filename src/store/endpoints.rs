//! Endpoints: where gateways are. Written only by a gateway's own node, read by all.
//!
//! In: [`Endpoint`] values. Out: the same, with what could not be read named beside them.

use std::path::PathBuf;

use super::record::{self, RecordError, Swap, Version, file_name};
use super::{Dir, Guard};
use crate::egress::model::Endpoint;
use crate::fault;
use crate::problem::Problem;

const KIND: &str = "EgressEndpoint";

/// Why an endpoint was not written.
#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    /// Its record cannot be read or written.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// Another node wrote it: two nodes use one attachment.
    #[error(
        "endpoint {attachment} belongs to node {owner}; node {writer} must not write it. Do two nodes share a name?"
    )]
    OtherNode {
        /// The attachment.
        attachment: String,
        /// Node in the record.
        owner: String,
        /// Node that wanted to write.
        writer: String,
    },
}

/// All endpoints, by attachment, and the files that are none.
///
/// # Errors
/// If the folder cannot be read.
pub fn list(dir: &Dir) -> Result<(Vec<Endpoint>, Vec<Problem>), RecordError> {
    let (records, problems) = record::list::<Endpoint>(dir.path(), &dir.endpoints(), KIND)?;
    let mut endpoints: Vec<Endpoint> = records.into_iter().map(|r| r.spec).collect();
    endpoints.sort_by(|a, b| a.attachment.cmp(&b.attachment));
    Ok((endpoints, problems))
}

/// One endpoint and its version.
///
/// # Errors
/// If its record is damaged.
pub fn get(dir: &Dir, attachment: &str) -> Result<Option<(Endpoint, Version)>, RecordError> {
    record::read(&path(dir, attachment), KIND, attachment)
}

/// Writes an endpoint with the next generation, on disk when this returns. Equal content is not written again.
/// Returns it as it is now.
///
/// # Errors
/// If the record is damaged, cannot be written, or belongs to another node.
pub fn put(dir: &Dir, guard: &Guard, endpoint: &Endpoint) -> Result<Endpoint, EndpointError> {
    let present = get(dir, &endpoint.attachment)?;
    let mut next = endpoint.clone();
    next.generation = present.as_ref().map_or(1, |(_, version)| version.0 + 1);
    if let Some((old, _)) = &present {
        if old.node != endpoint.node {
            return Err(EndpointError::OtherNode {
                attachment: endpoint.attachment.clone(),
                owner: old.node.clone(),
                writer: endpoint.node.clone(),
            });
        }
        if *old == (Endpoint { generation: old.generation, ..endpoint.clone() }) {
            return Ok(old.clone());
        }
    }
    let seen = present.map(|(_, version)| version);
    // Under the guard nobody else writes, so a swap of what was just read cannot be raced.
    let _: Swap = swap(dir, guard, &next, seen)?;
    Ok(next)
}

/// Writes an endpoint if its record still has the version that was seen.
///
/// # Errors
/// If the record is damaged or cannot be written.
pub fn swap(
    dir: &Dir,
    guard: &Guard,
    endpoint: &Endpoint,
    seen: Option<Version>,
) -> Result<Swap, RecordError> {
    let name = endpoint.attachment.as_str();
    let swap = record::swap(guard, &path(dir, name), (KIND, name), seen, endpoint, true)?;
    fault::point("endpoint.after-write");
    Ok(swap)
}

/// Writes what another node said of its endpoint, as it said it. That is kept in the API: a record that is damaged is made anew, and
/// nobody waits for the disk.
///
/// # Errors
/// If the record cannot be read or written.
pub fn hear(dir: &Dir, _guard: &Guard, endpoint: &Endpoint) -> Result<(), RecordError> {
    let name = endpoint.attachment.as_str();
    record::hear(&path(dir, name), (KIND, name), endpoint)
}

/// Removes an endpoint; says whether there was one.
///
/// # Errors
/// If the kernel refuses.
pub fn remove(dir: &Dir, guard: &Guard, attachment: &str) -> Result<bool, RecordError> {
    let path = path(dir, attachment);
    let removed = record::remove(&path, !guard.sees_to(&dir.endpoints()))?;
    fault::point("endpoint.after-remove");
    Ok(removed)
}

fn path(dir: &Dir, attachment: &str) -> PathBuf {
    dir.endpoints().join(format!("{}.json", file_name(attachment)))
}

#[cfg(test)]
pub(crate) mod tests {
    use std::time::Duration;

    use super::*;
    use crate::addr::Mac;
    use crate::egress::model::{EgressAddress, EndpointState, PodName};
    use crate::store::dir::tests::scratch;

    /// A ready gateway with these addresses of pool `pool`.
    pub(crate) fn endpoint(attachment: &str, node: &str, addresses: &[&str]) -> Endpoint {
        Endpoint {
            pod: PodName::new("shop", "gw"),
            uid: None,
            attachment: attachment.to_owned(),
            node: node.to_owned(),
            underlay: vec!["192.0.2.1".parse().unwrap()],
            vni: 5000,
            mac: Mac([2, 0x67, 10, 10, 10, 0]),
            addresses: addresses
                .iter()
                .map(|ip| EgressAddress::leased(ip.parse().unwrap(), "pool"))
                .collect(),
            state: EndpointState::Ready,
            generation: 0,
            problems: Vec::new(),
        }
    }

    #[test]
    fn each_change_raises_the_generation_and_no_change_writes_nothing() {
        let (root, _clean) = scratch();
        let dir = Dir::open(&root).unwrap();
        let guard = dir.lock("test", Duration::ZERO).unwrap();
        let mut gateway = endpoint("net/c1/eth0", "one", &["10.10.10.0"]);
        assert_eq!(put(&dir, &guard, &gateway).unwrap().generation, 1);
        assert_eq!(put(&dir, &guard, &gateway).unwrap().generation, 1);
        gateway.state = EndpointState::Draining;
        assert_eq!(put(&dir, &guard, &gateway).unwrap().generation, 2);
        assert!(put(&dir, &guard, &Endpoint { node: "two".to_owned(), ..gateway.clone() }).is_err());

        let (all, problems) = list(&dir).unwrap();
        assert_eq!((all.len(), problems.len()), (1, 0));
        assert_eq!(all[0].state, EndpointState::Draining);
        assert!(remove(&dir, &guard, "net/c1/eth0").unwrap());
        assert!(!remove(&dir, &guard, "net/c1/eth0").unwrap());
    }
}
