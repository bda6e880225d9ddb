//! `egret ipam show | check | release`: who has which address, what is wrong with the books, and giving an address back.
//!
//! In: a state directory. Out: a report, as text or JSON, and whether all is well. Only `release` writes.

pub(super) mod cluster;
mod report;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::{Args, Subcommand};

use report::now_is;
pub use report::{BlockRow, IpamRelease, IpamReport, LeaseRow, PoolRow, ReleasedRow, UnservableRow};

use super::cluster::Cluster;
use super::{Common, Output, Refused};
use crate::config::Config;
use crate::egress::model::Pool;
use crate::ipam::{
    Block, Books, DirStore, Freed, IpamError, Owner, State, Store, audit, blocks_in, pools_in,
    release_address, release_owner,
};
use crate::node::attachment::Attachments;
use crate::node::embedded::Embedded;
use crate::node::records::node_name;
use crate::problem::Problem;
use crate::store::objects::{Objects, ObjectsError};
use crate::store::{Dir, advice, endpoints, nodes, record, wait_for_writers};

/// Show leases, check them, give one back.
#[derive(Debug, Clone, Args)]
pub struct IpamArgs {
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

/// What to do with leases.
#[derive(Debug, Clone, Subcommand)]
pub enum Verb {
    /// Show pools, blocks and leases: who has which address, and how full it is
    Show {
        /// Only this pool
        #[arg(value_name = "POOL")]
        pool: Option<String>,
    },
    /// Look for leaks, doubles, orphans and damaged files; exit 1 if there are any
    #[command(
        long_about = "Look for leaks (an address held by a container that is gone), doubles (an address given twice, an \
                      owner with two), orphans (blocks of pools or nodes that do not exist) and damaged files. \
                      Exit 1 if there are any; nothing is changed."
    )]
    Check {
        /// Do not call a lease younger than this a leak: its ADD may still be at work
        #[arg(long, value_name = "SECONDS", default_value_t = 10)]
        grace: u64,
    },
    /// Give an address back that is reserved or cooling, or that a dead container still holds
    #[command(
        long_about = "Give an address back. One that is reserved for a StatefulSet's pod, or cooling, is free at once; one \
                      that a container holds only with --force, and then it cools first."
    )]
    Release {
        /// The addresses
        #[arg(value_name = "ADDRESS", required_unless_present = "owner")]
        addresses: Vec<IpAddr>,
        /// All addresses of an owner, named as `ipam show` does: ordinal:shop/gw/0
        #[arg(long, value_name = "OWNER", conflicts_with = "addresses", value_parser = whole_owner)]
        owner: Option<Owner>,
        /// Also what a container holds
        #[arg(long)]
        force: bool,
    },
}

/// Does what the arguments say: what is printed, and whether all is well. Errors are sentences.
///
/// # Errors
/// If there is no state directory, it cannot be read, or an address cannot be released.
pub fn run(common: &Common, args: &IpamArgs) -> Result<(String, bool), Refused> {
    if let Some(cluster) = common.cluster()? {
        return Ok(of_cluster(common, &cluster, args)?);
    }
    of_directory(common, args)
}

fn of_cluster(common: &Common, cluster: &Cluster, args: &IpamArgs) -> Result<(String, bool), String> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    match &args.verb {
        Verb::Show { pool } => {
            let report = cluster::show(cluster, pool.as_deref(), now)?;
            Ok((written(&report, common.output, IpamReport::text)?, true))
        }
        Verb::Check { grace } => {
            let report = cluster::check(cluster, *grace, now)?;
            Ok((written(&report, common.output, verdict)?, report.problems.is_empty()))
        }
        Verb::Release { addresses, owner, force } => {
            let freed = cluster::release(cluster, addresses, owner.as_ref(), *force, now)?;
            let pools: Vec<Pool> = cluster.objects.pools().map(|(_, pool)| pool).collect();
            Ok((given_back(&freed, &pools, now, common.output)?, true))
        }
    }
}

