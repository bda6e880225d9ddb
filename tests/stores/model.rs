//! Random claims, releases, clean-ups, restarts, crashes and raced writers; after each, the books are held against the
//! rules: no address twice, none lost, an owner keeps its address, a late DEL frees nothing.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use egret::addr::Cidr;
use egret::egress::model::Pool;
use egret::ipam::{
    After, Allocation, Block, DirStore, Holder, IpamError, Owner, State, Store, StoreError, Summary,
    forget_node, forget_owners, release, retain,
};
use egret::store::{Swap, Version};
use egret::testbed::MemoryStore;
use proptest::prelude::*;

use crate::world::*;

/// One thing that happens.
#[derive(Debug, Clone)]
enum Event {
    Claim {
        owner: u8,
        container: u8,
        node: u8,
        second_pool_first: bool,
    },
    Delete {
        container: u8,
        node: u8,
    },
    CleanUp {
        node: u8,
        live: u8,
    },
    OwnersGo {
        owner: u8,
    },
    /// Its Node object is deleted.
    NodeGoes {
        node: u8,
    },
    /// A node gets an address of the first pool, or gives it up.
    NodeMoves {
        address: u8,
    },
    Wait {
        seconds: u8,
    },
    Restart,
    /// The next event's process dies at its nth write: before it, or just after.
    Crash {
        write: u8,
        after: bool,
    },
    /// Between the next event's reading and its writing, somebody else claims.
    Race {
        owner: u8,
        container: u8,
        node: u8,
    },
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        8 => (0u8..12, 0u8..20, 0u8..3, any::<bool>()).prop_map(|(owner, container, node, second_pool_first)| {
            Event::Claim { owner, container, node, second_pool_first }
        }),
        5 => (0u8..20, 0u8..3).prop_map(|(container, node)| Event::Delete { container, node }),
        1 => (0u8..3, 0u8..20).prop_map(|(node, live)| Event::CleanUp { node, live }),
        1 => (0u8..12).prop_map(|owner| Event::OwnersGo { owner }),
        1 => (0u8..3).prop_map(|node| Event::NodeGoes { node }),
        1 => (0u8..4).prop_map(|address| Event::NodeMoves { address }),
        2 => (0u8..90).prop_map(|seconds| Event::Wait { seconds }),
        1 => Just(Event::Restart),
        2 => (0u8..2, any::<bool>()).prop_map(|(write, after)| Event::Crash { write, after }),
        2 => (0u8..12, 0u8..20, 0u8..3).prop_map(|(owner, container, node)| Event::Race { owner, container, node }),
    ]
}

/// A third of the owners are ordinals, the others pods.
fn owner_name(n: u8) -> String {
    if n.is_multiple_of(3) { format!("ordinal:shop/gw/{n}") } else { format!("pod:{n}") }
}

/// What somebody else does in between.
type Rival<'a> = Box<dyn FnOnce(&dyn Store) + 'a>;

/// A store in which somebody else may be faster, and in which the process may die.
struct Unkind<'a> {
    inner: &'a dyn Store,
    dies_at: Cell<Option<(u8, bool)>>,
    rival: RefCell<Option<Rival<'a>>>,
}

fn died() -> StoreError {
    StoreError::Io {
        verb: "survive",
        what: "a write".to_owned(),
        source: std::io::ErrorKind::Interrupted.into(),
    }
}

