//! What `egret ipam` answers, for people and for machines.
//!
//! In: pools, blocks, problems, the time. Out: one JSON document, or aligned text. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde::Serialize;

use crate::addr::Cidr;
use crate::cli::table::{Table, age};
use crate::egress::explain::Shown;
use crate::egress::model::{PodName, Pool, PoolSource};
use crate::ipam::{Block, Fill, Freed, Holder, Owner, State, Summary};
use crate::problem::Problem;
use crate::store::record::API_VERSION;

/// The answer: leases in `items`, and the pools and blocks that they lie in.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct IpamReport {
    api_version: &'static str,
    kind: &'static str,
    /// Pools, with how full they are.
    pub pools: Vec<PoolRow>,
    /// Blocks, with who claimed them.
    pub blocks: Vec<BlockRow>,
    /// Addresses that are not free.
    pub items: Vec<LeaseRow>,
    /// Addresses of pools that are never leased.
    pub unservable: Vec<UnservableRow>,
    /// What is wrong.
    pub problems: Vec<Problem>,
}

/// An address of a pool that is never leased.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct UnservableRow {
    /// The address.
    pub address: IpAddr,
    /// The pool.
    pub pool: String,
    /// Why it would serve nobody, as far as this node knows.
    pub reason: String,
}

/// A pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct PoolRow {
    /// Its name.
    pub name: String,
    /// Its addresses; absent if there are blocks of it but no such pool.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cidr: Option<Cidr>,
    /// `PodAddress`: nothing is leased of it.
    #[serde(default, skip_serializing_if = "PoolSource::is_pool")]
    pub source: PoolSource,
    /// How many addresses; the largest number that fits 64 bits if there are more.
    pub size: u64,
    /// How many of them are in use.
    pub leased: u64,
    /// How many were freed a moment ago.
    pub cooling: u64,
    /// How many are kept for owners without a container.
    pub reserved: u64,
    /// How many blocks are claimed or were.
    pub blocks: usize,
    /// The same figures as a sentence.
    #[serde(skip)]
    fill: Fill,
}

/// A block.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct BlockRow {
    /// Its addresses.
    pub cidr: Cidr,
    /// Its pool.
    pub pool: String,
    /// The node that claimed it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub affinity: Option<String>,
    /// How many addresses are in use.
    pub leased: u64,
    /// How many were freed a moment ago.
    pub cooling: u64,
    /// How many are kept for owners without a container.
    pub reserved: u64,
    /// Changes so far.
    pub sequence: u64,
    #[serde(skip)]
    fill: Fill,
}

/// An address that is not free.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct LeaseRow {
    /// The address.
    pub address: IpAddr,
    /// Its pool.
    pub pool: String,
    /// Its block.
    pub block: Cidr,
    /// Leased, cooling or reserved.
    pub state: State,
    /// Who it is for.
    pub owner: Owner,
    /// The pod that has it, or had it last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod: Option<PodName>,
    /// Who has it now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub holder: Option<Holder>,
    /// Since when it is in this state, in Unix seconds.
    pub since: u64,
    /// The same, in seconds before now.
    pub age: u64,
    /// The block's sequence when its holder took it.
    pub sequence: u64,
}

/// The answer of `egret ipam release`.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct IpamRelease {
    api_version: &'static str,
    kind: &'static str,
    /// Addresses that were given back.
    pub items: Vec<ReleasedRow>,
    /// Empty: what cannot be given back is an error.
    pub problems: Vec<Problem>,
}

/// An address that was given back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct ReleasedRow {
    /// The address.
    pub address: IpAddr,
    /// Its pool.
    pub pool: String,
    /// Whom it was for.
    pub owner: Owner,
    /// What it is now.
    pub state: State,
}

/// What an address that was given back is now. Without its pool nobody knows the cool-down; then it counts as free, as in [`IpamReport`].
pub(super) fn now_is(freed: &Freed, pools: &[Pool], now: u64) -> State {
    let pool = pools.iter().find(|pool| pool.name == freed.pool);
    freed.state(now, pool.map_or(0, |pool| pool.cooldown_seconds))
}

impl IpamRelease {
    /// Of what was given back.
    pub fn of(freed: &[Freed], pools: &[Pool], now: u64) -> IpamRelease {
        let row = |one: &Freed| ReleasedRow {
            address: one.ip,
            pool: one.pool.clone(),
            owner: one.owner.clone(),
            state: now_is(one, pools, now),
        };
        let items = freed.iter().map(row).collect();
        IpamRelease { api_version: API_VERSION, kind: "IpamRelease", items, problems: Vec::new() }
    }
}

impl IpamReport {
    /// From everything that is known. Blocks of pools that do not exist are shown too.
    pub fn new(pools: &[Pool], blocks: &[Block], problems: Vec<Problem>, now: u64) -> IpamReport {
        let names: BTreeSet<&str> =
            pools.iter().map(|p| p.name.as_str()).chain(blocks.iter().map(|b| b.pool.as_str())).collect();
        let mut report = IpamReport {
            api_version: API_VERSION,
            kind: "IpamReport",
            pools: Vec::new(),
            blocks: Vec::new(),
            items: Vec::new(),
            unservable: Vec::new(),
            problems,
        };
        for name in names {
            let pool = pools.iter().find(|pool| pool.name == name);
            let mut of_pool: Vec<&Block> = blocks.iter().filter(|block| block.pool == name).collect();
            of_pool.sort_by_key(|block| block.cidr);
            report.add(name, pool, &of_pool, now);
        }
        report
    }

