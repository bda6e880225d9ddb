//! Blocks as `EgressBlock` objects: a [`Store`] over the API.
//!
//! In: a client. Out: the same store as a directory is. An object's `resourceVersion` is its version; a write that names an older
//! one is refused by the server, so any number of nodes may write. Its name is `POOL.v4-10-10-10-0-31`.
//!
//! A summary is made once, page by page, when it is first asked for, and learns from every own write; a write that was too late
//! forgets it. So whoever makes a store for one claim begins with what is true then, and a claim that meets others' looks again.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};

use super::client::Client;
use super::error::ApiError;
use super::watched::Watched;
use crate::addr::{Cidr, Family};
use crate::ipam::{Block, Store, StoreError, Summary, block_name};
use crate::store::record::{API_VERSION, RecordError};
use crate::store::{Swap, Version};

const KIND: &str = "EgressBlock";
/// Objects in one answer: 500 blocks of two leases are 600 KB.
const PAGE: usize = 500;

/// The blocks of a cluster.
#[derive(Debug)]
pub struct ClusterStore<'a> {
    client: &'a Client,
    known: Mutex<BTreeMap<String, Arc<Summary>>>,
}

impl<'a> ClusterStore<'a> {
    /// Begins without knowledge; make one for each claim or clean-up.
    pub fn new(client: &'a Client) -> ClusterStore<'a> {
        ClusterStore { client, known: Mutex::default() }
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Summary>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Every block of the cluster, page by page.
    fn each(&self, query: &str, mut take: impl FnMut(&Value)) -> Result<(), StoreError> {
        let mut next = String::new();
        loop {
            let path = format!("{}?limit={PAGE}{query}&continue={next}", Watched::Blocks.collection());
            let list = match self.client.get(&path) {
                // The pages' common version is too old: from the beginning. What was taken is taken again.
                Err(error) if error.is_expired() && !next.is_empty() => {
                    next.clear();
                    continue;
                }
                other => other.map_err(failed)?,
            };
            list["items"].as_array().into_iter().flatten().for_each(&mut take);
            match list["metadata"]["continue"].as_str() {
                Some(token) if !token.is_empty() => token.clone_into(&mut next),
                _ => return Ok(()),
            }
        }
    }

    /// Every block of the cluster, and, by name, what is wrong with those that cannot be used.
    ///
    /// # Errors
    /// If the server does not answer, or we may not list them.
    pub fn blocks(&self) -> Result<(Vec<Block>, BTreeMap<String, String>), StoreError> {
        let (mut blocks, mut broken) = (BTreeMap::new(), BTreeMap::new());
        self.each("", |object| {
            let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
            match block(object) {
                Ok(block) => _ = blocks.insert(name, block),
                Err(why) => _ = broken.insert(name, why),
            }
        })?;
        Ok((blocks.into_values().collect(), broken))
    }

    /// Deletes a block if it still has the version that was seen; the object as it was. `None`: somebody wrote it since, or deleted it.
    ///
    /// # Errors
    /// If the server does not answer, or we may not.
    pub fn delete(&self, block: &Block, Version(seen): Version) -> Result<Option<Value>, StoreError> {
        let name = object_name(&block.pool, block.cidr);
        self.known().remove(&block.pool);
        let path = format!("{}/{name}", Watched::Blocks.collection());
        match self.client.delete_as(&path, &seen.to_string()) {
            Ok(_) => Ok(Some(json!({"metadata": {"name": name, "resourceVersion": seen.to_string()}}))),
            Err(error) if error.is_conflict() || error.is_absent() => Ok(None),
            Err(error) => Err(failed(error)),
        }
    }

    fn list(&self, pool: &str) -> Result<Arc<Summary>, StoreError> {
        let mut blocks: BTreeMap<String, Result<Block, Cidr>> = BTreeMap::new();
        self.each(&format!("&fieldSelector=spec.pool%3D{pool}"), |object| {
            let name = object["metadata"]["name"].as_str().unwrap_or_default();
            match block(object) {
                Ok(block) => _ = blocks.insert(name.to_owned(), Ok(block)),
                Err(why) => {
                    tracing::warn!(name, why, "a block cannot be used");
                    if let Some(cidr) = cidr_of(name) {
                        blocks.insert(name.to_owned(), Err(cidr));
                    }
                }
            }
        })?;
        let whole = blocks.values().filter_map(|block| block.as_ref().ok());
        let broken = blocks.values().filter_map(|block| block.as_ref().err().copied());
        let summary = Arc::new(Summary::of(whole, broken));
        self.known().insert(pool.to_owned(), summary.clone());
        Ok(summary)
    }

    fn version_now(&self, name: &str) -> Result<Option<Version>, StoreError> {
        match self.client.get(&format!("{}/{name}", Watched::Blocks.collection())) {
            Ok(object) => version(&object).map(Some),
            Err(error) if error.is_absent() => Ok(None),
            Err(error) => Err(failed(error)),
        }
    }
}

impl Store for ClusterStore<'_> {
    fn pools(&self) -> Result<Vec<String>, StoreError> {
        let mut pools = std::collections::BTreeSet::new();
        self.each("", |object| pools.extend(object["spec"]["pool"].as_str().map(str::to_owned)))?;
        Ok(pools.into_iter().collect())
    }

    fn summary(&self, pool: &str) -> Result<Arc<Summary>, StoreError> {
        let known = self.known().get(pool).cloned();
        known.map_or_else(|| self.list(pool), Ok)
    }

    fn refresh(&self, pool: &str) -> Result<(), StoreError> {
        self.list(pool).map(drop)
    }

    fn read(&self, pool: &str, cidr: Cidr) -> Result<Option<(Block, Version)>, StoreError> {
        let name = object_name(pool, cidr);
        let object = match self.client.get(&format!("{}/{name}", Watched::Blocks.collection())) {
            Err(error) if error.is_absent() => return Ok(None),
            other => other.map_err(failed)?,
        };
        let block = block(&object).map_err(|why| damaged(&name, why))?;
        Ok(Some((block, version(&object)?)))
    }

    fn swap(&self, block: &Block, seen: Option<Version>) -> Result<Swap, StoreError> {
        let name = object_name(&block.pool, block.cidr);
        let spec = serde_json::to_value(block).map_err(|e| damaged(&name, e.to_string()))?;
        let mut object =
            json!({"apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": name}, "spec": spec});
        let answer = match seen {
            None => self.client.create(&Watched::Blocks.collection(), &object),
            Some(Version(seen)) => {
                object["metadata"]["resourceVersion"] = seen.to_string().into();
                self.client.replace(&format!("{}/{name}", Watched::Blocks.collection()), &object)
            }
        };
        match answer {
            Ok(written) => {
                if let Some(summary) = self.known().get_mut(&block.pool) {
                    Arc::make_mut(summary).learn(block);
                }
                Ok(Swap::Stored(version(&written)?))
            }
            // Gone, when a version was named, is another version, too.
            Err(error) if error.is_conflict() || error.is_absent() && seen.is_some() => {
                self.known().remove(&block.pool);
                self.version_now(&name).map(Swap::Raced)
            }
            Err(error) => Err(failed(error)),
        }
    }
}

