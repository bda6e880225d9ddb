//! A world as manifests, and what a node reads there.

use egret::api;
use egret::config::Config;
use egret::egress::interfaces::{Interface, Interfaces};
use egret::egress::model::{EgressAddress, EgressSupport, Endpoint, EndpointState, PodName, View};
use egret::egress::numbers::gateway_mac;
use egret::store::objects::Objects;
use serde_json::{Map, Value, json};

use crate::world::{By, Clients, Gateways, Kind, NodeWish, Policy, To, Wish, World};

/// What the resolver is asked with.
pub(crate) fn view(world: &World) -> View {
    let text = text(world);
    let objects =
        Objects::of(vec![("world.json".to_owned(), api::read("world.json", text.as_bytes()))]).unwrap();
    let support = match world.namespaces_only {
        true => EgressSupport::EnabledPerNamespace,
        false => EgressSupport::EnabledPerNamespaceOrPerPod,
    };
    let config = Config { egress_ip_support: support, ..Config::default() };
    let mut view = objects.view(&config, endpoints(world));
    for (n, node) in world.nodes.iter().enumerate() {
        if let Some(links) = &node.interfaces {
            let link = |(name, addresses): (&str, &Vec<_>)| Interface {
                name: name.into(),
                addresses: addresses.clone(),
                ..Interface::default()
            };
            let links = ["eth0", "eth1"].into_iter().zip(links).map(link).collect();
            view.interfaces.insert(format!("n{n}"), Interfaces { links, ..Interfaces::default() });
        }
    }
    view
}

fn endpoints(world: &World) -> Vec<Endpoint> {
    let endpoint = |(n, gateway): (usize, &crate::world::Gateway)| Endpoint {
        pod: PodName::new(&gateway.namespace, format!("gw-{n}")),
        uid: None,
        attachment: format!("pods/gw-{n}/eth0"),
        node: format!("n{}", gateway.node),
        underlay: Vec::new(),
        vni: 5000,
        // Its own, as every gateway's: by it others know it.
        mac: gateway_mac([10, 10, 0, n as u8].into()),
        addresses: gateway
            .addresses
            .iter()
            .zip(["p4", "p6"])
            .filter_map(|(ip, pool)| Some(EgressAddress::leased((*ip)?, pool)))
            .collect(),
        state: if gateway.ready { EndpointState::Ready } else { EndpointState::Failed },
        generation: 1,
        problems: Vec::new(),
    };
    world.gateways.iter().enumerate().map(endpoint).collect()
}

/// A list of objects, as the API server writes it.
pub(crate) fn text(world: &World) -> String {
    let mut items: Vec<Value> = Vec::new();
    for (n, node) in world.nodes.iter().enumerate() {
        let addresses: Vec<Value> =
            node.ip.iter().map(|ip| json!({"type": "InternalIP", "address": ip})).collect();
        items.push(json!({
            "apiVersion": "v1", "kind": "Node", "metadata": {"name": format!("n{n}"), "labels": label("zone", node.zone)},
            "status": {"addresses": addresses},
        }));
    }
    for (name, cidr, clients) in
        [("p4", "10.10.0.0/24", world.pools[0]), ("p6", "fd10::/120", world.pools[1])]
    {
        let mut spec = json!({"cidr": cidr, "gatewayNamespaces": "all()"});
        match clients {
            Clients::All => spec["clientNamespaces"] = json!("all()"),
            Clients::OwnNamespace => {}
            Clients::Team(team) => spec["clientNamespaces"] = json!(format!("team == '{team}'")),
        }
        items.push(json!({"apiVersion": "egret.dev/v1alpha1", "kind": "EgressPool", "metadata": {"name": name}, "spec": spec}));
    }
    for namespace in &world.namespaces {
        items.push(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {
            "name": namespace.name, "labels": label("team", namespace.team), "annotations": annotations(namespace.wish.as_ref()),
        }}));
    }
    for (n, gateway) in world.gateways.iter().enumerate() {
        items.push(json!({"apiVersion": "v1", "kind": "Pod", "metadata": {
            "namespace": gateway.namespace, "name": format!("gw-{n}"), "labels": {"colour": gateway.colour},
        }, "spec": {"nodeName": format!("n{}", gateway.node)}}));
    }
    for (n, pod) in world.pods.iter().enumerate() {
        let mut spec = json!({"hostNetwork": pod.host_network});
        if let Some(node) = pod.node {
            spec["nodeName"] = json!(format!("n{node}"));
        }
        items.push(json!({"apiVersion": "v1", "kind": "Pod", "metadata": {
            "namespace": pod.namespace, "name": format!("pod-{n}"), "uid": pod.uid, "labels": label("app", pod.app),
            "annotations": annotations(pod.wish.as_ref()),
        }, "spec": spec}));
    }
    items.extend(world.policies.iter().enumerate().map(|(n, policy)| object(n, policy)));
    serde_json::to_string_pretty(&json!({"apiVersion": "v1", "kind": "List", "items": items})).unwrap()
}

fn label(key: &str, value: Option<char>) -> Value {
    value.map_or(json!({}), |value| json!({key: value}))
}