fn of_directory(common: &Common, args: &IpamArgs) -> Result<(String, bool), Refused> {
    let config = common.of_present_node()?;
    let dir = Dir::at(&config.state_dir).map_err(|e| e.to_string())?;
    must_be_one(&dir)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    match &args.verb {
        Verb::Show { pool } => {
            let report = show(&dir, pool.as_deref(), now)?.never_leased(&unservable(&config, &dir)?);
            Ok((written(&report, common.output, IpamReport::text)?, true))
        }
        Verb::Check { grace } => {
            let report = check(&dir, &config, *grace, now)?;
            let well = report.problems.is_empty();
            Ok((written(&report, common.output, verdict)?, well))
        }
        Verb::Release { addresses, owner, force } => {
            // It is there; a part of it may not be, as `cache/`, which anybody may delete.
            let dir = Dir::open(dir.path()).map_err(|e| e.to_string())?;
            let freed = release(&dir, addresses, owner.as_ref(), *force, &config, now)?;
            let pools: Vec<Pool> =
                objects(&dir)?.map(|o| o.pools().map(|(_, p)| p).collect()).unwrap_or_default();
            Ok((given_back(&freed, &pools, now, common.output)?, true))
        }
    }
}

/// An owner in one of the forms that `ipam show` writes.
fn whole_owner(text: &str) -> Result<Owner, String> {
    let Ok(owner) = text.parse();
    let whole = text.split_once(':').is_some_and(|(_, rest)| rest.split('/').all(|part| !part.is_empty()));
    if whole && !matches!(owner, Owner::Other(_)) {
        return Ok(owner);
    }
    Err("an owner is pod:UID, ordinal:NAMESPACE/STATEFULSET/NUMBER, slot:NAMESPACE/GATEWAY/NUMBER or container:NODE/NETWORK/ID/INTERFACE, \
         as `egret ipam show` names them"
        .to_owned())
}

fn written(report: &IpamReport, output: Output, text: fn(&IpamReport) -> String) -> Result<String, String> {
    match output {
        Output::Text => Ok(text(report)),
        Output::Json => json(report),
    }
}

fn json(value: &impl serde::Serialize) -> Result<String, String> {
    let text = serde_json::to_string_pretty(value).map_err(|e| format!("cannot write JSON: {e}"))?;
    Ok(text + "\n")
}

fn verdict(report: &IpamReport) -> String {
    let count = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
    let seen = format!(
        "{}, {}, {}",
        count(report.pools.len(), "pool"),
        count(report.blocks.len(), "block"),
        count(report.items.len(), "lease"),
    );
    match report.problems.len() {
        0 => format!("{seen}: nothing wrong\n"),
        n => {
            let lines: String = report.problems.iter().map(|problem| format!("{problem}\n")).collect();
            format!("{lines}\n{seen}: {}\n", count(n, "problem"))
        }
    }
}

/// Everything that the state directory says of leases, at one moment.
struct Seen {
    pools: Vec<Pool>,
    blocks: Vec<Block>,
    problems: Vec<Problem>,
}

impl Seen {
    /// Leaves one pool alone; whether there is anything of it.
    fn narrow(&mut self, wanted: &str) -> bool {
        self.pools.retain(|pool| pool.name == wanted);
        self.blocks.retain(|block| block.pool == wanted);
        let folder = Path::new("ipam").join(record::file_name(wanted));
        self.problems.retain(|problem| {
            Path::new(&problem.file).starts_with(&folder) || kind_and_name(problem).1 == wanted
        });
        !(self.pools.is_empty() && self.blocks.is_empty() && self.problems.is_empty())
    }
}

/// An empty answer is no answer about a directory that is not mounted, or about a folder of manifests.
fn must_be_one(dir: &Dir) -> Result<(), Refused> {
    let folder = dir.path().display();
    for part in [dir.objects(), dir.ipam()] {
        match part.try_exists() {
            Ok(true) => return Ok(()),
            Ok(false) => {}
            Err(e) => {
                return Err(Refused::failed(format!("cannot read {}: {e}{}", part.display(), advice(&e))));
            }
        }
    }
    Err(Refused::misused(format!(
        "there is neither a folder `objects` nor `ipam` in {folder}; name a state directory with --state, or run the plugin once"
    )))
}

