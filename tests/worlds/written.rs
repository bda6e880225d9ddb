//! A random cluster as its users wrote it: a seed in, texts out. Never: raises, decides or looks at anything.
//!
//! Ten seeds that follow each other share one [`Ground`] (topology and pods, which cost most to raise) and follow each other in it,
//! so each of them is also a change of a running cluster. Everything else differs: labels, annotations, policies of all three kinds,
//! pools, nodes' labels, broken objects.

use std::collections::{BTreeMap, BTreeSet};

use egret::addr::Family;
use egret::testbed::{Families, Masquerade, Primary, Topology};
use serde_json::{Value, json};

use crate::annotations::annotations;
use crate::dice::Dice;
use crate::policies;

/// Worlds on one ground.
pub(crate) const WORLDS_PER_GROUND: u64 = 10;

/// Labels or annotations.
pub(crate) type Words = BTreeMap<String, String>;

/// Gateways: node, name, pools they ask for.
pub(crate) const GATEWAYS: [(u8, &str, &[&str]); 6] = [
    (1, "gw/a", &["red", "red6"]),
    (2, "gw/b", &["red", "red6"]),
    (3, "gw/four", &["red"]),
    (1, "gw/six", &["red6"]),
    (2, "shop/own", &["own", "own6"]),
    (3, "gw/nat", &["nat", "nat6"]),
];
/// Other pods: node and name.
pub(crate) const CLIENTS: [(u8, &str); 9] = [
    (1, "shop/c1"),
    (2, "shop/c2"),
    (3, "shop/c3"),
    (1, "bank/d1"),
    (2, "bank/d2"),
    (3, "bank/d3"),
    (1, "free/e1"),
    (2, "free/e2"),
    (3, "free/e3"),
];
const NAMESPACES: [&str; 4] = ["gw", "shop", "bank", "free"];
/// Pools: name, prefix. Those called `nat` leave with their node's address.
const POOLS: [(&str, &str); 6] = [
    ("red", "10.10.10.0/28"),
    ("red6", "fd00:10:10::10/124"),
    ("own", "10.10.10.32/30"),
    ("own6", "fd00:10:10::40/126"),
    ("nat", "10.10.10.40/30"),
    ("nat6", "fd00:10:10::48/126"),
];

/// What ten worlds stand on.
pub(crate) fn ground(seed: u64) -> Topology {
    let mut dice = Dice::of((seed / WORLDS_PER_GROUND) ^ 0x6772_6f75_6e64);
    let mut topology = Topology { nodes: 3, second_uplink: true, settle: false, ..Topology::default() };
    topology.primary = dice.pick(&[Primary::Bridge, Primary::Ptp, Primary::BridgePortmap]);
    topology.masquerade = dice.pick(&[
        Masquerade::IptablesNft,
        Masquerade::IpMasq,
        Masquerade::Nft,
        Masquerade::IptablesLegacy,
        Masquerade::None,
    ]);
    topology.families = dice.pick(&[
        Families::Dual,
        Families::Dual,
        Families::Dual,
        Families::Dual,
        Families::V4,
        Families::V6,
    ]);
    topology.underlay = dice.pick(&[Family::V4, Family::V4, Family::V6]);
    topology.strict_rp_filter = dice.percent(70);
    if dice.percent(15) {
        topology.egret_keys.insert("egressIPSupport".to_owned(), json!("EnabledPerNamespace"));
    }
    topology
}

/// A cluster's objects.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Written {
    /// Labels and annotations by `namespace/name`.
    pub(crate) pods: BTreeMap<String, (Words, Words)>,
    /// The same by name.
    pub(crate) namespaces: BTreeMap<String, (Words, Words)>,
    /// Labels by number.
    pub(crate) nodes: BTreeMap<u8, Words>,
    /// Everything else: files below `objects/`.
    pub(crate) files: BTreeMap<String, String>,
    /// Policies of ours that say `enforced: true`.
    pub(crate) enforced: BTreeSet<String>,
}

impl Written {
    /// Before the first world: pods without annotations, pools that serve everybody.
    pub(crate) fn nothing() -> Written {
        let mut written = Written::default();
        for (_, name, pools) in GATEWAYS {
            written.pods.insert(name.to_owned(), (Words::new(), wants(pools)));
        }
        for (_, name) in CLIENTS {
            written.pods.insert(name.to_owned(), (Words::new(), Words::new()));
        }
        for name in NAMESPACES {
            written.namespaces.insert(name.to_owned(), (Words::new(), Words::new()));
        }
        for (name, cidr) in POOLS {
            written.add(&pool(name, cidr, "all()", "all()"));
        }
        written
    }