fn annotations(wish: Option<&Wish>) -> Value {
    let key = |name: &str| format!("egress.projectcalico.org/{name}");
    let mut found = Map::new();
    let mut put = |name: &str, value: String| drop(found.insert(key(name), value.into()));
    match wish {
        None => {}
        Some(Wish::Gateways(gateways)) => {
            put("selector", format!("colour == '{}'", gateways.colour));
            if let Some(namespaces) = gateways.namespaces {
                put("namespaceSelector", selector("team", namespaces));
            }
            if let Some(most) = gateways.most {
                put("maxNextHops", most.to_string());
            }
        }
        Some(Wish::Policies(names)) => {
            let names: Vec<String> = names.iter().map(|n| format!("p{n}")).collect();
            put("egressGatewayPolicy", names.join(", "));
        }
        Some(Wish::Both) => {
            put("selector", "all()".into());
            put("egressGatewayPolicy", "p0".into());
        }
        Some(Wish::Garbled) => put("selector", "colour ==".into()),
    }
    found.into()
}

fn selector(key: &str, value: Option<char>) -> String {
    value.map_or("all()".into(), |value| format!("{key} == '{value}'"))
}

fn object(n: usize, policy: &Policy) -> Value {
    let (version, kind) = match policy.kind {
        Kind::Ours => ("egret.dev/v1alpha1", "EgressGatewayPolicy"),
        Kind::Calico => ("projectcalico.org/v3", "EgressGatewayPolicy"),
        Kind::Cilium => ("cilium.io/v2", "CiliumEgressGatewayPolicy"),
    };
    let mut metadata = json!({"name": format!("p{n}")});
    if let Some(created) = policy.created {
        metadata["creationTimestamp"] = json!(format!("2026-01-0{created}T00:00:00Z"));
    }
    let spec = if policy.kind == Kind::Cilium { ciliums(policy) } else { ours(policy) };
    json!({"apiVersion": version, "kind": kind, "metadata": metadata, "spec": spec})
}

fn ours(policy: &Policy) -> Value {
    let mut rules: Vec<Value> = policy.rules.iter().map(|(cidr, to)| rule(&cidr.to_string(), to)).collect();
    if policy.garbled {
        rules.push(rule("nowhere", &To::Direct));
    }
    let mut spec = json!({"rules": rules});
    if !policy.selections.is_empty() {
        let entries = policy.selections.iter().map(|entry| {
            json!({
                "selector": selector("app", entry.app), "namespaceSelector": selector("team", entry.team),
                "nodeSelector": selector("zone", entry.zone),
            })
        });
        spec["selectors"] = entries.collect();
    }
    if policy.enforced {
        spec["enforced"] = json!(true);
    }
    if !policy.excluded.is_empty() {
        spec["excludedCIDRs"] = json!(policy.excluded);
    }
    if policy.deny {
        spec["defaultAction"] = json!("Deny");
    }
    spec
}

fn rule(cidr: &str, to: &To) -> Value {
    let mut rule = json!({"destination": {"cidr": cidr}});
    match to {
        To::Direct => {}
        To::Pods(gateways) => {
            rule["gateway"] = pods(gateways);
            if gateways.prefer_local {
                rule["gatewayPreference"] = json!("PreferNodeLocal");
            }
        }
        To::Nodes(wishes) => {
            let nodes = wishes.iter().map(|wish| leaving(wish, json!(selector("zone", wish.zone))));
            rule["gateway"] = json!({"nodes": nodes.collect::<Vec<_>>()});
        }
    }
    rule
}

fn pods(gateways: &Gateways) -> Value {
    let mut found = json!({"selector": format!("colour == '{}'", gateways.colour)});
    if let Some(namespaces) = gateways.namespaces {
        found["namespaceSelector"] = json!(selector("team", namespaces));
    }
    if let Some(most) = gateways.most {
        found["maxNextHops"] = json!(most);
    }
    found
}

fn leaving(wish: &NodeWish, nodes: Value) -> Value {
    let mut found = json!({"nodeSelector": nodes});
    match &wish.by {
        By::DefaultRoute => {}
        By::Interface(n) => found["interface"] = json!(format!("eth{n}")),
        By::Address(ip) => found["egressIP"] = json!(ip),
    }
    found
}

fn ciliums(policy: &Policy) -> Value {
    let matching = |key: &str, value: Option<char>| json!({"matchLabels": label(key, value)});
    let entries = policy.selections.iter().map(|entry| {
        let mut found = json!({"podSelector": matching("app", entry.app)});
        if entry.team.is_some() {
            found["namespaceSelector"] = matching("team", entry.team);
        }
        if entry.zone.is_some() {
            found["nodeSelector"] = matching("zone", entry.zone);
        }
        found
    });
    let Some((_, To::Nodes(wishes))) = policy.rules.first() else { panic!("Cilium's rules lead to nodes") };
    let gateways: Vec<Value> = wishes.iter().map(|wish| leaving(wish, matching("zone", wish.zone))).collect();
    let mut destinations: Vec<String> = policy.rules.iter().map(|(cidr, _)| cidr.to_string()).collect();
    if policy.garbled {
        destinations.push("nowhere".into());
    }
    let mut spec = json!({
        "selectors": entries.collect::<Vec<_>>(), "destinationCIDRs": destinations, "excludedCIDRs": policy.excluded,
    });
    match gateways.as_slice() {
        [one] => spec["egressGateway"] = one.clone(),
        several => spec["egressGateways"] = json!(several),
    }
    spec
}