fn look(dir: &Dir) -> Result<Seen, String> {
    let mut seen = Seen {
        pools: objects(dir)?.map(|o| o.pools().map(|(_, p)| p).collect()).unwrap_or_default(),
        blocks: Vec::new(),
        problems: Vec::new(),
    };
    for path in record::files(&dir.ipam()).map_err(|e| e.to_string())? {
        if !path.is_dir() {
            let file = path.strip_prefix(dir.path()).unwrap_or(&path).display().to_string();
            seen.problems
                .push(Problem::new("", "Foreign", "this file belongs to no pool: move it away").file(file));
        }
    }
    let (pools, nameless) = pools_in(dir).map_err(|e| e.to_string())?;
    seen.problems.extend(nameless);
    for pool in pools {
        let (blocks, problems) = blocks_in(dir, &pool).map_err(|e| e.to_string())?;
        seen.blocks.extend(blocks);
        seen.problems.extend(problems);
    }
    Ok(seen)
}

/// The user's objects; a state directory without a folder for them has none.
fn objects(dir: &Dir) -> Result<Option<Objects>, String> {
    match Objects::look(dir.path()) {
        Ok(objects) => Ok(Some(objects)),
        Err(ObjectsError::Missing(_)) => Ok(None),
        Err(error) => Err(error.to_string()),
    }
}

/// What is wrong with pools, and with files that may hold some: who looks for a pool that is not shown finds it here.
fn unusable_pools(dir: &Dir) -> Result<Vec<Problem>, String> {
    Ok(of_pools(objects(dir)?.map(|objects| objects.problems()).unwrap_or_default()))
}

/// What is wrong with pools, or with something that may be one.
fn of_pools(mut problems: Vec<Problem>) -> Vec<Problem> {
    problems.retain(|problem| matches!(kind_and_name(problem).0, "" | "EgressPool" | "IPPool"));
    problems
}

fn kind_and_name(problem: &Problem) -> (&str, &str) {
    problem.object.split_once(' ').unwrap_or((&problem.object, ""))
}

/// Pools, blocks and leases, of one pool or of all. Needs no lock.
///
/// # Errors
/// If the directory cannot be read, or has no such pool.
pub fn show(dir: &Dir, pool: Option<&str>, now: u64) -> Result<IpamReport, String> {
    let mut seen = look(dir)?;
    seen.problems.extend(unusable_pools(dir)?);
    if let Some(wanted) = pool
        && !seen.narrow(wanted)
    {
        return Err(format!("there is no pool {wanted} in {}", dir.path().display()));
    }
    Ok(IpamReport::new(&seen.pools, &seen.blocks, seen.problems, now))
}

/// What this node knows of addresses that would serve nobody. Who may not look at devices learns of leases all the same.
fn unservable(config: &Config, dir: &Dir) -> Result<BTreeMap<IpAddr, String>, String> {
    let nodes = objects(dir)?.map(|objects| objects.nodes().collect()).unwrap_or_default();
    let node = Embedded::look(config).map_err(|e| e.to_string())?;
    Ok(node.unservable(&nodes).unwrap_or_default())
}

/// As [`show`], with everything that is wrong. Takes the store's lock, so that it sees no ADD half done, and writes nothing, so a copy that
/// is mounted read-only will do.
///
/// # Errors
/// If the lock is not had, or the directory cannot be read.
pub fn check(dir: &Dir, config: &Config, grace: u64, now: u64) -> Result<IpamReport, String> {
    let timeout = Duration::from_millis(config.lock_timeout);
    let lock = dir.path().join("lock");
    let _guard = wait_for_writers(&lock, timeout).map_err(|e| e.to_string())?;
    let mut seen = look(dir)?;
    let (endpoints, torn) = endpoints::list(dir).map_err(|e| e.to_string())?;
    seen.problems.extend(torn);
    let (_, torn) = nodes::list(dir).map_err(|e| e.to_string())?;
    seen.problems.extend(torn);

    // Single machines have no Node objects: then nobody says which nodes exist.
    let known: BTreeSet<String> =
        objects(dir)?.map(|o| o.nodes().map(|(name, _)| name).collect()).unwrap_or_default();
    let node = node_name(config).map_err(|e| e.to_string())?;
    let attachments = attachments(config, &node)?;
    let books = Books {
        blocks: &seen.blocks,
        pools: &seen.pools,
        endpoints: &endpoints,
        nodes: Some(&known).filter(|known| !known.is_empty()),
        attachments: attachments.as_ref().map(|all| (node.as_str(), all)),
        now,
        grace,
    };
    seen.problems.extend(audit(&books));
    Ok(IpamReport::new(&seen.pools, &seen.blocks, seen.problems, now))
}