    fn add(&mut self, name: &str, pool: Option<&Pool>, blocks: &[&Block], now: u64) {
        // Without its pool nobody knows the cool-down; what was freed counts as free.
        let cooldown = pool.map_or(0, |pool| pool.cooldown_seconds);
        let summary = Summary::of(blocks.iter().copied(), []);
        let mut total = Fill { size: pool.map_or(0, |pool| pool.cidr.size()), ..Fill::default() };
        for block in blocks {
            let fill = summary.fill(block.cidr, now, cooldown);
            total.leased += fill.leased;
            total.cooling += fill.cooling;
            total.reserved += fill.reserved;
            self.blocks.push(BlockRow {
                cidr: block.cidr,
                pool: name.to_owned(),
                affinity: block.affinity.clone(),
                leased: fill.leased,
                cooling: fill.cooling,
                reserved: fill.reserved,
                sequence: block.sequence,
                fill,
            });
            for (ip, a) in &block.allocations {
                let state = a.state(now, cooldown);
                if state != State::Free {
                    self.items.push(LeaseRow {
                        address: *ip,
                        pool: name.to_owned(),
                        block: block.cidr,
                        state,
                        owner: a.owner.clone(),
                        pod: a.pod.clone(),
                        holder: a.holder.clone(),
                        since: a.since,
                        age: now.saturating_sub(a.since),
                        sequence: a.sequence,
                    });
                }
            }
        }
        self.pools.push(PoolRow {
            name: name.to_owned(),
            cidr: pool.map(|pool| pool.cidr),
            source: pool.map(|pool| pool.source).unwrap_or_default(),
            size: u64::try_from(total.size).unwrap_or(u64::MAX),
            leased: total.leased,
            cooling: total.cooling,
            reserved: total.reserved,
            blocks: blocks.len(),
            fill: total,
        });
    }

    /// Those of these addresses, each with its reason, that lie in a pool.
    pub fn never_leased(mut self, unservable: &BTreeMap<IpAddr, String>) -> IpamReport {
        for pool in self.pools.iter().filter(|pool| pool.source.is_pool()) {
            let Some(cidr) = pool.cidr else { continue };
            for (address, reason) in unservable.range(cidr.first()..=cidr.last()) {
                let (pool, reason) = (pool.name.clone(), reason.clone());
                self.unservable.push(UnservableRow { address: *address, pool, reason });
            }
        }
        self
    }

    /// For people: four tables and the problems, whatever of them is not empty.
    pub fn text(&self) -> String {
        let mut pools = Table::new(&["POOL", "CIDR", "BLOCKS", "FILL"]);
        for pool in &self.pools {
            let cidr = pool.cidr.map_or_else(|| "(no such pool)".to_owned(), |cidr| cidr.to_string());
            let fill = match pool.cidr {
                Some(_) if !pool.source.is_pool() => "pods' own addresses, none leased".to_owned(),
                Some(_) => pool.fill.to_string(),
                None => format!("{} leased, {} reserved", pool.leased, pool.reserved),
            };
            pools.row([pool.name.clone(), cidr, pool.blocks.to_string(), fill]);
        }
        let mut blocks = Table::new(&["BLOCK", "POOL", "NODE", "FILL"]);
        for block in &self.blocks {
            let node = block.affinity.clone().unwrap_or_default();
            blocks.row([block.cidr.to_string(), block.pool.clone(), node, block.fill.to_string()]);
        }
        let mut leases =
            Table::new(&["ADDRESS", "POOL", "STATE", "SINCE", "OWNER", "POD", "NODE", "HOLDER", "SEQ"]);
        for lease in &self.items {
            leases.row([
                lease.address.to_string(),
                lease.pool.clone(),
                lease.state.to_string(),
                age(lease.age),
                shorter(&lease.owner.to_string()),
                lease.pod.as_ref().map(ToString::to_string).unwrap_or_default(),
                lease.holder.as_ref().map(|h| h.node.clone()).unwrap_or_default(),
                lease.holder.as_ref().map(|h| shorter(&h.attachment())).unwrap_or_default(),
                lease.sequence.to_string(),
            ]);
        }
        let mut unservable = Table::new(&["NEVER LEASED", "POOL", "WHY"]);
        for row in &self.unservable {
            unservable.row([row.address.to_string(), row.pool.clone(), row.reason.clone()]);
        }
        let tables = [pools, blocks, leases, unservable].into_iter().filter(|table| !table.is_empty());
        let mut parts: Vec<String> = tables.map(|table| table.to_string()).collect();
        if !self.problems.is_empty() {
            parts.push(self.problems.iter().map(|problem| format!("{}\n", Shown(problem))).collect());
        }
        if parts.is_empty() { "no pools, no leases\n".to_owned() } else { parts.join("\n") }
    }
}

/// Container ids have 64 digits, of which 12 tell them apart, as elsewhere. Machines get them whole.
fn shorter(name: &str) -> String {
    let part = |part: &str| {
        let id = part.len() == 64 && part.bytes().all(|b| b.is_ascii_hexdigit());
        if id { part[..12].to_owned() } else { part.to_owned() }
    };
    name.split('/').map(part).collect::<Vec<_>>().join("/")
}