/// What a block's object is called. The pool's name is a DNS name, the rest its last label.
pub fn object_name(pool: &str, cidr: Cidr) -> String {
    let family = if cidr.family() == Family::V4 { "v4" } else { "v6" };
    format!("{pool}.{family}-{}", block_name(cidr))
}

/// The range that a name speaks of, so that a damaged block's addresses are given to nobody.
fn cidr_of(name: &str) -> Option<Cidr> {
    let (_, label) = name.rsplit_once('.')?;
    let (family, range) = label.split_once('-')?;
    let (address, prefix) = range.rsplit_once('-')?;
    let sign = if family == "v4" { "." } else { ":" };
    format!("{}/{prefix}", address.replace('-', sign)).parse().ok()
}

/// The block in an object.
///
/// # Errors
/// What is wrong with it.
pub fn block(object: &Value) -> Result<Block, String> {
    let block: Block = serde_json::from_value(object["spec"].clone()).map_err(|e| e.to_string())?;
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    if object_name(&block.pool, block.cidr) != name {
        return Err(format!("it is block {} of pool `{}`, not what its name says", block.cidr, block.pool));
    }
    match block.allocations.keys().find(|ip| !block.cidr.contains(**ip)) {
        Some(outside) => Err(format!("{outside} lies outside of block {}", block.cidr)),
        None => Ok(block),
    }
}

/// Kubernetes calls it opaque; since 1.35 it promises what has always been: a number that grows.
fn version(object: &Value) -> Result<Version, StoreError> {
    let text = object["metadata"]["resourceVersion"].as_str().unwrap_or_default();
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    text.parse().map(Version).map_err(|_| damaged(name, format!("its resourceVersion `{text}` is no number")))
}

fn damaged(name: &str, why: String) -> StoreError {
    RecordError::Torn { path: format!("{KIND} {name}").into(), why }.into()
}

fn failed(error: ApiError) -> StoreError {
    StoreError::Remote(Box::new(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_objects_name_is_a_dns_name_and_leads_back_to_the_range() {
        for (cidr, name) in [
            ("10.10.10.0/31", "a.b.v4-10-10-10-0-31"),
            ("fd00::/127", "a.b.v6-fd00---127"),
            ("::1/128", "a.b.v6---1-128"),
        ] {
            let cidr: Cidr = cidr.parse().unwrap();
            assert_eq!(object_name("a.b", cidr), name);
            assert_eq!(cidr_of(name), Some(cidr));
        }
        assert_eq!(cidr_of("notes"), None);
    }
}
