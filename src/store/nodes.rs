//! Numbers of nodes: what a node is called in marks, MAC addresses and VNIs. Allocated once, unique over all nodes.
//!
//! In: node names, their IPv4 addresses, what is in use. Out: records. The allocation itself is pure.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use super::record::{self, RecordError, Version, file_name};
use super::{Dir, Guard};
use crate::egress::model::Endpoint;
pub use crate::egress::numbers::FIRST_VNI;
use crate::problem::Problem;
use crate::{fault, hash};

const KIND: &str = "NodeRecord";

/// Highest node number: fourteen bits of the conntrack mark.
pub const LAST_NUMBER: u16 = 0x3fff;
/// Highest VNI: 24 bits (RFC 7348 §5).
pub const LAST_VNI: u32 = 0xff_ffff;

/// What the store knows of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeRecord {
    /// Its name.
    pub name: String,
    /// Its number in conntrack marks: 1 to [`LAST_NUMBER`].
    pub number: u16,
    /// The last four bytes of its MAC addresses: its IPv4 address when the record was made, or one of 240.0.0.0/4.
    /// It never changes: packets on their way carry it.
    pub wire: Ipv4Addr,
    /// VNI that its next gateway gets.
    pub next_vni: u32,
}

/// Why a node got no number.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// A record cannot be read or written.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// A record of some node is damaged: its numbers are unknown and might be given out twice.
    #[error("cannot number node {node}: {problem}")]
    Unreadable {
        /// The node that asked.
        node: String,
        /// The damaged record, and what is wrong with it.
        problem: String,
    },
    /// A cluster has not numbered it.
    #[error(
        "node {0} has no EgressNode object yet; its agent makes one as soon as it hears of its Node object"
    )]
    Unnumbered(String),
    /// All numbers are taken.
    #[error(
        "cannot number node {0}: all {LAST_NUMBER} numbers are taken. Delete the records of nodes that are gone"
    )]
    Full(String),
    /// All VNIs are taken.
    #[error("node {0} has no VNI left")]
    NoVni(String),
}

/// All node records, by name, and the files that are none.
///
/// # Errors
/// If the folder cannot be read.
pub fn list(dir: &Dir) -> Result<(Vec<NodeRecord>, Vec<Problem>), RecordError> {
    let (records, problems) = record::list::<NodeRecord>(dir.path(), &dir.nodes(), KIND)?;
    Ok((records.into_iter().map(|r| r.spec).collect(), problems))
}

/// One node's record.
///
/// # Errors
/// If it is damaged.
pub fn get(dir: &Dir, name: &str) -> Result<Option<(NodeRecord, Version)>, RecordError> {
    record::read(&path(dir, name), KIND, name)
}

/// The node's record, made now if there is none. `ipv4`: the node's IPv4 address, if it has one; it becomes the wire bytes
/// unless another node has them.
///
/// # Errors
/// If a record is damaged or cannot be written, or all numbers are taken.
pub fn ensure(dir: &Dir, guard: &Guard, name: &str, ipv4: Option<Ipv4Addr>) -> Result<NodeRecord, NodeError> {
    if let Some((record, _)) = get(dir, name)? {
        return Ok(record);
    }
    let (others, mut problems) = list(dir)?;
    if let Some(problem) = problems.pop() {
        return Err(NodeError::Unreadable { node: name.to_owned(), problem: problem.to_string() });
    }
    let record = allocate(name, ipv4, &others).ok_or_else(|| NodeError::Full(name.to_owned()))?;
    write(dir, guard, &record, None)?;
    Ok(record)
}

/// Takes the next VNI of a node, which is none of `in_use` (the VNIs of its endpoints and of devices in its kernel).
/// VNIs count up, so that one is not used again while a client may still send to it.
///
/// # Errors
/// If the node has no record, it cannot be written, or every VNI is in use.
pub fn take_vni(dir: &Dir, guard: &Guard, name: &str, in_use: &BTreeSet<u32>) -> Result<u32, NodeError> {
    let (mut record, version) = match get(dir, name)? {
        Some(found) => found,
        None => (ensure(dir, guard, name, None)?, Version(1)),
    };
    let vni = free_vni(record.next_vni, in_use).ok_or_else(|| NodeError::NoVni(name.to_owned()))?;
    record.next_vni = if vni == LAST_VNI { FIRST_VNI } else { vni + 1 };
    write(dir, guard, &record, Some(version))?;
    Ok(vni)
}

/// Writes what was decided elsewhere: in a cluster, its API keeps the numbers, so a record that is damaged is made anew, and nobody
/// waits for the disk: 500 of them, each waited for, would take a second of a node's first start.
///
/// # Errors
/// If it cannot be read or written.
pub fn hear(dir: &Dir, _guard: &Guard, record: &NodeRecord) -> Result<(), RecordError> {
    record::hear(&path(dir, &record.name), (KIND, &record.name), record)
}

/// Removes the record of a node that is gone; says whether there was one.
///
/// # Errors
/// If the kernel refuses.
pub fn remove(dir: &Dir, _guard: &Guard, name: &str) -> Result<bool, RecordError> {
    record::remove(&path(dir, name), true)
}

