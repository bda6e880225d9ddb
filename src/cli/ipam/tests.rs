//! `egret ipam` on a directory of its own.

use std::cell::RefCell;
use std::sync::Arc;

use super::*;
use crate::addr::Cidr;
use crate::egress::model::PodName;
use crate::ipam::{After, Claim, Holder, StoreError, Summary, Tenant, claim, release as let_go};
use crate::store::dir::tests::scratch;
use crate::store::endpoints::tests::endpoint;
use crate::store::{Swap, Version};

const NOW: u64 = 1_000_000;

fn holder(container: &str) -> Holder {
    let [network, ifname, node] = ["net", "eth0", "one"].map(str::to_owned);
    Holder { network, container: container.to_owned(), ifname, node }
}

/// Two gateways in a pool of four: one runs, one is a StatefulSet's pod that is away.
fn world(root: &Path) -> (Dir, Config) {
    let dir = Dir::open(root.join("state")).unwrap();
    let pool = "apiVersion: egret.dev/v1alpha1\nkind: EgressPool\nmetadata: {name: egress}\nspec: {cidr: 10.10.10.0/30}\n";
    std::fs::write(dir.objects().join("pool.yaml"), pool).unwrap();
    let config = Config {
        state_dir: dir.path().to_owned(),
        run_dir: root.join("run"),
        node_name: Some("one".to_owned()),
        ..Config::default()
    };
    let pool = objects(&dir).unwrap().unwrap().pools().next().unwrap().1;
    let guard = dir.lock("test", Duration::ZERO).unwrap();
    let store = DirStore::under(&dir, &guard);
    let owners =
        [("pod:8a6e", "0a".repeat(32)), ("ordinal:shop/gw/0", "c2".to_owned()), ("pod:77", "c3".to_owned())];
    for (n, (owner, container)) in owners.iter().enumerate() {
        let Ok(owner) = owner.parse();
        let pod = Some(PodName::new("shop", format!("gw-{n}")));
        let tenant = Tenant { owner, holder: holder(container), pod };
        let pools = [&pool];
        claim(
            &store,
            &Claim {
                tenant,
                pools: &pools,
                known: &pools,
                address: None,
                unservable: &BTreeMap::new(),
                in_use: &BTreeMap::new(),
                nodes: None,
                endpoints: &[],
                now: NOW - 7200,
            },
        )
        .unwrap();
    }
    let_go(&store, &holder("c2"), After::Owner, NOW - 300).unwrap();
    let_go(&store, &holder("c3"), After::Owner, NOW - 20).unwrap();
    let mut gateway = endpoint(&holder(&"0a".repeat(32)).attachment(), "one", &["10.10.10.2"]);
    gateway.pod = PodName::new("shop", "gw-0");
    endpoints::put(&dir, &guard, &gateway).unwrap();
    drop(guard);
    (dir, config)
}

#[test]
fn show_says_who_has_what_and_how_full_it_is() {
    let (root, _clean) = scratch();
    let (dir, _) = world(&root);
    let report = show(&dir, None, NOW).unwrap();
    assert_eq!(
        report.text(),
        "\
POOL    CIDR           BLOCKS  FILL
egress  10.10.10.0/30       2  1 of 4 leased, 1 cooling, 1 reserved

BLOCK          POOL    NODE  FILL
10.10.10.0/31  egress  one   0 of 2 leased, 1 cooling, 0 reserved
10.10.10.2/31  egress  one   1 of 2 leased, 0 cooling, 1 reserved

ADDRESS     POOL    STATE     SINCE  OWNER              POD        NODE  HOLDER                 SEQ
10.10.10.0  egress  cooling   20s    pod:77             shop/gw-2  -     -                        1
10.10.10.2  egress  leased    2h     pod:8a6e           shop/gw-0  one   net/0a0a0a0a0a0a/eth0    1
10.10.10.3  egress  reserved  5m     ordinal:shop/gw/0  shop/gw-1  -     -                        2
"
    );
    let json: serde_json::Value = serde_json::from_str(&json(&report).unwrap()).unwrap();
    assert_eq!(
        (json["kind"].as_str(), json["apiVersion"].as_str()),
        (Some("IpamReport"), Some("egret.dev/v1alpha1"))
    );
    assert_eq!(
        json["items"][1],
        serde_json::json!({
            "address": "10.10.10.2", "pool": "egress", "block": "10.10.10.2/31", "state": "leased", "owner": "pod:8a6e",
            "pod": "shop/gw-0",
            "holder": {"network": "net", "container": "0a".repeat(32), "ifname": "eth0", "node": "one"},
            "since": 992_800, "age": 7200, "sequence": 1
        })
    );
    assert_eq!(json["pools"][0]["size"], 4);
    assert!(show(&dir, Some("other"), NOW).unwrap_err().contains("there is no pool other"));
    assert_eq!(show(&dir, Some("egress"), NOW + 60).unwrap().items.len(), 2, "what has cooled is free");
}

