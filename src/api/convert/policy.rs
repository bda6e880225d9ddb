//! Calico's and Cilium's policies → ours.

use serde_json::{Map, Value, json};

use super::{Known, Notes, ours};
use crate::addr::Family;
use crate::api::Kind;
use crate::egress::policy::{NodeGatewayWish, PodSelection, Policy, PolicyRule, To};

const KIND: &str = "EgressGatewayPolicy";

/// A policy that can be obeyed, as ours.
pub(super) fn convert(
    value: &Value,
    kind: Kind,
    policy: &Policy,
    known: &Known,
    notes: &mut Notes<'_>,
) -> Value {
    match kind {
        Kind::CiliumEgressGatewayPolicy => cilium(value, policy, known, notes),
        // Ours has all of Calico's fields with their meanings, so what a person wrote stays word by word.
        _ => {
            let spec = value.get("spec").and_then(Value::as_object).cloned().unwrap_or_default();
            ours(KIND, &policy.name, value, &[], spec)
        }
    }
}

fn cilium(value: &Value, policy: &Policy, known: &Known, notes: &mut Notes<'_>) -> Value {
    let name = free_name(&policy.name, known);
    if name != policy.name {
        let message = format!(
            "`{}` is taken by an EgressGatewayPolicy, or an annotation names it, so this one is called `{name}`; of two policies with one prefix and \
             one age the smaller name wins",
            policy.name
        );
        notes.add("metadata.name", &policy.name, "Renamed", message);
    }
    let mut spec = Map::new();
    if policy.selectors.is_empty() {
        let message = "it selects no pod, and neither does ours, unless an annotation names it";
        notes.add("spec.selectors", "[]", "SelectsNothing", message);
    } else {
        spec.insert("selectors".to_owned(), policy.selectors.iter().map(selection).collect());
    }
    if policy.selectors.len() > 1 && policy.selectors.iter().any(|entry| entry.nodes.is_some()) {
        let message = "Cilium pools the node selectors of all entries, so each entry of ours has all of them; if each was meant for its own entry, \
                       take the others out";
        notes.add("spec.selectors", "", "PooledNodeSelectors", message);
    }
    let rules = rules(policy);
    if !rules.is_empty() {
        spec.insert("rules".to_owned(), Value::Array(rules));
    }
    let direct = policy.rules.iter().filter(|rule| rule.to == To::Direct);
    let excluded: Vec<String> = direct.map(|rule| rule.destination.to_string()).collect();
    if !excluded.is_empty() {
        spec.insert("excludedCIDRs".to_owned(), json!(excluded));
    }
    // Families never mix in Cilium; ours would hold the one that is not named.
    let [v4, v6] =
        Family::BOTH.map(|family| policy.rules.iter().find(|rule| rule.destination == family.everything()));
    let sent = |rule: Option<&PolicyRule>| rule.is_some_and(|rule| rule.to != To::Direct);
    if (sent(v4) && v6.is_none()) || (sent(v6) && v4.is_none()) {
        spec.insert("otherFamily".to_owned(), json!("Ignore"));
    }
    for (field, text) in listed(value, "destinationCIDRs").into_iter().chain(listed(value, "excludedCIDRs")) {
        if text.parse::<crate::addr::Cidr>().is_err() {
            let message = "it has bits below its prefix length, which Cilium masks; ours is written masked";
            notes.add(&field, &text, "Masked", message);
        }
    }
    ours(KIND, &name, value, &[], spec)
}

/// The name, or one that nobody has: `web-cilium`, `web-cilium-2`.
fn free_name(name: &str, known: &Known) -> String {
    let also = std::iter::once(format!("{name}-cilium"));
    let more = (2..).map(|n| format!("{name}-cilium-{n}"));
    let mut names = std::iter::once(name.to_owned()).chain(also).chain(more);
    names.find(|name| !known.policies.contains(name)).unwrap_or_default()
}

fn selection(entry: &PodSelection) -> Value {
    let mut map = Map::new();
    let parts =
        [("selector", &entry.pods), ("namespaceSelector", &entry.namespaces), ("nodeSelector", &entry.nodes)];
    for (key, selector) in parts {
        if let Some(selector) = selector {
            map.insert(key.to_owned(), json!(selector));
        }
    }
    if map.is_empty() {
        map.insert("selector".to_owned(), json!("all()"));
    }
    Value::Object(map)
}

/// One rule for all destinations of the same gateways.
fn rules(policy: &Policy) -> Vec<Value> {
    let mut rules: Vec<(&Vec<NodeGatewayWish>, Vec<String>)> = Vec::new();
    for rule in &policy.rules {
        let To::Nodes(wishes) = &rule.to else { continue };
        let destination = rule.destination.to_string();
        match rules.iter_mut().find(|(known, _)| *known == wishes) {
            Some((_, destinations)) => destinations.push(destination),
            None => rules.push((wishes, vec![destination])),
        }
    }
    let written = |(wishes, destinations): (&Vec<NodeGatewayWish>, Vec<String>)| {
        let destination = match destinations.as_slice() {
            [one] => json!({"cidr": one}),
            several => json!({"cidrs": several}),
        };
        json!({"destination": destination, "gateway": {"nodes": wishes.iter().map(node).collect::<Vec<_>>()}})
    };
    rules.into_iter().map(written).collect()
}

fn node(wish: &NodeGatewayWish) -> Value {
    let mut map = Map::new();
    map.insert("nodeSelector".to_owned(), json!(wish.nodes));
    if let Some(interface) = &wish.interface {
        map.insert("interface".to_owned(), json!(interface));
    }
    if let Some(ip) = wish.egress_ip {
        map.insert("egressIP".to_owned(), json!(ip.to_string()));
    }
    Value::Object(map)
}

/// The texts of a list below `spec`, each with its path.
fn listed(value: &Value, key: &str) -> Vec<(String, String)> {
    let list = value.pointer(&format!("/spec/{key}")).and_then(Value::as_array);
    let texts = list.into_iter().flatten().enumerate();
    texts.filter_map(|(i, text)| Some((format!("spec.{key}[{i}]"), text.as_str()?.to_owned()))).collect()
}
