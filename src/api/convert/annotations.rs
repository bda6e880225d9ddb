//! Annotations of pods, namespaces and pod templates → their twins of egret.dev.

use serde_json::{Map, Value};

use super::{Notes, Template};
use crate::api::Kind;
use crate::egress::annotations::{field, twins};
use crate::egress::gateway::pools_are_its_own;
use crate::egress::model::Pairs;

/// Annotations that select pools of gateways, under every name.
const POOLS: [&str; 2] = ["egret.dev/ipv4pools", "egret.dev/ipv6pools"];
const POLICY: &str = "egret.dev/egressGatewayPolicy";

/// Annotations of Calico's that have no twin, and what to know of them.
const NO_EQUAL: [(&str, &str); 5] = [
    (
        "cni.projectcalico.org/awsElasticIPs",
        "Egret assigns no addresses of a cloud; route the pool to the nodes instead",
    ),
    (
        "egress.projectcalico.org/externalNetworkNames",
        "Egret has no external networks; the gateway's node routes its traffic",
    ),
    (
        "egress.projectcalico.org/gatewayMaintenanceGatewayIP",
        "Calico writes it by itself; Egret's endpoints say who drains",
    ),
    (
        "egress.projectcalico.org/gatewayMaintenanceStartedTimestamp",
        "Calico writes it by itself; Egret's endpoints say who drains",
    ),
    (
        "egress.projectcalico.org/gatewayMaintenanceFinishedTimestamp",
        "Calico writes it by itself; Egret's endpoints say who drains",
    ),
];

/// The pod or namespace with our annotations; `None`: it has none to convert.
pub(super) fn convert(value: &Value, kind: Kind, notes: &mut Notes<'_>) -> Option<Value> {
    let mut manifest = value.clone();
    let of_pod = kind == Kind::Pod;
    rename(manifest.pointer_mut("/metadata/annotations")?, "", of_pod, notes).then_some(manifest)
}

/// A workload whose pods have annotations to convert; `None`: nothing about it changes.
pub(super) fn of_workload(value: &Value, template: Template, notes: &mut Notes<'_>) -> Option<Value> {
    let pointer = template(super::kind(value))?;
    let mut manifest = value.clone();
    let pairs = manifest.pointer_mut(&format!("{pointer}/metadata/annotations"))?;
    let place = format!("{}.", pointer.trim_start_matches('/').replace('/', "."));
    let concerns = pairs
        .as_object()
        .is_some_and(|pairs| pairs.keys().any(|key| crate::egress::annotations::is_ours(key)));
    (rename(pairs, &place, true, notes) || concerns).then_some(manifest)
}

/// Renames in place, keeping the order; `true`: something changed.
fn rename(pairs: &mut Value, place: &str, of_pod: bool, notes: &mut Notes<'_>) -> bool {
    let Value::Object(pairs) = pairs else { return false };
    let old = std::mem::take(pairs);
    let own = of_pod && pools_are_its_own(&texts(&old));
    let mut changed = false;
    for (name, value) in &old {
        let at = format!("{place}{}", field(name));
        let shown = value.as_str().unwrap_or_default();
        if let Some((_, why)) = NO_EQUAL.iter().find(|(known, _)| known == name) {
            notes.add(&at, shown, "NoEqual", format!("it has no equal, and is left out: {why}"));
            changed = true;
            continue;
        }
        let twin = twins().find(|(theirs, _)| theirs == name).map(|(_, ours)| ours);
        let Some(twin) = twin else {
            pairs.insert(name.clone(), value.clone());
            continue;
        };
        let pools = POOLS.contains(&twin);
        if pools && (own || !of_pod) {
            let message = if own {
                "the pod's own annotations make it a client, so it chooses its own address, which is Calico's, and stays"
            } else {
                "on a namespace it chooses the pods' own addresses, which is Calico's, so it stays; Egret reads it on gateway pods only"
            };
            notes.add(&at, shown, "NotEgress", message);
            pairs.insert(name.clone(), value.clone());
            continue;
        }
        changed = true;
        match old.get(twin) {
            // It has been in force beside its twin, so nothing changes by leaving the other out.
            Some(ours) if ours != value => {
                let message = format!("`{twin}` stands beside it and wins, so it is left out");
                notes.add(&at, shown, "TwinWins", message);
            }
            Some(_) => {}
            None => {
                pairs.insert(twin.to_owned(), value.clone());
                if pools {
                    let message = format!(
                        "it becomes `{twin}`, which Calico's IPAM does not read: the gateway pod's own address comes from Calico's other pools, \
                         and only its egress address from this one"
                    );
                    notes.add(&at, shown, "OwnAddress", message);
                }
            }
        }
    }
    changed
}

/// What annotations under one of our names say, whoever's spelling it is.
fn values<'v>(pairs: &'v Value, ours: &'v [&str]) -> impl Iterator<Item = &'v str> {
    pairs.as_object().into_iter().flatten().filter_map(move |(name, value)| {
        let theirs = twins().any(|(theirs, twin)| theirs == name && ours.contains(&twin));
        (theirs || ours.contains(&name.as_str())).then(|| value.as_str()).flatten()
    })
}

/// Annotations as texts; what is none is left out.
fn texts(pairs: &Map<String, Value>) -> Pairs {
    let text = |(name, value): (&String, &Value)| Some((name.clone(), value.as_str()?.to_owned()));
    pairs.iter().filter_map(text).collect()
}

/// Names and prefixes of pools that a gateway's annotations name.
pub(super) fn pools(pairs: &Value) -> Vec<String> {
    if pairs.as_object().is_some_and(|pairs| pools_are_its_own(&texts(pairs))) {
        return Vec::new();
    }
    values(pairs, &POOLS).flat_map(listed).collect()
}

/// Names of policies that annotations name.
pub(super) fn policies(pairs: &Value) -> Vec<String> {
    values(pairs, &[POLICY]).flat_map(listed).collect()
}

/// A JSON list of texts, or texts with commas between.
fn listed(text: &str) -> Vec<String> {
    match serde_json::from_str::<Vec<String>>(text.trim()) {
        Ok(list) => list,
        Err(_) => text.split(',').map(|part| part.trim().to_owned()).collect(),
    }
}