#[test]
fn check_is_content_with_a_world_in_order_and_names_each_wrong() {
    let (root, _clean) = scratch();
    let (dir, config) = world(&root);
    let report = check(&dir, &config, 10, NOW).unwrap();
    assert_eq!(verdict(&report), "1 pool, 2 blocks, 3 leases: nothing wrong\n");

    std::fs::write(dir.ipam().join("egress/10-10-10-0-31.json"), "{").unwrap();
    std::fs::write(dir.ipam().join("notes"), "x").unwrap();
    std::fs::write(dir.nodes().join("two.json"), "").unwrap();
    std::fs::create_dir_all(root.join("run/one/attachments")).unwrap();
    let report = check(&dir, &config, 10, NOW).unwrap();
    let said: Vec<(&str, &str)> =
        report.problems.iter().map(|p| (p.reason.as_str(), p.file.as_str())).collect();
    assert_eq!(
        said,
        [
            ("Foreign", "ipam/notes"),
            ("Damaged", "ipam/egress/10-10-10-0-31.json"),
            ("Damaged", "nodes/two.json"),
            ("Leak", ""),
        ]
    );
    assert!(verdict(&report).ends_with("1 pool, 1 block, 2 leases: 4 problems\n"));
}

#[test]
fn release_gives_back_what_is_kept_and_wants_force_for_what_is_held() {
    let (root, _clean) = scratch();
    let (dir, config) = world(&root);
    let release = |addresses: &[&str], owner: Option<&str>, force| {
        let addresses: Vec<IpAddr> = addresses.iter().map(|a| a.parse().unwrap()).collect();
        let Ok(owner) = owner.map(str::parse::<Owner>).transpose();
        release(&dir, &addresses, owner.as_ref(), force, &config, NOW)
    };
    let freed = release(&[], Some("ordinal:shop/gw/0"), false).unwrap();
    assert_eq!(
        given_back(&freed, &[], NOW, Output::Text).unwrap(),
        "10.10.10.3 of pool egress is no longer kept for ordinal:shop/gw/0\n"
    );
    let error = release(&["10.10.10.2"], None, false).unwrap_err();
    assert!(error.starts_with("10.10.10.2 is held by net/0a0a"), "{error}");
    let before = show(&dir, None, NOW).unwrap();
    for half in [["10.10.10.0", "10.10.10.2"], ["10.10.10.0", "192.0.2.1"]] {
        release(&half, None, false).unwrap_err();
        assert_eq!(show(&dir, None, NOW).unwrap().text(), before.text(), "all of them or none");
    }
    let both = release(&["10.10.10.2", "10.10.10.0", "10.10.10.2"], None, true).unwrap();
    let pools: Vec<Pool> = objects(&dir).unwrap().unwrap().pools().map(|(_, pool)| pool).collect();
    let states: Vec<State> = both.iter().map(|one| now_is(one, &pools, NOW)).collect();
    assert_eq!(states, [State::Free, State::Cooling], "as `ipam show` says");
    let report = show(&dir, None, NOW).unwrap();
    assert_eq!(report.pools[0].cooling, 1, "what was held cools, what was cooling is free");
    assert!(release(&["192.0.2.1"], None, true).unwrap_err().contains("192.0.2.1 is not leased"));
}

/// The books of a cluster, whose holder goes between the look and the write.
struct Meanwhile<'a>(DirStore<'a>, RefCell<Option<Holder>>);

impl Store for Meanwhile<'_> {
    fn pools(&self) -> Result<Vec<String>, StoreError> {
        self.0.pools()
    }

    fn summary(&self, pool: &str) -> Result<Arc<Summary>, StoreError> {
        self.0.summary(pool)
    }

    fn refresh(&self, pool: &str) -> Result<(), StoreError> {
        self.0.refresh(pool)
    }

    fn read(&self, pool: &str, block: Cidr) -> Result<Option<(Block, Version)>, StoreError> {
        let seen = self.0.read(pool, block);
        if let Some(holder) = self.1.take() {
            let_go(&self.0, &holder, After::Reserved, NOW)?;
        }
        seen
    }

    fn swap(&self, block: &Block, seen: Option<Version>) -> Result<Swap, StoreError> {
        self.0.swap(block, seen)
    }
}

#[test]
fn what_a_released_address_is_now_the_books_say() {
    let (root, _clean) = scratch();
    let (dir, _) = world(&root);
    let address: IpAddr = "10.10.10.2".parse().unwrap();
    let held = show(&dir, None, NOW).unwrap().items.into_iter().find(|row| row.address == address);
    let guard = dir.lock("test", Duration::ZERO).unwrap();
    let store = Meanwhile(DirStore::under(&dir, &guard), RefCell::new(held.and_then(|row| row.holder)));
    let freed = release_from(&store, &[address], None, true, NOW).unwrap();
    let pools: Vec<Pool> = objects(&dir).unwrap().unwrap().pools().map(|(_, pool)| pool).collect();
    let said = given_back(&freed, &pools, NOW, Output::Text).unwrap();
    let now = show(&dir, None, NOW).unwrap().items.into_iter().find(|row| row.address == address);
    assert_eq!((now, said.contains("cools")), (None, false), "{said}");
}

#[test]
fn an_owner_is_named_whole() {
    for text in ["", "pod:", "ordinal:shop/gw", "ordinal:shop/gw/x", "slot://0", "nonsense"] {
        assert!(whole_owner(text).unwrap_err().contains("pod:UID"), "{text}");
    }
    for text in ["pod:8a6e", "ordinal:shop/gw/0", "slot:shop/gw/1", "container:one/net/c2/eth0"] {
        assert_eq!(whole_owner(text).unwrap().to_string(), text);
    }
}
