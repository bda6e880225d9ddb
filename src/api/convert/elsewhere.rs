//! Kinds of Calico's and Cilium's that steer egress, and are no object of ours: what to write instead.

use serde_json::Value;

use super::super::felix;
use super::{Notes, kind, pointed};

/// Whether the object is one of these; then it is noted, and has no place among manifests of ours.
pub(super) fn note(value: &Value, notes: &mut Notes<'_>) -> bool {
    let group = pointed(value, "/apiVersion").split('/').next().unwrap_or_default();
    match (group, kind(value)) {
        ("operator.tigera.io", "EgressGateway") => gateway(value, notes),
        ("projectcalico.org" | "crd.projectcalico.org", "FelixConfiguration") => felix(value, notes),
        ("projectcalico.org" | "crd.projectcalico.org", "ExternalNetwork") => {
            let message = "it has no equal: Egret knows no external networks; a gateway's traffic takes the routes of its node";
            notes.add("", "", "NoEqual", message);
        }
        ("projectcalico.org" | "crd.projectcalico.org", "IPReservation") => {
            let message = "it has no equal: Egret keeps no address of a pool free; cut the pool so that it does not hold them";
            notes.add("", "", "NoEqual", message);
        }
        ("isovalent.com", "IsovalentEgressGatewayPolicy") => {
            let message = "it has no equal: write an EgressGatewayPolicy with `gateway.nodes`";
            notes.add("", "", "NoEqual", message);
        }
        ("cilium.io", "CiliumEgressNATPolicy") => {
            let message = "it is the kind before CiliumEgressGatewayPolicy, and has no equal: write a CiliumEgressGatewayPolicy, and convert that";
            notes.add("", "", "NoEqual", message);
        }
        _ => return false,
    }
    true
}

/// Pools that an `EgressGateway` takes its addresses from.
pub(super) fn pools(value: &Value) -> Vec<String> {
    if kind(value) != "EgressGateway" {
        return Vec::new();
    }
    let pools = value.pointer("/spec/ipPools").and_then(Value::as_array);
    let named =
        |pool: &Value| ["name", "cidr"].map(|key| pool.get(key).and_then(Value::as_str).map(str::to_owned));
    pools.into_iter().flatten().flat_map(named).flatten().collect()
}

fn gateway(value: &Value, notes: &mut Notes<'_>) {
    let name = pointed(value, "/metadata/name");
    let replicas = value.pointer("/spec/replicas").and_then(Value::as_u64).unwrap_or(1);
    let labels = value.pointer("/spec/template/metadata/labels").and_then(Value::as_object);
    let labels = labels.filter(|labels| !labels.is_empty()).map_or_else(
        || format!("projectcalico.org/egw: {name}"),
        |labels| {
            let pairs: Vec<String> = labels
                .iter()
                .map(|(key, value)| format!("{key}: {}", value.as_str().unwrap_or_default()))
                .collect();
            pairs.join(", ")
        },
    );
    let pools = serde_json::to_string(&pools(value)).unwrap_or_default();
    let message = format!(
        "it has no equal: write a StatefulSet or Deployment with {replicas} replicas of any image, the pod labels `{labels}` and the pod annotation \
         `egret.dev/ipv4pools: '{pools}'` (IPv6 pools: `egret.dev/ipv6pools`)"
    );
    notes.add("", "", "NoEqual", message);
}

fn felix(value: &Value, notes: &mut Notes<'_>) {
    for setting in felix::settings(kind(value), pointed(value, "/apiVersion"), value) {
        notes.add(&setting.field, &setting.value, felix::REASON, setting.message);
    }
}
