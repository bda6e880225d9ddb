//! Calico's `IPPool` → `EgressPool`, if it holds egress addresses and not the pods' own.

use serde_json::{Map, Value, json};

use super::{Known, Notes, ours};
use crate::egress::model::Pool;

/// Fields of an `IPPool` that nothing here answers to, with the values that mean nothing.
const NO_EQUAL: [(&str, &[&str], &str); 6] = [
    ("ipipMode", &["Never"], "Egret tunnels by itself, whatever the pool"),
    ("vxlanMode", &["Never"], "Egret tunnels by itself, whatever the pool"),
    ("awsSubnetID", &[], "Egret assigns no addresses of a cloud; route the pool to the nodes instead"),
    ("allowedUses", &[], "who may use the pool is said by gatewayNamespaces and clientNamespaces"),
    ("disableBGPExport", &["false"], "Egret speaks no BGP; `announce` says how the outside finds the way"),
    (
        "namespaceSelector",
        &["all()"],
        "it chooses the pods' own addresses; gatewayNamespaces is the field for gateways",
    ),
];

/// The pool as ours; `None`: it stays Calico's.
pub(super) fn convert(value: &Value, pool: &Pool, known: &Known, notes: &mut Notes<'_>) -> Option<Value> {
    let asked = known.pools.contains(&pool.name) || known.pools.contains(&pool.cidr.to_string());
    if !asked && pool.node_selector.replace(' ', "") != "!all()" {
        let message = "no gateway among these manifests names it and every node may use it unasked, so it holds the pods' own addresses and stays \
                       Calico's: a range inside the cluster. If gateways do use it, give convert the gateways' manifests too; if Calico goes, \
                       put its range into clusterCIDRs";
        notes.add("spec.cidr", &pool.cidr.to_string(), "PodPool", message);
        return None;
    }
    let mut spec = Map::new();
    spec.insert("cidr".to_owned(), json!(pool.cidr.to_string()));
    // Ours has another default.
    spec.insert("blockSize".to_owned(), json!(pool.block_size));
    if pool.node_selector != "all()" {
        spec.insert("nodeSelector".to_owned(), json!(pool.node_selector));
    }
    let sides =
        [("gatewayNamespaces", &pool.gateway_namespaces), ("clientNamespaces", &pool.client_namespaces)];
    for (field, selector) in sides {
        spec.insert(field.to_owned(), json!(selector.as_deref().unwrap_or("all()")));
    }
    for (field, set) in [("natOutgoing", pool.nat_outgoing), ("disabled", pool.disabled)] {
        if set {
            spec.insert(field.to_owned(), json!(true));
        }
    }
    if sides.iter().any(|(_, selector)| selector.as_deref() == Some("all()")) {
        let message = "any namespace may have gateways of it, or use them, as in Calico; narrow gatewayNamespaces and clientNamespaces";
        notes.add("spec", "all()", "OpenPool", message);
    }
    let message = "Calico counts every pool as a range inside the cluster; an EgressPool is outside, as its addresses are those that others see. If pods \
                   must reach these addresses directly, put the range into clusterCIDRs";
    notes.add("spec.cidr", &pool.cidr.to_string(), "Outside", message);
    no_equal(value, notes);
    let narrowed = ["egret.dev/gateway-namespaces", "egret.dev/client-namespaces"];
    Some(ours("EgressPool", &pool.name, value, &narrowed, spec))
}

fn no_equal(value: &Value, notes: &mut Notes<'_>) {
    for (field, meaningless, why) in NO_EQUAL {
        let Some(found) = value.pointer(&format!("/spec/{field}")) else { continue };
        let text = found.as_str().map_or_else(|| found.to_string(), str::to_owned);
        if !text.is_empty() && text != "null" && !meaningless.contains(&text.as_str()) {
            let message = format!("it has no equal, and is left out: {why}");
            notes.add(&format!("spec.{field}"), &text, "NoEqual", message);
        }
    }
}