    /// The world of a seed.
    pub(crate) fn of(seed: u64) -> Written {
        let mut dice = Dice::of(seed);
        let mut written = Written::nothing();
        let names = policies::write(&mut dice, &mut written);
        for node in 1..=3 {
            let role = dice.pick(&["edge", "core"]);
            let zone = dice.pick(&["z1", "z2", "z3"]);
            written.nodes.insert(node, words(&[("role", role), ("zone", zone)]));
        }
        for name in NAMESPACES {
            let own = match name {
                "gw" => Words::new(),
                _ if dice.percent(45) => annotations(&mut dice, &names),
                _ => Words::new(),
            };
            let team = dice.pick(&["a", "b"]);
            let kind = if name == "gw" || dice.percent(20) { "egress" } else { "work" };
            written.namespaces.insert(name.to_owned(), (words(&[("team", team), ("kind", kind)]), own));
        }
        for (_, name, pools) in GATEWAYS {
            let code = if dice.percent(60) { "red" } else { "blue" };
            let labels = words(&[("code", code), ("app", dice.pick(&["web", "db"]))]);
            written.pods.insert(name.to_owned(), (labels, wants(pools)));
        }
        for (_, name) in CLIENTS {
            let labels = words(&[("app", dice.pick(&["web", "db"])), ("tier", dice.pick(&["one", "two"]))]);
            let own = if dice.percent(35) { annotations(&mut dice, &names) } else { Words::new() };
            written.pods.insert(name.to_owned(), (labels, own));
        }
        for (name, cidr) in POOLS {
            let clients =
                dice.pick(&["all()", "all()", "all()", "projectcalico.org/name == 'shop'", "team == 'a'"]);
            let gateways = dice.pick(&["all()", "all()", "all()", "all()", "kind == 'egress'", "!all()"]);
            written.add(&pool(name, cidr, gateways, clients));
        }
        if dice.percent(20) {
            written.junk(&mut dice);
        }
        written
    }

    /// A manifest, in the file that its kind and name say.
    pub(crate) fn add(&mut self, manifest: &Value) {
        let word =
            |path: &str| manifest.pointer(path).and_then(Value::as_str).unwrap_or("none").to_lowercase();
        let group = word("/apiVersion").split('/').next().unwrap_or_default().to_owned();
        let name = format!("{}-{group}-{}.yaml", word("/kind"), word("/metadata/name"));
        self.files.insert(name, serde_yaml_ng::to_string(manifest).unwrap());
    }

    /// One object that nobody can read. It may change its own pods' traffic, and no other's.
    fn junk(&mut self, dice: &mut Dice) {
        let (name, text) = dice.pick(&[
            ("junk.yaml", "apiVersion: v1\nkind: [Pod\n"),
            ("junk.json", "{\"kind\": \"EgressGatewayPolicy\""),
            ("stranger.yaml", "apiVersion: example.org/v1\nkind: Thing\nmetadata: {name: x}\n"),
            ("list.yaml", "apiVersion: egret.dev/v1alpha1\nkind: EgressGatewayPolicy\nmetadata: {name: broken}\nspec: {rules: 7}\n"),
        ]);
        self.files.insert(name.to_owned(), text.to_owned());
    }
}

pub(crate) fn words(these: &[(&str, &str)]) -> Words {
    these.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

fn wants(pools: &[&str]) -> Words {
    let of = |six: bool| {
        let own: Vec<&&str> = pools.iter().filter(|pool| pool.ends_with('6') == six).collect();
        (!own.is_empty()).then(|| json!(own).to_string())
    };
    let names =
        [("cni.projectcalico.org/ipv4pools", of(false)), ("cni.projectcalico.org/ipv6pools", of(true))];
    names.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
}

fn pool(name: &str, cidr: &str, gateways: &str, clients: &str) -> Value {
    json!({
        "apiVersion": "egret.dev/v1alpha1", "kind": "EgressPool", "metadata": {"name": name},
        "spec": {
            "cidr": cidr, "gatewayNamespaces": gateways, "clientNamespaces": clients, "natOutgoing": name.starts_with("nat"),
        },
    })
}
