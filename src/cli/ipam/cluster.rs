//! The same questions about a cluster's books: `EgressBlock` objects in place of files.
//!
//! In: a cluster that was looked at. Out: the report that a directory gets. Only `release` writes, each block by the version it was read as.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::{IpamReport, Seen, of_pools};
use crate::cli::cluster::Cluster;
use crate::ipam::{Books, Freed, Owner, audit};
use crate::kube::ClusterStore;
use crate::problem::Problem;

fn look(cluster: &Cluster) -> Result<Seen, String> {
    let (blocks, broken) = ClusterStore::new(&cluster.client).blocks().map_err(|e| e.to_string())?;
    let pools = cluster.objects.pools().map(|(_, pool)| pool).collect();
    let damaged = |(name, why): (String, String)| Problem::new(format!("EgressBlock {name}"), "Damaged", why);
    Ok(Seen { pools, blocks, problems: broken.into_iter().map(damaged).collect() })
}

/// Pools, blocks and leases, of one pool or of all.
///
/// # Errors
/// If the blocks cannot be listed, or there is no such pool.
pub(in crate::cli) fn show(cluster: &Cluster, pool: Option<&str>, now: u64) -> Result<IpamReport, String> {
    let mut seen = look(cluster)?;
    seen.problems.extend(of_pools(cluster.problems.clone()));
    if let Some(wanted) = pool
        && !seen.narrow(wanted)
    {
        return Err(format!("there is no pool {wanted} in {}", cluster.client.access().server()));
    }
    Ok(IpamReport::new(&seen.pools, &seen.blocks, seen.problems, now))
}

/// As [`show`], with everything that is wrong. What only a node knows, which containers it has, is not asked.
///
/// # Errors
/// If the blocks cannot be listed.
pub(super) fn check(cluster: &Cluster, grace: u64, now: u64) -> Result<IpamReport, String> {
    // Endpoints were listed before the blocks: one that came meanwhile has a lease, and one that went is younger than grace.
    let mut seen = look(cluster)?;
    let nodes: BTreeSet<String> = cluster.objects.nodes().map(|(name, _)| name).collect();
    let endpoints = cluster.looked.mirror.endpoints();
    let books = Books {
        blocks: &seen.blocks,
        pools: &seen.pools,
        endpoints: &endpoints,
        nodes: Some(&nodes).filter(|nodes| !nodes.is_empty()),
        attachments: None,
        now,
        grace,
    };
    seen.problems.extend(audit(&books));
    Ok(IpamReport::new(&seen.pools, &seen.blocks, seen.problems, now))
}

/// Gives addresses back, or all of an owner.
///
/// # Errors
/// There is nothing to give back, or a container holds it and `force` is not said; then nothing was. Or we may not.
pub(super) fn release(
    cluster: &Cluster,
    addresses: &[IpAddr],
    owner: Option<&Owner>,
    force: bool,
    now: u64,
) -> Result<Vec<Freed>, String> {
    let store = ClusterStore::new(&cluster.client);
    super::release_from(&store, addresses, owner, force, now)
}
