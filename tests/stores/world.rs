//! Three-line builders: pools, owners, containers, and a state directory that is gone afterwards.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use egret::addr::{Cidr, Mac};
use egret::egress::model::{Endpoint, EndpointState, PodName, Pool};
use egret::ipam::{
    Allocation, Block, Claim, Claimed, DirStore, Holder, IpamError, Owner, Store, StoreError, Summary,
    Tenant, claim,
};
use egret::store::{Dir, Swap, Version};
use egret::testbed::MemoryStore;

/// A pool with the defaults of an `EgressPool`.
pub(crate) fn pool(name: &str, cidr: &str, block_size: u8) -> Pool {
    Pool::new(name, cidr.parse().unwrap(), block_size)
}

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(crate) fn owner(text: &str) -> Owner {
    let Ok(owner) = text.parse();
    owner
}

pub(crate) fn holder(node: &str, container: &str) -> Holder {
    Holder {
        network: "net".to_owned(),
        container: container.to_owned(),
        ifname: "eth0".to_owned(),
        node: node.to_owned(),
    }
}

pub(crate) fn tenant(of: &str, node: &str, container: &str) -> Tenant {
    Tenant { owner: owner(of), holder: holder(node, container), pod: None }
}

/// The endpoint of a container.
pub(crate) fn gateway(holder: &Holder) -> Endpoint {
    Endpoint {
        pod: PodName::new("shop", "gw-0"),
        uid: None,
        attachment: holder.attachment(),
        node: holder.node.clone(),
        underlay: Vec::new(),
        vni: 5001,
        mac: Mac::default(),
        addresses: Vec::new(),
        state: EndpointState::Ready,
        generation: 1,
        problems: Vec::new(),
    }
}

/// Claims from these pools, which are all there are.
pub(crate) fn ask(
    store: &dyn Store,
    pools: &[&Pool],
    tenant: Tenant,
    now: u64,
) -> Result<Claimed, IpamError> {
    ask_beside(store, pools, tenant, None, &BTreeMap::new(), now)
}

/// Claims one certain address.
pub(crate) fn ask_for(
    store: &dyn Store,
    pools: &[&Pool],
    tenant: Tenant,
    address: &str,
    now: u64,
) -> Result<Claimed, IpamError> {
    ask_beside(store, pools, tenant, Some(ip(address)), &BTreeMap::new(), now)
}

/// Claims where some addresses would serve nobody.
pub(crate) fn ask_beside(
    store: &dyn Store,
    pools: &[&Pool],
    tenant: Tenant,
    address: Option<IpAddr>,
    unservable: &BTreeMap<IpAddr, String>,
    now: u64,
) -> Result<Claimed, IpamError> {
    let (in_use, nodes, endpoints) = (&BTreeMap::new(), None, &[]);
    claim(store, &Claim { tenant, pools, known: pools, address, unservable, in_use, nodes, endpoints, now })
}

/// Addresses that would serve nobody, because a node has them.
pub(crate) fn of_node(addresses: &[&str]) -> BTreeMap<IpAddr, String> {
    addresses.iter().map(|text| (ip(text), "is an address of node n itself".to_owned())).collect()
}

/// The address that a claim gives.
pub(crate) fn given(store: &dyn Store, pools: &[&Pool], tenant: Tenant, now: u64) -> String {
    ask(store, pools, tenant, now).unwrap().lease.ip.to_string()
}

/// Whether an address that somebody gave back waits for its owner, and does not rest.
pub(crate) fn is_reserved(store: &dyn Store, pool: &Pool, address: IpAddr) -> bool {
    books(store, &[pool])[&(pool.name.clone(), address)].freed_at.is_none()
}

/// Every allocation of a pool whose blocks all have the pool's block size.
pub(crate) fn books(store: &dyn Store, pools: &[&Pool]) -> BTreeMap<(String, IpAddr), Allocation> {
    let mut all = BTreeMap::new();
    for pool in pools {
        for n in 0..pool.cidr.size() {
            let address = pool.cidr.nth(n).unwrap();
            let cidr = Cidr::covering(address, pool.block_size);
            if let Some((block, _)) = store.read(&pool.name, cidr).unwrap()
                && let Some(allocation) = block.allocations.get(&address)
            {
                all.insert((pool.name.clone(), address), allocation.clone());
            }
        }
    }
    all
}

/// A state directory of this test alone.
pub(crate) struct Scratch {
    pub(crate) path: PathBuf,
    pub(crate) dir: Dir,
}

impl Scratch {
    pub(crate) fn new() -> Scratch {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("egret-stores-{}-{n}", std::process::id()));
        let dir = Dir::open(&path).unwrap();
        Scratch { path, dir }
    }

    /// A store whose every call takes the lock for itself.
    pub(crate) fn store(&self) -> ByTheCall<'_> {
        ByTheCall { dir: &self.dir, who: "test".to_owned() }
    }
}

/// A directory whose lock is taken for each single call, so that others write between any two.
pub(crate) struct ByTheCall<'a> {
    pub(crate) dir: &'a Dir,
    pub(crate) who: String,
}

impl ByTheCall<'_> {
    fn locked<T>(&self, call: impl FnOnce(&DirStore<'_>) -> T) -> T {
        let guard = self.dir.lock(&self.who, Duration::from_secs(120)).unwrap();
        call(&DirStore::under(self.dir, &guard))
    }
}

impl Store for ByTheCall<'_> {
    fn pools(&self) -> Result<Vec<String>, StoreError> {
        self.locked(|store| store.pools())
    }

    fn summary(&self, pool: &str) -> Result<Arc<Summary>, StoreError> {
        self.locked(|store| store.summary(pool))
    }

    fn refresh(&self, pool: &str) -> Result<(), StoreError> {
        self.locked(|store| store.refresh(pool))
    }

    fn read(&self, pool: &str, block: Cidr) -> Result<Option<(Block, Version)>, StoreError> {
        self.locked(|store| store.read(pool, block))
    }

    fn swap(&self, block: &Block, seen: Option<Version>) -> Result<Swap, StoreError> {
        self.locked(|store| store.swap(block, seen))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

/// Runs a story in each kind of store.
pub(crate) fn in_each_store(story: impl Fn(&dyn Store)) {
    story(&MemoryStore::new());
    let alone = Scratch::new();
    story(&alone.store());
    let under = Scratch::new();
    let guard = under.dir.lock("test", Duration::ZERO).unwrap();
    story(&DirStore::under(&under.dir, &guard));
}
