//! Random policies of all three kinds, with the collisions that matter made likely: few prefixes, few ages, many policies.

use serde_json::{Map, Value, json};

use crate::annotations::{gateway_namespaces, gateway_pods};
use crate::dice::Dice;
use crate::written::Written;

/// Around, between and beside the places outside: nested, equal, and of no use.
const PREFIXES: [&str; 16] = [
    "0.0.0.0/0",
    "0.0.0.0/0",
    "128.0.0.0/1",
    "198.51.100.0/23",
    "198.51.100.0/24",
    "198.51.101.0/24",
    "198.51.100.100/32",
    "198.51.100.128/25",
    "203.0.113.0/24",
    "::/0",
    "::/0",
    "2001:db8::/32",
    "2001:db8:fe::/47",
    "2001:db8:ff::/64",
    "2001:db8:fe::100/128",
    "2001:db8:ff::200/127",
];
const AGES: [Option<&str>; 4] =
    [None, Some("2026-01-01T00:00:00Z"), Some("2026-01-01T00:00:00Z"), Some("2026-02-01T00:00:00Z")];

/// Writes policies; gives the names that annotations may use.
pub(crate) fn write(dice: &mut Dice, written: &mut Written) -> Vec<String> {
    let mut names = Vec::new();
    for number in 0..dice.below(6) {
        let name = format!("p{number}");
        if dice.percent(60) {
            let spec = ours(dice);
            if spec["enforced"] == true {
                written.enforced.insert(name.clone());
            }
            written.add(&manifest(dice, "egret.dev/v1alpha1", "EgressGatewayPolicy", &name, spec));
        } else {
            let group = dice.pick(&["projectcalico.org/v3", "crd.projectcalico.org/v1"]);
            let spec = json!({"rules": rules(dice, false)});
            written.add(&manifest(dice, group, "EgressGatewayPolicy", &name, spec));
        }
        names.push(name);
    }
    for number in 0..dice.below(4) {
        let spec = cilium(dice);
        let name = format!("c{number}");
        written.add(&manifest(dice, "cilium.io/v2", "CiliumEgressGatewayPolicy", &name, spec));
    }
    names
}

fn manifest(dice: &mut Dice, group: &str, kind: &str, name: &str, spec: Value) -> Value {
    let mut metadata = json!({"name": name});
    if let Some(age) = dice.pick(&AGES) {
        metadata["creationTimestamp"] = json!(age);
    }
    json!({"apiVersion": group, "kind": kind, "metadata": metadata, "spec": spec})
}

fn ours(dice: &mut Dice) -> Value {
    let mut spec = Map::new();
    if dice.percent(45) {
        let entries: Vec<Value> = (0..1 + dice.below(2)).map(|_| selection(dice)).collect();
        spec.insert("selectors".to_owned(), entries.into());
        if dice.percent(35) {
            spec.insert("enforced".to_owned(), true.into());
        }
    }
    spec.insert("rules".to_owned(), rules(dice, true));
    if dice.percent(25) {
        spec.insert("excludedCIDRs".to_owned(), json!(dice.some(&PREFIXES[3..], 12)));
    }
    if dice.percent(15) {
        spec.insert("defaultAction".to_owned(), "Deny".into());
    }
    spec.into()
}

fn selection(dice: &mut Dice) -> Value {
    let mut entry = Map::new();
    let all = [
        ("selector", dice.pick(&["app == 'web'", "app == 'db'", "tier in {'one'}", "all()"])),
        (
            "namespaceSelector",
            dice.pick(&["team == 'a'", "projectcalico.org/name == 'free'", "kind != 'egress'"]),
        ),
        ("nodeSelector", dice.pick(&["role == 'edge'", "zone in {'z1', 'z2'}"])),
    ];
    for (key, text) in dice.some(&all, 45) {
        entry.insert(key.to_owned(), text.into());
    }
    entry.into()
}