/// This node's attachments; `None` if no plugin ever ran here.
fn attachments(config: &Config, node: &str) -> Result<Option<BTreeSet<String>>, String> {
    let records = Attachments::of_node(&config.run_dir, node);
    if !records.folder().is_dir() {
        return Ok(None);
    }
    let list = records.list(None).map_err(|e| format!("cannot read {}: {e}", records.folder().display()))?;
    let whole = list.attachments.iter().map(|a| a.id().to_string());
    // A torn record still says by its name that there is an attachment.
    Ok(Some(whole.chain(list.torn.iter().map(|(id, _)| id.to_string())).collect()))
}

/// Gives addresses back, or all of an owner.
///
/// # Errors
/// If the lock is not had, there is nothing to give back, or a container holds it and `force` is not said; then nothing was.
pub fn release(
    dir: &Dir,
    addresses: &[IpAddr],
    owner: Option<&Owner>,
    force: bool,
    config: &Config,
    now: u64,
) -> Result<Vec<Freed>, String> {
    let timeout = Duration::from_millis(config.lock_timeout);
    let guard = dir.lock("egret ipam release", timeout).map_err(|e| e.to_string())?;
    release_from(&DirStore::under(dir, &guard), addresses, owner, force, now)
}

/// All of them or none: what one of them lacks is found before anything is written.
fn release_from(
    store: &dyn Store,
    addresses: &[IpAddr],
    owner: Option<&Owner>,
    force: bool,
    now: u64,
) -> Result<Vec<Freed>, String> {
    let addresses: BTreeSet<IpAddr> = addresses.iter().copied().collect();
    let mut held = BTreeMap::new();
    for pool in store.pools().map_err(|e| e.to_string())? {
        let summary = store.summary(&pool).map_err(|e| e.to_string())?;
        let asked = addresses.iter().filter_map(|ip| Some((summary.block_of(*ip)?, *ip)));
        for (block, ip) in asked.chain(owner.into_iter().flat_map(|owner| summary.of_owner(owner))) {
            let read = store.read(&pool, block).map_err(|e| e.to_string())?;
            let found = read.and_then(|(block, _)| block.allocations.get(&ip).cloned());
            if let Some(a) = found.filter(|a| owner.is_none_or(|owner| a.owner == *owner)) {
                held.insert(ip, a.holder);
            }
        }
    }
    if let Some(address) = addresses.iter().find(|ip| !held.contains_key(*ip)) {
        return Err(IpamError::Unknown(address.to_string()).to_string());
    }
    let first = held.iter().find_map(|(ip, holder)| holder.clone().map(|holder| (*ip, Box::new(holder))));
    if let Some((address, holder)) = first.filter(|_| !force) {
        return Err(IpamError::Held { address, holder }.to_string());
    }
    let mut freed = Vec::new();
    if let Some(owner) = owner {
        freed.extend(release_owner(store, owner, force, now).map_err(|e| e.to_string())?);
    }
    for address in addresses {
        freed.push(release_address(store, address, force, now).map_err(|e| e.to_string())?);
    }
    Ok(freed)
}

fn given_back(freed: &[Freed], pools: &[Pool], now: u64, output: Output) -> Result<String, String> {
    match output {
        Output::Text => Ok(freed
            .iter()
            .map(|one| {
                let Freed { ip, pool, owner, .. } = one;
                let then = match now_is(one, pools, now) {
                    State::Cooling => "; it cools before anybody gets it",
                    _ => "",
                };
                format!("{ip} of pool {pool} is no longer kept for {owner}{then}\n")
            })
            .collect()),
        Output::Json => json(&IpamRelease::of(freed, pools, now)),
    }
}

#[cfg(test)]
mod tests;