/// Four bytes for the MAC address of a gateway without IPv4: of 240.0.0.0/4 (RFC 1112 §4, never anybody's address), and no
/// node's or other gateway's. `seed` names the gateway: the same one tends to get the same bytes. They are taken once the
/// endpoint that carries them is written, so do both under one guard. `None` only if all 268 million are taken.
pub fn allocate_wire(seed: &str, nodes: &[NodeRecord], endpoints: &[Endpoint]) -> Option<Ipv4Addr> {
    let mut taken: BTreeSet<Ipv4Addr> = nodes.iter().map(|n| n.wire).collect();
    taken.extend(endpoints.iter().map(|e| {
        let [_, _, bytes @ ..] = e.mac.0;
        Ipv4Addr::from(bytes)
    }));
    free_wire(seed, &taken)
}

/// Number and wire bytes for a new node; `None` if there is no number left. Pure: [`ensure`] writes them down.
pub fn allocate(name: &str, ipv4: Option<Ipv4Addr>, others: &[NodeRecord]) -> Option<NodeRecord> {
    let numbers: BTreeSet<u16> = others.iter().map(|n| n.number).collect();
    let number = (1..=LAST_NUMBER).find(|n| !numbers.contains(n))?;
    let taken: BTreeSet<Ipv4Addr> = others.iter().map(|n| n.wire).collect();
    let own = ipv4.filter(|ip| !taken.contains(ip));
    let wire = own.or_else(|| free_wire(name, &taken))?;
    Some(NodeRecord { name: name.to_owned(), number, wire, next_vni: FIRST_VNI })
}

/// Counts up from a hash of the seed, round within 240.0.0.1 to 255.255.255.254.
fn free_wire(seed: &str, taken: &BTreeSet<Ipv4Addr>) -> Option<Ipv4Addr> {
    const FIRST: u32 = 0xf000_0001;
    const COUNT: u32 = 0x0fff_fffe;
    let start = hash::stable32(seed.as_bytes()) % COUNT;
    // One more try than there are taken ones is enough.
    let tries = u32::try_from(taken.len()).unwrap_or(COUNT).min(COUNT - 1);
    (0..=tries).map(|n| Ipv4Addr::from_bits(FIRST + (start + n) % COUNT)).find(|ip| !taken.contains(ip))
}

fn free_vni(next: u32, in_use: &BTreeSet<u32>) -> Option<u32> {
    let next = next.clamp(FIRST_VNI, LAST_VNI);
    (next..=LAST_VNI).chain(FIRST_VNI..next).find(|vni| !in_use.contains(vni))
}

fn write(dir: &Dir, guard: &Guard, record: &NodeRecord, seen: Option<Version>) -> Result<(), RecordError> {
    // Under the guard nobody else writes, so a swap of what was just read cannot be raced.
    record::swap(guard, &path(dir, &record.name), (KIND, &record.name), seen, record, true)?;
    fault::point("node.after-write");
    Ok(())
}

fn path(dir: &Dir, name: &str) -> std::path::PathBuf {
    dir.nodes().join(format!("{}.json", file_name(name)))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::addr::Mac;
    use crate::store::dir::tests::scratch;
    use crate::store::endpoints::tests::endpoint;

    #[test]
    fn a_node_keeps_its_number_and_bytes_and_shares_them_with_nobody() {
        let (root, _clean) = scratch();
        let dir = Dir::open(&root).unwrap();
        let guard = dir.lock("test", Duration::ZERO).unwrap();
        let ip = |text: &str| Some(text.parse().unwrap());
        let one = ensure(&dir, &guard, "one", ip("192.0.2.1")).unwrap();
        let two = ensure(&dir, &guard, "two", ip("192.0.2.1")).unwrap();
        let six = ensure(&dir, &guard, "six", None).unwrap();
        assert_eq!((one.number, two.number, six.number), (1, 2, 3));
        assert_eq!(one.wire, Ipv4Addr::new(192, 0, 2, 1));
        assert!(two.wire.octets()[0] >= 240 && six.wire.octets()[0] >= 240 && two.wire != six.wire);
        assert_eq!(ensure(&dir, &guard, "one", ip("192.0.2.9")).unwrap(), one, "allocated once");

        let gateway = allocate_wire("net/c/eth0", &[one, two], &[]).unwrap();
        let [a, b, c, d] = gateway.octets();
        let mut other = endpoint("net/d/eth0", "one", &[]);
        other.mac = Mac([2, 0x67, a, b, c, d]);
        assert_ne!(allocate_wire("net/c/eth0", &[], &[other]).unwrap(), gateway);
    }

    #[test]
    fn vnis_count_up_round_and_past_those_in_use() {
        let (root, _clean) = scratch();
        let dir = Dir::open(&root).unwrap();
        let guard = dir.lock("test", Duration::ZERO).unwrap();
        ensure(&dir, &guard, "one", None).unwrap();
        let take = |in_use: &[u32]| take_vni(&dir, &guard, "one", &in_use.iter().copied().collect()).unwrap();
        assert_eq!([take(&[]), take(&[5001, 5002]), take(&[])], [5000, 5003, 5004]);
        assert_eq!(free_vni(LAST_VNI, &BTreeSet::from([LAST_VNI])), Some(FIRST_VNI));
    }

    #[test]
    fn no_number_is_given_while_a_record_cannot_be_read() {
        let (root, _clean) = scratch();
        let dir = Dir::open(&root).unwrap();
        let guard = dir.lock("test", Duration::ZERO).unwrap();
        ensure(&dir, &guard, "one", None).unwrap();
        std::fs::write(dir.nodes().join("two.json"), "{").unwrap();
        let error = ensure(&dir, &guard, "three", None).unwrap_err().to_string();
        assert!(error.contains("cannot number node three: nodes/two.json: this file is damaged"), "{error}");
    }
}