impl Store for Unkind<'_> {
    fn pools(&self) -> Result<Vec<String>, StoreError> {
        self.inner.pools()
    }
    fn summary(&self, pool: &str) -> Result<Arc<Summary>, StoreError> {
        self.inner.summary(pool)
    }
    fn refresh(&self, pool: &str) -> Result<(), StoreError> {
        self.inner.refresh(pool)
    }
    fn read(&self, pool: &str, block: Cidr) -> Result<Option<(Block, Version)>, StoreError> {
        self.inner.read(pool, block)
    }
    fn swap(&self, block: &Block, seen: Option<Version>) -> Result<Swap, StoreError> {
        if let Some(rival) = self.rival.take() {
            rival(self.inner);
        }
        match self.dies_at.get() {
            Some((0, false)) => Err(died()),
            Some((0, true)) => self.inner.swap(block, seen).and_then(|_| Err(died())),
            Some((n, after)) => {
                self.dies_at.set(Some((n - 1, after)));
                self.inner.swap(block, seen)
            }
            None => self.inner.swap(block, seen),
        }
    }
}

type Books = BTreeMap<(String, IpAddr), Allocation>;

struct World<'a> {
    pools: [Pool; 2],
    /// Addresses that would serve nobody.
    bad: BTreeMap<IpAddr, String>,
    now: u64,
    restart: &'a dyn Fn(),
}