/// Rules of ours or of Calico's; now and then two with one prefix, which Calico refuses.
fn rules(dice: &mut Dice, ours: bool) -> Value {
    let mut rules = Vec::new();
    let mut taken = Vec::new();
    for _ in 0..1 + dice.below(4) {
        let mut rule = Map::new();
        let destination = dice.pick(&PREFIXES);
        if dice.percent(85) {
            if taken.contains(&destination) && dice.percent(95) {
                continue;
            }
            taken.push(destination);
            rule.insert("destination".to_owned(), json!({"cidr": destination}));
        }
        if !dice.percent(20) {
            let gateway = if ours && dice.percent(35) { nodes(dice) } else { pods(dice, ours) };
            rule.insert("gateway".to_owned(), gateway);
            if dice.percent(25) {
                rule.insert("gatewayPreference".to_owned(), "PreferNodeLocal".into());
            }
        }
        rules.push(rule);
    }
    json!(rules)
}

fn pods(dice: &mut Dice, ours: bool) -> Value {
    let mut gateway = json!({"selector": gateway_pods(dice), "namespaceSelector": gateway_namespaces(dice)});
    if ours && dice.percent(15) {
        gateway.as_object_mut().unwrap().remove("namespaceSelector");
    }
    if dice.percent(30) {
        gateway["maxNextHops"] = json!(dice.below(4));
    }
    gateway
}

fn nodes(dice: &mut Dice) -> Value {
    let entry = |dice: &mut Dice| {
        let selector = dice.pick(&[
            "role == 'edge'",
            "role == 'core'",
            "zone == 'z1'",
            "kubernetes.io/hostname == 'node2'",
            "kubernetes.io/hostname == 'node3'",
        ]);
        let mut entry = leaves_by(dice);
        entry.insert("nodeSelector".to_owned(), selector.into());
        Value::from(entry)
    };
    let entries: Vec<Value> = (0..1 + dice.below(3)).map(|_| entry(dice)).collect();
    json!({"nodes": entries})
}

/// By which interface or address a node gateway leaves: the fabric's, its own, one that it may not have.
fn leaves_by(dice: &mut Dice) -> Map<String, Value> {
    let mut entry = Map::new();
    let (key, value) = match dice.below(12) {
        0..4 => ("interface", "eth1".to_owned()),
        4 => ("interface", "eth0".to_owned()),
        5 => ("interface", "eth9".to_owned()),
        6..8 => ("egressIP", format!("172.31.{}.77", 1 + dice.below(3))),
        8 => ("egressIP", format!("fd00:172:31:{}::77", 1 + dice.below(3))),
        9 => ("egressIP", "192.0.2.99".to_owned()),
        _ => return entry,
    };
    entry.insert(key.to_owned(), value.into());
    entry
}

fn cilium(dice: &mut Dice) -> Value {
    let labels = |dice: &mut Dice| {
        dice.pick(&[
            json!({"matchLabels": {"app": "web"}}),
            json!({"matchLabels": {"k8s:app": "db"}}),
            json!({"matchLabels": {"io.kubernetes.pod.namespace": "bank"}}),
            json!({"matchExpressions": [{"key": "tier", "operator": "In", "values": ["one"]}]}),
            json!({"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["web"]}]}),
            json!({}),
        ])
    };
    let mut selector = json!({"podSelector": labels(dice)});
    if dice.percent(40) {
        selector["namespaceSelector"] = json!({"matchLabels": dice.pick(&[json!({"team": "a"}), json!({"kubernetes.io/metadata.name": "free"})])});
    }
    if dice.percent(25) {
        selector["nodeSelector"] = json!({"matchLabels": {"role": dice.pick(&["edge", "core"])}});
    }
    let gateway = |dice: &mut Dice| {
        let mut gateway = leaves_by(dice);
        let nodes = dice.pick(&[
            json!({"matchLabels": {"role": "edge"}}),
            json!({"matchLabels": {"zone": "z2"}}),
            json!({"matchLabels": {"kubernetes.io/hostname": "node1"}}),
            json!({"matchExpressions": [{"key": "role", "operator": "Exists"}]}),
        ]);
        gateway.insert("nodeSelector".to_owned(), nodes);
        Value::from(gateway)
    };
    let mut spec = json!({
        "selectors": [selector],
        "destinationCIDRs": dice.some(&PREFIXES, 15),
        "egressGateway": gateway(dice),
    });
    if dice.percent(30) {
        spec["egressGateways"] = (0..1 + dice.below(3)).map(|_| gateway(dice)).collect();
    }
    if dice.percent(30) {
        spec["excludedCIDRs"] = json!(dice.some(&PREFIXES[3..], 10));
    }
    spec
}