impl World<'_> {
    fn pools(&self) -> [&Pool; 2] {
        [&self.pools[0], &self.pools[1]]
    }

    fn state(&self, a: &Allocation) -> State {
        a.state(self.now, 60)
    }

    /// What the owner has and may keep, the best state only.
    fn own(&self, books: &Books, owner: &Owner) -> (State, Vec<(String, IpAddr)>) {
        let may_keep = |ip: &IpAddr| !self.bad.contains_key(ip);
        let mine = || books.iter().filter(|((_, ip), a)| a.owner == *owner && may_keep(ip));
        let best = mine().map(|(_, a)| self.state(a)).max().unwrap_or(State::Free);
        (best, mine().filter(|(_, a)| self.state(a) == best).map(|(k, _)| k.clone()).collect())
    }

    fn happens(
        &mut self,
        inner: &dyn Store,
        event: &Event,
        crash: Option<(u8, bool)>,
        race: Option<(u8, u8, u8)>,
    ) {
        let before = books(inner, &self.pools());
        let (pools, bad) = (self.pools.clone(), self.bad.clone());
        let now = self.now;
        let rivals = RefCell::new(None);
        let mut unkind = Unkind { inner, dies_at: Cell::new(crash), rival: RefCell::new(None) };
        if let Some((owner, container, node)) = race {
            let rivals = &rivals;
            unkind.rival = RefCell::new(Some(Box::new(move |store: &dyn Store| {
                let tenant = tenant(&owner_name(owner), &node_name(node), &format!("r{container}"));
                let pools = [&pools[0], &pools[1]];
                *rivals.borrow_mut() = ask_beside(store, &pools, tenant, None, &bad, now).ok();
            })));
        }
        let undisturbed = race.is_none() && crash.is_none();
        match event {
            Event::Claim { owner, container, node, second_pool_first } => {
                let tenant = tenant(&owner_name(*owner), &node_name(*node), &format!("c{container}"));
                let mut order = self.pools();
                order[..].rotate_left(usize::from(*second_pool_first));
                let result = ask_beside(&unkind, &order, tenant.clone(), None, &self.bad, now);
                let after = books(inner, &self.pools());
                self.no_address_is_lost(&before, &after);
                match result {
                    Ok(claimed) => {
                        let key = (claimed.lease.pool, claimed.lease.ip);
                        assert_eq!(
                            (&after[&key].owner, after[&key].holder.as_ref()),
                            (&tenant.owner, Some(&tenant.holder))
                        );
                        assert!(!self.bad.contains_key(&key.1), "{} serves nobody and was given", key.1);
                        if undisturbed {
                            self.a_claim_is_right(&before, &after, &key, &tenant.owner);
                        }
                    }
                    Err(IpamError::Full { .. }) if undisturbed => {
                        let (state, own) = self.own(&before, &tenant.owner);
                        assert!(own.is_empty() || state == State::Free, "refused its own address");
                        let given = before.iter().filter(|(_, a)| self.state(a) != State::Free);
                        let useful = given.filter(|((_, ip), _)| !self.bad.contains_key(ip));
                        let busy = useful.count() + self.bad.len();
                        let size: u128 = self.pools.iter().map(|p| p.cidr.size()).sum();
                        assert_eq!(busy as u128, size, "refused although there is room");
                    }
                    Err(error) => assert!(!undisturbed, "{error}"),
                }
            }
            Event::Delete { container, node } => {
                let gone = holder(&node_name(*node), &format!("c{container}"));
                let result = release(&unkind, &gone, After::Owner, now);
                let after = books(inner, &self.pools());
                if race.is_none() {
                    self.only_changed(&before, &after, |a| a.holder.as_ref() == Some(&gone));
                }
                if crash.is_none() {
                    assert!(race.is_some() || !after.values().any(|a| a.holder.as_ref() == Some(&gone)));
                    assert!(result.is_ok());
                }
            }
            Event::CleanUp { node, live } => {
                let node = node_name(*node);
                let fate =
                    |h: &Holder, _: &Owner| (h.container != format!("c{live}")).then_some(After::Owner);
                let _ = retain(&unkind, Some("net"), &node, now, &fate);
                let after = books(inner, &self.pools());
                if race.is_none() {
                    let dead = |h: &Holder| h.node == node && h.container != format!("c{live}");
                    self.only_changed(&before, &after, |a| a.holder.as_ref().is_some_and(dead));
                }
            }
            Event::OwnersGo { owner: n } => {
                let gone = owner(&owner_name(*n));
                let _ = forget_owners(&unkind, &|o| *o == gone, now);
                let after = books(inner, &self.pools());
                if race.is_none() {
                    self.only_changed(&before, &after, |a| {
                        a.owner == gone && self.state(a) == State::Reserved
                    });
                }
            }
            Event::NodeGoes { node } => {
                let node = node_name(*node);
                let result = forget_node(&unkind, &node, now);
                let after = books(inner, &self.pools());
                let of_it = |a: &Allocation| a.holder.as_ref().is_some_and(|h| h.node == node);
                if race.is_none() {
                    self.only_changed(&before, &after, of_it);
                }
                if undisturbed {
                    assert!(result.is_ok() && !after.values().any(of_it));
                }
            }
            Event::NodeMoves { address } => {
                let ip = self.pools[0].cidr.nth(u128::from(*address)).unwrap();
                if self.bad.remove(&ip).is_none() {
                    self.bad.extend(of_node(&[&ip.to_string()]));
                }
            }
            Event::Wait { seconds } => self.now += u64::from(*seconds),
            Event::Restart => (self.restart)(),
            Event::Crash { .. } | Event::Race { .. } => {}
        }
        let after = books(inner, &self.pools());
        self.an_owner_has_one(&after);
        // Whoever was faster has what it was given; unless it was its node that was cleaned up, or went, just then.
        if let (Some(rival), false) =
            (rivals.take(), matches!(event, Event::CleanUp { .. } | Event::NodeGoes { .. }))
        {
            let a = &after[&(rival.lease.pool, rival.lease.ip)];
            assert_eq!(
                (&a.owner, a.holder.as_ref()),
                (&rival.lease.tenant.owner, Some(&rival.lease.tenant.holder))
            );
        }
    }

    /// Nobody lost an address that was in use or kept: whoever had one has it still, or took it over itself.
    fn no_address_is_lost(&self, before: &Books, after: &Books) {
        for (key, old) in before.iter().filter(|(_, a)| self.state(a) >= State::Cooling) {
            assert_eq!(after[key].owner, old.owner, "{key:?} was given to another owner");
        }
    }

    fn a_claim_is_right(&self, before: &Books, after: &Books, key: &(String, IpAddr), owner: &Owner) {
        let (state, own) = self.own(before, owner);
        if state > State::Free || !own.is_empty() {
            assert!(own.contains(key), "{owner} had {own:?} ({state}) and got {key:?}");
        }
        if let Some(old) = before.get(key) {
            assert!(old.owner == *owner || self.state(old) == State::Free);
            assert!(after[key].sequence >= old.sequence);
        }
        let others = |books: &Books| {
            let mut books = books.clone();
            books.remove(key);
            // What the owner may not keep goes back.
            books.retain(|(_, ip), a| a.owner != *owner || !self.bad.contains_key(ip));
            books
        };
        assert_eq!(others(before), others(after), "a claim changed more than its own address");
        let lost = after.iter().filter(|((_, ip), a)| a.owner == *owner && self.bad.contains_key(ip));
        assert!(
            lost.into_iter().all(|(_, a)| self.state(a) < State::Reserved),
            "{owner} keeps what is of no use"
        );
    }

    fn only_changed(&self, before: &Books, after: &Books, allowed: impl Fn(&Allocation) -> bool) {
        for (key, old) in before {
            assert!(
                after.get(key) == Some(old) || allowed(old),
                "{key:?} changed: {old:?} → {:?}",
                after.get(key)
            );
            assert_eq!(after[key].owner, old.owner);
        }
        assert_eq!(before.len(), after.len());
    }

    fn an_owner_has_one(&self, books: &Books) {
        let mut seen = BTreeMap::new();
        for (key, a) in books.iter().filter(|(_, a)| self.state(a) >= State::Reserved) {
            if let Some(other) = seen.insert(a.owner.clone(), key) {
                panic!("{} has both {other:?} and {key:?}", a.owner);
            }
        }
    }
}

fn node_name(n: u8) -> String {
    ["one", "two", "three"][usize::from(n)].to_owned()
}

fn run(store: &dyn Store, events: &[Event], restart: &dyn Fn(), raced: bool) {
    let pools = [pool("a", "10.0.0.0/30", 31), pool("b", "10.0.1.0/31", 32)];
    let mut world = World { pools, bad: BTreeMap::new(), now: 1000, restart };
    let (mut crash, mut race) = (None, None);
    for event in events {
        match event {
            Event::Crash { write, after } => crash = Some((*write, *after)),
            // One owner is served by one process at a time (see the module); so a rival claims for another owner.
            Event::Race { owner, container, node } if raced => race = Some((*owner, *container, *node)),
            Event::Race { .. } => {}
            event => {
                let mut race = race.take();
                if let (Event::Claim { owner, .. }, Some(rival)) = (event, race)
                    && *owner == rival.0
                {
                    race = None;
                }
                world.happens(store, event, crash.take(), race);
            }
        }
    }
}

/// `PROPTEST_CASES`, else this many. proptest itself would not ask the environment where a number is given.
fn cases(otherwise: u32) -> ProptestConfig {
    let asked = std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok());
    ProptestConfig::with_cases(asked.unwrap_or(otherwise))
}

proptest! {
    #![proptest_config(cases(400))]
    #[test]
    fn the_rules_hold_in_memory(events in prop::collection::vec(event(), 1..80)) {
        run(&MemoryStore::new(), &events, &|| {}, true);
    }
}

proptest! {
    #![proptest_config(cases(16))]
    #[test]
    fn the_rules_hold_in_a_directory(events in prop::collection::vec(event(), 1..60)) {
        let scratch = Scratch::new();
        let wipe = || for pool in ["a", "b"] {
            let _ = std::fs::remove_file(scratch.dir.cache().join(format!("ipam-{pool}.summary")));
        };
        run(&scratch.store(), &events, &wipe, true);
    }

    #[test]
    fn the_rules_hold_under_a_held_lock(events in prop::collection::vec(event(), 1..60)) {
        let scratch = Scratch::new();
        let guard = scratch.dir.lock("test", std::time::Duration::ZERO).unwrap();
        run(&DirStore::under(&scratch.dir, &guard), &events, &|| {}, false);
    }
}
